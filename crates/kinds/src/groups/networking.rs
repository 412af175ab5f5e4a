//! Kinds of networking.k8s.io.

use serde_json::{Value, json};

use crate::content;
use crate::core::pod::validate::one_of;
use crate::field::{Error, ErrorList, Path};
use crate::kind::{Generation, Strategy};
use crate::selector::label;
use crate::tree::{self, set_default, set_default_text};
use crate::{meta, table};

pub(crate) const INGRESS: Strategy = Strategy {
    default: |ingress| {
        tree::child(ingress, "spec");
        if tree::get(ingress, "status").is_some() {
            tree::child(tree::child(ingress, "status"), "loadBalancer");
        }
    },
    validate: |_, object| ingress(object),
    validate_update: |_, new, _| ingress(new),
    row: Some(table::network::ingress),
    empty_status: r#"{"loadBalancer":{}}"#,
    has_status: true,
    generation: Generation::Spec,
    ..Strategy::GENERIC
};

pub(crate) const INGRESS_CLASS: Strategy = Strategy {
    default: |class| {
        if let Some(parameters) = tree::get_mut(class, "spec.parameters") {
            set_default(parameters, "scope", "Cluster");
        }
    },
    validate: |_, class| {
        let controller = tree::text(class, "spec.controller");
        let at = Path::new("spec.controller");
        if controller.is_empty() {
            return Error::required(&at, "").into();
        }
        if controller.contains('/') {
            return ErrorList::new();
        }
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        Error::invalid(&at, controller, detail).into()
    },
    validate_update: |_, new, old| meta::immutable(new, old, "spec.controller"),
    row: Some(table::network::ingress_class),
    generation: Generation::Spec,
    ..Strategy::GENERIC
};

pub(crate) const NETWORK_POLICY: Strategy = Strategy {
    default: network_policy_defaults,
    validate: |_, policy| network_policy(policy),
    validate_update: |_, new, _| network_policy(new),
    row: Some(table::network::network_policy),
    generation: Generation::Spec,
    ..Strategy::GENERIC
};

pub(crate) const SERVICE_CIDR: Strategy = Strategy {
    validate: |_, object| {
        let mut errors = ErrorList::new();
        let cidrs = tree::words(object, "spec.cidrs");
        if cidrs.is_empty() {
            errors.push(Error::required(
                &Path::new("spec.cidrs"),
                "at least one CIDR required",
            ));
        }
        for (i, cidr) in cidrs.into_iter().enumerate() {
            for message in content::cidr(cidr) {
                errors.push(Error::invalid(
                    &Path::new("spec.cidrs").index(i),
                    cidr,
                    message,
                ));
            }
        }
        errors
    },
    validate_update: |_, new, old| meta::immutable(new, old, "spec.cidrs"),
    row: Some(table::network::service_cidr),
    empty_status: "{}",
    has_status: true,
    ..Strategy::GENERIC
};

pub(crate) const IP_ADDRESS: Strategy = Strategy {
    name: |name, _| content::ip_address(name),
    validate_update: |_, new, old| meta::immutable(new, old, "spec.parentRef"),
    row: Some(table::network::ip_address),
    ..Strategy::GENERIC
};

fn ingress(object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let rules = tree::list(object, "spec.rules");
    let default = tree::get(object, "spec.defaultBackend");
    if rules.is_empty() && default.is_none() {
        let value = tree::get(object, "spec")
            .cloned()
            .unwrap_or_else(|| json!({}));
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(Error::invalid(&path, value, detail));
    }
    if let Some(backend) = default {
        errors.extend(self::backend(backend, &path.child("defaultBackend")));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = path.child("rules").index(i);
        let host = tree::text(rule, "host");
        if !host.is_empty() {
            let at = path.child("host");
            if host.parse::<std::net::IpAddr>().is_ok() {
                let detail = "must be a DNS name, not an IP address";
                errors.push(Error::invalid(&at, host, detail));
            }
            let complaints = if host.contains('*') {
                content::wildcard_subdomain(host)
            } else {
                content::dns1123_subdomain(host)
            };
            for message in complaints {
                errors.push(Error::invalid(&at, host, message));
            }
        }
        let Some(http) = tree::get(rule, "http") else {
            continue;
        };
        let path = path.child("http").child("paths");
        if tree::list(http, "paths").is_empty() {
            errors.push(Error::required(&path, ""));
        }
        for (j, entry) in tree::list(http, "paths").iter().enumerate() {
            errors.extend(http_path(entry, &path.index(j)));
        }
    }
    errors
}

