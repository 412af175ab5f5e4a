//! Defaults of Pods and Pod templates.

use serde_json::{Value, json};

use crate::tree::{self, set_default, set_default_text};
use crate::{core, quantity};

/// Members whose empty lists are written out, since their fields are not optional.
const KEPT_LISTS: [&str; 3] = ["containers", "sources", "nodeSelectorTerms"];

pub(crate) fn pod(pod: &mut Value) {
    let spec = tree::child(pod, "spec");
    pod_spec(spec);
    set_default(spec, "enableServiceLinks", true);
    if tree::truthy(spec, "hostNetwork") {
        for list in ["containers", "initContainers"] {
            for container in tree::list_mut(spec, list) {
                for port in tree::list_mut(container, "ports") {
                    if tree::int(port, "hostPort").unwrap_or(0) == 0 {
                        port["hostPort"] = port["containerPort"].clone();
                    }
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for container in tree::list_mut(spec, list) {
            limits_to_requests(container);
        }
    }
    pod_ips(pod);
    if tree::get(pod, "status").is_none() {
        pod["status"] = json!({});
    }
}

/// `podIP` and the first of `podIPs` are the same thing.
pub(crate) fn pod_ips(pod: &mut Value) {
    for (one, many) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
        let Some(status) = tree::get_mut(pod, "status") else {
            return;
        };
        let ip = tree::text(status, one).to_owned();
        let first = tree::list(status, many)
            .first()
            .map_or("", |ip| tree::text(ip, "ip"))
            .to_owned();
        if ip.is_empty() && !first.is_empty() {
            status[one] = json!(first);
        } else if one == "podIP" && !ip.is_empty() && ip != first {
            status[many] = json!([{ "ip": ip }]);
        }
    }
}

/// Defaults of a Pod template (`spec.template`): the encoder writes its metadata always.
pub(crate) fn template(template: &mut Value) {
    let metadata = tree::child(template, "metadata");
    tree::object(metadata)
        .retain(|_, value| !value.is_null() && value.as_object().is_none_or(|map| !map.is_empty()));
    pod_spec(tree::child(template, "spec"));
}

/// Defaults of a Pod spec wherever it stands.
pub(crate) fn pod_spec(spec: &mut Value) {
    drop_empty_lists(spec);
    if tree::map(spec, "nodeSelector").is_some_and(serde_json::Map::is_empty) {
        tree::remove(spec, "nodeSelector");
    }
    if tree::get(spec, "containers").is_none() {
        tree::object(spec).insert("containers".to_owned(), Value::Null);
    }
    set_default_text(spec, "dnsPolicy", "ClusterFirst");
    set_default_text(spec, "restartPolicy", "Always");
    set_default(spec, "terminationGracePeriodSeconds", 30);
    set_default(spec, "securityContext", json!({}));
    set_default_text(spec, "schedulerName", "default-scheduler");
    service_account_alias(spec);
    for volume in tree::list_mut(spec, "volumes") {
        self::volume(volume);
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in tree::list_mut(spec, list) {
            self::container(container);
        }
    }
    quantity::canonicalise_map(spec, "overhead");
    quantity::canonicalise_map(spec, "resources.limits");
    quantity::canonicalise_map(spec, "resources.requests");
}

/// `serviceAccount` is an old name of `serviceAccountName`; the new one wins, both are shown.
fn service_account_alias(spec: &mut Value) {
    let new = tree::text(spec, "serviceAccountName");
    let name = if new.is_empty() {
        tree::text(spec, "serviceAccount")
    } else {
        new
    }
    .to_owned();
    if !name.is_empty() {
        spec["serviceAccountName"] = json!(name);
        spec["serviceAccount"] = json!(name);
    }
}

fn drop_empty_lists(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| {
                KEPT_LISTS.contains(&key.as_str())
                    || value.as_array().is_none_or(|list| !list.is_empty())
            });
            map.values_mut().for_each(drop_empty_lists);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_empty_lists),
        _ => {}
    }
}

fn limits_to_requests(container: &mut Value) {
    let Some(limits) = tree::map(container, "resources.limits").cloned() else {
        return;
    };
    if limits.is_empty() {
        return;
    }
    let requests = tree::child(tree::child(container, "resources"), "requests");
    for (name, limit) in limits {
        set_default(requests, &name, limit);
    }
}

