//! The next step of a Deployment. Pure: every step ends in writes whose news starts the next one.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::rolling::{self, Limits};
use super::{status, template};
use crate::meta;

pub(super) struct Observed {
    pub(super) deployment: Arc<Deployment>,
    /// The ReplicaSets of the namespace.
    pub(super) sets: Vec<Arc<ReplicaSet>>,
    /// The Pods of the namespace.
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) now: Timestamp,
}

#[derive(Debug)]
pub(super) enum Change {
    Adopt(Arc<ReplicaSet>),
    Release(Arc<ReplicaSet>),
    Create(Box<ReplicaSet>),
    Replace {
        set: Box<ReplicaSet>,
        event: Option<String>,
    },
    Delete(Arc<ReplicaSet>),
    Revision(String),
    Status(Box<DeploymentStatus>),
    Warn {
        reason: &'static str,
        message: String,
    },
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    pub(super) again: Option<Duration>,
}

/// The Deployment and its sets, sorted out.
struct Rollout<'a> {
    deployment: &'a Deployment,
    sets: Vec<Arc<ReplicaSet>>,
    old: Vec<Arc<ReplicaSet>>,
    new: Option<Arc<ReplicaSet>>,
    limits: Limits,
    /// The status that is about to be; conditions are set on it on the way.
    status: DeploymentStatus,
    now: Timestamp,
    plan: Plan,
}

pub(super) fn plan(observed: &Observed) -> Plan {
    let deployment = observed.deployment.as_ref();
    let Some(spec) = &deployment.spec else {
        return Plan::default();
    };
    let Some(selector) = meta::workload_selector(&spec.selector) else {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        let change = Change::Warn {
            reason: "SelectingAll",
            message: message.to_owned(),
        };
        return Plan {
            changes: vec![change],
            again: None,
        };
    };
    let claim = meta::claim(
        &deployment.metadata,
        &selector,
        observed.sets.iter().cloned(),
    );
    let mut changes: Vec<Change> = claim.adopt.into_iter().map(Change::Adopt).collect();
    changes.extend(claim.release.into_iter().map(Change::Release));
    if !changes.is_empty() {
        // Their news brings us back, with everything in its place.
        return Plan {
            changes,
            again: None,
        };
    }
    let sets = claim.owned;
    let new = sets
        .iter()
        .filter(|set| template::is_same(set, deployment))
        .min_by_key(|set| (set.creation_timestamp(), set.name_any()))
        .cloned();
    let old = sets
        .iter()
        .filter(|set| new.as_ref().is_none_or(|new| new.uid() != set.uid()))
        .cloned()
        .collect();
    let mut rollout = Rollout {
        deployment,
        sets,
        old,
        new,
        limits: rolling::limits(deployment),
        status: deployment.status.clone().unwrap_or_default(),
        now: observed.now,
        plan: Plan::default(),
    };
    if deployment.metadata.deletion_timestamp.is_some() {
        rollout.finish(false);
        return rollout.plan;
    }
    rollout.pause_conditions();
    let paused = spec.paused == Some(true);
    if paused || rollout.was_scaled() {
        if rollout.new.is_some() {
            rollout.adjust_new(None);
        }
        rollout.scale();
        if paused && rollout.plan.changes.is_empty() {
            rollout.clean_up();
        }
        rollout.finish(false);
    } else if spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate") {
        rollout.recreate(&observed.pods);
    } else {
        rollout.roll();
    }
    rollout.plan
}

