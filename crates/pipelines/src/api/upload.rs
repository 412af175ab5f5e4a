//! `pipelines/upload` and `pipelines/upload_version` of both versions: a package as multipart form
//! data, its name, tags and so on in the query. Errors have a shape of their own here.

use axum::Json;
use axum::extract::multipart::MultipartError;
use axum::extract::{Multipart, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use pipelinespec::Package;
use serde::Deserialize;
use serde_json::json;

use super::route::{Route, post};
use super::wire::Failure;
use super::{Api, check, package, v1, v2};
use crate::store::pipelines::{self, Pipeline, Tags, Version};

const ABOUT: &[&str] = &[
    "name",
    "display_name",
    "description",
    "namespace",
    "tags",
    "code_source_url",
];

pub(super) fn routes() -> Vec<Route> {
    let (pipeline, version) = (
        "Upload a package as a pipeline and its first version",
        "Upload a package as a further version of a pipeline",
    );
    vec![
        post("/apis/v2beta1/pipelines/upload", pipeline, upload)
            .query(ABOUT)
            .takes_file()
            .answers::<v2::messages::Pipeline>(),
        post(
            "/apis/v2beta1/pipelines/upload_version",
            version,
            upload_version,
        )
        .query(ABOUT)
        .query_also("pipelineid")
        .takes_file()
        .answers::<v2::messages::PipelineVersion>(),
        post("/apis/v1beta1/pipelines/upload", pipeline, upload_v1)
            .query(ABOUT)
            .takes_file()
            .answers::<v1::messages::Pipeline>(),
        post(
            "/apis/v1beta1/pipelines/upload_version",
            version,
            upload_version_v1,
        )
        .query(ABOUT)
        .query_also("pipelineid")
        .takes_file()
        .answers::<v1::messages::PipelineVersion>(),
    ]
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct About {
    name: String,
    display_name: String,
    description: String,
    namespace: String,
    /// A JSON object of texts.
    tags: String,
    pipelineid: String,
    code_source_url: String,
}

/// The error shape of the upload handlers.
pub(super) struct Refused(Failure);

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

impl About {
    /// The name and the display name: the first that says anything is the name.
    fn names(&self, what: &str, file: &str, most: usize) -> Result<(String, String)> {
        let given = [self.name.as_str(), &self.display_name, file];
        let name = given.into_iter().find(|name| !name.is_empty());
        let name = name.unwrap_or_default().to_owned();
        check::name(what, &name, most)?;
        let display_name = if self.display_name.is_empty() {
            name.clone()
        } else {
            check::name(&format!("{what} for people"), &self.display_name, most)?;
            self.display_name.clone()
        };
        Ok((name, display_name))
    }

    fn tags(&self) -> Result<Tags> {
        if self.tags.is_empty() {
            return Ok(Tags::new());
        }
        let tags = serde_json::from_str(&self.tags).map_err(|e| {
            Failure::invalid(format!(
                "query parameter tags wants a JSON object of texts: {e}"
            ))
        })?;
        check::tags(&tags)?;
        Ok(tags)
    }

    /// Runs, and all else, are in one namespace.
    fn namespace(&self, api: &Api) -> Result<()> {
        if self.namespace.is_empty() || self.namespace == api.namespace {
            return Ok(());
        }
        Err(Failure::invalid(format!(
            "query parameter namespace {:?}: this server has only {:?}",
            self.namespace, api.namespace
        ))
        .into())
    }
}

async fn store_pipeline(api: &Api, about: About, form: Multipart) -> Result<Pipeline> {
    let (file_name, bytes) = file(form).await?;
    about.namespace(api)?;
    let tags = about.tags()?;
    let (name, display_name) = about.names("pipeline name", &file_name, check::PIPELINE_NAME)?;
    let package = package::from_file(&file_name, bytes).await?;
    let description = match (about.description.is_empty(), &package.description) {
        (true, Some(text)) => text.clone(),
        _ => about.description,
    };
    let (id, version_id, now) = (api.rng.uuid(), api.rng.uuid(), api.now());
    let pipeline = Pipeline {
        id: id.clone(),
        name: name.clone(),
        display_name: display_name.clone(),
        namespace: api.namespace.clone(),
        description: description.clone(),
        tags: tags.clone(),
        created_at: now,
        default_version: Some(version_id.clone()),
    };
    let version = Version {
        id: version_id,
        pipeline: id,
        name,
        display_name,
        description,
        code_source_url: about.code_source_url,
        tags,
        created_at: now,
        parameters: package::parameters(&package),
        spec: package::spec(&package),
    };
    pipelines::create(&api.db, pipeline.clone(), Some(version)).await?;
    Ok(pipeline)
}

async fn store_version(api: &Api, about: About, form: Multipart) -> Result<Version> {
    let (file_name, bytes) = file(form).await?;
    if about.pipelineid.is_empty() {
        return Err(Failure::invalid("query parameter pipelineid names no pipeline").into());
    }
    let tags = about.tags()?;
    let what = "pipeline version name";
    let (name, display_name) = about.names(what, &file_name, check::VERSION_NAME)?;
    let package: Package = package::from_file(&file_name, bytes).await?;
    let version = Version {
        id: api.rng.uuid(),
        pipeline: about.pipelineid,
        name,
        display_name,
        description: about.description,
        code_source_url: about.code_source_url,
        tags,
        created_at: api.now(),
        parameters: package::parameters(&package),
        spec: package::spec(&package),
    };
    pipelines::create_version(&api.db, version.clone()).await?;
    Ok(version)
}

async fn upload(
    State(api): State<Api>,
    Query(about): Query<About>,
    form: Multipart,
) -> Result<Json<v2::messages::Pipeline>> {
    let pipeline = store_pipeline(&api, about, form).await?;
    Ok(Json(v2::pipelines::shown(&pipeline)))
}

async fn upload_version(
    State(api): State<Api>,
    Query(about): Query<About>,
    form: Multipart,
) -> Result<Json<v2::messages::PipelineVersion>> {
    let version = store_version(&api, about, form).await?;
    Ok(Json(v2::pipelines::shown_version(&version)))
}

async fn upload_v1(
    State(api): State<Api>,
    Query(about): Query<About>,
    form: Multipart,
) -> Result<Json<v1::messages::Pipeline>> {
    let pipeline = store_pipeline(&api, about, form).await?;
    Ok(Json(v1::pipelines::shown(&api, &pipeline).await?))
}

async fn upload_version_v1(
    State(api): State<Api>,
    Query(about): Query<About>,
    form: Multipart,
) -> Result<Json<v1::messages::PipelineVersion>> {
    let version = store_version(&api, about, form).await?;
    Ok(Json(v1::pipelines::shown_version(&version)))
}
