//! What a Pod may know about itself: `fieldRef` and `resourceFieldRef`, for variables and files.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::Capacity;
use crate::quantity::{ceil_div, millis};

/// The facts that are not in the Pod's own object yet when it starts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// The Pod's address.
    pub(crate) pod_ip: String,
    /// The node's address.
    pub(crate) host_ip: String,
    /// Limits default to what the node has.
    pub(crate) allocatable: Option<Capacity>,
}

/// The value of a field path, or why there is none.
pub(crate) fn field(pod: &Pod, path: &str, facts: &Facts) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    if let Some((head, key)) = subscript(path) {
        let map = match head {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(format!("fieldPath {path:?} does not support subscript")),
        };
        return Ok(text(map.and_then(|m| m.get(key))));
    }
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" | "status.podIPs" => facts.pod_ip.clone(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `metadata.labels['key']` in its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (head, rest) = path.split_once("['")?;
    Some((head, rest.strip_suffix("']")?))
}

/// A map as the downward API writes it into a file: sorted, quoted, one pair a line.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let mut out = String::new();
    for (key, value) in map.into_iter().flatten() {
        if !out.is_empty() {
            out.push('\n');
        }
        let _ = write!(out, "{key}={value:?}");
    }
    out
}

/// The value of a resource of one of the Pod's containers.
pub(crate) fn resource(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, String> {
    let spec = pod.spec.as_ref();
    let container = match (&selector.container_name, own) {
        (Some(name), _) if !name.is_empty() => spec
            .into_iter()
            .flat_map(|s| {
                s.containers
                    .iter()
                    .chain(s.init_containers.iter().flatten())
            })
            .find(|c| c.name == *name)
            .ok_or_else(|| format!("container {name} not found"))?,
        (_, Some(own)) => own,
        _ => return Err("resourceFieldRef names no container".to_owned()),
    };
    let (list, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource: {}", selector.resource))?;
    let resources = container.resources.as_ref();
    let limits = resources
        .and_then(|r| r.limits.as_ref())
        .and_then(|l| l.get(name));
    let requests = resources
        .and_then(|r| r.requests.as_ref())
        .and_then(|r| r.get(name));
    let set = match list {
        "limits" => limits,
        "requests" => requests.or(limits),
        _ => {
            return Err(format!(
                "unsupported container resource: {}",
                selector.resource
            ));
        }
    };
    let amount = match (set.and_then(millis), list) {
        (Some(amount), _) => amount,
        (None, "limits") => {
            let node = facts.allocatable.as_ref();
            match name {
                "cpu" => node.map_or(0, |n| i128::from(n.milli_cpu)),
                "memory" => node.map_or(0, |n| i128::from(n.memory) * 1000),
                "ephemeral-storage" => node.map_or(0, |n| i128::from(n.ephemeral_storage) * 1000),
                _ => 0,
            }
        }
        (None, _) => 0,
    };
    let divisor = selector
        .divisor
        .as_ref()
        .and_then(millis)
        .filter(|d| *d > 0)
        .unwrap_or(1000);
    Ok(ceil_div(amount, divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u",
                "labels": {"b": "2", "a": "say \"hi\""}},
            "spec": {"nodeName": "n", "containers": [{"name": "c",
                "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}]}
        }))
        .unwrap()
    }

    #[test]
    fn fields_are_found_by_path_and_by_key() {
        let facts = Facts {
            pod_ip: "127.97.0.9".into(),
            ..Facts::default()
        };
        let value = |path: &str| field(&pod(), path, &facts);
        assert_eq!(value("metadata.name").unwrap(), "p");
        assert_eq!(value("status.podIP").unwrap(), "127.97.0.9");
        assert_eq!(value("metadata.labels['b']").unwrap(), "2");
        assert_eq!(
            value("metadata.labels").unwrap(),
            "a=\"say \\\"hi\\\"\"\nb=\"2\""
        );
        assert_eq!(value("metadata.annotations['none']").unwrap(), "");
        assert_eq!(
            value("spec.foo").unwrap_err(),
            "unsupported fieldPath: spec.foo"
        );
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let facts = Facts {
            allocatable: Some(Capacity {
                milli_cpu: 4000,
                memory: 1 << 30,
                ephemeral_storage: 9,
            }),
            ..Facts::default()
        };
        let pod = pod();
        let own = &pod.spec.as_ref().unwrap().containers[0];
        let value = |resource_name: &str, divisor: Option<&str>| {
            let selector = ResourceFieldSelector {
                resource: resource_name.to_owned(),
                divisor: divisor.map(|d| Quantity(d.to_owned())),
                container_name: None,
            };
            resource(&pod, Some(own), &selector, &facts)
        };
        assert_eq!(value("limits.cpu", None).unwrap(), "2");
        assert_eq!(value("limits.cpu", Some("1m")).unwrap(), "1500");
        assert_eq!(value("limits.memory", Some("1Mi")).unwrap(), "64");
        assert_eq!(value("requests.memory", Some("1Mi")).unwrap(), "64");
        assert_eq!(value("limits.ephemeral-storage", None).unwrap(), "9");
        assert!(value("cpu", None).is_err());
    }
}
