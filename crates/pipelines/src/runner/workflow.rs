//! The Workflow as Argo would show it: names and facts of a new one, and `status.nodes` of a live one.

use std::collections::{BTreeMap, BTreeSet};

use engine::{Kind, Phase, Run, Task, TaskId};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use stdx::Rng;

use super::PodRef;
use super::pod::{MAIN, Names, RUN_LABEL, node_id};
use crate::journal::Record;

/// Where Kubeflow Pipelines notes what a run is called.
const RUN_NAME_ANNOTATION: &str = "pipelines.kubeflow.org/run_name";

/// A name for a new Workflow.
pub(super) fn name(manifest: &Value, rng: &dyn Rng) -> String {
    let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str);
    let name = text("/metadata/name")
        .or_else(|| text("/pipelineInfo/name"))
        .or_else(|| text("/pipeline_spec/pipelineInfo/name"));
    let prefix = match (text("/metadata/generateName"), name) {
        (Some(prefix), _) if !prefix.is_empty() => prefix.to_owned(),
        (_, Some(name)) if !name.is_empty() => format!("{name}-"),
        _ => "workflow-".to_owned(),
    };
    let prefix: String = prefix.chars().take(58).collect();
    format!("{prefix}{}", rng.suffix(5))
}

/// What the texts of a Workflow may name after `workflow.`.
pub(super) fn facts(record: &Record, manifest: &Value, namespace: &str) -> BTreeMap<String, Value> {
    let mut facts = BTreeMap::new();
    let mut add = |name: &str, value: &str| facts.insert(name.to_owned(), json!(value));
    add("name", &record.workflow);
    add("namespace", namespace);
    add("uid", &record.run);
    add("display_name", &record.display_name);
    add("created_at", &time(record.at));
    add("scheduled_at", &time(record.at));
    add("serviceAccountName", &record.service_account);
    add("creationTimestamp", &time(record.at));
    add("creationTimestamp.RFC3339", &time(record.at));
    add("creationTimestamp.s", &record.at.as_second().to_string());
    let at = record.at.to_zoned(jiff::tz::TimeZone::UTC);
    for format in pipelinespec::TIME_FORMATS.chars() {
        if let Ok(text) = jiff::fmt::strtime::format(format!("%{format}"), &at) {
            add(&format!("creationTimestamp.{format}"), &text);
        }
    }
    let entrypoint = manifest.pointer("/spec/entrypoint").and_then(Value::as_str);
    add("mainEntrypoint", entrypoint.unwrap_or_default());
    for kind in ["labels", "annotations"] {
        let entries = manifest
            .pointer(&format!("/metadata/{kind}"))
            .and_then(Value::as_object);
        for (key, value) in entries.into_iter().flatten() {
            add(&format!("{kind}.{key}"), &engine::render(value));
        }
    }
    add(&format!("labels.{RUN_LABEL}"), &record.run);
    add(
        &format!("annotations.{RUN_NAME_ANNOTATION}"),
        &record.display_name,
    );
    facts
}

