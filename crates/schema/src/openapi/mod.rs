//! OpenAPI v3: the index and a document per group-version, made on demand. `paths` holds what
//! clients look for: which operations a kind has and which query parameters they take. Caching is
//! the caller's business: a document's hash changes exactly when the document does.
//!
//! [`v2`] makes the one document of OpenAPI v2 from these, [`gnostic`] its protobuf form.

pub mod gnostic;
pub mod v2;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha512};

use crate::builtin::{self, OBJECT_META};
use crate::discovery::{GroupVersion, Resource};
use crate::{Gvk, Schemas};

const REF: &str = "#/components/schemas/";
const VERSION: &str = "v1.34.2";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// The path of a group-version's document below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
pub fn document_path(gv: &GroupVersion) -> String {
    let root = if gv.group.is_empty() { "api" } else { "apis" };
    format!("{root}/{}", gv.api_version())
}

/// `GET /openapi/v3`.
pub fn index(schemas: &Schemas, all: &[GroupVersion]) -> Value {
    let paths: Map<String, Value> = all
        .iter()
        .map(|gv| {
            let path = document_path(gv);
            let url = format!("/openapi/v3/{path}?hash={}", document_hash(schemas, gv));
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

/// The hash of a group-version's document, found without making it.
pub fn document_hash(schemas: &Schemas, gv: &GroupVersion) -> String {
    let mut hash = Sha512::new();
    hash.update(VERSION);
    hash.update(gv.api_version());
    for resource in &gv.resources {
        hash.update(&resource.name);
        hash.update(&resource.kind);
        for verb in &resource.verbs {
            hash.update(verb);
        }
    }
    for (gvk, schema) in schemas.custom_kinds(&gv.group, &gv.version) {
        hash.update(&gvk.kind);
        hash.update(schema.to_string());
    }
    let mut text = String::new();
    for byte in hash.finalize() {
        write!(text, "{byte:02X}").expect("invariant: writing to a string succeeds");
    }
    text
}

/// `GET /openapi/v3/<path>`.
pub fn document(schemas: &Schemas, gv: &GroupVersion) -> Value {
    let mut components = Components {
        builtin: builtin::components(),
        chosen: Map::new(),
        waiting: BTreeSet::new(),
    };
    for name in [DELETE_OPTIONS, STATUS, PATCH] {
        components.want(name);
    }
    for (gvk, schema) in schemas.custom_kinds(&gv.group, &gv.version) {
        components.add_custom(&gvk, &schema);
    }
    let mut paths = Map::new();
    for resource in &gv.resources {
        let gvk = kind_of(gv, resource);
        let component = components.of_kind(&gvk);
        add_paths(&mut paths, gv, resource, &gvk, component.as_deref());
        if resource.has_verb("list") {
            let list = Gvk::new(gvk.group, gvk.version, format!("{}List", resource.kind));
            components.of_kind(&list);
        }
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "components": {
            "schemas": components.close(),
            "securitySchemes": {
                "BearerToken": {
                    "type": "apiKey",
                    "description": "Bearer Token authentication",
                    "name": "authorization",
                    "in": "header",
                },
            },
        },
    })
}

fn kind_of(gv: &GroupVersion, resource: &Resource) -> Gvk {
    match &resource.kind_group_version {
        Some((group, version)) => {
            Gvk::new(group.as_str(), version.as_str(), resource.kind.as_str())
        }
        None => Gvk::new(
            gv.group.as_str(),
            gv.version.as_str(),
            resource.kind.as_str(),
        ),
    }
}

/// The schemas of a document, with everything they refer to.
struct Components {
    builtin: Map<String, Value>,
    chosen: Map<String, Value>,
    waiting: BTreeSet<String>,
}

impl Components {
    fn want(&mut self, name: &str) {
        if !self.chosen.contains_key(name) {
            self.waiting.insert(name.to_owned());
        }
    }

    /// The component of a kind; one of `apps/v1beta2` is made from its `apps/v1` twin.
    fn of_kind(&mut self, gvk: &Gvk) -> Option<String> {
        let of = |schemas: &Map<String, Value>, gvk: &Gvk| {
            schemas
                .iter()
                .find(|(_, schema)| states_gvk(schema, gvk))
                .map(|(name, _)| name.clone())
        };
        if let Some(name) = of(&self.chosen, gvk) {
            return Some(name);
        }
        if gvk.group == "apps" && gvk.version == "v1beta2" {
            let twin = Gvk::new("apps", "v1", gvk.kind.as_str());
            let source = of(&self.builtin, &twin)?;
            let mut schema = self.builtin.get(&source)?.clone();
            schema["x-kubernetes-group-version-kind"] = json!([gvk_value(gvk)]);
            let name = format!("io.k8s.api.apps.v1beta2.{}", gvk.kind);
            self.put(&name, schema);
            return Some(name);
        }
        let name = of(&self.builtin, gvk)?;
        self.want(&name);
        Some(name)
    }

    fn put(&mut self, name: &str, schema: Value) {
        self.want_references(&schema);
        self.waiting.remove(name);
        self.chosen.insert(name.to_owned(), schema);
    }

    fn want_references(&mut self, schema: &Value) {
        match schema {
            Value::Object(map) => {
                if let Some(name) = map.get("$ref").and_then(Value::as_str) {
                    if let Some(name) = name.strip_prefix(REF) {
                        self.want(name);
                    }
                }
                for value in map.values() {
                    self.want_references(value);
                }
            }
            Value::Array(items) => {
                for value in items {
                    self.want_references(value);
                }
            }
            _ => {}
        }
    }

    fn add_custom(&mut self, gvk: &Gvk, structural: &Value) {
        let reference = |name: &str| json!({"allOf": [{"$ref": format!("{REF}{name}")}]});
        let mut schema = structural.clone();
        if !schema.is_object() {
            schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        }
        if !schema["properties"].is_object() {
            schema["properties"] = json!({});
        }
        let properties = &mut schema["properties"];
        properties["apiVersion"] = json!({"type": "string"});
        properties["kind"] = json!({"type": "string"});
        properties["metadata"] = reference(OBJECT_META);
        schema["x-kubernetes-group-version-kind"] = json!([gvk_value(gvk)]);
        let prefix: Vec<&str> = gvk.group.rsplit('.').collect();
        let name = format!("{}.{}.{}", prefix.join("."), gvk.version, gvk.kind);
        self.put(&name, schema);
        let list = Gvk::new(
            gvk.group.as_str(),
            gvk.version.as_str(),
            format!("{}List", gvk.kind),
        );
        let list_schema = json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": reference(LIST_META),
                "items": {"type": "array", "items": {"$ref": format!("{REF}{name}")}},
            },
            "x-kubernetes-group-version-kind": [gvk_value(&list)],
        });
        self.put(&format!("{name}List"), list_schema);
    }

    /// Takes in everything that is referred to.
    fn close(mut self) -> Map<String, Value> {
        while let Some(name) = self.waiting.pop_first() {
            if let Some(schema) = self.builtin.get(&name).cloned() {
                self.put(&name, schema);
            }
        }
        self.chosen
    }
}

