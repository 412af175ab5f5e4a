//! The next step of a Job. Pure.
//!
//! A finished Pod is counted once, whatever crashes in between: its uid is written into
//! `status.uncountedTerminatedPods` first, then its finalizer is removed, and only then, the Pod
//! being free to go, the uid turns into a count.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::conditions::{clear_condition, condition, resume, set_condition};
use super::indexes;
use super::pods::{FINALIZER, index_of, indexed_pod, pause_after_failures, pod_for};
use crate::meta::{self, Claim};

/// Most Pods created in one go.
const BURST: usize = 500;

pub(super) struct Observed {
    pub(super) job: Arc<Job>,
    /// The Pods of the namespace.
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) now: Timestamp,
}

#[derive(Debug)]
pub(super) enum Change {
    Adopt(Arc<Pod>),
    Release(Arc<Pod>),
    Create(Box<Pod>),
    Delete(Arc<Pod>),
    /// The Pod is counted, or its Job is gone: it may go.
    Free(Arc<Pod>),
    Normal {
        reason: &'static str,
        message: String,
    },
    Warning {
        reason: String,
        message: String,
    },
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Carried out before the status is written.
    pub(super) before: Vec<Change>,
    pub(super) status: Option<JobStatus>,
    /// Carried out once the status is stored.
    pub(super) after: Vec<Change>,
    pub(super) again: Option<Duration>,
    /// The Job has outlived its `ttlSecondsAfterFinished`.
    pub(super) expired: bool,
}

/// Whether the Job has ended, one way or the other, and when.
fn finished(status: &JobStatus) -> Option<&JobCondition> {
    condition(status, "Complete").or_else(|| condition(status, "Failed"))
}

fn uncounted(status: &JobStatus) -> UncountedTerminatedPods {
    status.uncounted_terminated_pods.clone().unwrap_or_default()
}

fn has_finalizer(pod: &Pod) -> bool {
    pod.finalizers()
        .iter()
        .any(|finalizer| finalizer == FINALIZER)
}

fn succeeded(pod: &Pod) -> bool {
    meta::phase(pod) == "Succeeded"
}

/// A Pod that is being deleted may never come to fail; it counts as failed at once.
fn failed(pod: &Pod, only_failed: bool) -> bool {
    meta::phase(pod) == "Failed"
        || (!only_failed && pod.metadata.deletion_timestamp.is_some() && !succeeded(pod))
}

/// The Pods of the Job and where they stand.
struct Pods {
    all: Vec<Arc<Pod>>,
    active: Vec<Arc<Pod>>,
    newly_succeeded: Vec<Arc<Pod>>,
    newly_failed: Vec<Arc<Pod>>,
}

pub(super) fn plan(observed: &Observed) -> Plan {
    let job = observed.job.as_ref();
    let (Some(spec), Some(claim)) = (&job.spec, claimed(observed)) else {
        return Plan::default();
    };
    let mut plan = Plan::default();
    if job.metadata.deletion_timestamp.is_some() {
        // Its Pods go with it, uncounted.
        let held = claim.owned.into_iter().filter(|pod| has_finalizer(pod));
        plan.before.extend(held.map(Change::Free));
        return plan;
    }
    let old = job.status.clone().unwrap_or_default();
    if let Some(end) = finished(&old) {
        let held = claim
            .owned
            .iter()
            .filter(|pod| has_finalizer(pod) && meta::is_terminal(pod));
        plan.before.extend(held.cloned().map(Change::Free));
        let ended = old
            .completion_time
            .clone()
            .or_else(|| end.last_transition_time.clone());
        expire(&mut plan, spec, ended.map(|time| time.0), observed.now);
        return plan;
    }
    if spec
        .managed_by
        .as_ref()
        .is_some_and(|by| by != "kubernetes.io/job-controller")
    {
        return plan;
    }
    if !claim.adopt.is_empty() || !claim.release.is_empty() {
        plan.before
            .extend(claim.adopt.into_iter().map(Change::Adopt));
        plan.before
            .extend(claim.release.into_iter().map(Change::Release));
        return plan;
    }
    run(observed, spec, old, claim.owned, &mut plan);
    plan
}

fn claimed(observed: &Observed) -> Option<Claim<Pod>> {
    let selector = meta::workload_selector(observed.job.spec.as_ref()?.selector.as_ref()?)?;
    Some(meta::claim(
        &observed.job.metadata,
        &selector,
        observed.pods.iter().cloned(),
    ))
}

