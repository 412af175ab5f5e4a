//! `/apis/v1beta1/pipelines/upload` and `upload_version`: a package as multipart form data.

use axum::extract::multipart::MultipartError;
use axum::extract::{Multipart, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use pipelinespec::Package;
use serde::Deserialize;
use serde_json::{Value, json};

use super::wire::{self, Code, Failure};
use super::{Api, pipelines as render};
use crate::store::pipelines::{self, Pipeline, Version};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/apis/v1beta1/pipelines/upload", post(upload))
        .route(
            "/apis/v1beta1/pipelines/upload_version",
            post(upload_version),
        )
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct About {
    name: String,
    display_name: String,
    description: String,
    pipelineid: String,
    code_source_url: String,
}

/// The error shape of the upload handlers.
struct Refused(Failure);

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl From<crate::store::Error> for Refused {
    fn from(error: crate::store::Error) -> Self {
        Self(error.into())
    }
}

impl From<MultipartError> for Refused {
    fn from(error: MultipartError) -> Self {
        let message = if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            format!(
                "file size too large: the maximum is {} bytes",
                pipelinespec::MAX_BYTES
            )
        } else {
            format!("failed to read the uploaded form: {}", error.body_text())
        };
        Self(Failure::invalid(message))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = json!({"error_message": self.0.message, "error_details": self.0.message});
        (self.0.status(), Json(body)).into_response()
    }
}

type Result<T> = std::result::Result<T, Refused>;

/// The file of the form: the part named `uploadfile`.
async fn file(mut form: Multipart) -> Result<(String, Bytes)> {
    while let Some(part) = form.next_field().await? {
        if part.name() == Some("uploadfile") {
            let name = part.file_name().unwrap_or_default().to_owned();
            return Ok((name, part.bytes().await?));
        }
    }
    Err(Failure::invalid("the form has no part named \"uploadfile\"").into())
}

fn package(name: &str, bytes: &[u8]) -> Result<Package> {
    Package::from_file(name, bytes)
        .map_err(|e| Failure::invalid(format!("invalid pipeline package {name:?}: {e}")).into())
}

/// The parameters as the API shows them.
fn parameters(package: &Package) -> Value {
    package
        .parameters
        .iter()
        .map(|p| wire::compact(json!({"name": p.name, "value": p.default})))
        .collect()
}

async fn upload(
    State(api): State<Api>,
    Query(about): Query<About>,
    form: Multipart,
) -> Result<Json<Value>> {
    let (file_name, bytes) = file(form).await?;
    let package = package(&file_name, &bytes)?;
    let name = name(
        "pipeline name",
        128,
        [about.name, about.display_name, file_name],
    )?;
    let (id, version_id, now) = (api.rng.uuid(), api.rng.uuid(), api.now());
    let description = match (about.description.is_empty(), &package.description) {
        (true, Some(text)) => text.clone(),
        _ => about.description,
    };
    let pipeline = Pipeline {
        id: id.clone(),
        name: name.clone(),
        namespace: api.namespace.clone(),
        description: description.clone(),
        created_at: now,
        default_version: Some(version_id.clone()),
    };
    let version = Version {
        id: version_id,
        pipeline: id,
        name,
        description,
        code_source_url: about.code_source_url,
        created_at: now,
        parameters: parameters(&package),
    };
    let spec = package.document.to_string();
    pipelines::create(&api.db, pipeline.clone(), version, spec).await?;
    Ok(Json(render::render(&api, &pipeline).await?))
}

async fn upload_version(
    State(api): State<Api>,
    Query(about): Query<About>,
    form: Multipart,
) -> Result<Json<Value>> {
    let (file_name, bytes) = file(form).await?;
    if about.pipelineid.is_empty() {
        return Err(Failure::invalid("query parameter pipelineid names no pipeline").into());
    }
    let package = package(&file_name, &bytes)?;
    let name = name(
        "pipeline version name",
        127,
        [about.name, about.display_name, file_name],
    )?;
    let version = Version {
        id: api.rng.uuid(),
        pipeline: about.pipelineid,
        name,
        description: about.description,
        code_source_url: about.code_source_url,
        created_at: api.now(),
        parameters: parameters(&package),
    };
    pipelines::create_version(&api.db, version.clone(), package.document.to_string()).await?;
    Ok(Json(render::render_version(&version)))
}

/// The first of the candidates that says anything, if it is not too long.
fn name(what: &str, most: usize, candidates: [String; 3]) -> Result<String> {
    let given = candidates.into_iter().find(|name| !name.is_empty());
    let name = given.unwrap_or_default();
    let length = name.chars().count();
    if (1..=most).contains(&length) {
        return Ok(name);
    }
    let message = format!("{what} has {length} characters (allowed: 1 to {most})");
    Err(Failure::new(Code::InvalidArgument, message).into())
}
