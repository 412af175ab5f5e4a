//! What a ReplicaSet lacks or has too much of, and its status. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::meta::{self, Claim};

/// Most Pods created or deleted in one go.
const BURST: usize = 500;

pub(super) struct Observed {
    pub(super) set: Arc<ReplicaSet>,
    /// The Pods of the namespace.
    pub(super) pods: Vec<Arc<Pod>>,
}

#[derive(Debug)]
pub(super) enum Change {
    Adopt(Arc<Pod>),
    Release(Arc<Pod>),
    Create(Box<Pod>),
    Delete(Arc<Pod>),
}

/// Why a Pod could not be created or deleted.
pub(super) struct Failure {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

fn claimed(observed: &Observed) -> Option<Claim<Pod>> {
    let spec = observed.set.spec.as_ref()?;
    let selector = meta::workload_selector(&spec.selector)?;
    let active = observed
        .pods
        .iter()
        .filter(|pod| meta::is_active(pod))
        .cloned();
    Some(meta::claim(&observed.set.metadata, &selector, active))
}

pub(super) fn plan(observed: &Observed) -> Vec<Change> {
    let set = &observed.set;
    let (Some(claim), Some(spec)) = (claimed(observed), set.spec.as_ref()) else {
        return Vec::new();
    };
    let mut changes: Vec<Change> = Vec::new();
    let mut pods = claim.owned;
    pods.extend(claim.adopt.iter().cloned());
    changes.extend(claim.adopt.into_iter().map(Change::Adopt));
    changes.extend(claim.release.into_iter().map(Change::Release));
    if set.metadata.deletion_timestamp.is_some() {
        return changes;
    }
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if pods.len() < wanted {
        if let Some(template) = &spec.template {
            for _ in 0..(wanted - pods.len()).min(BURST) {
                changes.push(Change::Create(Box::new(meta::pod_of_template(
                    template,
                    set.as_ref(),
                ))));
            }
        }
    } else if pods.len() > wanted {
        let surplus = (pods.len() - wanted).min(BURST);
        order_for_deletion(&mut pods, &observed.pods, set);
        changes.extend(pods.into_iter().take(surplus).map(Change::Delete));
    }
    changes
}

/// Sorts the Pods that are missed least to the front: not yet placed, not running, not ready,
/// cheap to lose, crowded on their node, recently ready, often restarted, young.
fn order_for_deletion(pods: &mut [Arc<Pod>], namespace: &[Arc<Pod>], set: &ReplicaSet) {
    // Pods of sibling sets (same owner) on the same node count as a crowd too.
    let siblings = meta::controller_of(&set.metadata).map(|owner| owner.uid.as_str());
    let mut crowd: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in namespace {
        let ours = meta::is_controlled_by(&pod.metadata, set.metadata.uid.as_deref());
        if (ours || (siblings.is_some() && same_prefix(pod, set))) && meta::is_active(pod) {
            if let Some(node) = meta::node_name(pod) {
                *crowd.entry(node).or_default() += 1;
            }
        }
    }
    pods.sort_by_cached_key(|pod| {
        let placed = meta::node_name(pod).is_some();
        let phase = match meta::phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let cost: i32 = pod
            .annotations()
            .get("controller.kubernetes.io/pod-deletion-cost")
            .and_then(|cost| cost.parse().ok())
            .unwrap_or(0);
        let crowded = meta::node_name(pod)
            .and_then(|n| crowd.get(n))
            .copied()
            .unwrap_or(0);
        (
            placed,
            phase,
            meta::is_ready(pod),
            cost,
            Reverse(crowded),
            Reverse(meta::ready_time(pod)),
            Reverse(meta::restarts(pod)),
            Reverse(pod.creation_timestamp()),
            pod.name_any(),
        )
    });
}

/// Whether a Pod's ReplicaSet is named like a sibling's: `<deployment>-<hash>`.
fn same_prefix(pod: &Pod, set: &ReplicaSet) -> bool {
    let name = set.name_any();
    let Some((deployment, _)) = name.rsplit_once('-') else {
        return false;
    };
    meta::controller_of(&pod.metadata).is_some_and(|owner| {
        owner.kind == "ReplicaSet"
            && owner
                .name
                .rsplit_once('-')
                .is_some_and(|(prefix, _)| prefix == deployment)
    })
}

/// The status, and when it will change by the mere passing of time.
pub(super) fn status(
    observed: &Observed,
    failure: Option<&Failure>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let set = &observed.set;
    let old = set.status.clone().unwrap_or_default();
    let (Some(claim), Some(spec)) = (claimed(observed), set.spec.as_ref()) else {
        return (old, None);
    };
    let labels = spec
        .template
        .as_ref()
        .and_then(|t| t.metadata.as_ref()?.labels.as_ref());
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let (mut labelled, mut ready, mut available, mut again) = (0, 0, 0, None);
    for pod in &claim.owned {
        let carries = |(key, value): (&String, &String)| pod.labels().get(key) == Some(value);
        if labels.is_none_or(|labels| labels.iter().all(carries)) {
            labelled += 1;
        }
        if let Some(rest) = meta::until_available(pod, min_ready, now) {
            ready += 1;
            if rest.is_zero() {
                available += 1;
            } else {
                again = meta::sooner(again, Some(rest));
            }
        }
    }
    let some = |count: i32| (count != 0).then_some(count);
    let status = ReplicaSetStatus {
        replicas: i32::try_from(claim.owned.len()).unwrap_or(i32::MAX),
        fully_labeled_replicas: some(labelled),
        ready_replicas: some(ready),
        available_replicas: some(available),
        observed_generation: set.metadata.generation,
        conditions: conditions(&old, failure, now),
        terminating_replicas: old.terminating_replicas,
    };
    (status, again)
}

fn conditions(
    old: &ReplicaSetStatus,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let kept = conditions
        .iter()
        .find(|c| c.type_ == "ReplicaFailure")
        .cloned();
    conditions.retain(|c| c.type_ != "ReplicaFailure");
    if let Some(failure) = failure.filter(|failure| !failure.reason.is_empty()) {
        conditions.push(match kept {
            Some(kept) if kept.reason.as_deref() == Some(failure.reason) => kept,
            _ => ReplicaSetCondition {
                type_: "ReplicaFailure".to_owned(),
                status: "True".to_owned(),
                reason: Some(failure.reason.to_owned()),
                message: Some(failure.message.clone()),
                last_transition_time: Some(meta::whole_seconds(now)),
            },
        });
    }
    (!conditions.is_empty()).then_some(conditions)
}
