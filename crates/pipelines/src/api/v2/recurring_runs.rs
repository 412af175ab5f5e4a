//! `/apis/v2beta1/recurringruns`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::messages::{
    CronSchedule, ListRecurringRuns, Mode, Nothing, PeriodicSchedule, PipelineVersionReference,
    Preview, RecurringRun, RecurringRunStatus, RuntimeConfig, Status, Trigger,
};
use crate::api::both::recurring_run::{disable, enable};
use crate::api::message::{self, Int64, Json as Tree, Time, Values, Wire as _};
use crate::api::recurring::{self, Asked, Propagation, SourceOf, TriggerOf};
use crate::api::route::{LIST, Route, delete, get, patch, post};
use crate::api::wire::{Failure, Result};
use crate::api::{Api, package};
use crate::recurring::schedule::Schedule;
use crate::store::{page, recurring as store};

pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/apis/v2beta1/recurringruns", "List recurring runs", list)
            .query(LIST)
            .query_also("experiment_id")
            .answers::<ListRecurringRuns>(),
        post(
            "/apis/v2beta1/recurringruns",
            "Make a recurring run",
            create,
        )
        .takes::<RecurringRun>()
        .answers::<RecurringRun>(),
        get(
            "/apis/v2beta1/recurringruns:preview",
            "The next firings of a trigger that is not stored",
            preview_unsaved,
        )
        .query(UNSAVED)
        .answers::<Preview>(),
        get(
            "/apis/v2beta1/recurringruns/{recurring_run_id}",
            "Get a recurring run",
            one,
        )
        .answers::<RecurringRun>(),
        patch(
            "/apis/v2beta1/recurringruns/{recurring_run_id}",
            "Change the members of a recurring run that are given",
            change,
        )
        .takes::<RecurringRun>()
        .answers::<RecurringRun>(),
        delete(
            "/apis/v2beta1/recurringruns/{recurring_run_id}",
            "Delete a recurring run; its runs stay",
            remove,
        )
        .query(&["propagation_policy"])
        .answers::<Nothing>(),
        post(
            "/apis/v2beta1/recurringruns/{recurring_run_id}:enable",
            "Let a recurring run fire",
            enable,
        )
        .answers::<Nothing>(),
        post(
            "/apis/v2beta1/recurringruns/{recurring_run_id}:disable",
            "Keep a recurring run from firing",
            disable,
        )
        .answers::<Nothing>(),
        get(
            "/apis/v2beta1/recurringruns/{recurring_run_id}:preview",
            "The next firings of a recurring run",
            preview,
        )
        .query(&["count"])
        .answers::<Preview>(),
    ]
}

const UNSAVED: &[&str] = &[
    "cron",
    "interval_second",
    "start_time",
    "end_time",
    "no_catchup",
    "count",
];

/// So many firings are previewed unless the request says how many.
const COUNT: usize = 5;
const MOST: usize = 100;

/// What the request names as source, which is the oneof of the message; none if it names none.
fn source(asked: &RecurringRun) -> Result<Option<SourceOf>> {
    let some = |id: &str| (!id.is_empty()).then(|| id.to_owned());
    let spec = match &asked.pipeline_spec {
        Tree::Tree(Value::Object(spec)) if spec.is_empty() => None,
        Tree::Tree(spec) => Some(spec),
        Tree::Unset | Tree::Text(_) => None,
    };
    let reference = asked.pipeline_version_reference.as_ref();
    match (reference, spec, some(&asked.pipeline_version_id)) {
        (Some(reference), None, None) => {
            let of = SourceOf {
                pipeline: some(&reference.pipeline_id),
                version: some(&reference.pipeline_version_id),
                spec: None,
            };
            if of.pipeline.is_none() && of.version.is_none() {
                return Err(Failure::invalid(
                    "recurring_run.pipeline_version_reference: name a pipeline_id (for its newest \
                     version at each firing) or a pipeline_version_id",
                ));
            }
            Ok(Some(of))
        }
        (None, Some(spec), None) => {
            let package = package::from_value("recurring_run.pipeline_spec", spec)?;
            Ok(Some(SourceOf {
                spec: Some(package::spec(&package)),
                ..SourceOf::default()
            }))
        }
        (None, None, Some(version)) => Ok(Some(SourceOf {
            version: Some(version),
            ..SourceOf::default()
        })),
        (None, None, None) => Ok(None),
        _ => Err(Failure::invalid(
            "recurring_run: give only one of pipeline_version_reference, pipeline_spec and \
             pipeline_version_id",
        )),
    }
}