/// The live Workflow.
pub(super) fn render(run: &Run, record: &Record, manifest: &Value, namespace: &str) -> Value {
    let mut workflow = manifest.clone();
    let phase = run.phase();
    if let Some(metadata) = object(&mut workflow, "metadata") {
        metadata.remove("generateName");
        metadata.insert("name".to_owned(), json!(record.workflow));
        metadata.insert("namespace".to_owned(), json!(namespace));
        metadata.insert("uid".to_owned(), json!(record.run));
        metadata.insert("creationTimestamp".to_owned(), json!(time(record.at)));
        if let Some(annotations) = child(metadata, "annotations") {
            annotations.insert(RUN_NAME_ANNOTATION.to_owned(), json!(record.display_name));
        }
        if let Some(labels) = child(metadata, "labels") {
            labels.insert(RUN_LABEL.to_owned(), json!(record.run));
            labels.insert(
                "workflows.argoproj.io/phase".to_owned(),
                json!(phase.as_str()),
            );
            labels.insert(
                "workflows.argoproj.io/completed".to_owned(),
                json!(phase.finished().to_string()),
            );
        }
    }
    if let Some(spec) = object(&mut workflow, "spec") {
        spec.insert(
            "serviceAccountName".to_owned(),
            json!(record.service_account),
        );
        let declared = &run.created().plan.parameters;
        let parameters: Vec<Value> = declared
            .iter()
            .map(|parameter| {
                let given = record.parameters.get(&parameter.name);
                let value = given.or(parameter.default.as_ref()).map(engine::render);
                json!({"name": parameter.name, "value": value})
            })
            .collect();
        spec.insert("arguments".to_owned(), json!({"parameters": parameters}));
    }
    let nodes = Nodes {
        run,
        workflow: &record.workflow,
    }
    .all();
    let pods = nodes.values().filter(|node| node["type"] == "Pod");
    let (mut done, mut total) = (0, 0);
    for pod in pods {
        total += 1;
        done += i32::from(pod["phase"] == "Succeeded");
    }
    workflow["status"] = json!({
        "phase": phase.as_str(),
        "startedAt": time(run.started_at()),
        "finishedAt": run.finished_at().map(time),
        "progress": format!("{done}/{total}"),
        "nodes": nodes,
    });
    if let Some(message) = run.message() {
        workflow["status"]["message"] = json!(message);
    }
    workflow
}

/// The Pod of a node.
pub(super) fn pod_of(run: &Run, record: &Record, namespace: &str, node: &str) -> Option<PodRef> {
    let nodes = Nodes {
        run,
        workflow: &record.workflow,
    };
    run.tasks().iter().find_map(|task| {
        let names = nodes.attempts(task);
        let by_attempt = names
            .iter()
            .find(|names| names.id == node || names.pod == node);
        // A task that was tried several times answers with its latest attempt.
        let latest = || names.last().filter(|_| nodes.id(task) == node);
        let name = by_attempt.or_else(latest)?.pod.clone();
        Some(PodRef {
            namespace: namespace.to_owned(),
            name,
            container: MAIN.to_owned(),
        })
    })
}

/// The nodes of a run, by the ids and names that Argo would give them.
pub(crate) struct Nodes<'a> {
    pub(crate) run: &'a Run,
    pub(crate) workflow: &'a str,
}

