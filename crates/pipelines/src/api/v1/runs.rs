//! `/apis/v1beta1/runs`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use serde_json::Value;

use super::experiments::of_namespace;
use super::messages::{
    self, ListRuns, Metric, MetricFormat, MetricResult, MetricResults, MetricStatus, Parameter,
    PipelineRuntime, PipelineSpec, Reference, Relationship, ReportMetrics, ResourceType, RunDetail,
    RunStorageState,
};
use super::{Owner, SCOPED};
use crate::api::both::run::{archive, remove, retry, terminate, unarchive};
use crate::api::launch::{self, Source, Wanted};
use crate::api::message::{self, Time, Values};
use crate::api::route::{LIST, Route, delete, get, post};
use crate::api::v2::messages::Nothing;
use crate::api::wire::{Failure, Result};
use crate::api::{Api, actions, package};
use crate::store::runs::{self, Record};
use crate::store::{page, pipelines};

pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/apis/v1beta1/runs", "List runs", list)
            .query(LIST)
            .query(SCOPED)
            .answers::<ListRuns>(),
        post("/apis/v1beta1/runs", "Start a run", create)
            .takes::<messages::Run>()
            .answers::<RunDetail>(),
        get("/apis/v1beta1/runs/{run_id}", "Get a run", one).answers::<RunDetail>(),
        delete("/apis/v1beta1/runs/{run_id}", "Delete a run", remove).answers::<Nothing>(),
        post(
            "/apis/v1beta1/runs/{run_id}:archive",
            "Put a run away",
            archive,
        )
        .answers::<Nothing>(),
        post(
            "/apis/v1beta1/runs/{run_id}:unarchive",
            "Take a run back",
            unarchive,
        )
        .answers::<Nothing>(),
        post(
            "/apis/v1beta1/runs/{run_id}:reportMetrics",
            "Report metrics of a run's steps",
            report,
        )
        .takes::<ReportMetrics>()
        .answers::<MetricResults>(),
        post(
            "/apis/v1beta1/runs/{run_id}/terminate",
            "End a run",
            terminate,
        )
        .answers::<Nothing>(),
        post(
            "/apis/v1beta1/runs/{run_id}/retry",
            "Try what failed in a run again",
            retry,
        )
        .answers::<Nothing>(),
    ]
}

async fn create(State(api): State<Api>, bytes: Bytes) -> Result<Json<RunDetail>> {
    let asked: messages::Run = message::parse("run", &bytes)?;
    if asked.name.is_empty() {
        return Err(Failure::invalid("run.name: wants a name"));
    }
    let spec = asked.pipeline_spec.unwrap_or_default();
    let of = |kind| {
        Reference::find(&asked.resource_references, kind)
            .unwrap_or_default()
            .to_owned()
    };
    let source = source(
        &api,
        &spec,
        &of(ResourceType::PipelineVersion),
        of(ResourceType::Pipeline),
    )
    .await?;
    let config = spec.runtime_config.unwrap_or_default();
    let mut parameters: Vec<(String, Value)> = spec
        .parameters
        .into_iter()
        .map(|parameter| (parameter.name, Value::String(parameter.value)))
        .collect();
    parameters.extend(config.parameters.0);
    let wanted = Wanted {
        name: asked.name,
        description: asked.description,
        experiment: of(ResourceType::Experiment),
        source,
        parameters,
        pipeline_root: config.pipeline_root,
        service_account: asked.service_account,
        plugins: serde_json::Map::new(),
        origin: None,
    };
    let id = launch::start(&api, wanted).await?;
    detail(&api, &id).await
}

