//! Validation of containers: names, images, ports, environment, mounts, security.

use std::collections::BTreeSet;

use serde_json::Value;

use super::validate::{id, one_of, seccomp};
use super::{probe, resources, volumes};
use crate::content;
use crate::field::{Error, ErrorList, Path};
use crate::tree;

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Every field that the downward API knows; of these a place supports some.
const DOWNWARD_FIELDS: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

/// The errors of all containers of a Pod spec; `volumes` are the names they may mount.
pub(crate) fn validate_all(spec: &Value, volumes: &BTreeSet<&str>, spec_path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let containers = tree::list(spec, "containers");
    let path = spec_path.child("containers");
    let mut names = BTreeSet::new();
    if containers.is_empty() {
        errors.push(Error::required(&path, ""));
    }
    for (i, container) in containers.iter().enumerate() {
        let path = path.index(i);
        errors.extend(common(container, volumes, &path));
        let name = tree::text(container, "name");
        if !names.insert(name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
        errors.extend(probe::all(container, &path));
    }
    errors.extend(host_port_conflicts(containers, &path));

    let path = spec_path.child("initContainers");
    let init = tree::list(spec, "initContainers");
    for (i, container) in init.iter().enumerate() {
        let path = path.index(i);
        errors.extend(common(container, volumes, &path));
        let name = tree::text(container, "name");
        if !name.is_empty() && !names.insert(name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
        let policy = tree::text(container, "restartPolicy");
        if policy == "Always" {
            errors.extend(probe::all(container, &path));
            continue;
        }
        if !policy.is_empty() {
            let at = path.child("restartPolicy");
            errors.push(Error::not_supported(&at, policy, &["Always"]));
        }
        for key in [
            "lifecycle",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
        ] {
            if tree::get(container, key).is_some() {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.push(Error::forbidden(&path.child(key), detail));
            }
        }
    }
    errors.extend(host_port_conflicts(init, &path));
    errors
}

fn common(container: &Value, volumes: &BTreeSet<&str>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let name = tree::text(container, "name");
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    } else {
        for message in content::dns1123_label(name) {
            errors.push(Error::invalid(&path.child("name"), name, message));
        }
    }
    errors.extend(volumes::required(container, "image", path));
    let policies = ["File", "FallbackToLogsOnError"];
    errors.extend(one_of(
        container,
        "terminationMessagePolicy",
        path,
        &policies,
    ));
    errors.extend(ports(tree::list(container, "ports"), &path.child("ports")));
    errors.extend(environment(
        tree::list(container, "env"),
        &path.child("env"),
    ));
    errors.extend(environment_from(
        tree::list(container, "envFrom"),
        &path.child("envFrom"),
    ));
    errors.extend(mounts(container, volumes, path));
    let pull = ["Always", "IfNotPresent", "Never"];
    errors.extend(one_of(container, "imagePullPolicy", path, &pull));
    errors.extend(resources::requirements(
        tree::get(container, "resources"),
        &path.child("resources"),
    ));
    errors.extend(security_context(container, &path.child("securityContext")));
    errors
}

fn ports(ports: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = tree::text(port, "name");
        if !name.is_empty() {
            let complaints = content::port_name(name);
            if complaints.is_empty() && !names.insert(name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
            for message in complaints {
                errors.push(Error::invalid(&path.child("name"), name, message));
            }
        }
        match tree::int(port, "containerPort").unwrap_or(0) {
            0 => errors.push(Error::required(&path.child("containerPort"), "")),
            number => errors.extend(port_number(number, &path.child("containerPort"))),
        }
        match tree::int(port, "hostPort").unwrap_or(0) {
            0 => {}
            number => errors.extend(port_number(number, &path.child("hostPort"))),
        }
        errors.extend(one_of(port, "protocol", &path, &["SCTP", "TCP", "UDP"]));
    }
    errors
}

/// The errors of a port's number.
pub(crate) fn port_number(number: i64, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for message in content::port_number(number) {
        errors.push(Error::invalid(path, number, message));
    }
    errors
}

fn host_port_conflicts(containers: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut taken = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in tree::list(container, "ports").iter().enumerate() {
            let number = tree::int(port, "hostPort").unwrap_or(0);
            if number == 0 {
                continue;
            }
            let (protocol, ip) = (tree::text(port, "protocol"), tree::text(port, "hostIP"));
            if !taken.insert((protocol, ip, number)) {
                let at = path.index(i).child("ports").index(j).child("hostPort");
                errors.push(Error::duplicate(&at, format!("{protocol}/{ip}/{number}")));
            }
        }
    }
    errors
}

fn environment(variables: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, variable) in variables.iter().enumerate() {
        let path = path.index(i);
        let name = tree::text(variable, "name");
        if name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        } else {
            for message in content::env_var_name(name) {
                errors.push(Error::invalid(&path.child("name"), name, message));
            }
        }
        errors.extend(value_from(variable, &path.child("valueFrom")));
    }
    errors
}

