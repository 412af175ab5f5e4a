//! `/apis/v2beta1/experiments`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};

use super::messages::{self, ListExperiments, Nothing, StorageState};
use crate::api::both::experiment::{archive, remove, unarchive};
use crate::api::message::{self, Time};
use crate::api::route::{LIST, Route, delete, get, post};
use crate::api::wire::Result;
use crate::api::{Api, check, launch};
use crate::store::experiments::{self, Experiment};
use crate::store::page;

pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/apis/v2beta1/experiments", "List experiments", list)
            .query(LIST)
            .answers::<ListExperiments>(),
        post("/apis/v2beta1/experiments", "Create an experiment", create)
            .takes::<messages::Experiment>()
            .answers::<messages::Experiment>(),
        get(
            "/apis/v2beta1/experiments/{experiment_id}",
            "Get an experiment",
            one,
        )
        .answers::<messages::Experiment>(),
        delete(
            "/apis/v2beta1/experiments/{experiment_id}",
            "Delete an experiment; its runs stay",
            remove,
        )
        .answers::<Nothing>(),
        post(
            "/apis/v2beta1/experiments/{experiment_id}:archive",
            "Archive an experiment and its runs",
            archive,
        )
        .answers::<Nothing>(),
        post(
            "/apis/v2beta1/experiments/{experiment_id}:unarchive",
            "Take an experiment back; its runs stay archived",
            unarchive,
        )
        .answers::<Nothing>(),
    ]
}

fn shown(experiment: &Experiment) -> messages::Experiment {
    messages::Experiment {
        experiment_id: experiment.id.clone(),
        display_name: experiment.name.clone(),
        description: experiment.description.clone(),
        created_at: Time(Some(experiment.created_at)),
        namespace: experiment.namespace.clone(),
        storage_state: storage_state(experiment.archived),
        last_run_created_at: Time(Some(experiment.last_run_created_at)),
    }
}

pub(super) fn storage_state(archived: bool) -> StorageState {
    if archived {
        StorageState::Archived
    } else {
        StorageState::Available
    }
}

async fn create(State(api): State<Api>, bytes: Bytes) -> Result<Json<messages::Experiment>> {
    let asked: messages::Experiment = message::parse("experiment", &bytes)?;
    check::name(
        "experiment.display_name",
        &asked.display_name,
        check::EXPERIMENT_NAME,
    )?;
    let made = launch::make_experiment(&api, &asked.display_name, asked.description).await?;
    Ok(Json(shown(&made)))
}

async fn list(
    State(api): State<Api>,
    Query(query): Query<page::Request>,
) -> Result<Json<ListExperiments>> {
    let (found, page) = experiments::list(&api.db, &query).await?;
    Ok(Json(ListExperiments {
        experiments: found.iter().map(shown).collect(),
        total_size: page.total as i32,
        next_page_token: page.next,
    }))
}

async fn one(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<messages::Experiment>> {
    Ok(Json(shown(&experiments::get(&api.db, &id).await?)))
}