fn trigger(asked: Option<Trigger>) -> TriggerOf {
    let asked = asked.unwrap_or_default();
    TriggerOf {
        cron: asked
            .cron_schedule
            .map(|cron| (cron.cron, cron.start_time, cron.end_time)),
        periodic: asked
            .periodic_schedule
            .map(|it| (it.interval_second.0, it.start_time, it.end_time)),
    }
}

/// A warning is a header of the answer, as Kubernetes gives them.
type Warned = ([(HeaderName, HeaderValue); 1], Json<RecurringRun>);
type Answer = axum::response::Response;

fn answer(one: &store::RecurringRun) -> Answer {
    use axum::response::IntoResponse as _;
    let body = Json(shown(one));
    let warning = one
        .trigger
        .warning()
        .map(|text| {
            format!(
                "299 - \"{}\"",
                text.replace('\\', "\\\\").replace('"', "\\\"")
            )
        })
        .and_then(|text| HeaderValue::try_from(text).ok());
    match warning {
        Some(warning) => {
            let warned: Warned = ([(HeaderName::from_static("warning"), warning)], body);
            warned.into_response()
        }
        None => body.into_response(),
    }
}

async fn create(State(api): State<Api>, bytes: Bytes) -> Result<Answer> {
    let asked: RecurringRun = message::parse("recurring_run", &bytes)?;
    let source = source(&asked)?.ok_or_else(|| {
        Failure::invalid(
            "recurring_run: name what it executes: pipeline_version_reference or pipeline_spec",
        )
    })?;
    super::runs::plugins("recurring_run", &asked.plugins_input.0)?;
    let config = asked.runtime_config.unwrap_or_default();
    let wanted = Asked {
        name: asked.display_name,
        description: asked.description,
        experiment: asked.experiment_id,
        source,
        parameters: config.parameters.0.into_iter().collect(),
        pipeline_root: config.pipeline_root,
        service_account: asked.service_account,
        plugins: asked.plugins_input.0,
        trigger: trigger(asked.trigger),
        max_concurrency: asked.max_concurrency.0,
        catchup: !asked.no_catchup,
        enabled: asked.mode != Mode::Disable,
    };
    let made = recurring::create(&api, "recurring_run", wanted).await?;
    Ok(answer(&made))
}