fn expire(plan: &mut Plan, spec: &JobSpec, ended: Option<Timestamp>, now: Timestamp) {
    let (Some(ttl), Some(ended)) = (spec.ttl_seconds_after_finished, ended) else {
        return;
    };
    let left = SignedDuration::from_secs(i64::from(ttl)) - now.duration_since(ended);
    match Duration::try_from(left) {
        Ok(left) if !left.is_zero() => plan.again = Some(left),
        _ => plan.expired = true,
    }
}

/// Sorts the Pods: counted ones are left out, those that need counting are told apart.
fn sort(pods: Vec<Arc<Pod>>, spec: &JobSpec, status: &JobStatus) -> Pods {
    let waiting = uncounted(status);
    let known: BTreeSet<&String> = waiting
        .succeeded
        .iter()
        .flatten()
        .chain(waiting.failed.iter().flatten())
        .collect();
    let only_failed = spec.pod_replacement_policy.as_deref() == Some("Failed");
    let mut sorted = Pods {
        all: Vec::new(),
        active: Vec::new(),
        newly_succeeded: Vec::new(),
        newly_failed: Vec::new(),
    };
    for pod in pods {
        let is_new = has_finalizer(&pod)
            && pod
                .metadata
                .uid
                .as_ref()
                .is_some_and(|uid| !known.contains(uid));
        if succeeded(&pod) {
            if is_new {
                sorted.newly_succeeded.push(pod.clone());
            }
        } else if failed(&pod, only_failed) {
            if is_new {
                sorted.newly_failed.push(pod.clone());
            }
        } else if meta::is_active(&pod) {
            sorted.active.push(pod.clone());
        }
        sorted.all.push(pod);
    }
    sorted
}

