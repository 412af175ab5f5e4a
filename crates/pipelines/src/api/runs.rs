//! `/apis/v1beta1/runs`.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use pipelinespec::Package;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{self, Message};
use super::wire::{self, Failure, Result};
use super::{Api, experiments as api_experiments};
use crate::runner::NewRun;
use crate::store::runs::{NewRecord, Record};
use crate::store::{experiments, page, pipelines, runs};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/apis/v1beta1/runs", get(list).post(create))
        .route(
            "/apis/v1beta1/runs/{id}",
            get(get_one).delete(delete).post(act),
        )
        .route("/apis/v1beta1/runs/{id}/terminate", post(terminate))
        .route("/apis/v1beta1/runs/{id}/retry", post(retry))
}

/// Where a run's Workflow comes from.
struct Source {
    manifest: Arc<Value>,
    pipeline: Option<String>,
    version: Option<String>,
}

async fn create(State(api): State<Api>, bytes: Bytes) -> Result<Json<Value>> {
    let value = body::parse(&bytes)?;
    let mut message = Message::new("run", &value)?;
    let (name, description) = (message.text("name")?, message.text("description")?);
    let account = message.text("service_account")?;
    let references = body::references(message.list("resource_references")?)?;
    let empty = json!({});
    let spec = message.take("pipeline_spec").unwrap_or(&empty);
    message.ignore(&[
        "id",
        "storage_state",
        "created_at",
        "scheduled_at",
        "finished_at",
        "status",
        "error",
        "metrics",
    ]);
    message.finish()?;
    if name.is_empty() {
        return Err(Failure::invalid("run.name: wants a name"));
    }
    let of = |kind: &str| {
        references
            .iter()
            .find(|r| r.kind == kind)
            .map(|r| r.id.clone())
    };
    let experiment = match of("EXPERIMENT") {
        Some(id) => experiments::get(&api.db, &id).await?,
        None => api_experiments::default(&api).await?,
    };
    if experiment.archived {
        return Err(Failure::new(
            wire::Code::FailedPrecondition,
            format!(
                "experiment {} is archived; unarchive it to start runs in it",
                experiment.id
            ),
        ));
    }
    let mut spec = Message::new("run.pipeline_spec", spec)?;
    let given = parameters(spec.list("parameters")?)?;
    let inline = spec.text("workflow_manifest")?;
    let pipeline_id = spec.text("pipeline_id")?;
    let v2 = spec.text("pipeline_manifest")?;
    let config = spec.take("runtime_config");
    spec.ignore(&["pipeline_name"]);
    spec.finish()?;
    if !v2.is_empty() || config.is_some_and(|c| c.as_object().is_some_and(|c| !c.is_empty())) {
        return Err(Failure::invalid(
            "run.pipeline_spec: pipeline_manifest and runtime_config belong to KFP v2 packages, \
             which come in a later version of this server; v1 uses workflow_manifest and parameters",
        ));
    }
    let source = source(
        &api,
        inline,
        pipeline_id,
        of("PIPELINE_VERSION"),
        of("PIPELINE"),
    )
    .await?;
    let shown: Value = given
        .iter()
        .map(|(n, v)| json!({"name": n, "value": v}))
        .collect();
    let id = api.rng.uuid();
    let record = NewRecord {
        id: id.clone(),
        name: name.clone(),
        namespace: api.namespace.clone(),
        description,
        experiment: experiment.id,
        pipeline: source.pipeline,
        version: source.version,
        service_account: account.clone(),
        parameters: shown,
        created_at: api.now(),
    };
    let new = NewRun {
        run_id: id.clone(),
        display_name: name,
        manifest: source.manifest,
        parameters: given
            .into_iter()
            .map(|(name, value)| (name, Value::String(value)))
            .collect(),
        service_account: account,
    };
    api.runner.create(new, Some(runs::insert(record))).await?;
    detail(&api, &id).await
}

fn parameters(items: &[Value]) -> Result<Vec<(String, String)>> {
    items
        .iter()
        .map(|item| {
            let mut parameter = Message::new("run.pipeline_spec.parameters", item)?;
            let pair = (parameter.text("name")?, parameter.text("value")?);
            parameter.finish()?;
            Ok(pair)
        })
        .collect()
}

