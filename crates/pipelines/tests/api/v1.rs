//! The v1beta1 API as clients see it, over the router.

use serde_json::{Value, json};

use crate::harness::{Server, one_package, workflow};

const V1: &str = "/apis/v1beta1";

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_pipeline_has_a_default_version_and_templates() {
    let server = Server::start_with(Some(one_package())).await;
    let file = workflow().to_string();
    let (status, made) = server
        .upload(
            &format!("{V1}/pipelines/upload?name=p&description=d"),
            "p.yaml",
            file.as_bytes(),
        )
        .await;
    assert_eq!(status, 200, "{made}");
    let id = text(&made["id"]);
    assert_eq!(
        made["parameters"],
        json!([{"name": "text", "value": "hello"}])
    );
    assert_eq!(made["default_version"]["name"], "p");
    assert_eq!(
        made["resource_references"],
        json!([{"key": {"type": "NAMESPACE", "id": "kubeflow"}, "relationship": "OWNER"}])
    );
    let first = text(&made["default_version"]["id"]);
    let version = json!({"name": "v2", "package_url": {"pipeline_url": "http://h/demo.yaml"},
        "resource_references": [{"key": {"type": "PIPELINE", "id": id}, "relationship": "OWNER"}]});
    let second = server
        .post(&format!("{V1}/pipeline_versions"), version)
        .await;
    assert_eq!(second["name"], "v2");
    assert_eq!(
        server.get(&format!("{V1}/pipelines/{id}")).await["default_version"]["id"],
        second["id"]
    );
    server
        .post(
            &format!("{V1}/pipelines/{id}/default_version/{first}"),
            json!({}),
        )
        .await;
    let found = server.get(&format!("{V1}/namespaces/-/pipelines/p")).await;
    assert_eq!(found["default_version"]["id"], first.as_str());
    for path in [
        format!("{V1}/pipelines/{id}/templates"),
        format!("{V1}/pipeline_versions/{first}/templates"),
    ] {
        let template = text(&server.get(&path).await["template"]);
        assert_eq!(
            serde_json::from_str::<Value>(&template).unwrap(),
            workflow()
        );
    }
    let listed = server
        .get(&format!(
            "{V1}/pipeline_versions?resource_key.type=PIPELINE&resource_key.id={id}&page_size=1"
        ))
        .await;
    assert_eq!(listed["total_size"], 2);
    server
        .refused("GET", &format!("{V1}/pipeline_versions"), None, 400)
        .await;
    let (status, _) = server
        .send("DELETE", &format!("{V1}/pipeline_versions/{first}"), None)
        .await;
    assert_eq!(status, 200);
    let (status, _) = server
        .send("DELETE", &format!("{V1}/pipelines/{id}"), None)
        .await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_run_lives_from_its_manifest_to_its_metrics() {
    let server = Server::start().await;
    let experiment = server
        .post(
            &format!("{V1}/experiments"),
            json!({"name": "e", "resource_references": []}),
        )
        .await;
    let experiment = text(&experiment["id"]);
    let made = server
        .post(
            &format!("{V1}/runs"),
            json!({"name": "r",
                "pipeline_spec": {"workflow_manifest": workflow().to_string(),
                    "parameters": [{"name": "text", "value": "hi"}]},
                "resource_references": [
                    {"key": {"type": "EXPERIMENT", "id": experiment}, "relationship": "OWNER"}]}),
        )
        .await;
    let id = text(&made["run"]["id"]);
    assert_eq!(made["run"]["finished_at"], "1970-01-01T00:00:00Z");
    assert_eq!(
        made["run"]["pipeline_spec"]["parameters"],
        json!([{"name": "text", "value": "hi"}])
    );
    assert_eq!(made["run"]["resource_references"][1]["name"], "e");
    let live = text(&made["pipeline_runtime"]["workflow_manifest"]);
    let live: Value = serde_json::from_str(&live).unwrap();
    assert!(live["status"]["nodes"].is_object(), "{live}");
    let pod = server.cluster.pod(".a").await;
    server.cluster.succeed(&pod);
    server.end(&id).await;
    let metrics = json!({"metrics": [
        {"name": "accuracy", "node_id": "n", "number_value": 0.5, "format": "PERCENTAGE"},
        {"name": "accuracy", "nodeId": "n", "numberValue": 0.5},
        {"name": "", "node_id": "n", "number_value": 1},
        {"name": "loss", "node_id": "n"},
    ]});
    let results = server
        .post(&format!("{V1}/runs/{id}:reportMetrics"), metrics)
        .await;
    let statuses: Vec<&str> = results["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["status"].as_str().unwrap())
        .collect();
    assert_eq!(
        statuses,
        [
            "OK",
            "DUPLICATE_REPORTING",
            "INVALID_ARGUMENT",
            "INVALID_ARGUMENT"
        ]
    );
    let run = server.get(&format!("{V1}/runs/{id}")).await["run"].clone();
    assert_eq!(run["status"], "Succeeded");
    assert_eq!(
        run["metrics"],
        json!([{"name": "accuracy", "node_id": "n", "number_value": 0.5, "format": "PERCENTAGE"}])
    );
    for (scope, total) in [
        (
            format!("EXPERIMENT&resource_reference_key.id={experiment}"),
            json!(1),
        ),
        (
            "NAMESPACE&resource_reference_key.id=kubeflow".to_owned(),
            json!(1),
        ),
        (
            "5&resource_reference_key.id=elsewhere".to_owned(),
            Value::Null,
        ),
    ] {
        let found = server
            .get(&format!(
                "{V1}/runs?resource_reference_key.type={scope}&sort_by=metric:accuracy%20desc"
            ))
            .await;
        assert_eq!(found["total_size"], total, "{scope}");
    }
    server
        .refused(
            "GET",
            &format!("{V1}/runs?resource_reference_key.type=CAKE"),
            None,
            400,
        )
        .await;
    server
        .post(&format!("{V1}/runs/{id}:archive"), json!({}))
        .await;
    assert_eq!(
        server.get(&format!("{V1}/runs/{id}")).await["run"]["storage_state"],
        "STORAGESTATE_ARCHIVED"
    );
    server
        .post(&format!("{V1}/runs/{id}:unarchive"), json!({}))
        .await;
    server
        .refused("POST", &format!("{V1}/runs/{id}/retry"), None, 409)
        .await;
    server
        .refused("POST", &format!("{V1}/runs/{id}/terminate"), None, 400)
        .await;
    let (status, _) = server
        .send("DELETE", &format!("{V1}/runs/{id}"), None)
        .await;
    assert_eq!(status, 200);
    server
        .refused("GET", &format!("{V1}/runs/{id}"), None, 404)
        .await;
}

#[tokio::test]
async fn bad_runs_and_uploads_are_refused_by_name() {
    let server = Server::start().await;
    let path = format!("{V1}/runs");
    for (body, says) in [
        (json!({"name": "r"}), "workflow_manifest"),
        (json!({"pipeline_spec": {}}), "run.name"),
        (
            json!({"name": "r", "colour": 1}),
            "unknown field \"colour\"",
        ),
        (
            json!({"name": "r", "pipeline_spec": {"workflow_manifest": "{]"}}),
            "run.pipeline_spec.workflow_manifest",
        ),
        (
            json!({"name": "r", "resource_references": [{"key": {"type": "CAKE"}}]}),
            "expected one of EXPERIMENT",
        ),
    ] {
        let message = server.refused("POST", &path, Some(body.clone()), 400).await;
        assert!(message.contains(says), "{body}: {message}");
    }
    let upload = format!("{V1}/pipelines/upload");
    let long = "n".repeat(129);
    let good = workflow().to_string();
    for (path, file, content, says) in [
        (
            upload.clone(),
            "p.yaml",
            "kind: Cake",
            "unknown template format",
        ),
        (upload.clone(), "p.bin", "x", "p.bin"),
        (
            format!("{upload}?name={long}"),
            "p.yaml",
            good.as_str(),
            "129 characters",
        ),
        (
            format!("{upload}?tags=%5B%5D"),
            "p.yaml",
            good.as_str(),
            "tags",
        ),
        (
            format!("{upload}?namespace=other"),
            "p.yaml",
            good.as_str(),
            "\"other\"",
        ),
        (
            format!("{V1}/pipelines/upload_version"),
            "p.yaml",
            good.as_str(),
            "pipelineid",
        ),
    ] {
        let (status, answer) = server.upload(&path, file, content.as_bytes()).await;
        assert_eq!(status, 400, "{path}: {answer}");
        let message = text(&answer["error_message"]);
        assert!(message.contains(says), "{path}: {message}");
    }
    let big = vec![b'#'; 33 << 20];
    let (status, answer) = server.upload(&upload, "p.yaml", &big).await;
    assert_eq!(status, 400, "{answer}");
    assert!(
        text(&answer["error_message"]).contains("33554432"),
        "{answer}"
    );
}
