//! The OpenAPI v3 documents and what clients look for in them.

use std::sync::LazyLock;

use schema::discovery::{self, GroupVersion};
use schema::{Gvk, Schemas, openapi};
use serde_json::{Value, json};

/// Built once: a server has one, too.
static SCHEMAS: LazyLock<Schemas> = LazyLock::new(Schemas::builtin);

fn group_version(api_version: &str) -> GroupVersion {
    discovery::builtin()
        .into_iter()
        .find(|gv| gv.api_version() == api_version)
        .expect("a built-in group-version")
}

fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_resolves() {
    for gv in discovery::builtin() {
        let document = openapi::document(&SCHEMAS, &gv);
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in found {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(
                document["components"]["schemas"].get(name).is_some(),
                "{}: {name}",
                gv.api_version()
            );
        }
    }
}

#[test]
fn every_patchable_kind_offers_field_validation() {
    for gv in discovery::builtin() {
        let document = openapi::document(&SCHEMAS, &gv);
        for resource in gv
            .resources
            .iter()
            .filter(|r| r.has_verb("patch") && !r.is_subresource())
        {
            let gvk = json!({"group": gv.group, "version": gv.version, "kind": resource.kind});
            let found = document["paths"].as_object().unwrap().values().any(|path| {
                let patch = &path["patch"];
                let named = |parameter: &Value| parameter["name"] == "fieldValidation";
                patch["x-kubernetes-group-version-kind"] == gvk
                    && patch["parameters"]
                        .as_array()
                        .is_some_and(|list| list.iter().any(named))
            });
            assert!(found, "{gvk}");
        }
    }
}

#[test]
fn the_retired_version_has_components_of_its_own() {
    let document = openapi::document(&SCHEMAS, &group_version("apps/v1beta2"));
    let schema = &document["components"]["schemas"]["io.k8s.api.apps.v1beta2.Deployment"];
    assert_eq!(
        schema["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "version": "v1beta2", "kind": "Deployment"}])
    );
    assert!(
        document["paths"]
            .get("/apis/apps/v1beta2/namespaces/{namespace}/deployments/{name}")
            .is_some()
    );
}

#[test]
fn custom_kinds_join_their_group_and_change_its_hash() {
    let schemas = Schemas::builtin();
    let gv = GroupVersion {
        group: "example.com".to_owned(),
        version: "v1".to_owned(),
        resources: Vec::new(),
    };
    let before = openapi::document_hash(&schemas, &gv);
    let structural = json!({"type": "object", "properties": {"spec": {"type": "string"}}});
    schemas
        .install(Gvk::new("example.com", "v1", "Backup"), &structural)
        .unwrap();
    assert_ne!(openapi::document_hash(&schemas, &gv), before);
    let index = openapi::index(&schemas, std::slice::from_ref(&gv));
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(url.starts_with("/openapi/v3/apis/example.com/v1?hash="));
    let document = openapi::document(&schemas, &gv);
    let schema = &document["components"]["schemas"]["com.example.v1.Backup"];
    assert_eq!(schema["properties"]["spec"], json!({"type": "string"}));
    assert!(
        document["components"]["schemas"]
            .get("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
            .is_some()
    );
}

#[test]
fn a_small_document_reads_like_this() {
    let document = openapi::document(&SCHEMAS, &group_version("coordination.k8s.io/v1"));
    insta::assert_json_snapshot!(document["paths"]);
}
