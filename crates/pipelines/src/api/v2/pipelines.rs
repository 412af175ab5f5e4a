//! `/apis/v2beta1/pipelines` and their versions; uploads are in `api::upload`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use serde::Deserialize;

use super::messages::{
    self, CreatePipelineAndVersion, ListPipelineVersions, ListPipelines, Nothing, Url,
};
use crate::api::message::{self, Time};
use crate::api::route::{LIST, Route, delete, get, patch, post};
use crate::api::wire::{Failure, Result};
use crate::api::{Api, check, package};
use crate::store::page;
use crate::store::pipelines::{self, Change, Pipeline, Tags, Version};

pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/apis/v2beta1/pipelines", "List pipelines", list)
            .query(LIST)
            .answers::<ListPipelines>(),
        post(
            "/apis/v2beta1/pipelines",
            "Create a pipeline without versions",
            create,
        )
        .takes::<messages::Pipeline>()
        .answers::<messages::Pipeline>(),
        post(
            "/apis/v2beta1/pipelines/create",
            "Create a pipeline and its first version from a package's URL",
            create_with_version,
        )
        .takes::<CreatePipelineAndVersion>()
        .answers::<messages::Pipeline>(),
        get(
            "/apis/v2beta1/pipelines/names/{name}",
            "Get a pipeline by its name",
            by_name,
        )
        .query(&["namespace"])
        .answers::<messages::Pipeline>(),
        get(
            "/apis/v2beta1/pipelines/{pipeline_id}",
            "Get a pipeline",
            one,
        )
        .answers::<messages::Pipeline>(),
        patch(
            "/apis/v2beta1/pipelines/{pipeline_id}",
            "Change a pipeline's display name or tags",
            update,
        )
        .takes::<messages::Pipeline>()
        .answers::<messages::Pipeline>(),
        delete(
            "/apis/v2beta1/pipelines/{pipeline_id}",
            "Delete a pipeline; with cascade=true its versions too",
            remove,
        )
        .query(&["cascade"])
        .answers::<Nothing>(),
        get(
            "/apis/v2beta1/pipelines/{pipeline_id}/versions",
            "List a pipeline's versions",
            list_versions,
        )
        .query(LIST)
        .answers::<ListPipelineVersions>(),
        post(
            "/apis/v2beta1/pipelines/{pipeline_id}/versions",
            "Create a version from a package's URL",
            create_version,
        )
        .takes::<messages::PipelineVersion>()
        .answers::<messages::PipelineVersion>(),
        get(
            "/apis/v2beta1/pipelines/{pipeline_id}/versions/{pipeline_version_id}",
            "Get a version",
            one_version,
        )
        .answers::<messages::PipelineVersion>(),
        patch(
            "/apis/v2beta1/pipelines/{pipeline_id}/versions/{pipeline_version_id}",
            "Change a version's display name or tags",
            update_version,
        )
        .takes::<messages::PipelineVersion>()
        .answers::<messages::PipelineVersion>(),
        delete(
            "/apis/v2beta1/pipelines/{pipeline_id}/versions/{pipeline_version_id}",
            "Delete a version",
            remove_version,
        )
        .answers::<Nothing>(),
    ]
}

fn tags(tags: &Tags) -> Option<Tags> {
    (!tags.is_empty()).then(|| tags.clone())
}

pub(in crate::api) fn shown(pipeline: &Pipeline) -> messages::Pipeline {
    messages::Pipeline {
        pipeline_id: pipeline.id.clone(),
        display_name: pipeline.display_name.clone(),
        name: pipeline.name.clone(),
        description: pipeline.description.clone(),
        created_at: Time(Some(pipeline.created_at)),
        namespace: pipeline.namespace.clone(),
        error: None,
        tags: tags(&pipeline.tags),
    }
}

