//! `/apis/v2beta1/runs`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::experiments::storage_state;
use super::messages::{
    self, ListRuns, Nothing, PipelineVersionReference, RunDetails, RuntimeConfig, RuntimeState,
    RuntimeStatus, Status,
};
use super::tasks;
use crate::api::both::run::{archive, remove, retry, terminate, unarchive};
use crate::api::launch::{self, Source, Wanted};
use crate::api::message::{self, Json as Tree, Time, Values};
use crate::api::route::{LIST, Route, delete, get, post};
use crate::api::wire::{Code, Failure, Result};
use crate::api::{Api, actions, package};
use crate::store::page;
use crate::store::runs::{self, Record};

pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/apis/v2beta1/runs", "List runs", list)
            .query(LIST)
            .query_also("experiment_id")
            .answers::<ListRuns>(),
        post("/apis/v2beta1/runs", "Start a run", create)
            .query(&["experiment_id"])
            .takes::<messages::Run>()
            .answers::<messages::Run>(),
        get("/apis/v2beta1/runs/{run_id}", "Get a run", one)
            .query(&["experiment_id"])
            .answers::<messages::Run>(),
        delete("/apis/v2beta1/runs/{run_id}", "Delete a run", remove).answers::<Nothing>(),
        post(
            "/apis/v2beta1/runs/{run_id}:archive",
            "Put a run away",
            archive,
        )
        .answers::<Nothing>(),
        post(
            "/apis/v2beta1/runs/{run_id}:unarchive",
            "Take a run back",
            unarchive,
        )
        .answers::<Nothing>(),
        post(
            "/apis/v2beta1/runs/{run_id}:terminate",
            "End a run",
            terminate,
        )
        .answers::<Nothing>(),
        post(
            "/apis/v2beta1/runs/{run_id}:retry",
            "Try what failed in a run again",
            retry,
        )
        .answers::<Nothing>(),
    ]
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Owner {
    #[serde(alias = "experimentId")]
    experiment_id: String,
}

impl Owner {
    /// The experiment, if one is named.
    pub(super) fn experiment(&self) -> Option<&str> {
        (!self.experiment_id.is_empty()).then_some(self.experiment_id.as_str())
    }
}

/// Exactly one source, which is the oneof of the message.
async fn source(api: &Api, asked: &messages::Run) -> Result<Source> {
    let reference = asked.pipeline_version_reference.as_ref();
    let spec = match &asked.pipeline_spec {
        Tree::Tree(Value::Object(spec)) if spec.is_empty() => None,
        Tree::Tree(spec) => Some(spec),
        Tree::Unset | Tree::Text(_) => None,
    };
    match (reference, spec, asked.pipeline_version_id.as_str()) {
        (Some(reference), None, "") => {
            let (pipeline, version) = (&reference.pipeline_id, &reference.pipeline_version_id);
            if pipeline.is_empty() && version.is_empty() {
                return Err(Failure::invalid(
                    "run.pipeline_version_reference: name a pipeline_id or a pipeline_version_id",
                ));
            }
            launch::version(api, pipeline, version).await
        }
        (None, Some(spec), "") => Ok(Source::inline(package::from_value(
            "run.pipeline_spec",
            spec,
        )?)),
        (None, None, version) if !version.is_empty() => launch::version(api, "", version).await,
        (None, None, _) => Err(Failure::invalid(
            "run: name what it executes: pipeline_version_reference or pipeline_spec",
        )),
        _ => Err(Failure::invalid(
            "run: give only one of pipeline_version_reference, pipeline_spec and \
             pipeline_version_id",
        )),
    }
}

/// The limits of what plugins may be given.
pub(super) fn plugins(at: &str, given: &Map<String, Value>) -> Result<()> {
    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }
    if given.len() > 16 {
        return Err(Failure::invalid(format!(
            "{at}.plugins_input: {} plugins (allowed: up to 16)",
            given.len()
        )));
    }
    let mut total = 0;
    for (name, value) in given {
        let size = value.to_string().len();
        total += size;
        if size > 64 << 10 || depth(value) > 10 {
            return Err(Failure::invalid(format!(
                "{at}.plugins_input[{name:?}]: at most 64 KiB and 10 levels are allowed, it has \
                 {size} bytes and {} levels",
                depth(value)
            )));
        }
    }
    if total > 256 << 10 {
        return Err(Failure::invalid(format!(
            "{at}.plugins_input: {total} bytes (allowed: up to {})",
            256 << 10
        )));
    }
    Ok(())
}

