//! Nodes.

use serde_json::Value;

use crate::content;
use crate::ctx::Ctx;
use crate::field::{Error, ErrorList, Path};
use crate::kind::Strategy;
use crate::selector::Fields;
use crate::{quantity, table, tree};

pub(crate) const STRATEGY: Strategy = Strategy {
    default: defaults,
    validate: |_, node| validate(node),
    validate_update,
    row: Some(table::core::node),
    fields: &Fields {
        zero: &[("spec.unschedulable", "false")],
        ..Fields::with(&["metadata.name", "spec.unschedulable"])
    },
    has_status: true,
    status_on_create: true,
    ..Strategy::GENERIC
};

fn defaults(node: &mut Value) {
    tree::child(node, "spec");
    let status = tree::child(node, "status");
    let endpoint = tree::child(tree::child(status, "daemonEndpoints"), "kubeletEndpoint");
    tree::set_default(endpoint, "Port", 0);
    let info = tree::child(status, "nodeInfo");
    for key in [
        "machineID",
        "systemUUID",
        "bootID",
        "kernelVersion",
        "osImage",
        "containerRuntimeVersion",
        "kubeletVersion",
        "kubeProxyVersion",
        "operatingSystem",
        "architecture",
    ] {
        tree::set_default(info, key, "");
    }
    let capacity = tree::get(status, "capacity").cloned();
    if let Some(capacity) = capacity {
        tree::set_default(status, "allocatable", capacity);
    }
    quantity::canonicalise_map(status, "capacity");
    quantity::canonicalise_map(status, "allocatable");
}

fn validate(node: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let mut seen = Vec::new();
    for (i, taint) in tree::list(node, "spec.taints").iter().enumerate() {
        let path = path.child("taints").index(i);
        let text = |key| tree::text(taint, key);
        for message in content::qualified_name(text("key")) {
            errors.push(Error::invalid(&path.child("key"), text("key"), message));
        }
        let complaints = content::label_value(text("value"));
        if !complaints.is_empty() {
            errors.push(Error::invalid(
                &path.child("value"),
                text("value"),
                complaints.join(";"),
            ));
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        match text("effect") {
            "" => errors.push(Error::required(&path.child("effect"), "")),
            effect if !effects.contains(&effect) => {
                errors.push(Error::not_supported(
                    &path.child("effect"),
                    effect,
                    &effects,
                ));
            }
            _ => {}
        }
        let unique = (text("key"), text("effect"));
        if seen.contains(&unique) {
            let mut error = Error::duplicate(&path, taint.clone());
            "taints must be unique by key and effect pair".clone_into(&mut error.detail);
            errors.push(error);
        }
        seen.push(unique);
    }
    errors
}

fn validate_update(_: &Ctx, new: &Value, old: &Value) -> ErrorList {
    let mut errors = validate(new);
    for key in ["podCIDR", "providerID"] {
        let path = format!("spec.{key}");
        if !tree::text(old, &path).is_empty() && !tree::same(new, old, &path) {
            let detail =
                "node updates may not change ".to_owned() + key + " except from \"\" to valid";
            errors.push(Error::forbidden(&Path::new(&path), detail));
        }
    }
    errors
}