fn value_from(variable: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(from) = tree::get(variable, "valueFrom") else {
        return errors;
    };
    let mut sources = 0;
    for (key, source) in from.as_object().into_iter().flatten() {
        if source.is_null() {
            continue;
        }
        sources += 1;
        let path = path.child(key);
        match key.as_str() {
            "fieldRef" => errors.extend(field_reference(source, &path, &ENV_FIELDS)),
            "resourceFieldRef" => errors.extend(volumes::required(source, "resource", &path)),
            "configMapKeyRef" | "secretKeyRef" => {
                errors.extend(volumes::required(source, "name", &path));
                let wanted = tree::text(source, "key");
                if wanted.is_empty() {
                    errors.push(Error::required(&path.child("key"), ""));
                } else {
                    for message in content::config_key(wanted) {
                        errors.push(Error::invalid(&path.child("key"), wanted, message));
                    }
                }
            }
            _ => {}
        }
    }
    if sources == 0 {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or \
             `secretKeyRef`";
        errors.push(Error::invalid(path, "", detail));
    } else if !tree::text(variable, "value").is_empty() {
        errors.push(Error::invalid(
            path,
            "",
            "may not be specified when `value` is not empty",
        ));
    } else if sources > 1 {
        errors.push(Error::invalid(
            path,
            "",
            "may not have more than one field specified at a time",
        ));
    }
    errors
}

/// The errors of a `fieldRef` where the given fields are supported, and single labels and annotations.
pub(crate) fn field_reference(reference: &Value, path: &Path, supported: &[&str]) -> ErrorList {
    let field = tree::text(reference, "fieldPath");
    if tree::text(reference, "apiVersion").is_empty() {
        return Error::required(&path.child("apiVersion"), "").into();
    }
    let at = path.child("fieldPath");
    if field.is_empty() {
        return Error::required(&at, "").into();
    }
    if let Some((base, key)) = field.strip_suffix("']").and_then(|f| f.split_once("['")) {
        let known = matches!(base, "metadata.labels" | "metadata.annotations");
        let mut errors = ErrorList::new();
        if known {
            for message in content::qualified_name(&key.to_lowercase()) {
                errors.push(Error::invalid(path, key, message));
            }
        } else {
            let detail = format!(
                "error converting fieldPath: field label does not support subscript: {base}"
            );
            errors.push(Error::invalid(&at, field, detail));
        }
        return errors;
    }
    if !DOWNWARD_FIELDS.contains(&field) {
        let detail = format!("error converting fieldPath: field label not supported: {field}");
        return Error::invalid(&at, field, detail).into();
    }
    if supported.contains(&field) {
        return ErrorList::new();
    }
    Error::not_supported(&at, field, supported).into()
}

fn environment_from(sources: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, source) in sources.iter().enumerate() {
        let path = path.index(i);
        let prefix = tree::text(source, "prefix");
        if !prefix.is_empty() {
            for message in content::env_var_name(prefix) {
                errors.push(Error::invalid(&path.child("prefix"), prefix, message));
            }
        }
        let present: Vec<&str> = ["configMapRef", "secretRef"]
            .into_iter()
            .filter(|key| tree::get(source, key).is_some())
            .collect();
        for key in &present {
            errors.extend(volumes::required(&source[*key], "name", &path.child(key)));
        }
        match present.len() {
            0 => {
                let detail = "must specify one of: `configMapRef` or `secretRef`";
                errors.push(Error::invalid(&path, "", detail));
            }
            1 => {}
            _ => {
                let detail = "may not have more than one field specified at a time";
                errors.push(Error::invalid(&path, "", detail));
            }
        }
    }
    errors
}

fn mounts(container: &Value, volumes: &BTreeSet<&str>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut points = BTreeSet::new();
    for (i, mount) in tree::list(container, "volumeMounts").iter().enumerate() {
        let path = path.child("volumeMounts").index(i);
        let name = tree::text(mount, "name");
        if name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        }
        if !volumes.contains(name) {
            errors.push(Error::not_found(&path.child("name"), name));
        }
        let point = tree::text(mount, "mountPath");
        if point.is_empty() {
            errors.push(Error::required(&path.child("mountPath"), ""));
        }
        if !points.insert(point) {
            errors.push(Error::invalid(
                &path.child("mountPath"),
                point,
                "must be unique",
            ));
        }
        let (sub, expression) = (
            tree::text(mount, "subPath"),
            tree::text(mount, "subPathExpr"),
        );
        if !sub.is_empty() {
            errors.extend(volumes::local_path(sub, &path.child("subPath")));
        }
        if !expression.is_empty() {
            let at = path.child("subPathExpr");
            if !sub.is_empty() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                errors.push(Error::invalid(&at, expression, detail));
            }
            errors.extend(volumes::local_path(expression, &at));
        }
        let propagation = ["Bidirectional", "HostToContainer", "None"];
        errors.extend(one_of(mount, "mountPropagation", &path, &propagation));
        let privileged = tree::truthy(container, "securityContext.privileged");
        if tree::text(mount, "mountPropagation") == "Bidirectional" && !privileged {
            let detail =
                "Bidirectional mount propagation is available only to privileged containers";
            errors.push(Error::forbidden(&path.child("mountPropagation"), detail));
        }
    }
    for (i, device) in tree::list(container, "volumeDevices").iter().enumerate() {
        let name = tree::text(device, "name");
        if !volumes.contains(name) {
            let at = path.child("volumeDevices").index(i).child("name");
            errors.push(Error::not_found(&at, name));
        }
    }
    errors
}

fn security_context(container: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(context) = tree::get(container, "securityContext") else {
        return errors;
    };
    for key in ["runAsUser", "runAsGroup"] {
        errors.extend(id(context, key, path));
    }
    errors.extend(one_of(context, "procMount", path, &["Default", "Unmasked"]));
    errors.extend(seccomp(context, path));
    if tree::get(context, "allowPrivilegeEscalation") == Some(&Value::Bool(false)) {
        let at = path.child("allowPrivilegeEscalation");
        if tree::truthy(context, "privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(Error::invalid(&at, false, detail));
        }
        if tree::words(context, "capabilities.add").contains(&"CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and \
                 `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(Error::invalid(&at, false, detail));
        }
    }
    errors
}