/// `PATCH`: what the body has replaces what was, everything else stays.
async fn change(State(api): State<Api>, Path(id): Path<String>, bytes: Bytes) -> Result<Answer> {
    let value: Value = message::parse_json(&bytes)?;
    let given =
        |snake: &str, camel: &str| [snake, camel].iter().any(|name| value.get(name).is_some());
    let has = (
        given("description", "description"),
        given("runtime_config", "runtimeConfig"),
        given("service_account", "serviceAccount"),
        given("plugins_input", "pluginsInput"),
        given("trigger", "trigger"),
        given("max_concurrency", "maxConcurrency"),
        given("no_catchup", "noCatchup"),
    );
    let asked = RecurringRun::read(value, "recurring_run")?;
    if !asked.recurring_run_id.is_empty() && asked.recurring_run_id != id {
        return Err(Failure::invalid(format!(
            "recurring_run.recurring_run_id {:?} is not that of the path, {id:?}",
            asked.recurring_run_id
        )));
    }
    super::runs::plugins("recurring_run", &asked.plugins_input.0)?;
    let old = store::get(&api.db, &id).await?;
    let source = source(&asked)?.unwrap_or_else(|| SourceOf {
        pipeline: old.pipeline.clone(),
        version: old.version.clone(),
        spec: old.spec.clone(),
    });
    let or = |new: String, old: &String| if new.is_empty() { old.clone() } else { new };
    let (description, config, account, plugins, when, concurrency, no_catchup) = has;
    let (parameters, pipeline_root) = if config {
        let config = asked.runtime_config.unwrap_or_default();
        (
            config.parameters.0.into_iter().collect(),
            config.pipeline_root,
        )
    } else {
        (old.parameters(), old.pipeline_root.clone())
    };
    let wanted = Asked {
        name: or(asked.display_name, &old.name),
        description: if description {
            asked.description
        } else {
            old.description.clone()
        },
        experiment: or(asked.experiment_id, &old.experiment),
        source,
        parameters,
        pipeline_root,
        service_account: if account {
            asked.service_account
        } else {
            old.service_account.clone()
        },
        plugins: if plugins {
            asked.plugins_input.0
        } else {
            old.plugins.clone()
        },
        trigger: if when {
            trigger(asked.trigger)
        } else {
            recurring::shown(&old.trigger)
        },
        max_concurrency: if concurrency {
            asked.max_concurrency.0
        } else {
            i64::from(old.max_concurrency)
        },
        catchup: if no_catchup {
            !asked.no_catchup
        } else {
            old.catchup
        },
        enabled: match asked.mode {
            Mode::Unspecified => old.enabled,
            Mode::Enable => true,
            Mode::Disable => false,
        },
    };
    let changed = recurring::update(&api, "recurring_run", old, wanted).await?;
    Ok(answer(&changed))
}

fn shown(one: &store::RecurringRun) -> RecurringRun {
    let reference = (one.spec.is_none()).then(|| PipelineVersionReference {
        pipeline_id: one.pipeline.clone().unwrap_or_default(),
        pipeline_version_id: one.version.clone().unwrap_or_default(),
    });
    let trigger = recurring::shown(&one.trigger);
    let parameters: Map<String, Value> = one.parameters().into_iter().collect();
    RecurringRun {
        recurring_run_id: one.id.clone(),
        display_name: one.name.clone(),
        description: one.description.clone(),
        pipeline_version_id: String::new(),
        pipeline_spec: match &one.spec {
            Some(spec) => package::shown(spec),
            None => Tree::Unset,
        },
        pipeline_version_reference: reference,
        runtime_config: Some(RuntimeConfig {
            parameters: Values(parameters),
            pipeline_root: one.pipeline_root.clone(),
        }),
        service_account: one.service_account.clone(),
        max_concurrency: Int64(i64::from(one.max_concurrency)),
        trigger: Some(Trigger {
            cron_schedule: trigger
                .cron
                .map(|(cron, start_time, end_time)| CronSchedule {
                    start_time,
                    end_time,
                    cron,
                }),
            periodic_schedule: trigger.periodic.map(|(seconds, start_time, end_time)| {
                PeriodicSchedule {
                    start_time,
                    end_time,
                    interval_second: Int64(seconds),
                }
            }),
        }),
        mode: if one.enabled {
            Mode::Enable
        } else {
            Mode::Disable
        },
        created_at: Time(Some(one.created_at)),
        updated_at: Time(Some(one.updated_at)),
        status: if one.enabled {
            RecurringRunStatus::Enabled
        } else {
            RecurringRunStatus::Disabled
        },
        error: (!one.error.is_empty()).then(|| Status::failed(one.error.clone())),
        no_catchup: !one.catchup,
        namespace: one.namespace.clone(),
        experiment_id: one.experiment.clone(),
        plugins_input: Values(one.plugins.clone()),
    }
}

