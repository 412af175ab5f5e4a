//! Validation of the volumes of a Pod and of the sources they share with PersistentVolumes.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::content;
use crate::field::{Error, ErrorList, Path};
use crate::quantity::Quantity;
use crate::tree;

const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// The names of the volumes that are in order, and the errors of the others.
pub(crate) fn validate<'a>(volumes: &'a [Value], path: &Path) -> (BTreeSet<&'a str>, ErrorList) {
    let (mut names, mut errors) = (BTreeSet::new(), ErrorList::new());
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        let mut found = sources(volume, &path, "name");
        let name = tree::text(volume, "name");
        let name_path = path.child("name");
        if name.is_empty() {
            found.push(Error::required(&name_path, ""));
        } else {
            for message in content::dns1123_label(name) {
                found.push(Error::invalid(&name_path, name, message));
            }
        }
        if names.contains(name) {
            found.push(Error::duplicate(&name_path, name));
        }
        if found.is_empty() {
            names.insert(name);
        } else {
            errors.extend(found);
        }
    }
    (names, errors)
}

/// The errors of a volume's sources: one and only one, itself in order.
fn sources(volume: &Value, path: &Path, not_a_source: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut count = 0;
    for (key, source) in volume.as_object().into_iter().flatten() {
        if key == not_a_source || source.is_null() {
            continue;
        }
        count += 1;
        let path = path.child(key);
        if count > 1 {
            errors.push(Error::forbidden(
                &path,
                "may not specify more than 1 volume type",
            ));
        } else {
            errors.extend(source_errors(key, source, &path));
        }
    }
    if count == 0 {
        errors.push(Error::required(path, "must specify a volume type"));
    }
    errors
}

/// The errors of one source of a Pod's volume or a PersistentVolume.
pub(crate) fn source_errors(kind: &str, source: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    match kind {
        "hostPath" => errors.extend(host_path(source, path)),
        "emptyDir" => {
            let limit = tree::get(source, "sizeLimit").map(Quantity::from_json);
            if let Some(Ok(limit)) = limit {
                if limit.is_negative() {
                    let detail = "SizeLimit field must be a valid resource quantity";
                    errors.push(Error::forbidden(&path.child("sizeLimit"), detail));
                }
            }
        }
        "secret" => {
            errors.extend(required(source, "secretName", path));
            errors.extend(mode(source, "defaultMode", path));
            errors.extend(items(source, path));
        }
        "configMap" => {
            errors.extend(required(source, "name", path));
            errors.extend(mode(source, "defaultMode", path));
            errors.extend(items(source, path));
        }
        "downwardAPI" => {
            errors.extend(mode(source, "defaultMode", path));
            errors.extend(downward_items(source, path));
        }
        "projected" => errors.extend(projected(source, path)),
        "persistentVolumeClaim" => errors.extend(required(source, "claimName", path)),
        "nfs" => {
            errors.extend(required(source, "server", path));
            errors.extend(required(source, "path", path));
            let nfs_path = tree::text(source, "path");
            if !nfs_path.is_empty() && !nfs_path.starts_with('/') {
                let at = path.child("path");
                errors.push(Error::invalid(&at, nfs_path, "must be an absolute path"));
            }
        }
        "csi" => errors.extend(required(source, "driver", path)),
        "local" => {
            errors.extend(required(source, "path", path));
            errors.extend(no_backsteps(source, path));
        }
        "gcePersistentDisk" => errors.extend(required(source, "pdName", path)),
        "awsElasticBlockStore" => errors.extend(required(source, "volumeID", path)),
        "ephemeral" => {
            if tree::get(source, "volumeClaimTemplate").is_none() {
                errors.push(Error::required(&path.child("volumeClaimTemplate"), ""));
            } else {
                let spec = tree::get(source, "volumeClaimTemplate.spec").unwrap_or(&Value::Null);
                let at = path.child("volumeClaimTemplate").child("spec");
                errors.extend(crate::core::volume::validate_claim_spec(spec, &at));
            }
        }
        _ => {}
    }
    errors
}

/// The text member `key` must be there.
pub(crate) fn required(source: &Value, key: &str, path: &Path) -> ErrorList {
    if tree::text(source, key).is_empty() {
        return Error::required(&path.child(key), "").into();
    }
    ErrorList::new()
}

