//! The `scale` subresource: a Scale object read from, and written back to, a workload.

use serde_json::{Value, json};

use crate::field::ErrorList;
use crate::field::Path;
use crate::selector::LabelSelector;
use crate::{meta, tree};

/// Where a resource keeps its scale; dotted paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    /// A LabelSelector object or its string form.
    pub selector: Option<String>,
}

impl ScalePaths {
    /// Of the built-in workloads.
    pub fn builtin() -> Self {
        Self {
            spec_replicas: "spec.replicas".to_owned(),
            status_replicas: "status.replicas".to_owned(),
            selector: Some("spec.selector".to_owned()),
        }
    }

    /// From a CRD version's `subresources.scale`, whose paths start with a dot.
    pub fn of_custom(scale: &Value) -> Self {
        let path = |key: &str| tree::text(scale, key).trim_start_matches('.').to_owned();
        Self {
            spec_replicas: path("specReplicasPath"),
            status_replicas: path("statusReplicasPath"),
            selector: Some(path("labelSelectorPath")).filter(|path| !path.is_empty()),
        }
    }
}

/// The Scale (autoscaling/v1) of an object.
pub fn scale_of(object: &Value, paths: &ScalePaths) -> Value {
    let mut metadata = json!({});
    for key in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        tree::put(
            &mut metadata,
            key,
            tree::get(object, &format!("metadata.{key}")).cloned(),
        );
    }
    let wanted = tree::int(object, &paths.spec_replicas).unwrap_or(0);
    let mut status = json!({"replicas": tree::int(object, &paths.status_replicas).unwrap_or(0)});
    if let Some(selector) = paths
        .selector
        .as_ref()
        .and_then(|path| tree::get(object, path))
    {
        let text = selector_text(selector);
        tree::put(
            &mut status,
            "selector",
            (!text.is_empty()).then(|| json!(text)),
        );
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": if wanted == 0 { json!({}) } else { json!({"replicas": wanted}) },
        "status": status,
    })
}

fn selector_text(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    // A ReplicationController's selector is a plain map.
    let is_object =
        selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    if is_object {
        return LabelSelector::from_object(Some(selector))
            .unwrap_or_default()
            .to_string();
    }
    let labels = crate::table::format_labels(selector.as_object());
    if labels == "<none>" {
        String::new()
    } else {
        labels
    }
}

/// The object with the replicas that a Scale asks for; a Scale without any asks for none.
pub fn apply_scale(object: &mut Value, scale: &Value, paths: &ScalePaths) {
    let replicas = tree::int(scale, "spec.replicas").unwrap_or(0);
    let mut keys = paths.spec_replicas.split('.').peekable();
    let mut at = object;
    while let Some(key) = keys.next() {
        if keys.peek().is_none() {
            at[key] = json!(replicas);
            return;
        }
        at = tree::child(at, key);
    }
}

/// The errors of a Scale that is written.
pub fn validate_scale(scale: &Value) -> ErrorList {
    let spec = tree::get(scale, "spec")
        .cloned()
        .unwrap_or_else(|| json!({}));
    meta::non_negative(&spec, "replicas", &Path::new("spec"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let mut object = json!({
            "metadata": {"name": "d"},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "d"}}},
        });
        let paths = ScalePaths::builtin();
        let scale = scale_of(&object, &paths);
        assert_eq!(scale["spec"], json!({}));
        assert_eq!(scale["status"], json!({"replicas": 0, "selector": "app=d"}));
        apply_scale(&mut object, &json!({"spec": {"replicas": 2}}), &paths);
        assert_eq!(object["spec"]["replicas"], 2);
    }
}
