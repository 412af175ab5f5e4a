//! Roles and bindings.

use serde_json::{Value, json};

use crate::content;
use crate::field::{Error, ErrorList, Path};
use crate::kind::Strategy;
use crate::selector::label;
use crate::{table, tree};

const GROUP: &str = "rbac.authorization.k8s.io";

const COMMON: Strategy = Strategy {
    name: content::name_is_path_segment,
    create_on_update: true,
    ..Strategy::GENERIC
};

pub(crate) const ROLE: Strategy = Strategy {
    default: role_defaults,
    validate: |_, role| rules(role, true),
    validate_update: |_, new, _| rules(new, true),
    ..COMMON
};

pub(crate) const CLUSTER_ROLE: Strategy = Strategy {
    default: role_defaults,
    validate: |_, role| cluster_role(role),
    validate_update: |_, new, _| cluster_role(new),
    ..COMMON
};

pub(crate) const ROLE_BINDING: Strategy = Strategy {
    default: binding_defaults,
    validate: |_, object| binding(object, true),
    validate_update: |_, new, old| binding_update(new, old, true),
    row: Some(table::config::binding),
    ..COMMON
};

pub(crate) const CLUSTER_ROLE_BINDING: Strategy = Strategy {
    validate: |_, object| binding(object, false),
    validate_update: |_, new, old| binding_update(new, old, false),
    ..ROLE_BINDING
};

fn role_defaults(role: &mut Value) {
    tree::object(role).entry("rules").or_insert(Value::Null);
    for rule in tree::list_mut(role, "rules") {
        let rule = tree::object(rule);
        rule.retain(|key, value| {
            key == "verbs" || value.as_array().is_none_or(|list| !list.is_empty())
        });
        rule.entry("verbs").or_insert(Value::Null);
    }
}

fn binding_defaults(binding: &mut Value) {
    let reference = tree::child(binding, "roleRef");
    tree::set_default_text(reference, "apiGroup", GROUP);
    for key in ["kind", "name"] {
        tree::set_default(reference, key, "");
    }
    for subject in tree::list_mut(binding, "subjects") {
        if matches!(tree::text(subject, "kind"), "User" | "Group") {
            tree::set_default_text(subject, "apiGroup", GROUP);
        }
        tree::set_default(subject, "name", "");
    }
    if tree::list(binding, "subjects").is_empty() {
        tree::remove(binding, "subjects");
    }
}

fn cluster_role(role: &Value) -> ErrorList {
    let mut errors = rules(role, false);
    let path = Path::new("aggregationRule").child("clusterRoleSelectors");
    if tree::get(role, "aggregationRule").is_some() {
        let selectors = tree::list(role, "aggregationRule.clusterRoleSelectors");
        if selectors.is_empty() {
            errors.push(Error::required(
                &path,
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            ));
        }
        for (i, selector) in selectors.iter().enumerate() {
            errors.extend(label::validate_object(selector, &path.index(i)));
        }
    }
    errors
}

fn rules(role: &Value, namespaced: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, rule) in tree::list(role, "rules").iter().enumerate() {
        let path = Path::new("rules").index(i);
        let words = |key: &str| tree::words(rule, key);
        let mut required = |key: &str, detail: &str| {
            errors.push(Error::required(&path.child(key), detail));
        };
        if words("verbs").is_empty() {
            required("verbs", "verbs must contain at least one value");
        }
        let urls = words("nonResourceURLs");
        if urls.is_empty() {
            if words("apiGroups").is_empty() {
                required(
                    "apiGroups",
                    "resource rules must supply at least one api group",
                );
            }
            if words("resources").is_empty() {
                required(
                    "resources",
                    "resource rules must supply at least one resource",
                );
            }
            continue;
        }
        let at = path.child("nonResourceURLs");
        if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.push(Error::invalid(&at, urls.clone(), detail));
        }
        let resources = ["apiGroups", "resources", "resourceNames"];
        if resources.iter().any(|key| !words(key).is_empty()) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(Error::invalid(&at, urls, detail));
        }
    }
    errors
}

fn binding(object: &Value, namespaced: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("roleRef");
    let reference = |key: &str| tree::text(object, key);
    let group = reference("roleRef.apiGroup");
    if group != GROUP {
        errors.push(Error::not_supported(
            &path.child("apiGroup"),
            group,
            &[GROUP],
        ));
    }
    let kinds: &[&str] = if namespaced {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    let kind = reference("roleRef.kind");
    if !kinds.contains(&kind) {
        errors.push(Error::not_supported(&path.child("kind"), kind, kinds));
    }
    let name = reference("roleRef.name");
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    } else {
        for message in content::path_segment(name) {
            errors.push(Error::invalid(&path.child("name"), name, message));
        }
    }
    for (i, subject) in tree::list(object, "subjects").iter().enumerate() {
        errors.extend(self::subject(
            subject,
            namespaced,
            &Path::new("subjects").index(i),
        ));
    }
    errors
}

fn subject(subject: &Value, namespaced: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let text = |key: &str| tree::text(subject, key);
    if text("name").is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    let group = path.child("apiGroup");
    match text("kind") {
        "ServiceAccount" => {
            if !text("name").is_empty() {
                for message in content::dns1123_subdomain(text("name")) {
                    errors.push(Error::invalid(&path.child("name"), text("name"), message));
                }
            }
            if !text("apiGroup").is_empty() {
                errors.push(Error::not_supported(&group, text("apiGroup"), &[""]));
            }
            if !namespaced && text("namespace").is_empty() {
                errors.push(Error::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if text("apiGroup") != GROUP {
                errors.push(Error::not_supported(&group, text("apiGroup"), &[GROUP]));
            }
        }
        kind => {
            let kinds = ["ServiceAccount", "User", "Group"];
            errors.push(Error::not_supported(&path.child("kind"), kind, &kinds));
        }
    }
    errors
}

fn binding_update(new: &Value, old: &Value, namespaced: bool) -> ErrorList {
    let mut errors = binding(new, namespaced);
    if !tree::same(new, old, "roleRef") {
        let member = |key: &str| json!(tree::text(new, &format!("roleRef.{key}")));
        let value = format!(
            "{{\"APIGroup\":{},\"Kind\":{},\"Name\":{}}}",
            member("apiGroup"),
            member("kind"),
            member("name")
        );
        errors.push(Error::invalid_raw(
            &Path::new("roleRef"),
            value,
            "cannot change roleRef",
        ));
    }
    errors
}
