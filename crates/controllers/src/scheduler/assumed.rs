//! Pods that were just given a node which the cache does not show yet: the next decision has to
//! count them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;

use crate::meta;
use crate::runtime::Change;

/// By uid. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Assumed(Arc<Mutex<BTreeMap<String, Arc<Pod>>>>);

impl Assumed {
    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Pod>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what the cache shows placed, or has seen the end of: a Pod that is deleted soon
    /// after it was placed may never be seen there.
    pub(super) fn observe(&self, change: &Change<'_, Pod>) {
        let now = change.new.map(|pod| &pod.metadata.uid);
        for pod in change.sides() {
            if meta::node_name(pod).is_some() || now != Some(&pod.metadata.uid) {
                let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                self.lock().remove(uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, node: Option<&str>) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": "p", "uid": uid}, "spec": {"nodeName": node,
            "containers": []}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    /// Whether Pod `a` is still assumed after a change.
    fn kept(old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) -> bool {
        let assumed = Assumed::default();
        let placed = pod("a", Some("node"));
        assumed.lock().insert("a".to_owned(), placed);
        assumed.observe(&Change { old, new });
        assumed.lock().contains_key("a")
    }

    #[test]
    fn a_pod_is_assumed_until_it_is_seen_placed_or_gone() {
        let (waiting, placed) = (pod("a", None), pod("a", Some("node")));
        assert!(kept(None, Some(&waiting)));
        assert!(kept(Some(&waiting), Some(&waiting)));
        assert!(!kept(Some(&waiting), Some(&placed)));
        assert!(
            !kept(Some(&waiting), None),
            "gone before it was seen placed"
        );
        assert!(
            !kept(Some(&waiting), Some(&pod("b", None))),
            "another of its name"
        );
        assert!(kept(Some(&pod("b", None)), None));
    }
}