fn http_path(entry: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
    let (kind, value) = (tree::text(entry, "pathType"), tree::text(entry, "path"));
    let at = path.child("path");
    match kind {
        "" => errors.push(Error::required(
            &path.child("pathType"),
            "pathType must be specified",
        )),
        "Exact" | "Prefix" => {
            if !value.starts_with('/') {
                errors.push(Error::invalid(&at, value, "must be an absolute path"));
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if value.contains(part) {
                    let detail = format!("must not contain '{part}'");
                    errors.push(Error::invalid(&at, value, detail));
                }
            }
        }
        "ImplementationSpecific" => {
            if !value.is_empty() && !value.starts_with('/') {
                errors.push(Error::invalid(&at, value, "must be an absolute path"));
            }
        }
        other => errors.push(Error::not_supported(&path.child("pathType"), other, &kinds)),
    }
    let empty = json!({});
    let backend = tree::get(entry, "backend").unwrap_or(&empty);
    errors.extend(self::backend(backend, &path.child("backend")));
    errors
}

fn backend(backend: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let service = tree::get(backend, "service");
    let resource = tree::get(backend, "resource");
    match (service, resource) {
        (Some(_), Some(_)) => {
            let detail = "cannot set both resource and service backends";
            errors.push(Error::invalid(path, "", detail));
        }
        (Some(service), None) => {
            let at = path.child("service");
            let name = tree::text(service, "name");
            if name.is_empty() {
                errors.push(Error::required(&at.child("name"), ""));
            } else {
                for message in content::dns1035_label(name) {
                    errors.push(Error::invalid(&at.child("name"), name, message));
                }
            }
            let (port_name, number) = (
                tree::text(service, "port.name"),
                tree::int(service, "port.number").unwrap_or(0),
            );
            let at = at.child("port");
            match (port_name.is_empty(), number) {
                (false, 0) => {
                    for message in content::port_name(port_name) {
                        errors.push(Error::invalid(&at.child("name"), port_name, message));
                    }
                }
                (false, _) => {
                    errors.push(Error::invalid(
                        &at,
                        "",
                        "cannot set both port name & port number",
                    ));
                }
                (true, 0) => errors.push(Error::required(&at, "port name or number is required")),
                (true, number) => {
                    for message in content::port_number(number) {
                        errors.push(Error::invalid(&at.child("number"), number, message));
                    }
                }
            }
        }
        (None, Some(_)) => {}
        (None, None) => {
            errors.push(Error::required(
                path,
                "resource or service backend is required",
            ));
        }
    }
    errors
}

fn network_policy_defaults(policy: &mut Value) {
    let spec = tree::child(policy, "spec");
    tree::child(spec, "podSelector");
    let egress = !tree::list(spec, "egress").is_empty();
    let types = if egress {
        json!(["Ingress", "Egress"])
    } else {
        json!(["Ingress"])
    };
    if tree::list(spec, "policyTypes").is_empty() {
        spec["policyTypes"] = types;
    }
    for direction in ["ingress", "egress"] {
        for rule in tree::list_mut(spec, direction) {
            for port in tree::list_mut(rule, "ports") {
                set_default_text(port, "protocol", "TCP");
            }
        }
    }
}

fn network_policy(policy: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    if let Some(selector) = tree::get(policy, "spec.podSelector") {
        errors.extend(label::validate_object(selector, &path.child("podSelector")));
    }
    for (direction, side) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in tree::list(policy, &format!("spec.{direction}"))
            .iter()
            .enumerate()
        {
            let path = path.child(direction).index(i);
            for (j, port) in tree::list(rule, "ports").iter().enumerate() {
                let path = path.child("ports").index(j);
                errors.extend(one_of(port, "protocol", &path, &["SCTP", "TCP", "UDP"]));
            }
            for (j, peer) in tree::list(rule, side).iter().enumerate() {
                let at = path.child(side).index(j);
                if peer.as_object().is_none_or(serde_json::Map::is_empty) {
                    errors.push(Error::required(&at, "must specify a peer"));
                }
                let range = tree::text(peer, "ipBlock.cidr");
                if tree::get(peer, "ipBlock").is_some() {
                    for message in content::cidr(range) {
                        let at = at.child("ipBlock").child("cidr");
                        errors.push(Error::invalid(&at, range, message));
                    }
                }
            }
        }
    }
    let types = tree::list(policy, "spec.policyTypes");
    if types.len() > 2 {
        let detail = "may not specify more than two policyTypes";
        errors.push(Error::invalid(
            &path.child("policyTypes"),
            types.to_vec(),
            detail,
        ));
    }
    for (i, kind) in tree::words(policy, "spec.policyTypes")
        .into_iter()
        .enumerate()
    {
        if !["Egress", "Ingress"].contains(&kind) {
            let at = path.child("policyTypes").index(i);
            errors.push(Error::not_supported(&at, kind, &["Egress", "Ingress"]));
        }
    }
    errors
}