async fn source(
    api: &Api,
    spec: &PipelineSpec,
    version: &str,
    referenced: String,
) -> Result<Source> {
    for (at, text) in [
        (
            "run.pipeline_spec.workflow_manifest",
            &spec.workflow_manifest,
        ),
        (
            "run.pipeline_spec.pipeline_manifest",
            &spec.pipeline_manifest,
        ),
    ] {
        if !text.is_empty() {
            return Ok(Source::inline(package::from_text(at, text)?));
        }
    }
    if !version.is_empty() {
        return launch::version(api, "", version).await;
    }
    let pipeline = if spec.pipeline_id.is_empty() {
        referenced
    } else {
        spec.pipeline_id.clone()
    };
    if pipeline.is_empty() {
        return Err(Failure::invalid(
            "run: give pipeline_spec.pipeline_id, pipeline_spec.workflow_manifest or a resource \
             reference of type PIPELINE_VERSION",
        ));
    }
    let default = pipelines::get(&api.db, &pipeline).await?.default_version;
    launch::version(api, &pipeline, &default.unwrap_or_default()).await
}

/// The status of v1beta1.
fn status(state: &str) -> &'static str {
    match state {
        "PENDING" => "Pending",
        "RUNNING" => "Running",
        "SUCCEEDED" => "Succeeded",
        "SKIPPED" => "Skipped",
        "FAILED" | "CANCELED" => "Failed",
        "CANCELING" => "Terminating",
        _ => "Unknown",
    }
}

fn shown(record: &Record) -> messages::Run {
    let run = &record.new;
    let mut references = vec![
        of_namespace(&run.namespace),
        Reference::new(
            ResourceType::Experiment,
            &run.experiment,
            record.experiment_name.as_deref().unwrap_or_default(),
            Relationship::Owner,
        ),
    ];
    let creator = match (&run.version, &run.pipeline) {
        _ if !run.recurring_run.is_empty() => Some((ResourceType::Job, &run.recurring_run, None)),
        (Some(version), _) => Some((
            ResourceType::PipelineVersion,
            version,
            record.version_name.as_deref(),
        )),
        (None, Some(pipeline)) => Some((
            ResourceType::Pipeline,
            pipeline,
            record.pipeline_name.as_deref(),
        )),
        (None, None) => None,
    };
    if let Some((kind, id, name)) = creator {
        references.push(Reference::new(
            kind,
            id,
            name.unwrap_or_default(),
            Relationship::Creator,
        ));
    }
    let v1 = package::is_workflow(&record.manifest);
    let given = || run.parameters.as_array().into_iter().flatten();
    let mut spec = PipelineSpec {
        pipeline_id: run.pipeline.clone().unwrap_or_default(),
        pipeline_name: record.pipeline_name.clone().unwrap_or_default(),
        ..PipelineSpec::default()
    };
    if v1 {
        spec.workflow_manifest.clone_from(&record.manifest);
        spec.parameters = given()
            .map(|parameter| Parameter {
                name: engine::render(&parameter["name"]),
                value: engine::render(&parameter["value"]),
            })
            .collect();
    } else {
        spec.pipeline_manifest.clone_from(&record.manifest);
        spec.runtime_config = Some(messages::RuntimeConfig {
            parameters: Values(
                given()
                    .map(|p| (engine::render(&p["name"]), p["value"].clone()))
                    .collect(),
            ),
            pipeline_root: run.pipeline_root.clone(),
        });
    }
    messages::Run {
        id: run.id.clone(),
        name: run.name.clone(),
        storage_state: if record.archived {
            RunStorageState::Archived
        } else {
            RunStorageState::Available
        },
        description: run.description.clone(),
        pipeline_spec: Some(spec),
        resource_references: references,
        service_account: run.service_account.clone(),
        created_at: Time(Some(run.created_at)),
        scheduled_at: Time(Some(run.scheduled_at)),
        // The original says 1970 for what has not happened yet.
        finished_at: Time(Some(record.finished_at)),
        status: status(&record.state).to_owned(),
        error: record.message.clone().unwrap_or_default(),
        metrics: Vec::new(),
    }
}

fn shown_metric(metric: &runs::Metric) -> Metric {
    Metric {
        name: metric.name.clone(),
        node_id: metric.node.clone(),
        number_value: Some(metric.value),
        format: match metric.format.as_str() {
            "RAW" => MetricFormat::Raw,
            "PERCENTAGE" => MetricFormat::Percentage,
            _ => MetricFormat::Unspecified,
        },
    }
}

