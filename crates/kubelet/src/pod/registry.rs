//! What the HTTP server may know about the Pods of this node: where their logs are, which
//! containers run.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::machine::{Held, Machine, Role, State};
use crate::runtime::ContainerRef;

/// A Pod at one moment.
#[derive(Debug, Clone)]
pub(crate) struct PodView {
    pub(crate) pod: Arc<Pod>,
    pub(crate) pod_dir: PathBuf,
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) containers: BTreeMap<String, ContainerView>,
}

/// One of its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerView {
    /// The attempt whose log is the current one; `None` before the first start.
    pub(crate) attempt: Option<u32>,
    /// It runs.
    pub(crate) live: Option<ContainerRef>,
    /// Why it does not run yet.
    pub(crate) waiting: Option<String>,
    /// It has a terminal, an open input.
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
}

impl PodView {
    pub(crate) fn of(machine: &Machine, pod_dir: PathBuf) -> Self {
        let has_init = machine.containers.iter().any(|c| c.role != Role::Main);
        let view = |index: usize| {
            let container = &machine.containers[index];
            let spec = machine.spec_of(index);
            let attempted = match &container.state {
                State::Running(_)
                | State::Exited(_)
                | State::Held {
                    then: Held::Restart,
                    ..
                } => Some(container.attempt),
                _ => container.attempt.checked_sub(1),
            };
            let waiting = match &container.state {
                State::Held { reason, .. } => Some(reason.clone()),
                State::Waiting | State::Pulling | State::Starting(_) => Some(
                    if has_init {
                        "PodInitializing"
                    } else {
                        "ContainerCreating"
                    }
                    .to_owned(),
                ),
                State::Running(_) | State::Exited(_) => None,
            };
            ContainerView {
                attempt: attempted,
                live: match &container.state {
                    State::Running(running) => Some(running.container.clone()),
                    _ => None,
                },
                waiting,
                tty: spec.tty == Some(true),
                stdin: spec.stdin == Some(true),
            }
        };
        let containers =
            (0..machine.containers.len()).map(|i| (machine.containers[i].name.clone(), view(i)));
        Self {
            pod: machine.pod.clone(),
            ip: machine.ip,
            containers: containers.collect(),
            pod_dir,
        }
    }
}

/// Views by namespace and name.
type ByName = HashMap<(String, String), watch::Receiver<PodView>>;

/// All Pods of the node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    pods: Arc<Mutex<ByName>>,
}

impl Registry {
    fn key(pod: &Pod) -> (String, String) {
        let meta = &pod.metadata;
        (
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        )
    }

    /// Makes a Pod known. A newer Pod of the same name takes the place of an older.
    pub(crate) fn insert(&self, view: watch::Receiver<PodView>) {
        let key = Self::key(&view.borrow().pod);
        self.pods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, view);
    }

    /// Forgets a Pod, unless its place was taken.
    pub(crate) fn remove(&self, pod: &Pod) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Self::key(pod);
        let same =
            |view: &watch::Receiver<PodView>| view.borrow().pod.metadata.uid == pod.metadata.uid;
        if pods.get(&key).is_some_and(same) {
            pods.remove(&key);
        }
    }

    /// Forgets the Pod of a uid.
    pub(crate) fn remove_uid(&self, uid: &str) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.retain(|_, view| view.borrow().pod.metadata.uid.as_deref() != Some(uid));
    }

    /// A Pod by its name.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<watch::Receiver<PodView>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.pods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<PodView> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.values().map(|view| view.borrow().clone()).collect()
    }
}
