//! Attempts as Pods: their names, what they look like, and making and deleting them.
//!
//! A Pod's name is derived from (workflow, task, attempt), so making it twice is making it once.

use std::sync::Arc;
use std::time::Duration;

use engine::{Event, Outcome, StartWork, TaskPath};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use stdx::Backoff;

use super::store::Place;
use super::{Error, Shared};
use crate::journal::Record;

mod argo;
mod component;

pub(super) const WORKFLOW_LABEL: &str = "workflows.argoproj.io/workflow";
pub(super) const RUN_LABEL: &str = "pipeline/runid";
pub(super) const TASK_ANNOTATION: &str = "coracle/task";
/// The folder of the attempt in its store.
pub(super) const FOLDER_ANNOTATION: &str = "coracle/folder";
pub(super) const ATTEMPT_ANNOTATION: &str = "coracle/attempt";

/// The container that does the step's work, as Argo and every KFP client call it.
pub(super) const MAIN: &str = "main";

/// A Pod's name leaves room for the hash within Kubernetes' 253 characters.
const MAX_PREFIX: usize = 253 - 11;

/// The names of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    /// Its node's name: the Workflow's name, the path, and the attempt where there may be several.
    pub(super) node: String,
    /// Its node's id.
    pub(super) id: String,
    /// Its Pod's name.
    pub(super) pod: String,
}

impl Names {
    /// `retried`: whether its template may be tried again.
    pub(super) fn of(
        workflow: &str,
        task: &TaskPath,
        template: &str,
        attempt: u32,
        retried: bool,
    ) -> Self {
        let node = if retried || attempt > 0 {
            format!("{workflow}{task}({attempt})")
        } else {
            format!("{workflow}{task}")
        };
        let hash = fnv1a(&node);
        let template = template.to_ascii_lowercase();
        let template: String = template
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let mut prefix = format!("{workflow}-{}", template.trim_matches('-'));
        prefix.truncate(MAX_PREFIX);
        let pod = format!("{prefix}-{hash}");
        Self {
            id: node_id(workflow, &node),
            node,
            pod,
        }
    }

    /// Puts in what only the runner knows.
    pub(super) fn replace_late(text: &str, pod: &str, attempt: u32) -> String {
        if !text.contains("{{") {
            return text.to_owned();
        }
        text.replace("{{pod.name}}", pod)
            .replace("{{retries}}", &attempt.to_string())
    }
}

/// The id of a node by its name, as Argo makes it.
pub(super) fn node_id(workflow: &str, node: &str) -> String {
    if node == workflow {
        workflow.to_owned()
    } else {
        format!("{workflow}-{}", fnv1a(node))
    }
}

/// FNV-1a, 32 bits.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// Makes the Pod of an attempt. `None` when it is there; else the end of the attempt.
pub(super) async fn start(
    shared: Arc<Shared>,
    record: Arc<Record>,
    settings: Value,
    start: StartWork,
    retried: bool,
) -> Option<Event> {
    let names = Names::of(
        &record.workflow,
        &start.task,
        &start.template,
        start.attempt,
        retried,
    );
    let failed = |message: String| Event::TaskFinished {
        task: start.task.clone(),
        attempt: start.attempt,
        at: shared.clock.now(),
        outcome: Outcome::Error {
            message,
            transient: false,
            stop: false,
        },
    };
    let built = if start.spec.get("v2").is_some() {
        match component::build(&shared, &record, &settings, &start, &names).await {
            Ok(component::Built::Pod(pod)) => Ok(*pod),
            Ok(component::Built::Cached(outputs)) => {
                return Some(Event::TaskFinished {
                    task: start.task.clone(),
                    attempt: start.attempt,
                    at: shared.clock.now(),
                    outcome: Outcome::Succeeded(outputs),
                });
            }
            Err(message) => Err(message),
        }
    } else {
        let place = Place::of(&shared);
        argo::build(&record, &settings, &start, &names, &place)
    };
    let pod = match built {
        Ok(pod) => pod,
        Err(message) => return Some(failed(message)),
    };
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &shared.options.namespace);
    let mut pause = Backoff::new(Duration::from_millis(50), 2.0, Duration::from_secs(10));
    loop {
        match api.create(&PostParams::default(), &pod).await {
            Ok(_) => return None,
            // It is ours already: names are derived.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => return None,
            Err(kube::Error::Api(status)) if refused(status.code) => {
                return Some(failed(format!(
                    "the step's Pod was refused: {}",
                    status.message
                )));
            }
            Err(error) => {
                tracing::warn!(
                    run_id = record.run,
                    task = %start.task,
                    "create pod, will try again: {}",
                    stdx::error::chain(&error)
                );
                shared.clock.sleep(pause.next_delay()).await;
            }
        }
    }
}

