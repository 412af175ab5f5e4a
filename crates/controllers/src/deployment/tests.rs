//! Rollouts played through: the plan's changes are carried out on objects in memory, with Pods
//! becoming available one at a time, and the strategy's bounds are checked at every step.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::plan::{Change, Observed, plan};
use super::{rolling, template};

struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    pods: Vec<Arc<Pod>>,
    now: Timestamp,
    events: Vec<String>,
}

fn world(spec: Value) -> World {
    let mut all = json!({
        "replicas": 4,
        "selector": {"matchLabels": {"app": "d"}},
        "progressDeadlineSeconds": 600,
        "revisionHistoryLimit": 1,
        "strategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
        "template": {"metadata": {"labels": {"app": "d"}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
    });
    all.as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    World {
        deployment: serde_json::from_value(json!({
            "metadata": {"name": "d", "namespace": "n", "uid": "d", "generation": 1,
                "annotations": {"note": "kept", "kubectl.kubernetes.io/last-applied-configuration": "x"}},
            "spec": all,
        }))
        .unwrap(),
        sets: vec![],
        pods: vec![],
        now: "2026-01-01T00:00:00Z".parse().unwrap(),
        events: vec![],
    }
}

impl World {
    /// Lets the controller act once; says whether it did anything.
    fn step(&mut self) -> bool {
        let observed = Observed {
            deployment: Arc::new(self.deployment.clone()),
            sets: self.sets.iter().cloned().map(Arc::new).collect(),
            pods: self.pods.clone(),
            now: self.now,
        };
        let changes = plan(&observed).changes;
        let acted = !changes.is_empty();
        for change in changes {
            self.apply(change);
        }
        acted
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Create(mut set) => {
                set.metadata.uid = set.metadata.name.clone();
                set.metadata.generation = Some(1);
                let age = SignedDuration::from_secs(self.sets.len() as i64);
                set.metadata.creation_timestamp = Some(crate::meta::whole_seconds(self.now + age));
                self.sets.push(*set);
            }
            Change::Replace { set, event } => {
                self.events.extend(event);
                let old = self
                    .sets
                    .iter_mut()
                    .find(|old| old.uid() == set.uid())
                    .unwrap();
                *old = *set;
            }
            Change::Delete(set) => self.sets.retain(|old| old.uid() != set.uid()),
            Change::Revision(revision) => {
                let annotations = self.deployment.annotations_mut();
                annotations.insert(template::REVISION.to_owned(), revision);
            }
            Change::Status(status) => self.deployment.status = Some(*status),
            Change::Adopt(_) | Change::Release(_) | Change::Warn { .. } => {
                panic!("unexpected {change:?}")
            }
        }
    }

    /// Lets the ReplicaSets follow: sizes at once, one more Pod available. Says whether any did.
    fn follow(&mut self) -> bool {
        let mut moved = false;
        let mut grown = false;
        for set in &mut self.sets {
            let size = rolling::wanted(set);
            let generation = set.metadata.generation;
            let status = set.status.get_or_insert_default();
            let available = status.available_replicas.unwrap_or(0);
            let next = if available < size && !grown {
                grown = true;
                available + 1
            } else {
                available.min(size)
            };
            moved |= status.replicas != size || next != available;
            status.replicas = size;
            status.available_replicas = Some(next);
            status.ready_replicas = Some(next);
            status.observed_generation = generation;
        }
        moved
    }

    fn run(&mut self, mut check: impl FnMut(&Self)) {
        for _ in 0..200 {
            let acted = self.step();
            check(self);
            if !self.follow() && !acted {
                return;
            }
            check(self);
        }
        panic!("the rollout does not end");
    }

    fn set_image(&mut self, image: &str) {
        let spec = self.deployment.spec.as_mut().unwrap();
        spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn sizes(&self) -> Vec<(String, i32)> {
        let image = |set: &ReplicaSet| {
            let template = set.spec.as_ref().unwrap().template.as_ref().unwrap();
            template.spec.as_ref().unwrap().containers[0]
                .image
                .clone()
                .unwrap()
        };
        self.sets
            .iter()
            .map(|set| (image(set), rolling::wanted(set)))
            .collect()
    }

    fn condition(&self, type_: &str) -> DeploymentCondition {
        let all = self
            .deployment
            .status
            .as_ref()
            .unwrap()
            .conditions
            .as_ref()
            .unwrap();
        all.iter()
            .find(|condition| condition.type_ == type_)
            .unwrap()
            .clone()
    }

    fn reason(&self, type_: &str) -> String {
        self.condition(type_).reason.unwrap()
    }

    fn available(&self) -> i32 {
        let of = |set: &ReplicaSet| set.status.as_ref().and_then(|s| s.available_replicas);
        self.sets.iter().filter_map(of).sum()
    }
}

#[test]
fn the_first_step_makes_a_set_with_everything_that_belongs_to_it() {
    let mut world = world(json!({}));
    world.step();
    let set = &world.sets[0];
    let hash = &set.labels()[template::HASH_LABEL];
    assert_eq!(set.name_any(), format!("d-{hash}"));
    assert!(
        hash.bytes()
            .all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b)),
        "{hash}"
    );
    let spec = set.spec.as_ref().unwrap();
    assert_eq!(
        spec.selector.match_labels.as_ref().unwrap()[template::HASH_LABEL],
        *hash
    );
    let annotations = set.annotations();
    assert_eq!(annotations[template::REVISION], "1");
    assert_eq!(
        (
            &*annotations[template::DESIRED],
            &*annotations[template::MAX]
        ),
        ("4", "5")
    );
    assert_eq!(annotations["note"], "kept");
    assert_eq!(annotations.len(), 4, "{annotations:?}");
    assert_eq!(world.deployment.annotations()[template::REVISION], "1");
    assert_eq!(world.reason("Progressing"), "NewReplicaSetCreated");
    assert_eq!(world.reason("Available"), "MinimumReplicasUnavailable");
}

