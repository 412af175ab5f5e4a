//! `/apis/v1beta1/experiments`.

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use serde_json::{Value, json};

use super::Api;
use super::body::{self, Message};
use super::wire::{self, Failure, Result};
use crate::store::experiments::Experiment;
use crate::store::{experiments, page};

/// The experiment of runs that name none.
const DEFAULT: &str = "Default";

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/apis/v1beta1/experiments", get(list).post(create))
        .route(
            "/apis/v1beta1/experiments/{id}",
            get(get_one).delete(delete).post(act),
        )
}

pub(super) fn render(experiment: &Experiment) -> Value {
    let state = if experiment.archived {
        "ARCHIVED"
    } else {
        "AVAILABLE"
    };
    wire::compact(json!({
        "id": experiment.id,
        "name": experiment.name,
        "description": experiment.description,
        "created_at": wire::time(experiment.created_at),
        "last_run_created_at": wire::time(experiment.last_run_created_at),
        "storage_state": format!("STORAGESTATE_{state}"),
        "resource_references": [{
            "key": {"type": "NAMESPACE", "id": experiment.namespace}, "relationship": "OWNER",
        }],
    }))
}

async fn create(State(api): State<Api>, bytes: Bytes) -> Result<Json<Value>> {
    let value = body::parse(&bytes)?;
    let mut message = Message::new("experiment", &value)?;
    let (name, description) = (message.text("name")?, message.text("description")?);
    body::references(message.list("resource_references")?)?;
    message.ignore(&["id", "created_at", "last_run_created_at", "storage_state"]);
    message.finish()?;
    if name.is_empty() || name.chars().count() > 128 {
        return Err(Failure::invalid(
            "experiment.name: wants 1 to 128 characters",
        ));
    }
    let made = make(&api, &name, description).await?;
    Ok(Json(render(&made)))
}

async fn make(api: &Api, name: &str, description: String) -> Result<Experiment> {
    let made = Experiment {
        id: api.rng.uuid(),
        name: name.to_owned(),
        namespace: api.namespace.clone(),
        description,
        created_at: api.now(),
        last_run_created_at: 0,
        archived: false,
    };
    experiments::create(&api.db, made.clone()).await?;
    Ok(made)
}

/// The default experiment, made when it is first needed.
pub(super) async fn default(api: &Api) -> Result<Experiment> {
    if let Some(found) = experiments::by_name(&api.db, &api.namespace, DEFAULT).await? {
        return Ok(found);
    }
    let about = "All runs that name no experiment are here.";
    match make(api, DEFAULT, about.to_owned()).await {
        // Somebody else was faster.
        Err(failure) if failure.code == wire::Code::AlreadyExists => {
            let found = experiments::by_name(&api.db, &api.namespace, DEFAULT).await?;
            found.ok_or(failure)
        }
        other => other,
    }
}

async fn list(State(api): State<Api>, Query(query): Query<page::Request>) -> Result<Json<Value>> {
    let (experiments, page) = experiments::list(&api.db, &query).await?;
    Ok(wire::page(
        "experiments",
        experiments.iter().map(render).collect(),
        &page,
    ))
}

async fn get_one(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>> {
    Ok(Json(render(&experiments::get(&api.db, &id).await?)))
}

async fn delete(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>> {
    let found = experiments::get(&api.db, &id).await?;
    if found.name == DEFAULT {
        return Err(Failure::new(
            wire::Code::FailedPrecondition,
            "the default experiment cannot be deleted",
        ));
    }
    experiments::delete(&api.db, &id).await?;
    Ok(wire::nothing())
}

/// `POST experiments/{id}:archive` and `:unarchive`; the verb is part of the path's last segment.
async fn act(State(api): State<Api>, Path(segment): Path<String>) -> Result<Json<Value>> {
    let (id, archived) = match segment.rsplit_once(':') {
        Some((id, "archive")) => (id, true),
        Some((id, "unarchive")) => (id, false),
        _ => {
            return Err(Failure::not_found(format!(
                "experiments/{segment}: no such action (there are :archive and :unarchive)"
            )));
        }
    };
    experiments::archive(&api.db, id, archived).await?;
    Ok(wire::nothing())
}
