//! Resource templates: one request about an object of the cluster, made as the run's service
//! account, and a wait until the object is as the template wants it.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use engine::{Event, Outcome, Outputs, StartWork, WantedParameter};
use futures::StreamExt as _;
use http::HeaderValue;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::Scope;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::pod::{self, ATTEMPT_ANNOTATION, Names, RUN_LABEL, TASK_ANNOTATION, WORKFLOW_LABEL};
use super::{Shared, outputs_json};
use crate::journal::Record;

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
    let names = Names::of(
        &record.workflow,
        &start.task,
        &start.template,
        start.attempt,
        false,
    );
    let mut spec = start.spec.clone();
    pod::replace_late(&mut spec, &names.pod, start.attempt);
    let resource = &spec["resource"];
    let text = |name: &str| {
        resource
            .get(name)
            .and_then(Value::as_str)
            .filter(|t| !t.is_empty())
    };
    let action = text("action").unwrap_or_default();
    let manifest = text("manifest").ok_or_else(|| {
        Problem::Failed("a resource template without a manifest cannot run".into())
    })?;
    let mut object: Value = serde_saphyr::from_str(manifest)
        .map_err(|error| Problem::Failed(format!("the manifest is not YAML: {error}")))?;
    mark(&mut object, record, start);
    let account = spec.get("serviceAccountName").and_then(Value::as_str);
    let account = account
        .filter(|a| !a.is_empty())
        .unwrap_or(&record.service_account);
    let client = act_as(shared, account)?;
    let (api, kind) = api_of(&client, &object, &shared.options.namespace).await?;
    let what = format!("{action} {kind}");
    let failed = |error: kube::Error| Problem::of(&what, &error);
    let name = object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let typed = || {
        serde_json::from_value::<DynamicObject>(object.clone())
            .map_err(|error| Problem::Failed(format!("the manifest is no object: {error}")))
    };
    let found = match action {
        "create" => match api.create(&PostParams::default(), &typed()?).await {
            Ok(made) => Some(made),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let there = api.get(&name).await.map_err(failed)?;
                // Made by this very attempt before a restart: that is what was wanted.
                let ours = |key: &str| {
                    there.annotations().get(key).map(String::as_str)
                        == object["metadata"]["annotations"][key].as_str()
                };
                if !(ours(TASK_ANNOTATION) && ours(ATTEMPT_ANNOTATION) && ours(RUN_LABEL)) {
                    return Err(Problem::Failed(format!("{what}: {}", status.message)));
                }
                Some(there)
            }
            Err(error) => return Err(failed(error)),
        },
        "apply" => {
            let params = PatchParams::apply("coracle-pipelines").force();
            Some(
                api.patch(&name, &params, &Patch::Apply(&object))
                    .await
                    .map_err(failed)?,
            )
        }
        "patch" => {
            let params = PatchParams::default();
            let patched = match text("mergeStrategy").unwrap_or("strategic") {
                "merge" => api.patch(&name, &params, &Patch::Merge(&object)).await,
                "strategic" => api.patch(&name, &params, &Patch::Strategic(&object)).await,
                other => {
                    return Err(Problem::Failed(format!(
                        "mergeStrategy {other:?} is none of merge, strategic"
                    )));
                }
            };
            Some(patched.map_err(failed)?)
        }
        "replace" => Some(
            api.replace(&name, &PostParams::default(), &typed()?)
                .await
                .map_err(failed)?,
        ),
        "get" => Some(api.get(&name).await.map_err(failed)?),
        "delete" => {
            match api.delete(&name, &DeleteParams::default()).await {
                Ok(_) => {}
                // kfp compiles deletions with --ignore-not-found.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(failed(error)),
            }
            None
        }
        other => {
            return Err(Problem::Failed(format!(
                "action {other:?} is not supported"
            )));
        }
    };
    let Some(found) = found else {
        return parameters(start, &Value::Null);
    };
    let conditions = Conditions::parse(text("successCondition"), text("failureCondition"))?;
    let found = conditions.wait(api, found, &what).await?;
    parameters(start, &found)
}

/// A client that acts as a service account, so that the step can do what its account may do.
fn act_as(shared: &Shared, account: &str) -> Result<kube::Client, Problem> {
    let namespace = shared.options.namespace.clone();
    let user = format!("system:serviceaccount:{namespace}:{account}");
    let user = HeaderValue::from_str(&user)
        .map_err(|_| Problem::Failed(format!("{account:?} is no service account's name")))?;
    let client = shared.client.clone();
    let service = tower::service_fn(move |mut request: http::Request<kube::client::Body>| {
        request
            .headers_mut()
            .insert("impersonate-user", user.clone());
        let client = client.clone();
        async move { client.send(request).await }
    });
    Ok(kube::Client::new(service, namespace))
}

/// The objects a manifest is about, and their kind.
async fn api_of(
    client: &kube::Client,
    object: &Value,
    namespace: &str,
) -> Result<(Api<DynamicObject>, String), Problem> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let (Some(version), Some(kind)) = (text("/apiVersion"), text("/kind")) else {
        return Err(Problem::Failed(
            "the manifest has no apiVersion or no kind".to_owned(),
        ));
    };
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let (resource, capabilities): (ApiResource, _) = kube::discovery::pinned_kind(client, &gvk)
        .await
        .map_err(|error| {
            let about = format!("the cluster has no {kind} of {group}/{version}");
            match error {
                kube::Error::Discovery(_) => Problem::Failed(about),
                error => Problem::of(&about, &error),
            }
        })?;
    let namespace = text("/metadata/namespace")
        .filter(|n| !n.is_empty())
        .unwrap_or(namespace);
    let api = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => Api::namespaced_with(client.clone(), namespace, &resource),
    };
    Ok((api, kind.to_owned()))
}

