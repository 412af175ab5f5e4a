//! `metadata`: its rules at create and update, and what a client cannot change.

use serde_json::{Value, json};

use crate::content;
use crate::field::{Error, ErrorList, Path};
use crate::tree;

const ANNOTATIONS_LIMIT: usize = 256 * 1024;
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// Drops what an encoder would not write: nulls, empty maps and lists in metadata.
pub fn tidy(object: &mut Value) {
    let metadata = tree::child(object, "metadata");
    tree::object(metadata).retain(|_, value| match value {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    });
    for reference in tree::list_mut(metadata, "ownerReferences") {
        for key in ["apiVersion", "kind", "name", "uid"] {
            tree::set_default(reference, key, "");
        }
    }
}

/// Carries the fields over that no update changes. `resourceVersion` stays as the client sent it.
pub fn keep_system_fields(new: &mut Value, old: &Value) {
    let metadata = tree::child(new, "metadata");
    if tree::text(metadata, "uid").is_empty() {
        tree::put(metadata, "uid", tree::get(old, "metadata.uid").cloned());
    }
    for key in ["creationTimestamp", "deletionTimestamp"] {
        tree::put(
            metadata,
            key,
            tree::get(old, &format!("metadata.{key}")).cloned(),
        );
    }
    let grace = tree::get(old, "metadata.deletionGracePeriodSeconds").cloned();
    if grace.is_some() && tree::get(metadata, "deletionGracePeriodSeconds").is_none() {
        tree::put(metadata, "deletionGracePeriodSeconds", grace);
    }
    for key in ["namespace", "name"] {
        if tree::text(metadata, key).is_empty() {
            tree::put(
                metadata,
                key,
                tree::get(old, &format!("metadata.{key}")).cloned(),
            );
        }
    }
}

/// What of metadata the status endpoint leaves alone: everything for custom resources, owners
/// for all.
pub fn keep_for_status(new: &mut Value, old: &Value, custom: bool) {
    let old_metadata = old.get("metadata").cloned().unwrap_or_else(|| json!({}));
    let metadata = tree::child(new, "metadata");
    if custom {
        let carried = ["managedFields", "resourceVersion"].map(|key| metadata.get(key).cloned());
        *metadata = old_metadata;
        for (key, value) in ["managedFields", "resourceVersion"]
            .into_iter()
            .zip(carried)
        {
            tree::put(metadata, key, value);
        }
        return;
    }
    tree::put(
        metadata,
        "ownerReferences",
        old_metadata.get("ownerReferences").cloned(),
    );
}

/// The errors of an object's metadata under its kind's name rule.
pub fn validate(
    object: &Value,
    namespaced: bool,
    name_rule: fn(&str, bool) -> Vec<String>,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let empty = json!({});
    let metadata = object.get("metadata").unwrap_or(&empty);
    let prefix = tree::text(metadata, "generateName");
    if !prefix.is_empty() {
        for message in name_rule(prefix, true) {
            errors.push(Error::invalid(&path.child("generateName"), prefix, message));
        }
    }
    let name = tree::text(metadata, "name");
    if name.is_empty() {
        errors.push(Error::required(
            &path.child("name"),
            "name or generateName is required",
        ));
    } else {
        for message in name_rule(name, false) {
            errors.push(Error::invalid(&path.child("name"), name, message));
        }
    }
    let namespace = tree::text(metadata, "namespace");
    let at = path.child("namespace");
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.push(Error::required(&at, "")),
        (true, false) => {
            for message in content::dns1123_label(namespace) {
                errors.push(Error::invalid(&at, namespace, message));
            }
        }
        (false, false) => errors.push(Error::forbidden(&at, "not allowed on this type")),
        (false, true) => {}
    }
    errors.extend(non_negative(metadata, "generation", path));
    errors.extend(labels(tree::get(metadata, "labels"), &path.child("labels")));
    errors.extend(annotations(
        tree::get(metadata, "annotations"),
        &path.child("annotations"),
    ));
    errors.extend(owners(
        tree::list(metadata, "ownerReferences"),
        &path.child("ownerReferences"),
    ));
    errors.extend(finalizers(
        &tree::words(metadata, "finalizers"),
        &path.child("finalizers"),
    ));
    errors
}

/// As [`validate`] with the weakest name rule: what the generic layer checks of every object.
pub fn validate_common(object: &Value, namespaced: bool) -> ErrorList {
    validate(
        object,
        namespaced,
        content::name_is_path_segment,
        &Path::new("metadata"),
    )
}

