//! Custom resources: structural schemas, pruning, defaults, validation, ownership.

use std::sync::LazyLock;

use schema::managed::{self, Writer};
use schema::{ContentType, FieldError, FieldSet, Gvk, Schemas, Type};
use serde_json::{Value, json};

fn gvk() -> Gvk {
    Gvk::new("example.com", "v1", "Backup")
}

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
    let schemas = Schemas::builtin();
    let structural = json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["target"],
                "properties": {
                    "target": {"type": "string", "minLength": 2, "maxLength": 5, "pattern": "^[a-z]+$"},
                    "mode": {"type": "string", "enum": ["Full", "Fast"], "default": "Full"},
                    "replicas": {"type": "integer", "minimum": 0, "maximum": 10, "exclusiveMaximum": true},
                    "port": {"x-kubernetes-int-or-string": true},
                    "note": {"type": "string", "nullable": true},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "items": {
                        "type": "array", "maxItems": 3,
                        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "required": ["name"], "properties": {
                            "name": {"type": "string"},
                            "size": {"type": "integer", "default": 1},
                        }},
                    },
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "choice": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                        "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
                },
            },
            "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
        },
    });
    schemas
        .install(gvk(), &structural)
        .expect("a structural schema");
    schemas
});

fn ty() -> Type {
    SCHEMAS.get(&gvk()).expect("an installed kind")
}

fn backup(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Backup", "metadata": {"name": "b"}, "spec": spec})
}

fn errors(spec: Value) -> Vec<String> {
    ty().validate(&backup(spec))
        .into_iter()
        .map(|FieldError { field, message, .. }| format!("{field}: {message}"))
        .collect()
}

#[test]
fn unknown_fields_are_reported_and_pruned() {
    let body = json!({
        "apiVersion": "example.com/v1", "kind": "Backup", "extra": 1,
        "metadata": {"name": "b", "labels": {}, "foo": 1},
        "spec": {"target": "db", "zap": 1, "free": {"any": {"thing": 1}}, "items": [{"name": "x", "y": 2}]},
    });
    let decoded = SCHEMAS
        .decode(&gvk(), body.to_string().as_bytes(), ContentType::Json)
        .unwrap();
    let mut strict = decoded.strict.clone();
    strict.sort();
    assert_eq!(
        strict,
        [
            "unknown field \"extra\"",
            "unknown field \"metadata.foo\"",
            "unknown field \"spec.items[0].y\"",
            "unknown field \"spec.zap\"",
        ]
    );
    assert_eq!(
        decoded.value,
        backup(json!({"target": "db", "free": {"any": {"thing": 1}}, "items": [{"name": "x"}]}))
    );
    assert!(ty().is_custom() && ty().has_field("status"));
}

#[test]
fn defaults_come_from_the_schema() {
    let mut object =
        backup(json!({"target": "db", "mode": null, "note": null, "items": [{"name": "x"}]}));
    ty().default_fields(&mut object);
    assert_eq!(
        object["spec"],
        json!({"target": "db", "mode": "Full", "note": null, "items": [{"name": "x", "size": 1}]})
    );
}

#[test]
fn validation_speaks_upstreams_words() {
    assert!(
        errors(json!({"target": "db", "port": "http", "note": null, "replicas": 9})).is_empty()
    );
    let cases = [
        (json!({}), "spec.target: Required value"),
        (
            json!({"target": 5}),
            "spec.target: Invalid value: \"integer\": spec.target in body must be of type string: \"integer\"",
        ),
        (
            json!({"target": "d"}),
            "spec.target: Invalid value: \"d\": spec.target in body should be at least 2 chars long",
        ),
        (
            json!({"target": "database"}),
            "spec.target: Too long: may not be more than 5 bytes",
        ),
        (
            json!({"target": "D8"}),
            "spec.target: Invalid value: \"D8\": spec.target in body should match '^[a-z]+$'",
        ),
        (
            json!({"target": "db", "mode": "Slow"}),
            "spec.mode: Unsupported value: \"Slow\": supported values: \"Full\", \"Fast\"",
        ),
        (
            json!({"target": "db", "replicas": -1}),
            "spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0",
        ),
        (
            json!({"target": "db", "replicas": 10}),
            "spec.replicas: Invalid value: 10: spec.replicas in body should be less than 10",
        ),
        (
            json!({"target": "db", "replicas": null}),
            "spec.replicas: Invalid value: \"null\": spec.replicas in body must be of type integer: \"null\"",
        ),
        (
            json!({"target": "db", "port": true}),
            "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
        ),
        (
            json!({"target": "db", "items": [{"name": "x"}, {"name": "x"}]}),
            "spec.items[1]: Duplicate value: {\"name\":\"x\"}",
        ),
        (
            json!({"target": "db", "labels": {"a": 1}}),
            "spec.labels.a: Invalid value: \"integer\": spec.labels.a in body must be of type string: \"integer\"",
        ),
        (
            json!({"target": "db", "choice": {}}),
            "spec.choice: Invalid value: {}: \"spec.choice\" must validate one and only one schema (oneOf). Found none valid",
        ),
    ];
    for (spec, want) in cases {
        assert_eq!(errors(spec.clone()), [want], "{spec}");
    }
}

#[test]
fn lists_with_keys_are_owned_item_by_item() {
    let reset = FieldSet::of_fields(&["status"]);
    let writer = Writer {
        manager: "m",
        api_version: "example.com/v1",
        subresource: "",
        time: "2026-01-01T00:00:00Z",
        reset: &reset,
    };
    let mut object = backup(
        json!({"target": "db", "items": [{"name": "x", "size": 1}], "free": {"a": {"b": 1}}}),
    );
    managed::update(&ty(), None, &mut object, &writer);
    assert_eq!(
        object["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:spec": {
            ".": {}, "f:target": {},
            "f:items": {".": {}, "k:{\"name\":\"x\"}": {".": {}, "f:name": {}, "f:size": {}}},
            "f:free": {".": {}, "f:a": {".": {}, "f:b": {}}},
        }})
    );
    let applied = backup(json!({"items": [{"name": "y"}]}));
    let result = managed::apply(&ty(), Some(&object), &applied, &writer, false).unwrap();
    assert_eq!(
        result["spec"]["items"],
        json!([{"name": "x", "size": 1}, {"name": "y"}])
    );
}

#[test]
fn a_kind_outlives_its_definition_only_in_hand() {
    let schemas = Schemas::builtin();
    schemas
        .install(
            gvk(),
            &json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        )
        .unwrap();
    let held = schemas.get(&gvk()).unwrap();
    schemas.remove(&gvk());
    assert!(schemas.get(&gvk()).is_none());
    assert_eq!(held.coerce(json!({"a": 1})).unwrap().value, json!({"a": 1}));
}

#[test]
fn a_bad_pattern_is_an_error_of_the_definition() {
    let bad = json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}});
    let errors = Schemas::builtin().install(gvk(), &bad).unwrap_err();
    assert_eq!(errors[0].field, "openAPIV3Schema.properties[a].pattern");
}
