//! Custom resources: served as soon as they are defined, checked by their schema, gone with it.

use serde_json::{Value, json};

use crate::support::start;

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wg"]},
            "versions": [
                {
                    "name": "v1", "served": true, "storage": true,
                    "subresources": {
                        "status": {},
                        "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"},
                    },
                    "additionalPrinterColumns": [
                        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    ],
                    "schema": {"openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object", "required": ["size"],
                                "properties": {
                                    "size": {"type": "integer", "minimum": 1},
                                    "color": {"type": "string", "default": "red"},
                                },
                            },
                            "status": {"type": "object", "properties": {"size": {"type": "integer"}}},
                        },
                    }},
                },
                {
                    "name": "v1beta1", "served": true, "storage": false,
                    "schema": {"openAPIV3Schema": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    }},
                },
            ],
        },
    })
}

fn widget(name: &str, size: i64) -> Value {
    json!({
        "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name},
        "spec": {"size": size, "unknown": true},
    })
}

#[tokio::test]
async fn a_definition_is_served_checked_and_removed_with_its_objects() {
    let fixture = start().await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    assert_eq!(fixture.get(widgets).await.code, 404);
    let made = fixture.post(definitions, &definition()).await;
    assert_eq!(made.code, 201, "{}", made.text);
    assert_eq!(made.body["status"]["conditions"][1]["type"], "Established");

    let bad = fixture.post(widgets, &widget("w", 0)).await;
    assert_eq!(bad.code, 422, "{}", bad.text);
    assert_eq!(bad.body["details"]["causes"][0]["field"], "spec.size");
    let good = fixture.post(widgets, &widget("w", 2)).await;
    assert_eq!(good.code, 201, "{}", good.text);
    assert_eq!(good.body["spec"], json!({"size": 2, "color": "red"}));
    assert_eq!(good.body["metadata"]["generation"], 1);

    let older = fixture
        .get("/apis/example.com/v1beta1/namespaces/default/widgets/w")
        .await
        .body;
    assert_eq!(older["apiVersion"], "example.com/v1beta1");
    let scale = fixture
        .patch(
            &format!("{widgets}/w/scale"),
            "merge-patch+json",
            &json!({"spec": {"replicas": 5}}),
        )
        .await;
    assert_eq!(scale.body["spec"]["replicas"], 5, "{}", scale.text);
    let status = json!({"status": {"size": 5}, "spec": {"size": 9}});
    let patched = fixture
        .patch(&format!("{widgets}/w/status"), "merge-patch+json", &status)
        .await
        .body;
    assert_eq!(
        (&patched["spec"]["size"], &patched["status"]["size"]),
        (&json!(5), &json!(5))
    );

    let resources = fixture.get("/apis/example.com/v1").await.body;
    let names: Vec<&str> = resources["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["widgets", "widgets/status", "widgets/scale"]);
    let document = fixture.get("/openapi/v3/apis/example.com/v1").await;
    assert!(document.text.contains("Widget"));

    let gone = fixture
        .delete(&format!("{definitions}/widgets.example.com"))
        .await;
    assert_eq!(gone.code, 200, "{}", gone.text);
    assert_eq!(fixture.get(widgets).await.code, 404);
    fixture.post(definitions, &definition()).await;
    let left = fixture.get(widgets).await.body;
    assert_eq!(left["items"], json!([]));
}

#[tokio::test]
async fn a_definition_whose_schema_is_not_structural_is_refused() {
    let fixture = start().await;
    let mut wrong = definition();
    let schema = &mut wrong["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"]
        .as_object_mut()
        .unwrap()
        .remove("type");
    let refused = fixture
        .post(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            &wrong,
        )
        .await;
    assert_eq!(refused.code, 422, "{}", refused.text);
    assert!(
        refused
            .text
            .contains("spec.versions[0].schema.openAPIV3Schema"),
        "{}",
        refused.text
    );
}
