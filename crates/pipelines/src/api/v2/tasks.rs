//! `task_details`: what became of each task of a run, with what the original leaves empty: inputs,
//! outputs, attempts and errors.

use std::collections::{BTreeMap, BTreeSet};

use engine::{Kind, Phase, Run, Task, TaskId};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::messages::{
    ArtifactList, Attempt, CachedFrom, ChildTask, ExecutorDetail, RuntimeState, RuntimeStatus,
    Status, TaskDetail,
};
use crate::api::message::{Json, Time, Values};
use crate::runner::Nodes;

/// The details of every task that was reached.
pub(super) fn details(run: &Run, workflow: &str) -> Vec<TaskDetail> {
    let nodes = Nodes { run, workflow };
    let tasks = run.tasks();
    let ids: Vec<String> = tasks.iter().map(|task| nodes.id(task)).collect();
    let mut after: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); tasks.len()];
    for (index, task) in tasks.iter().enumerate() {
        if !Nodes::shown(task) {
            continue;
        }
        let before = run.dependencies(TaskId::at(index));
        match (before.is_empty() || task.item.is_some(), task.parent) {
            (true, Some(parent)) => {
                after[parent.index()].insert(index);
            }
            (true, None) => {}
            (false, _) => {
                for id in before {
                    after[id.index()].insert(index);
                }
            }
        }
    }
    tasks
        .iter()
        .enumerate()
        .filter(|(_, task)| Nodes::shown(task))
        .map(|(index, task)| {
            let children = after[index]
                .iter()
                .map(|child| ChildTask {
                    task_id: ids[*child].clone(),
                    pod_name: String::new(),
                })
                .collect();
            let parent = task.parent.map(|id| ids[id.index()].clone());
            detail(run, &nodes, task, &ids[index], parent, children)
        })
        .collect()
}

fn detail(
    run: &Run,
    nodes: &Nodes<'_>,
    task: &Task,
    id: &str,
    parent: Option<String>,
    child_tasks: Vec<ChildTask>,
) -> TaskDetail {
    let attempts = attempts(nodes, task);
    let state = state(task.phase);
    let pod_name = attempts
        .last()
        .map(|attempt| attempt.pod_name.clone())
        .unwrap_or_default();
    let executor = (!attempts.is_empty()).then(|| ExecutorDetail {
        main_job: pod_name.clone(),
        failed_main_jobs: attempts
            .iter()
            .filter(|attempt| attempt.state == RuntimeState::Failed)
            .map(|attempt| attempt.pod_name.clone())
            .collect(),
        ..ExecutorDetail::default()
    });
    let display_name = if task.path.as_str().is_empty() {
        "root".to_owned()
    } else {
        task.display_name.clone()
    };
    let start = task.started_at.map(Time::of).unwrap_or_default();
    let end = task.finished_at.map(Time::of).unwrap_or_default();
    let error = task.phase.unsuccessful().then(|| {
        let message = task.message.clone().unwrap_or_default();
        Status::failed(format!("task {display_name} failed: {message}"))
    });
    TaskDetail {
        run_id: run.created().run.clone(),
        task_id: id.to_owned(),
        display_name,
        create_time: start,
        start_time: start,
        end_time: end,
        executor_detail: executor,
        state,
        error: error.clone(),
        inputs: values(&task.inputs, &task.input_artifacts),
        outputs: values(&task.outputs, &task.output_artifacts),
        parent_task_id: parent.unwrap_or_default(),
        state_history: history(start, end, state, error),
        pod_name,
        child_tasks,
        attempts,
        cached_from: task.cached_from.as_deref().map(cached_from),
        ..TaskDetail::default()
    }
}

/// The run's id and the task's path, which begins with a dot, as the cache names where a task's
/// outputs come from.
fn cached_from(origin: &str) -> CachedFrom {
    let (run, task) = origin.split_once('.').unwrap_or((origin, ""));
    CachedFrom {
        run_id: run.to_owned(),
        task: task.to_owned(),
    }
}

fn history(
    start: Time,
    end: Time,
    state: RuntimeState,
    error: Option<Status>,
) -> Vec<RuntimeStatus> {
    let mut history = Vec::new();
    let over = end.0.is_some();
    if start.0.is_some() && state != RuntimeState::Skipped {
        history.push(RuntimeStatus {
            update_time: start,
            state: if over { RuntimeState::Running } else { state },
            error: None,
        });
    }
    if over {
        history.push(RuntimeStatus {
            update_time: end,
            state,
            error,
        });
    }
    history
}

fn state(phase: Phase) -> RuntimeState {
    match phase {
        Phase::Waiting | Phase::Pending => RuntimeState::Pending,
        Phase::Running => RuntimeState::Running,
        Phase::Succeeded => RuntimeState::Succeeded,
        Phase::Skipped | Phase::Omitted => RuntimeState::Skipped,
        Phase::Failed | Phase::Error => RuntimeState::Failed,
    }
}

fn attempts(nodes: &Nodes<'_>, task: &Task) -> Vec<Attempt> {
    let Kind::Work(work) = &task.kind else {
        return Vec::new();
    };
    work.attempts
        .iter()
        .zip(nodes.pods(task))
        .map(|(attempt, (number, pod_name))| Attempt {
            attempt: number as i32,
            pod_name,
            state: state(attempt.phase),
            start_time: Time::of(attempt.started_at),
            end_time: attempt.finished_at.map(Time::of).unwrap_or_default(),
            exit_code: attempt.exit_code,
            host: attempt.host.clone().unwrap_or_default(),
            error: attempt
                .message
                .as_ref()
                .filter(|_| attempt.phase.unsuccessful())
                .map(Status::failed),
        })
        .collect()
}

/// Parameters and artifacts by name.
fn values(
    parameters: &BTreeMap<String, Value>,
    artifacts: &BTreeMap<String, Value>,
) -> BTreeMap<String, ArtifactList> {
    let mut all: BTreeMap<String, ArtifactList> = BTreeMap::new();
    for (name, value) in parameters {
        all.entry(name.clone()).or_default().value = Json::Tree(value.clone());
    }
    for (name, value) in artifacts {
        let entry = all.entry(name.clone()).or_default();
        let items = match value {
            Value::Array(items) => items.as_slice(),
            other => std::slice::from_ref(other),
        };
        for item in items {
            let members = match item {
                Value::Object(members) => members.clone(),
                other => Map::from_iter([("value".to_owned(), other.clone())]),
            };
            entry.artifact_ids.push(artifact_id(item));
            entry.artifacts.push(Values(members));
        }
    }
    all
}

/// A number for an artifact that is the same wherever it is seen: from its address.
fn artifact_id(artifact: &Value) -> String {
    let uri = artifact.get("uri").and_then(Value::as_str);
    let digest = match uri {
        Some(uri) => Sha256::digest(uri),
        None => Sha256::digest(artifact.to_string()),
    };
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    (u64::from_be_bytes(bytes) >> 1).to_string()
}