pub(in crate::api) fn shown_version(version: &Version) -> messages::PipelineVersion {
    messages::PipelineVersion {
        pipeline_id: version.pipeline.clone(),
        pipeline_version_id: version.id.clone(),
        display_name: version.display_name.clone(),
        name: version.name.clone(),
        description: version.description.clone(),
        created_at: Time(Some(version.created_at)),
        package_url: None,
        code_source_url: version.code_source_url.clone(),
        pipeline_spec: package::shown(&version.spec),
        error: None,
        tags: tags(&version.tags),
    }
}

async fn list(
    State(api): State<Api>,
    Query(query): Query<page::Request>,
) -> Result<Json<ListPipelines>> {
    let (found, page) = pipelines::list(&api.db, &query).await?;
    Ok(Json(ListPipelines {
        pipelines: found.iter().map(shown).collect(),
        total_size: page.total as i32,
        next_page_token: page.next,
    }))
}

/// The pipeline that a message asks for, with a name that is checked.
fn pipeline(api: &Api, asked: messages::Pipeline, fallback: &str) -> Result<Pipeline> {
    let candidates = [&asked.name, &asked.display_name, fallback];
    let name = candidates
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or_default()
        .to_owned();
    check::name("pipeline.name", &name, check::PIPELINE_NAME)?;
    let tags = asked.tags.unwrap_or_default();
    check::tags(&tags)?;
    Ok(Pipeline {
        id: api.rng.uuid(),
        display_name: if asked.display_name.is_empty() {
            name.clone()
        } else {
            asked.display_name
        },
        name,
        namespace: api.namespace.clone(),
        description: asked.description,
        tags,
        created_at: api.now(),
        default_version: None,
    })
}

async fn create(State(api): State<Api>, bytes: Bytes) -> Result<Json<messages::Pipeline>> {
    let asked: messages::Pipeline = message::parse("pipeline", &bytes)?;
    let new = pipeline(&api, asked, "")?;
    pipelines::create(&api.db, new.clone(), None).await?;
    Ok(Json(shown(&new)))
}

/// The version that a message asks for, from the package its URL names.
async fn version(
    api: &Api,
    pipeline: &str,
    asked: messages::PipelineVersion,
    fallback: &str,
) -> Result<Version> {
    let Some(Url { pipeline_url: url }) = asked.package_url.filter(|u| !u.pipeline_url.is_empty())
    else {
        return Err(Failure::invalid(
            "pipeline_version.package_url.pipeline_url: name where the package is, or upload it to \
             pipelines/upload_version",
        ));
    };
    let (file, package) =
        package::fetch(api, "pipeline_version.package_url.pipeline_url", &url).await?;
    let candidates = [&asked.name, &asked.display_name, fallback, &file];
    let name = candidates
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or_default()
        .to_owned();
    check::name("pipeline_version.name", &name, check::VERSION_NAME)?;
    let tags = asked.tags.unwrap_or_default();
    check::tags(&tags)?;
    Ok(Version {
        id: api.rng.uuid(),
        pipeline: pipeline.to_owned(),
        display_name: if asked.display_name.is_empty() {
            name.clone()
        } else {
            asked.display_name
        },
        name,
        description: asked.description,
        code_source_url: asked.code_source_url,
        tags,
        created_at: api.now(),
        parameters: package::parameters(&package),
        spec: package::spec(&package),
    })
}

async fn create_with_version(
    State(api): State<Api>,
    bytes: Bytes,
) -> Result<Json<messages::Pipeline>> {
    let asked: CreatePipelineAndVersion = message::parse("request", &bytes)?;
    let asked_version = asked.pipeline_version.unwrap_or_default();
    let mut new = pipeline(&api, asked.pipeline.unwrap_or_default(), "")?;
    let first = version(&api, &new.id, asked_version, &new.name).await?;
    new.default_version = Some(first.id.clone());
    pipelines::create(&api.db, new.clone(), Some(first)).await?;
    Ok(Json(shown(&new)))
}

