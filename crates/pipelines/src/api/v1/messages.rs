//! The messages of v1beta1, member by member as its protos have them.

use crate::api::message::{Int64, Time, Values, message, names};

names! {
    /// What a reference or a list's scope names.
    pub(crate) enum ResourceType {
        Unknown = "UNKNOWN_RESOURCE_TYPE" 0,
        Experiment = "EXPERIMENT" 1,
        Job = "JOB" 2,
        Pipeline = "PIPELINE" 3,
        PipelineVersion = "PIPELINE_VERSION" 4,
        Namespace = "NAMESPACE" 5,
    }
}

names! {
    /// What the other resource is to this one.
    pub(crate) enum Relationship {
        Unknown = "UNKNOWN_RELATIONSHIP" 0,
        Owner = "OWNER" 1,
        Creator = "CREATOR" 2,
    }
}

names! {
    /// Whether an experiment is put away.
    pub(crate) enum ExperimentStorageState {
        Unspecified = "STORAGESTATE_UNSPECIFIED" 0,
        Available = "STORAGESTATE_AVAILABLE" 1,
        Archived = "STORAGESTATE_ARCHIVED" 2,
    }
}

names! {
    /// Whether a run is put away.
    pub(crate) enum RunStorageState {
        Available = "STORAGESTATE_AVAILABLE" 0,
        Archived = "STORAGESTATE_ARCHIVED" 1,
    }
}

names! {
    /// How a metric is shown.
    pub(crate) enum MetricFormat {
        Unspecified = "UNSPECIFIED" 0,
        Raw = "RAW" 1,
        Percentage = "PERCENTAGE" 2,
    }
}

names! {
    /// What became of a metric that was reported.
    pub(crate) enum MetricStatus {
        Unspecified = "UNSPECIFIED" 0,
        Ok = "OK" 1,
        InvalidArgument = "INVALID_ARGUMENT" 2,
        Duplicate = "DUPLICATE_REPORTING" 3,
        Internal = "INTERNAL_ERROR" 4,
    }
}

message! {
    pub(crate) struct ResourceKey as "apiResourceKey" { kind as "type": ResourceType, id: String }
}

message! {
    pub(crate) struct Reference as "apiResourceReference" {
        key: Option<ResourceKey>, name: String, relationship: Relationship,
    }
}

impl Reference {
    pub(crate) fn new(
        kind: ResourceType,
        id: &str,
        name: &str,
        relationship: Relationship,
    ) -> Self {
        let key = ResourceKey {
            kind,
            id: id.to_owned(),
        };
        Self {
            key: Some(key),
            name: name.to_owned(),
            relationship,
        }
    }

    /// The id of the first reference of this type.
    pub(crate) fn find(references: &[Self], kind: ResourceType) -> Option<&str> {
        references
            .iter()
            .filter_map(|reference| reference.key.as_ref())
            .find(|key| key.kind == kind)
            .map(|key| key.id.as_str())
    }
}

message! {
    pub(crate) struct Experiment as "apiExperiment" {
        id: String,
        name: String,
        description: String,
        created_at: Time,
        resource_references: Vec<Reference>,
        storage_state: ExperimentStorageState,
        last_run_created_at: Time,
    }
}

message! {
    pub(crate) struct ListExperiments as "apiListExperimentsResponse" {
        experiments: Vec<Experiment>, total_size: i32, next_page_token: String,
    }
}

message! {
    pub(crate) struct Parameter as "apiParameter" { name: String, value: String }
}

message! {
    pub(crate) struct Url as "apiUrl" { pipeline_url: String }
}

message! {
    pub(crate) struct PipelineVersion as "apiPipelineVersion" {
        id: String,
        name: String,
        created_at: Time,
        parameters: Vec<Parameter>,
        code_source_url: String,
        package_url: Option<Url>,
        resource_references: Vec<Reference>,
        description: String,
    }
}

message! {
    pub(crate) struct ListPipelineVersions as "apiListPipelineVersionsResponse" {
        versions: Vec<PipelineVersion>, next_page_token: String, total_size: i32,
    }
}

