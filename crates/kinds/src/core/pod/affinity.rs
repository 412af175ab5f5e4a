//! Validation of affinities, node selectors and spread constraints.

use serde_json::Value;

use super::validate::one_of;
use crate::content;
use crate::field::{Error, ErrorList, Path};
use crate::selector::label;
use crate::tree;

pub(crate) fn validate(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(affinity) = tree::get(spec, "affinity") else {
        return errors;
    };
    let (required, preferred) = (
        "requiredDuringSchedulingIgnoredDuringExecution",
        "preferredDuringSchedulingIgnoredDuringExecution",
    );
    if let Some(node) = tree::get(affinity, "nodeAffinity") {
        let path = path.child("nodeAffinity");
        if let Some(selector) = tree::get(node, required) {
            errors.extend(node_selector(selector, &path.child(required)));
        }
        for (i, term) in tree::list(node, preferred).iter().enumerate() {
            let path = path.child(preferred).index(i);
            errors.extend(weight(term, &path));
            if let Some(preference) = tree::get(term, "preference") {
                errors.extend(node_selector_term(preference, &path.child("preference")));
            }
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pod) = tree::get(affinity, kind) else {
            continue;
        };
        let path = path.child(kind);
        for (i, term) in tree::list(pod, required).iter().enumerate() {
            errors.extend(pod_term(term, &path.child(required).index(i)));
        }
        for (i, weighted) in tree::list(pod, preferred).iter().enumerate() {
            let path = path.child(preferred).index(i);
            errors.extend(weight(weighted, &path));
            if let Some(term) = tree::get(weighted, "podAffinityTerm") {
                errors.extend(pod_term(term, &path.child("podAffinityTerm")));
            }
        }
    }
    errors
}

fn weight(term: &Value, path: &Path) -> ErrorList {
    let weight = tree::int(term, "weight").unwrap_or(0);
    if (1..=100).contains(&weight) {
        return ErrorList::new();
    }
    Error::invalid(&path.child("weight"), weight, "must be in the range 1-100").into()
}

/// The errors of a NodeSelector object, which PersistentVolumes have too.
pub(crate) fn node_selector(selector: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let terms = tree::list(selector, "nodeSelectorTerms");
    let path = path.child("nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(Error::required(
            &path,
            "must have at least one node selector term",
        ));
    }
    for (i, term) in terms.iter().enumerate() {
        errors.extend(node_selector_term(term, &path.index(i)));
    }
    errors
}

fn node_selector_term(term: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in ["matchExpressions", "matchFields"] {
        for (i, expression) in tree::list(term, key).iter().enumerate() {
            errors.extend(node_requirement(expression, &path.child(key).index(i)));
        }
    }
    errors
}

fn node_requirement(expression: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let count = tree::list(expression, "values").len();
    let values = path.child("values");
    match tree::text(expression, "operator") {
        "In" | "NotIn" => {
            if count == 0 {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(Error::required(&values, detail));
            }
        }
        "Exists" | "DoesNotExist" => {
            if count > 0 {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(Error::forbidden(&values, detail));
            }
        }
        "Gt" | "Lt" => {
            if count != 1 {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.push(Error::required(&values, detail));
            }
        }
        other => {
            let at = path.child("operator");
            errors.push(Error::invalid(&at, other, "not a valid selector operator"));
        }
    }
    let key = tree::text(expression, "key");
    for message in content::qualified_name(key) {
        errors.push(Error::invalid(&path.child("key"), key, message));
    }
    errors
}

fn pod_term(term: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = tree::get(term, key) {
            errors.extend(label::validate_object(selector, &path.child(key)));
        }
    }
    for (i, name) in tree::words(term, "namespaces").into_iter().enumerate() {
        for message in content::dns1123_label(name) {
            errors.push(Error::invalid(
                &path.child("namespaces").index(i),
                name,
                message,
            ));
        }
    }
    let key = tree::text(term, "topologyKey");
    let at = path.child("topologyKey");
    if key.is_empty() {
        errors.push(Error::required(&at, "can not be empty"));
    } else {
        for message in content::qualified_name(key) {
            errors.push(Error::invalid(&at, key, message));
        }
    }
    errors
}

pub(crate) fn spread_constraints(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, constraint) in tree::list(spec, "topologySpreadConstraints")
        .iter()
        .enumerate()
    {
        let path = path.index(i);
        let skew = tree::int(constraint, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            let at = path.child("maxSkew");
            errors.push(Error::invalid(&at, skew, "must be greater than zero"));
        }
        if tree::text(constraint, "topologyKey").is_empty() {
            errors.push(Error::required(
                &path.child("topologyKey"),
                "can not be empty",
            ));
        }
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        errors.extend(one_of(constraint, "whenUnsatisfiable", &path, &actions));
        if let Some(selector) = tree::get(constraint, "labelSelector") {
            errors.extend(label::validate_object(
                selector,
                &path.child("labelSelector"),
            ));
        }
    }
    errors
}
