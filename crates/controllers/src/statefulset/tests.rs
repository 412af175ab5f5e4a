//! A StatefulSet played through in memory.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::plan::{Change, Observed, plan, status};
use crate::revision;

struct World {
    observed: Observed,
    said: Vec<String>,
}

fn set(spec: Value) -> Arc<StatefulSet> {
    let mut all = json!({
        "replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
        "template": {"metadata": {"labels": {"app": "db"}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
    });
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    Arc::new(
        serde_json::from_value(
            json!({"metadata": {"name": "db", "namespace": "n", "uid": "db"}, "spec": all}),
        )
        .unwrap(),
    )
}

fn world(spec: Value) -> World {
    let observed = Observed {
        set: set(spec),
        pods: vec![],
        claims: vec![],
        revisions: vec![],
        now: jiff::Timestamp::UNIX_EPOCH,
    };
    World {
        observed,
        said: vec![],
    }
}

impl World {
    /// Acts once, then lets every Pod become ready.
    fn step(&mut self) -> Vec<String> {
        self.said.clear();
        let plan = plan(&self.observed).unwrap();
        for change in plan.history {
            match change {
                revision::Change::Create(made) => self.observed.revisions.push(Arc::new(*made)),
                other => panic!("unexpected {other:?}"),
            }
        }
        for change in plan.changes {
            self.apply(change);
        }
        let (status, _) = status(&self.observed, &plan.update_revision);
        let mut set = self.observed.set.as_ref().clone();
        set.status = Some(status);
        self.observed.set = Arc::new(set);
        self.said.clone()
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::CreateClaim(claim) => {
                self.said.push(format!("claim {}", claim.name_any()));
                self.observed.claims.push(Arc::new(*claim));
            }
            Change::Create(pod) => {
                self.said.push(format!("create {}", pod.name_any()));
                self.observed.pods.push(Arc::new(*pod));
            }
            Change::Delete(pod) => {
                self.said.push(format!("delete {}", pod.name_any()));
                self.observed
                    .pods
                    .retain(|other| other.name_any() != pod.name_any());
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn make_ready(&mut self) {
        for pod in &mut self.observed.pods {
            let mut ready: Pod = pod.as_ref().clone();
            ready.status = serde_json::from_value(json!({"phase": "Running", "conditions":
                [{"type": "Ready", "status": "True"}]}))
            .unwrap();
            *pod = Arc::new(ready);
        }
    }

    fn run(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let said = self.step();
            self.make_ready();
            if said.is_empty() {
                self.step();
                return all;
            }
            all.extend(said);
        }
    }

    fn change(&mut self, spec: Value) {
        let mut changed = set(spec).as_ref().clone();
        changed.status = self.observed.set.status.clone();
        self.observed.set = Arc::new(changed);
    }
}

fn new_image() -> Value {
    json!({"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [
        {"name": "c", "image": "i:2"}]}})
}

#[test]
fn pods_start_one_after_the_other_with_claims_and_names_of_their_own() {
    let mut world = world(json!({}));
    assert_eq!(world.step(), ["claim data-db-0", "create db-0"]);
    assert!(world.step().is_empty(), "db-0 is not ready yet");
    world.make_ready();
    assert_eq!(world.step(), ["claim data-db-1", "create db-1"]);
    let spec = world.observed.pods[1].spec.as_ref().unwrap();
    assert_eq!(
        (spec.hostname.as_deref(), spec.subdomain.as_deref()),
        (Some("db-1"), Some("db"))
    );
    let claim = spec.volumes.as_ref().unwrap()[0]
        .persistent_volume_claim
        .as_ref()
        .unwrap();
    assert_eq!(claim.claim_name, "data-db-1");
}

#[test]
fn in_parallel_nobody_waits() {
    let mut world = world(json!({"podManagementPolicy": "Parallel", "volumeClaimTemplates": null}));
    assert_eq!(world.step(), ["create db-0", "create db-1", "create db-2"]);
}

#[test]
fn scaling_down_takes_the_highest_first_and_keeps_claims() {
    let mut world = world(json!({}));
    world.run();
    world.change(json!({"replicas": 1}));
    assert_eq!(world.run(), ["delete db-2", "delete db-1"]);
    assert_eq!(world.observed.claims.len(), 3);
}

#[test]
fn an_update_goes_from_the_highest_down_and_is_then_current() {
    let mut world = world(json!({}));
    world.run();
    let before = world.observed.set.status.clone().unwrap();
    assert_eq!(
        (before.ready_replicas, before.updated_replicas),
        (Some(3), Some(3))
    );
    world.change(json!({"template": new_image()}));
    let said = world.run();
    let wanted = [
        "delete db-2",
        "create db-2",
        "delete db-1",
        "create db-1",
        "delete db-0",
        "create db-0",
    ];
    assert_eq!(said, wanted);
    let after = world.observed.set.status.clone().unwrap();
    assert_eq!(after.current_revision, after.update_revision);
    assert_ne!(after.current_revision, before.current_revision);
}

#[test]
fn below_the_partition_the_old_template_stays() {
    let mut world = world(json!({}));
    world.run();
    let partition = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
    world.change(json!({"template": new_image(), "updateStrategy": partition}));
    assert_eq!(world.run(), ["delete db-2", "create db-2"]);
    let gone = world
        .observed
        .pods
        .iter()
        .position(|pod| pod.name_any() == "db-0")
        .unwrap();
    world.observed.pods.remove(gone);
    assert_eq!(world.run(), ["create db-0"]);
    let image = |name: &str| {
        let pod = world
            .observed
            .pods
            .iter()
            .find(|pod| pod.name_any() == name)
            .unwrap();
        pod.spec.as_ref().unwrap().containers[0]
            .image
            .clone()
            .unwrap()
    };
    assert_eq!((&*image("db-0"), &*image("db-2")), ("i:1", "i:2"));
    let status = world.observed.set.status.as_ref().unwrap();
    assert_eq!(
        (status.current_replicas, status.updated_replicas),
        (Some(2), Some(1))
    );
}
