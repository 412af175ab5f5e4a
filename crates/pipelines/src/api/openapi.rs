//! The OpenAPI document of each version, made from the table of routes.

use std::sync::Arc;

use axum::Json;
use axum::http::Method;
use serde_json::{Map, Value, json};

use super::message::Schemas;
use super::route::{Route, get};

/// Adds the rows that serve the documents of the rows so far.
pub(super) fn with_documents(mut routes: Vec<Route>) -> Vec<Route> {
    let about = "This document";
    for (path, prefix) in [
        ("/apis/v1beta1/openapi.json", "/apis/v1"),
        ("/apis/v2beta1/openapi.json", "/apis/v2"),
    ] {
        let document = Arc::new(document(&routes, prefix));
        let serve = move || {
            let document = Arc::clone(&document);
            async move { Json(Value::clone(&document)) }
        };
        routes.push(get(path, about, serve));
    }
    routes
}

fn document(routes: &[Route], prefix: &str) -> Value {
    let mut schemas = Schemas::new();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes.iter().filter(|r| r.path.starts_with(prefix)) {
        let operation = operation(route, &mut schemas);
        let entry = paths
            .entry(route.path.to_owned())
            .or_insert_with(|| json!({}));
        entry[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    schemas.insert(
        "runtimeError".to_owned(),
        json!({"type": "object", "properties": {
            "error": {"type": "string"}, "message": {"type": "string"},
            "code": {"type": "integer", "format": "int32"},
            "details": {"type": "array", "items": {"type": "object"}},
        }}),
    );
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "Kubeflow Pipelines, as coracle serves it",
            "version": if prefix.ends_with('2') { "v2beta1" } else { "v1beta1" },
        },
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn operation(route: &Route, schemas: &mut Schemas) -> Value {
    let in_path = route
        .path
        .split(['/', ':'])
        .filter_map(|s| s.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> = in_path
        .map(|name| {
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
        })
        .chain(route.query.iter().map(|name| {
            json!({"name": name, "in": "query", "required": false, "schema": {"type": "string"}})
        }))
        .collect();
    let schema = match route.answer {
        Some(answer) => answer(schemas),
        None => json!({}),
    };
    let kind = if route.text {
        "text/plain"
    } else {
        "application/json"
    };
    let mut operation = json!({
        "summary": route.about,
        "operationId": operation_id(&route.method, route.path),
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done", "content": {kind: {"schema": schema}}},
            "default": {"description": "Refused or failed", "content": {"application/json":
                {"schema": {"$ref": "#/components/schemas/runtimeError"}}}},
        },
    });
    if let Some(body) = route.body {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": body(schemas)}}});
    }
    if route.form {
        let form = json!({"type": "object", "required": ["uploadfile"],
            "properties": {"uploadfile": {"type": "string", "format": "binary"}}});
        operation["requestBody"] =
            json!({"required": true, "content": {"multipart/form-data": {"schema": form}}});
    }
    operation
}

/// A name for generated clients: the method and the words of the path.
fn operation_id(method: &Method, path: &str) -> String {
    let mut id = method.as_str().to_ascii_lowercase();
    for word in path.split(['/', ':', '_', '.', '{', '}', '-']).skip(2) {
        let mut letters = word.chars();
        if let Some(first) = letters.next() {
            id.extend(first.to_uppercase());
            id.push_str(letters.as_str());
        }
    }
    id
}
