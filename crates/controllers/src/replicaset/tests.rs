//! The plan of a ReplicaSet against Pods in every state that matters.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::json;

use super::plan::{Change, Observed, plan, status};

fn set(replicas: i32) -> Arc<ReplicaSet> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "n", "uid": "set", "generation": 3},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]},
                },
            },
        }))
        .unwrap(),
    )
}

fn pod(name: &str, phase: &str, node: Option<&str>, ready: bool) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "n", "uid": name, "labels": {"app": "web"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1",
                "uid": "set", "controller": true}],
        },
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": phase, "conditions": [{
            "type": "Ready", "status": if ready { "True" } else { "False" },
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    }))
    .unwrap()
}

fn described(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| match change {
            Change::Adopt(pod) => format!("adopt {}", pod.name_any()),
            Change::Release(pod) => format!("release {}", pod.name_any()),
            Change::Create(pod) => {
                format!("create {}", pod.metadata.generate_name.as_deref().unwrap())
            }
            Change::Delete(pod) => format!("delete {}", pod.name_any()),
        })
        .collect()
}

fn plan_for(replicas: i32, pods: Vec<Pod>) -> Vec<String> {
    let pods = pods.into_iter().map(Arc::new).collect();
    described(&plan(&Observed {
        set: set(replicas),
        pods,
    }))
}

#[test]
fn missing_pods_are_created_with_owner_and_labels() {
    let changes = plan(&Observed {
        set: set(2),
        pods: vec![],
    });
    assert_eq!(described(&changes), ["create web-1-", "create web-1-"]);
    let Change::Create(pod) = &changes[0] else {
        panic!("a creation")
    };
    let owner = &pod.owner_references()[0];
    assert_eq!(
        (owner.controller, owner.block_owner_deletion),
        (Some(true), Some(true))
    );
    assert_eq!(pod.labels()["app"], "web");
}

#[test]
fn finished_and_deleted_pods_do_not_count() {
    let mut leaving = pod("b", "Running", Some("x"), true);
    leaving.metadata.deletion_timestamp = Some(
        k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH),
    );
    let pods = vec![pod("a", "Failed", Some("x"), false), leaving];
    assert_eq!(plan_for(1, pods), ["create web-1-"]);
}

#[test]
fn the_least_missed_pods_are_deleted_first() {
    let mut cheap = pod("cheap", "Running", Some("x"), true);
    cheap.annotations_mut().insert(
        "controller.kubernetes.io/pod-deletion-cost".to_owned(),
        "-5".to_owned(),
    );
    let pods = vec![
        pod("ready", "Running", Some("x"), true),
        cheap,
        pod("unready", "Running", Some("x"), false),
        pod("pending", "Pending", Some("x"), false),
        pod("unplaced", "Pending", None, false),
    ];
    let order = [
        "delete unplaced",
        "delete pending",
        "delete unready",
        "delete cheap",
    ];
    for keep in 1..=5 {
        assert_eq!(
            plan_for(keep, pods.clone()),
            order[..5 - usize::try_from(keep).unwrap()]
        );
    }
}

#[test]
fn orphans_that_match_are_adopted_and_strangers_released() {
    let mut orphan = pod("orphan", "Running", Some("x"), true);
    orphan.metadata.owner_references = None;
    let mut stray = pod("stray", "Running", Some("x"), true);
    stray.metadata.labels = None;
    let mut other = pod("other", "Running", Some("x"), true);
    other.metadata.owner_references.as_mut().unwrap()[0].uid = "else".to_owned();
    assert_eq!(
        plan_for(1, vec![orphan, stray, other]),
        ["adopt orphan", "release stray"]
    );
}

#[test]
fn the_status_counts_available_pods_and_says_when_the_next_one_is() {
    let mut with_min = set(2).as_ref().clone();
    with_min.spec.as_mut().unwrap().min_ready_seconds = Some(30);
    let pods = vec![
        Arc::new(pod("a", "Running", Some("x"), true)),
        Arc::new(pod("b", "Running", Some("x"), false)),
    ];
    let observed = Observed {
        set: Arc::new(with_min),
        pods,
    };
    let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
    let (early, again) = status(&observed, None, now);
    assert_eq!(
        (
            early.replicas,
            early.ready_replicas,
            early.available_replicas
        ),
        (2, Some(1), None)
    );
    assert_eq!(again.map(|d| d.as_secs()), Some(20));
    let (later, again) = status(&observed, None, "2026-01-01T00:00:30Z".parse().unwrap());
    assert_eq!(
        (later.available_replicas, later.observed_generation, again),
        (Some(1), Some(3), None)
    );
}
