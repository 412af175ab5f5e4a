//! Validation of Pod specs and Pod templates, in upstream's order.

use serde_json::{Value, json};

use super::{affinity, container, resources, volumes};
use crate::content;
use crate::field::{Error, ErrorList, Path};
use crate::{meta, tree};

/// Where a Pod spec stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Pod,
    Template,
}

/// The errors of a Pod template.
pub(crate) fn template(template: &Value, path: &Path) -> ErrorList {
    let mut errors = meta::labels(
        tree::get(template, "metadata.labels"),
        &path.child("labels"),
    );
    let annotations = tree::get(template, "metadata.annotations");
    errors.extend(meta::annotations(annotations, &path.child("annotations")));
    let empty = json!({});
    let spec = tree::get(template, "spec").unwrap_or(&empty);
    errors.extend(pod_spec(spec, &path.child("spec"), Place::Template));
    if !tree::list(spec, "ephemeralContainers").is_empty() {
        let at = path.child("spec").child("ephemeralContainers");
        errors.push(Error::forbidden(
            &at,
            "ephemeral containers not allowed in pod template",
        ));
    }
    errors
}

/// The errors of a Pod spec.
pub(crate) fn pod_spec(spec: &Value, path: &Path, place: Place) -> ErrorList {
    let mut errors = ErrorList::new();
    let (names, volume_errors) =
        volumes::validate(tree::list(spec, "volumes"), &path.child("volumes"));
    errors.extend(volume_errors);
    errors.extend(container::validate_all(spec, &names, path));
    errors.extend(resources::requirements(
        tree::get(spec, "resources"),
        &path.child("resources"),
    ));
    if tree::truthy(spec, "hostNetwork") {
        errors.extend(host_network_ports(spec, path));
    }
    errors.extend(one_of(
        spec,
        "restartPolicy",
        path,
        &["Always", "OnFailure", "Never"],
    ));
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.extend(one_of(spec, "dnsPolicy", path, &dns));
    errors.extend(meta::labels(
        tree::get(spec, "nodeSelector"),
        &path.child("nodeSelector"),
    ));
    errors.extend(security_context(spec, path));
    for (i, secret) in tree::list(spec, "imagePullSecrets").iter().enumerate() {
        if tree::text(secret, "name").is_empty() {
            let at = path.child("imagePullSecrets").index(i).child("name");
            errors.push(Error::required(&at, ""));
        }
    }
    errors.extend(affinity::validate(spec, &path.child("affinity")));
    errors.extend(dns_config(spec, path));
    for (i, gate) in tree::list(spec, "readinessGates").iter().enumerate() {
        let name = tree::text(gate, "conditionType");
        let at = path.child("readinessGates").index(i).child("conditionType");
        for message in content::qualified_name(name) {
            errors.push(Error::invalid(&at, name, message));
        }
    }
    errors.extend(affinity::spread_constraints(
        spec,
        &path.child("topologySpreadConstraints"),
    ));
    for (key, check) in [
        (
            "serviceAccountName",
            content::dns1123_subdomain as fn(&str) -> Vec<String>,
        ),
        ("nodeName", content::dns1123_subdomain),
    ] {
        errors.extend(formatted(spec, key, path, check));
    }
    if let Some(seconds) = tree::int(spec, "activeDeadlineSeconds") {
        if !(1..=i64::from(i32::MAX)).contains(&seconds) {
            let detail = "must be between 1 and 2147483647, inclusive";
            errors.push(Error::invalid(
                &path.child("activeDeadlineSeconds"),
                seconds,
                detail,
            ));
        }
    }
    errors.extend(formatted(spec, "hostname", path, content::dns1123_label));
    errors.extend(formatted(spec, "subdomain", path, content::dns1123_label));
    errors.extend(tolerations(
        tree::list(spec, "tolerations"),
        &path.child("tolerations"),
    ));
    errors.extend(host_aliases(
        tree::list(spec, "hostAliases"),
        &path.child("hostAliases"),
    ));
    errors.extend(formatted(
        spec,
        "priorityClassName",
        path,
        content::dns1123_subdomain,
    ));
    errors.extend(formatted(
        spec,
        "runtimeClassName",
        path,
        content::dns1123_subdomain,
    ));
    errors.extend(one_of(
        spec,
        "preemptionPolicy",
        path,
        &["PreemptLowerPriority", "Never"],
    ));
    if place == Place::Pod {
        for list in ["containers", "initContainers"] {
            for (i, container) in tree::list(spec, list).iter().enumerate() {
                let image = tree::text(container, "image");
                if image.trim() != image {
                    let at = path.child(list).index(i).child("image");
                    let detail = "must not have leading or trailing whitespace";
                    errors.push(Error::invalid(&at, image, detail));
                }
            }
        }
    }
    errors
}

/// The text member `key` must be one of a closed set; absent is fine.
pub(crate) fn one_of(object: &Value, key: &str, path: &Path, allowed: &[&str]) -> ErrorList {
    let value = tree::text(object, key);
    if value.is_empty() || allowed.contains(&value) {
        return ErrorList::new();
    }
    Error::not_supported(&path.child(key), value, allowed).into()
}

/// The text member `key` must have a format; absent is fine.
pub(crate) fn formatted(
    object: &Value,
    key: &str,
    path: &Path,
    check: fn(&str) -> Vec<String>,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let value = tree::text(object, key);
    if !value.is_empty() {
        for message in check(value) {
            errors.push(Error::invalid(&path.child(key), value, message));
        }
    }
    errors
}

