//! Deployment: replaces the Pods of one template by those of the next through ReplicaSets.

mod plan;
mod rolling;
mod status;
mod template;
#[cfg(test)]
mod tests;

pub(crate) use template::hash;

use std::sync::Arc;

use futures::FutureExt as _;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use stdx::SharedClock;

use self::plan::{Change, Observed};
use crate::Error;
use crate::meta;
use crate::runtime::{self, Handle, Informers, Key, Queue, Recorder, Starter};

pub(crate) struct Controller {
    deployments: Handle<Deployment>,
    sets: Handle<ReplicaSet>,
    pods: Handle<Pod>,
    events: Recorder,
    clock: SharedClock,
}

pub(crate) fn start(client: &Client, informers: &Informers, events: Recorder, starter: &Starter) {
    let queue = Queue::new();
    let keys = queue.clone();
    informers.deployments.on_change(move |change| {
        if let Some(deployment) = change.latest() {
            keys.add(Key::of(deployment.as_ref()));
        }
    });
    let (keys, deployments) = (queue.clone(), informers.deployments.clone());
    informers.replica_sets.on_change(move |change| {
        for set in change.sides() {
            enqueue_owners(set, &deployments, &keys);
        }
    });
    // Recreate waits for the last old Pod to go.
    let (keys, sets) = (queue.clone(), informers.replica_sets.clone());
    informers.pods.on_change(move |change| {
        let Some(pod) = change.latest() else { return };
        let gone = change.new.is_none() || meta::is_terminal(pod);
        if let Some(owner) = meta::controller_of(&pod.metadata).filter(|_| gone) {
            let set = sets.get(&Key::new(pod.namespace().unwrap_or_default(), &owner.name));
            if let Some(owner) = set
                .as_ref()
                .and_then(|set| meta::controller_of(&set.metadata))
            {
                keys.add(Key::new(pod.namespace().unwrap_or_default(), &owner.name));
            }
        }
    });
    let controller = Arc::new(Controller {
        deployments: Handle::new(client, &informers.deployments),
        sets: Handle::new(client, &informers.replica_sets),
        pods: Handle::new(client, &informers.pods),
        events,
        clock: starter.clock.clone(),
    });
    let synced = vec![
        informers.deployments.synced().boxed(),
        informers.replica_sets.synced().boxed(),
        informers.pods.synced().boxed(),
    ];
    starter.run("deployment", queue, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

fn enqueue_owners(set: &ReplicaSet, all: &runtime::Cache<Deployment>, keys: &Queue<Key>) {
    let namespace = set.namespace().unwrap_or_default();
    match meta::controller_of(&set.metadata) {
        Some(owner) if owner.kind == "Deployment" => keys.add(Key::new(namespace, &owner.name)),
        Some(_) => {}
        None => {
            for deployment in all.list(&namespace) {
                let selector = deployment
                    .spec
                    .as_ref()
                    .and_then(|s| meta::workload_selector(&s.selector));
                if selector.is_some_and(|selector| meta::selects(&selector, &set.metadata)) {
                    keys.add(Key::of(deployment.as_ref()));
                }
            }
        }
    }
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> runtime::Outcome {
        let Some(deployment) = self.deployments.get(key) else {
            return Ok(None);
        };
        let observed = Observed {
            deployment: deployment.clone(),
            sets: self.sets.list(&key.namespace),
            pods: self.pods.list(&key.namespace),
            now: self.clock.now(),
        };
        let plan = plan::plan(&observed);
        // Later changes of the same object build on the answer to the earlier ones.
        let mut current = deployment.as_ref().clone();
        for change in plan.changes {
            self.apply(&mut current, change).await?;
        }
        Ok(plan.again)
    }

    async fn apply(&self, deployment: &mut Deployment, change: Change) -> Result<(), Error> {
        match change {
            Change::Adopt(set) => {
                let live = self.deployments.live(&Key::of(deployment)).await?;
                let ours = live.is_some_and(|live| {
                    live.uid() == deployment.uid() && live.metadata.deletion_timestamp.is_none()
                });
                if !ours {
                    return Ok(());
                }
                let mut owners = set.owner_references().to_vec();
                owners.push(meta::controller_ref(deployment));
                let patch = json!({"metadata": {"uid": set.uid(), "ownerReferences": owners}});
                self.sets.patch(&Key::of(set.as_ref()), patch).await?;
            }
            Change::Release(set) => {
                let mut owners = set.owner_references().to_vec();
                owners.retain(|owner| Some(&owner.uid) != deployment.metadata.uid.as_ref());
                let patch = json!({"metadata": {"uid": set.uid(), "ownerReferences": owners}});
                self.sets.patch(&Key::of(set.as_ref()), patch).await?;
            }
            Change::Create(set) => self.create(deployment, *set).await?,
            Change::Replace { set, event } => {
                self.sets.replace(&set).await?;
                if let Some(message) = event {
                    self.events.normal(deployment, "ScalingReplicaSet", message);
                }
            }
            Change::Delete(set) => self.sets.delete(&set, DeleteParams::default()).await?,
            Change::Revision(revision) => {
                let mut updated = deployment.clone();
                updated
                    .annotations_mut()
                    .insert(template::REVISION.to_owned(), revision);
                *deployment = self.deployments.replace(&updated).await?;
            }
            Change::Status(status) => {
                let mut updated = deployment.clone();
                updated.status = Some(*status);
                *deployment = self.deployments.replace_status(&updated).await?;
            }
            Change::Warn { reason, message } => self.events.warning(deployment, reason, message),
        }
        Ok(())
    }

    async fn create(&self, deployment: &mut Deployment, set: ReplicaSet) -> Result<(), Error> {
        let replicas = set
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(0);
        match self.sets.create(&set).await {
            Ok(created) => {
                if replicas > 0 {
                    let name = created.name_any();
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.events.normal(deployment, "ScalingReplicaSet", message);
                }
                Ok(())
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) if error.is_already_exists() => {
                let found = self.sets.live(&Key::of(&set)).await?;
                if found.is_some_and(|found| template::is_same(&found, deployment)) {
                    // Ours, from before the cache knew it; the watch brings it.
                    return Err(Error::NotYet(format!(
                        "{} is not in the cache",
                        set.name_any()
                    )));
                }
                let mut updated = deployment.clone();
                let status = updated.status.get_or_insert_default();
                status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                *deployment = self.deployments.replace_status(&updated).await?;
                Err(Error::NotYet(
                    "the name of the new ReplicaSet collided".to_owned(),
                ))
            }
            Err(error) => {
                let message = error.message();
                let mut updated = deployment.clone();
                let now = meta::whole_seconds(self.clock.now());
                let name = set.name_any();
                let text = format!("Failed to create new replica set {name:?}: {message}");
                self.events
                    .warning(deployment, "ReplicaSetCreateError", text);
                let status = updated.status.get_or_insert_default();
                status::set_condition(
                    status,
                    status::condition(
                        "Progressing",
                        "False",
                        "ReplicaSetCreateError",
                        message,
                        now,
                    ),
                );
                if updated.status != deployment.status {
                    *deployment = self.deployments.replace_status(&updated).await?;
                }
                Err(error)
            }
        }
    }
}
