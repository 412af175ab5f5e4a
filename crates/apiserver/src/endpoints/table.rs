//! `metav1.Table`: the columns of a kind and a row per object.

use serde_json::{Value, json};

use super::query::Query;
use super::respond;
use crate::registry::Resource;
use crate::server::State;
use crate::status::{Result, Status};

/// What a row carries besides its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Include {
    None,
    Metadata,
    Object,
}

fn include(query: &Query) -> Result<Include> {
    match query.get("includeObject") {
        None | Some("Metadata") => Ok(Include::Metadata),
        Some("None") => Ok(Include::None),
        Some("Object") => Ok(Include::Object),
        Some(other) => Err(Status::bad_request(format!(
            "unrecognized includeObject value: {}: must be None, Metadata or Object",
            kinds::field::quote(other)
        ))),
    }
}

/// The rows of objects, under the columns of their kind.
pub(crate) fn table<'a>(
    state: &State,
    resource: &Resource,
    objects: impl Iterator<Item = &'a Value>,
    query: &Query,
) -> Result<Value> {
    let include = include(query)?;
    let ctx = state.ctx();
    let rows: Vec<Value> = objects
        .map(|object| {
            let mut row = json!({"cells": resource.cells(&ctx, object)});
            match include {
                Include::None => row["object"] = Value::Null,
                Include::Metadata => row["object"] = respond::partial(object),
                Include::Object => row["object"] = object.clone(),
            }
            if let Some(conditions) = completed(resource, object) {
                row["conditions"] = conditions;
            }
            row
        })
        .collect();
    Ok(json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": resource.column_definitions(),
        "rows": rows,
    }))
}

/// Puts the list's own metadata in.
pub(crate) fn finish(mut table: Value, metadata: &Value) -> Value {
    table["metadata"] = metadata.clone();
    table
}

/// kubectl leaves out rows of Pods that are over unless it is asked for all.
fn completed(resource: &Resource, object: &Value) -> Option<Value> {
    if &*resource.key != "pods" {
        return None;
    }
    let (phase, message) = match kinds::tree::text(object, "status.phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": phase, "message": message}]))
}