async fn create(
    State(api): State<Api>,
    Query(owner): Query<Owner>,
    bytes: Bytes,
) -> Result<Json<messages::Run>> {
    let asked: messages::Run = message::parse("run", &bytes)?;
    if asked.display_name.is_empty() {
        return Err(Failure::invalid("run.display_name: wants a name"));
    }
    if !asked.plugins_output.0.is_empty() {
        return Err(Failure::new(
            Code::Aborted,
            "run.plugins_output is what the server answers; it cannot be set",
        ));
    }
    plugins("run", &asked.plugins_input.0)?;
    let source = source(&api, &asked).await?;
    let config = asked.runtime_config.unwrap_or_default();
    let experiment = if asked.experiment_id.is_empty() {
        owner.experiment_id
    } else {
        asked.experiment_id
    };
    let wanted = Wanted {
        name: asked.display_name,
        description: asked.description,
        experiment,
        source,
        parameters: config.parameters.0.into_iter().collect(),
        pipeline_root: config.pipeline_root,
        service_account: asked.service_account,
        plugins: asked.plugins_input.0,
        origin: None,
    };
    let id = launch::start(&api, wanted).await?;
    Ok(Json(full(&api, &id).await?))
}

/// What a list shows of a run.
fn shown(record: &Record) -> messages::Run {
    let run = &record.new;
    let reference = run
        .version
        .as_ref()
        .map(|version| PipelineVersionReference {
            pipeline_id: run.pipeline.clone().unwrap_or_default(),
            pipeline_version_id: version.clone(),
        });
    let state = RuntimeState::stored(&record.state);
    let parameters: Map<String, Value> = run
        .parameters
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|p| Some((p.get("name")?.as_str()?.to_owned(), p.get("value")?.clone())))
        .collect();
    messages::Run {
        experiment_id: run.experiment.clone(),
        run_id: run.id.clone(),
        display_name: run.name.clone(),
        storage_state: storage_state(record.archived),
        description: run.description.clone(),
        pipeline_spec: match &reference {
            Some(_) => Tree::Unset,
            None => package::shown(&record.manifest),
        },
        pipeline_version_reference: reference,
        runtime_config: Some(RuntimeConfig {
            parameters: Values(parameters),
            pipeline_root: run.pipeline_root.clone(),
        }),
        service_account: run.service_account.clone(),
        created_at: Time(Some(run.created_at)),
        scheduled_at: Time(Some(run.scheduled_at)),
        // The original says 1970 for what has not happened yet.
        finished_at: Time(Some(record.finished_at)),
        state,
        error: (state == RuntimeState::Failed).then(|| {
            let message = record.message.clone();
            Status::failed(message.unwrap_or_else(|| "the run failed".to_owned()))
        }),
        recurring_run_id: run.recurring_run.clone(),
        plugins_input: Values(run.plugins.clone()),
        ..messages::Run::default()
    }
}

/// A run with its history and the details of its tasks.
async fn full(api: &Api, id: &str) -> Result<messages::Run> {
    let mut run = shown(&runs::get(&api.db, id).await?);
    let details = api
        .runner
        .inspect(id, |run, record, _| tasks::details(run, &record.workflow))
        .await?;
    if let Some(error) = &mut run.error {
        explain(error, &details);
    }
    run.state_history = runs::history(&api.db, id)
        .await?
        .into_iter()
        .map(|(at, state)| {
            let state = RuntimeState::stored(&state);
            let error = run.error.clone();
            RuntimeStatus {
                update_time: Time(Some(at)),
                state,
                error: error.filter(|_| state == RuntimeState::Failed),
            }
        })
        .collect();
    run.run_details = Some(RunDetails {
        task_details: details,
        ..RunDetails::default()
    });
    Ok(run)
}

/// Adds which tasks failed, unless the run's message names them already.
fn explain(error: &mut Status, details: &[messages::TaskDetail]) {
    let failed: Vec<&str> = details
        .iter()
        .filter(|task| !task.attempts.is_empty())
        .filter_map(|task| task.error.as_ref())
        .map(|error| error.message.as_str())
        .collect();
    let Some(first) = failed.first() else { return };
    if error.message.contains(first) {
        return;
    }
    let more = match failed.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    error.message = format!("{}: {first}{more}", error.message);
}

async fn one(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<messages::Run>> {
    Ok(Json(full(&api, &id).await?))
}

async fn list(
    State(api): State<Api>,
    Query(owner): Query<Owner>,
    Query(query): Query<page::Request>,
) -> Result<Json<ListRuns>> {
    let of = runs::Of {
        experiment: owner.experiment(),
        recurring_run: None,
    };
    let (found, page) = actions::list(&api, of, &query).await?;
    Ok(Json(ListRuns {
        runs: found.iter().map(shown).collect(),
        total_size: page.total as i32,
        next_page_token: page.next,
    }))
}
