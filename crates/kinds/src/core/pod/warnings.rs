//! Warnings about Pods and Pod templates: accepted, but not what the author can have meant.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::field::Path;
use crate::quantity::Quantity;
use crate::tree;

/// Node labels that were renamed: old, since, new.
const RENAMED_LABELS: [(&str, &str, &str); 4] = [
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "v1.17",
        "topology.kubernetes.io/region",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "v1.17",
        "topology.kubernetes.io/zone",
    ),
];

/// The warnings about the Pod template under a dotted path (`""` for a Pod itself).
pub(crate) fn of(object: &Value, at: &str) -> Vec<String> {
    let (template, path) = if at.is_empty() {
        (Some(object), Path::new("spec"))
    } else {
        (tree::get(object, at), Path::new(at).child("spec"))
    };
    let Some(spec) = template.and_then(|template| tree::get(template, "spec")) else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    for (key, _) in tree::strings(spec, "nodeSelector") {
        let renamed = RENAMED_LABELS.iter().find(|(old, _, _)| *old == key);
        if let Some((_, since, new)) = renamed {
            let at = path.child("nodeSelector").key(key);
            warnings.push(format!(
                "{at}: deprecated since {since}; use \"{new}\" instead"
            ));
        }
    }
    if tree::int(spec, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        let at = path.child("terminationGracePeriodSeconds");
        warnings.push(format!(
            "{at}: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    for list in ["initContainers", "containers"] {
        for (i, container) in tree::list(spec, list).iter().enumerate() {
            self::container(container, &path.child(list).index(i), &mut warnings);
        }
    }
    warnings
}

fn container(container: &Value, path: &Path, warnings: &mut Vec<String>) {
    let mut names = BTreeMap::new();
    for (i, variable) in tree::list(container, "env").iter().enumerate() {
        let name = tree::text(variable, "name");
        let value = tree::text(variable, "value");
        if let Some(before) = names.insert(name, value) {
            // A later value that uses the earlier one is a known way to extend it.
            if !value.contains(&format!("$({name})")) || before == value {
                let at = path.child("env").index(i);
                warnings.push(format!(
                    "{at}: hides previous definition of \"{name}\", which may be dropped when using apply"
                ));
            }
        }
    }
    for list in ["limits", "requests"] {
        for (name, value) in tree::strings(container, &format!("resources.{list}")) {
            let whole = value.parse::<Quantity>().is_ok_and(Quantity::is_whole);
            if matches!(name, "memory" | "ephemeral-storage") && !whole {
                let at = path.child("resources").child(list).key(name);
                warnings.push(format!(
                    "{at}: fractional byte value \"{value}\" is invalid, must be an integer"
                ));
            }
        }
    }
    let mut ports = BTreeMap::new();
    for (i, port) in tree::list(container, "ports").iter().enumerate() {
        let key = (
            tree::text(port, "protocol"),
            tree::int(port, "containerPort"),
            tree::int(port, "hostPort"),
            tree::text(port, "hostIP"),
        );
        let at = path.child("ports").index(i);
        match ports.get(&key) {
            Some(first) => warnings.push(format!("{at}: duplicate port definition with {first}")),
            None => {
                ports.insert(key, at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn warnings() {
        let daemon_set = json!({"spec": {"template": {"spec": {
            "nodeSelector": {"beta.kubernetes.io/os": "linux"},
            "containers": [{
                "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}],
                "resources": {"limits": {"memory": "100m"}},
                "ports": [{"containerPort": 80}, {"containerPort": 80}],
            }],
        }}}});
        let path = "spec.template.spec.containers[0]";
        assert_eq!(
            of(&daemon_set, "spec.template"),
            [
                "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \
                 \"kubernetes.io/os\" instead"
                    .to_owned(),
                format!(
                    "{path}.env[1]: hides previous definition of \"A\", which may be dropped when \
                     using apply"
                ),
                format!(
                    "{path}.resources.limits[memory]: fractional byte value \"100m\" is invalid, \
                     must be an integer"
                ),
                format!("{path}.ports[1]: duplicate port definition with {path}.ports[0]"),
            ]
        );
        assert!(of(&json!({"spec": {"containers": [{"name": "a"}]}}), "").is_empty());
    }
}
