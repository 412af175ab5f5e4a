//! Validation of the apps kinds.

use serde_json::{Value, json};

use crate::core::pod::validate as pod;
use crate::core::volume;
use crate::field::{Error, ErrorList, Path};
use crate::selector::{LabelSelector, label};
use crate::{meta, tree};

const NO_MATCH: &str = "`selector` does not match template `labels`";

fn spec_of(object: &Value) -> Value {
    tree::get(object, "spec")
        .cloned()
        .unwrap_or_else(|| json!({}))
}

/// The errors of `spec.selector`: there, well formed, not empty.
fn selector(spec: &Value, path: &Path, kind: &str, required: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = path.child("selector");
    let Some(selector) = tree::get(spec, "selector") else {
        if required {
            errors.push(Error::required(&path, ""));
        }
        return errors;
    };
    errors.extend(label::validate_object(selector, &path));
    if LabelSelector::from_object(Some(selector)).is_ok_and(|selector| selector.is_everything()) {
        let detail = format!("empty selector is invalid for {kind}");
        errors.push(Error::invalid(&path, selector.clone(), detail));
    }
    errors
}

/// The errors of a template that a controller keeps running: selected, never ending.
fn template(spec: &Value, path: &Path, kind: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let Ok(selector) = LabelSelector::from_object(tree::get(spec, "selector")) else {
        let at = path.child("selector");
        let value = tree::get(spec, "selector").cloned().unwrap_or(Value::Null);
        errors.push(Error::invalid(&at, value, "invalid label selector"));
        return errors;
    };
    let path = path.child("template");
    let empty = json!({});
    let template = tree::get(spec, "template").unwrap_or(&empty);
    errors.extend(selected(&selector, template, &path));
    errors.extend(pod::template(template, &path));
    errors.extend(endless(template, &path, kind));
    errors
}

/// The template's labels must match, unless the selector matches anything.
pub(crate) fn selected(selector: &LabelSelector, template: &Value, path: &Path) -> ErrorList {
    let labels = tree::map(template, "metadata.labels");
    if selector.is_everything() || selector.matches(labels) {
        return ErrorList::new();
    }
    let value = tree::get(template, "metadata.labels")
        .cloned()
        .unwrap_or(Value::Null);
    Error::invalid(&path.child("metadata").child("labels"), value, NO_MATCH).into()
}

fn endless(template: &Value, path: &Path, kind: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec = path.child("spec");
    let policy = tree::text(template, "spec.restartPolicy");
    if policy != "Always" {
        errors.push(Error::not_supported(
            &spec.child("restartPolicy"),
            policy,
            &["Always"],
        ));
    }
    if tree::get(template, "spec.activeDeadlineSeconds").is_some() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(Error::forbidden(
            &spec.child("activeDeadlineSeconds"),
            detail,
        ));
    }
    errors
}

pub(super) fn deployment(object: &Value) -> ErrorList {
    let (spec, path) = (spec_of(object), Path::new("spec"));
    let mut errors = meta::non_negative(&spec, "replicas", &path);
    errors.extend(selector(&spec, &path, "deployment", true));
    errors.extend(template(&spec, &path, "ReplicaSet"));
    errors.extend(deployment_strategy(&spec, &path.child("strategy")));
    errors.extend(meta::non_negative(&spec, "minReadySeconds", &path));
    errors.extend(meta::non_negative(&spec, "revisionHistoryLimit", &path));
    errors.extend(meta::non_negative(&spec, "progressDeadlineSeconds", &path));
    if let Some(deadline) = tree::int(&spec, "progressDeadlineSeconds") {
        if deadline <= tree::int(&spec, "minReadySeconds").unwrap_or(0) {
            let at = path.child("progressDeadlineSeconds");
            errors.push(Error::invalid(
                &at,
                deadline,
                "must be greater than minReadySeconds",
            ));
        }
    }
    errors
}

