//! `/apis/v1beta1/jobs`: what v2beta1 calls recurring runs.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use serde_json::Value;

use super::experiments::of_namespace;
use super::messages::{
    self, CronSchedule, Job, JobMode, ListJobs, Parameter, PeriodicSchedule, PipelineSpec,
    Reference, Relationship, ResourceType, Trigger,
};
use super::{Owner, SCOPED};
use crate::api::both::recurring_run::{disable, enable};
use crate::api::message::{self, Int64, Time, Values};
use crate::api::recurring::{self, Asked, Propagation, SourceOf, TriggerOf};
use crate::api::route::{LIST, Route, delete, get, post};
use crate::api::v2::messages::Nothing;
use crate::api::wire::{Failure, Result};
use crate::api::{Api, package};
use crate::store::{experiments, page, pipelines, recurring as store};

pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/apis/v1beta1/jobs", "List jobs", list)
            .query(LIST)
            .query(SCOPED)
            .answers::<ListJobs>(),
        post("/apis/v1beta1/jobs", "Make a job", create)
            .takes::<Job>()
            .answers::<Job>(),
        get("/apis/v1beta1/jobs/{id}", "Get a job", one).answers::<Job>(),
        delete(
            "/apis/v1beta1/jobs/{id}",
            "Delete a job; its runs stay",
            remove,
        )
        .answers::<Nothing>(),
        post("/apis/v1beta1/jobs/{id}/enable", "Let a job fire", enable).answers::<Nothing>(),
        post(
            "/apis/v1beta1/jobs/{id}/disable",
            "Keep a job from firing",
            disable,
        )
        .answers::<Nothing>(),
    ]
}

/// What the job's runs execute: a package, a version, or a pipeline's newest version.
fn source(spec: &PipelineSpec, references: &[Reference]) -> Result<SourceOf> {
    for (at, text) in [
        ("workflow_manifest", &spec.workflow_manifest),
        ("pipeline_manifest", &spec.pipeline_manifest),
    ] {
        if !text.is_empty() {
            let package = package::from_text(&format!("job.pipeline_spec.{at}"), text)?;
            return Ok(SourceOf {
                spec: Some(package::spec(&package)),
                ..SourceOf::default()
            });
        }
    }
    let of = |kind| Reference::find(references, kind).map(str::to_owned);
    let pipeline = (!spec.pipeline_id.is_empty()).then(|| spec.pipeline_id.clone());
    let source = SourceOf {
        version: of(ResourceType::PipelineVersion),
        pipeline: pipeline.or_else(|| of(ResourceType::Pipeline)),
        spec: None,
    };
    if source.version.is_none() && source.pipeline.is_none() {
        return Err(Failure::invalid(
            "job: give pipeline_spec.pipeline_id, pipeline_spec.workflow_manifest or a resource \
             reference of type PIPELINE_VERSION",
        ));
    }
    Ok(source)
}

async fn create(State(api): State<Api>, bytes: Bytes) -> Result<Json<Job>> {
    let asked: Job = message::parse("job", &bytes)?;
    let spec = asked.pipeline_spec.unwrap_or_default();
    let source = source(&spec, &asked.resource_references)?;
    let experiment = Reference::find(&asked.resource_references, ResourceType::Experiment);
    let config = spec.runtime_config.unwrap_or_default();
    let mut parameters: Vec<(String, Value)> = spec
        .parameters
        .into_iter()
        .map(|parameter| (parameter.name, Value::String(parameter.value)))
        .collect();
    parameters.extend(config.parameters.0);
    let when = asked.trigger.unwrap_or_default();
    let wanted = Asked {
        name: asked.name,
        description: asked.description,
        experiment: experiment.unwrap_or_default().to_owned(),
        source,
        parameters,
        pipeline_root: config.pipeline_root,
        service_account: asked.service_account,
        plugins: serde_json::Map::new(),
        trigger: TriggerOf {
            cron: when
                .cron_schedule
                .map(|cron| (cron.cron, cron.start_time, cron.end_time)),
            periodic: when
                .periodic_schedule
                .map(|it| (it.interval_second.0, it.start_time, it.end_time)),
        },
        max_concurrency: asked.max_concurrency.0,
        catchup: !asked.no_catchup,
        enabled: match asked.mode {
            JobMode::Enabled => true,
            JobMode::Disabled => false,
            JobMode::Unknown => asked.enabled,
        },
    };
    let made = recurring::create(&api, "job", wanted).await?;
    Ok(Json(shown(&api, &made).await?))
}