fn run(observed: &Observed, spec: &JobSpec, old: JobStatus, owned: Vec<Arc<Pod>>, plan: &mut Plan) {
    let now = meta::whole_seconds(observed.now);
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    let suspended = spec.suspend == Some(true);
    let mut status = old.clone();
    let pods = sort(owned, spec, &old);
    if status.start_time.is_none() && !suspended {
        status.start_time = Some(now.clone());
    }

    // What was freed is counted now, and what has ended since is written down.
    let counted = settle(&mut status, &pods.all);
    let mut waiting = uncounted(&status);
    let uid = |pod: &Arc<Pod>| pod.metadata.uid.clone();
    let mut done = indexes::parse(status.completed_indexes.as_deref().unwrap_or(""));
    if indexed {
        done.extend(pods.newly_succeeded.iter().filter_map(|pod| index_of(pod)));
        let all = spec.completions.unwrap_or(0);
        done.retain(|index| *index < all);
        status.completed_indexes = (!done.is_empty()).then(|| indexes::format(&done));
    }
    waiting
        .succeeded
        .get_or_insert_default()
        .extend(pods.newly_succeeded.iter().filter_map(uid));
    waiting
        .failed
        .get_or_insert_default()
        .extend(pods.newly_failed.iter().filter_map(uid));
    let in_waiting = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len) as i32;
    let total_succeeded = if indexed {
        done.len() as i32
    } else {
        status.succeeded.unwrap_or(0) + in_waiting(&waiting.succeeded)
    };
    let total_failed = status.failed.unwrap_or(0) + in_waiting(&waiting.failed);

    let mut active = pods.active.clone();
    let verdict = verdict(
        &status,
        spec,
        &active,
        total_succeeded,
        total_failed,
        observed.now,
    );
    if let Some(verdict) = &verdict {
        // Nothing more may run; the end is declared once nothing does.
        plan.before.extend(active.drain(..).map(Change::Delete));
        let interim = if verdict.complete {
            "SuccessCriteriaMet"
        } else {
            "FailureTarget"
        };
        set_condition(
            &mut status,
            interim,
            &verdict.reason,
            &verdict.message,
            &now,
        );
    } else if suspended {
        plan.before.extend(active.drain(..).map(Change::Delete));
        status.start_time = None;
        if condition(&status, "Suspended").is_none() {
            clear_condition(&mut status, "Suspended");
            set_condition(
                &mut status,
                "Suspended",
                "JobSuspended",
                "Job suspended",
                &now,
            );
            let message = "Job suspended".to_owned();
            plan.after.push(Change::Normal {
                reason: "Suspended",
                message,
            });
        }
    } else {
        if condition(&status, "Suspended").is_some() {
            resume(&mut status, &now);
            let message = "Job resumed".to_owned();
            plan.after.push(Change::Normal {
                reason: "Resumed",
                message,
            });
        }
        fill(
            observed,
            spec,
            &mut active,
            &pods,
            &done,
            total_succeeded,
            plan,
        );
    }
    if let (Some(limit), Some(start), None) =
        (spec.active_deadline_seconds, &status.start_time, &verdict)
    {
        let left = SignedDuration::from_secs(limit) - observed.now.duration_since(start.0);
        plan.again = meta::sooner(plan.again, Duration::try_from(left).ok());
    }

    let terminating = pods
        .all
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_some() && !meta::is_terminal(pod))
        .count() as i32;
    let deleted = plan
        .before
        .iter()
        .filter(|c| matches!(c, Change::Delete(_)))
        .count() as i32;
    let created = plan
        .before
        .iter()
        .filter(|c| matches!(c, Change::Create(_)))
        .count() as i32;
    let running = active.len() as i32 + created;
    status.active = (running != 0).then_some(running);
    status.ready = Some(active.iter().filter(|pod| meta::is_ready(pod)).count() as i32);
    status.terminating = Some(terminating + deleted);
    let empty = in_waiting(&waiting.succeeded) + in_waiting(&waiting.failed) == 0;
    for list in [&mut waiting.succeeded, &mut waiting.failed] {
        *list = list.take().filter(|list| !list.is_empty());
    }
    status.uncounted_terminated_pods = Some(waiting.clone());
    if let Some(verdict) = verdict.filter(|_| empty && terminating + deleted == 0) {
        let end = if verdict.complete {
            "Complete"
        } else {
            "Failed"
        };
        set_condition(&mut status, end, &verdict.reason, &verdict.message, &now);
        if verdict.complete {
            status.completion_time = Some(now);
            let message = "Job completed".to_owned();
            plan.after.push(Change::Normal {
                reason: "Completed",
                message,
            });
        } else {
            let (reason, message) = (verdict.reason, verdict.message);
            plan.after.push(Change::Warning { reason, message });
        }
    }
    // Those written down may go; their going brings us back to count them.
    let written: BTreeSet<&String> = waiting
        .succeeded
        .iter()
        .flatten()
        .chain(waiting.failed.iter().flatten())
        .collect();
    let free = pods.all.iter().filter(|pod| {
        has_finalizer(pod)
            && pod
                .metadata
                .uid
                .as_ref()
                .is_some_and(|uid| written.contains(uid))
    });
    plan.after.extend(free.cloned().map(Change::Free));
    if status != old || counted {
        plan.status = Some(status);
    }
}

/// Turns the uids whose Pods are free into counts; says whether there were any.
fn settle(status: &mut JobStatus, pods: &[Arc<Pod>]) -> bool {
    let held: BTreeSet<&String> = pods
        .iter()
        .filter(|pod| has_finalizer(pod))
        .filter_map(|pod| pod.metadata.uid.as_ref())
        .collect();
    let mut waiting = uncounted(status);
    let mut moved = 0;
    let lists = [
        (&mut waiting.succeeded, &mut status.succeeded),
        (&mut waiting.failed, &mut status.failed),
    ];
    for (list, count) in lists {
        let Some(uids) = list else { continue };
        let before = uids.len();
        uids.retain(|uid| held.contains(uid));
        let freed = (before - uids.len()) as i32;
        if freed > 0 {
            *count = Some(count.unwrap_or(0) + freed);
            moved += freed;
        }
    }
    status.uncounted_terminated_pods = Some(waiting);
    moved > 0
}

/// How the Job ends.
struct Verdict {
    complete: bool,
    reason: String,
    message: String,
}

