//! Namespaces.

use serde_json::{Value, json};

use crate::content;
use crate::ctx::Ctx;
use crate::field::{Error, ErrorList, Path};
use crate::kind::Strategy;
use crate::selector::Fields;
use crate::{table, tree};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";

pub(crate) const STRATEGY: Strategy = Strategy {
    default: defaults,
    prepare_create,
    prepare_update: |_, new, old| {
        let finalizers = tree::get(old, "spec.finalizers").cloned();
        tree::put(tree::child(new, "spec"), "finalizers", finalizers);
    },
    validate_status,
    name: content::name_is_dns_label,
    row: Some(table::config::namespace),
    fields: &Fields::with(&["metadata.name", "status.phase"]),
    empty_status: "{}",
    has_status: true,
    ..Strategy::GENERIC
};

fn defaults(namespace: &mut Value) {
    tree::child(namespace, "spec");
    label(namespace);
}

/// Every namespace carries its name as a label.
fn label(namespace: &mut Value) {
    let name = tree::text(namespace, "metadata.name").to_owned();
    if !name.is_empty() {
        tree::child(tree::child(namespace, "metadata"), "labels")[NAME_LABEL] = json!(name);
    }
}

fn prepare_create(_: &Ctx, namespace: &mut Value) {
    label(namespace);
    namespace["status"] = json!({"phase": "Active"});
    let mut finalizers = tree::words(namespace, "spec.finalizers");
    if !finalizers.contains(&FINALIZER) {
        finalizers.push(FINALIZER);
    }
    let finalizers = json!(finalizers);
    tree::child(namespace, "spec")["finalizers"] = finalizers;
}

fn validate_status(_: &Ctx, new: &Value, _: &Value) -> ErrorList {
    let phase = tree::text(new, "status.phase");
    let deleting = tree::get(new, "metadata.deletionTimestamp").is_some();
    let detail = match (deleting, phase) {
        (false, "Active") | (true, "Terminating") => return ErrorList::new(),
        (false, _) => "may only be 'Active' if `deletionTimestamp` is empty",
        (true, _) => "may only be 'Terminating' if `deletionTimestamp` is not empty",
    };
    Error::invalid(&Path::new("status.Phase"), phase, detail).into()
}

/// The namespace after a PUT to `finalize`: only `spec.finalizers` changes.
pub fn finalized(new: &Value, old: &Value) -> Value {
    let mut namespace = old.clone();
    let finalizers = tree::get(new, "spec.finalizers").cloned();
    let keep = finalizers.filter(|list| list.as_array().is_none_or(|list| !list.is_empty()));
    tree::put(tree::child(&mut namespace, "spec"), "finalizers", keep);
    namespace
}
