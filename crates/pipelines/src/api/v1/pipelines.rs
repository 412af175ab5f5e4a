//! `/apis/v1beta1/pipelines` and `/apis/v1beta1/pipeline_versions`; uploads are in `api::upload`.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::Value;

use super::experiments::of_namespace;
use super::messages::{
    self, ListPipelineVersions, ListPipelines, Parameter, Reference, Relationship, ResourceType,
    Template, Url,
};
use super::{Owner, SCOPED};
use crate::api::message::{self, Time};
use crate::api::route::{LIST, Route, delete, get, post};
use crate::api::v2::messages::Nothing;
use crate::api::wire::{Failure, Result};
use crate::api::{Api, check, package};
use crate::store::page;
use crate::store::pipelines::{self, Pipeline, Version};

pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/apis/v1beta1/pipelines", "List pipelines", list)
            .query(LIST)
            .query(SCOPED)
            .answers::<ListPipelines>(),
        post(
            "/apis/v1beta1/pipelines",
            "Create a pipeline from a package's URL",
            create,
        )
        .takes::<messages::Pipeline>()
        .answers::<messages::Pipeline>(),
        get("/apis/v1beta1/pipelines/{id}", "Get a pipeline", one).answers::<messages::Pipeline>(),
        delete(
            "/apis/v1beta1/pipelines/{id}",
            "Delete a pipeline and its versions",
            remove,
        )
        .answers::<Nothing>(),
        get(
            "/apis/v1beta1/pipelines/{id}/templates",
            "Get the package of a pipeline's default version",
            template,
        )
        .answers::<Template>(),
        post(
            "/apis/v1beta1/pipelines/{pipeline_id}/default_version/{version_id}",
            "Make a version the default one",
            set_default,
        )
        .answers::<Nothing>(),
        get(
            "/apis/v1beta1/namespaces/{namespace}/pipelines/{name}",
            "Get a pipeline by its name; - stands for no namespace",
            by_name,
        )
        .answers::<messages::Pipeline>(),
        get(
            "/apis/v1beta1/pipeline_versions",
            "List a pipeline's versions",
            list_versions,
        )
        .query(LIST)
        .query(&["resource_key.type", "resource_key.id"])
        .answers::<ListPipelineVersions>(),
        post(
            "/apis/v1beta1/pipeline_versions",
            "Create a version from a package's URL",
            create_version,
        )
        .takes::<messages::PipelineVersion>()
        .answers::<messages::PipelineVersion>(),
        get(
            "/apis/v1beta1/pipeline_versions/{version_id}",
            "Get a version",
            one_version,
        )
        .answers::<messages::PipelineVersion>(),
        delete(
            "/apis/v1beta1/pipeline_versions/{version_id}",
            "Delete a version",
            remove_version,
        )
        .answers::<Nothing>(),
        get(
            "/apis/v1beta1/pipeline_versions/{version_id}/templates",
            "Get a version's package",
            version_template,
        )
        .answers::<Template>(),
    ]
}

fn parameters(stored: &Value) -> Vec<Parameter> {
    stored
        .as_array()
        .into_iter()
        .flatten()
        .map(|parameter| Parameter {
            name: parameter
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            value: parameter
                .get("value")
                .map(engine::render)
                .unwrap_or_default(),
        })
        .collect()
}

/// A pipeline with its default version.
pub(in crate::api) async fn shown(api: &Api, pipeline: &Pipeline) -> Result<messages::Pipeline> {
    let version = match &pipeline.default_version {
        Some(id) => Some(pipelines::get_version(&api.db, id).await?),
        None => None,
    };
    let version = version.as_ref().map(shown_version);
    Ok(messages::Pipeline {
        id: pipeline.id.clone(),
        created_at: Time(Some(pipeline.created_at)),
        name: pipeline.name.clone(),
        description: pipeline.description.clone(),
        parameters: version
            .as_ref()
            .map(|v| v.parameters.clone())
            .unwrap_or_default(),
        default_version: version,
        resource_references: vec![of_namespace(&pipeline.namespace)],
        ..messages::Pipeline::default()
    })
}

pub(in crate::api) fn shown_version(version: &Version) -> messages::PipelineVersion {
    messages::PipelineVersion {
        id: version.id.clone(),
        name: version.name.clone(),
        created_at: Time(Some(version.created_at)),
        parameters: parameters(&version.parameters),
        code_source_url: version.code_source_url.clone(),
        package_url: None,
        resource_references: vec![Reference::new(
            ResourceType::Pipeline,
            &version.pipeline,
            "",
            Relationship::Owner,
        )],
        description: version.description.clone(),
    }
}

async fn list(
    State(api): State<Api>,
    Query(owner): Query<Owner>,
    Query(mut query): Query<page::Request>,
) -> Result<Json<ListPipelines>> {
    owner.namespace(&mut query)?;
    let (found, page) = pipelines::list(&api.db, &query).await?;
    let mut shown_pipelines = Vec::with_capacity(found.len());
    for pipeline in &found {
        shown_pipelines.push(shown(&api, pipeline).await?);
    }
    Ok(Json(ListPipelines {
        pipelines: shown_pipelines,
        total_size: page.total as i32,
        next_page_token: page.next,
    }))
}

