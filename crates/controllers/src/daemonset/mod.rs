//! DaemonSet: one Pod on every node that suits.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::DeleteParams;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use stdx::{Backoff, SharedClock};

use self::plan::{Change, Observed};
use crate::runtime::{self, Handle, Informers, Key, Queue, Recorder, Starter};
use crate::{Error, meta, revision};

struct Controller {
    sets: Handle<DaemonSet>,
    pods: Handle<Pod>,
    nodes: Handle<Node>,
    revisions: Handle<ControllerRevision>,
    events: Recorder,
    clock: SharedClock,
    /// When the failed Pod of a set on a node may be replaced next.
    failures: Mutex<BTreeMap<(String, String), Failures>>,
}

struct Failures {
    backoff: Backoff,
    not_before: Duration,
}

pub(crate) fn start(client: &Client, informers: &Informers, events: Recorder, starter: &Starter) {
    let queue = Queue::new();
    let keys = queue.clone();
    informers.daemon_sets.on_change(move |change| {
        if let Some(set) = change.latest() {
            keys.add(Key::of(set.as_ref()));
        }
    });
    let (keys, sets) = (queue.clone(), informers.daemon_sets.clone());
    informers.pods.on_change(move |change| {
        for pod in change.sides() {
            let namespace = pod.namespace().unwrap_or_default();
            match meta::controller_of(&pod.metadata) {
                Some(owner) if owner.kind == "DaemonSet" => {
                    keys.add(Key::new(namespace, &owner.name));
                }
                Some(_) => {}
                None => sets.list(&namespace).iter().for_each(|set| {
                    let selector = set
                        .spec
                        .as_ref()
                        .and_then(|s| meta::workload_selector(&s.selector));
                    if selector.is_some_and(|selector| meta::selects(&selector, &pod.metadata)) {
                        keys.add(Key::of(set.as_ref()));
                    }
                }),
            }
        }
    });
    let (keys, sets) = (queue.clone(), informers.daemon_sets.clone());
    informers.nodes.on_change(move |change| {
        // Heartbeats change nothing here.
        let relevant = |node: &Arc<Node>| (node.labels().clone(), node.spec.clone());
        if change.old.map(relevant) != change.new.map(relevant) {
            sets.all()
                .iter()
                .for_each(|set| keys.add(Key::of(set.as_ref())));
        }
    });
    let controller = Arc::new(Controller {
        sets: Handle::new(client, &informers.daemon_sets),
        pods: Handle::new(client, &informers.pods),
        nodes: Handle::new(client, &informers.nodes),
        revisions: Handle::new(client, &informers.controller_revisions),
        events,
        clock: starter.clock.clone(),
        failures: Mutex::default(),
    });
    let synced = vec![
        informers.daemon_sets.synced().boxed(),
        informers.pods.synced().boxed(),
        informers.nodes.synced().boxed(),
        informers.controller_revisions.synced().boxed(),
    ];
    starter.run("daemonset", queue, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

impl Controller {
    fn observe(&self, set: &Arc<DaemonSet>) -> Observed {
        let namespace = set.namespace().unwrap_or_default();
        Observed {
            set: set.clone(),
            pods: self.pods.list(&namespace),
            nodes: self.nodes.all(),
            revisions: self.revisions.list(&namespace),
            now: self.clock.now(),
        }
    }

    async fn reconcile(&self, key: &Key) -> runtime::Outcome {
        let Some(set) = self.sets.get(key) else {
            return Ok(None);
        };
        let Some(plan) = plan::plan(&self.observe(&set)) else {
            let message =
                "This daemon set is selecting all pods. A non-empty selector is required.";
            self.events.warning(set.as_ref(), "SelectingAll", message);
            return Ok(None);
        };
        let mut again = None;
        let mut problem = None;
        for change in plan.history {
            self.apply_revision(&set, change).await?;
        }
        for change in plan.changes {
            match self.apply(&set, change).await {
                Ok(pause) => again = meta::sooner(again, pause),
                Err(error) => problem = Some(error),
            }
        }
        let (status, pause) = plan::status(&self.observe(&set), &plan.hash);
        if set.status.as_ref() != Some(&status) {
            let mut updated = set.as_ref().clone();
            updated.status = Some(status);
            self.sets.replace_status(&updated).await?;
        }
        match problem {
            Some(error) => Err(error),
            None => Ok(meta::sooner(again, pause)),
        }
    }

    async fn apply_revision(
        &self,
        set: &Arc<DaemonSet>,
        change: revision::Change,
    ) -> Result<(), Error> {
        match change {
            revision::Change::Create(revision) => match self.revisions.create(&revision).await {
                Err(error) if error.is_namespace_terminating() => Ok(()),
                Err(error) if error.is_already_exists() => {
                    let mut updated = set.as_ref().clone();
                    let status = updated.status.get_or_insert_default();
                    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                    self.sets.replace_status(&updated).await?;
                    Err(Error::NotYet(
                        "the name of the new revision collided".to_owned(),
                    ))
                }
                other => other.map(drop),
            },
            revision::Change::Replace(revision) => {
                self.revisions.replace(&revision).await.map(drop)
            }
            revision::Change::Delete(revision) => {
                self.revisions
                    .delete(&revision, DeleteParams::default())
                    .await
            }
        }
    }

    async fn apply(&self, set: &DaemonSet, change: Change) -> Result<Option<Duration>, Error> {
        match change {
            Change::Adopt(pod) => {
                let live = self.sets.live(&Key::of(set)).await?;
                if live.is_some_and(|live| {
                    live.uid() == set.uid() && live.metadata.deletion_timestamp.is_none()
                }) {
                    let mut owners = pod.owner_references().to_vec();
                    owners.push(meta::controller_ref(set));
                    let patch = json!({"metadata": {"uid": pod.uid(), "ownerReferences": owners}});
                    self.pods.patch(&Key::of(pod.as_ref()), patch).await?;
                }
            }
            Change::Release(pod) => {
                let mut owners = pod.owner_references().to_vec();
                owners.retain(|owner| Some(&owner.uid) != set.metadata.uid.as_ref());
                let patch = json!({"metadata": {"uid": pod.uid(), "ownerReferences": owners}});
                self.pods.patch(&Key::of(pod.as_ref()), patch).await?;
            }
            Change::Create(pod) => match self.pods.create(&pod).await {
                Ok(created) => {
                    let message = format!("Created pod: {}", created.name_any());
                    self.events.normal(set, "SuccessfulCreate", message);
                }
                Err(error) if error.is_namespace_terminating() => {}
                Err(error) => {
                    let message = format!("Error creating: {}", error.message());
                    self.events.warning(set, "FailedCreate", message);
                    return Err(error);
                }
            },
            Change::Delete(pod) => self.delete(set, &pod).await?,
            Change::Finished { pod, node } => return self.replace_finished(set, &pod, node).await,
        }
        Ok(None)
    }

    async fn delete(&self, set: &DaemonSet, pod: &Arc<Pod>) -> Result<(), Error> {
        self.pods.delete(pod, DeleteParams::default()).await?;
        self.events.normal(
            set,
            "SuccessfulDelete",
            format!("Deleted pod: {}", pod.name_any()),
        );
        Ok(())
    }

    /// Removes a Pod that has ended, not faster each time than the last.
    async fn replace_finished(
        &self,
        set: &DaemonSet,
        pod: &Arc<Pod>,
        node: String,
    ) -> Result<Option<Duration>, Error> {
        let failed = meta::phase(pod) == "Failed";
        if failed {
            let now = self.clock.monotonic();
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = failures.entry((set.uid().unwrap_or_default(), node.clone()));
            let known = entry.or_insert_with(|| Failures {
                backoff: Backoff::new(Duration::from_secs(1), 2.0, Duration::from_secs(900)),
                not_before: Duration::ZERO,
            });
            if now < known.not_before {
                return Ok(Some(known.not_before.saturating_sub(now)));
            }
            known.not_before = now + known.backoff.next_delay();
        }
        let (kind, verb) = if failed {
            ("failed", "kill")
        } else {
            ("succeeded", "delete")
        };
        let message = format!(
            "Found {kind} daemon pod {} on node {node}, will try to {verb} it",
            Key::of(pod.as_ref())
        );
        if failed {
            self.events.warning(set, "FailedDaemonPod", message);
        } else {
            self.events.normal(set, "SucceededDaemonPod", message);
        }
        self.delete(set, pod).await?;
        Ok(None)
    }
}