#[test]
fn a_rolling_update_keeps_its_bounds_and_ends_complete() {
    let mut world = world(json!({}));
    world.run(|_| {});
    assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable");
    world.set_image("i:2");
    world.run(|world| {
        let total: i32 = world.sets.iter().map(rolling::wanted).sum();
        assert!(
            total <= 5,
            "at most one more than wanted: {:?}",
            world.sizes()
        );
        assert!(
            world.available() >= 3,
            "at most one missing: {:?}",
            world.sizes()
        );
    });
    assert_eq!(
        world.sizes(),
        [("i:1".to_owned(), 0), ("i:2".to_owned(), 4)]
    );
    let status = world.deployment.status.as_ref().unwrap();
    assert_eq!(
        (status.updated_replicas, status.observed_generation),
        (Some(4), Some(2))
    );
    assert_eq!(world.sets[1].annotations()[template::REVISION], "2");
    assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable");
    assert_eq!(world.reason("Available"), "MinimumReplicasAvailable");
}

#[test]
fn going_back_reuses_the_old_set_with_a_new_revision() {
    let mut world = world(json!({}));
    world.run(|_| {});
    world.set_image("i:2");
    world.run(|_| {});
    world.set_image("i:1");
    world.run(|_| {});
    assert_eq!(
        world.sizes(),
        [("i:1".to_owned(), 4), ("i:2".to_owned(), 0)]
    );
    let annotations = world.sets[0].annotations();
    assert_eq!(annotations[template::REVISION], "3");
    assert_eq!(annotations[template::REVISION_HISTORY], "1");
}

#[test]
fn old_sets_beyond_the_limit_are_removed() {
    let mut world = world(json!({}));
    for image in ["i:1", "i:2", "i:3", "i:4"] {
        world.set_image(image);
        world.run(|_| {});
    }
    assert_eq!(
        world.sizes(),
        [("i:3".to_owned(), 0), ("i:4".to_owned(), 4)]
    );
}

