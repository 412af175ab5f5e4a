//! PersistentVolumes and PersistentVolumeClaims.

use serde_json::{Value, json};

use super::pod::validate::{formatted, one_of};
use super::pod::{affinity, defaults, volumes};
use crate::content;
use crate::ctx::Ctx;
use crate::field::{Error, ErrorList, Path};
use crate::kind::Strategy;
use crate::quantity::{self, Quantity};
use crate::selector::label;
use crate::{meta, table, tree};

const ACCESS_MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
/// Members of a PersistentVolume's spec that are not the volume's source.
const NOT_SOURCES: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

pub(crate) const VOLUME: Strategy = Strategy {
    default: volume_defaults,
    prepare_create: |ctx, volume| {
        add_finalizer(volume, "kubernetes.io/pv-protection");
        volume["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": ctx.now_text()});
    },
    prepare_status: volume_prepare_status,
    validate: |_, volume| validate_volume(volume),
    validate_update: validate_volume_update,
    row: Some(table::storage::volume),
    empty_status: "{}",
    has_status: true,
    ..Strategy::GENERIC
};

pub(crate) const CLAIM: Strategy = Strategy {
    default: |claim| {
        claim_spec_defaults(tree::child(claim, "spec"));
        quantity::canonicalise_map(claim, "status.capacity");
        tree::set_default_text(tree::child(claim, "status"), "phase", "Pending");
    },
    prepare_create: |_, claim| {
        add_finalizer(claim, "kubernetes.io/pvc-protection");
        claim["status"] = json!({"phase": "Pending"});
    },
    validate: |_, claim| validate_claim(claim),
    validate_update: validate_claim_update,
    row: Some(table::storage::claim),
    empty_status: "{}",
    has_status: true,
    ..Strategy::GENERIC
};

fn add_finalizer(object: &mut Value, name: &str) {
    let mut finalizers = tree::words(object, "metadata.finalizers");
    if !finalizers.contains(&name) {
        finalizers.push(name);
    }
    let finalizers = json!(finalizers);
    tree::child(object, "metadata")["finalizers"] = finalizers;
}

fn volume_defaults(volume: &mut Value) {
    let spec = tree::child(volume, "spec");
    tree::set_default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    tree::set_default(spec, "volumeMode", "Filesystem");
    quantity::canonicalise_map(spec, "capacity");
    defaults::source_defaults(spec);
    let status = tree::child(volume, "status");
    tree::set_default_text(status, "phase", "Pending");
}

/// A phase that changed carries when.
fn volume_prepare_status(ctx: &Ctx, new: &mut Value, old: &Value) {
    let key = "lastPhaseTransitionTime";
    let changed = !tree::same(new, old, "status.phase");
    let status = tree::child(new, "status");
    if changed
        && tree::get(status, key)
            .is_none_or(|time| Some(time) == tree::get(old, &format!("status.{key}")))
    {
        status[key] = json!(ctx.now_text());
    }
}

/// Defaults of a claim's spec wherever it stands.
pub(crate) fn claim_spec_defaults(spec: &mut Value) {
    tree::set_default(spec, "volumeMode", "Filesystem");
    tree::child(spec, "resources");
    quantity::canonicalise_map(spec, "resources.requests");
    quantity::canonicalise_map(spec, "resources.limits");
    for key in ["accessModes"] {
        if tree::get(spec, key).is_some_and(|list| list == &json!([])) {
            tree::remove(spec, key);
        }
    }
}

fn access_modes(spec: &Value, path: &Path, missing: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let at = path.child("accessModes");
    let modes = tree::words(spec, "accessModes");
    if modes.is_empty() {
        errors.push(Error::required(&at, missing));
    }
    for mode in &modes {
        if !ACCESS_MODES.contains(mode) {
            errors.push(Error::not_supported(&at, *mode, &ACCESS_MODES));
        }
    }
    if modes.len() > 1 && modes.contains(&"ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(Error::forbidden(&at, detail));
    }
    errors
}

fn positive(value: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Ok(quantity) = Quantity::from_json(value) {
        if quantity.is_negative() {
            let detail = "must be greater than or equal to 0";
            errors.push(Error::invalid(path, quantity.to_string(), detail));
        }
        if quantity <= Quantity::ZERO {
            errors.push(Error::invalid(
                path,
                quantity.to_string(),
                "must be greater than zero",
            ));
        }
    }
    errors
}

fn validate_volume(volume: &Value) -> ErrorList {
    let path = Path::new("spec");
    let empty = json!({});
    let spec = tree::get(volume, "spec").unwrap_or(&empty);
    let mut errors = access_modes(spec, &path, "");
    let at = path.child("capacity");
    let capacity = tree::map(spec, "capacity");
    if capacity.is_none_or(serde_json::Map::is_empty) {
        errors.push(Error::required(&at, ""));
    }
    if !capacity.is_some_and(|map| map.len() == 1 && map.contains_key("storage")) {
        let value = tree::get(spec, "capacity").cloned().unwrap_or(Value::Null);
        errors.push(Error::not_supported(&at, value, &["storage"]));
    }
    for (name, value) in capacity.into_iter().flatten() {
        errors.extend(positive(value, &at.key(name)));
    }
    let policies = ["Delete", "Recycle", "Retain"];
    errors.extend(one_of(
        spec,
        "persistentVolumeReclaimPolicy",
        &path,
        &policies,
    ));
    if let Some(affinity) = tree::get(spec, "nodeAffinity") {
        let at = path.child("nodeAffinity");
        if let Some(selector) = tree::get(affinity, "required") {
            errors.extend(affinity::node_selector(selector, &at.child("required")));
        } else {
            let detail = "must specify required node constraints";
            errors.push(Error::required(&at.child("required"), detail));
        }
    }
    errors.extend(volume_sources(spec, &path));
    let host_path = tree::text(spec, "hostPath.path");
    let recycled = tree::text(spec, "persistentVolumeReclaimPolicy") == "Recycle";
    if recycled && !host_path.is_empty() && host_path.trim_matches('/').is_empty() {
        let at = path.child("persistentVolumeReclaimPolicy");
        errors.push(Error::forbidden(
            &at,
            "may not be 'recycle' for a hostPath mount of '/'",
        ));
    }
    errors.extend(formatted(
        spec,
        "storageClassName",
        &path,
        content::dns1123_subdomain,
    ));
    errors.extend(one_of(spec, "volumeMode", &path, &VOLUME_MODES));
    errors
}

