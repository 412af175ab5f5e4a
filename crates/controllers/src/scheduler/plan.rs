//! Where a Pod goes, or why it cannot. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt as _;

use super::{affinity, fit};
use crate::volume;

pub(super) struct Observed {
    pub(super) pod: Arc<Pod>,
    /// All Pods, those included that were just given a node.
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) nodes: Vec<Arc<Node>>,
    /// The claims of the Pod's namespace.
    pub(super) claims: Vec<Arc<PersistentVolumeClaim>>,
    pub(super) volumes: Vec<Arc<PersistentVolume>>,
    pub(super) classes: Vec<Arc<StorageClass>>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    Bind(String),
    /// The claims wait for their first consumer: they are told its node first.
    SelectNode {
        claims: Vec<Arc<PersistentVolumeClaim>>,
        node: String,
    },
    Unschedulable(String),
    /// Something that will be told is under way.
    Wait,
}

/// How a Pod's claims stand.
#[derive(Default)]
struct Claims {
    volumes: Vec<Arc<PersistentVolume>>,
    /// Waiting for their first consumer.
    delayed: Vec<Arc<PersistentVolumeClaim>>,
    /// A node was chosen, the volume is being made.
    under_way: bool,
}

pub(super) fn plan(observed: &Observed) -> Decision {
    if observed.nodes.is_empty() {
        return Decision::Unschedulable("no nodes available to schedule pods".to_owned());
    }
    let claims = match claims(observed) {
        Ok(claims) => claims,
        Err(problem) => {
            let nodes = observed.nodes.len();
            let message = format!(
                "0/{nodes} nodes are available: {problem}. {}",
                preemption(nodes, nodes)
            );
            return Decision::Unschedulable(message);
        }
    };
    if claims.under_way {
        return Decision::Wait;
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<(i128, String)> = None;
    // Nodes that could not take the Pod even if they were empty.
    let mut for_good = 0;
    for node in &observed.nodes {
        match examine(observed, node, &claims) {
            Ok(fullness) => {
                let candidate = (fullness, node.name_any());
                if best.as_ref().is_none_or(|best| candidate < *best) {
                    best = Some(candidate);
                }
            }
            Err(objections) => {
                for_good += usize::from(is_for_good(observed, node, &objections));
                for objection in objections {
                    *reasons.entry(objection).or_default() += 1;
                }
            }
        }
    }
    match best {
        Some((_, node)) if claims.delayed.is_empty() => Decision::Bind(node),
        Some((_, node)) => Decision::SelectNode {
            claims: claims.delayed,
            node,
        },
        None => {
            let mut counted: Vec<String> = reasons
                .into_iter()
                .map(|(reason, count)| format!("{count} {reason}"))
                .collect();
            counted.sort();
            let nodes = observed.nodes.len();
            Decision::Unschedulable(format!(
                "0/{nodes} nodes are available: {}. {}",
                counted.join(", "),
                preemption(nodes, for_good)
            ))
        }
    }
}

/// What it would help if other Pods went, in upstream's words. (They are never made to.)
fn preemption(nodes: usize, for_good: usize) -> String {
    let mut parts = Vec::new();
    if for_good < nodes {
        let some = nodes - for_good;
        parts.push(format!(
            "{some} No preemption victims found for incoming pod"
        ));
    }
    if for_good > 0 {
        parts.push(format!(
            "{for_good} Preemption is not helpful for scheduling"
        ));
    }
    format!(
        "preemption: 0/{nodes} nodes are available: {}.",
        parts.join(", ")
    )
}

/// Whether what speaks against a node would do so if no other Pod were on it.
fn is_for_good(observed: &Observed, node: &Node, objections: &[String]) -> bool {
    let passes = |objection: &String| {
        objection.contains("free ports")
            || objection.contains("pod affinity rules")
            || objection.contains("pod anti-affinity rules")
    };
    if objections.iter().any(passes) {
        return false;
    }
    let short = objections
        .iter()
        .all(|objection| objection.starts_with("Insufficient ") || objection == "Too many pods");
    if !short || objections.is_empty() {
        return true;
    }
    !fit::shortages(&observed.pod, node, &[], &fit::used(&[])).is_empty()
}

fn claims(observed: &Observed) -> Result<Claims, String> {
    let mut claims = Claims::default();
    for name in volume::claims_of(&observed.pod) {
        let Some(claim) = observed
            .claims
            .iter()
            .find(|claim| claim.name_any() == name)
        else {
            return Err(format!("persistentvolumeclaim {name:?} not found"));
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        if claim
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            == Some("Lost")
        {
            let volume = claim
                .spec
                .as_ref()
                .and_then(|spec| spec.volume_name.as_deref());
            return Err(format!(
                "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {:?}",
                volume.unwrap_or_default()
            ));
        }
        if volume::is_bound(claim) {
            let bound = claim
                .spec
                .as_ref()
                .and_then(|spec| spec.volume_name.as_deref());
            let volume = observed
                .volumes
                .iter()
                .find(|v| v.metadata.name.as_deref() == bound);
            claims.volumes.extend(volume.cloned());
            continue;
        }
        let class_name = volume::class_of_claim(claim);
        let class = observed
            .classes
            .iter()
            .find(|class| class.metadata.name.as_deref() == class_name);
        let waits = class.and_then(|class| class.volume_binding_mode.as_deref())
            == Some("WaitForFirstConsumer");
        if !waits {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        if volume::delays_binding(claim, class.map(Arc::as_ref)) {
            claims.delayed.push(claim.clone());
        } else {
            claims.under_way = true;
        }
    }
    Ok(claims)
}

/// How full the node would be with the Pod, or everything that speaks against it.
fn examine(observed: &Observed, node: &Node, claims: &Claims) -> Result<i128, Vec<String>> {
    let pod = observed.pod.as_ref();
    let name = node.name_any();
    let one = |text: &str| Err(vec![text.to_owned()]);
    let Some(spec) = &pod.spec else {
        return one("pod has no spec");
    };
    // Cordoned nodes carry a taint as well, and tolerating that one means tolerating both.
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let tolerates_cordon = spec.tolerations.iter().flatten().any(|toleration| {
        let key = toleration.key.as_deref().unwrap_or("");
        let exists = toleration.operator.as_deref() == Some("Exists");
        key == "node.kubernetes.io/unschedulable" || (key.is_empty() && exists)
    });
    if cordoned && !tolerates_cordon {
        return one("node(s) were unschedulable");
    }
    if let Some(taint) = fit::untolerated(spec, node, &["NoSchedule", "NoExecute"]) {
        let value = taint.value.as_deref().unwrap_or("");
        return Err(vec![format!(
            "node(s) had untolerated taint {{{}: {value}}}",
            taint.key
        )]);
    }
    if !affinity::required_affinity_matches(spec, node) {
        return one("node(s) didn't match Pod's node affinity/selector");
    }
    let on_node = fit::pods_on(&name, &observed.pods);
    if !fit::ports_are_free(pod, &on_node) {
        return one("node(s) didn't have free ports for the requested pod ports");
    }
    let used = fit::used(&on_node);
    let short = fit::shortages(pod, node, &on_node, &used);
    if !short.is_empty() {
        return Err(short);
    }
    if !claims
        .volumes
        .iter()
        .all(|volume| volume::volume_fits_node(volume, node))
    {
        return one("node(s) had volume node affinity conflict");
    }
    if let Some(objection) = affinity::against_pods(pod, node, &observed.pods, &observed.nodes) {
        return one(objection);
    }
    Ok(fit::fullness(pod, node, &used))
}
