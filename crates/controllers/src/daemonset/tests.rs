//! A DaemonSet over nodes that come, go and are tainted.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::plan::{Change, Observed, plan, status};
use crate::revision::{self, HASH_LABEL};

fn set(image: &str) -> Arc<DaemonSet> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": "ds", "namespace": "n", "uid": "ds", "generation": 2},
            "spec": {
                "selector": {"matchLabels": {"app": "ds"}},
                "template": {"metadata": {"labels": {"app": "ds"}}, "spec": {
                    "hostNetwork": true, "nodeSelector": {"os": "linux"},
                    "containers": [{"name": "c", "image": image}]}},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            },
        }))
        .unwrap(),
    )
}

fn node(name: &str, over: Value) -> Arc<Node> {
    let mut node = json!({"metadata": {"name": name, "labels": {"os": "linux"}}, "spec": {}});
    for (key, value) in over.as_object().unwrap() {
        node[key] = value.clone();
    }
    Arc::new(serde_json::from_value(node).unwrap())
}

fn observed(set: Arc<DaemonSet>, nodes: Vec<Arc<Node>>) -> Observed {
    Observed {
        set,
        pods: vec![],
        nodes,
        revisions: vec![],
        now: jiff::Timestamp::UNIX_EPOCH,
    }
}

/// Carries out creations and deletions of Pods and revisions.
fn act(observed: &mut Observed) -> Vec<String> {
    let plan = plan(observed).unwrap();
    for change in plan.history {
        match change {
            revision::Change::Create(made) => observed.revisions.push(Arc::new(*made)),
            other => panic!("unexpected {other:?}"),
        }
    }
    let mut said = Vec::new();
    for change in plan.changes {
        match change {
            Change::Create(mut pod) => {
                let number = observed.pods.len();
                pod.metadata.name = Some(format!("ds-{number}"));
                pod.metadata.uid = pod.metadata.name.clone();
                said.push(format!("create {}", pod.name_any()));
                observed.pods.push(Arc::new(*pod));
            }
            Change::Delete(pod) | Change::Finished { pod, .. } => {
                said.push(format!("delete {}", pod.name_any()));
                observed
                    .pods
                    .retain(|other| other.name_any() != pod.name_any());
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    said
}

fn make_ready(observed: &mut Observed) {
    for pod in &mut observed.pods {
        let mut ready = pod.as_ref().clone();
        ready.status = serde_json::from_value(json!({"phase": "Running", "conditions":
            [{"type": "Ready", "status": "True"}]}))
        .unwrap();
        *pod = Arc::new(ready);
    }
}

#[test]
fn every_suitable_node_gets_one_pod_pinned_to_it() {
    let nodes = vec![
        node("a", json!({})),
        node(
            "b",
            json!({"metadata": {"name": "b", "labels": {"os": "else"}}}),
        ),
        node(
            "c",
            json!({"spec": {"taints": [{"key": "x", "effect": "NoSchedule"}]}}),
        ),
        node(
            "d",
            json!({"spec": {"unschedulable": true, "taints": [
            {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}}),
        ),
    ];
    let mut observed = observed(set("i:1"), nodes);
    assert_eq!(act(&mut observed), ["create ds-0", "create ds-1"]);
    assert!(act(&mut observed).is_empty());
    let spec = observed.pods[0].spec.as_ref().unwrap();
    let affinity = serde_json::to_value(&spec.affinity).unwrap();
    let required = "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    assert_eq!(
        affinity.pointer(required).unwrap()["nodeSelectorTerms"],
        json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}])
    );
    assert_eq!(spec.tolerations.as_ref().unwrap().len(), 7);
    let hash = &observed.pods[0].labels()[HASH_LABEL];
    assert_eq!(observed.revisions[0].name_any(), format!("ds-{hash}"));
}

#[test]
fn the_status_counts_nodes() {
    let mut observed = observed(set("i:1"), vec![node("a", json!({})), node("b", json!({}))]);
    act(&mut observed);
    let hash = observed.pods[0].labels()[HASH_LABEL].clone();
    let (early, _) = status(&observed, &hash);
    assert_eq!(
        (
            early.desired_number_scheduled,
            early.current_number_scheduled
        ),
        (2, 2)
    );
    assert_eq!((early.number_ready, early.number_unavailable), (0, Some(2)));
    make_ready(&mut observed);
    let (late, _) = status(&observed, &hash);
    assert_eq!(
        (
            late.number_ready,
            late.number_available,
            late.number_unavailable
        ),
        (2, Some(2), None)
    );
    assert_eq!(
        (late.updated_number_scheduled, late.observed_generation),
        (Some(2), Some(2))
    );
}

#[test]
fn a_new_template_replaces_one_pod_at_a_time() {
    let mut observed = observed(set("i:1"), vec![node("a", json!({})), node("b", json!({}))]);
    act(&mut observed);
    make_ready(&mut observed);
    observed.set = set("i:2");
    assert_eq!(act(&mut observed).len(), 1);
    assert_eq!(
        observed
            .revisions
            .iter()
            .map(|r| r.revision)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(act(&mut observed), ["create ds-1"]);
    assert!(
        act(&mut observed).is_empty(),
        "the new Pod is not ready yet"
    );
    make_ready(&mut observed);
    assert_eq!(act(&mut observed).len(), 1);
}

#[test]
fn a_node_that_no_longer_suits_loses_its_pod_and_an_ended_pod_is_replaced() {
    let mut observed = observed(set("i:1"), vec![node("a", json!({})), node("b", json!({}))]);
    act(&mut observed);
    let evicts = json!({"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}});
    observed.nodes[1] = node("b", evicts);
    assert_eq!(act(&mut observed), ["delete ds-1"]);
    let mut failed: Pod = observed.pods[0].as_ref().clone();
    failed.status = serde_json::from_value(json!({"phase": "Failed"})).unwrap();
    observed.pods[0] = Arc::new(failed);
    assert_eq!(act(&mut observed), ["delete ds-0"]);
    assert_eq!(act(&mut observed), ["create ds-0"]);
}
