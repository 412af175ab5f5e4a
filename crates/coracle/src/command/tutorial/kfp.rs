//! The Pipelines API as the tutorial needs it, over plain HTTP.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::failure::{Failure, Result};

const BOUNDARY: &str = "coracle-tutorial-part";

/// A client of one server.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    base: String,
}

impl Client {
    pub(super) fn new(url: &str) -> Self {
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Self {
            http,
            base: url.to_owned(),
        }
    }

    /// Sends a request and reads the JSON answer.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Value> {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.base)
        };
        let trouble = |why: &dyn std::fmt::Display| Failure::unreachable(format!("{url}: {why}"));
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header("Content-Type", content_type)
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| trouble(&e))?;
        let response = self
            .http
            .request(request)
            .await
            .map_err(|e| trouble(&stdx::error::chain(&e)))?;
        let status = response.status();
        let bytes = response
            .into_body()
            .collect()
            .await
            .map_err(|e| trouble(&e))?
            .to_bytes();
        let body: Value = serde_json::from_slice(&bytes).map_err(|e| trouble(&e))?;
        if !status.is_success() {
            let message = body["error_message"]
                .as_str()
                .or_else(|| body["message"].as_str());
            return Err(trouble(&format!(
                "{status}: {}",
                message.unwrap_or_default()
            )));
        }
        Ok(body)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(
            Method::POST,
            path,
            "application/json",
            body.to_string().into_bytes(),
        )
        .await
    }

    /// Reads something.
    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, "application/json", Vec::new())
            .await
    }

    /// Uploads a package; the answer is the pipeline's id.
    pub(super) async fn upload(&self, name: &str, file: &str, package: &[u8]) -> Result<String> {
        let mut form = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"uploadfile\"; \
             filename=\"{file}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        .into_bytes();
        form.extend_from_slice(package);
        form.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let path = format!("/apis/v1beta1/pipelines/upload?name={name}");
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        id(&self.call(Method::POST, &path, &kind, form).await?, "/id")
    }

    /// The experiment of this name, made if there is none.
    pub(super) async fn experiment(&self, name: &str) -> Result<String> {
        let filter = format!(
            "%7B%22predicates%22%3A%5B%7B%22op%22%3A%22EQUALS%22%2C%22key%22%3A%22name%22%2C\
             %22string_value%22%3A%22{name}%22%7D%5D%7D"
        );
        let found = self
            .get(&format!("/apis/v1beta1/experiments?filter={filter}"))
            .await?;
        match found.pointer("/experiments/0/id").and_then(Value::as_str) {
            Some(id) => Ok(id.to_owned()),
            None => id(
                &self
                    .post("/apis/v1beta1/experiments", &json!({"name": name}))
                    .await?,
                "/id",
            ),
        }
    }

    /// Starts a run; the answer is its id.
    pub(super) async fn start(
        &self,
        name: &str,
        pipeline: &str,
        experiment: &str,
        parameters: &[(&str, &str)],
    ) -> Result<String> {
        let parameters: Vec<Value> = parameters
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        let body = json!({
            "name": name,
            "pipeline_spec": {"pipeline_id": pipeline, "parameters": parameters},
            "resource_references": [{"key": {"type": "EXPERIMENT", "id": experiment},
                "relationship": "OWNER"}],
        });
        id(&self.post("/apis/v1beta1/runs", &body).await?, "/run/id")
    }

    /// A run's status and, if it failed, why.
    pub(super) async fn status(&self, run: &str) -> Result<(String, String)> {
        let body = self.get(&format!("/apis/v1beta1/runs/{run}")).await?;
        let text = |key: &str| body["run"][key].as_str().unwrap_or_default().to_owned();
        Ok((text("status"), text("error")))
    }
}

fn id(body: &Value, pointer: &str) -> Result<String> {
    body.pointer(pointer)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| Failure::failed(format!("the answer has no {pointer}: {body}")))
}