/// Says whose object it is, and gives it a name that is the same when it is made again.
fn mark(object: &mut Value, record: &Record, start: &StartWork) {
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
    for (kind, entries) in [
        ("labels", vec![(WORKFLOW_LABEL, record.workflow.clone())]),
        (
            "annotations",
            vec![
                (RUN_LABEL, record.run.clone()),
                (TASK_ANNOTATION, start.task.to_string()),
                (ATTEMPT_ANNOTATION, start.attempt.to_string()),
            ],
        ),
    ] {
        let into = metadata.entry(kind).or_insert_with(|| json!({}));
        for (key, value) in entries {
            if let Some(into) = into.as_object_mut() {
                into.insert(key.to_owned(), json!(value));
            }
        }
    }
}

/// What an object must be like: comparisons of paths, all of which must hold.
struct Conditions {
    success: Vec<Comparison>,
    failure: Vec<Comparison>,
}

struct Comparison {
    path: String,
    operator: String,
    value: String,
}

impl Conditions {
    fn parse(success: Option<&str>, failure: Option<&str>) -> Result<Self, Problem> {
        let parse = |text: Option<&str>| text.map_or(Ok(Vec::new()), comparisons);
        Ok(Self {
            success: parse(success)?,
            failure: parse(failure)?,
        })
    }

    /// Waits until the object is as it should be. Without conditions it is at once.
    async fn wait(
        &self,
        api: Api<DynamicObject>,
        found: DynamicObject,
        what: &str,
    ) -> Result<Value, Problem> {
        let tree = |object: &DynamicObject| serde_json::to_value(object).unwrap_or_default();
        let first = tree(&found);
        if self.success.is_empty() && self.failure.is_empty() {
            return Ok(first);
        }
        if let Some(end) = self.judge(&first, what) {
            return end.map(|()| first);
        }
        let config =
            watcher::Config::default().fields(&format!("metadata.name={}", found.name_any()));
        let mut changes = pin!(watcher(api, config).default_backoff().applied_objects());
        while let Some(change) = changes.next().await {
            match change {
                Ok(object) => {
                    let object = tree(&object);
                    if let Some(end) = self.judge(&object, what) {
                        return end.map(|()| object);
                    }
                }
                Err(error) => tracing::warn!("watch {what}: {}", stdx::error::chain(&error)),
            }
        }
        Err(Problem::Unreachable(format!("{what}: the watch ended")))
    }

    fn judge(&self, object: &Value, what: &str) -> Option<Result<(), Problem>> {
        if let Some(met) = self.failure.iter().find(|c| c.holds(object)) {
            let message = format!(
                "{what}: failureCondition holds: {} {} {}",
                met.path, met.operator, met.value
            );
            return Some(Err(Problem::Failed(message)));
        }
        self.success
            .iter()
            .all(|c| c.holds(object))
            .then_some(Ok(()))
    }
}

fn comparisons(text: &str) -> Result<Vec<Comparison>, Problem> {
    text.split(',')
        .map(|part| {
            let operators = ["==", "!=", ">=", "<=", ">", "<", "="];
            let found = operators
                .into_iter()
                .find_map(|o| Some((o, part.split_once(o)?)));
            let (operator, (path, value)) = found.ok_or_else(|| {
                Problem::Failed(format!(
                    "condition {part:?} is no comparison such as status.phase == Done"
                ))
            })?;
            Ok(Comparison {
                path: path.trim().to_owned(),
                operator: operator.to_owned(),
                value: value.trim().trim_matches(['"', '\'']).to_owned(),
            })
        })
        .collect()
}

impl Comparison {
    fn holds(&self, object: &Value) -> bool {
        let Some(found) = outputs_json::lookup(object, &self.path) else {
            return false;
        };
        let found = engine::render(found);
        let order = match (found.parse::<f64>(), self.value.parse::<f64>()) {
            (Ok(found), Ok(wanted)) => found.partial_cmp(&wanted),
            _ => Some(found.as_str().cmp(self.value.as_str())),
        };
        let Some(order) = order else { return false };
        match self.operator.as_str() {
            "!=" => order.is_ne(),
            ">=" => order.is_ge(),
            "<=" => order.is_le(),
            ">" => order.is_gt(),
            "<" => order.is_lt(),
            _ => order.is_eq(),
        }
    }
}

fn parameters(start: &StartWork, object: &Value) -> Result<BTreeMap<String, Value>, Problem> {
    let mut parameters = BTreeMap::new();
    for wanted in &start.output_parameters {
        let (name, value) = match wanted {
            WantedParameter::JsonPath {
                name,
                path,
                default,
            } => {
                let value = outputs_json::select(object, path).or_else(|| default.clone());
                let value = value.ok_or_else(|| {
                    Problem::Failed(format!(
                        "output parameter {name:?}: the object has no {path}"
                    ))
                })?;
                (name, value)
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
    Ok(parameters)
}
