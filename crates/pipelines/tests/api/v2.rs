//! The v2beta1 API as clients see it, over the router.

use serde_json::{Value, json};

use crate::harness::{Server, one_package, workflow};

const V2: &str = "/apis/v2beta1";

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Replaces what differs from run to run, so that a message can be compared whole.
fn stable(value: &Value) -> Value {
    let known = |key: &str, text: &str| match key {
        _ if text.starts_with("1970-01-01") => None,
        _ if key.ends_with("_at") || key.ends_with("_time") => Some("TIME"),
        "experiment_id" | "pipeline_id" | "pipeline_version_id" | "run_id" => Some("ID"),
        "task_id" | "parent_task_id" | "pod_name" | "main_job" => Some("NODE"),
        _ => None,
    };
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| {
                let value = match value.as_str().and_then(|text| known(key, text)) {
                    Some(stand_in) => json!(stand_in),
                    None => stable(value),
                };
                (key.clone(), value)
            })
            .collect(),
        Value::Array(items) => items.iter().map(stable).collect(),
        other => other.clone(),
    }
}

#[tokio::test]
async fn experiments_are_made_listed_archived_and_deleted() {
    let server = Server::start().await;
    let path = &format!("{V2}/experiments");
    let made = server
        .post(
            path,
            json!({"display_name": "e", "namespace": "", "description": "d"}),
        )
        .await;
    insta::assert_json_snapshot!("experiment", stable(&made));
    let id = text(&made["experiment_id"]);
    server
        .refused("POST", path, Some(json!({"display_name": "e"})), 409)
        .await;
    let message = server
        .refused("POST", path, Some(json!({"name": "e"})), 400)
        .await;
    assert!(message.contains("unknown field \"name\""), "{message}");
    let found = server
        .get(&format!(
            "{path}?page_token=&namespace=&filter=%7B%22predicates%22%3A+%5B%7B%22operation%22%3A+1%2C+%22key%22%3A+%22display_name%22%2C+%22stringValue%22%3A+%22e%22%7D%5D%7D"
        ))
        .await;
    assert_eq!(
        found["experiments"][0]["experiment_id"],
        made["experiment_id"]
    );
    assert_eq!(found["total_size"], 1);
    assert_eq!(
        server
            .post(&format!("{path}/{id}:archive"), json!({}))
            .await,
        json!({})
    );
    assert_eq!(
        server.get(&format!("{path}/{id}")).await["storage_state"],
        "ARCHIVED"
    );
    server
        .post(&format!("{path}/{id}:unarchive"), json!({}))
        .await;
    let (status, _) = server.send("DELETE", &format!("{path}/{id}"), None).await;
    assert_eq!(status, 200);
    server
        .refused("GET", &format!("{path}/{id}"), None, 404)
        .await;
    assert_eq!(server.get(path).await, json!({}));
}

