//! What both versions of the API do with recurring runs, and how a firing becomes a run.

use std::sync::Arc;

use futures::FutureExt as _;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use stdx::{OnError, Supervisor};

use super::launch::{self, NotStarted, Origin, Source, Wanted};
use super::message::Time;
use super::wire::{Failure, Result};
use super::{Api, check, package};
use crate::recurring::cron::Cron;
use crate::recurring::names;
use crate::recurring::schedule::{MAX_CONCURRENCY, Schedule, Trigger, Within};
use crate::recurring::triggers::{self, Triggers};
use crate::store::experiments;
use crate::store::recurring::{self as store, Changed, Firing, RecurringRun};
use crate::{journal, runner};

/// What the runs execute: one of the three that is given.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceOf {
    pub(super) pipeline: Option<String>,
    pub(super) version: Option<String>,
    pub(super) spec: Option<String>,
}

/// A trigger as both versions of the API write it.
#[derive(Debug, Clone, Default)]
pub(super) struct TriggerOf {
    pub(super) cron: Option<(String, Time, Time)>,
    pub(super) periodic: Option<(i64, Time, Time)>,
}

/// A recurring run as somebody wants it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) description: String,
    /// Empty for the default experiment.
    pub(super) experiment: String,
    pub(super) source: SourceOf,
    pub(super) parameters: Vec<(String, Value)>,
    pub(super) pipeline_root: String,
    pub(super) service_account: String,
    pub(super) plugins: Map<String, Value>,
    pub(super) trigger: TriggerOf,
    pub(super) max_concurrency: i64,
    pub(super) catchup: bool,
    pub(super) enabled: bool,
}

/// Checks what makes it fire.
pub(super) fn trigger(at: &str, given: &TriggerOf) -> Result<Trigger> {
    let within = |of: &str, start: Time, end: Time| {
        let time = |time: Time| {
            time.0
                .and_then(|micros| Timestamp::from_microsecond(micros).ok())
        };
        let within = Within {
            start: time(start),
            end: time(end),
        };
        match (within.start, within.end) {
            (Some(start), Some(end)) if end < start => Err(Failure::invalid(format!(
                "{at}.{of}: end_time {end} is before start_time {start}"
            ))),
            _ => Ok(within),
        }
    };
    match (&given.cron, &given.periodic) {
        (Some(_), Some(_)) => Err(Failure::invalid(format!(
            "{at}: give only one of cron_schedule and periodic_schedule"
        ))),
        (Some((text, start, end)), None) => Ok(Trigger::Cron {
            cron: Cron::parse(text)
                .map_err(|e| Failure::invalid(format!("{at}.cron_schedule.cron: {e}")))?,
            within: within("cron_schedule", *start, *end)?,
        }),
        (None, Some((seconds, start, end))) => {
            if *seconds < 1 {
                return Err(Failure::invalid(format!(
                    "{at}.periodic_schedule.interval_second: {seconds} (allowed: from 1)"
                )));
            }
            Ok(Trigger::Periodic {
                seconds: *seconds,
                within: within("periodic_schedule", *start, *end)?,
            })
        }
        (None, None) => Ok(Trigger::Once),
    }
}

/// The trigger for an answer.
pub(super) fn shown(trigger: &Trigger) -> TriggerOf {
    let time = |at: Option<Timestamp>| at.map(Time::of).unwrap_or_default();
    match trigger {
        Trigger::Cron { cron, within } => TriggerOf {
            cron: Some((cron.text().to_owned(), time(within.start), time(within.end))),
            periodic: None,
        },
        Trigger::Periodic { seconds, within } => TriggerOf {
            cron: None,
            periodic: Some((*seconds, time(within.start), time(within.end))),
        },
        Trigger::Once => TriggerOf::default(),
    }
}

/// Checks everything that can be checked before the first firing.
async fn checked(api: &Api, at: &str, asked: Asked, id: String) -> Result<RecurringRun> {
    if asked.name.is_empty() {
        return Err(Failure::invalid(format!("{at}: wants a name")));
    }
    let max_concurrency = u32::try_from(asked.max_concurrency)
        .ok()
        .filter(|max| MAX_CONCURRENCY.contains(max))
        .ok_or_else(|| {
            Failure::invalid(format!(
                "{at}.max_concurrency: {} (allowed: {} to {})",
                asked.max_concurrency,
                MAX_CONCURRENCY.start(),
                MAX_CONCURRENCY.end()
            ))
        })?;
    let trigger = trigger(&format!("{at}.trigger"), &asked.trigger)?;
    let experiment = if asked.experiment.is_empty() {
        launch::default_experiment(api).await?
    } else {
        experiments::get(&api.db, &asked.experiment).await?
    };
    launch::not_archived(&experiment)?;
    check::parameters(&asked.parameters)?;
    let source = source(api, &asked.source).await?;
    pipelinespec::bind(&source.package.plan, &asked.parameters)
        .map_err(|e| Failure::invalid(format!("{at}: {e}")))?;
    let parameters = asked
        .parameters
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    let now = api.now();
    Ok(RecurringRun {
        id,
        resource: names::resource(&asked.name, &api.rng.suffix(5)),
        name: asked.name,
        namespace: api.namespace.clone(),
        description: asked.description,
        experiment: experiment.id,
        pipeline: asked.source.pipeline.or(source.pipeline),
        version: asked.source.version,
        spec: asked.source.spec,
        parameters,
        pipeline_root: asked.pipeline_root,
        service_account: asked.service_account,
        plugins: asked.plugins,
        trigger,
        catchup: asked.catchup,
        max_concurrency,
        enabled: asked.enabled,
        created_at: now,
        updated_at: now,
        since: now,
        last: None,
        fired: 0,
        error: String::new(),
    })
}

