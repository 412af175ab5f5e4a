//! The steps of claims and volumes towards each other.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use serde_json::{Value, json};

use super::plan::{self, Change, Observed};
use super::{BIND_COMPLETED, BOUND_BY_CONTROLLER, PROVISIONED_BY, SELECTED_NODE};

fn merged(mut base: Value, over: Value) -> Value {
    fn merge(base: &mut Value, over: Value) {
        match (base, over) {
            (Value::Object(base), Value::Object(over)) => {
                for (key, value) in over {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
            (base, over) => *base = over,
        }
    }
    merge(&mut base, over);
    base
}

fn volume(name: &str, size: &str, over: Value) -> Arc<PersistentVolume> {
    let base = json!({
        "metadata": {"name": name, "uid": name},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteMany"],
            "storageClassName": "manual", "volumeMode": "Filesystem",
            "hostPath": {"path": "/mnt/data"}},
        "status": {"phase": "Available"},
    });
    Arc::new(serde_json::from_value(merged(base, over)).unwrap())
}

fn claim(over: Value) -> Arc<PersistentVolumeClaim> {
    let base = json!({
        "metadata": {"name": "c", "namespace": "n", "uid": "claim", "resourceVersion": "5"},
        "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "manual",
            "resources": {"requests": {"storage": "3Gi"}}},
        "status": {"phase": "Pending"},
    });
    Arc::new(serde_json::from_value(merged(base, over)).unwrap())
}

fn observed(volumes: Vec<Arc<PersistentVolume>>) -> Observed {
    Observed {
        volumes,
        classes: vec![],
        nodes: vec![],
        now: Timestamp::UNIX_EPOCH,
        provisions: true,
    }
}

fn with_class(mut observed: Observed, over: Value) -> Observed {
    let base = json!({"metadata": {"name": "standard"}, "provisioner": crate::PROVISIONER});
    observed.classes = vec![Arc::new(
        serde_json::from_value(merged(base, over)).unwrap(),
    )];
    observed
}

/// The outcome of a binding: the claim and the volume at the end of all changes.
fn bound(changes: &[Change]) -> (PersistentVolume, PersistentVolumeClaim) {
    let mut volume = None;
    let mut claim = None;
    for change in changes {
        match change {
            Change::Volume(v) | Change::VolumeStatus(v) => volume = Some(v.as_ref().clone()),
            Change::Claim(c) | Change::ClaimStatus(c) => claim = Some(c.as_ref().clone()),
            other => panic!("unexpected {other:?}"),
        }
    }
    (volume.expect("a volume"), claim.expect("a claim"))
}

fn chosen(claim: &Arc<PersistentVolumeClaim>, volumes: Vec<Arc<PersistentVolume>>) -> String {
    bound(&plan::claim(claim, &observed(volumes)))
        .0
        .metadata
        .name
        .unwrap()
}

#[test]
fn a_claim_and_a_volume_are_tied_in_one_step() {
    let volumes = vec![volume("pv", "10Gi", json!({}))];
    let (volume, claim) = bound(&plan::claim(&claim(json!({})), &observed(volumes)));
    let reference = volume.spec.unwrap().claim_ref.unwrap();
    assert_eq!(
        (reference.name.as_deref(), reference.uid.as_deref()),
        (Some("c"), Some("claim"))
    );
    assert_eq!(
        volume.metadata.annotations.unwrap()[BOUND_BY_CONTROLLER],
        "yes"
    );
    assert_eq!(volume.status.unwrap().phase.as_deref(), Some("Bound"));
    let annotations = claim.metadata.annotations.unwrap();
    assert_eq!(
        (
            &*annotations[BIND_COMPLETED],
            &*annotations[BOUND_BY_CONTROLLER]
        ),
        ("yes", "yes")
    );
    assert_eq!(claim.spec.unwrap().volume_name.as_deref(), Some("pv"));
    let status = claim.status.unwrap();
    assert_eq!(
        (
            status.phase.as_deref(),
            &*status.capacity.unwrap()["storage"].0
        ),
        (Some("Bound"), "10Gi")
    );
}

