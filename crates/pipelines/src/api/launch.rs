//! Starting a run, whichever message asked for it.

use std::sync::Arc;

use pipelinespec::Package;
use serde_json::{Map, Value, json};

use super::wire::{Code, Failure, Result};
use super::{Api, package};
use crate::runner::NewRun;
use crate::store::experiments::Experiment;
use crate::store::runs::NewRecord;
use crate::store::{experiments, pipelines, runs};

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

/// Starts a run and answers its id.
pub(super) async fn start(api: &Api, wanted: Wanted) -> Result<String> {
    let experiment = if wanted.experiment.is_empty() {
        default_experiment(api).await?
    } else {
        experiments::get(&api.db, &wanted.experiment).await?
    };
    if experiment.archived {
        return Err(Failure::new(
            Code::FailedPrecondition,
            format!(
                "experiment {} is archived; unarchive it to start runs in it",
                experiment.id
            ),
        ));
    }
    let shown: Value = wanted
        .parameters
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    let (id, now) = (api.rng.uuid(), api.now());
    let record = NewRecord {
        id: id.clone(),
        name: wanted.name.clone(),
        namespace: api.namespace.clone(),
        description: wanted.description,
        experiment: experiment.id,
        pipeline: wanted.source.pipeline,
        version: wanted.source.version,
        recurring_run: String::new(),
        service_account: wanted.service_account.clone(),
        parameters: shown,
        pipeline_root: wanted.pipeline_root,
        plugins: wanted.plugins,
        created_at: now,
        scheduled_at: now,
    };
    let new = NewRun {
        run_id: id.clone(),
        display_name: wanted.name,
        manifest: Arc::clone(&wanted.source.package.document),
        parameters: wanted.parameters,
        service_account: wanted.service_account,
    };
    api.runner.create(new, Some(runs::insert(record))).await?;
    Ok(id)
}
