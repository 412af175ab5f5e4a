//! Packages between requests, the store and the runner: where one comes from (a file, a request's
//! body, an address on the web), and what the API shows of it.

use pipelinespec::Package;
use serde_json::{Value, json};

use super::Api;
use super::message::Json;
use super::wire::{Code, Failure, Result};

/// Understands an uploaded file. A large one takes a while, which nothing else should wait for.
pub(super) async fn from_file(name: &str, bytes: bytes::Bytes) -> Result<Package> {
    let file = name.to_owned();
    let understood = tokio::task::spawn_blocking(move || Package::from_file(&file, &bytes)).await;
    let understood = understood.unwrap_or_else(|end| match end.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        // The server is stopping.
        Err(end) => Err(pipelinespec::Error::Yaml(end.to_string())),
    });
    understood.map_err(|e| Failure::invalid(format!("invalid pipeline package {name:?}: {e}")))
}

/// Understands a package in a request: a Workflow, v2 IR, or v2 IR beside its platform document.
pub(super) fn from_value(at: &str, spec: &Value) -> Result<Package> {
    Package::from_json(spec.clone()).map_err(|e| Failure::invalid(format!("{at}: {e}")))
}

/// Understands a package in a member that holds its text.
pub(super) fn from_text(at: &str, text: &str) -> Result<Package> {
    Package::from_text(text).map_err(|e| Failure::invalid(format!("{at}: {e}")))
}

/// Understands a package that was stored.
pub(super) fn stored(version: &str, text: &str) -> Result<Package> {
    let broken = |why: String| {
        Failure::new(
            Code::Internal,
            format!("the stored package of pipeline version {version}: {why}"),
        )
    };
    let value = serde_json::from_str(text).map_err(|e| broken(e.to_string()))?;
    Package::from_json(value).map_err(|e| broken(e.to_string()))
}

/// The package as it is stored and shown, as JSON text.
pub(super) fn spec(package: &Package) -> String {
    package.document.to_string()
}

/// Whether a stored package is an Argo Workflow.
pub(super) fn is_workflow(spec: &str) -> bool {
    // A map's keys are in order in what is stored, so the first is telling.
    spec.trim_start().starts_with("{\"apiVersion\"")
}

/// A stored package for an answer.
pub(super) fn shown(spec: &str) -> Json {
    Json::stored(spec.to_owned())
}

/// The parameters as v1beta1 shows them: `[{name, value}]`.
pub(super) fn parameters(package: &Package) -> Value {
    package
        .parameters
        .iter()
        .map(|parameter| match &parameter.default {
            Some(value) => json!({"name": parameter.name, "value": value}),
            None => json!({"name": parameter.name}),
        })
        .collect()
}

/// The package at an address; what fetches it is given to the API from outside.
pub(super) async fn fetch(api: &Api, at: &str, url: &str) -> Result<(String, Package)> {
    let invalid = |why: &str| Failure::invalid(format!("{at} {url:?}: {why}"));
    let uri: http::Uri = url.parse().map_err(|_| invalid("this is no URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(invalid(
            "only http:// and https:// addresses are fetched; upload the file to \
             pipelines/upload instead",
        ));
    }
    let Some(fetch) = &api.fetch else {
        return Err(invalid(
            "this server fetches nothing from the network; upload the file to pipelines/upload \
             instead",
        ));
    };
    let bytes = fetch(uri.clone(), pipelinespec::MAX_BYTES)
        .await
        .map_err(|why| invalid(&why))?;
    let file = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let package = from_file(&file, bytes).await?;
    Ok((file, package))
}