#[test]
fn the_smallest_volume_that_fits_is_taken_and_a_reserved_one_before_it() {
    let sizes = || {
        vec![
            volume("tiny", "1Gi", json!({})),
            volume("large", "50Gi", json!({})),
            volume("right", "4Gi", json!({})),
            volume(
                "other-class",
                "3Gi",
                json!({"spec": {"storageClassName": "x"}}),
            ),
            volume(
                "once",
                "3Gi",
                json!({"spec": {"accessModes": ["ReadWriteOnce"]}}),
            ),
            volume("block", "3Gi", json!({"spec": {"volumeMode": "Block"}})),
            volume(
                "taken",
                "3Gi",
                json!({"spec": {"claimRef": {"name": "d", "namespace": "n"}}}),
            ),
        ]
    };
    assert_eq!(chosen(&claim(json!({})), sizes()), "right");
    let reserved = json!({"spec": {"claimRef": {"name": "c", "namespace": "n"}}});
    let mut volumes = sizes();
    volumes.push(volume("mine", "90Gi", reserved));
    assert_eq!(chosen(&claim(json!({})), volumes), "mine");
    let selects = json!({"spec": {"selector": {"matchLabels": {"disk": "fast"}}}});
    let mut volumes = sizes();
    volumes.push(volume(
        "fast",
        "80Gi",
        json!({"metadata": {"labels": {"disk": "fast"}}}),
    ));
    assert_eq!(chosen(&claim(selects), volumes), "fast");
}

#[test]
fn a_volume_reserved_by_its_user_is_not_marked_as_chosen_by_us() {
    let reserved = json!({"spec": {"claimRef": {"name": "c", "namespace": "n"}}});
    let volumes = vec![volume("pv", "10Gi", reserved)];
    let (volume, _) = bound(&plan::claim(&claim(json!({})), &observed(volumes)));
    assert!(volume.metadata.annotations.is_none());
    assert_eq!(
        volume.spec.unwrap().claim_ref.unwrap().uid.as_deref(),
        Some("claim")
    );
}

#[test]
fn a_claim_that_names_its_volume_gets_that_one_or_hears_why_not() {
    let named = claim(json!({"spec": {"volumeName": "pv"}}));
    assert_eq!(chosen(&named, vec![volume("pv", "10Gi", json!({}))]), "pv");
    let small = observed(vec![volume("pv", "1Gi", json!({}))]);
    let changes = plan::claim(&named, &small);
    let [
        Change::Warning {
            reason: "VolumeMismatch",
            message,
        },
    ] = changes.as_slice()
    else {
        panic!("a warning, not {changes:?}")
    };
    assert!(message.contains("too small"), "{message}");
    assert!(
        plan::claim(&named, &observed(vec![])).is_empty(),
        "it waits"
    );
}

#[test]
fn without_any_volume_the_claim_says_what_it_waits_for() {
    let reason = |changes: &[Change]| match changes {
        [Change::Normal { reason, .. } | Change::Warning { reason, .. }] => *reason,
        other => panic!("one event, not {other:?}"),
    };
    let none = claim(json!({"spec": {"storageClassName": ""}}));
    assert_eq!(
        reason(&plan::claim(&none, &observed(vec![]))),
        "FailedBinding"
    );
    let unknown = claim(json!({}));
    assert_eq!(
        reason(&plan::claim(&unknown, &observed(vec![]))),
        "ProvisioningFailed"
    );
    let late = with_class(
        observed(vec![]),
        json!({"volumeBindingMode": "WaitForFirstConsumer"}),
    );
    let waits = claim(json!({"spec": {"storageClassName": "standard"}}));
    assert_eq!(reason(&plan::claim(&waits, &late)), "WaitForFirstConsumer");
    let chosen = claim(json!({"spec": {"storageClassName": "standard"},
        "metadata": {"annotations": {SELECTED_NODE: "one"}}}));
    assert!(matches!(
        plan::claim(&chosen, &late)[..],
        [Change::Claim(_)]
    ));
}

#[test]
fn a_class_of_ours_provisions_after_saying_who_does() {
    let observed = with_class(observed(vec![]), json!({}));
    let first = plan::claim(
        &claim(json!({"spec": {"storageClassName": "standard"}})),
        &observed,
    );
    let [Change::Claim(annotated)] = first.as_slice() else {
        panic!("the claim first")
    };
    let second = plan::claim(&Arc::new(annotated.as_ref().clone()), &observed);
    assert!(matches!(second[..], [Change::Provision(_)]));
}

