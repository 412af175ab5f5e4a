//! ReplicaSet: keeps a number of Pods of one template.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::FutureExt as _;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use stdx::SharedClock;

use self::plan::{Change, Failure, Observed};
use crate::Error;
use crate::meta;
use crate::runtime::{self, Handle, Informers, Key, Queue, Recorder, Starter};

pub(crate) struct Controller {
    sets: Handle<ReplicaSet>,
    pods: Handle<Pod>,
    events: Recorder,
    clock: SharedClock,
}

pub(crate) fn start(client: &Client, informers: &Informers, events: Recorder, starter: &Starter) {
    let queue = Queue::new();
    let keys = queue.clone();
    informers.replica_sets.on_change(move |change| {
        if let Some(set) = change.latest() {
            keys.add(Key::of(set.as_ref()));
        }
    });
    let (keys, sets) = (queue.clone(), informers.replica_sets.clone());
    informers.pods.on_change(move |change| {
        for pod in change.sides() {
            enqueue_owners(pod, &sets, &keys);
        }
    });
    let controller = Arc::new(Controller {
        sets: Handle::new(client, &informers.replica_sets),
        pods: Handle::new(client, &informers.pods),
        events,
        clock: starter.clock.clone(),
    });
    let synced = vec![
        informers.replica_sets.synced().boxed(),
        informers.pods.synced().boxed(),
    ];
    starter.run("replicaset", queue, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

fn enqueue_owners(pod: &Pod, sets: &runtime::Cache<ReplicaSet>, keys: &Queue<Key>) {
    let namespace = pod.namespace().unwrap_or_default();
    match meta::controller_of(&pod.metadata) {
        Some(owner) if owner.kind == "ReplicaSet" => keys.add(Key::new(namespace, &owner.name)),
        Some(_) => {}
        None => {
            for set in sets.list(&namespace) {
                let selector = set
                    .spec
                    .as_ref()
                    .and_then(|s| meta::workload_selector(&s.selector));
                if selector.is_some_and(|selector| meta::selects(&selector, &pod.metadata)) {
                    keys.add(Key::of(set.as_ref()));
                }
            }
        }
    }
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> runtime::Outcome {
        let Some(set) = self.sets.get(key) else {
            return Ok(None);
        };
        let observed = self.observe(set.clone());
        let changes = plan::plan(&observed);
        let failed = self.apply(&set, changes).await;
        let failure = failed.as_ref().err().map(|(failure, _)| failure);

        let observed = self.observe(set.clone());
        let (status, again) = plan::status(&observed, failure, self.clock.now());
        if set.status.as_ref() != Some(&status) {
            let mut updated = set.as_ref().clone();
            updated.status = Some(status);
            self.sets.replace_status(&updated).await?;
        }
        failed.map_err(|(_, error)| error)?;
        Ok(again)
    }

    fn observe(&self, set: Arc<ReplicaSet>) -> Observed {
        let pods = self.pods.list(&set.namespace().unwrap_or_default());
        Observed { set, pods }
    }

    async fn apply(&self, set: &ReplicaSet, changes: Vec<Change>) -> Result<(), (Failure, Error)> {
        let mut creations = Vec::new();
        let mut rest = Vec::new();
        for change in changes {
            match change {
                Change::Create(pod) => creations.push(pod),
                other => rest.push(other),
            }
        }
        let results =
            futures::future::join_all(rest.into_iter().map(|change| self.change(set, change)))
                .await;
        results.into_iter().collect::<Result<Vec<()>, _>>()?;
        // One first, then twice as many each time: a template that is refused is refused once.
        let mut batch = 1;
        while !creations.is_empty() {
            let rest = creations.split_off(batch.min(creations.len()));
            let made = creations
                .into_iter()
                .map(|pod| self.change(set, Change::Create(pod)));
            let results = futures::future::join_all(made).await;
            results.into_iter().collect::<Result<Vec<()>, _>>()?;
            creations = rest;
            batch *= 2;
        }
        Ok(())
    }

    async fn change(&self, set: &ReplicaSet, change: Change) -> Result<(), (Failure, Error)> {
        match change {
            Change::Adopt(pod) => {
                let key = Key::of(set);
                let live = self.sets.live(&key).await.map_err(other)?;
                let ours = live.is_some_and(|live| {
                    live.uid() == set.uid() && live.metadata.deletion_timestamp.is_none()
                });
                if !ours {
                    return Ok(());
                }
                let mut owners = pod.owner_references().to_vec();
                owners.push(meta::controller_ref(set));
                let patch = json!({"metadata": {"uid": pod.uid(), "ownerReferences": owners}});
                self.pods
                    .patch(&Key::of(pod.as_ref()), patch)
                    .await
                    .map_err(other)?;
            }
            Change::Release(pod) => {
                let mut owners = pod.owner_references().to_vec();
                owners.retain(|owner| Some(&owner.uid) != set.metadata.uid.as_ref());
                let patch = json!({"metadata": {"uid": pod.uid(), "ownerReferences": owners}});
                match self.pods.patch(&Key::of(pod.as_ref()), patch).await {
                    Err(error) if !error.is_not_found() => return Err(other(error)),
                    _ => {}
                }
            }
            Change::Create(pod) => match self.pods.create(&pod).await {
                Ok(created) => {
                    let message = format!("Created pod: {}", created.name_any());
                    self.events.normal(set, "SuccessfulCreate", message);
                }
                // Nothing can be made there any more, and the set goes soon.
                Err(error) if error.is_namespace_terminating() => {}
                Err(error) => {
                    let message = error.message();
                    self.events
                        .warning(set, "FailedCreate", format!("Error creating: {message}"));
                    return Err((
                        Failure {
                            reason: "FailedCreate",
                            message,
                        },
                        error,
                    ));
                }
            },
            Change::Delete(pod) => match self.pods.delete(&pod, DeleteParams::default()).await {
                Ok(()) => {
                    let message = format!("Deleted pod: {}", pod.name_any());
                    self.events.normal(set, "SuccessfulDelete", message);
                }
                Err(error) => {
                    let message = error.message();
                    self.events
                        .warning(set, "FailedDelete", format!("Error deleting: {message}"));
                    return Err((
                        Failure {
                            reason: "FailedDelete",
                            message,
                        },
                        error,
                    ));
                }
            },
        }
        Ok(())
    }
}

fn other(error: Error) -> (Failure, Error) {
    (
        Failure {
            reason: "",
            message: String::new(),
        },
        error,
    )
}