fn volume_sources(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut count = 0;
    for (key, source) in spec.as_object().into_iter().flatten() {
        if NOT_SOURCES.contains(&key.as_str()) || source.is_null() {
            continue;
        }
        count += 1;
        let at = path.child(key);
        if count > 1 {
            errors.push(Error::forbidden(
                &at,
                "may not specify more than 1 volume type",
            ));
            continue;
        }
        errors.extend(volumes::source_errors(key, source, &at));
        if key == "local" && tree::get(spec, "nodeAffinity").is_none() {
            let at = Path::new("metadata.annotations");
            errors.push(Error::required(&at, "Local volume requires node affinity"));
        }
    }
    if count == 0 {
        errors.push(Error::required(path, "must specify a volume type"));
    }
    errors
}

fn validate_volume_update(_: &Ctx, new: &Value, old: &Value) -> ErrorList {
    let mut errors = validate_volume(new);
    let source = |volume: &Value| {
        let mut spec = tree::get(volume, "spec")
            .cloned()
            .unwrap_or_else(|| json!({}));
        for key in NOT_SOURCES {
            tree::remove(&mut spec, key);
        }
        spec
    };
    let (after, before) = (source(new), source(old));
    if !tree::alike(Some(&after), Some(&before)) {
        let detail = "spec.persistentvolumesource is immutable after creation\n".to_owned()
            + &format!("- {before}\n+ {after}");
        errors.push(Error::forbidden(
            &Path::new("spec.persistentvolumesource"),
            detail,
        ));
    }
    errors.extend(meta::immutable(new, old, "spec.volumeMode"));
    if tree::get(old, "spec.nodeAffinity").is_some() {
        errors.extend(meta::immutable(new, old, "spec.nodeAffinity"));
    }
    errors
}

fn validate_claim(claim: &Value) -> ErrorList {
    let empty = json!({});
    validate_claim_spec(
        tree::get(claim, "spec").unwrap_or(&empty),
        &Path::new("spec"),
    )
}

/// The errors of a claim's spec wherever it stands.
pub(crate) fn validate_claim_spec(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = access_modes(spec, path, "at least 1 access mode is required");
    if let Some(selector) = tree::get(spec, "selector") {
        errors.extend(label::validate_object(selector, &path.child("selector")));
    }
    let at = path.child("resources").key("storage");
    match tree::get(spec, "resources.requests.storage") {
        None => errors.push(Error::required(&at, "")),
        Some(value) => errors.extend(positive(value, &at)),
    }
    errors.extend(formatted(
        spec,
        "storageClassName",
        path,
        content::dns1123_subdomain,
    ));
    errors.extend(one_of(spec, "volumeMode", path, &VOLUME_MODES));
    errors
}

fn validate_claim_update(_: &Ctx, new: &Value, old: &Value) -> ErrorList {
    let mut errors = validate_claim(new);
    let spec = |claim: &Value| {
        tree::get(claim, "spec")
            .cloned()
            .unwrap_or_else(|| json!({}))
    };
    let (mut after, mut before) = (spec(new), spec(old));
    if tree::text(&before, "volumeName").is_empty() {
        tree::put(
            &mut before,
            "volumeName",
            tree::get(&after, "volumeName").cloned(),
        );
    }
    if tree::get(&before, "storageClassName").is_none() {
        tree::put(
            &mut before,
            "storageClassName",
            tree::get(&after, "storageClassName").cloned(),
        );
    }
    tree::put(
        &mut before,
        "volumeAttributesClassName",
        after.get("volumeAttributesClassName").cloned(),
    );
    let storage = |spec: &Value| {
        tree::get(spec, "resources.requests.storage").and_then(|v| Quantity::from_json(v).ok())
    };
    let at = Path::new("spec.resources.requests.storage");
    if tree::text(new, "status.phase") == "Bound" {
        let (wanted, had) = (storage(&after), storage(&before));
        let capacity = tree::get(old, "status.capacity.storage")
            .and_then(|value| Quantity::from_json(value).ok())
            .unwrap_or(Quantity::ZERO);
        if wanted < had && wanted.is_some_and(|wanted| wanted < capacity) {
            let detail = "field can not be less than status.capacity";
            errors.push(Error::forbidden(&at, detail));
        }
        let requests = tree::get(&before, "resources.requests").cloned();
        tree::put(tree::child(&mut after, "resources"), "requests", requests);
    }
    if !tree::alike(Some(&after), Some(&before)) {
        let detail = format!(
            "spec is immutable after creation except resources.requests and \
             volumeAttributesClassName for bound claims\n- {before}\n+ {after}"
        );
        errors.push(Error::forbidden(&Path::new("spec"), detail));
    }
    errors
}

/// Whether a new claim leaves the choice of StorageClass to the server.
pub fn wants_default_class(claim: &Value) -> bool {
    let annotated = tree::map(claim, "metadata.annotations")
        .is_some_and(|map| map.contains_key("volume.beta.kubernetes.io/storage-class"));
    tree::get(claim, "spec.storageClassName").is_none() && !annotated
}
