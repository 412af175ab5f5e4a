//! The messages of v2beta1, member by member as its protos have them.

#![expect(
    clippy::struct_field_names,
    reason = "members are named as on the wire"
)]

use std::collections::BTreeMap;

use crate::api::message::{Int64, Json, Schemas, Time, Values, Wire, message, names};

names! {
    /// Whether a run or an experiment is put away.
    pub(crate) enum StorageState {
        Unspecified = "STORAGE_STATE_UNSPECIFIED" 0,
        Available = "AVAILABLE" 1,
        Archived = "ARCHIVED" 2,
    }
}

names! {
    /// How far a run or a task is.
    pub(crate) enum RuntimeState {
        Unspecified = "RUNTIME_STATE_UNSPECIFIED" 0,
        Pending = "PENDING" 1,
        Running = "RUNNING" 2,
        Succeeded = "SUCCEEDED" 3,
        Skipped = "SKIPPED" 4,
        Failed = "FAILED" 5,
        Canceling = "CANCELING" 6,
        Canceled = "CANCELED" 7,
        Paused = "PAUSED" 8,
    }
}

impl RuntimeState {
    /// The state by the name that the store keeps.
    pub(crate) fn stored(name: &str) -> Self {
        match name {
            "PENDING" => Self::Pending,
            "RUNNING" => Self::Running,
            "SUCCEEDED" => Self::Succeeded,
            "SKIPPED" => Self::Skipped,
            "FAILED" => Self::Failed,
            "CANCELING" => Self::Canceling,
            "CANCELED" => Self::Canceled,
            "PAUSED" => Self::Paused,
            _ => Self::Unspecified,
        }
    }
}

message! {
    /// google.rpc.Status.
    pub(crate) struct Status as "googlerpcStatus" { code: i32, message: String, details: Vec<Values> }
}

impl Status {
    /// An error of a run or a task: code 13, internal, as the original has it.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self {
            code: 13,
            message: message.into(),
            details: Vec::new(),
        }
    }
}

message! {
    /// An experiment.
    pub(crate) struct Experiment as "v2beta1Experiment" {
        experiment_id: String,
        display_name: String,
        description: String,
        created_at: Time,
        namespace: String,
        storage_state: StorageState,
        last_run_created_at: Time,
    }
}

message! {
    pub(crate) struct ListExperiments as "v2beta1ListExperimentsResponse" {
        experiments: Vec<Experiment>, total_size: i32, next_page_token: String,
    }
}

message! {
    /// A pipeline.
    pub(crate) struct Pipeline as "v2beta1Pipeline" {
        pipeline_id: String,
        display_name: String,
        name: String,
        description: String,
        created_at: Time,
        namespace: String,
        error: Option<Status>,
        tags: Option<BTreeMap<String, String>>,
    }
}

message! {
    pub(crate) struct ListPipelines as "v2beta1ListPipelinesResponse" {
        pipelines: Vec<Pipeline>, total_size: i32, next_page_token: String,
    }
}

message! {
    pub(crate) struct Url as "v2beta1Url" { pipeline_url: String }
}

message! {
    /// A version of a pipeline.
    pub(crate) struct PipelineVersion as "v2beta1PipelineVersion" {
        pipeline_id: String,
        pipeline_version_id: String,
        display_name: String,
        name: String,
        description: String,
        created_at: Time,
        package_url: Option<Url>,
        code_source_url: String,
        pipeline_spec: Json,
        error: Option<Status>,
        tags: Option<BTreeMap<String, String>>,
    }
}

message! {
    pub(crate) struct ListPipelineVersions as "v2beta1ListPipelineVersionsResponse" {
        pipeline_versions: Vec<PipelineVersion>, next_page_token: String, total_size: i32,
    }
}

message! {
    pub(crate) struct CreatePipelineAndVersion as "v2beta1CreatePipelineAndVersionRequest" {
        pipeline: Option<Pipeline>, pipeline_version: Option<PipelineVersion>,
    }
}

message! {
    pub(crate) struct PipelineVersionReference as "v2beta1PipelineVersionReference" {
        pipeline_id: String, pipeline_version_id: String,
    }
}

message! {
    pub(crate) struct RuntimeConfig as "v2beta1RuntimeConfig" {
        parameters: Values, pipeline_root: String,
    }
}

message! {
    pub(crate) struct RuntimeStatus as "v2beta1RuntimeStatus" {
        update_time: Time, state: RuntimeState, error: Option<Status>,
    }
}

message! {
    /// Inputs or outputs of a task by name: artifacts by id as the original has them, and beside
    /// that what a person wants to see.
    pub(crate) struct ArtifactList as "v2beta1ArtifactList" {
        artifact_ids: Vec<String>,
        artifacts: Vec<Values>,
        value: Json,
    }
}

message! {
    pub(crate) struct ExecutorDetail as "v2beta1PipelineTaskExecutorDetail" {
        main_job: String,
        pre_caching_check_job: String,
        failed_main_jobs: Vec<String>,
        failed_pre_caching_check_jobs: Vec<String>,
    }
}

message! {
    pub(crate) struct ChildTask as "PipelineTaskDetailChildTask" { task_id: String, pod_name: String }
}

