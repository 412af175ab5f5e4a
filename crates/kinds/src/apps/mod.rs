//! Kinds of the apps group, and the ReplicationController, which is one of them in all but name.

mod defaults;
pub mod scale;
mod validate;

use serde_json::{Value, json};

use crate::ctx::Ctx;
use crate::field::ErrorList;
use crate::kind::{Generation, Strategy};
use crate::{core, meta, table, tree};

pub(crate) use validate::{int_or_percent, selected};

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub(crate) const DEPLOYMENT: Strategy = Strategy {
    default: defaults::deployment,
    validate: |_, object| validate::deployment(object),
    validate_update: |_, new, old| {
        let mut errors = validate::deployment(new);
        errors.extend(meta::immutable(new, old, "spec.selector"));
        errors
    },
    validate_status: |_, new, _| validate::status_counts(new),
    row: Some(table::workload::deployment),
    empty_status: "{}",
    generation: Generation::Spec,
    has_status: true,
    warnings: |object, old| template_warnings(object, old, "spec.template"),
    ..Strategy::GENERIC
};

/// Warnings about a Pod template that is new or changed.
pub(crate) fn template_warnings(object: &Value, old: Option<&Value>, at: &str) -> Vec<String> {
    if old.is_some_and(|old| tree::same(object, old, at)) {
        return Vec::new();
    }
    core::pod::warnings::of(object, at)
}

pub(crate) const REPLICA_SET: Strategy = Strategy {
    default: defaults::replica_set,
    validate: |_, object| validate::replica_set(object),
    validate_update: |_, new, old| {
        let mut errors = validate::replica_set(new);
        errors.extend(meta::immutable(new, old, "spec.selector"));
        errors
    },
    validate_status: |_, new, _| validate::status_counts(new),
    row: Some(table::workload::replica_set),
    empty_status: r#"{"replicas":0}"#,
    fields: &crate::selector::Fields {
        zero: &[("status.replicas", "0")],
        ..crate::selector::Fields::with(&["metadata.name", "metadata.namespace", "status.replicas"])
    },
    ..DEPLOYMENT
};

pub(crate) const REPLICATION_CONTROLLER: Strategy = Strategy {
    default: defaults::replication_controller,
    validate: |_, object| validate::replication_controller(object),
    validate_update: |_, new, _| validate::replication_controller(new),
    row: Some(table::workload::replication_controller),
    ..REPLICA_SET
};

pub(crate) const STATEFUL_SET: Strategy = Strategy {
    default: defaults::stateful_set,
    validate: |_, object| validate::stateful_set(object),
    validate_update: |_, new, old| validate::stateful_set_update(new, old),
    row: Some(table::workload::stateful_set),
    empty_status: r#"{"replicas":0,"availableReplicas":0}"#,
    ..DEPLOYMENT
};

pub(crate) const DAEMON_SET: Strategy = Strategy {
    default: defaults::daemon_set,
    prepare_create: |_, object| set_template_generation(object, 1),
    prepare_update: daemon_set_update,
    validate: |_, object| validate::daemon_set(object),
    validate_update: |_, new, old| {
        let mut errors = validate::daemon_set(new);
        errors.extend(meta::immutable(new, old, "spec.selector"));
        errors
    },
    validate_status: |_: &Ctx, _, _| ErrorList::new(),
    row: Some(table::workload::daemon_set),
    empty_status: r#"{"currentNumberScheduled":0,"numberMisscheduled":0,"desiredNumberScheduled":0,"numberReady":0}"#,
    ..DEPLOYMENT
};

pub(crate) const CONTROLLER_REVISION: Strategy = Strategy {
    validate_update: |_, new, old| meta::immutable(new, old, "data"),
    row: Some(table::workload::controller_revision),
    ..Strategy::GENERIC
};

fn set_template_generation(object: &mut Value, generation: i64) {
    let annotations = tree::child(tree::child(object, "metadata"), "annotations");
    annotations[TEMPLATE_GENERATION] = json!(generation.to_string());
}

fn daemon_set_update(_: &Ctx, new: &mut Value, old: &Value) {
    let before = tree::map(old, "metadata.annotations")
        .and_then(|annotations| annotations.get(TEMPLATE_GENERATION))
        .and_then(Value::as_str)
        .and_then(|text| text.parse::<i64>().ok())
        .unwrap_or(1);
    let changed = !tree::same(new, old, "spec.template");
    set_template_generation(new, before + i64::from(changed));
}
