//! Defaults of the apps kinds.

use serde_json::{Value, json};

use crate::core::pod;
use crate::core::volume;
use crate::tree::{self, set_default, set_default_text};

fn template(object: &mut Value) {
    pod::defaults::template(tree::child(tree::child(object, "spec"), "template"));
}

pub(super) fn deployment(object: &mut Value) {
    template(object);
    let spec = tree::child(object, "spec");
    set_default(spec, "replicas", 1);
    let strategy = tree::child(spec, "strategy");
    set_default_text(strategy, "type", "RollingUpdate");
    if tree::text(strategy, "type") == "RollingUpdate" {
        let rolling = tree::child(strategy, "rollingUpdate");
        set_default(rolling, "maxUnavailable", "25%");
        set_default(rolling, "maxSurge", "25%");
    }
    set_default(spec, "revisionHistoryLimit", 10);
    set_default(spec, "progressDeadlineSeconds", 600);
    drop_zero(spec, "minReadySeconds");
    if tree::get(spec, "paused") == Some(&json!(false)) {
        tree::remove(spec, "paused");
    }
}

fn drop_zero(object: &mut Value, key: &str) {
    if tree::int(object, key) == Some(0) {
        tree::remove(object, key);
    }
}

pub(super) fn replica_set(object: &mut Value) {
    template(object);
    let spec = tree::child(object, "spec");
    set_default(spec, "replicas", 1);
    drop_zero(spec, "minReadySeconds");
    set_default(tree::child(object, "status"), "replicas", 0);
}

pub(super) fn replication_controller(object: &mut Value) {
    replica_set(object);
    let labels = tree::get(object, "spec.template.metadata.labels").cloned();
    let Some(labels) = labels else { return };
    set_default(tree::child(object, "spec"), "selector", labels.clone());
    set_default(tree::child(object, "metadata"), "labels", labels);
}

pub(super) fn stateful_set(object: &mut Value) {
    template(object);
    let spec = tree::child(object, "spec");
    set_default_text(spec, "podManagementPolicy", "OrderedReady");
    set_default(spec, "serviceName", "");
    let strategy = tree::child(spec, "updateStrategy");
    set_default_text(strategy, "type", "RollingUpdate");
    if tree::text(strategy, "type") == "RollingUpdate" {
        set_default(tree::child(strategy, "rollingUpdate"), "partition", 0);
    }
    let retention = tree::child(spec, "persistentVolumeClaimRetentionPolicy");
    set_default_text(retention, "whenDeleted", "Retain");
    set_default_text(retention, "whenScaled", "Retain");
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    drop_zero(spec, "minReadySeconds");
    for claim in tree::list_mut(spec, "volumeClaimTemplates") {
        set_default(claim, "kind", "PersistentVolumeClaim");
        set_default(claim, "apiVersion", "v1");
        tree::child(claim, "metadata");
        volume::claim_spec_defaults(tree::child(claim, "spec"));
        set_default_text(tree::child(claim, "status"), "phase", "Pending");
    }
    let status = tree::child(object, "status");
    for key in ["replicas", "availableReplicas"] {
        set_default(status, key, 0);
    }
}

pub(super) fn daemon_set(object: &mut Value) {
    template(object);
    let spec = tree::child(object, "spec");
    let strategy = tree::child(spec, "updateStrategy");
    set_default_text(strategy, "type", "RollingUpdate");
    if tree::text(strategy, "type") == "RollingUpdate" {
        let rolling = tree::child(strategy, "rollingUpdate");
        set_default(rolling, "maxUnavailable", 1);
        set_default(rolling, "maxSurge", 0);
    }
    set_default(spec, "revisionHistoryLimit", 10);
    drop_zero(spec, "minReadySeconds");
    let status = tree::child(object, "status");
    for key in [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
    ] {
        set_default(status, key, 0);
    }
}