#[tokio::test]
async fn pipelines_and_versions_live_and_die() {
    let server = Server::start_with(Some(one_package())).await;
    let path = format!("{V2}/pipelines");
    let file = workflow().to_string();
    let query = "name=p&display_name=The+P&description=d&tags=%7B%22team%22%3A%22a%22%7D";
    let (status, made) = server
        .upload(&format!("{path}/upload?{query}"), "p.yaml", file.as_bytes())
        .await;
    assert_eq!(status, 200, "{made}");
    insta::assert_json_snapshot!("pipeline", stable(&made));
    let id = text(&made["pipeline_id"]);
    let (status, taken) = server
        .upload(&format!("{path}/upload?name=p"), "p.yaml", file.as_bytes())
        .await;
    assert_eq!(status, 409);
    assert!(
        taken["error_message"].as_str().unwrap().contains("\"p\""),
        "{taken}"
    );
    assert!(taken["error_details"].is_string());

    let versions = format!("{path}/{id}/versions");
    let first = server.get(&versions).await["pipeline_versions"][0].clone();
    assert_eq!(first["pipeline_spec"], workflow());
    let (status, second) = server
        .upload(
            &format!("{path}/upload_version?name=v2&pipelineid={id}"),
            "p.yaml",
            file.as_bytes(),
        )
        .await;
    assert_eq!(status, 200, "{second}");
    insta::assert_json_snapshot!("version", stable(&second));
    let newest = server
        .get(&format!("{versions}?sort_by=created_at%20desc&page_size=1"))
        .await;
    assert_eq!(newest["pipeline_versions"][0]["name"], "v2");
    assert_eq!(newest["total_size"], 2);
    let token = text(&newest["next_page_token"]);
    let older = server.get(&format!("{versions}?page_token={token}")).await;
    assert_eq!(older["pipeline_versions"][0]["name"], "p");

    let version = text(&second["pipeline_version_id"]);
    let changed = server
        .send(
            "PATCH",
            &format!("{versions}/{version}"),
            Some(json!({"display_name": "Two", "tags": {"stage": "test"}})),
        )
        .await;
    assert_eq!(changed.1["display_name"], "Two");
    assert_eq!(changed.1["name"], "v2");
    let tagged = server
        .get(&format!(
            "{versions}?filter={{%22predicates%22:[{{%22operation%22:%22EQUALS%22,%22key%22:%22tags.stage%22,%22string_value%22:%22test%22}}]}}"
        ))
        .await;
    assert_eq!(tagged["total_size"], 1);
    let (_, cleared) = server
        .send("PATCH", &format!("{path}/{id}"), Some(json!({"tags": {}})))
        .await;
    assert_eq!(cleared["tags"], Value::Null);
    assert_eq!(cleared["display_name"], "The P");
    assert_eq!(
        server.get(&format!("{path}/names/p?namespace=")).await["pipeline_id"],
        made["pipeline_id"]
    );

    let message = server
        .refused("DELETE", &format!("{path}/{id}"), None, 400)
        .await;
    assert!(message.contains("2 versions"), "{message}");
    let (status, _) = server
        .send("DELETE", &format!("{versions}/{version}"), None)
        .await;
    assert_eq!(status, 200);
    server
        .refused("GET", &format!("{versions}/{version}"), None, 404)
        .await;
    let (status, _) = server
        .send("DELETE", &format!("{path}/{id}?cascade=true"), None)
        .await;
    assert_eq!(status, 200);
    assert_eq!(server.get(&path).await, json!({}));
}

#[tokio::test]
async fn packages_come_from_urls_through_the_seam() {
    let server = Server::start_with(Some(one_package())).await;
    let path = format!("{V2}/pipelines");
    let asked = |url: &str| {
        json!({"pipeline": {"display_name": "P"},
            "pipeline_version": {"package_url": {"pipeline_url": url}}})
    };
    let made = server
        .post(&format!("{path}/create"), asked("https://h/demo.yaml"))
        .await;
    let id = text(&made["pipeline_id"]);
    let version = json!({"display_name": "v2", "pipeline_id": id,
        "package_url": {"pipelineUrl": "http://h/demo.yaml"}});
    let made = server.post(&format!("{path}/{id}/versions"), version).await;
    assert_eq!(made["pipeline_spec"]["kind"], "Workflow");
    for (url, says) in [
        ("gs://bucket/p.yaml", "only http:// and https://"),
        ("https://h/other.yaml", "is not there"),
        ("", "name where the package is"),
    ] {
        let message = server
            .refused("POST", &format!("{path}/create"), Some(asked(url)), 400)
            .await;
        assert!(message.contains(says), "{message}");
    }
    let bare = server.post(&path, json!({"name": "bare"})).await;
    let versions = server
        .get(&format!("{path}/{}/versions", text(&bare["pipeline_id"])))
        .await;
    assert_eq!(versions, json!({}));
    server.refused("POST", &path, Some(json!({})), 400).await;
}

