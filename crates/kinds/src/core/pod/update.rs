//! What of a Pod may change after it was made.

use serde_json::{Value, json};

use super::validate;
use crate::ctx::Ctx;
use crate::field::{Error, ErrorList, Path};
use crate::tree;

const CHANGEABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,\
     `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
     `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(crate) fn validate(_: &Ctx, new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let empty = json!({});
    let spec = tree::get(new, "spec").unwrap_or(&empty);
    errors.extend(validate::pod_spec(spec, &path, validate::Place::Pod));
    for list in ["containers", "initContainers"] {
        let key = format!("spec.{list}");
        let (after, before) = (tree::list(new, &key), tree::list(old, &key));
        if after.len() != before.len() {
            let detail = "pod updates may not add or remove containers";
            errors.push(Error::forbidden(&path.child(list), detail));
            return errors;
        }
    }
    if let Some(error) = deadline(new, old, &path) {
        errors.push(error);
        return errors;
    }
    errors.extend(tolerations(new, old, &path.child("tolerations")));

    let mut munged = spec.clone();
    let before = tree::get(old, "spec").cloned().unwrap_or_else(|| json!({}));
    for list in ["containers", "initContainers"] {
        for (i, container) in tree::list_mut(&mut munged, list).iter_mut().enumerate() {
            let image = before.pointer(&format!("/{list}/{i}/image")).cloned();
            tree::put(container, "image", image);
        }
    }
    for key in ["activeDeadlineSeconds", "tolerations"] {
        tree::put(&mut munged, key, before.get(key).cloned());
    }
    let grace = "terminationGracePeriodSeconds";
    if tree::int(&before, grace).is_some_and(|seconds| seconds < 0)
        && tree::int(&munged, grace) == Some(1)
    {
        tree::put(&mut munged, grace, before.get(grace).cloned());
    }
    if !tree::list(&before, "schedulingGates").is_empty() {
        let had = tree::list(&before, "schedulingGates");
        if tree::list(&munged, "schedulingGates")
            .iter()
            .all(|gate| had.contains(gate))
        {
            tree::put(
                &mut munged,
                "schedulingGates",
                before.get("schedulingGates").cloned(),
            );
            tree::put(
                &mut munged,
                "nodeSelector",
                before.get("nodeSelector").cloned(),
            );
            tree::put(&mut munged, "affinity", before.get("affinity").cloned());
        } else {
            let detail = "only deletion is allowed, but found new scheduling gate";
            errors.push(Error::forbidden(&path.child("schedulingGates"), detail));
        }
    }
    if !tree::alike(Some(&munged), Some(&before)) {
        let detail = format!(
            "pod updates may not change fields other than {CHANGEABLE}\n{}",
            difference(&before, &munged)
        );
        errors.push(Error::forbidden(&path, detail));
    }
    errors
}

fn deadline(new: &Value, old: &Value, path: &Path) -> Option<Error> {
    let key = "spec.activeDeadlineSeconds";
    let at = path.child("activeDeadlineSeconds");
    match (tree::int(new, key), tree::int(old, key)) {
        (Some(after), _) if !(0..=i64::from(i32::MAX)).contains(&after) => Some(Error::invalid(
            &at,
            after,
            "must be between 0 and 2147483647, inclusive",
        )),
        (Some(after), Some(before)) if after > before => Some(Error::invalid(
            &at,
            after,
            "must be less than or equal to previous value",
        )),
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            Some(Error::invalid(&at, "null", detail))
        }
        _ => None,
    }
}

fn tolerations(new: &Value, old: &Value, path: &Path) -> ErrorList {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        tree::remove(&mut toleration, "tolerationSeconds");
        toleration
    };
    let after: Vec<Value> = tree::list(new, "spec.tolerations")
        .iter()
        .map(without_seconds)
        .collect();
    let kept = tree::list(old, "spec.tolerations")
        .iter()
        .all(|toleration| after.contains(&without_seconds(toleration)));
    if kept {
        return ErrorList::new();
    }
    let detail = "existing toleration can not be modified except its tolerationSeconds";
    Error::forbidden(path, detail).into()
}

/// The members that differ, old and new, one a line.
fn difference(old: &Value, new: &Value) -> String {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return String::new();
    };
    let mut lines = Vec::new();
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let (before, after) = (old.get(key), new.get(key));
        if !tree::alike(before, after) {
            lines.extend(before.map(|value| format!("- {key}: {value}")));
            lines.extend(after.map(|value| format!("+ {key}: {value}")));
        }
    }
    lines.join("\n")
}
