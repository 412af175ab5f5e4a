//! Which nodes lack their Pod, which Pods are wrong, and the status. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod,
    PodSpec, Toleration,
};
use kube::ResourceExt as _;

use crate::meta::{self, Claim};
use crate::revision::{self, HASH_LABEL};
use crate::scheduler;

pub(super) struct Observed {
    pub(super) set: Arc<DaemonSet>,
    /// The Pods of the namespace.
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) nodes: Vec<Arc<Node>>,
    /// The ControllerRevisions of the namespace.
    pub(super) revisions: Vec<Arc<ControllerRevision>>,
    pub(super) now: Timestamp,
}

#[derive(Debug)]
pub(super) enum Change {
    Adopt(Arc<Pod>),
    Release(Arc<Pod>),
    Create(Box<Pod>),
    Delete(Arc<Pod>),
    /// A Pod that should have run for ever has ended.
    Finished {
        pod: Arc<Pod>,
        node: String,
    },
}

pub(super) struct Plan {
    /// The hash of the current template.
    pub(super) hash: String,
    pub(super) history: Vec<revision::Change>,
    pub(super) changes: Vec<Change>,
}

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// The step to take; `None` when the selector is empty.
pub(super) fn plan(observed: &Observed) -> Option<Plan> {
    let set = observed.set.as_ref();
    let spec = set.spec.as_ref()?;
    let claim = claimed(observed)?;
    let history = revision::history(
        set,
        &spec.template,
        set.status
            .as_ref()
            .and_then(|status| status.collision_count),
        spec.revision_history_limit,
        &observed.revisions,
        |hash| {
            claim
                .owned
                .iter()
                .any(|pod| pod.labels().get(HASH_LABEL).is_some_and(|h| h == hash))
        },
    );
    let mut plan = Plan {
        hash: history.hash,
        history: Vec::new(),
        changes: Vec::new(),
    };
    if set.metadata.deletion_timestamp.is_some() {
        return Some(plan);
    }
    plan.history = history.changes;
    if !claim.adopt.is_empty() || !claim.release.is_empty() {
        plan.changes
            .extend(claim.adopt.into_iter().map(Change::Adopt));
        plan.changes
            .extend(claim.release.into_iter().map(Change::Release));
        return Some(plan);
    }
    let by_node = by_node(&claim.owned);
    for node in &observed.nodes {
        let name = node.name_any();
        let here = by_node
            .get(name.as_str())
            .map(Vec::as_slice)
            .unwrap_or_default();
        let (may_start, may_stay) = suits(spec, node);
        plan_node(&mut plan, set, node, here, may_start, may_stay);
    }
    let rolls = spec
        .update_strategy
        .as_ref()
        .and_then(|s| s.type_.as_deref())
        != Some("OnDelete");
    if rolls && plan.changes.is_empty() {
        plan.changes = roll(observed, spec, &by_node, &plan.hash);
    }
    Some(plan)
}

fn claimed(observed: &Observed) -> Option<Claim<Pod>> {
    let selector = meta::workload_selector(&observed.set.spec.as_ref()?.selector)?;
    Some(meta::claim(
        &observed.set.metadata,
        &selector,
        observed.pods.iter().cloned(),
    ))
}

/// The node a Pod of a DaemonSet is on or meant for.
fn target_node(pod: &Pod) -> Option<&str> {
    if let Some(name) = meta::node_name(pod) {
        return Some(name);
    }
    let affinity = pod
        .spec
        .as_ref()?
        .affinity
        .as_ref()?
        .node_affinity
        .as_ref()?;
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let mut fields = required
        .node_selector_terms
        .iter()
        .flat_map(|term| term.match_fields.iter().flatten());
    let field = fields.find(|field| field.key == "metadata.name" && field.operator == "In")?;
    field.values.as_ref()?.first().map(String::as_str)
}

fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<&str, Vec<Arc<Pod>>> {
    let mut by_node: BTreeMap<&str, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        if let Some(node) = target_node(pod) {
            by_node.entry(node).or_default().push(pod.clone());
        }
    }
    by_node
}

/// Whether a Pod of the set may start on the node, and whether one that runs there may stay.
fn suits(spec: &DaemonSetSpec, node: &Node) -> (bool, bool) {
    let Some(mut pod) = spec.template.spec.clone() else {
        return (false, false);
    };
    if pod
        .node_name
        .as_ref()
        .is_some_and(|name| !name.is_empty() && *name != node.name_any())
    {
        return (false, false);
    }
    if !scheduler::required_affinity_matches(&pod, node) {
        return (false, false);
    }
    add_tolerations(&mut pod);
    let stays = scheduler::untolerated(&pod, node, &["NoExecute"]).is_none();
    let starts = scheduler::untolerated(&pod, node, &["NoSchedule", "NoExecute"]).is_none();
    (starts, stays)
}

fn plan_node(
    plan: &mut Plan,
    set: &DaemonSet,
    node: &Node,
    here: &[Arc<Pod>],
    may_start: bool,
    may_stay: bool,
) {
    if here.is_empty() {
        if may_start {
            plan.changes
                .push(Change::Create(Box::new(pod_for(set, node, &plan.hash))));
        }
        return;
    }
    let lives = |pod: &&Arc<Pod>| pod.metadata.deletion_timestamp.is_none();
    if !may_stay {
        plan.changes
            .extend(here.iter().filter(lives).cloned().map(Change::Delete));
        return;
    }
    let mut running = Vec::new();
    for pod in here.iter().filter(lives) {
        if meta::is_terminal(pod) {
            let node = node.name_any();
            plan.changes.push(Change::Finished {
                pod: pod.clone(),
                node,
            });
        } else {
            running.push(pod.clone());
        }
    }
    // One is enough: the one that is placed and oldest stays.
    running.sort_by_key(|pod| {
        (
            meta::node_name(pod).is_none(),
            pod.creation_timestamp(),
            pod.name_any(),
        )
    });
    plan.changes
        .extend(running.into_iter().skip(1).map(Change::Delete));
}

/// Deletes Pods of old templates, as many at a time as may be missing.
fn roll(
    observed: &Observed,
    spec: &DaemonSetSpec,
    by_node: &BTreeMap<&str, Vec<Arc<Pod>>>,
    hash: &str,
) -> Vec<Change> {
    let rolling = spec
        .update_strategy
        .as_ref()
        .and_then(|s| s.rolling_update.as_ref());
    let nodes: Vec<_> = observed
        .nodes
        .iter()
        .filter(|node| suits(spec, node).0)
        .collect();
    let desired = i32::try_from(nodes.len()).unwrap_or(i32::MAX);
    let limit = rolling.and_then(|r| r.max_unavailable.as_ref());
    // One at least: old Pods are replaced in place here, also when a surge is asked for.
    let mut budget = meta::scaled(limit, "1", desired, true).max(1);
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let mut unavailable_old = Vec::new();
    let mut available_old = Vec::new();
    for node in nodes {
        let pods = by_node
            .get(node.name_any().as_str())
            .cloned()
            .unwrap_or_default();
        let Some(pod) = pods
            .iter()
            .find(|pod| pod.metadata.deletion_timestamp.is_none())
        else {
            budget -= 1;
            continue;
        };
        let available =
            meta::until_available(pod, min_ready, observed.now).is_some_and(|left| left.is_zero());
        let current = pod.labels().get(HASH_LABEL).is_some_and(|has| has == hash);
        match (current, available) {
            (true, true) => {}
            (true, false) => budget -= 1,
            (false, true) => available_old.push(pod.clone()),
            // Replacing what does not work costs nothing.
            (false, false) => {
                budget -= 1;
                unavailable_old.push(pod.clone());
            }
        }
    }
    let budget = usize::try_from(budget).unwrap_or(0);
    let replaced = unavailable_old
        .into_iter()
        .chain(available_old.into_iter().take(budget));
    replaced.map(Change::Delete).collect()
}

