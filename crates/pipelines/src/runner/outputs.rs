//! The end of a step whose Pod succeeded: what the launcher handed over becomes outputs.
//!
//! A small document is in the termination message, which the Pod's status has; a large one lies in
//! the attempt's folder and is fetched.

use std::collections::BTreeMap;
use std::sync::Arc;

use artifacts::{Error as StoreError, Uri};
use engine::{Event, Outcome, Outputs, StartWork, WantedParameter};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use kube::ResourceExt as _;
use launcher::{Archive, Document, Handover};
use serde_json::{Value, json};

use super::executor_input::Values;
use super::pod::{FOLDER_ANNOTATION, MAIN, Names};
use super::store::Place;
use super::{Shared, executor_input};

/// The largest document: it goes through memory and into the journal.
const MAX_DOCUMENT: u64 = 64 << 20;
/// Artifacts that Kubeflow Pipelines always lets be missing.
const ALWAYS_OPTIONAL: [&str; 2] = ["mlpipeline-metrics", "mlpipeline-ui-metadata"];

/// What is known of the outputs from the Pod alone.
pub(super) enum Found {
    /// Everything.
    End(Outcome),
    /// Where they are.
    At(Uri),
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let main = statuses.iter().find(|container| container.name == MAIN)?;
    main.state.as_ref()?.terminated.as_ref()
}

/// Whether the step has outputs to hand over.
fn awaited(start: &StartWork) -> bool {
    let file = |wanted: &WantedParameter| matches!(wanted, WantedParameter::File { .. });
    start.output_parameters.iter().any(file) || !start.output_artifacts.is_empty()
}

/// The end of a step whose Pod succeeded, or where to look for it.
pub(super) fn find(pod: &Pod, start: &StartWork) -> Found {
    if !awaited(start) {
        return Found::End(end(pod, start, &Document::default()));
    }
    let message = terminated(pod).and_then(|t| t.message.as_deref());
    match Handover::parse(message.unwrap_or_default()) {
        Some(Ok(Handover::Inline(document))) => Found::End(end(pod, start, &document)),
        Some(Ok(Handover::At(uri))) => Found::At(uri),
        Some(Err(error)) => Found::End(failed(format!(
            "the step's outputs cannot be read from its termination message: {error}"
        ))),
        None => Found::End(failed(
            "the step ended without handing over its outputs".to_owned(),
        )),
    }
}

/// Fetches the document and ends the attempt with it.
pub(super) async fn fetch(
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    start: StartWork,
    uri: Uri,
    at: Timestamp,
) -> Option<Event> {
    let outcome = match read(&shared, &start, &uri).await {
        Ok(document) => end(&pod, &start, &document),
        Err(problem) => failed(format!("read the step's outputs: {problem}")),
    };
    Some(Event::TaskFinished {
        task: start.task,
        attempt: start.attempt,
        at,
        outcome,
    })
}

async fn read(shared: &Shared, start: &StartWork, uri: &Uri) -> Result<Document, String> {
    let place = if start.spec.get("v2").is_some() {
        Place::configured(shared).await?
    } else {
        Place::of(shared)
    };
    let bytes = place.stores.get(uri, MAX_DOCUMENT).await;
    let bytes = bytes.map_err(|error: StoreError| stdx::error::chain(&error))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{uri}: {error}"))
}

fn failed(message: String) -> Outcome {
    Outcome::Error {
        message,
        transient: false,
        stop: false,
    }
}

/// The outputs, or which one is missing.
fn end(pod: &Pod, start: &StartWork, document: &Document) -> Outcome {
    let exit_code = terminated(pod).map(|t| t.exit_code).or(Some(0));
    let outputs = match start.spec.get("v2") {
        Some(component) => of_component(component, pod, document),
        None => of_template(start, &pod.name_any(), document),
    };
    match outputs {
        Ok((parameters, artifacts)) => Outcome::Succeeded(Outputs {
            parameters,
            artifacts,
            exit_code,
            ..Outputs::default()
        }),
        Err(message) => Outcome::Failed { exit_code, message },
    }
}

fn of_component(
    component: &Value,
    pod: &Pod,
    document: &Document,
) -> Result<(Values, Values), String> {
    let folder = pod.annotations().get(FOLDER_ANNOTATION);
    let folder = folder.ok_or_else(|| format!("the Pod has no annotation {FOLDER_ANNOTATION}"))?;
    let folder = Uri::parse(folder).map_err(|error| error.to_string())?;
    executor_input::outputs(component, &folder, document)
}

fn of_template(
    start: &StartWork,
    pod: &str,
    document: &Document,
) -> Result<(Values, Values), String> {
    let mut parameters = BTreeMap::new();
    for wanted in &start.output_parameters {
        let (name, value) = match wanted {
            WantedParameter::File {
                name,
                path,
                default,
            } => {
                let written = document.parameters.get(name).cloned();
                let content = written.or_else(|| default.clone()).ok_or_else(|| {
                    format!("output parameter {name:?}: the step did not write {path}")
                })?;
                (name, content)
            }
            WantedParameter::Text { name, value } => {
                (name, Names::replace_late(value, pod, start.attempt))
            }
            WantedParameter::JsonPath { name, .. } => {
                return Err(format!(
                    "output parameter {name:?}: jsonPath is for resource templates"
                ));
            }
        };
        // As upstream: one line's end at the end is not part of the value.
        let value = value.strip_suffix('\n').map(str::to_owned).unwrap_or(value);
        parameters.insert(name.clone(), Value::String(value));
    }
    let mut artifacts = BTreeMap::new();
    for wanted in &start.output_artifacts {
        let name = &wanted.name;
        let Some(stored) = document.artifacts.get(name) else {
            if wanted.optional || ALWAYS_OPTIONAL.contains(&name.as_str()) {
                continue;
            }
            return Err(format!(
                "output artifact {name:?}: the step did not write {}",
                wanted.path
            ));
        };
        let mut value = json!({"uri": stored.uri});
        if stored.archive == Archive::Tgz {
            value["archive"] = json!("tgz");
        }
        artifacts.insert(name.clone(), value);
    }
    Ok((parameters, artifacts))
}

/// A termination message without what the launcher put there.
pub(super) fn without_collected(message: &str) -> &str {
    launcher::without_handover(message)
}
