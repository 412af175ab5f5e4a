//! Resource names and amounts: `requests`, `limits`, capacities.

use serde_json::Value;

use crate::content;
use crate::field::{Error, ErrorList, Path};
use crate::quantity::Quantity;
use crate::tree;

/// The errors of a container's `resources`.
pub(crate) fn requirements(resources: Option<&Value>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(resources) = resources else {
        return errors;
    };
    let (limit_path, request_path) = (path.child("limits"), path.child("requests"));
    let limits = tree::map(resources, "limits");
    for (name, value) in limits.into_iter().flatten() {
        errors.extend(resource(name, value, &limit_path.key(name)));
    }
    for (name, value) in tree::map(resources, "requests").into_iter().flatten() {
        errors.extend(resource(name, value, &request_path.key(name)));
        let Ok(request) = Quantity::from_json(value) else {
            continue;
        };
        match crate::quantity::of(limits, name) {
            Some(limit) if request != limit && !may_overcommit(name) => {
                let detail = format!("must be equal to {name} limit of {limit}");
                errors.push(Error::invalid(&request_path, request.to_string(), detail));
            }
            Some(limit) if request > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(Error::invalid(&request_path, request.to_string(), detail));
            }
            None if !may_overcommit(name) => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.push(Error::required(&limit_path, detail));
            }
            _ => {}
        }
    }
    errors
}

fn resource(name: &str, value: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for message in content::qualified_name(name) {
        errors.push(Error::invalid(path, name, message));
    }
    if errors.is_empty() && !name.contains('/') && !is_standard(name) {
        errors.push(Error::invalid(
            path,
            name,
            "must be a standard resource for containers",
        ));
    }
    errors.extend(amount(name, value, path));
    errors
}

/// An amount must not be negative, and whole where the resource is counted.
pub(crate) fn amount(name: &str, value: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let Ok(quantity) = Quantity::from_json(value) else {
        return errors;
    };
    if quantity.is_negative() {
        let detail = "must be greater than or equal to 0";
        errors.push(Error::invalid(path, quantity.to_string(), detail));
    }
    if is_counted(name) && !quantity.is_whole() {
        errors.push(Error::invalid(
            path,
            quantity.to_string(),
            "must be an integer",
        ));
    }
    errors
}

fn is_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn may_overcommit(name: &str) -> bool {
    is_native(name) && !name.starts_with("hugepages-")
}

/// Objects and extended resources are counted; cpu, memory and storage are measured.
fn is_counted(name: &str) -> bool {
    let objects = [
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    ];
    objects.contains(&name) || name.starts_with("count/") || !is_native(name)
}
