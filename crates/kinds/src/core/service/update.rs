//! How a Service carries its allocated values over an update, and loses those of a type it leaves.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{has_cluster_ip, is_external, is_headless, needs_node_ports};
use crate::tree;

/// Makes `new` the successor of `old`.
pub(super) fn prepare(new: &mut Value, old: &Value) {
    normalise_ips(new, Some(old));
    keep_allocated(new, old);
    drop_left_behind(new, old);
    families(new);
}

/// Keeps `clusterIP` and the first of `clusterIPs` the same, whichever a client changed.
pub(super) fn normalise_ips(new: &mut Value, old: Option<&Value>) {
    let one = tree::text(new, "spec.clusterIP").to_owned();
    let many: Vec<String> = tree::words(new, "spec.clusterIPs")
        .into_iter()
        .map(str::to_owned)
        .collect();
    let spec = tree::child(new, "spec");
    let Some(old) = old else {
        if !one.is_empty() && many.is_empty() {
            spec["clusterIPs"] = json!([one]);
        }
        return;
    };
    let before = tree::text(old, "spec.clusterIP");
    let same_list = tree::words(old, "spec.clusterIPs") == many;
    if one != before && same_list {
        if one.is_empty() {
            tree::remove(spec, "clusterIPs");
        } else {
            spec["clusterIPs"] = json!([one]);
        }
    } else if one == before && !same_list && many.is_empty() {
        tree::remove(spec, "clusterIP");
    }
}

/// Values that the server once drew stay where the client leaves them out.
fn keep_allocated(new: &mut Value, old: &Value) {
    if has_cluster_ip(old) && has_cluster_ip(new) {
        for key in ["clusterIP", "clusterIPs"] {
            if tree::get(new, &format!("spec.{key}")).is_none() {
                let value = tree::get(old, &format!("spec.{key}")).cloned();
                tree::put(tree::child(new, "spec"), key, value);
            }
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if tree::get(new, &format!("spec.{key}")).is_none() {
                let value = tree::get(old, &format!("spec.{key}")).cloned();
                tree::put(tree::child(new, "spec"), key, value);
            }
        }
    }
    if needs_node_ports(old) && needs_node_ports(new) {
        let named: BTreeMap<&str, i64> = tree::list(old, "spec.ports")
            .iter()
            .filter_map(|port| Some((tree::text(port, "name"), tree::int(port, "nodePort")?)))
            .collect();
        let mut used: Vec<i64> = tree::list(new, "spec.ports")
            .iter()
            .filter_map(|port| tree::int(port, "nodePort"))
            .collect();
        for port in tree::list_mut(new, "spec.ports") {
            let known = named.get(tree::text(port, "name")).copied();
            if let Some(number) = known.filter(|number| !used.contains(number)) {
                if tree::int(port, "nodePort").unwrap_or(0) == 0 {
                    port["nodePort"] = json!(number);
                    used.push(number);
                }
            }
        }
    }
    let key = "spec.healthCheckNodePort";
    if checks_health(old) && checks_health(new) && tree::get(new, key).is_none() {
        let value = tree::get(old, key).cloned();
        tree::put(tree::child(new, "spec"), "healthCheckNodePort", value);
    }
}

fn checks_health(service: &Value) -> bool {
    tree::text(service, "spec.type") == "LoadBalancer"
        && tree::text(service, "spec.externalTrafficPolicy") == "Local"
}

/// Drops what only the old type had, where the client did not touch it.
fn drop_left_behind(new: &mut Value, old: &Value) {
    let leaving = Traits::of(old);
    let entering = Traits::of(new);
    let mut dropped: Vec<&str> = Vec::new();
    if leaving.cluster_ip && !entering.cluster_ip {
        dropped.extend(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]);
        dropped.push("internalTrafficPolicy");
    }
    if leaving.load_balancer && !entering.load_balancer {
        dropped.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    if leaving.external && !entering.external {
        dropped.push("externalTrafficPolicy");
    }
    if leaving.health && !entering.health {
        dropped.push("healthCheckNodePort");
    }
    for key in dropped {
        if tree::same(new, old, &format!("spec.{key}")) {
            tree::remove(tree::child(new, "spec"), key);
        }
    }
    let ports = |service: &Value| -> Vec<Option<i64>> {
        tree::list(service, "spec.ports")
            .iter()
            .map(|port| tree::int(port, "nodePort"))
            .collect()
    };
    if leaving.node_ports && !entering.node_ports && ports(new) == ports(old) {
        for port in tree::list_mut(new, "spec.ports") {
            tree::remove(port, "nodePort");
        }
    }
}

/// What a Service has by its type and policies.
struct Traits {
    cluster_ip: bool,
    node_ports: bool,
    load_balancer: bool,
    external: bool,
    health: bool,
}

impl Traits {
    fn of(service: &Value) -> Self {
        Self {
            cluster_ip: has_cluster_ip(service),
            node_ports: needs_node_ports(service),
            load_balancer: tree::text(service, "spec.type") == "LoadBalancer",
            external: is_external(service),
            health: checks_health(service),
        }
    }
}

/// IP families on a server that has IPv4 only; a headless Service without a selector may have
/// endpoints of any.
pub(super) fn families(service: &mut Value) {
    if !has_cluster_ip(service) {
        return;
    }
    let any = is_headless(service) && tree::map(service, "spec.selector").is_none();
    let spec = tree::child(service, "spec");
    let single = tree::text(spec, "ipFamilyPolicy") == "SingleStack";
    if any && !single {
        tree::set_default(spec, "ipFamilyPolicy", "RequireDualStack");
        let first = tree::words(spec, "ipFamilies")
            .first()
            .copied()
            .unwrap_or("IPv4")
            .to_owned();
        let other = if first == "IPv4" { "IPv6" } else { "IPv4" };
        if tree::list(spec, "ipFamilies").len() < 2 {
            spec["ipFamilies"] = json!([first, other]);
        }
        return;
    }
    tree::set_default(spec, "ipFamilyPolicy", "SingleStack");
    tree::set_default(spec, "ipFamilies", json!(["IPv4"]));
}