fn deployment_strategy(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let rolling = tree::get(spec, "strategy.rollingUpdate");
    let at = path.child("rollingUpdate");
    match tree::text(spec, "strategy.type") {
        "Recreate" => {
            if rolling.is_some() {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(Error::forbidden(&at, detail));
            }
        }
        "RollingUpdate" => match rolling {
            None => {
                let detail = "this should be defaulted and never be nil";
                errors.push(Error::required(&at, detail));
            }
            Some(rolling) => errors.extend(rolling_update(rolling, &at)),
        },
        other => {
            let shown = rolling.map_or_else(
                || "null".to_owned(),
                |rolling| {
                    let member = |key| tree::get(rolling, key).cloned().unwrap_or_else(|| json!(0));
                    let (unavailable, surge) = (member("maxUnavailable"), member("maxSurge"));
                    format!("{{\"MaxUnavailable\":{unavailable},\"MaxSurge\":{surge}}}")
                },
            );
            let value = format!("{{\"Type\":{},\"RollingUpdate\":{shown}}}", json!(other));
            errors.push(Error::not_supported_raw(
                path,
                value,
                &["Recreate", "RollingUpdate"],
            ));
        }
    }
    errors
}

fn rolling_update(rolling: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let [unavailable, surge] = ["maxUnavailable", "maxSurge"].map(|key| {
        errors.extend(int_or_percent(tree::get(rolling, key), &path.child(key)));
        tree::get(rolling, key)
    });
    let unavailable_path = path.child("maxUnavailable");
    if is_zero(unavailable) && is_zero(surge) {
        let value = unavailable.cloned().unwrap_or_else(|| json!(0));
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.push(Error::invalid(&unavailable_path, value, detail));
    }
    if percent(unavailable).is_some_and(|percent| percent > 100) {
        let value = unavailable.cloned().unwrap_or(Value::Null);
        errors.push(Error::invalid(
            &unavailable_path,
            value,
            "must not be greater than 100%",
        ));
    }
    errors
}

fn percent(value: Option<&Value>) -> Option<i64> {
    value?.as_str()?.strip_suffix('%')?.parse().ok()
}

fn is_zero(value: Option<&Value>) -> bool {
    value
        .and_then(Value::as_i64)
        .or_else(|| percent(value))
        .unwrap_or(0)
        == 0
}

/// A count that is not negative, or a percentage.
pub(crate) fn int_or_percent(value: Option<&Value>, path: &Path) -> ErrorList {
    match value {
        Some(Value::String(text)) => {
            let digits = text.strip_suffix('%').unwrap_or("");
            if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) {
                return ErrorList::new();
            }
            let detail = "a valid percent string must be a numeric string followed by an ending \
                 '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            Error::invalid(path, text.as_str(), detail).into()
        }
        Some(value) if value.as_i64().is_some_and(|number| number < 0) => {
            Error::invalid(path, value.clone(), "must be greater than or equal to 0").into()
        }
        _ => ErrorList::new(),
    }
}

pub(super) fn replica_set(object: &Value) -> ErrorList {
    let (spec, path) = (spec_of(object), Path::new("spec"));
    let mut errors = meta::non_negative(&spec, "replicas", &path);
    errors.extend(meta::non_negative(&spec, "minReadySeconds", &path));
    errors.extend(selector(&spec, &path, "replicaset", true));
    errors.extend(template(&spec, &path, "ReplicaSet"));
    errors
}

pub(super) fn replication_controller(object: &Value) -> ErrorList {
    let (spec, path) = (spec_of(object), Path::new("spec"));
    let mut errors = meta::non_negative(&spec, "minReadySeconds", &path);
    let labels = tree::map(&spec, "selector");
    if labels.is_none_or(serde_json::Map::is_empty) {
        errors.push(Error::required(&path.child("selector"), ""));
    }
    errors.extend(meta::non_negative(&spec, "replicas", &path));
    let template_path = path.child("template");
    let empty = json!({});
    let template = tree::get(&spec, "template").unwrap_or(&empty);
    errors.extend(selected(
        &LabelSelector::from_labels(labels),
        template,
        &template_path,
    ));
    errors.extend(pod::template(template, &template_path));
    errors.extend(endless(template, &template_path, "ReplicationController"));
    errors
}

