//! Validation of probes and lifecycle hooks.

use serde_json::Value;

use super::container::port_number;
use super::validate::one_of;
use super::volumes::required;
use crate::content;
use crate::field::{Error, ErrorList, Path};
use crate::{meta, tree};

/// The errors of a container's hooks and probes.
pub(crate) fn all(container: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = tree::get(container, &format!("lifecycle.{hook}")) {
            errors.extend(self::handler(handler, &path.child("lifecycle").child(hook)));
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = tree::get(container, key) else {
            continue;
        };
        let path = path.child(key);
        errors.extend(self::probe(probe, &path));
        let threshold = tree::int(probe, "successThreshold").unwrap_or(1);
        if key != "readinessProbe" && threshold != 1 {
            errors.push(Error::invalid(
                &path.child("successThreshold"),
                threshold,
                "must be 1",
            ));
        }
        if key == "readinessProbe" && tree::get(probe, "terminationGracePeriodSeconds").is_some() {
            let at = path.child("terminationGracePeriodSeconds");
            let seconds = tree::int(probe, "terminationGracePeriodSeconds").unwrap_or(0);
            errors.push(Error::invalid(
                &at,
                seconds,
                "must not be set for readinessProbes",
            ));
        }
    }
    errors
}

fn probe(probe: &Value, path: &Path) -> ErrorList {
    let mut errors = handler(probe, path);
    for key in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        errors.extend(meta::non_negative(probe, key, path));
    }
    if let Some(seconds) = tree::int(probe, "terminationGracePeriodSeconds") {
        if seconds <= 0 {
            let at = path.child("terminationGracePeriodSeconds");
            errors.push(Error::invalid(&at, seconds, "must be greater than 0"));
        }
    }
    errors
}

fn handler(handler: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut count = 0;
    for key in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(action) = tree::get(handler, key) else {
            continue;
        };
        let path = path.child(key);
        count += 1;
        if count > 1 {
            errors.push(Error::forbidden(
                &path,
                "may not specify more than 1 handler type",
            ));
            continue;
        }
        match key {
            "exec" if tree::list(action, "command").is_empty() => {
                errors.push(Error::required(&path.child("command"), ""));
            }
            "httpGet" => {
                errors.extend(required(action, "path", &path));
                errors.extend(port(action, &path.child("port")));
                errors.extend(one_of(action, "scheme", &path, &["HTTP", "HTTPS"]));
                for header in tree::list(action, "httpHeaders") {
                    let name = tree::text(header, "name");
                    for message in content::http_header_name(name) {
                        errors.push(Error::invalid(&path.child("httpHeaders"), name, message));
                    }
                }
            }
            "tcpSocket" | "grpc" => errors.extend(port(action, &path.child("port"))),
            _ => {}
        }
    }
    if count == 0 {
        errors.push(Error::required(path, "must specify a handler type"));
    }
    errors
}

fn port(action: &Value, path: &Path) -> ErrorList {
    port_or_name(tree::get(action, "port"), path)
}

/// The errors of a port given as a number or a name.
pub(crate) fn port_or_name(port: Option<&Value>, path: &Path) -> ErrorList {
    match port {
        Some(Value::String(name)) => {
            let mut errors = ErrorList::new();
            for message in content::port_name(name) {
                errors.push(Error::invalid(path, name.as_str(), message));
            }
            errors
        }
        other => port_number(other.and_then(Value::as_i64).unwrap_or(0), path),
    }
}
