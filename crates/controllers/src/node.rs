//! What follows from Nodes coming and going: Pods bound to a node that does not exist are removed
//! after a while, and the node gets its share of Pod addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::DeleteParams;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use stdx::SharedClock;

use crate::Error;
use crate::meta;
use crate::runtime::{self, Handle, Informers, Key, Queue, Starter};

/// How long a node must be missing before its Pods are given up.
const QUARANTINE: Duration = Duration::from_secs(40);

struct PodCollector {
    pods: Handle<Pod>,
    nodes: Handle<Node>,
    clock: SharedClock,
    /// Since when each node has been missing.
    missing: Mutex<BTreeMap<String, Duration>>,
}

pub(crate) fn start_pod_collector(client: &Client, informers: &Informers, starter: &Starter) {
    let queue = Queue::new();
    let keys = queue.clone();
    informers.nodes.on_change(move |change| {
        if let Some(node) = change
            .latest()
            .filter(|_| change.old.is_none() != change.new.is_none())
        {
            keys.add(node.name_any());
        }
    });
    let (keys, nodes) = (queue.clone(), informers.nodes.clone());
    informers.pods.on_change(move |change| {
        if let Some(name) = change.new.and_then(|pod| meta::node_name(pod)) {
            if nodes.get(&Key::new("", name)).is_none() {
                keys.add(name.to_owned());
            }
        }
    });
    let collector = Arc::new(PodCollector {
        pods: Handle::new(client, &informers.pods),
        nodes: Handle::new(client, &informers.nodes),
        clock: starter.clock.clone(),
        missing: Mutex::default(),
    });
    let synced = vec![
        informers.nodes.synced().boxed(),
        informers.pods.synced().boxed(),
    ];
    starter.run(
        "pod garbage collector",
        queue,
        synced,
        move |name: String| {
            let collector = collector.clone();
            async move { collector.reconcile(&name).await }
        },
    );
    start_unplaced(client, informers, starter);
}

impl PodCollector {
    async fn reconcile(&self, name: &str) -> runtime::Outcome {
        let key = Key::new("", name);
        if self.nodes.get(&key).is_some() {
            self.missing
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(name);
            return Ok(None);
        }
        let stranded: Vec<Arc<Pod>> = self
            .pods
            .all()
            .into_iter()
            .filter(|pod| meta::node_name(pod) == Some(name))
            .collect();
        if stranded.is_empty() {
            return Ok(None);
        }
        let rest = {
            let now = self.clock.monotonic();
            let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            let since = *missing.entry(name.to_owned()).or_insert(now);
            QUARANTINE.saturating_sub(now.saturating_sub(since))
        };
        if !rest.is_zero() {
            return Ok(Some(rest));
        }
        if self.nodes.live(&key).await?.is_some() {
            return Ok(None);
        }
        for pod in stranded {
            self.give_up(&pod).await?;
        }
        Ok(None)
    }

    async fn give_up(&self, pod: &Pod) -> Result<(), Error> {
        if !meta::is_terminal(pod) {
            let patch = json!({"metadata": {"uid": pod.uid()}, "status": {
                "phase": "Failed",
                "conditions": [{
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "DeletionByPodGC",
                    "message": "PodGC: node no longer exists",
                    "lastTransitionTime": meta::whole_seconds(self.clock.now()),
                }],
            }});
            match self.pods.patch_status(&Key::of(pod), patch).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        self.pods
            .delete(pod, DeleteParams::default().grace_period(0))
            .await
    }
}

/// Pods that are to go before they had a node: no kubelet ends them.
fn start_unplaced(client: &Client, informers: &Informers, starter: &Starter) {
    let queue = Queue::new();
    let keys = queue.clone();
    let is_stranded =
        |pod: &Pod| pod.metadata.deletion_timestamp.is_some() && meta::node_name(pod).is_none();
    informers.pods.on_change(move |change| {
        if let Some(pod) = change.new.filter(|pod| is_stranded(pod)) {
            keys.add(Key::of(pod.as_ref()));
        }
    });
    let pods: Handle<Pod> = Handle::new(client, &informers.pods);
    let synced = vec![informers.pods.synced().boxed()];
    starter.run("pod garbage collector", queue, synced, move |key| {
        let pods = pods.clone();
        async move {
            if let Some(pod) = pods.get(&key).filter(|pod| is_stranded(pod)) {
                // One whose grace is over only waits for its finalizers.
                if pod.metadata.deletion_grace_period_seconds != Some(0) {
                    pods.delete(&pod, DeleteParams::default().grace_period(0))
                        .await?;
                }
            }
            Ok(None)
        }
    });
}

/// Gives `cidr` to the node, once and to one only.
pub(crate) fn start_addresses(
    client: &Client,
    informers: &Informers,
    starter: &Starter,
    cidr: String,
) {
    let queue = Queue::new();
    let keys = queue.clone();
    informers.nodes.on_change(move |change| {
        if let Some(node) = change.new {
            keys.add(node.name_any());
        }
    });
    let nodes: Handle<Node> = Handle::new(client, &informers.nodes);
    let synced = vec![informers.nodes.synced().boxed()];
    starter.run("node addresses", queue, synced, move |name: String| {
        let (nodes, cidr) = (nodes.clone(), cidr.clone());
        async move {
            let taken: BTreeSet<String> = nodes
                .all()
                .iter()
                .filter_map(|node| node.spec.as_ref()?.pod_cidr.clone())
                .filter(|cidr| !cidr.is_empty())
                .collect();
            let Some(node) = nodes.get(&Key::new("", &name)) else {
                return Ok(None);
            };
            let has = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref());
            if has.is_none_or(str::is_empty) && !taken.contains(&cidr) {
                let patch = json!({"metadata": {"uid": node.uid()},
                    "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
                nodes.patch(&Key::new("", &name), patch).await?;
            }
            Ok(None)
        }
    });
}
