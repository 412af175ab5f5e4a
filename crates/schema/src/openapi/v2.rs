//! OpenAPI v2 ("Swagger"): one document of everything, made from the documents of version 3.
//!
//! `kubectl` reads it where version 3 has no answer: for files of `kind: List` it looks here
//! whether the server validates fields, and `kubectl explain --output plaintext-openapiv2` shows it.
//! What version 2 cannot say (`oneOf`, `nullable`) is left out, as upstream leaves it out.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{REF, VERSION, document, document_hash};
use crate::Schemas;
use crate::discovery::GroupVersion;

const DEFINITION: &str = "#/definitions/";
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// The hash of the document, found without making it.
pub fn hash(schemas: &Schemas, all: &[GroupVersion]) -> String {
    let mut hash = Sha256::new();
    for gv in all {
        hash.update(document_hash(schemas, gv));
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}

/// `GET /openapi/v2`.
pub fn merged(schemas: &Schemas, all: &[GroupVersion]) -> Value {
    let mut paths = Map::new();
    let mut definitions = Map::new();
    for gv in all {
        let mut document = document(schemas, gv);
        if let Value::Object(items) = document["paths"].take() {
            let items = items
                .into_iter()
                .map(|(path, item)| (path, path_item(item)));
            paths.extend(items);
        }
        if let Value::Object(components) = document["components"]["schemas"].take() {
            for (name, component) in components {
                merge(&mut definitions, name, component);
            }
        }
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": {
            "BearerToken": {
                "type": "apiKey",
                "description": "Bearer Token authentication",
                "name": "authorization",
                "in": "header",
            },
        },
        "security": [{"BearerToken": []}],
    })
}

/// Adds a definition, unless an earlier group has brought it.
fn merge(definitions: &mut Map<String, Value>, name: String, component: Value) {
    if !definitions.contains_key(&name) {
        definitions.insert(name, schema(component));
    }
}

fn path_item(mut item: Value) -> Value {
    if let Some(Value::Array(parameters)) = item.get_mut("parameters") {
        for parameter in parameters {
            flatten(parameter);
        }
    }
    for method in METHODS {
        if let Some(Value::Object(of_method)) = item.get_mut(method) {
            operation(of_method);
        }
    }
    item
}

/// Turns a parameter's schema into fields of the parameter.
fn flatten(parameter: &mut Value) {
    if let Value::Object(fields) = parameter
        && let Some(Value::Object(of_value)) = fields.remove("schema")
    {
        fields.extend(of_value);
    }
}

fn operation(fields: &mut Map<String, Value>) {
    let mut parameters = match fields.remove("parameters") {
        Some(Value::Array(parameters)) => parameters,
        _ => Vec::new(),
    };
    for parameter in &mut parameters {
        flatten(parameter);
    }
    fields.insert("consumes".to_owned(), json!(["*/*"]));
    if let Some(Value::Object(mut body)) = fields.remove("requestBody") {
        let content = match body.remove("content") {
            Some(Value::Object(content)) => content,
            _ => Map::new(),
        };
        let media_types: Vec<&String> = content.keys().collect();
        // One media type is the rule, and any is taken then; a patch's say what the patch is.
        if media_types.len() > 1 {
            fields.insert("consumes".to_owned(), json!(media_types));
        }
        let of_body = content
            .into_iter()
            .next()
            .map(|(_, mut media)| media["schema"].take());
        parameters.push(json!({
            "name": "body",
            "in": "body",
            "required": true,
            "schema": schema(of_body.unwrap_or_else(|| json!({"type": "object"}))),
        }));
    }
    fields.insert(
        "produces".to_owned(),
        json!(["application/json", "application/yaml"]),
    );
    if !parameters.is_empty() {
        fields.insert("parameters".to_owned(), Value::Array(parameters));
    }
    if let Some(Value::Object(responses)) = fields.get_mut("responses") {
        for response in responses.values_mut() {
            let Value::Object(response) = response else {
                continue;
            };
            if let Some(Value::Object(content)) = response.remove("content")
                && let Some((_, mut media)) = content.into_iter().next()
            {
                response.insert("schema".to_owned(), schema(media["schema"].take()));
            }
        }
    }
}

/// A schema in version 2's words.
fn schema(value: Value) -> Value {
    let Value::Object(mut fields) = value else {
        return value;
    };
    // `allOf` of one reference is how version 3 says a reference with a description.
    if let Some(Value::Array(mut all)) = fields.remove("allOf") {
        let only = all.len() == 1;
        match all.first_mut().and_then(|first| first.get_mut("$ref")) {
            Some(reference) if only => {
                let reference = reference.take();
                fields.retain(|key, _| key == "description");
                fields.insert("$ref".to_owned(), reference);
            }
            _ => {
                let all = all.into_iter().map(schema).collect();
                fields.insert("allOf".to_owned(), Value::Array(all));
            }
        }
    }
    if let Some(Value::String(name)) = fields.get_mut("$ref")
        && let Some(rest) = name.strip_prefix(REF)
    {
        *name = format!("{DEFINITION}{rest}");
    }
    let alternatives = fields.remove("oneOf").or_else(|| fields.remove("anyOf"));
    if !fields.contains_key("type") && alternatives.is_some_and(|of| allows_string(&of)) {
        fields.insert("type".to_owned(), json!("string"));
    }
    if fields.remove("nullable") == Some(Value::Bool(true)) {
        // A null would not be of the type, and version 2 knows no other way to allow it.
        fields.remove("type");
        fields.remove("items");
        fields.remove("properties");
    }
    for word in ["anyOf", "not"] {
        fields.remove(word);
    }
    for word in ["items", "additionalProperties"] {
        if let Some(of_items) = fields.get_mut(word) {
            *of_items = schema(of_items.take());
        }
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        for property in properties.values_mut() {
            *property = schema(property.take());
        }
    }
    Value::Object(fields)
}

fn allows_string(alternatives: &Value) -> bool {
    alternatives
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one["type"] == "string"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery;

    fn everything() -> Value {
        merged(&Schemas::builtin(), &discovery::builtin())
    }

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(name)) = map.get("$ref") {
                    found.push(name);
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(all) => all.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_has_its_definition() {
        let document = everything();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for name in found {
            let name = name.strip_prefix(DEFINITION).expect(name);
            assert!(document["definitions"].get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_patch_names_field_validation_and_its_kind() {
        let document = everything();
        let patch = &document["paths"]["/api/v1/namespaces/{name}"]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "", "version": "v1", "kind": "Namespace"})
        );
        let parameters = patch["parameters"].as_array().expect("has parameters");
        assert!(parameters.iter().any(|p| p["name"] == "fieldValidation"
            && p["in"] == "query"
            && p["type"] == "string"));
        assert!(parameters.iter().any(|p| p["in"] == "body"));
    }

    #[test]
    fn quantities_and_ports_are_strings_and_references_keep_their_description() {
        let document = everything();
        let definitions = &document["definitions"];
        assert_eq!(
            definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"],
            "string"
        );
        let spec = &definitions["io.k8s.api.core.v1.Pod"]["properties"]["spec"];
        assert_eq!(spec["$ref"], "#/definitions/io.k8s.api.core.v1.PodSpec");
        assert!(spec.get("allOf").is_none() && spec.get("default").is_none());
    }
}