fn container(container: &mut Value) {
    set_default(container, "name", "");
    set_default(container, "resources", json!({}));
    quantity::canonicalise_map(container, "resources.limits");
    quantity::canonicalise_map(container, "resources.requests");
    set_default_text(container, "terminationMessagePath", "/dev/termination-log");
    set_default_text(container, "terminationMessagePolicy", "File");
    let policy = pull_policy(tree::text(container, "image"));
    set_default_text(container, "imagePullPolicy", policy);
    for port in tree::list_mut(container, "ports") {
        set_default_text(port, "protocol", "TCP");
        for key in ["hostPort"] {
            if tree::int(port, key) == Some(0) {
                tree::remove(port, key);
            }
        }
    }
    for variable in tree::list_mut(container, "env") {
        if tree::text(variable, "value").is_empty() {
            tree::remove(variable, "value");
        }
        if let Some(reference) = tree::get_mut(variable, "valueFrom.fieldRef") {
            set_default_text(reference, "apiVersion", "v1");
        }
        if let Some(reference) = tree::get_mut(variable, "valueFrom.resourceFieldRef") {
            set_default(reference, "divisor", "0");
            quantity::canonicalise(&mut reference["divisor"]);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = tree::get_mut(container, probe) {
            self::probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(action) = tree::get_mut(container, &format!("lifecycle.{hook}.httpGet")) {
            http_get(action);
        }
    }
}

fn probe(probe: &mut Value) {
    for (key, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if tree::int(probe, key).unwrap_or(0) == 0 {
            probe[key] = json!(value);
        }
    }
    if tree::int(probe, "initialDelaySeconds") == Some(0) {
        tree::remove(probe, "initialDelaySeconds");
    }
    if let Some(action) = tree::get_mut(probe, "httpGet") {
        http_get(action);
    }
    if let Some(action) = tree::get_mut(probe, "grpc") {
        set_default(action, "service", "");
    }
}

fn http_get(action: &mut Value) {
    set_default_text(action, "path", "/");
    set_default_text(action, "scheme", "HTTP");
}

/// `Always` for images without a tag or tagged `latest`, `IfNotPresent` for others.
pub(crate) fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image
        .split_once('@')
        .map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
        None if digest => "IfNotPresent",
        None => "Always",
    }
}

/// Defaults of one volume of a Pod.
fn volume(volume: &mut Value) {
    let has_source = volume.as_object().is_some_and(|map| {
        map.iter()
            .any(|(key, value)| key != "name" && !value.is_null())
    });
    if !has_source {
        tree::put(volume, "emptyDir", Some(json!({})));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = tree::get_mut(volume, source) {
            set_default(source, "defaultMode", 420);
        }
    }
    for item in tree::list_mut(volume, "downwardAPI.items") {
        downward_item(item);
    }
    for source in tree::list_mut(volume, "projected.sources") {
        for item in tree::list_mut(source, "downwardAPI.items") {
            downward_item(item);
        }
        if let Some(token) = tree::get_mut(source, "serviceAccountToken") {
            set_default(token, "expirationSeconds", 3600);
        }
    }
    if let Some(limit) = tree::get_mut(volume, "emptyDir.sizeLimit") {
        quantity::canonicalise(limit);
    }
    if let Some(template) = tree::get_mut(volume, "ephemeral.volumeClaimTemplate") {
        tree::child(template, "metadata");
        core::volume::claim_spec_defaults(tree::child(template, "spec"));
    }
    if let Some(image) = tree::get_mut(volume, "image") {
        let policy = pull_policy(tree::text(image, "reference"));
        set_default_text(image, "pullPolicy", policy);
    }
    source_defaults(volume);
}

/// Defaults of volume sources that Pods and PersistentVolumes share.
pub(crate) fn source_defaults(volume: &mut Value) {
    if let Some(source) = tree::get_mut(volume, "hostPath") {
        set_default(source, "type", "");
    }
    if let Some(source) = tree::get_mut(volume, "iscsi") {
        set_default_text(source, "iscsiInterface", "default");
    }
    if let Some(source) = tree::get_mut(volume, "rbd") {
        set_default_text(source, "pool", "rbd");
        set_default_text(source, "user", "admin");
        set_default_text(source, "keyring", "/etc/ceph/keyring");
    }
    if let Some(source) = tree::get_mut(volume, "azureDisk") {
        set_default_text(source, "cachingMode", "ReadWrite");
        set_default_text(source, "kind", "Shared");
        set_default_text(source, "fsType", "ext4");
        set_default(source, "readOnly", false);
    }
    if let Some(source) = tree::get_mut(volume, "scaleIO") {
        set_default_text(source, "storageMode", "ThinProvisioned");
        set_default_text(source, "fsType", "xfs");
    }
}

fn downward_item(item: &mut Value) {
    if let Some(reference) = tree::get_mut(item, "fieldRef") {
        set_default_text(reference, "apiVersion", "v1");
    }
    if let Some(reference) = tree::get_mut(item, "resourceFieldRef") {
        set_default(reference, "divisor", "0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policies() {
        for (image, expected) in [
            ("i", "Always"),
            ("i:latest", "Always"),
            ("i:1", "IfNotPresent"),
            ("host:5000/i", "Always"),
            ("host:5000/i:2", "IfNotPresent"),
            ("i@sha256:abc", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), expected, "{image}");
        }
    }
}