async fn source(
    api: &Api,
    inline: String,
    pipeline: String,
    version: Option<String>,
    referenced: Option<String>,
) -> Result<Source> {
    if !inline.is_empty() {
        let package = Package::from_text(&inline)
            .map_err(|e| Failure::invalid(format!("run.pipeline_spec.workflow_manifest: {e}")))?;
        return Ok(Source {
            manifest: package.document,
            pipeline: None,
            version: None,
        });
    }
    let pipeline = if pipeline.is_empty() {
        referenced.unwrap_or_default()
    } else {
        pipeline
    };
    let version = match version {
        Some(id) => pipelines::get_version(&api.db, &id).await?,
        None if pipeline.is_empty() => {
            return Err(Failure::invalid(
                "run: give pipeline_spec.pipeline_id, pipeline_spec.workflow_manifest or a \
                 resource reference of type PIPELINE_VERSION",
            ));
        }
        None => match pipelines::get(&api.db, &pipeline).await?.default_version {
            Some(id) => pipelines::get_version(&api.db, &id).await?,
            None => pipelines::latest_version(&api.db, &pipeline).await?,
        },
    };
    let spec = pipelines::spec(&api.db, &version.id).await?;
    let manifest = serde_json::from_str(&spec)
        .map_err(|e| Failure::new(wire::Code::Internal, format!("stored package: {e}")))?;
    Ok(Source {
        manifest: Arc::new(manifest),
        pipeline: Some(version.pipeline),
        version: Some(version.id),
    })
}

/// The status of v1beta1.
fn status(record: &Record) -> &str {
    match record.phase.as_str() {
        "Succeeded" => "Succeeded",
        "Failed" | "Error" => "Failed",
        _ if record.terminating => "Terminating",
        "Pending" => "Pending",
        _ => "Running",
    }
}

fn render(record: &Record) -> Value {
    let run = &record.new;
    let state = if record.archived {
        "ARCHIVED"
    } else {
        "AVAILABLE"
    };
    let mut references = vec![
        json!({"key": {"type": "NAMESPACE", "id": run.namespace}, "relationship": "OWNER"}),
        json!({"key": {"type": "EXPERIMENT", "id": run.experiment},
            "name": record.experiment_name, "relationship": "OWNER"}),
    ];
    if let Some(version) = &run.version {
        references.push(json!({"key": {"type": "PIPELINE_VERSION", "id": version},
            "name": record.version_name, "relationship": "CREATOR"}));
    }
    wire::compact(json!({
        "id": run.id,
        "name": run.name,
        "storage_state": format!("STORAGESTATE_{state}"),
        "description": run.description,
        "pipeline_spec": wire::compact(json!({
            "pipeline_id": run.pipeline,
            "pipeline_name": record.pipeline_name,
            "workflow_manifest": record.manifest,
            "parameters": run.parameters,
        })),
        "resource_references": references,
        "service_account": run.service_account,
        "created_at": wire::time(run.created_at),
        "scheduled_at": wire::time(run.created_at),
        "finished_at": wire::time_or_epoch(record.finished_at.as_deref()),
        "status": status(record),
        "error": record.message,
    }))
}

/// A run with its live Workflow.
async fn detail(api: &Api, id: &str) -> Result<Json<Value>> {
    let record = runs::get(&api.db, id).await?;
    let workflow = api.runner.workflow_manifest(id).await?;
    Ok(Json(json!({
        "run": render(&record),
        "pipeline_runtime": {"workflow_manifest": workflow.to_string()},
    })))
}

/// Whose runs are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Owner {
    #[serde(rename = "resource_reference_key.type")]
    kind: String,
    #[serde(rename = "resource_reference_key.id")]
    id: String,
}

async fn list(
    State(api): State<Api>,
    Query(owner): Query<Owner>,
    Query(query): Query<page::Request>,
) -> Result<Json<Value>> {
    let experiment = match owner.kind.as_str() {
        "EXPERIMENT" | "1" => Some(owner.id.as_str()),
        "" | "NAMESPACE" | "5" | "UNKNOWN_RESOURCE_TYPE" | "0" => None,
        other => {
            return Err(Failure::invalid(format!(
                "resource_reference_key.type {other:?}: runs are listed by EXPERIMENT or NAMESPACE"
            )));
        }
    };
    let (found, page) = runs::list(&api.db, experiment, &query).await?;
    Ok(wire::page(
        "runs",
        found.iter().map(render).collect(),
        &page,
    ))
}

async fn get_one(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>> {
    detail(&api, &id).await
}

async fn delete(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>> {
    api.runner.delete(&id, Some(runs::remove(&id))).await?;
    Ok(wire::nothing())
}

/// `POST runs/{id}:archive` and `:unarchive`; the verb is part of the path's last segment.
async fn act(State(api): State<Api>, Path(segment): Path<String>) -> Result<Json<Value>> {
    let (id, archived) = match segment.rsplit_once(':') {
        Some((id, "archive")) => (id, true),
        Some((id, "unarchive")) => (id, false),
        _ => {
            return Err(Failure::not_found(format!(
                "runs/{segment}: no such action (there are :archive, :unarchive, /terminate, /retry)"
            )));
        }
    };
    runs::archive(&api.db, id, archived).await?;
    Ok(wire::nothing())
}

async fn terminate(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>> {
    api.runner.terminate(&id).await?;
    Ok(wire::nothing())
}

async fn retry(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>> {
    api.runner.retry(&id).await?;
    Ok(wire::nothing())
}