/// The version made of the package at a URL.
async fn fetched(
    api: &Api,
    at: &str,
    url: Option<Url>,
    pipeline: &str,
    name: &str,
) -> Result<Version> {
    let url = url.unwrap_or_default().pipeline_url;
    if url.is_empty() {
        return Err(Failure::invalid(format!(
            "{at}: name where the package is, or upload it to pipelines/upload"
        )));
    }
    let (file, package) = package::fetch(api, at, &url).await?;
    let name = if name.is_empty() {
        file
    } else {
        name.to_owned()
    };
    check::name("pipeline version name", &name, check::VERSION_NAME)?;
    Ok(Version {
        id: api.rng.uuid(),
        pipeline: pipeline.to_owned(),
        display_name: name.clone(),
        name,
        description: String::new(),
        code_source_url: String::new(),
        tags: BTreeMap::new(),
        created_at: api.now(),
        parameters: package::parameters(&package),
        spec: package::spec(&package),
    })
}

async fn create(State(api): State<Api>, bytes: Bytes) -> Result<Json<messages::Pipeline>> {
    let asked: messages::Pipeline = message::parse("pipeline", &bytes)?;
    let id = api.rng.uuid();
    let mut first = fetched(
        &api,
        "pipeline.url.pipeline_url",
        asked.url,
        &id,
        &asked.name,
    )
    .await?;
    first.description.clone_from(&asked.description);
    let pipeline = Pipeline {
        id,
        name: first.name.clone(),
        display_name: first.name.clone(),
        namespace: api.namespace.clone(),
        description: asked.description,
        tags: BTreeMap::new(),
        created_at: first.created_at,
        default_version: Some(first.id.clone()),
    };
    pipelines::create(&api.db, pipeline.clone(), Some(first)).await?;
    Ok(Json(shown(&api, &pipeline).await?))
}

async fn create_version(
    State(api): State<Api>,
    bytes: Bytes,
) -> Result<Json<messages::PipelineVersion>> {
    let asked: messages::PipelineVersion = message::parse("pipeline_version", &bytes)?;
    let owner = Reference::find(&asked.resource_references, ResourceType::Pipeline);
    let Some(pipeline) = owner else {
        return Err(Failure::invalid(
            "pipeline_version.resource_references: name the pipeline with a reference of type \
             PIPELINE",
        ));
    };
    pipelines::get(&api.db, pipeline).await?;
    let at = "pipeline_version.package_url.pipeline_url";
    let mut new = fetched(&api, at, asked.package_url, pipeline, &asked.name).await?;
    new.description = asked.description;
    new.code_source_url = asked.code_source_url;
    pipelines::create_version(&api.db, new.clone()).await?;
    Ok(Json(shown_version(&new)))
}

async fn one(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<messages::Pipeline>> {
    let pipeline = pipelines::get(&api.db, &id).await?;
    Ok(Json(shown(&api, &pipeline).await?))
}

async fn by_name(
    State(api): State<Api>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Json<messages::Pipeline>> {
    // `-` stands for no namespace, which is where everything of a single user lies.
    let namespace = if namespace == "-" {
        &api.namespace
    } else {
        &namespace
    };
    let pipeline = pipelines::by_name(&api.db, namespace, &name).await?;
    Ok(Json(shown(&api, &pipeline).await?))
}

async fn remove(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Nothing>> {
    pipelines::delete(&api.db, &id, true).await?;
    Ok(Json(Nothing))
}

async fn template(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Template>> {
    let pipeline = pipelines::get(&api.db, &id).await?;
    let version = match pipeline.default_version {
        Some(version) => pipelines::get_version(&api.db, &version).await?,
        None => pipelines::latest_version(&api.db, &id).await?,
    };
    Ok(Json(Template {
        template: version.spec,
    }))
}

async fn version_template(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<Template>> {
    let version = pipelines::get_version(&api.db, &id).await?;
    Ok(Json(Template {
        template: version.spec,
    }))
}

async fn set_default(
    State(api): State<Api>,
    Path((id, version)): Path<(String, String)>,
) -> Result<Json<Nothing>> {
    pipelines::set_default_version(&api.db, &id, &version).await?;
    Ok(Json(Nothing))
}

/// Whose versions are asked for.
#[derive(Debug, Default, Deserialize)]
struct Key {
    #[serde(default, rename = "resource_key.id", alias = "resourceKey.id")]
    id: String,
}

async fn list_versions(
    State(api): State<Api>,
    Query(owner): Query<Key>,
    Query(query): Query<page::Request>,
) -> Result<Json<ListPipelineVersions>> {
    if owner.id.is_empty() {
        return Err(Failure::invalid(
            "resource_key.id: name the pipeline whose versions are meant",
        ));
    }
    let (found, page) = pipelines::list_versions(&api.db, &owner.id, &query).await?;
    Ok(Json(ListPipelineVersions {
        versions: found.iter().map(shown_version).collect(),
        next_page_token: page.next,
        total_size: page.total as i32,
    }))
}

async fn one_version(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<messages::PipelineVersion>> {
    let version = pipelines::get_version(&api.db, &id).await?;
    Ok(Json(shown_version(&version)))
}

async fn remove_version(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Nothing>> {
    pipelines::delete_version(&api.db, &id).await?;
    Ok(Json(Nothing))
}