impl Nodes<'_> {
    /// The number and the Pod of each attempt at a task, oldest first.
    pub(crate) fn pods(&self, task: &Task) -> Vec<(u32, String)> {
        let names = self.attempts(task).into_iter();
        let number = |place| task.work().map_or(0, |work| work.number(place));
        names
            .enumerate()
            .map(|(place, names)| (number(place), names.pod))
            .collect()
    }

    /// The id of a task's node.
    pub(crate) fn id(&self, task: &Task) -> String {
        node_id(self.workflow, &format!("{}{}", self.workflow, task.path))
    }

    fn retried(&self, task: &Task) -> bool {
        self.run
            .created()
            .plan
            .templates
            .get(&task.template)
            .is_some_and(|t| t.retry.is_some())
    }

    fn attempts(&self, task: &Task) -> Vec<Names> {
        let Some(work) = task.work() else {
            return Vec::new();
        };
        let retried = self.retried(task);
        (0..work.attempts.len())
            .map(|place| {
                let number = work.number(place);
                Names::of(self.workflow, &task.path, &task.template, number, retried)
            })
            .collect()
    }

    /// Whether Argo would have a node for the task by now.
    pub(crate) fn shown(task: &Task) -> bool {
        task.phase != Phase::Waiting || task.started_at.is_some()
    }

    fn all(&self) -> Map<String, Value> {
        let tasks = self.run.tasks();
        let ids: Vec<String> = tasks.iter().map(|task| self.id(task)).collect();
        let mut children: Vec<Vec<String>> = vec![Vec::new(); tasks.len()];
        // Where what follows a task hangs: on the task itself, or on what ends it.
        let mut ends: Vec<Vec<(usize, bool)>> = vec![Vec::new(); tasks.len()];
        let mut after_attempts: Vec<Vec<String>> = vec![Vec::new(); tasks.len()];
        for (index, task) in tasks.iter().enumerate().rev() {
            let below: Vec<usize> = match &task.kind {
                Kind::Loop(state) => state.items.iter().map(|id| id.index()).collect(),
                Kind::Dag(frame) => self.sinks(&frame.tasks),
                Kind::Work(_) => Vec::new(),
            };
            let mut of_below: Vec<(usize, bool)> = below
                .into_iter()
                .filter(|below| Self::shown(&tasks[*below]))
                .flat_map(|below| ends[below].clone())
                .collect();
            if of_below.is_empty() {
                let many =
                    self.retried(task) && task.work().is_some_and(|w| !w.attempts.is_empty());
                of_below.push((index, many));
            }
            ends[index] = of_below;
        }
        for (index, task) in tasks.iter().enumerate() {
            if !Self::shown(task) {
                continue;
            }
            let id = TaskId::at(index);
            let dependencies = if task.item.is_some() {
                Vec::new()
            } else {
                self.run.dependencies(id)
            };
            if dependencies.is_empty() {
                if let Some(parent) = task.parent {
                    children[parent.index()].push(ids[index].clone());
                }
                continue;
            }
            let mut hung = BTreeSet::new();
            for dependency in dependencies {
                for &(end, on_attempt) in &ends[dependency.index()] {
                    if !hung.insert(end) {
                        continue;
                    }
                    let list = if on_attempt {
                        &mut after_attempts
                    } else {
                        &mut children
                    };
                    list[end].push(ids[index].clone());
                }
            }
        }
        let mut nodes = Map::new();
        for (index, task) in tasks.iter().enumerate() {
            if !Self::shown(task) {
                continue;
            }
            let mut node = self.node(task, &ids);
            let retried = self.retried(task) && node["type"] == "Retry";
            if retried {
                let names = self.attempts(task);
                let mut last = std::mem::take(&mut after_attempts[index]);
                for (place, names) in names.iter().enumerate() {
                    let mut attempt = self.attempt(task, place, names, &ids);
                    if place + 1 == task.work().map_or(0, |w| w.attempts.len()) && !last.is_empty()
                    {
                        attempt["children"] = json!(std::mem::take(&mut last));
                    }
                    children[index].push(names.id.clone());
                    nodes.insert(names.id.clone(), attempt);
                }
            }
            if !children[index].is_empty() {
                node["children"] = json!(children[index]);
            }
            nodes.insert(ids[index].clone(), node);
        }
        nodes
    }

    /// The tasks of a DAG that no other waits for.
    fn sinks(&self, tasks: &[TaskId]) -> Vec<usize> {
        let waited_for: BTreeSet<usize> = tasks
            .iter()
            .flat_map(|id| self.run.dependencies(*id))
            .map(TaskId::index)
            .collect();
        tasks
            .iter()
            .map(|id| id.index())
            .filter(|index| !waited_for.contains(index))
            .collect()
    }

    fn node(&self, task: &Task, ids: &[String]) -> Value {
        let kind = match (&task.kind, task.phase) {
            (_, Phase::Skipped | Phase::Omitted) => "Skipped",
            (Kind::Dag(_), _) => "DAG",
            (Kind::Loop(_), _) => "TaskGroup",
            (Kind::Work(work), _) if self.retried(task) && !work.attempts.is_empty() => "Retry",
            (Kind::Work(_), _) => "Pod",
        };
        let mut node = json!({
            "id": self.id(task),
            "name": format!("{}{}", self.workflow, task.path),
            "displayName": task.display_name,
            "type": kind,
            "templateName": task.template,
            "templateScope": format!("local/{}", self.workflow),
            "phase": task.phase.as_str(),
            "startedAt": task.started_at.map(time),
            "finishedAt": task.finished_at.map(time),
        });
        if let Some(frame) = task.frame {
            node["boundaryID"] = json!(ids[frame.index()]);
        }
        if let Some(message) = &task.message {
            node["message"] = json!(message);
        }
        if !task.inputs.is_empty() {
            node["inputs"] = json!({"parameters": parameters(&task.inputs)});
        }
        if kind == "Pod" {
            node["progress"] = json!(if task.phase == Phase::Succeeded {
                "1/1"
            } else {
                "0/1"
            });
        }
        let latest = task.work().and_then(|work| work.latest());
        let outputs = outputs(task, latest.and_then(|(_, attempt)| attempt.exit_code));
        if let Some(outputs) = outputs {
            node["outputs"] = outputs;
        }
        if let Some(host) = latest.and_then(|(_, attempt)| attempt.host.as_ref()) {
            node["hostNodeName"] = json!(host);
        }
        node
    }

    fn attempt(&self, task: &Task, place: usize, names: &Names, ids: &[String]) -> Value {
        let mut node = self.node(task, ids);
        let Some(attempt) = task.work().and_then(|work| work.attempts.get(place)) else {
            return node;
        };
        let number = task.work().map_or(0, |work| work.number(place));
        node["id"] = json!(names.id);
        node["name"] = json!(names.node);
        node["displayName"] = json!(format!("{}({number})", task.display_name));
        node["type"] = json!("Pod");
        node["phase"] = json!(attempt.phase.as_str());
        node["startedAt"] = json!(time(attempt.started_at));
        node["finishedAt"] = json!(attempt.finished_at.map(time));
        let fields = [
            ("message", attempt.message.as_ref().map(|m| json!(m))),
            ("hostNodeName", attempt.host.as_ref().map(|h| json!(h))),
            (
                "outputs",
                match attempt.phase {
                    Phase::Succeeded => outputs(task, attempt.exit_code),
                    _ => attempt
                        .exit_code
                        .map(|code| json!({"exitCode": code.to_string()})),
                },
            ),
        ];
        for (name, value) in fields {
            match (value, node.as_object_mut()) {
                (Some(value), _) => node[name] = value,
                (None, Some(fields)) => drop(fields.remove(name)),
                (None, None) => {}
            }
        }
        node
    }
}

