//! A Deployment's status and its conditions. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use super::rolling::{self, Limits};
use crate::meta;

pub(super) fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Time,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    }
}

pub(super) fn find<'a>(
    status: &'a DeploymentStatus,
    type_: &str,
) -> Option<&'a DeploymentCondition> {
    status
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == type_)
}

/// Sets a condition unless it says the same already; the time of transition only moves when the
/// status does.
pub(super) fn set_condition(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(old) = find(status, &new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    replace_condition(status, new);
}

fn replace_condition(status: &mut DeploymentStatus, new: DeploymentCondition) {
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != new.type_);
    conditions.push(new);
}

fn remove_condition(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != type_);
    }
    status.conditions = status
        .conditions
        .take()
        .filter(|conditions| !conditions.is_empty());
}

/// `progressDeadlineSeconds`, unless it is the largest number there is, which means none.
pub(super) fn deadline(deployment: &Deployment) -> Option<i32> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != i32::MAX).then_some(seconds)
}

fn sum(sets: &[Arc<ReplicaSet>], count: impl Fn(&ReplicaSet) -> i32) -> i32 {
    sets.iter().map(|set| count(set)).sum()
}

fn replicas(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// The counts and the Available condition; `old` brings what is kept.
pub(super) fn counted(
    deployment: &Deployment,
    old: &DeploymentStatus,
    sets: &[Arc<ReplicaSet>],
    new: Option<&Arc<ReplicaSet>>,
    limits: Limits,
    now: Timestamp,
) -> DeploymentStatus {
    let some = |count: i32| (count != 0).then_some(count);
    let available = sum(sets, |set| {
        set.status
            .as_ref()
            .and_then(|s| s.available_replicas)
            .unwrap_or(0)
    });
    let unavailable = (rolling::total(sets) - available).max(0);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(sets, replicas)),
        updated_replicas: some(new.map_or(0, |set| replicas(set))),
        ready_replicas: some(sum(sets, |set| {
            set.status
                .as_ref()
                .and_then(|s| s.ready_replicas)
                .unwrap_or(0)
        })),
        available_replicas: some(available),
        unavailable_replicas: some(unavailable),
        collision_count: old.collision_count,
        conditions: old.conditions.clone(),
        terminating_replicas: old.terminating_replicas,
    };
    let now = meta::whole_seconds(now);
    set_condition(
        &mut status,
        if available >= limits.replicas - limits.unavailable {
            condition(
                "Available",
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.".to_owned(),
                now,
            )
        } else {
            condition(
                "Available",
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.".to_owned(),
                now,
            )
        },
    );
    status
}

pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let has = |count: Option<i32>| count.unwrap_or(0) == wanted;
    has(status.updated_replicas)
        && has(status.replicas)
        && has(status.available_replicas)
        && status.observed_generation >= deployment.metadata.generation
}

fn is_progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |count: Option<i32>| count.unwrap_or(0);
    let leftover = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || leftover(new) < leftover(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

/// How long until the deadline passes without progress; zero when it has. `None`: it never will.
fn until_timeout(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let seconds = deadline(deployment)?;
    let progressing = find(status, "Progressing")?;
    match progressing.reason.as_deref() {
        Some("NewReplicaSetAvailable") => None,
        Some("ProgressDeadlineExceeded") => Some(Duration::ZERO),
        _ => {
            let since = progressing.last_update_time.as_ref()?.0;
            let left = SignedDuration::from_secs(i64::from(seconds)) - now.duration_since(since);
            Some(left.try_into().unwrap_or(Duration::ZERO))
        }
    }
}

/// The Progressing and ReplicaFailure conditions of a rollout, and when to look again.
pub(super) fn rollout(
    deployment: &Deployment,
    old: &DeploymentStatus,
    status: &mut DeploymentStatus,
    sets: &[Arc<ReplicaSet>],
    new: Option<&Arc<ReplicaSet>>,
    now: Timestamp,
) -> Option<Duration> {
    let mut again = None;
    if deadline(deployment).is_none() {
        remove_condition(status, "Progressing");
    } else {
        let finished = status.replicas == status.updated_replicas
            && find(status, "Progressing")
                .is_some_and(|c| c.reason.as_deref() == Some("NewReplicaSetAvailable"));
        if !finished {
            again = progress(deployment, old, status, new, now);
        }
    }
    let failure = sets.iter().chain(new).find_map(|set| {
        set.status
            .as_ref()?
            .conditions
            .as_ref()?
            .iter()
            .find(|c| c.type_ == "ReplicaFailure")
    });
    match failure {
        Some(failure) => set_condition(
            status,
            condition(
                "ReplicaFailure",
                &failure.status,
                failure.reason.as_deref().unwrap_or_default(),
                failure.message.clone().unwrap_or_default(),
                meta::whole_seconds(now),
            ),
        ),
        None => remove_condition(status, "ReplicaFailure"),
    }
    again
}

fn progress(
    deployment: &Deployment,
    old: &DeploymentStatus,
    status: &mut DeploymentStatus,
    new: Option<&Arc<ReplicaSet>>,
    now: Timestamp,
) -> Option<Duration> {
    let time = meta::whole_seconds(now);
    let subject = match new {
        Some(set) => format!("ReplicaSet {:?}", set.name_any()),
        None => format!("Deployment {:?}", deployment.name_any()),
    };
    if is_complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        set_condition(
            status,
            condition(
                "Progressing",
                "True",
                "NewReplicaSetAvailable",
                message,
                time,
            ),
        );
        return None;
    }
    if is_progressing(old, status) {
        let message = format!("{subject} is progressing.");
        let mut next = condition("Progressing", "True", "ReplicaSetUpdated", message, time);
        if let Some(current) = find(status, "Progressing") {
            if current.status == "True" {
                next.last_transition_time
                    .clone_from(&current.last_transition_time);
            }
        }
        // Every step forward moves the update time, from which the deadline counts.
        replace_condition(status, next);
        return until_timeout(deployment, status, now);
    }
    let left = until_timeout(deployment, status, now)?;
    if left.is_zero() {
        let message = format!("{subject} has timed out progressing.");
        set_condition(
            status,
            condition(
                "Progressing",
                "False",
                "ProgressDeadlineExceeded",
                message,
                time,
            ),
        );
        return None;
    }
    // One more second, since the wire has whole seconds.
    Some(left + Duration::from_secs(1))
}
