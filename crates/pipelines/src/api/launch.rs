//! Starting a run, whichever message asked for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use pipelinespec::{Format, Package};
use serde_json::{Map, Value, json};

use super::wire::{self, Code, Failure, Result};
use super::{Api, check, package, retention};
use crate::runner::{self, NewRun};
use crate::store::experiments::Experiment;
use crate::store::recurring::Firing;
use crate::store::runs::NewRecord;
use crate::store::{experiments, pipelines, recurring, retention as ttls, runs};
use crate::{macros, store};

/// The experiment of runs that name none.
pub(super) const DEFAULT: &str = "Default";

/// What a run executes, and where that came from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) package: Package,
    pub(super) pipeline: Option<String>,
    pub(super) version: Option<String>,
}

impl Source {
    /// A package that was given whole.
    pub(super) fn inline(package: Package) -> Self {
        Self {
            package,
            pipeline: None,
            version: None,
        }
    }
}

/// A run that somebody wants.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) description: String,
    /// Empty for the default experiment.
    pub(super) experiment: String,
    pub(super) source: Source,
    pub(super) parameters: Vec<(String, Value)>,
    pub(super) pipeline_root: String,
    pub(super) service_account: String,
    pub(super) plugins: Map<String, Value>,
    /// The firing of a recurring run that wants it, if any.
    pub(super) origin: Option<Origin>,
}

/// Where a run of a recurring run comes from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    /// The id of the run, which follows from the firing.
    pub(super) run_id: String,
    pub(super) firing: Firing,
}

/// Why a run was not started.
#[derive(Debug)]
pub(super) enum NotStarted {
    /// What was asked for cannot be.
    Refused(Failure),
    /// The runner could not.
    Runner(runner::Error),
}

impl From<NotStarted> for Failure {
    fn from(not: NotStarted) -> Self {
        match not {
            NotStarted::Refused(failure) => failure,
            NotStarted::Runner(error) => error.into(),
        }
    }
}