fn outputs(task: &Task, exit_code: Option<i32>) -> Option<Value> {
    let mut outputs = Map::new();
    if !task.outputs.is_empty() {
        outputs.insert("parameters".to_owned(), parameters(&task.outputs));
    }
    let artifacts: Vec<Value> = task.output_artifacts.iter().filter_map(artifact).collect();
    if !artifacts.is_empty() {
        outputs.insert("artifacts".to_owned(), Value::Array(artifacts));
    }
    if let Some(code) = exit_code {
        outputs.insert("exitCode".to_owned(), json!(code.to_string()));
    }
    (!outputs.is_empty()).then_some(Value::Object(outputs))
}

/// An artifact as clients of Argo look for it: by bucket and key.
fn artifact((name, value): (&String, &Value)) -> Option<Value> {
    let uri = artifacts::Uri::parse(value.get("uri")?.as_str()?).ok()?;
    Some(json!({"name": name, "s3": {"bucket": uri.bucket(), "key": uri.key()}}))
}

fn parameters(values: &BTreeMap<String, Value>) -> Value {
    values
        .iter()
        .map(|(name, value)| json!({"name": name, "value": engine::render(value)}))
        .collect()
}

/// A time as Kubernetes writes it: whole seconds.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn object<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    value.as_object_mut().and_then(|fields| child(fields, name))
}

fn child<'a>(fields: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    let value = fields.entry(name.to_owned()).or_insert_with(|| json!({}));
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

#[cfg(test)]
mod tests;