fn gvk_value(gvk: &Gvk) -> Value {
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}

fn states_gvk(schema: &Value, gvk: &Gvk) -> bool {
    schema["x-kubernetes-group-version-kind"]
        .as_array()
        .is_some_and(|list| list.iter().any(|value| builtin::gvk_of(value) == *gvk))
}

fn add_paths(
    paths: &mut Map<String, Value>,
    gv: &GroupVersion,
    resource: &Resource,
    gvk: &Gvk,
    component: Option<&str>,
) {
    let root = format!("/{}", document_path(gv));
    let scope = if resource.namespaced {
        format!("{root}/namespaces/{{namespace}}")
    } else {
        root.clone()
    };
    let (plural, sub) = match resource.name.split_once('/') {
        Some((plural, sub)) => (plural, Some(sub)),
        None => (resource.name.as_str(), None),
    };
    let operations = Operations {
        gvk,
        component,
        resource,
    };
    let named = match sub {
        Some(sub) => format!("{scope}/{plural}/{{name}}/{sub}"),
        None => format!("{scope}/{plural}/{{name}}"),
    };
    if sub.is_none() {
        let collection = [
            ("get", "list"),
            ("post", "create"),
            ("delete", "deletecollection"),
        ];
        let parameters = path_parameters(resource, false);
        if let Some(item) = operations.path_item(&collection, parameters) {
            paths.insert(format!("{scope}/{plural}"), item);
        }
        if resource.namespaced {
            if let Some(item) =
                operations.path_item(&[("get", "list")], path_parameters(resource, false))
            {
                paths.insert(format!("{root}/{plural}"), item);
            }
        }
    }
    let mut single = vec![
        ("get", "get"),
        ("put", "update"),
        ("patch", "patch"),
        ("delete", "delete"),
    ];
    if sub.is_some() {
        single.push(("post", "create"));
    }
    if let Some(item) = operations.path_item(&single, path_parameters(resource, true)) {
        paths.insert(named, item);
    }
}

