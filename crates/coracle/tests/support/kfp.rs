//! A client for the Pipelines API (v1beta1), as plain as its wire.

use serde_json::{Value, json};

use super::http::{self, Answer};
use super::{Server, until};

/// Sends JSON (or nothing) to a path of the API.
pub(crate) async fn call(
    server: &Server,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Answer {
    let text = body.map(ToString::to_string).unwrap_or_default();
    let headers: &[(&str, &str)] = if body.is_some() {
        &[("Content-Type", "application/json")]
    } else {
        &[]
    };
    http::request(method, &server.url(path), headers, text)
        .await
        .unwrap()
}

/// A GET that must work.
pub(crate) async fn get(server: &Server, path: &str) -> Value {
    call(server, "GET", path, None).await.ok()
}

/// Uploads a package.
pub(crate) async fn upload(server: &Server, name: &str, file: &str, bytes: &[u8]) -> Answer {
    upload_to(
        server,
        &format!("/apis/v1beta1/pipelines/upload?name={name}"),
        file,
        bytes,
    )
    .await
}

/// Sends a file as the form field that both SDKs use.
pub(crate) async fn upload_to(server: &Server, path: &str, file: &str, bytes: &[u8]) -> Answer {
    const BOUNDARY: &str = "----a-boundary-that-no-package-holds";
    let mut body = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"uploadfile\"; \
         filename=\"{file}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(bytes);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    http::request("POST", &server.url(path), &[("Content-Type", &kind)], body)
        .await
        .unwrap()
}

/// Starts a run of an uploaded pipeline or of a workflow manifest; the answer may be a refusal.
pub(crate) async fn create_run(
    server: &Server,
    name: &str,
    mut source: Value,
    parameters: &[(&str, &str)],
) -> Answer {
    source["parameters"] = parameters
        .iter()
        .map(|(n, v)| json!({"name": n, "value": v}))
        .collect();
    let body = json!({"name": name, "pipeline_spec": source});
    call(server, "POST", "/apis/v1beta1/runs", Some(&body)).await
}

/// Starts a run of a workflow manifest, which must work, and gives its id.
pub(crate) async fn run_manifest(
    server: &Server,
    name: &str,
    manifest: &Value,
    parameters: &[(&str, &str)],
) -> String {
    let source = json!({"workflow_manifest": manifest.to_string()});
    let run = create_run(server, name, source, parameters).await.ok();
    run["run"]["id"].as_str().unwrap().to_owned()
}

/// A run as it is now.
pub(crate) async fn run(server: &Server, id: &str) -> Value {
    get(server, &format!("/apis/v1beta1/runs/{id}")).await
}

/// The live Workflow of a run's answer.
pub(crate) fn workflow(run: &Value) -> Value {
    let text = run["pipeline_runtime"]["workflow_manifest"]
        .as_str()
        .unwrap();
    serde_json::from_str(text).unwrap()
}

/// Waits until a run is over. The API has no watch; a server that is away is asked again.
pub(crate) async fn end(server: &Server, id: &str) -> Value {
    let url = server.url(&format!("/apis/v1beta1/runs/{id}"));
    until("the run ends", || async {
        let answer = http::get(&url).await.ok()?;
        if !answer.status.is_success() {
            return None;
        }
        let run = answer.json();
        let status = run["run"]["status"].as_str().unwrap_or_default();
        matches!(status, "Succeeded" | "Failed").then(|| run.clone())
    })
    .await
}

/// Waits for the end and demands success; a failure shows what the steps that failed wrote.
pub(crate) async fn succeed(server: &Server, id: &str) -> Value {
    let run = end(server, id).await;
    if run["run"]["status"] == "Succeeded" {
        return run;
    }
    let status = workflow(&run)["status"].clone();
    let mut logs = String::new();
    for (node, about) in status["nodes"].as_object().into_iter().flatten() {
        if about["type"] == "Pod" && about["phase"] != "Succeeded" {
            let path = format!("/apis/v1alpha1/runs/{id}/nodes/{node}/log");
            let log = call(server, "GET", &path, None).await.text;
            logs = format!("{logs}{}:\n{log}\n", about["displayName"]);
        }
    }
    panic!("{status:#}\n{logs}");
}

/// The step nodes of a run as (display name, phase), sorted.
pub(crate) fn steps(run: &Value) -> Vec<(String, String)> {
    let workflow = workflow(run);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let nodes = workflow["status"]["nodes"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let mut steps: Vec<_> = nodes
        .values()
        .filter(|node| node["type"] == "Pod")
        .map(|node| (text(&node["displayName"]), text(&node["phase"])))
        .collect();
    steps.sort();
    steps
}