/// Answers that will be the same next time. (403 may be a quota, which passes; but admission and
/// RBAC answer with it as well, and a step that waits for ever helps nobody.)
pub(super) fn refused(code: u16) -> bool {
    matches!(code, 400 | 403 | 404 | 405 | 409 | 413 | 415 | 422)
}

/// Deletes the Pod of an attempt, if it is there.
pub(super) async fn stop(shared: Arc<Shared>, name: String) -> Option<Event> {
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &shared.options.namespace);
    let mut pause = Backoff::new(Duration::from_millis(50), 2.0, Duration::from_secs(10));
    loop {
        match api.delete(&name, &DeleteParams::default()).await {
            Ok(_) => return None,
            Err(kube::Error::Api(status)) if status.code == 404 => return None,
            Err(kube::Error::Api(status)) if refused(status.code) => {
                tracing::error!(pod = name, "delete pod: {}", status.message);
                return None;
            }
            Err(error) => {
                tracing::warn!(pod = name, "delete pod: {}", stdx::error::chain(&error));
                shared.clock.sleep(pause.next_delay()).await;
            }
        }
    }
}

/// Deletes every Pod of a run.
pub(super) async fn delete_all(shared: &Shared, run: &str) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &shared.options.namespace);
    let ours = ListParams::default().labels(&format!("{RUN_LABEL}={run}"));
    match api.delete_collection(&DeleteParams::default(), &ours).await {
        Ok(_) => Ok(()),
        Err(source) => {
            let attempt = format!("delete the Pods of run {run}");
            Err(Error::Kube {
                attempt,
                source: Box::new(source),
            })
        }
    }
}

pub(super) fn metadata(
    record: &Record,
    sources: &[Option<&Value>],
    start: &StartWork,
    names: &Names,
    namespace: &str,
) -> Value {
    let mut labels = Map::new();
    let mut annotations = Map::new();
    for source in sources.iter().flatten() {
        for (kind, into) in [("labels", &mut labels), ("annotations", &mut annotations)] {
            for (key, value) in source
                .get(kind)
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                into.insert(key.clone(), json!(engine::render(value)));
            }
        }
    }
    labels.insert(WORKFLOW_LABEL.to_owned(), json!(record.workflow));
    labels.insert(RUN_LABEL.to_owned(), json!(record.run));
    annotations.insert(
        "workflows.argoproj.io/node-name".to_owned(),
        json!(names.node),
    );
    annotations.insert("workflows.argoproj.io/node-id".to_owned(), json!(names.id));
    annotations.insert(
        "kubectl.kubernetes.io/default-container".to_owned(),
        json!(MAIN),
    );
    annotations.insert(TASK_ANNOTATION.to_owned(), json!(start.task.as_str()));
    annotations.insert(
        ATTEMPT_ANNOTATION.to_owned(),
        json!(start.attempt.to_string()),
    );
    json!({
        "name": names.pod,
        "namespace": namespace,
        "labels": labels,
        "annotations": annotations,
    })
}

/// A step may want to know which attempt it is, and a key that stays the same over attempts.
fn add_environment(main: &mut Value, record: &Record, start: &StartWork) {
    let key = Sha256::digest(format!("{}\0{}", record.run, start.task));
    let key: String = key
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut environment = list(main.get("env"));
    for (name, value) in [
        ("CORACLE_STEP_KEY", key),
        ("CORACLE_ATTEMPT", start.attempt.to_string()),
    ] {
        environment.push(json!({"name": name, "value": value}));
    }
    main["env"] = Value::Array(environment);
}

fn list(value: Option<&Value>) -> Vec<Value> {
    value.and_then(Value::as_array).cloned().unwrap_or_default()
}

pub(super) fn replace_late(value: &mut Value, pod: &str, attempt: u32) {
    match value {
        Value::String(text) if text.contains("{{") => {
            *text = Names::replace_late(text, pod, attempt);
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| replace_late(item, pod, attempt)),
        Value::Object(map) => map
            .values_mut()
            .for_each(|item| replace_late(item, pod, attempt)),
        _ => {}
    }
}