fn verdict(
    status: &JobStatus,
    spec: &JobSpec,
    active: &[Arc<Pod>],
    succeeded: i32,
    failed: i32,
    now: Timestamp,
) -> Option<Verdict> {
    for (interim, complete) in [("SuccessCriteriaMet", true), ("FailureTarget", false)] {
        if let Some(decided) = condition(status, interim) {
            return Some(Verdict {
                complete,
                reason: decided.reason.clone().unwrap_or_default(),
                message: decided.message.clone().unwrap_or_default(),
            });
        }
    }
    let end = |complete, reason: &str, message: &str| {
        Some(Verdict {
            complete,
            reason: reason.to_owned(),
            message: message.to_owned(),
        })
    };
    let limit = spec.backoff_limit.unwrap_or(6);
    let restarts_in_place = spec
        .template
        .spec
        .as_ref()
        .and_then(|s| s.restart_policy.as_deref())
        == Some("OnFailure");
    let restarts: i32 = active.iter().map(|pod| meta::restarts(pod)).sum();
    // With restarts in place the kubelet tries again; those tries count as well.
    let past_limit = failed > limit || (restarts_in_place && restarts > 0 && restarts >= limit);
    if past_limit {
        return end(
            false,
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        );
    }
    let past_deadline = match (spec.active_deadline_seconds, &status.start_time) {
        (Some(limit), Some(start)) if spec.suspend != Some(true) => {
            now.duration_since(start.0) >= SignedDuration::from_secs(limit)
        }
        _ => false,
    };
    if past_deadline {
        return end(
            false,
            "DeadlineExceeded",
            "Job was active longer than specified deadline",
        );
    }
    let complete = match spec.completions {
        // A queue of unknown length: done when one has succeeded and nobody works any more.
        None => succeeded > 0 && active.is_empty(),
        Some(completions) => succeeded >= completions,
    };
    if complete && spec.suspend != Some(true) {
        return end(
            true,
            "CompletionsReached",
            "Reached expected number of succeeded pods",
        );
    }
    None
}

/// Creates what is missing or deletes what is too much.
fn fill(
    observed: &Observed,
    spec: &JobSpec,
    active: &mut Vec<Arc<Pod>>,
    pods: &Pods,
    done: &BTreeSet<i32>,
    succeeded: i32,
    plan: &mut Plan,
) {
    let parallelism = spec.parallelism.unwrap_or(1);
    let wanted = match spec.completions {
        None if succeeded > 0 => active.len() as i32,
        None => parallelism,
        Some(completions) => (completions - succeeded).max(0).min(parallelism),
    };
    let wanted = usize::try_from(wanted).unwrap_or(0);
    if active.len() > wanted {
        active.sort_by_cached_key(|pod| {
            let placed = meta::node_name(pod).is_some();
            let running = meta::phase(pod) == "Running";
            (
                placed,
                running,
                meta::is_ready(pod),
                std::cmp::Reverse(pod.creation_timestamp()),
            )
        });
        let surplus = active.len() - wanted;
        plan.before
            .extend(active.drain(..surplus).map(Change::Delete));
        return;
    }
    let mut missing = (wanted - active.len()).min(BURST);
    // While a Pod that is being deleted may still fail or succeed, it holds its place.
    if spec.pod_replacement_policy.as_deref() == Some("Failed") {
        let leaving = pods
            .all
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_some() && !meta::is_terminal(pod))
            .count();
        missing = missing.saturating_sub(leaving);
    }
    if missing == 0 {
        return;
    }
    if let Some(pause) = pause_after_failures(&pods.all, observed.now) {
        plan.again = meta::sooner(plan.again, Some(pause));
        return;
    }
    let job = observed.job.as_ref();
    if spec.completion_mode.as_deref() == Some("Indexed") {
        let busy: BTreeSet<i32> = active.iter().filter_map(|pod| index_of(pod)).collect();
        let open = (0..spec.completions.unwrap_or(0))
            .filter(|index| !done.contains(index) && !busy.contains(index))
            .take(missing);
        plan.before
            .extend(open.map(|index| Change::Create(Box::new(indexed_pod(job, spec, index)))));
    } else {
        let pods = (0..missing).map(|_| Change::Create(Box::new(pod_for(job, spec))));
        plan.before.extend(pods);
    }
}

/// Pods that wait for a Job that does not exist.
pub(super) fn stranded(pods: &[Arc<Pod>], job: &str) -> Vec<Arc<Pod>> {
    pods.iter()
        .filter(|pod| {
            has_finalizer(pod)
                && meta::controller_of(&pod.metadata)
                    .is_some_and(|owner| owner.kind == "Job" && owner.name == job)
        })
        .cloned()
        .collect()
}
