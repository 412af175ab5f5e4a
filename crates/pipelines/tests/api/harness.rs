//! The API's router over a database in memory and the cluster in which the test plays the kubelet.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use db::Db;
use http_body_util::BodyExt as _;
use pipelines::api::{self, Api, Fetch};
use pipelines::recurring::Recurring;
use pipelines::runner::{Options, Runner};
use serde_json::{Value, json};
use stdx::{Supervisor, SystemClock, SystemRng};
use tower::ServiceExt as _;

use crate::support::Cluster;

pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) runner: Runner,
    pub(crate) cluster: Cluster,
    _supervisor: Supervisor,
    _directory: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    pub(crate) async fn start_with(fetch: Option<Fetch>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path: &Path = &directory.path().join("pipelines.db");
        let supervisor = Supervisor::new();
        let db = Db::open(db::Options::file(path), api::MIGRATIONS, &supervisor)
            .await
            .expect("a database");
        let cluster = Cluster::new();
        let (clock, rng) = (SystemClock::shared(), SystemRng::shared());
        let runner = Runner::start(
            Options::default(),
            db.clone(),
            cluster.client(),
            clock.clone(),
            rng.clone(),
            &supervisor,
        )
        .await
        .expect("a runner");
        let api = Api {
            db,
            runner: runner.clone(),
            client: cluster.client(),
            clock,
            rng,
            namespace: "kubeflow".to_owned(),
            fetch,
            counts: pipelines::api::Counts::default(),
            recurring: Recurring::default(),
        };
        Self {
            router: api.router(),
            runner,
            cluster,
            _supervisor: supervisor,
            _directory: directory,
        }
    }

    /// Sends a request and answers what comes back, whatever its shape.
    pub(crate) async fn raw(&self, request: Request<Body>) -> (StatusCode, String) {
        let answer = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("an answer");
        let status = answer.status();
        let bytes = answer.into_body().collect().await.expect("a body");
        (
            status,
            String::from_utf8_lossy(&bytes.to_bytes()).into_owned(),
        )
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
            .expect("a request");
        let (status, text) = self.raw(request).await;
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (status.as_u16(), value)
    }

    /// A GET that has to go well.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send("GET", path, None).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    /// A POST that has to go well.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.send("POST", path, Some(body)).await;
        assert_eq!(status, 200, "POST {path}: {answer}");
        answer
    }

    /// A request that has to be refused with this status; answers the message.
    pub(crate) async fn refused(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        status: u16,
    ) -> String {
        let (found, answer) = self.send(method, path, body).await;
        assert_eq!(found, status, "{method} {path}: {answer}");
        for member in ["error", "message", "code", "details"] {
            assert!(!answer[member].is_null(), "{member} is missing: {answer}");
        }
        assert_eq!(answer["error"], answer["message"]);
        answer["message"].as_str().expect("a message").to_owned()
    }

    pub(crate) async fn upload(&self, path: &str, file: &str, content: &[u8]) -> (u16, Value) {
        let body = form(file, content);
        let request = Request::builder()
            .method("POST")
            .uri(path)
            .header("content-type", "multipart/form-data; boundary=x")
            .body(Body::from(body))
            .expect("a request");
        let (status, text) = self.raw(request).await;
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (status.as_u16(), value)
    }

    /// Waits until a run is over.
    pub(crate) async fn end(&self, run: &str) {
        let mut changes = self.runner.subscribe();
        let wait = async {
            loop {
                let status = self.runner.status(run).await.expect("a status");
                if status.phase.finished() {
                    return;
                }
                let _ = changes.recv().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), wait)
            .await
            .expect("the run ends");
    }
}

/// The body of an upload, whose boundary is `x`.
pub(crate) fn form(file: &str, content: &[u8]) -> Vec<u8> {
    let mut body = format!(
        "--x\r\nContent-Disposition: form-data; name=\"uploadfile\"; filename=\"{file}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend(content);
    body.extend(b"\r\n--x--\r\n");
    body
}

/// A Workflow of one step with one parameter.
pub(crate) fn workflow() -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": "demo-"},
        "spec": {
            "entrypoint": "main",
            "arguments": {"parameters": [{"name": "text", "value": "hello"}]},
            "templates": [
                {"name": "main", "dag": {"tasks": [{"name": "a", "template": "step",
                    "arguments": {"parameters":
                        [{"name": "text", "value": "{{workflow.parameters.text}}"}]}}]}},
                {"name": "step", "inputs": {"parameters": [{"name": "text"}]},
                    "container": {"image": "i", "command": ["echo", "{{inputs.parameters.text}}"]}},
            ],
        },
    })
}

/// A seam that serves one package.
pub(crate) fn one_package() -> Fetch {
    Arc::new(|uri, limit| {
        Box::pin(async move {
            let body = workflow().to_string();
            match uri.path() {
                "/demo.yaml" if body.len() <= limit => Ok(body.into()),
                other => Err(format!("{other} is not there")),
            }
        })
    })
}
