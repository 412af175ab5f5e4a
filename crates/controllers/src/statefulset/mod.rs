//! StatefulSet: numbered Pods with claims of their own, started, stopped and replaced in order.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::FutureExt as _;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::DeleteParams;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use stdx::SharedClock;

use self::plan::{Change, Observed};
use crate::runtime::{self, Handle, Informers, Key, Queue, Recorder, Starter};
use crate::{Error, meta, revision};

struct Controller {
    sets: Handle<StatefulSet>,
    pods: Handle<Pod>,
    claims: Handle<PersistentVolumeClaim>,
    revisions: Handle<ControllerRevision>,
    events: Recorder,
    clock: SharedClock,
}

pub(crate) fn start(client: &Client, informers: &Informers, events: Recorder, starter: &Starter) {
    let queue = Queue::new();
    let keys = queue.clone();
    informers.stateful_sets.on_change(move |change| {
        if let Some(set) = change.latest() {
            keys.add(Key::of(set.as_ref()));
        }
    });
    let (keys, sets) = (queue.clone(), informers.stateful_sets.clone());
    informers.pods.on_change(move |change| {
        for pod in change.sides() {
            let namespace = pod.namespace().unwrap_or_default();
            match meta::controller_of(&pod.metadata) {
                Some(owner) if owner.kind == "StatefulSet" => {
                    keys.add(Key::new(namespace, &owner.name));
                }
                Some(_) => {}
                None => {
                    for set in sets.list(&namespace) {
                        if plan::is_member(&set.name_any(), pod) {
                            keys.add(Key::of(set.as_ref()));
                        }
                    }
                }
            }
        }
    });
    let controller = Arc::new(Controller {
        sets: Handle::new(client, &informers.stateful_sets),
        pods: Handle::new(client, &informers.pods),
        claims: Handle::new(client, &informers.persistent_volume_claims),
        revisions: Handle::new(client, &informers.controller_revisions),
        events,
        clock: starter.clock.clone(),
    });
    let synced = vec![
        informers.stateful_sets.synced().boxed(),
        informers.pods.synced().boxed(),
        informers.persistent_volume_claims.synced().boxed(),
        informers.controller_revisions.synced().boxed(),
    ];
    starter.run("statefulset", queue, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

impl Controller {
    fn observe(&self, set: &Arc<StatefulSet>) -> Observed {
        let namespace = set.namespace().unwrap_or_default();
        Observed {
            set: set.clone(),
            pods: self.pods.list(&namespace),
            claims: self.claims.list(&namespace),
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
                "This StatefulSet is selecting all pods. A non-empty selector is required.";
            self.events.warning(set.as_ref(), "SelectingAll", message);
            return Ok(None);
        };
        for change in plan.history {
            self.apply_revision(&set, change).await?;
        }
        let mut problem = None;
        for change in plan.changes {
            if let Err(error) = self.apply(&set, change).await {
                problem = Some(error);
                break;
            }
        }
        let (status, again) = plan::status(&self.observe(&set), &plan.update_revision);
        if set.status.as_ref() != Some(&status) {
            let mut updated = set.as_ref().clone();
            updated.status = Some(status);
            self.sets.replace_status(&updated).await?;
        }
        problem.map_or(Ok(again), Err)
    }

    async fn apply_revision(
        &self,
        set: &Arc<StatefulSet>,
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

    async fn apply(&self, set: &StatefulSet, change: Change) -> Result<(), Error> {
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
            Change::CreateClaim(claim) => match self.claims.create(&claim).await {
                Err(error) if error.is_already_exists() || error.is_namespace_terminating() => {}
                Err(error) => return self.failed(set, "create Claim", &claim.name_any(), error),
                Ok(_) => {
                    let message = format!(
                        "create Claim {} in StatefulSet {} success",
                        claim.name_any(),
                        set.name_any()
                    );
                    self.events.normal(set, "SuccessfulCreate", message);
                }
            },
            Change::Create(pod) => match self.pods.create(&pod).await {
                Err(error) if error.is_namespace_terminating() => {}
                Err(error) => return self.failed(set, "create Pod", &pod.name_any(), error),
                Ok(_) => {
                    let message = format!(
                        "create Pod {} in StatefulSet {} successful",
                        pod.name_any(),
                        set.name_any()
                    );
                    self.events.normal(set, "SuccessfulCreate", message);
                }
            },
            Change::Delete(pod) => {
                self.pods.delete(&pod, DeleteParams::default()).await?;
                let message = format!(
                    "delete Pod {} in StatefulSet {} successful",
                    pod.name_any(),
                    set.name_any()
                );
                self.events.normal(set, "SuccessfulDelete", message);
            }
        }
        Ok(())
    }

    fn failed(&self, set: &StatefulSet, what: &str, name: &str, error: Error) -> Result<(), Error> {
        let (owner, problem) = (set.name_any(), error.message());
        let message = format!("{what} {name} in StatefulSet {owner} failed error: {problem}");
        self.events.warning(set, "FailedCreate", message);
        Err(error)
    }
}
