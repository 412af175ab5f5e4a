//! Rows of ConfigMaps, Secrets, ServiceAccounts, Namespaces, Leases and the RBAC bindings.

use serde_json::{Value, json};

use crate::ctx::Ctx;
use crate::table::{age, name};
use crate::tree;

fn entries(object: &Value, key: &str) -> usize {
    tree::map(object, key).map_or(0, serde_json::Map::len)
}

pub(crate) fn config_map(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let count = entries(object, "data") + entries(object, "binaryData");
    vec![name(object), json!(count), age(ctx, object)]
}

pub(crate) fn secret(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let kind = json!(tree::text(object, "type"));
    vec![
        name(object),
        kind,
        json!(entries(object, "data")),
        age(ctx, object),
    ]
}

pub(crate) fn service_account(ctx: &Ctx, object: &Value) -> Vec<Value> {
    vec![
        name(object),
        json!(tree::list(object, "secrets").len()),
        age(ctx, object),
    ]
}

pub(crate) fn namespace(ctx: &Ctx, object: &Value) -> Vec<Value> {
    vec![
        name(object),
        json!(tree::text(object, "status.phase")),
        age(ctx, object),
    ]
}

pub(crate) fn lease(ctx: &Ctx, object: &Value) -> Vec<Value> {
    vec![
        name(object),
        json!(tree::text(object, "spec.holderIdentity")),
        age(ctx, object),
    ]
}

pub(crate) fn binding(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let role = format!(
        "{}/{}",
        tree::text(object, "roleRef.kind"),
        tree::text(object, "roleRef.name")
    );
    let subjects = |kind: &str| {
        let names: Vec<String> = tree::list(object, "subjects")
            .iter()
            .filter(|subject| tree::text(subject, "kind") == kind)
            .map(|subject| match kind {
                "ServiceAccount" => {
                    format!(
                        "{}/{}",
                        tree::text(subject, "namespace"),
                        tree::text(subject, "name")
                    )
                }
                _ => tree::text(subject, "name").to_owned(),
            })
            .collect();
        json!(names.join(", "))
    };
    vec![
        name(object),
        json!(role),
        age(ctx, object),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}