fn host_network_ports(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for list in ["containers", "initContainers"] {
        for (i, container) in tree::list(spec, list).iter().enumerate() {
            for (j, port) in tree::list(container, "ports").iter().enumerate() {
                let number = tree::int(port, "containerPort").unwrap_or(0);
                let host = tree::int(port, "hostPort").unwrap_or(0);
                if host != 0 && host != number {
                    let at = path
                        .child(list)
                        .index(i)
                        .child("ports")
                        .index(j)
                        .child("containerPort");
                    let detail = "must match `hostPort` when `hostNetwork` is true";
                    errors.push(Error::invalid(&at, number, detail));
                }
            }
        }
    }
    errors
}

fn security_context(spec: &Value, spec_path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = spec_path.child("securityContext");
    let Some(context) = tree::get(spec, "securityContext") else {
        return errors;
    };
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        errors.extend(id(context, key, &path));
    }
    for (i, group) in tree::list(context, "supplementalGroups").iter().enumerate() {
        let group = group.as_i64().unwrap_or(-1);
        if !(0..=i64::from(i32::MAX)).contains(&group) {
            let at = path.child("supplementalGroups").index(i);
            errors.push(Error::invalid(
                &at,
                group,
                "must be between 0 and 2147483647, inclusive",
            ));
        }
    }
    let change = ["Always", "OnRootMismatch"];
    errors.extend(one_of(context, "fsGroupChangePolicy", &path, &change));
    errors.extend(seccomp(context, &path));
    errors
}

/// A user or group id.
pub(crate) fn id(context: &Value, key: &str, path: &Path) -> ErrorList {
    match tree::int(context, key) {
        Some(value) if !(0..=i64::from(i32::MAX)).contains(&value) => {
            let detail = "must be between 0 and 2147483647, inclusive";
            Error::invalid(&path.child(key), value, detail).into()
        }
        _ => ErrorList::new(),
    }
}

pub(crate) fn seccomp(context: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = path.child("seccompProfile");
    let Some(profile) = tree::get(context, "seccompProfile") else {
        return errors;
    };
    let localhost = tree::get(profile, "localhostProfile").is_some();
    match tree::text(profile, "type") {
        "Localhost" if !localhost => {
            let detail = "must be set when seccomp type is Localhost";
            errors.push(Error::required(&path.child("localhostProfile"), detail));
        }
        "RuntimeDefault" | "Unconfined" if localhost => {
            let at = path.child("localhostProfile");
            let value = tree::text(profile, "localhostProfile");
            errors.push(Error::invalid(
                &at,
                value,
                "can only be set when seccomp type is Localhost",
            ));
        }
        "Localhost" | "RuntimeDefault" | "Unconfined" => {}
        "" => errors.push(Error::required(
            &path.child("type"),
            "type is required when seccompProfile is set",
        )),
        other => errors.push(Error::not_supported(
            &path.child("type"),
            other,
            &["Localhost", "RuntimeDefault", "Unconfined"],
        )),
    }
    errors
}

fn dns_config(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let config = tree::get(spec, "dnsConfig");
    let path = path.child("dnsConfig");
    if tree::text(spec, "dnsPolicy") == "None" {
        if config.is_none() {
            let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
            errors.push(Error::required(&path, detail));
            return errors;
        }
        if tree::list(spec, "dnsConfig.nameservers").is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(Error::required(&path.child("nameservers"), detail));
        }
    }
    let Some(config) = config else { return errors };
    let servers = tree::words(config, "nameservers");
    if servers.len() > 3 {
        let detail = "must not have more than 3 nameservers";
        errors.push(Error::invalid(
            &path.child("nameservers"),
            servers.clone(),
            detail,
        ));
    }
    for (i, server) in servers.iter().enumerate() {
        for message in content::ip_address(server) {
            errors.push(Error::invalid(
                &path.child("nameservers").index(i),
                *server,
                message,
            ));
        }
    }
    errors
}

fn tolerations(tolerations: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, toleration) in tolerations.iter().enumerate() {
        let path = path.index(i);
        let text = |key| tree::text(toleration, key);
        if !text("key").is_empty() {
            for message in content::qualified_name(text("key")) {
                errors.push(Error::invalid(&path.child("key"), text("key"), message));
            }
        }
        let operator = path.child("operator");
        if text("key").is_empty() && text("operator") != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all \
                 values and all keys\"";
            errors.push(Error::invalid(&operator, text("operator"), detail));
        }
        if tree::int(toleration, "tolerationSeconds").is_some() && text("effect") != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(Error::invalid(
                &path.child("effect"),
                text("effect"),
                detail,
            ));
        }
        match text("operator") {
            "" | "Equal" => {
                let complaints = content::label_value(text("value"));
                if !complaints.is_empty() {
                    errors.push(Error::invalid(
                        &operator,
                        text("value"),
                        complaints.join(";"),
                    ));
                }
            }
            "Exists" => {
                if !text("value").is_empty() {
                    let detail = "value must be empty when `operator` is 'Exists'";
                    errors.push(Error::invalid(&operator, toleration.clone(), detail));
                }
            }
            other => errors.push(Error::not_supported(&operator, other, &["Equal", "Exists"])),
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        errors.extend(one_of(toleration, "effect", &path, &effects));
    }
    errors
}

fn host_aliases(aliases: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, alias) in aliases.iter().enumerate() {
        let ip = tree::text(alias, "ip");
        for message in content::ip_address(ip) {
            errors.push(Error::invalid(&path.index(i).child("ip"), ip, message));
        }
        for name in tree::words(alias, "hostnames") {
            for message in content::dns1123_subdomain(name) {
                errors.push(Error::invalid(
                    &path.index(i).child("hostnames"),
                    name,
                    message,
                ));
            }
        }
    }
    errors
}
