//! What a Service needs drawn before it is stored, and what it gives back. Pure: the server draws.
//!
//! After [`crate::Kind::prepare_create`] or [`crate::Kind::prepare_update`] (and validation), call
//! [`needs`], draw, write the answers with [`set_cluster_ip`] and [`set_node_port`], store, and then
//! return what [`released`] names.

use serde_json::{Value, json};

use super::{has_cluster_ip, is_headless, needs_node_ports};
use crate::tree;

/// What is missing in a prepared Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Any free cluster IP.
    pub any_cluster_ip: bool,
    /// This very cluster IP, which the old object did not have.
    pub cluster_ip: Option<String>,
    /// Node ports, each for one element of `spec.ports`.
    pub node_ports: Vec<NodePortNeed>,
    /// A node port for health checks; a number if the client asks for one.
    pub health_check: Option<Option<u16>>,
}

/// A node port for one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePortNeed {
    /// The element of `spec.ports`.
    pub index: usize,
    pub protocol: String,
    /// The number the client asks for, if it does.
    pub wanted: Option<u16>,
}

/// What a Service held and holds no longer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    pub cluster_ips: Vec<String>,
    pub node_ports: Vec<u16>,
}

/// What `new` needs beyond what `old` already holds.
pub fn needs(new: &Value, old: Option<&Value>) -> Needs {
    let mut needs = Needs::default();
    if has_cluster_ip(new) && !is_headless(new) {
        let wanted = tree::text(new, "spec.clusterIP");
        let held = old
            .filter(|old| has_cluster_ip(old))
            .map_or("", |o| tree::text(o, "spec.clusterIP"));
        if wanted.is_empty() {
            needs.any_cluster_ip = true;
        } else if wanted != held {
            needs.cluster_ip = Some(wanted.to_owned());
        }
    }
    let held = old.map(node_ports).unwrap_or_default();
    let draws = needs_node_ports(new);
    for (index, port) in tree::list(new, "spec.ports").iter().enumerate() {
        let wanted = number(port, "nodePort");
        let protocol = tree::text(port, "protocol").to_owned();
        let is_held = wanted.is_some_and(|number| held.contains(&number));
        if (draws && wanted.is_none()) || (wanted.is_some() && !is_held) {
            // Two protocols on the same port number share one node port.
            needs.node_ports.push(NodePortNeed {
                index,
                protocol,
                wanted,
            });
        }
    }
    let local = tree::text(new, "spec.type") == "LoadBalancer"
        && tree::text(new, "spec.externalTrafficPolicy") == "Local";
    let wanted = number(
        new.get("spec").unwrap_or(&Value::Null),
        "healthCheckNodePort",
    );
    let held = old.and_then(|old| number(old.get("spec")?, "healthCheckNodePort"));
    if local && (wanted.is_none() || wanted != held) {
        needs.health_check = Some(wanted);
    }
    needs
}

/// What `old` held that `new` (none if it is deleted) does not.
pub fn released(old: &Value, new: Option<&Value>) -> Released {
    let ips = |service: &Value| -> Vec<String> {
        let ips = tree::words(service, "spec.clusterIPs").into_iter();
        ips.filter(|ip| *ip != "None").map(str::to_owned).collect()
    };
    let (kept_ips, kept_ports) = new
        .map(|new| (ips(new), node_ports(new)))
        .unwrap_or_default();
    Released {
        cluster_ips: ips(old)
            .into_iter()
            .filter(|ip| !kept_ips.contains(ip))
            .collect(),
        node_ports: node_ports(old)
            .into_iter()
            .filter(|p| !kept_ports.contains(p))
            .collect(),
    }
}

/// Every node port a Service holds, the one for health checks included.
pub fn node_ports(service: &Value) -> Vec<u16> {
    let mut ports: Vec<u16> = tree::list(service, "spec.ports")
        .iter()
        .filter_map(|port| number(port, "nodePort"))
        .collect();
    ports.extend(
        service
            .get("spec")
            .and_then(|spec| number(spec, "healthCheckNodePort")),
    );
    ports
}

fn number(object: &Value, key: &str) -> Option<u16> {
    tree::int(object, key)
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n != 0)
}

/// Writes a drawn cluster IP.
pub fn set_cluster_ip(service: &mut Value, ip: &str) {
    let spec = tree::child(service, "spec");
    spec["clusterIP"] = json!(ip);
    spec["clusterIPs"] = json!([ip]);
}

/// Writes a drawn node port.
pub fn set_node_port(service: &mut Value, index: usize, port: u16) {
    if let Some(element) = tree::list_mut(service, "spec.ports").get_mut(index) {
        element["nodePort"] = json!(port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_balancer_needs_an_address_and_its_ports() {
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [
            {"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP", "nodePort": 31000}]}});
        let found = needs(&service, None);
        assert!(found.any_cluster_ip);
        let wanted: Vec<Option<u16>> = found.node_ports.iter().map(|need| need.wanted).collect();
        assert_eq!(wanted, [None, Some(31000)]);
    }

    #[test]
    fn headless_and_external_services_need_nothing() {
        let headless =
            json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "ports": [{"port": 80}]}});
        assert_eq!(needs(&headless, None), Needs::default());
        assert_eq!(
            needs(&json!({"spec": {"type": "ExternalName"}}), None),
            Needs::default()
        );
    }

    #[test]
    fn what_is_held_is_not_drawn_again_and_what_goes_is_released() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ports": [{"port": 80, "nodePort": 30001}]}});
        assert_eq!(needs(&old, Some(&old)), Needs::default());
        let new = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ports": [{"port": 80}]}});
        assert_eq!(needs(&new, Some(&old)), Needs::default());
        assert_eq!(released(&old, Some(&new)).node_ports, [30001]);
        assert_eq!(released(&old, None).cluster_ips, ["10.0.0.1"]);
    }
}