/// Short finalizer names must be Kubernetes' own; custom resources are free.
pub fn validate_kube_finalizers(object: &Value) -> ErrorList {
    let path = Path::new("metadata.finalizers");
    let mut errors = ErrorList::new();
    for (i, name) in tree::words(object, "metadata.finalizers")
        .into_iter()
        .enumerate()
    {
        if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(Error::invalid(&path.index(i), name, detail));
        }
    }
    errors
}

/// The errors of a change of metadata.
pub fn validate_update(new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("metadata");
    if tree::get(old, "metadata.deletionTimestamp").is_some() {
        let had = tree::words(old, "metadata.finalizers");
        let added: Vec<String> = tree::words(new, "metadata.finalizers")
            .into_iter()
            .filter(|name| !had.contains(name))
            .map(crate::field::quote)
            .collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.push(Error::forbidden(&path.child("finalizers"), detail));
        }
    }
    if tree::text(new, "metadata.resourceVersion").is_empty() {
        let at = path.child("resourceVersion");
        errors.push(Error::invalid(&at, "", "must be specified for an update"));
    }
    let generation = |object| tree::int(object, "metadata.generation").unwrap_or(0);
    if generation(new) < generation(old) {
        let at = path.child("generation");
        errors.push(Error::invalid(
            &at,
            generation(new),
            "must not be decremented",
        ));
    }
    for key in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        errors.extend(immutable(new, old, &format!("metadata.{key}")));
    }
    errors.extend(labels(
        tree::get(new, "metadata.labels"),
        &path.child("labels"),
    ));
    errors.extend(annotations(
        tree::get(new, "metadata.annotations"),
        &path.child("annotations"),
    ));
    errors.extend(owners(
        tree::list(new, "metadata.ownerReferences"),
        &path.child("ownerReferences"),
    ));
    errors
}

/// `field is immutable`, if the values under a dotted path differ.
pub fn immutable(new: &Value, old: &Value, path: &str) -> ErrorList {
    if tree::same(new, old, path) {
        return ErrorList::new();
    }
    let value = match (tree::get(new, path), tree::get(old, path)) {
        (Some(value), _) => value.clone(),
        (None, Some(Value::String(_))) => json!(""),
        (None, _) => Value::Null,
    };
    Error::invalid(&Path::new(path), value, "field is immutable").into()
}

/// The errors of a label map.
pub fn labels(map: Option<&Value>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (key, value) in map.and_then(Value::as_object).into_iter().flatten() {
        for message in content::qualified_name(key) {
            errors.push(Error::invalid(path, key.as_str(), message));
        }
        let value = value.as_str().unwrap_or("");
        for message in content::label_value(value) {
            errors.push(Error::invalid(path, value, message));
        }
    }
    errors
}

/// The errors of an annotation map.
pub fn annotations(map: Option<&Value>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut size = 0;
    for (key, value) in map.and_then(Value::as_object).into_iter().flatten() {
        for message in content::qualified_name(&key.to_lowercase()) {
            errors.push(Error::invalid(path, key.as_str(), message));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_LIMIT {
        errors.push(Error::too_long(path, ANNOTATIONS_LIMIT));
    }
    errors
}

fn owners(references: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut controller: Option<String> = None;
    for reference in references {
        let api_version = tree::text(reference, "apiVersion");
        let version = api_version.rsplit('/').next().unwrap_or("");
        if version.is_empty() {
            let at = path.child("apiVersion");
            errors.push(Error::invalid(
                &at,
                api_version,
                "version must not be empty",
            ));
        }
        for key in ["kind", "name", "uid"] {
            if tree::text(reference, key).is_empty() {
                errors.push(Error::invalid(&path.child(key), "", "must not be empty"));
            }
        }
        if api_version == "v1" && tree::text(reference, "kind") == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(Error::invalid(path, reference.clone(), detail));
        }
        if tree::truthy(reference, "controller") {
            let this = format!(
                "{}/{}",
                tree::text(reference, "kind"),
                tree::text(reference, "name")
            );
            match &controller {
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in \
                         references for {first} and {this}"
                    );
                    errors.push(Error::invalid(path, references.to_vec(), detail));
                }
                None => controller = Some(this),
            }
        }
    }
    errors
}

fn finalizers(names: &[&str], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for name in names {
        for message in content::qualified_name(name) {
            errors.push(Error::invalid(path, *name, message));
        }
    }
    if names.contains(&"orphan") && names.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(Error::invalid(path, names.to_vec(), detail));
    }
    errors
}

/// `must be greater than or equal to 0` for the integer member `key`.
pub fn non_negative(object: &Value, key: &str, path: &Path) -> ErrorList {
    match tree::int(object, key) {
        Some(value) if value < 0 => Error::invalid(
            &path.child(key),
            value,
            "must be greater than or equal to 0",
        )
        .into(),
        _ => ErrorList::new(),
    }
}