fn host_path(source: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if tree::text(source, "path").is_empty() {
        errors.push(Error::required(&path.child("path"), ""));
        return errors;
    }
    errors.extend(no_backsteps(source, path));
    let kind = tree::text(source, "type");
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.push(Error::not_supported(
            &path.child("type"),
            kind,
            &HOST_PATH_TYPES,
        ));
    }
    errors
}

fn no_backsteps(source: &Value, path: &Path) -> ErrorList {
    let value = tree::text(source, "path");
    if value.split('/').any(|part| part == "..") {
        return Error::invalid(&path.child("path"), value, "must not contain '..'").into();
    }
    ErrorList::new()
}

fn mode(source: &Value, key: &str, path: &Path) -> ErrorList {
    match tree::int(source, key) {
        Some(mode) if !(0..=0o777).contains(&mode) => {
            let detail = "must be a number between 0 and 0777 (octal), both inclusive";
            Error::invalid(&path.child(key), mode, detail).into()
        }
        _ => ErrorList::new(),
    }
}

fn items(source: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, item) in tree::list(source, "items").iter().enumerate() {
        let path = path.child("items").index(i);
        errors.extend(required(item, "key", &path));
        errors.extend(item_path(item, &path));
        errors.extend(mode(item, "mode", &path));
    }
    errors
}

fn item_path(item: &Value, path: &Path) -> ErrorList {
    let value = tree::text(item, "path");
    if value.is_empty() {
        return Error::required(&path.child("path"), "").into();
    }
    let mut errors = local_path(value, &path.child("path"));
    if value.starts_with("..") {
        errors.push(Error::invalid(
            &path.child("path"),
            value,
            "must not start with '..'",
        ));
    }
    errors
}

/// A path inside a volume: relative, and never up.
pub(crate) fn local_path(value: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if value.starts_with('/') {
        errors.push(Error::invalid(path, value, "must be a relative path"));
    }
    if value.split('/').any(|part| part == "..") {
        errors.push(Error::invalid(path, value, "must not contain '..'"));
    }
    errors
}

fn downward_items(source: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, item) in tree::list(source, "items").iter().enumerate() {
        let path = path.child("items").index(i);
        errors.extend(item_path(item, &path));
        if let Some(reference) = tree::get(item, "fieldRef") {
            let paths = [
                "metadata.annotations",
                "metadata.labels",
                "metadata.name",
                "metadata.namespace",
                "metadata.uid",
            ];
            errors.extend(super::container::field_reference(
                reference,
                &path.child("fieldRef"),
                &paths,
            ));
            if tree::get(item, "resourceFieldRef").is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(Error::invalid(&path, "resource", detail));
            }
        } else if tree::get(item, "resourceFieldRef").is_none() {
            let detail = "one of fieldRef and resourceFieldRef is required";
            errors.push(Error::required(&path.child("fieldRef"), detail));
        }
        errors.extend(mode(item, "mode", &path));
    }
    errors
}

fn projected(source: &Value, path: &Path) -> ErrorList {
    let mut errors = mode(source, "defaultMode", path);
    for (i, source) in tree::list(source, "sources").iter().enumerate() {
        let path = path.child("sources").index(i);
        let mut count = 0;
        for (key, inner) in source.as_object().into_iter().flatten() {
            if inner.is_null() {
                continue;
            }
            count += 1;
            let path = path.child(key);
            if count > 1 {
                errors.push(Error::forbidden(
                    &path,
                    "may not specify more than 1 volume type",
                ));
                continue;
            }
            match key.as_str() {
                "secret" | "configMap" => {
                    errors.extend(required(inner, "name", &path));
                    errors.extend(items(inner, &path));
                }
                "downwardAPI" => errors.extend(downward_items(inner, &path)),
                "serviceAccountToken" => {
                    let seconds = tree::int(inner, "expirationSeconds").unwrap_or(3600);
                    if seconds < 600 {
                        let at = path.child("expirationSeconds");
                        let detail = "may not specify a duration less than 10 minutes";
                        errors.push(Error::invalid(&at, seconds, detail));
                    }
                    errors.extend(required(inner, "path", &path));
                }
                _ => {}
            }
        }
    }
    errors
}