impl Rollout<'_> {
    fn max(&self) -> i32 {
        self.limits.replicas + self.limits.surge
    }

    /// Whether the Deployment's size changed since its active sets were last sized.
    fn was_scaled(&self) -> bool {
        self.sets
            .iter()
            .filter(|set| rolling::wanted(set) > 0)
            .any(|set| {
                let desired = set.annotations().get(template::DESIRED);
                desired
                    .and_then(|d| d.parse::<i32>().ok())
                    .is_some_and(|desired| desired != self.limits.replicas)
            })
    }

    fn pause_conditions(&mut self) {
        let spec = self.deployment.spec.as_ref();
        if status::deadline(self.deployment).is_none() {
            return;
        }
        let current = status::find(&self.status, "Progressing").and_then(|c| c.reason.clone());
        if current.as_deref() == Some("ProgressDeadlineExceeded") {
            return;
        }
        let is_paused = spec.and_then(|spec| spec.paused) == Some(true);
        let was_paused = current.as_deref() == Some("DeploymentPaused");
        let (reason, message) = match (is_paused, was_paused) {
            (true, false) => ("DeploymentPaused", "Deployment is paused"),
            (false, true) => ("DeploymentResumed", "Deployment is resumed"),
            _ => return,
        };
        let now = meta::whole_seconds(self.now);
        status::set_condition(
            &mut self.status,
            status::condition("Progressing", "Unknown", reason, message.to_owned(), now),
        );
    }

    /// Brings the new set's size and annotations up to date, or creates it.
    fn adjust_new(&mut self, size: Option<i32>) {
        let next = template::next_revision(&self.sets, self.new.as_deref());
        let now = meta::whole_seconds(self.now);
        let Some(new) = self.new.clone() else {
            let all = rolling::total(&self.sets);
            let size = size.unwrap_or_else(|| rolling::new_size(self.limits, 0, all));
            let set = template::new_set(self.deployment, size, self.max(), next);
            if status::deadline(self.deployment).is_some() {
                let message = format!("Created new replica set {:?}", set.name_any());
                status::set_condition(
                    &mut self.status,
                    status::condition("Progressing", "True", "NewReplicaSetCreated", message, now),
                );
            }
            self.plan.changes.push(Change::Create(Box::new(set)));
            self.set_revision(next);
            return;
        };
        let mut changed = new.as_ref().clone();
        changed.metadata.annotations =
            Some(template::annotations(self.deployment, Some(&new), next));
        let min_ready = self
            .deployment
            .spec
            .as_ref()
            .and_then(|s| s.min_ready_seconds);
        if let Some(spec) = &mut changed.spec {
            if spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0) {
                spec.min_ready_seconds = min_ready;
            }
        }
        let has = rolling::wanted(&new);
        let size = size.unwrap_or(has);
        self.resize(&new, changed, size);
        if status::deadline(self.deployment).is_some()
            && status::find(&self.status, "Progressing").is_none()
        {
            let message = format!("Found new replica set {:?}", new.name_any());
            status::set_condition(
                &mut self.status,
                status::condition("Progressing", "True", "FoundNewReplicaSet", message, now),
            );
        }
        self.set_revision(next);
    }

    fn set_revision(&mut self, next: i64) {
        let next = next.to_string();
        if self.deployment.annotations().get(template::REVISION) != Some(&next) {
            self.plan.changes.push(Change::Revision(next));
        }
    }

    /// Gives a set its size and the annotations that go with it, if anything differs.
    fn resize(&mut self, set: &Arc<ReplicaSet>, mut changed: ReplicaSet, size: i32) {
        let has = rolling::wanted(set);
        let annotations = changed.annotations_mut();
        annotations.insert(
            template::DESIRED.to_owned(),
            self.limits.replicas.to_string(),
        );
        annotations.insert(template::MAX.to_owned(), self.max().to_string());
        changed.spec.get_or_insert_default().replicas = Some(size);
        if changed == **set {
            return;
        }
        let event = (size != has).then(|| {
            let direction = if size > has { "up" } else { "down" };
            format!(
                "Scaled {direction} replica set {} from {has} to {size}",
                set.name_any()
            )
        });
        self.plan.changes.push(Change::Replace {
            set: Box::new(changed),
            event,
        });
    }

    /// Sizes the sets after the Deployment was scaled or while it is paused.
    fn scale(&mut self) {
        let before = self.plan.changes.len();
        self.resize_all();
        // One write per set: sizes come before annotations, which follow with the next step.
        if self.plan.changes.len() > before {
            let sized = self.plan.changes.split_off(before);
            self.plan
                .changes
                .retain(|change| !matches!(change, Change::Replace { .. }));
            self.plan.changes.extend(sized);
        }
    }

    fn resize_all(&mut self) {
        let active: Vec<Arc<ReplicaSet>> = self
            .sets
            .iter()
            .filter(|set| rolling::wanted(set) > 0)
            .cloned()
            .collect();
        let only = match active.as_slice() {
            [] => self.new.clone().or_else(|| {
                self.sets
                    .iter()
                    .max_by_key(|set| set.creation_timestamp())
                    .cloned()
            }),
            [one] => Some(one.clone()),
            _ => None,
        };
        let replicas = self.limits.replicas;
        if let Some(only) = only {
            self.resize(&only, only.as_ref().clone(), replicas);
            return;
        }
        if self
            .new
            .as_ref()
            .is_some_and(|new| is_saturated(new, replicas))
        {
            for old in self.old.clone() {
                if rolling::wanted(&old) > 0 {
                    self.resize(&old, old.as_ref().clone(), 0);
                }
            }
            return;
        }
        if active.len() > 1 {
            for (set, size) in rolling::proportional(self.limits, self.new.as_ref(), &active) {
                self.resize(&set, set.as_ref().clone(), size);
            }
        }
    }

    fn roll(&mut self) {
        let has = self.new.as_ref().map(|new| rolling::wanted(new));
        let all = rolling::total(&self.sets);
        let size = has.map(|has| rolling::new_size(self.limits, has, all));
        self.adjust_new(size);
        if let (Some(new), true) = (self.new.clone(), size == has) {
            let active: Vec<_> = self
                .old
                .iter()
                .filter(|set| rolling::wanted(set) > 0)
                .cloned()
                .collect();
            if !active.is_empty() {
                for (set, size) in rolling::shrink_old(self.limits, &new, &active) {
                    self.resize(&set, set.as_ref().clone(), size);
                }
            }
        }
        self.finish(true);
    }

    fn recreate(&mut self, pods: &[Arc<Pod>]) {
        let active: Vec<_> = self
            .old
            .iter()
            .filter(|set| rolling::wanted(set) > 0)
            .cloned()
            .collect();
        for set in &active {
            self.resize(set, set.as_ref().clone(), 0);
        }
        let old_runs = active.len()
            + pods
                .iter()
                .filter(|pod| {
                    !meta::is_terminal(pod)
                        && self.old.iter().any(|set| {
                            meta::is_controlled_by(&pod.metadata, set.metadata.uid.as_deref())
                        })
                })
                .count();
        if old_runs == 0 {
            self.adjust_new(Some(self.limits.replicas));
        }
        self.finish(true);
    }

    /// Removes old sets beyond the history limit.
    fn clean_up(&mut self) {
        let limit = self
            .deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.revision_history_limit);
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else {
            return;
        };
        let mut dead: Vec<_> = self
            .old
            .iter()
            .filter(|s| s.metadata.deletion_timestamp.is_none())
            .cloned()
            .collect();
        let surplus = dead
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        dead.sort_by_key(|set| (template::revision(set), set.creation_timestamp()));
        for set in dead.into_iter().take(surplus) {
            let status = set.status.clone().unwrap_or_default();
            if status.replicas == 0
                && rolling::wanted(&set) == 0
                && status.observed_generation >= set.metadata.generation
            {
                self.plan.changes.push(Change::Delete(set));
            }
        }
    }

    /// The status at the end; `rollout` says whether progress is judged too.
    fn finish(&mut self, rollout: bool) {
        let before = self.deployment.status.clone().unwrap_or_default();
        let mut status = status::counted(
            self.deployment,
            &self.status,
            &self.sets,
            self.new.as_ref(),
            self.limits,
            self.now,
        );
        if rollout {
            if status::is_complete(self.deployment, &status) {
                self.clean_up();
            }
            self.plan.again = status::rollout(
                self.deployment,
                &before,
                &mut status,
                &self.sets,
                self.new.as_ref(),
                self.now,
            );
        }
        if status != before {
            self.plan.changes.push(Change::Status(Box::new(status)));
        }
    }
}

/// Whether the set has the Deployment's full size and all of it is available.
fn is_saturated(set: &ReplicaSet, replicas: i32) -> bool {
    let desired = set
        .annotations()
        .get(template::DESIRED)
        .and_then(|d| d.parse::<i32>().ok());
    rolling::wanted(set) == replicas
        && desired == Some(replicas)
        && set
            .status
            .as_ref()
            .and_then(|s| s.available_replicas)
            .unwrap_or(0)
            == replicas
}
