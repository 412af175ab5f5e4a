//! What the graph of owners asks for, news by news.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::graph::{Change, FOREGROUND, Graph, ORPHAN, Owner, Policy, Work};

fn meta(value: Value) -> ObjectMeta {
    serde_json::from_value(value).unwrap()
}

fn object(uid: &str, owners: &[&str]) -> ObjectMeta {
    let owners: Vec<Value> = owners
        .iter()
        .map(|owner| {
            json!({"apiVersion": "v1", "kind": "K", "name": owner, "uid": owner,
                "blockOwnerDeletion": true})
        })
        .collect();
    meta(json!({"name": uid, "uid": uid, "ownerReferences": owners}))
}

fn leaving(mut metadata: ObjectMeta, finalizer: &str) -> ObjectMeta {
    metadata.deletion_timestamp = Some(crate::meta::whole_seconds(jiff::Timestamp::UNIX_EPOCH));
    metadata.finalizers = Some(vec![finalizer.to_owned()]);
    metadata
}

fn examine(uid: &str) -> Work {
    Work::Examine(uid.to_owned())
}

struct World {
    graph: Graph<()>,
}

impl World {
    fn new() -> Self {
        Self {
            graph: Graph::new(),
        }
    }

    fn put(&mut self, metadata: ObjectMeta) -> Vec<Work> {
        self.graph.put(Arc::new(()), &metadata)
    }

    fn plan(&self, uid: &str, answers: &[(&str, Owner)]) -> Vec<Change> {
        let answers: BTreeMap<String, Owner> = answers
            .iter()
            .map(|(uid, owner)| ((*uid).to_owned(), *owner))
            .collect();
        self.graph.plan(uid, &answers)
    }
}

#[test]
fn dependents_of_a_removed_owner_are_deleted() {
    let mut world = World::new();
    assert!(world.put(object("owner", &[])).is_empty());
    assert!(
        world.put(object("child", &["owner"])).is_empty(),
        "its owner is here"
    );
    assert_eq!(world.graph.remove("owner"), [examine("child")]);
    assert_eq!(world.graph.doubtful_owners("child").len(), 1);
    assert_eq!(
        world.plan("child", &[("owner", Owner::Absent)]),
        [Change::Delete(Policy::Background)]
    );
}

#[test]
fn an_owner_that_is_not_known_yet_is_asked_for() {
    let mut world = World::new();
    assert_eq!(world.put(object("child", &["owner"])), [examine("child")]);
    assert!(world.plan("child", &[("owner", Owner::Exists)]).is_empty());
}

#[test]
fn an_object_with_another_living_owner_only_loses_the_reference() {
    let mut world = World::new();
    world.put(object("a", &[]));
    world.put(object("b", &[]));
    world.put(object("child", &["a", "b"]));
    world.graph.remove("a");
    let dropped = Change::DropOwners(BTreeSet::from(["a".to_owned()]));
    assert_eq!(world.plan("child", &[("a", Owner::Absent)]), [dropped]);
}

#[test]
fn foreground_deletion_waits_for_blocking_dependents() {
    let mut world = World::new();
    world.put(object("owner", &[]));
    world.put(object("child", &["owner"]));
    let work = world.put(leaving(object("owner", &[]), FOREGROUND));
    assert_eq!(work, [examine("owner"), examine("child")]);
    assert_eq!(world.plan("owner", &[]), [Change::Later(examine("child"))]);
    assert_eq!(
        world.plan("child", &[]),
        [Change::Delete(Policy::Background)]
    );
    assert_eq!(world.graph.remove("child"), [examine("owner")]);
    assert_eq!(
        world.plan("owner", &[]),
        [Change::DropFinalizer(FOREGROUND)]
    );
}

#[test]
fn foreground_deletion_goes_down_the_tree() {
    let mut world = World::new();
    world.put(object("owner", &[]));
    world.put(object("set", &["owner"]));
    world.put(object("pod", &["set"]));
    world.put(leaving(object("owner", &[]), FOREGROUND));
    assert_eq!(world.plan("set", &[]), [Change::Delete(Policy::Foreground)]);
}

#[test]
fn a_circle_of_owners_is_broken() {
    let mut world = World::new();
    world.put(object("a", &["b"]));
    world.put(object("b", &["a"]));
    world.put(leaving(object("a", &["b"]), FOREGROUND));
    let changes = world.plan("b", &[]);
    assert_eq!(
        changes,
        [Change::Unblock, Change::Delete(Policy::Foreground)]
    );
}

#[test]
fn dependents_of_an_orphaning_owner_are_freed_even_when_heard_of_late() {
    let mut world = World::new();
    world.put(object("owner", &[]));
    let work = world.put(leaving(object("owner", &[]), ORPHAN));
    assert_eq!(work, [Work::SetFree("owner".to_owned())]);
    world.graph.remove("owner");
    assert_eq!(world.put(object("child", &["owner"])), [examine("child")]);
    let freed = Change::DropOwners(BTreeSet::from(["owner".to_owned()]));
    assert_eq!(world.plan("child", &[("owner", Owner::Absent)]), [freed]);
}

#[test]
fn what_is_being_deleted_is_left_alone() {
    let mut world = World::new();
    world.put(leaving(object("child", &["owner"]), "example.com/mine"));
    assert!(world.plan("child", &[("owner", Owner::Absent)]).is_empty());
}