/// A run with its live Workflow.
async fn detail(api: &Api, id: &str) -> Result<Json<RunDetail>> {
    let record = runs::get(&api.db, id).await?;
    let mut run = shown(&record);
    run.metrics = runs::metrics(&api.db, id)
        .await?
        .iter()
        .map(shown_metric)
        .collect();
    let live = api.runner.workflow_manifest(id).await?.to_string();
    let runtime = if package::is_workflow(&record.manifest) {
        PipelineRuntime {
            workflow_manifest: live,
            ..PipelineRuntime::default()
        }
    } else {
        PipelineRuntime {
            pipeline_manifest: record.manifest,
            workflow_manifest: live,
        }
    };
    Ok(Json(RunDetail {
        run: Some(run),
        pipeline_runtime: Some(runtime),
    }))
}

async fn list(
    State(api): State<Api>,
    Query(owner): Query<Owner>,
    Query(mut query): Query<page::Request>,
) -> Result<Json<ListRuns>> {
    let id = Some(owner.id.as_str());
    let of = match owner.namespace(&mut query)? {
        ResourceType::Experiment => runs::Of {
            experiment: id,
            recurring_run: None,
        },
        ResourceType::Job => runs::Of {
            experiment: None,
            recurring_run: id,
        },
        ResourceType::Namespace | ResourceType::Unknown => runs::Of::default(),
        other => {
            return Err(Failure::invalid(format!(
                "resource_reference_key.type {other}: runs are listed by EXPERIMENT, JOB or \
                 NAMESPACE"
            )));
        }
    };
    let (found, page) = actions::list(&api, of, &query).await?;
    Ok(Json(ListRuns {
        runs: found.iter().map(shown).collect(),
        total_size: page.total as i32,
        next_page_token: page.next,
    }))
}

async fn one(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<RunDetail>> {
    detail(&api, &id).await
}

/// Whether a metric can be stored: a name as the original allows it, a node and a finite value.
fn unfit(metric: &Metric) -> Option<String> {
    let good_name = !metric.name.is_empty()
        && metric.name.len() <= 63
        && metric
            .name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_. ".contains(&b));
    if !good_name {
        return Some(format!(
            "metric name {:?} wants 1 to 63 letters, digits, spaces, dots, - or _",
            metric.name
        ));
    }
    if metric.node_id.is_empty() {
        return Some("node_id is empty".to_owned());
    }
    match metric.number_value {
        Some(value) if value.is_finite() => None,
        _ => Some("number_value is missing or not finite".to_owned()),
    }
}

async fn report(
    State(api): State<Api>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<MetricResults>> {
    let asked: ReportMetrics = message::parse("request", &bytes)?;
    if !asked.run_id.is_empty() && asked.run_id != id {
        return Err(Failure::invalid(format!(
            "request.run_id {:?} is not the run of the path, {id:?}",
            asked.run_id
        )));
    }
    runs::get(&api.db, &id).await?;
    let mut results = Vec::with_capacity(asked.metrics.len());
    for metric in asked.metrics {
        let mut result = MetricResult {
            metric_name: metric.name.clone(),
            metric_node_id: metric.node_id.clone(),
            ..MetricResult::default()
        };
        if let Some(why) = unfit(&metric) {
            result.status = MetricStatus::InvalidArgument;
            result.message = why;
            results.push(result);
            continue;
        }
        let stored = runs::Metric {
            run: id.clone(),
            node: metric.node_id,
            name: metric.name,
            value: metric.number_value.unwrap_or_default(),
            format: metric.format.to_string(),
        };
        (result.status, result.message) = match runs::report(&api.db, stored).await {
            Ok(true) => (MetricStatus::Ok, String::new()),
            Ok(false) => (
                MetricStatus::Duplicate,
                "this metric of this node was reported before".to_owned(),
            ),
            Err(error) => (MetricStatus::Internal, Failure::from(error).message),
        };
        results.push(result);
    }
    Ok(Json(MetricResults { results }))
}