#[test]
fn a_claim_without_a_class_gets_the_default_one() {
    let marked = json!({"metadata": {"annotations": {super::IS_DEFAULT_CLASS: "true"}}});
    let observed = with_class(observed(vec![]), marked);
    let mut free = claim(json!({})).as_ref().clone();
    free.spec.as_mut().unwrap().storage_class_name = None;
    let changes = plan::claim(&Arc::new(free), &observed);
    let [Change::Claim(updated)] = changes.as_slice() else {
        panic!("the claim")
    };
    assert_eq!(
        updated.spec.as_ref().unwrap().storage_class_name.as_deref(),
        Some("standard")
    );
}

#[test]
fn a_bound_claim_whose_volume_is_gone_is_lost() {
    let was = claim(json!({"metadata": {"annotations": {BIND_COMPLETED: "yes"}},
        "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}));
    let changes = plan::claim(&was, &observed(vec![]));
    let [
        Change::ClaimStatus(lost),
        Change::Warning {
            reason: "ClaimLost",
            ..
        },
    ] = changes.as_slice()
    else {
        panic!("lost, not {changes:?}")
    };
    assert_eq!(lost.status.as_ref().unwrap().phase.as_deref(), Some("Lost"));
}

fn tied(policy: &str, over: Value) -> Arc<PersistentVolume> {
    let base = json!({"spec": {"persistentVolumeReclaimPolicy": policy,
        "claimRef": {"name": "c", "namespace": "n", "uid": "claim"}}, "status": {"phase": "Bound"}});
    volume("pv", "10Gi", merged(base, over))
}

fn phase(changes: &[Change]) -> &str {
    match &changes[0] {
        Change::VolumeStatus(volume) => volume.status.as_ref().unwrap().phase.as_deref().unwrap(),
        other => panic!("a status, not {other:?}"),
    }
}

#[test]
fn a_volume_whose_claim_is_gone_is_released_and_follows_its_policy() {
    let observed = observed(vec![]);
    let kept = plan::volume(&tied("Retain", json!({})), None, &observed);
    assert_eq!((phase(&kept), kept.len()), ("Released", 1));
    // Another claim of the same name is not the one it was tied to.
    let other = claim(json!({"metadata": {"uid": "other"}}));
    assert_eq!(
        phase(&plan::volume(
            &tied("Retain", json!({})),
            Some(&other),
            &observed
        )),
        "Released"
    );
    let ours = json!({"metadata": {"annotations": {PROVISIONED_BY: crate::PROVISIONER}},
        "status": {"phase": "Released"}});
    assert_eq!(
        plan::volume(&tied("Delete", ours), None, &observed),
        [Change::DeleteVolume]
    );
    let by_hand = plan::volume(&tied("Delete", json!({})), None, &observed);
    assert_eq!(phase(&by_hand), "Failed");
}

#[test]
fn a_volume_with_its_claim_is_left_alone() {
    let holder = claim(json!({"spec": {"volumeName": "pv"}}));
    assert!(plan::volume(&tied("Delete", json!({})), Some(&holder), &observed(vec![])).is_empty());
}

#[test]
fn the_finalizer_stays_while_a_placed_unfinished_pod_uses_the_claim() {
    let pod = |node: Value, phase: &str| -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"nodeName": node, "containers": [], "volumes": [
                {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]},
            "status": {"phase": phase},
        }))
        .unwrap()
    };
    use super::protection::{CLAIM_FINALIZER, protect, uses};
    assert!(uses(&pod(json!("one"), "Running"), "c"));
    assert!(!uses(&pod(json!("one"), "Running"), "d"));
    assert!(!uses(&pod(json!("one"), "Succeeded"), "c"));
    assert!(!uses(&pod(Value::Null, "Pending"), "c"));
    let mut metadata = claim(json!({})).metadata.clone();
    let added = protect(&metadata, CLAIM_FINALIZER, false).expect("it is added");
    metadata.finalizers = added.finalizers;
    assert_eq!(protect(&metadata, CLAIM_FINALIZER, false), None);
    metadata.deletion_timestamp = Some(crate::meta::whole_seconds(Timestamp::UNIX_EPOCH));
    assert_eq!(protect(&metadata, CLAIM_FINALIZER, true), None);
    let free = protect(&metadata, CLAIM_FINALIZER, false).expect("it is removed");
    assert_eq!(free.finalizers.as_deref(), Some(&[][..]));
}