fn path_parameters(resource: &Resource, named: bool) -> Vec<Value> {
    let mut names = Vec::new();
    if named {
        names.push("name");
    }
    if resource.namespaced {
        names.push("namespace");
    }
    names
        .into_iter()
        .map(|name| {
            json!({
                "name": name, "in": "path", "required": true,
                "schema": {"type": "string", "uniqueItems": true},
            })
        })
        .collect()
}

struct Operations<'a> {
    gvk: &'a Gvk,
    component: Option<&'a str>,
    resource: &'a Resource,
}

impl Operations<'_> {
    /// A path with those operations whose verbs the resource has; `None` if it has none.
    fn path_item(&self, methods: &[(&str, &str)], parameters: Vec<Value>) -> Option<Value> {
        let mut item = Map::new();
        for (method, verb) in methods {
            if self.resource.has_verb(verb) {
                item.insert((*method).to_owned(), self.operation(verb));
            }
        }
        if item.is_empty() {
            return None;
        }
        if !parameters.is_empty() {
            item.insert("parameters".to_owned(), Value::Array(parameters));
        }
        Some(Value::Object(item))
    }

    fn operation(&self, verb: &str) -> Value {
        let query = |names: &[&str]| -> Vec<Value> {
            names
                .iter()
                .map(|name| {
                    let kind = match *name {
                        "watch" | "force" | "orphanDependents" | "allowWatchBookmarks" => "boolean",
                        "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
                        _ => "string",
                    };
                    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
                })
                .collect()
        };
        let (action, parameters): (&str, &[&str]) = match verb {
            "list" => (
                "list",
                &[
                    "allowWatchBookmarks",
                    "continue",
                    "fieldSelector",
                    "labelSelector",
                    "limit",
                    "resourceVersion",
                    "resourceVersionMatch",
                    "timeoutSeconds",
                    "watch",
                ],
            ),
            "create" => ("post", &["dryRun", "fieldManager", "fieldValidation"]),
            "update" => ("put", &["dryRun", "fieldManager", "fieldValidation"]),
            "patch" => (
                "patch",
                &["dryRun", "fieldManager", "fieldValidation", "force"],
            ),
            "delete" => (
                "delete",
                &[
                    "dryRun",
                    "gracePeriodSeconds",
                    "orphanDependents",
                    "propagationPolicy",
                ],
            ),
            "deletecollection" => (
                "deletecollection",
                &[
                    "dryRun",
                    "fieldSelector",
                    "labelSelector",
                    "propagationPolicy",
                ],
            ),
            _ => ("get", &[]),
        };
        let content = |component: &str| json!({"application/json": {"schema": {"$ref": format!("{REF}{component}")}}});
        let answer = match (verb, self.component) {
            ("list", Some(component)) => Some(format!("{component}List")),
            ("delete" | "deletecollection", _) => Some(STATUS.to_owned()),
            (_, component) => component.map(str::to_owned),
        };
        let mut ok = json!({"description": "OK"});
        if let Some(answer) = answer {
            ok["content"] = content(&answer);
        }
        let mut operation = json!({
            "responses": {"200": ok},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk_value(self.gvk),
        });
        let parameters = query(parameters);
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
        let body = match verb {
            "create" | "update" => self.component.map(content),
            "patch" => {
                let schema = json!({"schema": {"$ref": format!("{REF}{PATCH}")}});
                let types = [
                    "application/apply-patch+yaml",
                    "application/json-patch+json",
                    "application/merge-patch+json",
                    "application/strategic-merge-patch+json",
                ];
                Some(
                    types
                        .iter()
                        .map(|name| ((*name).to_owned(), schema.clone()))
                        .collect(),
                )
            }
            _ => None,
        };
        if let Some(body) = body {
            operation["requestBody"] = json!({"content": body, "required": true});
        }
        operation
    }
}
