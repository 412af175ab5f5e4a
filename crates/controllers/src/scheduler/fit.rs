//! What a node has against a Pod: taints, ports, resources. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec, ResourceRequirements, Taint};

use crate::{meta, quantity};

/// Amounts by resource name, in thousandths.
pub(super) type Amounts = BTreeMap<String, i128>;

/// The first taint with one of these effects that the Pod does not tolerate.
pub(crate) fn untolerated<'a>(
    spec: &PodSpec,
    node: &'a Node,
    effects: &[&str],
) -> Option<&'a Taint> {
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    taints.iter().find(|taint| {
        effects.contains(&taint.effect.as_str())
            && !spec.tolerations.iter().flatten().any(|toleration| {
                let effect = toleration.effect.as_deref().unwrap_or("");
                let key = toleration.key.as_deref().unwrap_or("");
                let same_value = toleration.value.as_deref().unwrap_or("")
                    == taint.value.as_deref().unwrap_or("");
                let exists = toleration.operator.as_deref() == Some("Exists");
                (effect.is_empty() || effect == taint.effect)
                    && ((key.is_empty() && exists) || (key == taint.key && (exists || same_value)))
            })
    })
}

/// The host ports a Pod takes: address, protocol, number.
fn host_ports(pod: &Pod) -> BTreeSet<(String, String, i32)> {
    let Some(spec) = &pod.spec else {
        return BTreeSet::new();
    };
    let restartable = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten().filter(restartable))
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let address = port.host_ip.clone().filter(|ip| !ip.is_empty());
            Some((
                address.unwrap_or_else(|| "0.0.0.0".to_owned()),
                port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                number,
            ))
        })
        .collect()
}

pub(super) fn ports_are_free(pod: &Pod, on_node: &[Arc<Pod>]) -> bool {
    let wanted = host_ports(pod);
    wanted.is_empty()
        || !on_node
            .iter()
            .flat_map(|other| host_ports(other))
            .any(|(ip, protocol, number)| {
                wanted
                    .iter()
                    .any(|(wanted_ip, wanted_protocol, wanted_number)| {
                        *wanted_number == number
                            && *wanted_protocol == protocol
                            && (ip == *wanted_ip || ip == "0.0.0.0" || wanted_ip == "0.0.0.0")
                    })
            })
}

fn requests(resources: Option<&ResourceRequirements>) -> Amounts {
    resources
        .and_then(|resources| resources.requests.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|(name, amount)| Some((name.clone(), quantity::milli(amount)?)))
        .collect()
}

fn add(to: &mut Amounts, amounts: &Amounts) {
    for (name, amount) in amounts {
        *to.entry(name.clone()).or_default() += amount;
    }
}

fn raise(to: &mut Amounts, amounts: &Amounts) {
    for (name, amount) in amounts {
        let has = to.entry(name.clone()).or_default();
        *has = (*has).max(*amount);
    }
}

/// What a Pod needs at most at any moment: its containers together, or an init container with the
/// sidecars that were started before it.
pub(super) fn pod_requests(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else {
        return Amounts::new();
    };
    let mut together = Amounts::new();
    for container in &spec.containers {
        add(&mut together, &requests(container.resources.as_ref()));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let wants = requests(container.resources.as_ref());
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sidecars, &wants);
            add(&mut together, &wants);
            raise(&mut peak, &sidecars);
        } else {
            let mut moment = sidecars.clone();
            add(&mut moment, &wants);
            raise(&mut peak, &moment);
        }
    }
    raise(&mut together, &peak);
    // Requests of the Pod as a whole stand over those of its containers.
    together.extend(requests(spec.resources.as_ref()));
    for (name, amount) in spec.overhead.iter().flatten() {
        *together.entry(name.clone()).or_default() += quantity::milli(amount).unwrap_or(0);
    }
    together
}

pub(super) fn allocatable(node: &Node) -> Amounts {
    let status = node.status.as_ref();
    status
        .and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()))
        .into_iter()
        .flatten()
        .filter_map(|(name, amount)| Some((name.clone(), quantity::milli(amount)?)))
        .collect()
}

pub(super) fn used(on_node: &[Arc<Pod>]) -> Amounts {
    let mut used = Amounts::new();
    for pod in on_node {
        add(&mut used, &pod_requests(pod));
    }
    used
}

/// What there is too little of.
pub(super) fn shortages(
    pod: &Pod,
    node: &Node,
    on_node: &[Arc<Pod>],
    used: &Amounts,
) -> Vec<String> {
    let allocatable = allocatable(node);
    let mut short = Vec::new();
    let places = allocatable
        .get("pods")
        .map_or(i128::MAX, |milli| milli / 1000);
    if on_node.len() as i128 + 1 > places {
        short.push("Too many pods".to_owned());
    }
    for (name, wanted) in pod_requests(pod) {
        let has = allocatable.get(&name).copied().unwrap_or(0);
        if wanted > 0 && used.get(&name).copied().unwrap_or(0) + wanted > has {
            short.push(format!("Insufficient {name}"));
        }
    }
    short
}

/// How full a node would be, in thousandths of the fuller of processor and memory.
pub(super) fn fullness(pod: &Pod, node: &Node, used: &Amounts) -> i128 {
    let (allocatable, wanted) = (allocatable(node), pod_requests(pod));
    ["cpu", "memory"]
        .iter()
        .map(|name| {
            let get = |amounts: &Amounts| amounts.get(*name).copied().unwrap_or(0);
            (get(used) + get(&wanted)).saturating_mul(1000) / get(&allocatable).max(1)
        })
        .max()
        .unwrap_or(0)
}

/// The Pods that occupy the node.
pub(super) fn pods_on(node: &str, pods: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    pods.iter()
        .filter(|pod| meta::node_name(pod) == Some(node) && !meta::is_terminal(pod))
        .cloned()
        .collect()
}