fn pod_for(set: &DaemonSet, node: &Node, hash: &str) -> Pod {
    let template = set
        .spec
        .as_ref()
        .map(|spec| spec.template.clone())
        .unwrap_or_default();
    let mut pod = meta::pod_of_template(&template, set);
    let labels = pod.labels_mut();
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    if let Some(generation) = set.annotations().get(TEMPLATE_GENERATION) {
        labels.insert("pod-template-generation".to_owned(), generation.clone());
    }
    if let Some(spec) = &mut pod.spec {
        pin(spec, &node.name_any());
        add_tolerations(spec);
    }
    pod
}

/// Makes the node's name the required node affinity.
fn pin(spec: &mut PodSpec, node: &str) {
    let field = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    let required: &mut NodeSelector = affinity
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_default();
    // The template's own terms were checked when the node was chosen.
    required.node_selector_terms = vec![NodeSelectorTerm {
        match_fields: Some(vec![field]),
        match_expressions: None,
    }];
}

/// What every daemon tolerates: it is there before its node is well and stays when it is not.
fn add_tolerations(spec: &mut PodSpec) {
    let host_network = spec.host_network == Some(true);
    let tolerations = spec.tolerations.get_or_insert_default();
    let wanted = [
        ("node.kubernetes.io/not-ready", "NoExecute", true),
        ("node.kubernetes.io/unreachable", "NoExecute", true),
        ("node.kubernetes.io/disk-pressure", "NoSchedule", true),
        ("node.kubernetes.io/memory-pressure", "NoSchedule", true),
        ("node.kubernetes.io/pid-pressure", "NoSchedule", true),
        ("node.kubernetes.io/unschedulable", "NoSchedule", true),
        (
            "node.kubernetes.io/network-unavailable",
            "NoSchedule",
            host_network,
        ),
    ];
    for (key, effect, _) in wanted.into_iter().filter(|(_, _, applies)| *applies) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

/// The status, and when it will change by the mere passing of time.
pub(super) fn status(observed: &Observed, hash: &str) -> (DaemonSetStatus, Option<Duration>) {
    let set = observed.set.as_ref();
    let old = set.status.clone().unwrap_or_default();
    let (Some(spec), Some(claim)) = (&set.spec, claimed(observed)) else {
        return (old, None);
    };
    let by_node = by_node(&claim.owned);
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let (mut desired, mut current, mut ready, mut available) = (0, 0, 0, 0);
    let (mut updated, mut misplaced, mut again) = (0, 0, None);
    for node in &observed.nodes {
        let pods = by_node
            .get(node.name_any().as_str())
            .map(Vec::as_slice)
            .unwrap_or_default();
        if !suits(spec, node).0 {
            misplaced += i32::from(!pods.is_empty());
            continue;
        }
        desired += 1;
        let Some(pod) = pods.iter().min_by_key(|pod| {
            (
                pod.metadata.deletion_timestamp.is_some(),
                pod.creation_timestamp(),
            )
        }) else {
            continue;
        };
        current += 1;
        updated += i32::from(pod.labels().get(HASH_LABEL).is_some_and(|has| has == hash));
        if let Some(left) = meta::until_available(pod, min_ready, observed.now) {
            ready += 1;
            if left.is_zero() {
                available += 1;
            } else {
                again = meta::sooner(again, Some(left));
            }
        }
    }
    let some = |count: i32| (count != 0).then_some(count);
    let status = DaemonSetStatus {
        collision_count: old.collision_count,
        conditions: old.conditions,
        current_number_scheduled: current,
        desired_number_scheduled: desired,
        number_available: some(available),
        number_misscheduled: misplaced,
        number_ready: ready,
        number_unavailable: some(desired - available),
        observed_generation: set.metadata.generation,
        updated_number_scheduled: some(updated),
    };
    (status, again)
}
