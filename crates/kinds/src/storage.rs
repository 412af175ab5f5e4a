//! Kinds of storage.k8s.io.

use serde_json::{Value, json};

use crate::content;
use crate::core::pod::validate::one_of;
use crate::core::pod::volumes::required;
use crate::field::{Error, ErrorList, Path};
use crate::kind::{Generation, Strategy};
use crate::tree::{self, set_default, set_default_text};
use crate::{meta, table};

pub use crate::table::storage::is_default_class;

pub(crate) const STORAGE_CLASS: Strategy = Strategy {
    default: |class| {
        set_default_text(class, "reclaimPolicy", "Delete");
        set_default_text(class, "volumeBindingMode", "Immediate");
    },
    validate: |_, class| storage_class(class),
    validate_update: |_, new, old| storage_class_update(new, old),
    row: Some(table::storage::storage_class),
    ..Strategy::GENERIC
};

pub(crate) const CSI_DRIVER: Strategy = Strategy {
    default: |driver| {
        let spec = tree::child(driver, "spec");
        set_default(spec, "attachRequired", true);
        set_default(spec, "podInfoOnMount", false);
        set_default(spec, "storageCapacity", false);
        set_default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        set_default(spec, "requiresRepublish", false);
        set_default(spec, "seLinuxMount", false);
        set_default(spec, "volumeLifecycleModes", json!(["Persistent"]));
    },
    row: Some(table::storage::csi_driver),
    generation: Generation::Spec,
    unconditional_update: false,
    ..Strategy::GENERIC
};

pub(crate) const CSI_NODE: Strategy = Strategy {
    default: |node| {
        tree::object(tree::child(node, "spec"))
            .entry("drivers")
            .or_insert(Value::Null);
    },
    row: Some(table::storage::csi_node),
    unconditional_update: false,
    ..Strategy::GENERIC
};

pub(crate) const VOLUME_ATTACHMENT: Strategy = Strategy {
    validate: |_, object| {
        let spec = tree::get(object, "spec")
            .cloned()
            .unwrap_or_else(|| json!({}));
        let path = Path::new("spec");
        let mut errors = required(&spec, "attacher", &path);
        errors.extend(required(&spec, "nodeName", &path));
        errors
    },
    validate_update: |_, new, old| meta::immutable(new, old, "spec"),
    row: Some(table::storage::volume_attachment),
    empty_status: r#"{"attached":false}"#,
    has_status: true,
    unconditional_update: false,
    ..Strategy::GENERIC
};

pub(crate) const ATTRIBUTES_CLASS: Strategy = Strategy {
    validate: |_, object| required(object, "driverName", &Path::new("")),
    validate_update: |_, new, old| {
        let mut errors = meta::immutable(new, old, "driverName");
        errors.extend(meta::immutable(new, old, "parameters"));
        errors
    },
    row: Some(table::storage::attributes_class),
    ..Strategy::GENERIC
};

fn storage_class(class: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let provisioner = tree::text(class, "provisioner");
    let at = Path::new("provisioner");
    if provisioner.is_empty() {
        errors.push(Error::required(&at, ""));
    } else {
        for message in content::qualified_name(&provisioner.to_lowercase()) {
            errors.push(Error::invalid(&at, provisioner, message));
        }
    }
    for key in tree::map(class, "parameters")
        .into_iter()
        .flat_map(serde_json::Map::keys)
    {
        if key.is_empty() {
            let detail = "field can not be empty.";
            errors.push(Error::invalid(&Path::new("parameters"), "", detail));
        }
    }
    let root = Path::new("");
    errors.extend(one_of(class, "reclaimPolicy", &root, &["Delete", "Retain"]));
    let modes = ["Immediate", "WaitForFirstConsumer"];
    errors.extend(one_of(class, "volumeBindingMode", &root, &modes));
    errors
}

fn storage_class_update(new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in ["parameters", "provisioner", "reclaimPolicy"] {
        if !tree::same(new, old, key) {
            let detail = format!("updates to {key} are forbidden.");
            errors.push(Error::forbidden(&Path::new(key), detail));
        }
    }
    errors.extend(meta::immutable(new, old, "volumeBindingMode"));
    errors
}
