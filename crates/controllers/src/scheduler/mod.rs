//! The scheduler: gives Pods of `default-scheduler` a node, or says why none is suitable. No
//! preemption and no topology spreading.

mod affinity;
mod assumed;
mod fit;
mod known;
mod plan;
#[cfg(test)]
mod tests;

pub(crate) use affinity::{node_selector_matches, required_affinity_matches};
pub(crate) use fit::untolerated;

use std::sync::Arc;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{
    Binding, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use stdx::SharedClock;

use self::assumed::Assumed;
use self::known::Known;
use self::plan::{Decision, Observed};
use crate::Error;
use crate::meta;
use crate::runtime::{self, Handle, Informers, Key, Queue, Recorder, Starter};
use crate::volume;

/// The name a Pod gives when it wants this scheduler; the default.
const NAME: &str = "default-scheduler";

struct Scheduler {
    client: Client,
    pods: Handle<Pod>,
    nodes: Handle<Node>,
    claims: Handle<PersistentVolumeClaim>,
    volumes: Handle<PersistentVolume>,
    classes: Handle<StorageClass>,
    events: Recorder,
    clock: SharedClock,
    assumed: Assumed,
    known: Known,
}

pub(crate) fn start(client: &Client, informers: &Informers, events: Recorder, starter: &Starter) {
    let (queue, assumed, known) = (Queue::new(), Assumed::default(), Known::default());
    let (keys, pods, placed) = (queue.clone(), known.clone(), assumed.clone());
    informers.pods.on_change(move |change| {
        pods.observe(&change);
        placed.observe(&change);
        if let Some(pod) = change.new.filter(|pod| waits(pod)) {
            keys.add(Key::of(pod.as_ref()));
        }
        // An end frees resources that others may wait for.
        let was = change.old.is_some_and(|pod| !meta::is_terminal(pod));
        let ended = change.new.is_none_or(|pod| meta::is_terminal(pod));
        if was && ended {
            enqueue_waiting(&pods, &keys);
        }
    });
    let (keys, pods) = (queue.clone(), known.clone());
    informers
        .nodes
        .on_change(move |_| enqueue_waiting(&pods, &keys));
    let (keys, pods) = (queue.clone(), known.clone());
    informers
        .persistent_volume_claims
        .on_change(move |_| enqueue_waiting(&pods, &keys));
    let (keys, pods) = (queue.clone(), known.clone());
    informers
        .persistent_volumes
        .on_change(move |_| enqueue_waiting(&pods, &keys));
    let scheduler = Arc::new(Scheduler {
        client: client.clone(),
        pods: Handle::new(client, &informers.pods),
        nodes: Handle::new(client, &informers.nodes),
        claims: Handle::new(client, &informers.persistent_volume_claims),
        volumes: Handle::new(client, &informers.persistent_volumes),
        classes: Handle::new(client, &informers.storage_classes),
        events,
        clock: starter.clock.clone(),
        assumed,
        known,
    });
    let synced = vec![
        informers.pods.synced().boxed(),
        informers.nodes.synced().boxed(),
        informers.persistent_volume_claims.synced().boxed(),
        informers.persistent_volumes.synced().boxed(),
        informers.storage_classes.synced().boxed(),
    ];
    starter.run("scheduler", queue, synced, move |key| {
        let scheduler = scheduler.clone();
        async move { scheduler.reconcile(&key).await }
    });
}

fn enqueue_waiting(pods: &Known, keys: &Queue<Key>) {
    for key in pods.waiting() {
        keys.add(key);
    }
}

/// Whether the Pod is ours to place and has no node yet.
fn waits(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    meta::node_name(pod).is_none()
        && spec
            .scheduler_name
            .as_deref()
            .is_none_or(|name| name == NAME)
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
        && meta::is_active(pod)
}

impl Scheduler {
    async fn reconcile(&self, key: &Key) -> runtime::Outcome {
        let Some(pod) = self.pods.get(key).filter(|pod| waits(pod)) else {
            return Ok(None);
        };
        match self.decide(&pod) {
            None | Some(Decision::Wait) => {}
            Some(Decision::SelectNode { claims, node }) => {
                // The binder makes or finds the volumes there; their news brings the Pod back.
                for claim in claims {
                    let key = Key::of(claim.as_ref());
                    let patch = json!({"metadata": {
                        "uid": claim.uid(), "annotations": {volume::SELECTED_NODE: node}}});
                    self.claims.patch(&key, patch).await?;
                }
            }
            Some(Decision::Bind(node)) => self.bind(key, &pod, &node).await?,
            Some(Decision::Unschedulable(message)) => {
                self.report(key, &pod, &message).await?;
            }
        }
        Ok(None)
    }

    /// Decides and takes the decision into account for the next one, in one step.
    fn decide(&self, pod: &Arc<Pod>) -> Option<Decision> {
        let mut assumed = self.assumed.lock();
        let mut pods = self.known.placed();
        for known in &pods {
            if meta::node_name(known).is_some() {
                if let Some(uid) = &known.metadata.uid {
                    assumed.remove(uid);
                }
            }
        }
        let uid = pod.uid().unwrap_or_default();
        if assumed.contains_key(&uid) {
            return None;
        }
        pods.extend(assumed.values().cloned());
        let observed = Observed {
            pod: pod.clone(),
            pods,
            nodes: self.nodes.all(),
            claims: self.claims.list(&pod.namespace().unwrap_or_default()),
            volumes: self.volumes.all(),
            classes: self.classes.all(),
        };
        let decision = plan::plan(&observed);
        if let Decision::Bind(node) = &decision {
            let mut placed = pod.as_ref().clone();
            placed.spec.get_or_insert_default().node_name = Some(node.clone());
            assumed.insert(uid, Arc::new(placed));
        }
        Some(decision)
    }

    async fn bind(&self, key: &Key, pod: &Arc<Pod>, node: &str) -> Result<(), Error> {
        tracing::trace!(pod = %key, node, "bind");
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(key.name.clone()),
                namespace: Some(key.namespace.clone()),
                uid: pod.uid(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let bound = api
            .create_subresource::<_, serde_json::Value>(
                "binding",
                &key.name,
                &PostParams::default(),
                &binding,
            )
            .await;
        match bound {
            Ok(_) => {
                let message = format!("Successfully assigned {key} to {node}");
                self.events.normal(pod.as_ref(), "Scheduled", message);
                Ok(())
            }
            Err(source) => {
                let mut assumed = self.assumed.lock();
                assumed.remove(pod.metadata.uid.as_deref().unwrap_or_default());
                drop(assumed);
                let error = Error::Api {
                    verb: "bind",
                    kind: "Pod".to_owned(),
                    object: key.to_string(),
                    source: Box::new(source),
                };
                // Deleted or placed meanwhile: the watch tells.
                if error.is_not_found() {
                    Ok(())
                } else {
                    Err(error)
                }
            }
        }
    }

    async fn report(&self, key: &Key, pod: &Arc<Pod>, message: &str) -> Result<(), Error> {
        let conditions = pod
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        let known = conditions.into_iter().flatten().any(|condition| {
            condition.type_ == "PodScheduled"
                && condition.status == "False"
                && condition.message.as_deref() == Some(message)
        });
        if known {
            return Ok(());
        }
        self.events
            .warning(pod.as_ref(), "FailedScheduling", message);
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [{
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": meta::whole_seconds(self.clock.now()),
        }]}});
        match self.pods.patch_status(key, patch).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}