#[tokio::test]
async fn a_run_shows_its_tasks_and_its_history() {
    let server = Server::start().await;
    let path = format!("{V2}/runs");
    let made = server
        .post(
            &path,
            json!({"display_name": "r", "pipelineSpec": workflow(),
                "runtime_config": {"parameters": {"text": "hi"}, "pipeline_root": "minio://other/root"}}),
        )
        .await;
    assert_eq!(made["state"], "PENDING");
    assert_eq!(made["finished_at"], "1970-01-01T00:00:00Z");
    let id = text(&made["run_id"]);
    let mut changes = server.runner.subscribe();
    let pod = server.cluster.pod(".a").await;
    server
        .cluster
        .set_status(&pod, &json!({"phase": "Running"}));
    changes.recv().await.expect("news of the run");
    let running = server.get(&format!("{path}/{id}")).await;
    assert_eq!(running["state"], "RUNNING");
    server.cluster.succeed(&pod);
    server.end(&id).await;
    let run = server.get(&format!("{path}/{id}")).await;
    insta::assert_json_snapshot!("run", stable(&run));
    let states: Vec<String> = run["state_history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| text(&entry["state"]))
        .collect();
    assert_eq!(states, ["PENDING", "RUNNING", "SUCCEEDED"]);
    server
        .refused("POST", &format!("{path}/{id}:retry"), None, 409)
        .await;
    server
        .refused("POST", &format!("{path}/{id}:terminate"), None, 400)
        .await;
    let experiment = text(&run["experiment_id"]);
    let message = server
        .refused(
            "DELETE",
            &format!("{V2}/experiments/{experiment}"),
            None,
            409,
        )
        .await;
    assert!(message.contains("default experiment"), "{message}");
}

#[tokio::test]
async fn a_failed_run_says_which_task_failed_and_can_be_retried() {
    let server = Server::start().await;
    let path = format!("{V2}/runs");
    let made = server
        .post(
            &path,
            json!({"display_name": "r", "pipeline_spec": workflow()}),
        )
        .await;
    let id = text(&made["run_id"]);
    let pod = server.cluster.pod(".a").await;
    server.cluster.end(&pod, "Failed", 3, "no luck");
    server.end(&id).await;
    let run = server.get(&format!("{path}/{id}")).await;
    assert_eq!(run["state"], "FAILED");
    let message = text(&run["error"]["message"]);
    assert!(message.contains("task a failed"), "{message}");
    let task = run["run_details"]["task_details"]
        .as_array()
        .unwrap()
        .iter()
        .find(|task| task["display_name"] == "a")
        .unwrap()
        .clone();
    assert_eq!(task["attempts"][0]["exit_code"], 3);
    assert_eq!(task["inputs"]["text"]["value"], "hello");
    assert_eq!(
        task["executor_detail"]["failed_main_jobs"][0],
        task["pod_name"]
    );
    let filter = "{%22predicates%22:[{%22operation%22:%22EQUALS%22,%22key%22:%22state%22,%22string_value%22:%22FAILED%22}]}";
    assert_eq!(
        server.get(&format!("{path}?filter={filter}")).await["total_size"],
        1
    );
    assert_eq!(
        server.post(&format!("{path}/{id}:retry"), json!({})).await,
        json!({})
    );
    assert_eq!(
        server.get(&format!("{path}?filter={filter}")).await,
        json!({})
    );
    server
        .post(&format!("{path}/{id}:terminate"), json!({}))
        .await;
    server.end(&id).await;
    assert_eq!(server.get(&format!("{path}/{id}")).await["state"], "FAILED");
    let (status, _) = server.send("DELETE", &format!("{path}/{id}"), None).await;
    assert_eq!(status, 200);
    server
        .refused("DELETE", &format!("{path}/{id}"), None, 404)
        .await;
    assert_eq!(server.get(&path).await, json!({}));
}

#[tokio::test]
async fn a_run_needs_one_source_and_knows_its_version() {
    let server = Server::start().await;
    let (_, pipeline) = server
        .upload(
            &format!("{V2}/pipelines/upload?name=p"),
            "p.yaml",
            workflow().to_string().as_bytes(),
        )
        .await;
    let pipeline = text(&pipeline["pipeline_id"]);
    let path = format!("{V2}/runs");
    let run = server
        .post(
            &path,
            json!({"display_name": "r", "pipeline_version_reference": {"pipeline_id": pipeline}}),
        )
        .await;
    assert_eq!(
        run["pipeline_version_reference"]["pipeline_id"],
        pipeline.as_str()
    );
    assert_eq!(run["pipeline_spec"], Value::Null);
    let version = text(&run["pipeline_version_reference"]["pipeline_version_id"]);
    server
        .post(
            &path,
            json!({"display_name": "r", "pipeline_version_id": version}),
        )
        .await;
    for (body, status, says) in [
        (json!({"display_name": "r"}), 400, "name what it executes"),
        (json!({"pipeline_version_id": version}), 400, "display_name"),
        (
            json!({"display_name": "r", "pipeline_version_id": version, "pipeline_spec": workflow()}),
            400,
            "only one of",
        ),
        (
            json!({"display_name": "r", "pipeline_version_id": "gone"}),
            404,
            "gone",
        ),
        (
            json!({"display_name": "r", "pipeline_version_id": version, "experiment_id": "gone"}),
            404,
            "gone",
        ),
        (
            json!({"display_name": "r", "pipeline_version_id": version,
                "runtime_config": {"parameters": {"colour": "red"}}}),
            400,
            "colour",
        ),
        (
            json!({"display_name": "r", "pipeline_version_id": version,
                "runtime_config": {"pipeline_root": "nowhere"}}),
            400,
            "pipeline_root",
        ),
        (
            json!({"display_name": "r", "pipeline_spec": {"kind": "Cake"}}),
            400,
            "run.pipeline_spec",
        ),
        (
            json!({"display_name": "r", "pipeline_version_id": version,
                "plugins_output": {"mlflow": {}}}),
            409,
            "plugins_output",
        ),
        (
            json!({"display_name": "r", "pipeline_version_id": version, "runtime_config": {"x": 1}}),
            400,
            "run.runtime_config: unknown field \"x\"",
        ),
    ] {
        let message = server
            .refused("POST", &path, Some(body.clone()), status)
            .await;
        assert!(message.contains(says), "{body}: {message}");
    }
}

#[tokio::test]
async fn lists_of_runs_are_paged_sorted_and_filtered() {
    let server = Server::start().await;
    let path = format!("{V2}/runs");
    let experiment = server
        .post(&format!("{V2}/experiments"), json!({"display_name": "e"}))
        .await;
    let experiment = text(&experiment["experiment_id"]);
    for n in 0..5 {
        server
            .post(
                &path,
                json!({"display_name": format!("run {n}"), "pipeline_spec": workflow(),
                    "experiment_id": if n < 3 { experiment.as_str() } else { "" }}),
            )
            .await;
    }
    let names = |page: &Value| -> Vec<String> {
        let runs = page["runs"].as_array().cloned().unwrap_or_default();
        runs.iter().map(|run| text(&run["display_name"])).collect()
    };
    for sort in [
        "created_at",
        "name",
        "finished_at",
        "state",
        "scheduled_at",
        "storage_state",
        "experiment_id",
        "metric:accuracy",
        "description",
        "run_id",
        "recurring_run_id",
        "runtime_details",
        "state_history",
        "namespace",
    ] {
        let mut seen = Vec::new();
        let mut token = String::new();
        loop {
            let page = server
                .get(&format!(
                    "{path}?page_size=2&sort_by={sort}%20DESC&page_token={token}"
                ))
                .await;
            assert_eq!(page["total_size"], 5, "{sort}");
            seen.extend(names(&page));
            assert!(seen.len() <= 5, "{sort}: {seen:?}");
            match page["next_page_token"].as_str() {
                Some(next) => token = next.to_owned(),
                None => break,
            }
        }
        seen.sort();
        assert_eq!(
            seen,
            ["run 0", "run 1", "run 2", "run 3", "run 4"],
            "{sort}"
        );
    }
    let of = server
        .get(&format!(
            "{path}?experiment_id={experiment}&sort_by=name%20desc&page_size=2"
        ))
        .await;
    assert_eq!(names(&of), ["run 2", "run 1"]);
    assert_eq!(of["total_size"], 3);
    let token = text(&of["next_page_token"]);
    let message = server
        .refused(
            "GET",
            &format!("{path}?page_token={token}&sort_by=name"),
            None,
            400,
        )
        .await;
    assert!(message.contains("another sort_by"), "{message}");
    assert_eq!(
        server.get(&format!("{path}?namespace=elsewhere")).await,
        json!({})
    );
    let one = server.get(&path).await["runs"][0]["run_id"].clone();
    server
        .post(&format!("{path}/{}:archive", text(&one)), json!({}))
        .await;
    for (operation, total) in [("EQUALS", json!(1)), ("NOT_EQUALS", json!(4))] {
        let filter = format!(
            "{{%22predicates%22:[{{%22operation%22:%22{operation}%22,%22key%22:%22storage_state%22,%22string_value%22:%22ARCHIVED%22}}]}}"
        );
        let found = server.get(&format!("{path}?filter={filter}")).await;
        assert_eq!(found["total_size"], total, "{operation}");
    }
    for (query, says) in [
        ("page_size=-1", "negative"),
        ("page_token=x", "not one of ours"),
        ("sort_by=colour", "allowed: name"),
        ("filter=%5B%5D", "not a JSON object"),
    ] {
        let message = server
            .refused("GET", &format!("{path}?{query}"), None, 400)
            .await;
        assert!(message.contains(says), "{message}");
    }
}

#[tokio::test]
async fn an_archived_experiment_keeps_its_runs_archived() {
    let server = Server::start().await;
    let experiment = server
        .post(&format!("{V2}/experiments"), json!({"display_name": "e"}))
        .await;
    let experiment = text(&experiment["experiment_id"]);
    let body =
        json!({"display_name": "r", "pipeline_spec": workflow(), "experiment_id": experiment});
    let run = server.post(&format!("{V2}/runs"), body.clone()).await;
    let run = text(&run["run_id"]);
    server
        .post(&format!("{V2}/experiments/{experiment}:archive"), json!({}))
        .await;
    assert_eq!(
        server.get(&format!("{V2}/runs/{run}")).await["storage_state"],
        "ARCHIVED"
    );
    let message = server
        .refused("POST", &format!("{V2}/runs/{run}:unarchive"), None, 400)
        .await;
    assert!(message.contains("unarchive that first"), "{message}");
    server
        .refused("POST", &format!("{V2}/runs"), Some(body), 400)
        .await;
    server
        .post(
            &format!("{V2}/experiments/{experiment}:unarchive"),
            json!({}),
        )
        .await;
    server
        .post(&format!("{V2}/runs/{run}:unarchive"), json!({}))
        .await;
    let (status, _) = server
        .send("DELETE", &format!("{V2}/experiments/{experiment}"), None)
        .await;
    assert_eq!(status, 200);
    assert_eq!(
        server.get(&format!("{V2}/runs/{run}")).await["run_id"],
        run.as_str()
    );
}

#[tokio::test]
async fn every_documented_route_is_served_and_no_other() {
    let server = Server::start().await;
    for version in ["v1beta1", "v2beta1"] {
        let document = server.get(&format!("/apis/{version}/openapi.json")).await;
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.len() > 15, "{version}");
        for (path, operations) in paths {
            for method in operations.as_object().unwrap().keys() {
                let path = path.replace(['{', '}'], "");
                for prefix in ["", "/pipeline"] {
                    let (status, body) = server
                        .send(&method.to_uppercase(), &format!("{prefix}{path}"), None)
                        .await;
                    let text = body.to_string();
                    assert!(
                        status != 405 && !text.contains("not part of this API"),
                        "{method} {prefix}{path}: {status} {text}"
                    );
                }
            }
        }
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let whole = document.to_string();
        for reference in whole.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }
    server
        .refused("GET", "/apis/v2beta1/cakes", None, 404)
        .await;
    server
        .refused("POST", "/apis/v2beta1/runs/x:bake", None, 405)
        .await;
}