pub(super) fn daemon_set(object: &Value) -> ErrorList {
    let (spec, path) = (spec_of(object), Path::new("spec"));
    let mut errors = ErrorList::new();
    let selector_path = path.child("selector");
    let given = tree::get(&spec, "selector");
    match given {
        None => errors.push(Error::required(&selector_path, "")),
        Some(given) => errors.extend(label::validate_object(given, &selector_path)),
    }
    let template_path = path.child("template");
    let empty = json!({});
    let template = tree::get(&spec, "template").unwrap_or(&empty);
    if let Ok(selector) = LabelSelector::from_object(given) {
        if !selector.matches(tree::map(template, "metadata.labels")) {
            errors.extend(selected(&selector, template, &template_path));
        }
        if selector.is_everything() {
            let value = given.cloned().unwrap_or(Value::Null);
            let detail = "empty selector is invalid for daemonset";
            errors.push(Error::invalid(&selector_path, value, detail));
        }
    }
    errors.extend(pod::template(template, &template_path));
    errors.extend(endless(template, &template_path, "DaemonSet"));
    errors.extend(meta::non_negative(&spec, "minReadySeconds", &path));
    errors.extend(daemon_set_strategy(&spec, &path.child("updateStrategy")));
    errors.extend(meta::non_negative(&spec, "revisionHistoryLimit", &path));
    errors
}

fn daemon_set_strategy(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    match tree::text(spec, "updateStrategy.type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let at = path.child("rollingUpdate");
            let Some(rolling) = tree::get(spec, "updateStrategy.rollingUpdate") else {
                errors.push(Error::required(&at, ""));
                return errors;
            };
            let [unavailable, surge] = ["maxUnavailable", "maxSurge"].map(|key| {
                errors.extend(int_or_percent(tree::get(rolling, key), &at.child(key)));
                tree::get(rolling, key)
            });
            if is_zero(unavailable) && is_zero(surge) {
                let detail = "cannot be 0 when maxSurge is 0";
                let value = unavailable.cloned().unwrap_or_else(|| json!(0));
                errors.push(Error::invalid(&at.child("maxUnavailable"), value, detail));
            } else if !is_zero(unavailable) && !is_zero(surge) {
                let detail = "may not be set when maxUnavailable is non-zero";
                let value = surge.cloned().unwrap_or_else(|| json!(0));
                errors.push(Error::invalid(&at.child("maxSurge"), value, detail));
            }
        }
        other => {
            let kinds = ["RollingUpdate", "OnDelete"];
            errors.push(Error::not_supported(&path.child("type"), other, &kinds));
        }
    }
    errors
}

pub(super) fn stateful_set(object: &Value) -> ErrorList {
    let (spec, path) = (spec_of(object), Path::new("spec"));
    let mut errors = ErrorList::new();
    let policies = ["OrderedReady", "Parallel"];
    errors.extend(pod::one_of(&spec, "podManagementPolicy", &path, &policies));
    let strategies = ["RollingUpdate", "OnDelete"];
    let strategy = tree::get(&spec, "updateStrategy")
        .cloned()
        .unwrap_or_else(|| json!({}));
    errors.extend(pod::one_of(
        &strategy,
        "type",
        &path.child("updateStrategy"),
        &strategies,
    ));
    errors.extend(meta::non_negative(&spec, "replicas", &path));
    errors.extend(meta::non_negative(&spec, "minReadySeconds", &path));
    errors.extend(selector(&spec, &path, "statefulset", true));
    errors.extend(template(&spec, &path, "StatefulSet"));
    for (i, claim) in tree::list(&spec, "volumeClaimTemplates").iter().enumerate() {
        let at = path.child("volumeClaimTemplates").index(i).child("spec");
        let empty = json!({});
        errors.extend(volume::validate_claim_spec(
            tree::get(claim, "spec").unwrap_or(&empty),
            &at,
        ));
    }
    errors
}

pub(super) fn stateful_set_update(new: &Value, old: &Value) -> ErrorList {
    let mut errors = stateful_set(new);
    let frozen = |object: &Value| {
        let mut spec = spec_of(object);
        for key in [
            "replicas",
            "ordinals",
            "template",
            "updateStrategy",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
            "minReadySeconds",
        ] {
            tree::remove(&mut spec, key);
        }
        spec
    };
    if !tree::alike(Some(&frozen(new)), Some(&frozen(old))) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
             'template', 'updateStrategy', 'revisionHistoryLimit', \
             'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.push(Error::forbidden(&Path::new("spec"), detail));
    }
    errors
}

/// Counts in a workload's status are not negative.
pub(super) fn status_counts(object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let status = tree::get(object, "status")
        .cloned()
        .unwrap_or_else(|| json!({}));
    for key in [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
    ] {
        errors.extend(meta::non_negative(&status, key, &Path::new("status")));
    }
    errors
}