async fn create_version(
    State(api): State<Api>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<messages::PipelineVersion>> {
    let asked: messages::PipelineVersion = message::parse("pipeline_version", &bytes)?;
    if !asked.pipeline_id.is_empty() && asked.pipeline_id != id {
        return Err(Failure::invalid(format!(
            "pipeline_version.pipeline_id {:?} is not the pipeline of the path, {id:?}",
            asked.pipeline_id
        )));
    }
    pipelines::get(&api.db, &id).await?;
    let new = version(&api, &id, asked, "").await?;
    pipelines::create_version(&api.db, new.clone()).await?;
    Ok(Json(shown_version(&new)))
}

async fn one(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<messages::Pipeline>> {
    Ok(Json(shown(&pipelines::get(&api.db, &id).await?)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Place {
    namespace: String,
}

async fn by_name(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
) -> Result<Json<messages::Pipeline>> {
    let namespace = match place.namespace.as_str() {
        "" | "-" => &api.namespace,
        namespace => namespace,
    };
    let found = pipelines::by_name(&api.db, namespace, &name).await?;
    Ok(Json(shown(&found)))
}

/// What a PATCH says: members that are absent stay as they are, `"tags": {}` clears them.
fn change(display_name: String, tags: Option<Tags>, most: usize) -> Result<Change> {
    if !display_name.is_empty() {
        check::name("display_name", &display_name, most)?;
    }
    if let Some(tags) = &tags {
        check::tags(tags)?;
    }
    Ok(Change {
        display_name: (!display_name.is_empty()).then_some(display_name),
        tags,
    })
}

async fn update(
    State(api): State<Api>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<messages::Pipeline>> {
    let asked: messages::Pipeline = message::parse("pipeline", &bytes)?;
    let change = change(asked.display_name, asked.tags, check::PIPELINE_NAME)?;
    pipelines::update(&api.db, &id, change).await?;
    one(State(api), Path(id)).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Removal {
    cascade: Option<bool>,
}

async fn remove(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(removal): Query<Removal>,
) -> Result<Json<Nothing>> {
    pipelines::delete(&api.db, &id, removal.cascade.unwrap_or(false)).await?;
    Ok(Json(Nothing))
}

async fn list_versions(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<page::Request>,
) -> Result<Json<ListPipelineVersions>> {
    let (found, page) = pipelines::list_versions(&api.db, &id, &query).await?;
    Ok(Json(ListPipelineVersions {
        pipeline_versions: found.iter().map(shown_version).collect(),
        next_page_token: page.next,
        total_size: page.total as i32,
    }))
}

/// A version, if it is one of this pipeline.
async fn version_of(api: &Api, pipeline: &str, id: &str) -> Result<Version> {
    let found = pipelines::get_version(&api.db, id).await?;
    if found.pipeline != pipeline {
        return Err(Failure::not_found(format!(
            "pipeline {pipeline} has no version {id}"
        )));
    }
    Ok(found)
}

async fn one_version(
    State(api): State<Api>,
    Path((pipeline, id)): Path<(String, String)>,
) -> Result<Json<messages::PipelineVersion>> {
    Ok(Json(shown_version(
        &version_of(&api, &pipeline, &id).await?,
    )))
}

async fn update_version(
    State(api): State<Api>,
    Path((pipeline, id)): Path<(String, String)>,
    bytes: Bytes,
) -> Result<Json<messages::PipelineVersion>> {
    let asked: messages::PipelineVersion = message::parse("pipeline_version", &bytes)?;
    version_of(&api, &pipeline, &id).await?;
    let change = change(asked.display_name, asked.tags, check::VERSION_NAME)?;
    pipelines::update_version(&api.db, &id, change).await?;
    one_version(State(api), Path((pipeline, id))).await
}

async fn remove_version(
    State(api): State<Api>,
    Path((pipeline, id)): Path<(String, String)>,
) -> Result<Json<Nothing>> {
    version_of(&api, &pipeline, &id).await?;
    pipelines::delete_version(&api.db, &id).await?;
    Ok(Json(Nothing))
}