message! {
    pub(crate) struct Pipeline as "apiPipeline" {
        id: String,
        created_at: Time,
        name: String,
        description: String,
        parameters: Vec<Parameter>,
        url: Option<Url>,
        error: String,
        default_version: Option<PipelineVersion>,
        resource_references: Vec<Reference>,
    }
}

message! {
    pub(crate) struct ListPipelines as "apiListPipelinesResponse" {
        pipelines: Vec<Pipeline>, total_size: i32, next_page_token: String,
    }
}

message! {
    pub(crate) struct Template as "apiGetTemplateResponse" { template: String }
}

message! {
    pub(crate) struct RuntimeConfig as "PipelineSpecRuntimeConfig" {
        parameters: Values, pipeline_root: String,
    }
}

message! {
    pub(crate) struct PipelineSpec as "apiPipelineSpec" {
        pipeline_id: String,
        pipeline_name: String,
        workflow_manifest: String,
        pipeline_manifest: String,
        parameters: Vec<Parameter>,
        runtime_config: Option<RuntimeConfig>,
    }
}

message! {
    pub(crate) struct Metric as "apiRunMetric" {
        name: String, node_id: String, number_value: Option<f64>, format: MetricFormat,
    }
}

message! {
    pub(crate) struct Run as "apiRun" {
        id: String,
        name: String,
        storage_state: RunStorageState,
        description: String,
        pipeline_spec: Option<PipelineSpec>,
        resource_references: Vec<Reference>,
        service_account: String,
        created_at: Time,
        scheduled_at: Time,
        finished_at: Time,
        status: String,
        error: String,
        metrics: Vec<Metric>,
    }
}

message! {
    pub(crate) struct ListRuns as "apiListRunsResponse" {
        runs: Vec<Run>, total_size: i32, next_page_token: String,
    }
}

message! {
    pub(crate) struct PipelineRuntime as "apiPipelineRuntime" {
        pipeline_manifest: String, workflow_manifest: String,
    }
}

message! {
    pub(crate) struct RunDetail as "apiRunDetail" {
        run: Option<Run>, pipeline_runtime: Option<PipelineRuntime>,
    }
}

message! {
    pub(crate) struct ReportMetrics as "apiReportRunMetricsRequest" {
        run_id: String, metrics: Vec<Metric>,
    }
}

message! {
    pub(crate) struct MetricResult as "ReportRunMetricsResponseReportRunMetricResult" {
        metric_name: String, metric_node_id: String, status: MetricStatus, message: String,
    }
}

message! {
    pub(crate) struct MetricResults as "apiReportRunMetricsResponse" { results: Vec<MetricResult> }
}

names! {
    /// Whether a job fires.
    pub(crate) enum JobMode {
        Unknown = "UNKNOWN_MODE" 0,
        Enabled = "ENABLED" 1,
        Disabled = "DISABLED" 2,
    }
}

message! {
    pub(crate) struct CronSchedule as "apiCronSchedule" {
        start_time: Time, end_time: Time, cron: String,
    }
}

message! {
    pub(crate) struct PeriodicSchedule as "apiPeriodicSchedule" {
        start_time: Time, end_time: Time, interval_second: Int64,
    }
}

message! {
    pub(crate) struct Trigger as "apiTrigger" {
        cron_schedule: Option<CronSchedule>, periodic_schedule: Option<PeriodicSchedule>,
    }
}

message! {
    /// A recurring run, as v1beta1 has it.
    pub(crate) struct Job as "apiJob" {
        id: String,
        name: String,
        description: String,
        pipeline_spec: Option<PipelineSpec>,
        resource_references: Vec<Reference>,
        service_account: String,
        max_concurrency: Int64,
        trigger: Option<Trigger>,
        mode: JobMode,
        created_at: Time,
        updated_at: Time,
        status: String,
        error: String,
        enabled: bool,
        no_catchup: bool,
    }
}

message! {
    pub(crate) struct ListJobs as "apiListJobsResponse" {
        jobs: Vec<Job>, total_size: i32, next_page_token: String,
    }
}
