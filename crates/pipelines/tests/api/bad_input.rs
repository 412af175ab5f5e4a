//! Input that cannot work: a clear refusal, or a run that fails with a reason while others go on.

use serde_json::{Value, json};

use crate::harness::{Server, workflow};

const V1: &str = "/apis/v1beta1/runs";
const V2: &str = "/apis/v2beta1/runs";

/// A v2 pipeline with a parameter of each type and, if asked, a loop over the text.
fn typed(looped: bool) -> Value {
    let inputs = json!({"parameters": {
        "count": {"parameterType": "NUMBER_INTEGER"},
        "rate": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.5},
        "flag": {"parameterType": "BOOLEAN", "defaultValue": false},
        "names": {"parameterType": "LIST", "defaultValue": []},
        "table": {"parameterType": "STRUCT", "defaultValue": {}},
        "text": {"parameterType": "STRING", "defaultValue": "no list"},
    }});
    let mut task = json!({
        "taskInfo": {"name": "step"}, "componentRef": {"name": "comp-step"},
        "inputs": {"parameters": {"word": {"componentInputParameter": "text"}}},
    });
    if looped {
        task["inputs"] = json!({"parameters": {"all": {"componentInputParameter": "text"}}});
        task["parameterIterator"] =
            json!({"items": {"inputParameter": "all"}, "itemInput": "word"});
    }
    json!({
        "pipelineInfo": {"name": "typed"}, "schemaVersion": "2.1.0", "sdkVersion": "kfp-2.17.0",
        "root": {"inputDefinitions": inputs, "dag": {"tasks": {"step": task}}},
        "components": {"comp-step": {"executorLabel": "exec-step",
            "inputDefinitions": {"parameters": {"word": {"parameterType": "STRING"},
                "all": {"parameterType": "STRING", "isOptional": true}}}}},
        "deploymentSpec": {"executors": {"exec-step": {"container": {
            "image": "i", "command": ["echo"], "args": ["{{$.inputs.parameters['word']}}"]}}}},
    })
}

fn v2(package: &Value, parameters: &Value) -> Value {
    json!({"display_name": "r", "pipeline_spec": package,
        "runtime_config": {"parameters": parameters}})
}

fn v1(package: &Value, parameters: &[(&str, &str)]) -> Value {
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    json!({"name": "r", "pipeline_spec": {
        "workflow_manifest": package.to_string(), "parameters": parameters}})
}

async fn refused(server: &Server, path: &str, body: Value, says: &[&str]) {
    let message = server.refused("POST", path, Some(body), 400).await;
    for part in says {
        assert!(message.contains(part), "{message}");
    }
    // A message is read by people.
    assert!(message.len() < 2000, "{} bytes", message.len());
}

#[tokio::test]
async fn a_parameter_of_ten_megabytes_is_refused() {
    let server = Server::start().await;
    let large = "x".repeat(10 << 20);
    let says = ["\"text\"", "10485760 bytes", "allowed: up to 1048576"];
    refused(&server, V1, v1(&workflow(), &[("text", &large)]), &says).await;
    let body = v2(&typed(false), &json!({"count": 1, "text": large}));
    refused(&server, V2, body, &says).await;
    let body = v2(&typed(false), &json!({"count": 1, "names": [large]}));
    refused(&server, V2, body, &["\"names\"", "allowed: up to 1048576"]).await;
    assert_eq!(server.get(V2).await, json!({}));
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_refused() {
    let server = Server::start().await;
    for (name, value) in [
        ("count", json!("three")),
        ("count", json!(1.5)),
        ("count", json!([1])),
        ("rate", json!("fast")),
        ("flag", json!("yes")),
        ("flag", json!(1)),
        ("names", json!("a,b")),
        ("names", json!({"a": 1})),
        ("table", json!([1])),
        ("text", json!(7)),
        ("text", json!({"a": "b"})),
    ] {
        let mut parameters = json!({"count": 1});
        parameters[name] = value;
        refused(&server, V2, v2(&typed(false), &parameters), &[name]).await;
    }
    let body = json!({"name": "r", "pipeline_spec": {"workflow_manifest": workflow().to_string(),
        "parameters": [{"name": "text", "value": 7}]}});
    refused(&server, V1, body, &["parameters[0].value", "a string"]).await;
}

#[tokio::test]
async fn a_parameter_that_is_missing_or_unknown_is_refused() {
    let server = Server::start().await;
    refused(&server, V2, v2(&typed(false), &json!({})), &["count"]).await;
    let body = v2(&typed(false), &json!({"count": null}));
    refused(&server, V2, body, &["count"]).await;
    let body = v2(&typed(false), &json!({"count": 1, "colour": "red"}));
    refused(&server, V2, body, &["colour", "count, "]).await;
    let mut package = workflow();
    package["spec"]["arguments"]["parameters"] = json!([{"name": "text"}]);
    refused(&server, V1, v1(&package, &[]), &["text"]).await;
    let body = v1(&workflow(), &[("colour", "red")]);
    refused(&server, V1, body, &["colour", "text"]).await;
}

/// Starts the run, waits until it fails, and answers why; another run goes on and succeeds.
async fn fails(path: &str, body: Value, id: &str) -> String {
    let server = Server::start().await;
    let other = server.post(V1, v1(&workflow(), &[])).await;
    let made = server.post(path, body).await;
    let run = made.pointer(id).and_then(Value::as_str).unwrap();
    server.end(run).await;
    let run = server.get(&format!("{V2}/{run}")).await;
    assert_eq!(run["state"], "FAILED", "{run}");
    let other = other["run"]["id"].as_str().unwrap();
    server.cluster.succeed(&server.cluster.pod_of(other).await);
    server.end(other).await;
    let other = server.get(&format!("{V2}/{other}")).await;
    assert_eq!(other["state"], "SUCCEEDED");
    run["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_loop_over_no_list_fails_its_run_with_the_reason() {
    let mut package = workflow();
    package["spec"]["templates"][0]["dag"]["tasks"][0]["withParam"] =
        json!("{{workflow.parameters.text}}");
    package["spec"]["templates"][0]["dag"]["tasks"][0]["name"] = json!("looped");
    let why = fails(V1, v1(&package, &[("text", "no list")]), "/run/id").await;
    assert!(why.contains("looped") && why.contains("list"), "{why}");

    let body = v2(&typed(true), &json!({"count": 1}));
    let why = fails(V2, body, "/run_id").await;
    assert!(why.contains("step") && why.contains("list"), "{why}");
}