async fn one(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<RecurringRun>> {
    Ok(Json(shown(&store::get(&api.db, &id).await?)))
}

async fn list(
    State(api): State<Api>,
    Query(owner): Query<super::runs::Owner>,
    Query(query): Query<page::Request>,
) -> Result<Json<ListRecurringRuns>> {
    let (found, page) = store::list(&api.db, owner.experiment(), &query).await?;
    Ok(Json(ListRecurringRuns {
        recurring_runs: found.iter().map(shown).collect(),
        total_size: page.total as i32,
        next_page_token: page.next,
    }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Removal {
    #[serde(alias = "propagationPolicy")]
    propagation_policy: String,
}

async fn remove(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(removal): Query<Removal>,
) -> Result<Json<Nothing>> {
    let propagation = match removal.propagation_policy.as_str() {
        // What is not said leaves the runs alone.
        "" | "DELETE_PROPAGATION_POLICY_UNSPECIFIED" | "0" | "ORPHAN" | "3" => Propagation::Orphan,
        "FOREGROUND" | "1" => Propagation::Foreground,
        "BACKGROUND" | "2" => Propagation::Background,
        other => {
            return Err(Failure::invalid(format!(
                "propagation_policy {other:?} (allowed: FOREGROUND, BACKGROUND, ORPHAN)"
            )));
        }
    };
    recurring::delete(&api, &id, propagation).await?;
    Ok(Json(Nothing))
}

/// What a preview is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wish {
    cron: String,
    #[serde(alias = "intervalSecond")]
    interval_second: String,
    #[serde(alias = "startTime")]
    start_time: String,
    #[serde(alias = "endTime")]
    end_time: String,
    #[serde(alias = "noCatchup")]
    no_catchup: String,
    count: String,
}

impl Wish {
    fn count(&self) -> Result<usize> {
        if self.count.is_empty() {
            return Ok(COUNT);
        }
        self.count
            .parse()
            .ok()
            .filter(|count| (1..=MOST).contains(count))
            .ok_or_else(|| {
                Failure::invalid(format!("count {:?} (allowed: 1 to {MOST})", self.count))
            })
    }

    fn schedule(&self, now: Timestamp) -> Result<Schedule> {
        let time = |name: &str, text: &str| match text {
            "" => Ok(Time::default()),
            text => Time::read(Value::from(text), name),
        };
        let (start, end) = (
            time("start_time", &self.start_time)?,
            time("end_time", &self.end_time)?,
        );
        let seconds = match self.interval_second.as_str() {
            "" => None,
            text => Some(Int64::read(Value::from(text), "interval_second")?.0),
        };
        let cron = (!self.cron.is_empty()).then(|| self.cron.clone());
        if cron.is_none() && seconds.is_none() {
            return Err(Failure::invalid(
                "preview: give cron or interval_second (and start_time, end_time, no_catchup, \
                 count as you like)",
            ));
        }
        let given = TriggerOf {
            cron: cron.map(|cron| (cron, start, end)),
            periodic: seconds.map(|seconds| (seconds, start, end)),
        };
        Ok(Schedule {
            trigger: recurring::trigger("preview", &given)?,
            catchup: match self.no_catchup.as_str() {
                "" | "false" => true,
                "true" => false,
                other => {
                    return Err(Failure::invalid(format!(
                        "no_catchup {other:?} (allowed: true, false)"
                    )));
                }
            },
            max_concurrency: 1,
            enabled: true,
            since: now,
            last: None,
        })
    }
}

fn previewed(api: &Api, schedule: &Schedule, count: usize) -> Json<Preview> {
    let (scheduled_times, warnings) = recurring::preview(api, schedule, count);
    let zone = &api.recurring.settings.zone;
    Json(Preview {
        scheduled_times,
        time_zone: zone.iana_name().unwrap_or("UTC").to_owned(),
        warnings,
    })
}

async fn preview(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(wish): Query<Wish>,
) -> Result<Json<Preview>> {
    let schedule = store::get(&api.db, &id).await?.schedule();
    Ok(previewed(&api, &schedule, wish.count()?))
}

async fn preview_unsaved(
    State(api): State<Api>,
    Query(wish): Query<Wish>,
) -> Result<Json<Preview>> {
    let schedule = wish.schedule(api.clock.now())?;
    Ok(previewed(&api, &schedule, wish.count()?))
}