/// Makes one.
pub(super) async fn create(api: &Api, at: &str, asked: Asked) -> Result<RecurringRun> {
    let made = checked(api, at, asked, api.rng.uuid()).await?;
    warn(&made);
    store::create(&api.db, made.clone()).await?;
    api.recurring.changed();
    Ok(made)
}

/// Changes one to what is asked; how far it has fired stays.
pub(super) async fn update(
    api: &Api,
    at: &str,
    old: RecurringRun,
    asked: Asked,
) -> Result<RecurringRun> {
    let mut new = checked(api, at, asked, old.id).await?;
    new.created_at = old.created_at;
    if new.trigger == old.trigger {
        new.since = old.since;
    }
    warn(&new);
    store::update(&api.db, new.clone()).await?;
    api.recurring.changed();
    Ok(store::get(&api.db, &new.id).await?)
}

fn warn(made: &RecurringRun) {
    if let Some(warning) = made.trigger.warning() {
        tracing::warn!(recurring_run = made.id, "{warning}");
    }
}

/// Enables or disables one.
pub(super) async fn enable(api: &Api, id: &str, enabled: bool) -> Result<()> {
    if enabled {
        let one = store::get(&api.db, id).await?;
        launch::not_archived(&experiments::get(&api.db, &one.experiment).await?)?;
    }
    store::enable(&api.db, id, enabled, api.now()).await?;
    api.recurring.changed();
    Ok(())
}

/// What becomes of the active runs of a recurring run that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Propagation {
    /// They go on.
    Orphan,
    /// They are asked to end, after the recurring run is gone.
    Background,
    /// They are asked to end, and then the recurring run goes.
    Foreground,
}

/// Deletes one. Its runs stay in the lists.
pub(super) async fn delete(api: &Api, id: &str, propagation: Propagation) -> Result<()> {
    store::get(&api.db, id).await?;
    if propagation == Propagation::Foreground {
        // Nothing new may begin meanwhile.
        store::enable(&api.db, id, false, api.now()).await?;
        terminate(api, id).await?;
    }
    store::delete(&api.db, id).await?;
    api.recurring.changed();
    if propagation == Propagation::Background {
        terminate(api, id).await?;
    }
    Ok(())
}

async fn terminate(api: &Api, id: &str) -> Result<()> {
    for run in store::active(&api.db, id).await? {
        match api.runner.terminate(&run).await {
            // It was over before it was asked.
            Ok(()) | Err(crate::runner::Error::State(_) | crate::runner::Error::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The next firings, and what should be said about the trigger.
pub(super) fn preview(api: &Api, schedule: &Schedule, count: usize) -> (Vec<Time>, Vec<String>) {
    let zone = &api.recurring.settings.zone;
    let firings = schedule.preview(api.clock.now(), zone, count);
    let mut warnings: Vec<String> = schedule.trigger.warning().into_iter().collect();
    if firings.is_empty() && schedule.trigger != Trigger::Once {
        warnings.push("it never fires: no time within five years and its end fits".to_owned());
    }
    (firings.into_iter().map(Time::of).collect(), warnings)
}

/// What the runs execute now.
async fn source(api: &Api, of: &SourceOf) -> Result<Source> {
    if let Some(spec) = &of.spec {
        return Ok(Source::inline(package::from_text("pipeline_spec", spec)?));
    }
    let pipeline = of.pipeline.as_deref().unwrap_or_default();
    launch::version(api, pipeline, of.version.as_deref().unwrap_or_default()).await
}

/// Starts the loop that fires them.
pub(super) fn start(api: Api, supervisor: &Supervisor) {
    let (db, clock, ended) = (api.db.clone(), api.clock.clone(), api.runner.subscribe());
    let (settings, changes) = (api.recurring.settings.clone(), api.recurring.changes());
    let launch: triggers::Launch = Arc::new(move |firing| {
        let api = api.clone();
        async move { fire(&api, firing).await }.boxed()
    });
    let triggers = Triggers::new(db, clock, settings, changes, ended, launch);
    supervisor.spawn("recurring runs", OnError::Log, triggers.run());
}

/// Makes the run of a firing.
async fn fire(api: &Api, firing: Firing) -> std::result::Result<(), triggers::Failure> {
    let one = match store::get(&api.db, &firing.recurring_run).await {
        Ok(one) => one,
        Err(crate::store::Error::NotFound { .. }) => return Err(triggers::Failure::Changed),
        Err(error) => return Err(failed(error.into())),
    };
    let of = SourceOf {
        pipeline: one.pipeline.clone(),
        version: one.version.clone(),
        spec: one.spec.clone(),
    };
    let source = source(api, &of).await.map_err(failed)?;
    let wanted = Wanted {
        name: names::run(&one.resource, firing.index),
        description: one.description.clone(),
        experiment: one.experiment.clone(),
        source,
        parameters: one.parameters(),
        pipeline_root: one.pipeline_root,
        service_account: one.service_account,
        plugins: one.plugins,
        origin: Some(Origin {
            run_id: names::run_id(&one.id, firing.index),
            firing,
        }),
    };
    match launch::try_start(api, wanted).await {
        Ok(_) => Ok(()),
        Err(NotStarted::Runner(runner::Error::Journal {
            source: journal::Error::Db(error),
            attempt,
        })) => match error.into_job::<Changed>() {
            Ok(Changed) => Err(triggers::Failure::Changed),
            Err(error) => Err(triggers::Failure::Failed(format!("{attempt}: {error}"))),
        },
        Err(other) => Err(failed(other.into())),
    }
}

fn failed(failure: Failure) -> triggers::Failure {
    triggers::Failure::Failed(failure.message)
}
