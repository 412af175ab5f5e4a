//! Services: the strategy and its defaults. What a Service needs of the server's allocators is in
//! [`allocation`].

pub mod allocation;
mod update;
mod validate;

use serde_json::{Value, json};

use crate::content;
use crate::kind::{Allocation, Strategy};
use crate::selector::Fields;
use crate::{table, tree};

pub use allocation::{Needs, NodePortNeed, Released, needs, released};

pub(crate) const STRATEGY: Strategy = Strategy {
    default: defaults,
    prepare_create: |_, service| {
        update::normalise_ips(service, None);
        update::families(service);
    },
    prepare_update: |_, new, old| update::prepare(new, old),
    prepare_status: |_, new, _| ingress_defaults(new),
    validate: validate::service,
    validate_update: validate::update,
    name: content::name_is_dns1035_label,
    row: Some(table::network::service),
    fields: &Fields::with(&[
        "metadata.name",
        "metadata.namespace",
        "spec.clusterIP",
        "spec.type",
    ]),
    empty_status: r#"{"loadBalancer":{}}"#,
    has_status: true,
    create_on_update: true,
    allocation: Allocation::Service,
    ..Strategy::GENERIC
};

/// Whether a type has a cluster IP, be it `None`.
pub(crate) fn has_cluster_ip(service: &Value) -> bool {
    matches!(
        tree::text(service, "spec.type"),
        "ClusterIP" | "NodePort" | "LoadBalancer"
    )
}

/// Whether the Service is headless: its cluster IP is `None`.
pub fn is_headless(service: &Value) -> bool {
    tree::text(service, "spec.clusterIP") == "None"
        || tree::words(service, "spec.clusterIPs").first() == Some(&"None")
}

/// Whether every port needs a node port.
pub(crate) fn needs_node_ports(service: &Value) -> bool {
    match tree::text(service, "spec.type") {
        "NodePort" => true,
        "LoadBalancer" => tree::get(service, "spec.allocateLoadBalancerNodePorts")
            .and_then(Value::as_bool)
            .unwrap_or(true),
        _ => false,
    }
}

/// Whether traffic from outside can reach the Service.
pub(crate) fn is_external(service: &Value) -> bool {
    match tree::text(service, "spec.type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !tree::list(service, "spec.externalIPs").is_empty(),
        _ => false,
    }
}

fn defaults(service: &mut Value) {
    let spec = tree::child(service, "spec");
    tree::set_default_text(spec, "sessionAffinity", "None");
    tree::set_default_text(spec, "type", "ClusterIP");
    if tree::text(spec, "sessionAffinity") == "None" {
        tree::remove(spec, "sessionAffinityConfig");
    } else if tree::text(spec, "sessionAffinity") == "ClientIP" {
        let config = tree::child(tree::child(spec, "sessionAffinityConfig"), "clientIP");
        tree::set_default(config, "timeoutSeconds", 10_800);
    }
    for key in [
        "selector",
        "externalIPs",
        "loadBalancerSourceRanges",
        "clusterIPs",
        "ipFamilies",
    ] {
        let empty = match spec.get(key) {
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            _ => false,
        };
        if empty {
            tree::remove(spec, key);
        }
    }
    for key in ["clusterIP", "loadBalancerIP"] {
        if spec.get(key) == Some(&json!("")) {
            tree::remove(spec, key);
        }
    }
    if tree::list(spec, "ports").is_empty() {
        tree::remove(spec, "ports");
    }
    for port in tree::list_mut(spec, "ports") {
        tree::set_default_text(port, "protocol", "TCP");
        tree::set_default(port, "port", 0);
        let unset = match tree::get(port, "targetPort") {
            None => true,
            Some(target) => target == &json!(0) || target == &json!(""),
        };
        if unset {
            port["targetPort"] = port["port"].clone();
        }
        for key in ["name", "nodePort"] {
            if matches!(port.get(key), Some(value) if value == &json!("") || value == &json!(0)) {
                tree::remove(port, key);
            }
        }
    }
    if is_external(service) {
        tree::set_default_text(
            tree::child(service, "spec"),
            "externalTrafficPolicy",
            "Cluster",
        );
    }
    let load_balancer = tree::text(service, "spec.type") == "LoadBalancer";
    let cluster_ip = has_cluster_ip(service);
    let spec = tree::child(service, "spec");
    if load_balancer {
        tree::set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
    if cluster_ip {
        tree::set_default(spec, "internalTrafficPolicy", "Cluster");
    }
    if tree::get(service, "status").is_some() {
        tree::child(tree::child(service, "status"), "loadBalancer");
    }
    ingress_defaults(service);
}

fn ingress_defaults(service: &mut Value) {
    for ingress in tree::list_mut(service, "status.loadBalancer.ingress") {
        if !tree::text(ingress, "ip").is_empty() {
            tree::set_default(ingress, "ipMode", "VIP");
        }
    }
}
