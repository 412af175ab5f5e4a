//! What every decision has to look at: the Pods that wait for a node, and those that take up room on
//! one. Kept from change to change, since most Pods of a busy cluster have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;

use super::waits;
use crate::meta;
use crate::runtime::{Change, Key};

/// Clones share it.
#[derive(Clone, Default)]
pub(super) struct Known(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    waiting: BTreeSet<Key>,
    placed: BTreeMap<Key, Arc<Pod>>,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn observe(&self, change: &Change<'_, Pod>) {
        let Some(latest) = change.latest() else {
            return;
        };
        let key = Key::of(latest.as_ref());
        let mut state = self.lock();
        state.waiting.remove(&key);
        state.placed.remove(&key);
        let Some(pod) = change.new else { return };
        if waits(pod) {
            state.waiting.insert(key);
        } else if meta::node_name(pod).is_some() && !meta::is_terminal(pod) {
            state.placed.insert(key, pod.clone());
        }
    }

    /// The Pods that wait for a node.
    pub(super) fn waiting(&self) -> Vec<Key> {
        self.lock().waiting.iter().cloned().collect()
    }

    /// The Pods that have a node and have not ended.
    pub(super) fn placed(&self) -> Vec<Arc<Pod>> {
        self.lock().placed.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(node: Option<&str>, phase: &str) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"},
            "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_pod_waits_then_takes_room_until_it_ends() {
        let known = Known::default();
        let counts = || (known.waiting().len(), known.placed().len());
        let states = [
            pod(None, "Pending"),
            pod(Some("node"), "Running"),
            pod(Some("node"), "Succeeded"),
        ];
        let mut old = None;
        for (new, expected) in states.iter().zip([(1, 0), (0, 1), (0, 0)]) {
            known.observe(&Change {
                old,
                new: Some(new),
            });
            assert_eq!(counts(), expected);
            old = Some(new);
        }
        known.observe(&Change {
            old: None,
            new: Some(&states[0]),
        });
        known.observe(&Change {
            old: Some(&states[0]),
            new: None,
        });
        assert_eq!(counts(), (0, 0), "deleted before it had a node");
    }
}
