//! Rows of Services, Endpoints, EndpointSlices, Ingresses and network policies.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::ctx::Ctx;
use crate::selector::label::format_object;
use crate::table::{age, format_labels, name, some_of, text_or};
use crate::tree;

pub(crate) fn service(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let ip = tree::words(object, "spec.clusterIPs")
        .first()
        .copied()
        .unwrap_or("<none>");
    let ports: Vec<String> = tree::list(object, "spec.ports")
        .iter()
        .map(service_port)
        .collect();
    let ports = if ports.is_empty() {
        "<none>".to_owned()
    } else {
        ports.join(",")
    };
    vec![
        name(object),
        json!(tree::text(object, "spec.type")),
        json!(ip),
        json!(external_ip(object)),
        json!(ports),
        age(ctx, object),
        json!(format_labels(tree::map(object, "spec.selector"))),
    ]
}

fn service_port(port: &Value) -> String {
    let (number, protocol) = (
        tree::int(port, "port").unwrap_or(0),
        tree::text(port, "protocol"),
    );
    match tree::int(port, "nodePort") {
        Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
        _ => format!("{number}/{protocol}"),
    }
}

fn external_ip(service: &Value) -> String {
    let external = tree::words(service, "spec.externalIPs").join(",");
    match tree::text(service, "spec.type") {
        "ClusterIP" | "NodePort" if external.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => external,
        "LoadBalancer" => {
            let balanced = ingress_addresses(service);
            match (balanced.is_empty(), external.is_empty()) {
                (false, false) => format!("{balanced},{external}"),
                (true, false) => external,
                (false, true) => balanced,
                (true, true) => "<pending>".to_owned(),
            }
        }
        "ExternalName" => tree::text(service, "spec.externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn ingress_addresses(object: &Value) -> String {
    let addresses: BTreeSet<&str> = tree::list(object, "status.loadBalancer.ingress")
        .iter()
        .map(|ingress| text_or(ingress, "ip", tree::text(ingress, "hostname")))
        .filter(|address| !address.is_empty())
        .collect();
    addresses.into_iter().collect::<Vec<_>>().join(",")
}

pub(crate) fn endpoints(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let subsets = tree::list(object, "subsets");
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = tree::list(subset, "addresses")
            .iter()
            .map(|a| tree::text(a, "ip"));
        let ports = tree::list(subset, "ports");
        if ports.is_empty() {
            all.extend(addresses.clone().map(str::to_owned));
        }
        for port in ports {
            let port = tree::int(port, "port").unwrap_or(0);
            all.extend(addresses.clone().map(|ip| host_port(ip, port)));
        }
    }
    let text = if subsets.is_empty() {
        "<none>".to_owned()
    } else {
        some_of(&all, 3)
    };
    vec![name(object), json!(text), age(ctx, object)]
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

pub(crate) fn endpoint_slice(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let ports: Vec<String> = tree::list(object, "ports")
        .iter()
        .map(|port| match tree::int(port, "port") {
            Some(number) => number.to_string(),
            None => match tree::get(port, "name").and_then(Value::as_str) {
                Some(name) => name.to_owned(),
                None => "*".to_owned(),
            },
        })
        .collect();
    let addresses: Vec<String> = tree::list(object, "endpoints")
        .iter()
        .flat_map(|endpoint| tree::words(endpoint, "addresses"))
        .map(str::to_owned)
        .collect();
    let shown = |list: &[String]| {
        let text = some_of(list, 3);
        json!(if text.is_empty() {
            "<unset>".to_owned()
        } else {
            text
        })
    };
    vec![
        name(object),
        json!(tree::text(object, "addressType")),
        shown(&ports),
        shown(&addresses),
        age(ctx, object),
    ]
}

pub(crate) fn ingress(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let hosts: Vec<String> = tree::list(object, "spec.rules")
        .iter()
        .map(|rule| tree::text(rule, "host").to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    let hosts = if hosts.is_empty() {
        "*".to_owned()
    } else {
        some_of(&hosts, 3)
    };
    let ports = if tree::list(object, "spec.tls").is_empty() {
        "80"
    } else {
        "80, 443"
    };
    vec![
        name(object),
        json!(text_or(object, "spec.ingressClassName", "<none>")),
        json!(hosts),
        json!(ingress_addresses(object)),
        json!(ports),
        age(ctx, object),
    ]
}

pub(crate) fn ingress_class(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let parameters = tree::get(object, "spec.parameters").map_or_else(
        || "<none>".to_owned(),
        |parameters| {
            let group = tree::text(parameters, "apiGroup");
            let dot = if group.is_empty() { "" } else { "." };
            let kind = tree::text(parameters, "kind");
            format!("{kind}{dot}{group}/{}", tree::text(parameters, "name"))
        },
    );
    let controller = json!(tree::text(object, "spec.controller"));
    vec![
        name(object),
        controller,
        json!(parameters),
        age(ctx, object),
    ]
}

pub(crate) fn network_policy(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let selector = format_object(tree::get(object, "spec.podSelector"));
    vec![name(object), json!(selector), age(ctx, object)]
}

pub(crate) fn service_cidr(ctx: &Ctx, object: &Value) -> Vec<Value> {
    vec![
        name(object),
        json!(tree::words(object, "spec.cidrs").join(",")),
        age(ctx, object),
    ]
}

pub(crate) fn ip_address(_: &Ctx, object: &Value) -> Vec<Value> {
    let parts: Vec<&str> = ["group", "resource", "namespace", "name"]
        .into_iter()
        .map(|key| {
            tree::text(
                tree::get(object, "spec.parentRef").unwrap_or(&Value::Null),
                key,
            )
        })
        .filter(|part| !part.is_empty())
        .collect();
    vec![name(object), json!(parts.join("/"))]
}
