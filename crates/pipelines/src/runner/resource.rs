//! Resource templates: one request about an object of the cluster, made as the run's service
//! account, and a wait until the object is as the template wants it.

mod api;
mod owned;
mod request;
mod watched;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use engine::{Event, Outcome, Outputs, StartWork, WantedParameter};
use futures::future::{self, Either};
use kube::api::DynamicObject;
use pipelinespec::resource::json_path;
use serde_json::{Value, json};

pub(super) use self::owned::delete_owned;
use self::request::Request;
use self::watched::Watched;
use super::Shared;
use super::pod::{self, ATTEMPT_ANNOTATION, Names, RUN_LABEL, TASK_ANNOTATION, WORKFLOW_LABEL};
use crate::journal::Record;

/// On an object that goes when its run is deleted (`setOwnerReference`).
const OWNER_ANNOTATION: &str = "coracle/owner-run";

/// Makes the request and waits for its condition. Always ends in news.
pub(super) async fn carry_out(
    shared: Arc<Shared>,
    record: Arc<Record>,
    start: StartWork,
) -> Option<Event> {
    let outcome = match attempt(&shared, &record, &start).await {
        Ok(parameters) => Outcome::Succeeded(Outputs {
            parameters,
            artifacts: BTreeMap::new(),
            exit_code: Some(0),
            cached_from: None,
        }),
        Err(Problem::Failed(message)) => Outcome::Failed {
            exit_code: None,
            message,
        },
        Err(Problem::Unreachable(message)) => Outcome::Error {
            message,
            transient: true,
            stop: false,
        },
    };
    let at = shared.clock.now();
    Some(Event::TaskFinished {
        task: start.task,
        attempt: start.attempt,
        at,
        outcome,
    })
}

enum Problem {
    Failed(String),
    Unreachable(String),
}

impl Problem {
    fn of(action: &str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if pod::refused(status.code) => {
                Self::Failed(format!("{action}: {}", status.message))
            }
            error => Self::Unreachable(format!("{action}: {}", stdx::error::chain(error))),
        }
    }
}

async fn attempt(
    shared: &Shared,
    record: &Record,
    start: &StartWork,
) -> Result<BTreeMap<String, Value>, Problem> {
    let request = Request::of(shared, record, start).await?;
    let Some(found) = request.send().await? else {
        return outputs(start, &Value::Null).map(|(parameters, _)| parameters);
    };
    let found = request.settled(found).await?;
    let (parameters, complete) = outputs(start, &found)?;
    if complete {
        return Ok(parameters);
    }
    // A controller may be about to fill in what an output is made of, such as a claim's capacity.
    let filled = Watched::start(&request, &found)
        .until(|object| outputs(start, object).is_ok_and(|(_, complete)| complete));
    let patience = shared.clock.sleep(FILL_IN);
    match future::select(pin!(filled), patience).await {
        Either::Left((Ok(object), _)) => outputs(start, &object),
        // kubectl prints nothing for what is not there, and so upstream's output is empty.
        _ => Ok((parameters, false)),
    }
    .map(|(parameters, _)| parameters)
}

/// How long an output that the object does not have yet is waited for.
const FILL_IN: Duration = Duration::from_secs(5);

/// Says whose object it is, and gives it a name that is the same when it is made again.
fn mark(object: &mut Value, record: &Record, start: &StartWork, owned: bool) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    if metadata.get("name").is_none_or(Value::is_null)
        && let Some(prefix) = metadata.get("generateName").and_then(Value::as_str)
    {
        let names = Names::of(prefix, &start.task, &record.run, start.attempt, true);
        let hash = names.pod.rsplit('-').next().unwrap_or_default();
        metadata["name"] = json!(format!("{prefix}{hash}"));
    }
    let Some(metadata) = metadata.as_object_mut() else {
        return;
    };
    metadata.remove("generateName");
    let mut annotations = vec![
        (RUN_LABEL, record.run.clone()),
        (TASK_ANNOTATION, start.task.to_string()),
        (ATTEMPT_ANNOTATION, start.attempt.to_string()),
    ];
    if owned {
        annotations.push((OWNER_ANNOTATION, record.run.clone()));
    }
    for (kind, entries) in [
        ("labels", vec![(WORKFLOW_LABEL, record.workflow.clone())]),
        ("annotations", annotations),
    ] {
        let into = metadata.entry(kind).or_insert_with(|| json!({}));
        for (key, value) in entries {
            if let Some(into) = into.as_object_mut() {
                into.insert(key.to_owned(), json!(value));
            }
        }
    }
}

/// The outputs taken out of the object, and whether it has all of them.
fn outputs(start: &StartWork, object: &Value) -> Result<(BTreeMap<String, Value>, bool), Problem> {
    let mut parameters = BTreeMap::new();
    let mut all = true;
    for wanted in &start.output_parameters {
        let (name, value) = match wanted {
            WantedParameter::JsonPath {
                name,
                path,
                default,
            } => {
                let template = json_path::Template::parse(path).map_err(|problem| {
                    Problem::Failed(format!("output parameter {name:?}: {problem}"))
                })?;
                let (text, complete) = template.render(object);
                all &= complete;
                match default {
                    Some(default) if !complete => (name, default.clone()),
                    _ => (name, text),
                }
            }
            WantedParameter::Text { name, value } => (name, value.clone()),
            WantedParameter::File { name, .. } => {
                let message =
                    format!("output parameter {name:?}: a resource template writes no files");
                return Err(Problem::Failed(message));
            }
        };
        parameters.insert(name.clone(), Value::String(value));
    }
    Ok((parameters, all))
}

fn tree(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}