#[test]
fn recreate_starts_the_new_only_when_the_old_is_gone() {
    let mut world = world(json!({"strategy": {"type": "Recreate"}}));
    world.run(|_| {});
    world.pods = vec![Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": "p", "ownerReferences": [{"apiVersion": "apps/v1",
                "kind": "ReplicaSet", "name": "x", "uid": world.sets[0].uid(), "controller": true}]},
            "status": {"phase": "Running"},
        }))
        .unwrap(),
    )];
    world.set_image("i:2");
    world.run(|_| {});
    assert_eq!(
        world.sizes(),
        [("i:1".to_owned(), 0)],
        "a Pod of the old still runs"
    );
    world.pods.clear();
    world.run(|_| {});
    assert_eq!(
        world.sizes(),
        [("i:1".to_owned(), 0), ("i:2".to_owned(), 4)]
    );
}

#[test]
fn scaling_reaches_the_only_set_at_once() {
    let mut world = world(json!({}));
    world.run(|_| {});
    world.deployment.spec.as_mut().unwrap().replicas = Some(9);
    world.step();
    assert_eq!(world.sizes(), [("i:1".to_owned(), 9)]);
    assert!(
        world
            .events
            .last()
            .unwrap()
            .starts_with("Scaled up replica set d-")
    );
    assert!(world.events.last().unwrap().ends_with("from 4 to 9"));
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_shared() {
    let mut world = world(json!({}));
    world.run(|_| {});
    world.set_image("i:2");
    world.step();
    world.follow();
    world.step();
    let before = world.sizes();
    assert!(before.iter().all(|(_, size)| *size > 0), "{before:?}");
    world.deployment.spec.as_mut().unwrap().replicas = Some(8);
    world.step();
    let after = world.sizes();
    assert_eq!(
        after.iter().map(|(_, size)| size).sum::<i32>(),
        9,
        "{after:?}"
    );
    assert!(
        after
            .iter()
            .zip(&before)
            .all(|(after, before)| after.1 >= before.1)
    );
    world.run(|_| {});
    assert_eq!(
        world.sizes(),
        [("i:1".to_owned(), 0), ("i:2".to_owned(), 8)]
    );
}

#[test]
fn a_paused_deployment_does_not_roll_but_scales() {
    let mut world = world(json!({}));
    world.run(|_| {});
    world.deployment.spec.as_mut().unwrap().paused = Some(true);
    world.set_image("i:2");
    world.deployment.spec.as_mut().unwrap().replicas = Some(6);
    world.run(|_| {});
    assert_eq!(world.sizes(), [("i:1".to_owned(), 6)]);
    assert_eq!(world.reason("Progressing"), "DeploymentPaused");
    world.deployment.spec.as_mut().unwrap().paused = Some(false);
    world.run(|_| {});
    assert_eq!(
        world.sizes(),
        [("i:1".to_owned(), 0), ("i:2".to_owned(), 6)]
    );
}

#[test]
fn no_progress_within_the_deadline_is_said_and_progress_starts_the_clock_again() {
    let mut world = world(json!({"progressDeadlineSeconds": 10}));
    while world.step() {}
    world.now += SignedDuration::from_secs(9);
    assert!(!world.step(), "nine seconds are fine");
    world.follow();
    world.step();
    assert_eq!(world.reason("Progressing"), "ReplicaSetUpdated");
    world.now += SignedDuration::from_secs(9);
    assert!(
        !world.step(),
        "nine seconds since the last progress are fine"
    );
    world.now += SignedDuration::from_secs(2);
    world.step();
    let condition = world.condition("Progressing");
    assert_eq!(
        condition.reason.as_deref(),
        Some("ProgressDeadlineExceeded")
    );
    assert_eq!(condition.status, "False");
    world.run(|_| {});
    assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable");
}

#[test]
fn sets_that_match_and_belong_to_nobody_are_adopted_first() {
    let mut world = world(json!({}));
    world.step();
    world.sets[0].metadata.owner_references = None;
    let observed = Observed {
        deployment: Arc::new(world.deployment.clone()),
        sets: world.sets.iter().cloned().map(Arc::new).collect(),
        pods: vec![],
        now: world.now,
    };
    assert!(matches!(plan(&observed).changes[..], [Change::Adopt(_)]));
}
