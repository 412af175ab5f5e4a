//! `/apis/v1beta1/experiments`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};

use super::messages::{
    self, ExperimentStorageState, ListExperiments, Reference, Relationship, ResourceType,
};
use super::{Owner, SCOPED};
use crate::api::both::experiment::{archive, remove, unarchive};
use crate::api::message::{self, Time};
use crate::api::route::{LIST, Route, delete, get, post};
use crate::api::v2::messages::Nothing;
use crate::api::wire::Result;
use crate::api::{Api, check, launch};
use crate::store::experiments::{self, Experiment};
use crate::store::page;

pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/apis/v1beta1/experiments", "List experiments", list)
            .query(LIST)
            .query(SCOPED)
            .answers::<ListExperiments>(),
        post("/apis/v1beta1/experiments", "Create an experiment", create)
            .takes::<messages::Experiment>()
            .answers::<messages::Experiment>(),
        get("/apis/v1beta1/experiments/{id}", "Get an experiment", one)
            .answers::<messages::Experiment>(),
        delete(
            "/apis/v1beta1/experiments/{id}",
            "Delete an experiment; its runs stay",
            remove,
        )
        .answers::<Nothing>(),
        post(
            "/apis/v1beta1/experiments/{id}:archive",
            "Archive an experiment and its runs",
            archive,
        )
        .answers::<Nothing>(),
        post(
            "/apis/v1beta1/experiments/{id}:unarchive",
            "Take an experiment back; its runs stay archived",
            unarchive,
        )
        .answers::<Nothing>(),
    ]
}

/// The reference to the namespace that everything has.
pub(super) fn of_namespace(namespace: &str) -> Reference {
    Reference::new(ResourceType::Namespace, namespace, "", Relationship::Owner)
}

fn shown(experiment: &Experiment) -> messages::Experiment {
    messages::Experiment {
        id: experiment.id.clone(),
        name: experiment.name.clone(),
        description: experiment.description.clone(),
        created_at: Time(Some(experiment.created_at)),
        resource_references: vec![of_namespace(&experiment.namespace)],
        storage_state: if experiment.archived {
            ExperimentStorageState::Archived
        } else {
            ExperimentStorageState::Available
        },
        last_run_created_at: Time(Some(experiment.last_run_created_at)),
    }
}

async fn create(State(api): State<Api>, bytes: Bytes) -> Result<Json<messages::Experiment>> {
    let asked: messages::Experiment = message::parse("experiment", &bytes)?;
    check::name("experiment.name", &asked.name, check::EXPERIMENT_NAME)?;
    let made = launch::make_experiment(&api, &asked.name, asked.description).await?;
    Ok(Json(shown(&made)))
}

async fn list(
    State(api): State<Api>,
    Query(owner): Query<Owner>,
    Query(mut query): Query<page::Request>,
) -> Result<Json<ListExperiments>> {
    owner.namespace(&mut query)?;
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
