//! Rows of volumes, claims, storage classes and the CSI kinds.

use serde_json::{Value, json};

use crate::ctx::Ctx;
use crate::table::{age, name, text_or};
use crate::tree;

/// `RWO,ROX,RWX,RWOP`, each that is there, in this order.
pub(crate) fn access_modes(modes: &[&str]) -> String {
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let present: Vec<&str> = short
        .iter()
        .filter(|(long, _)| modes.contains(long))
        .map(|(_, short)| *short)
        .collect();
    present.join(",")
}

fn phase(object: &Value) -> &str {
    if tree::get(object, "metadata.deletionTimestamp").is_some() {
        return "Terminating";
    }
    tree::text(object, "status.phase")
}

fn class(object: &Value) -> &str {
    let annotated = object
        .pointer("/metadata/annotations/volume.beta.kubernetes.io~1storage-class")
        .and_then(Value::as_str);
    annotated.unwrap_or_else(|| tree::text(object, "spec.storageClassName"))
}

pub(crate) fn volume(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let claim = tree::get(object, "spec.claimRef").map_or_else(String::new, |claim| {
        format!(
            "{}/{}",
            tree::text(claim, "namespace"),
            tree::text(claim, "name")
        )
    });
    vec![
        name(object),
        json!(text_or(object, "spec.capacity.storage", "0")),
        json!(access_modes(&tree::words(object, "spec.accessModes"))),
        json!(tree::text(object, "spec.persistentVolumeReclaimPolicy")),
        json!(phase(object)),
        json!(claim),
        json!(class(object)),
        json!(text_or(object, "spec.volumeAttributesClassName", "<unset>")),
        json!(tree::text(object, "status.reason")),
        age(ctx, object),
        json!(text_or(object, "spec.volumeMode", "<unset>")),
    ]
}

pub(crate) fn claim(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let volume = tree::text(object, "spec.volumeName");
    let (capacity, modes) = if volume.is_empty() {
        ("", String::new())
    } else {
        let modes = access_modes(&tree::words(object, "status.accessModes"));
        (text_or(object, "status.capacity.storage", "0"), modes)
    };
    vec![
        name(object),
        json!(phase(object)),
        json!(volume),
        json!(capacity),
        json!(modes),
        json!(class(object)),
        json!(text_or(object, "spec.volumeAttributesClassName", "<unset>")),
        age(ctx, object),
        json!(text_or(object, "spec.volumeMode", "<unset>")),
    ]
}

/// Whether an annotation makes a StorageClass the default one.
pub fn is_default_class(object: &Value) -> bool {
    [
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ]
    .iter()
    .any(|key| {
        tree::map(object, "metadata.annotations")
            .and_then(|annotations| annotations.get(*key))
            .is_some_and(|value| value == "true")
    })
}

pub(crate) fn storage_class(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let mut shown = tree::text(object, "metadata.name").to_owned();
    if is_default_class(object) {
        shown.push_str(" (default)");
    }
    vec![
        json!(shown),
        json!(tree::text(object, "provisioner")),
        json!(text_or(object, "reclaimPolicy", "Delete")),
        json!(text_or(object, "volumeBindingMode", "Immediate")),
        json!(tree::truthy(object, "allowVolumeExpansion")),
        age(ctx, object),
    ]
}

pub(crate) fn csi_driver(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let flag = |path: &str, fallback: bool| {
        json!(
            tree::get(object, path)
                .and_then(Value::as_bool)
                .unwrap_or(fallback)
        )
    };
    let listed = |texts: Vec<&str>| {
        json!(if texts.is_empty() {
            "<unset>".to_owned()
        } else {
            texts.join(",")
        })
    };
    let audiences = tree::list(object, "spec.tokenRequests")
        .iter()
        .map(|t| tree::text(t, "audience"))
        .collect();
    vec![
        name(object),
        flag("spec.attachRequired", true),
        flag("spec.podInfoOnMount", false),
        flag("spec.storageCapacity", false),
        listed(audiences),
        flag("spec.requiresRepublish", false),
        listed(tree::words(object, "spec.volumeLifecycleModes")),
        age(ctx, object),
    ]
}

pub(crate) fn csi_node(ctx: &Ctx, object: &Value) -> Vec<Value> {
    vec![
        name(object),
        json!(tree::list(object, "spec.drivers").len()),
        age(ctx, object),
    ]
}

pub(crate) fn volume_attachment(ctx: &Ctx, object: &Value) -> Vec<Value> {
    vec![
        name(object),
        json!(tree::text(object, "spec.attacher")),
        json!(tree::text(object, "spec.source.persistentVolumeName")),
        json!(tree::text(object, "spec.nodeName")),
        json!(tree::truthy(object, "status.attached")),
        age(ctx, object),
    ]
}

pub(crate) fn attributes_class(ctx: &Ctx, object: &Value) -> Vec<Value> {
    vec![
        name(object),
        json!(tree::text(object, "driverName")),
        age(ctx, object),
    ]
}