impl From<Failure> for NotStarted {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

impl From<store::Error> for NotStarted {
    fn from(error: store::Error) -> Self {
        Self::Refused(error.into())
    }
}

/// The default experiment, made when it is first needed.
pub(super) async fn default_experiment(api: &Api) -> Result<Experiment> {
    if let Some(found) = experiments::by_name(&api.db, &api.namespace, DEFAULT).await? {
        return Ok(found);
    }
    let about = "All runs that name no experiment are here.";
    match make_experiment(api, DEFAULT, about.to_owned()).await {
        // Somebody else was faster.
        Err(failure) if failure.code == Code::AlreadyExists => {
            let found = experiments::by_name(&api.db, &api.namespace, DEFAULT).await?;
            found.ok_or(failure)
        }
        other => other,
    }
}

/// Makes an experiment.
pub(super) async fn make_experiment(
    api: &Api,
    name: &str,
    description: String,
) -> Result<Experiment> {
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

/// The package of a version; of the newest one if only the pipeline is named.
pub(super) async fn version(api: &Api, pipeline: &str, version: &str) -> Result<Source> {
    let version = if version.is_empty() {
        pipelines::get(&api.db, pipeline).await?;
        pipelines::latest_version(&api.db, pipeline).await?
    } else {
        pipelines::get_version(&api.db, version).await?
    };
    if !pipeline.is_empty() && version.pipeline != pipeline {
        return Err(Failure::invalid(format!(
            "pipeline version {} belongs to pipeline {}, not to {pipeline}",
            version.id, version.pipeline
        )));
    }
    Ok(Source {
        package: package::stored(&version.id, &version.spec)?,
        pipeline: Some(version.pipeline),
        version: Some(version.id),
    })
}

/// Refuses what would begin in an archived experiment.
pub(super) fn not_archived(experiment: &Experiment) -> Result<()> {
    if !experiment.archived {
        return Ok(());
    }
    Err(Failure::new(
        Code::FailedPrecondition,
        format!(
            "experiment {} is archived; unarchive it to start runs in it",
            experiment.id
        ),
    ))
}

/// Starts a run and answers its id.
pub(super) async fn start(api: &Api, wanted: Wanted) -> Result<String> {
    Ok(try_start(api, wanted).await?)
}

/// Starts a run; the firing that wants it, if any, is recorded in the same transaction.
pub(super) async fn try_start(
    api: &Api,
    mut wanted: Wanted,
) -> std::result::Result<String, NotStarted> {
    let experiment = if wanted.experiment.is_empty() {
        default_experiment(api).await?
    } else {
        experiments::get(&api.db, &wanted.experiment).await?
    };
    not_archived(&experiment)?;
    check::parameters(&wanted.parameters)?;
    let now = api.clock.now();
    let id = match &wanted.origin {
        Some(origin) => origin.run_id.clone(),
        None => api.rng.uuid(),
    };
    let firing = wanted.origin.map(|origin| origin.firing);
    let facts = macros::Facts {
        run: id.clone(),
        now,
        firing: firing.as_ref().map(|firing| macros::Firing {
            at: firing.at,
            index: firing.index,
        }),
    };
    let shown: Value = wanted
        .parameters
        .iter_mut()
        .map(|(name, value)| {
            macros::expand_value(value, &facts);
            json!({"name": name, "value": value})
        })
        .collect();
    let package = &wanted.source.package;
    if package.format == Format::V1 {
        defaults(package, &facts, &mut wanted.parameters);
    }
    let mut run_facts = BTreeMap::new();
    if !wanted.pipeline_root.is_empty() {
        artifacts::Uri::parse(&wanted.pipeline_root)
            .map_err(|e| Failure::invalid(format!("runtime_config.pipeline_root: {e}")))?;
        run_facts.insert("pipeline_root".to_owned(), json!(wanted.pipeline_root));
    }
    if let Some(firing) = &firing {
        let at = wire::time(firing.at.as_microsecond());
        run_facts.insert("scheduled_at".to_owned(), json!(at));
    }
    let service_account = if wanted.service_account.is_empty() {
        let own = package.document.pointer("/spec/serviceAccountName");
        let own = own.and_then(Value::as_str).filter(|own| !own.is_empty());
        own.unwrap_or_else(|| api.runner.service_account())
            .to_owned()
    } else {
        wanted.service_account
    };
    let record = NewRecord {
        id: id.clone(),
        name: wanted.name.clone(),
        namespace: api.namespace.clone(),
        description: wanted.description,
        experiment: experiment.id,
        pipeline: wanted.source.pipeline,
        version: wanted.source.version,
        recurring_run: firing
            .as_ref()
            .map(|firing| firing.recurring_run.clone())
            .unwrap_or_default(),
        service_account: service_account.clone(),
        parameters: shown,
        pipeline_root: wanted.pipeline_root,
        plugins: wanted.plugins,
        created_at: now.as_microsecond(),
        scheduled_at: firing
            .as_ref()
            .map_or(now, |firing| firing.at)
            .as_microsecond(),
    };
    let new = NewRun {
        run_id: id.clone(),
        display_name: wanted.name,
        manifest: Arc::clone(&package.document),
        parameters: wanted.parameters,
        service_account,
        facts: run_facts,
    };
    let mut record = runs::insert(record);
    if let Some(ttl) = retention::of(&package.plan) {
        record = ttls::insert(id.clone(), ttl, record);
    }
    let also = match firing {
        Some(firing) => recurring::fire(firing, record),
        None => record,
    };
    api.runner
        .create(new, Some(also))
        .await
        .map_err(NotStarted::Runner)?;
    Ok(id)
}

/// Gives the defaults of a Workflow that have macros, with these replaced.
fn defaults(package: &Package, facts: &macros::Facts, given: &mut Vec<(String, Value)>) {
    for parameter in &package.plan.parameters {
        let Some(default @ Value::String(text)) = &parameter.default else {
            continue;
        };
        let named = |name: &str| package.plan.parameter(name).map(|p| p.name.as_str());
        if given
            .iter()
            .any(|(name, _)| named(name) == Some(parameter.name.as_str()))
        {
            continue;
        }
        let mut value = default.clone();
        macros::expand_value(&mut value, facts);
        if value.as_str() != Some(text) {
            given.push((parameter.name.clone(), value));
        }
    }
}