async fn shown(api: &Api, one: &store::RecurringRun) -> Result<Job> {
    let experiment = experiments::get(&api.db, &one.experiment).await.ok();
    let pipeline = match &one.pipeline {
        Some(id) => pipelines::get(&api.db, id).await.ok(),
        None => None,
    };
    let mut references = vec![
        of_namespace(&one.namespace),
        Reference::new(
            ResourceType::Experiment,
            &one.experiment,
            experiment
                .as_ref()
                .map(|e| e.name.as_str())
                .unwrap_or_default(),
            Relationship::Owner,
        ),
    ];
    let pipeline_name = pipeline.map(|p| p.name).unwrap_or_default();
    if let Some(id) = &one.version {
        let version = pipelines::get_version(&api.db, id).await.ok();
        references.push(Reference::new(
            ResourceType::PipelineVersion,
            id,
            version
                .as_ref()
                .map(|v| v.name.as_str())
                .unwrap_or_default(),
            Relationship::Creator,
        ));
    } else if let Some(id) = &one.pipeline {
        references.push(Reference::new(
            ResourceType::Pipeline,
            id,
            &pipeline_name,
            Relationship::Creator,
        ));
    }
    let mut spec = PipelineSpec {
        pipeline_id: one.pipeline.clone().unwrap_or_default(),
        pipeline_name,
        ..PipelineSpec::default()
    };
    let given = one.parameters();
    match &one.spec {
        Some(text) if package::is_workflow(text) => spec.workflow_manifest.clone_from(text),
        Some(text) => spec.pipeline_manifest.clone_from(text),
        None => {}
    }
    if given.iter().all(|(_, value)| value.is_string()) && spec.pipeline_manifest.is_empty() {
        spec.parameters = given
            .into_iter()
            .map(|(name, value)| Parameter {
                name,
                value: engine::render(&value),
            })
            .collect();
    } else {
        spec.runtime_config = Some(messages::RuntimeConfig {
            parameters: Values(given.into_iter().collect()),
            pipeline_root: one.pipeline_root.clone(),
        });
    }
    let trigger = recurring::shown(&one.trigger);
    Ok(Job {
        id: one.id.clone(),
        name: one.name.clone(),
        description: one.description.clone(),
        pipeline_spec: Some(spec),
        resource_references: references,
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
            JobMode::Enabled
        } else {
            JobMode::Disabled
        },
        created_at: Time(Some(one.created_at)),
        updated_at: Time(Some(one.updated_at)),
        status: if one.enabled { "Enabled" } else { "Disabled" }.to_owned(),
        error: one.error.clone(),
        enabled: one.enabled,
        no_catchup: !one.catchup,
    })
}

async fn list(
    State(api): State<Api>,
    Query(owner): Query<Owner>,
    Query(mut query): Query<page::Request>,
) -> Result<Json<ListJobs>> {
    let experiment = match owner.namespace(&mut query)? {
        ResourceType::Experiment => Some(owner.id.as_str()),
        ResourceType::Namespace | ResourceType::Unknown => None,
        other => {
            return Err(Failure::invalid(format!(
                "resource_reference_key.type {other}: jobs are listed by EXPERIMENT or NAMESPACE"
            )));
        }
    };
    let (found, page) = store::list(&api.db, experiment, &query).await?;
    let mut jobs = Vec::with_capacity(found.len());
    for one in &found {
        jobs.push(shown(&api, one).await?);
    }
    Ok(Json(ListJobs {
        jobs,
        total_size: page.total as i32,
        next_page_token: page.next,
    }))
}

async fn one(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Job>> {
    let found = store::get(&api.db, &id).await?;
    Ok(Json(shown(&api, &found).await?))
}

async fn remove(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Nothing>> {
    recurring::delete(&api, &id, Propagation::Orphan).await?;
    Ok(Json(Nothing))
}
