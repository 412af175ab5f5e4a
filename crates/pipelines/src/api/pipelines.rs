//! `/apis/v1beta1/pipelines` and `/apis/v1beta1/pipeline_versions`.

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::body::{self, Message};
use super::wire::{self, Failure, Result};
use crate::store::page;
use crate::store::pipelines::{self, Pipeline, Version};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/apis/v1beta1/pipelines", get(list).post(create))
        .route("/apis/v1beta1/pipelines/{id}", get(get_one).delete(delete))
        .route("/apis/v1beta1/pipelines/{id}/templates", get(template))
        .route(
            "/apis/v1beta1/pipelines/{id}/default_version/{version}",
            post(set_default),
        )
        .route(
            "/apis/v1beta1/namespaces/{namespace}/pipelines/{name}",
            get(by_name),
        )
        .route(
            "/apis/v1beta1/pipeline_versions",
            get(list_versions).post(create_version),
        )
        .route(
            "/apis/v1beta1/pipeline_versions/{id}",
            get(get_version).delete(delete_version),
        )
        .route(
            "/apis/v1beta1/pipeline_versions/{id}/templates",
            get(version_template),
        )
}

/// A pipeline with its default version.
pub(super) async fn render(api: &Api, pipeline: &Pipeline) -> Result<Value> {
    let version = match &pipeline.default_version {
        Some(id) => Some(pipelines::get_version(&api.db, id).await?),
        None => None,
    };
    Ok(wire::compact(json!({
        "id": pipeline.id,
        "created_at": wire::time(pipeline.created_at),
        "name": pipeline.name,
        "description": pipeline.description,
        "parameters": version.as_ref().map(|v| v.parameters.clone()),
        "default_version": version.as_ref().map(render_version),
        "resource_references": [{
            "key": {"type": "NAMESPACE", "id": pipeline.namespace}, "relationship": "OWNER",
        }],
    })))
}

pub(super) fn render_version(version: &Version) -> Value {
    wire::compact(json!({
        "id": version.id,
        "name": version.name,
        "created_at": wire::time(version.created_at),
        "description": version.description,
        "code_source_url": version.code_source_url,
        "parameters": version.parameters,
        "resource_references": [{
            "key": {"type": "PIPELINE", "id": version.pipeline}, "relationship": "OWNER",
        }],
    }))
}

async fn list(State(api): State<Api>, Query(query): Query<page::Request>) -> Result<Json<Value>> {
    let (found, page) = pipelines::list(&api.db, &query).await?;
    let mut items = Vec::with_capacity(found.len());
    for pipeline in &found {
        items.push(render(&api, pipeline).await?);
    }
    Ok(wire::page("pipelines", items, &page))
}

/// Importing by URL: this server fetches nothing from the network on its own.
async fn create(bytes: Bytes) -> Result<Json<Value>> {
    let value = body::parse(&bytes)?;
    let mut message = Message::new("pipeline", &value)?;
    let url = message.take("url").cloned().unwrap_or_default();
    Err(Failure::invalid(format!(
        "pipeline.url {}: packages are not fetched from the network; upload the file to \
         pipelines/upload instead",
        url.get("pipeline_url")
            .or_else(|| url.get("pipelineUrl"))
            .unwrap_or(&url)
    )))
}

async fn create_version(bytes: Bytes) -> Result<Json<Value>> {
    body::parse(&bytes)?;
    Err(Failure::invalid(
        "pipeline_version.package_url: packages are not fetched from the network; upload the file \
         to pipelines/upload_version instead",
    ))
}

async fn get_one(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>> {
    let pipeline = pipelines::get(&api.db, &id).await?;
    Ok(Json(render(&api, &pipeline).await?))
}

async fn by_name(
    State(api): State<Api>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Json<Value>> {
    // `-` stands for no namespace, which is where everything of a single user lies.
    let namespace = if namespace == "-" {
        &api.namespace
    } else {
        &namespace
    };
    let pipeline = pipelines::by_name(&api.db, namespace, &name).await?;
    Ok(Json(render(&api, &pipeline).await?))
}

async fn delete(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>> {
    pipelines::delete(&api.db, &id).await?;
    Ok(wire::nothing())
}

async fn template(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>> {
    let pipeline = pipelines::get(&api.db, &id).await?;
    let version = match pipeline.default_version {
        Some(version) => version,
        None => pipelines::latest_version(&api.db, &id).await?.id,
    };
    version_template(State(api), Path(version)).await
}

async fn version_template(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>> {
    Ok(Json(
        json!({"template": pipelines::spec(&api.db, &id).await?}),
    ))
}

async fn set_default(
    State(api): State<Api>,
    Path((id, version)): Path<(String, String)>,
) -> Result<Json<Value>> {
    pipelines::set_default_version(&api.db, &id, &version).await?;
    Ok(wire::nothing())
}

/// Whose versions are asked for.
#[derive(Debug, Default, Deserialize)]
struct Owner {
    #[serde(default, rename = "resource_key.id")]
    id: String,
}

async fn list_versions(
    State(api): State<Api>,
    Query(owner): Query<Owner>,
    Query(query): Query<page::Request>,
) -> Result<Json<Value>> {
    if owner.id.is_empty() {
        return Err(Failure::invalid(
            "resource_key.id: name the pipeline whose versions are meant",
        ));
    }
    let (found, page) = pipelines::list_versions(&api.db, &owner.id, &query).await?;
    Ok(wire::page(
        "versions",
        found.iter().map(render_version).collect(),
        &page,
    ))
}

async fn get_version(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>> {
    Ok(Json(render_version(
        &pipelines::get_version(&api.db, &id).await?,
    )))
}

async fn delete_version(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>> {
    pipelines::delete_version(&api.db, &id).await?;
    Ok(wire::nothing())
}