message! {
    /// One attempt at a task's work.
    pub(crate) struct Attempt as "PipelineTaskDetailAttempt" {
        attempt: i32,
        pod_name: String,
        state: RuntimeState,
        start_time: Time,
        end_time: Time,
        exit_code: Option<i32>,
        host: String,
        error: Option<Status>,
    }
}

message! {
    /// Whose outputs a task took instead of running.
    pub(crate) struct CachedFrom as "PipelineTaskDetailCachedFrom" { run_id: String, task: String }
}

message! {
    pub(crate) struct TaskDetail as "v2beta1PipelineTaskDetail" {
        run_id: String,
        task_id: String,
        display_name: String,
        create_time: Time,
        start_time: Time,
        end_time: Time,
        executor_detail: Option<ExecutorDetail>,
        state: RuntimeState,
        execution_id: Int64,
        error: Option<Status>,
        inputs: BTreeMap<String, ArtifactList>,
        outputs: BTreeMap<String, ArtifactList>,
        parent_task_id: String,
        state_history: Vec<RuntimeStatus>,
        pod_name: String,
        child_tasks: Vec<ChildTask>,
        attempts: Vec<Attempt>,
        cached_from: Option<CachedFrom>,
    }
}

message! {
    pub(crate) struct RunDetails as "v2beta1RunDetails" {
        pipeline_context_id: Int64,
        pipeline_run_context_id: Int64,
        task_details: Vec<TaskDetail>,
    }
}

message! {
    /// A run.
    pub(crate) struct Run as "v2beta1Run" {
        experiment_id: String,
        run_id: String,
        display_name: String,
        storage_state: StorageState,
        description: String,
        pipeline_version_id: String,
        pipeline_spec: Json,
        pipeline_version_reference: Option<PipelineVersionReference>,
        runtime_config: Option<RuntimeConfig>,
        service_account: String,
        created_at: Time,
        scheduled_at: Time,
        finished_at: Time,
        state: RuntimeState,
        error: Option<Status>,
        run_details: Option<RunDetails>,
        recurring_run_id: String,
        state_history: Vec<RuntimeStatus>,
        plugins_input: Values,
        plugins_output: Values,
    }
}

message! {
    pub(crate) struct ListRuns as "v2beta1ListRunsResponse" {
        runs: Vec<Run>, total_size: i32, next_page_token: String,
    }
}

/// google.protobuf.Empty.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Nothing;

impl serde::Serialize for Nothing {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(std::iter::empty::<(&str, &str)>())
    }
}

impl Wire for Nothing {
    fn read(_: serde_json::Value, _: &str) -> crate::api::wire::Result<Self> {
        Ok(Self)
    }

    fn unset(&self) -> bool {
        false
    }

    fn schema(_: &mut Schemas) -> serde_json::Value {
        serde_json::json!({"type": "object", "additionalProperties": false})
    }
}

names! {
    /// Whether a recurring run shall fire.
    pub(crate) enum Mode {
        Unspecified = "MODE_UNSPECIFIED" 0,
        Enable = "ENABLE" 1,
        Disable = "DISABLE" 2,
    }
}

names! {
    /// Whether a recurring run fires.
    pub(crate) enum RecurringRunStatus {
        Unspecified = "STATUS_UNSPECIFIED" 0,
        Enabled = "ENABLED" 1,
        Disabled = "DISABLED" 3,
    }
}

message! {
    pub(crate) struct CronSchedule as "v2beta1CronSchedule" {
        start_time: Time, end_time: Time, cron: String,
    }
}

message! {
    pub(crate) struct PeriodicSchedule as "v2beta1PeriodicSchedule" {
        start_time: Time, end_time: Time, interval_second: Int64,
    }
}

message! {
    pub(crate) struct Trigger as "v2beta1Trigger" {
        cron_schedule: Option<CronSchedule>, periodic_schedule: Option<PeriodicSchedule>,
    }
}

message! {
    /// A recurring run.
    pub(crate) struct RecurringRun as "v2beta1RecurringRun" {
        recurring_run_id: String,
        display_name: String,
        description: String,
        pipeline_version_id: String,
        pipeline_spec: Json,
        pipeline_version_reference: Option<PipelineVersionReference>,
        runtime_config: Option<RuntimeConfig>,
        service_account: String,
        max_concurrency: Int64,
        trigger: Option<Trigger>,
        mode: Mode,
        created_at: Time,
        updated_at: Time,
        status: RecurringRunStatus,
        error: Option<Status>,
        no_catchup: bool,
        namespace: String,
        experiment_id: String,
        plugins_input: Values,
    }
}

message! {
    pub(crate) struct ListRecurringRuns as "v2beta1ListRecurringRunsResponse" {
        recurring_runs as "recurringRuns": Vec<RecurringRun>,
        total_size: i32,
        next_page_token: String,
    }
}

message! {
    /// The next firings of a recurring run or of a trigger that is not stored.
    pub(crate) struct Preview as "RecurringRunPreview" {
        scheduled_times: Vec<Time>, time_zone: String, warnings: Vec<String>,
    }
}
