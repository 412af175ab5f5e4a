//! CustomResourceDefinitions: defaults, names, versions. Their structural schemas are checked with
//! the schemas themselves, and their conditions set by the server.

use serde_json::{Value, json};

use crate::content;
use crate::core::pod::validate::one_of;
use crate::ctx::Ctx;
use crate::field::{Error, ErrorList, Path};
use crate::kind::{Generation, Strategy};
use crate::tree::{self, set_default, set_default_text};

pub(crate) const STRATEGY: Strategy = Strategy {
    default: defaults,
    prepare_create,
    prepare_update,
    validate: |_, crd| validate(crd),
    validate_update: |_, new, old| {
        let mut errors = validate(new);
        errors.extend(validate_change(new, old));
        errors
    },
    name: content::name_is_dns_subdomain,
    empty_status: r#"{"conditions":null,"acceptedNames":{"plural":"","kind":""},"storedVersions":null}"#,
    generation: Generation::Spec,
    has_status: true,
    unconditional_update: false,
    ..Strategy::GENERIC
};

fn defaults(crd: &mut Value) {
    let spec = tree::child(crd, "spec");
    let names = tree::child(spec, "names");
    let kind = tree::text(names, "kind").to_owned();
    if !kind.is_empty() {
        set_default_text(names, "singular", &kind.to_lowercase());
        set_default_text(names, "listKind", &format!("{kind}List"));
    }
    let conversion = tree::child(spec, "conversion");
    set_default_text(conversion, "strategy", "None");
    if let Some(service) = tree::get_mut(conversion, "webhook.clientConfig.service") {
        set_default(service, "port", 443);
    }
    if tree::get(spec, "preserveUnknownFields") == Some(&json!(false)) {
        tree::remove(spec, "preserveUnknownFields");
    }
    if let Some(status) = tree::get_mut(crd, "status") {
        for key in ["conditions", "storedVersions"] {
            tree::object(status).entry(key).or_insert(Value::Null);
        }
        let accepted = tree::child(status, "acceptedNames");
        for key in ["plural", "kind"] {
            set_default(accepted, key, "");
        }
    }
}

/// The version that objects are stored in.
pub fn storage_version(crd: &Value) -> Option<&str> {
    tree::list(crd, "spec.versions")
        .iter()
        .find(|version| tree::truthy(version, "storage"))
        .map(|version| tree::text(version, "name"))
}

fn store_version(crd: &mut Value) {
    let Some(version) = storage_version(crd).map(str::to_owned) else {
        return;
    };
    let status = tree::child(crd, "status");
    let mut stored: Vec<String> = tree::words(status, "storedVersions")
        .into_iter()
        .map(str::to_owned)
        .collect();
    if !stored.contains(&version) {
        stored.push(version);
        status["storedVersions"] = json!(stored);
    }
}

fn prepare_create(_: &Ctx, crd: &mut Value) {
    store_version(crd);
}

fn prepare_update(_: &Ctx, new: &mut Value, _: &Value) {
    store_version(new);
}

fn validate(crd: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let text = |key: &str| tree::text(crd, key);
    let (group, plural) = (text("spec.group"), text("spec.names.plural"));
    let expected = format!("{plural}.{group}");
    let name = text("metadata.name");
    if name != expected {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(Error::invalid(&Path::new("metadata.name"), name, detail));
    }
    if group.is_empty() {
        errors.push(Error::required(&path.child("group"), ""));
    } else {
        for message in content::dns1123_subdomain(group) {
            errors.push(Error::invalid(&path.child("group"), group, message));
        }
        if !group.contains('.') {
            let detail = "should be a domain with at least one dot";
            errors.push(Error::invalid(&path.child("group"), group, detail));
        }
    }
    let empty = json!({});
    let spec = tree::get(crd, "spec").unwrap_or(&empty);
    let scope = tree::text(spec, "scope");
    if scope.is_empty() {
        errors.push(Error::required(&path.child("scope"), ""));
    }
    errors.extend(one_of(spec, "scope", &path, &["Cluster", "Namespaced"]));
    errors.extend(versions(spec, &path));
    errors.extend(names(spec, &path.child("names")));
    errors
}

fn versions(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let at = path.child("versions");
    let versions = tree::list(spec, "versions");
    let mut seen = Vec::new();
    for (i, version) in versions.iter().enumerate() {
        let path = at.index(i);
        let name = tree::text(version, "name");
        for message in content::dns1035_label(name) {
            errors.push(Error::invalid(&path.child("name"), name, message));
        }
        if seen.contains(&name) {
            let detail = "must contain unique version names";
            errors.push(Error::invalid(&path.child("name"), name, detail));
        }
        seen.push(name);
        if tree::get(version, "schema.openAPIV3Schema").is_none() {
            let at = path.child("schema").child("openAPIV3Schema");
            errors.push(Error::required(&at, "schemas are required"));
        }
    }
    if versions.is_empty() {
        errors.push(Error::required(&at, "must have at least one version"));
        return errors;
    }
    let stored = versions
        .iter()
        .filter(|version| tree::truthy(version, "storage"))
        .count();
    if stored != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(Error::invalid(&at, json!(seen), detail));
    }
    errors
}

fn names(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in ["plural", "singular", "kind", "listKind"] {
        let name = tree::text(spec, &format!("names.{key}"));
        let at = path.child(key);
        if name.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        for message in content::dns1035_label(&name.to_lowercase()) {
            errors.push(Error::invalid(&at, name, message));
        }
    }
    for (i, name) in tree::words(spec, "names.shortNames")
        .into_iter()
        .enumerate()
    {
        for message in content::dns1035_label(name) {
            errors.push(Error::invalid(
                &path.child("shortNames").index(i),
                name,
                message,
            ));
        }
    }
    let (kind, list) = (
        tree::text(spec, "names.kind"),
        tree::text(spec, "names.listKind"),
    );
    if !kind.is_empty() && kind == list {
        let detail = "kind and listKind may not be the same";
        errors.push(Error::invalid(&path.child("listKind"), list, detail));
    }
    errors
}

fn validate_change(new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in [
        "spec.group",
        "spec.scope",
        "spec.names.kind",
        "spec.names.plural",
    ] {
        errors.extend(crate::meta::immutable(new, old, key));
    }
    let names: Vec<&str> = tree::list(new, "spec.versions")
        .iter()
        .map(|version| tree::text(version, "name"))
        .collect();
    for (i, stored) in tree::words(old, "status.storedVersions")
        .into_iter()
        .enumerate()
    {
        if !names.contains(&stored) {
            let at = Path::new("status.storedVersions").index(i);
            let detail = "missing from spec.versions; v1 was previously a storage version, and must \
                 remain in spec.versions until a storage migration ensures no data remains \
                 persisted in v1 and removes v1 from status.storedVersions";
            errors.push(Error::invalid(&at, stored, detail.replace("v1", stored)));
        }
    }
    errors
}
