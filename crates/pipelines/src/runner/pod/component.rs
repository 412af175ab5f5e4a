//! A task of a v2 pipeline as a Pod: its component's container with placeholders resolved, and what
//! the platform's settings add.

use artifacts::Uri;
use engine::{Outputs, StartWork};
use k8s_openapi::api::core::v1::Pod;
use launcher::{Archive, Input, Job, OutputArtifact, OutputParameter, Source};
use serde_json::{Value, json};

use super::{FOLDER_ANNOTATION, MAIN, Names, add_environment, metadata};
use crate::journal::Record;
use crate::runner::kubernetes_platform::{self as platform, Draft};
use crate::runner::launch::{self, Launch};
use crate::runner::store::{self, Place};
use crate::runner::{Shared, cache, executor_input, workspace};

/// What comes of an attempt.
pub(super) enum Built {
    /// A Pod.
    Pod(Box<Pod>),
    /// Nothing: it was done before.
    Cached(Outputs),
}

/// Builds the Pod of an attempt; the error is for the task's message.
pub(super) async fn build(
    shared: &Shared,
    record: &Record,
    settings: &Value,
    start: &StartWork,
    names: &Names,
) -> Result<Built, String> {
    if let Some(key) = cache::key(shared, record, settings, start)
        && let Some(outputs) = cache::find(shared, &key).await
    {
        return Ok(Built::Cached(outputs));
    }
    let component = &start.spec["v2"];
    let place = Place::configured(shared).await?;
    let task = component
        .get("task")
        .and_then(Value::as_str)
        .unwrap_or("task");
    let id = store::attempt_id(record, start.task.as_str(), start.attempt);
    let folder = place.folder_of_run(record, settings)?.join(task).join(&id);
    let private = format!("/tmp/kfp/{}", names.pod);
    let input = executor_input::build(start, component, &folder, &private);
    let resolved = pipelinespec::placeholders::resolve(
        &component["container"],
        &executor_input::for_pod(&input),
    )
    .map_err(|error| error.to_string())?;

    let mut draft = Draft {
        main: container(&resolved)?,
        ..Draft::default()
    };
    platform::apply(&component["kubernetes"], &mut draft)?;
    if let Some(claim) = workspace::needed(shared, record, settings, &resolved, &input).await? {
        platform::mount_claim(&mut draft, &claim, workspace::MOUNT, None);
    }
    add_environment(&mut draft.main, record, start);
    for (name, value) in [
        (
            "KFP_RETRY_INDEX",
            json!({"value": start.attempt.to_string()}),
        ),
        (
            "KFP_POD_NAME",
            json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        ),
        (
            "KFP_POD_UID",
            json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}),
        ),
    ] {
        let mut variable = value;
        variable["name"] = json!(name);
        platform::push(&mut draft.main, "env", variable);
    }
    let launch = around(start, component, &input, &folder, &place)?;
    launch.apply(&mut draft.main, &mut draft.volumes)?;
    pod(draft, record, start, names, &place, &folder).map(|pod| Built::Pod(Box::new(pod)))
}

fn pod(
    mut draft: Draft,
    record: &Record,
    start: &StartWork,
    names: &Names,
    place: &Place,
    folder: &Uri,
) -> Result<Pod, String> {
    let mut spec = std::mem::take(&mut draft.spec);
    spec.insert("restartPolicy".to_owned(), json!("Never"));
    spec.insert("containers".to_owned(), json!([draft.main]));
    for (name, list) in [("initContainers", draft.init), ("volumes", draft.volumes)] {
        if !list.is_empty() {
            spec.insert(name.to_owned(), Value::Array(list));
        }
    }
    spec.insert(
        "serviceAccountName".to_owned(),
        json!(record.service_account),
    );
    if let Some(seconds) = start.timeout_seconds {
        let own = spec.get("activeDeadlineSeconds").and_then(Value::as_u64);
        let least = own.map_or(seconds, |own| own.min(seconds));
        spec.insert("activeDeadlineSeconds".to_owned(), json!(least));
    }
    let mut about = metadata(
        record,
        &[Some(&draft.metadata)],
        start,
        names,
        &place.namespace,
    );
    about["labels"]["pipelines.kubeflow.org/v2_component"] = json!("true");
    about["annotations"][FOLDER_ANNOTATION] = json!(folder.to_string());
    about["annotations"]["pipelines.kubeflow.org/run_name"] = json!(record.display_name);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec});
    serde_json::from_value(pod)
        .map_err(|error| format!("component of {:?} does not make a Pod: {error}", start.task))
}

/// The container, from the component's, which has its values by now.
fn container(resolved: &Value) -> Result<Value, String> {
    let image = resolved.get("image").and_then(Value::as_str);
    let image = image
        .filter(|image| !image.is_empty())
        .ok_or("the component's container has no image")?;
    let mut main = json!({"name": MAIN, "image": image});
    for key in ["command", "args"] {
        let words = resolved.get(key).and_then(Value::as_array);
        if let Some(words) = words.filter(|words| !words.is_empty()) {
            main[key] = words
                .iter()
                .map(|word| json!(engine::render(word)))
                .collect();
        }
    }
    let variables = resolved.get("env").and_then(Value::as_array);
    for variable in variables.into_iter().flatten() {
        let text = |key: &str| variable.get(key).map(engine::render).unwrap_or_default();
        platform::push(
            &mut main,
            "env",
            json!({"name": text("name"), "value": text("value")}),
        );
    }
    if let Some(asked) = resolved.get("resources") {
        let resources = resources(asked);
        if resources
            .as_object()
            .is_some_and(|fields| !fields.is_empty())
        {
            main["resources"] = resources;
        }
    }
    Ok(main)
}

/// Requests and limits: quantities, or the older numbers of cores and gigabytes.
fn resources(asked: &Value) -> Value {
    let mut found = json!({});
    for (kind, resource, quantity, number, unit) in [
        ("limits", "cpu", "resourceCpuLimit", "cpuLimit", ""),
        (
            "limits",
            "memory",
            "resourceMemoryLimit",
            "memoryLimit",
            "G",
        ),
        ("requests", "cpu", "resourceCpuRequest", "cpuRequest", ""),
        (
            "requests",
            "memory",
            "resourceMemoryRequest",
            "memoryRequest",
            "G",
        ),
    ] {
        let text = asked
            .get(quantity)
            .filter(|q| !q.is_null())
            .map(engine::render);
        let older = || {
            let number = asked.get(number).and_then(Value::as_f64);
            number
                .filter(|number| *number > 0.0)
                .map(|number| format!("{number}{unit}"))
        };
        if let Some(text) = text.filter(|text| !text.is_empty()).or_else(older) {
            found[kind][resource] = json!(text);
        }
    }
    if let Some(accelerator) = asked.get("accelerator") {
        let text = |newer: &str, older: &str| {
            let of = |key: &str| {
                accelerator
                    .get(key)
                    .filter(|v| !v.is_null())
                    .map(engine::render)
            };
            let newer = of(newer).filter(|text| !text.is_empty());
            newer.or_else(|| of(older)).unwrap_or_default()
        };
        let (kind, count) = (text("resourceType", "type"), text("resourceCount", "count"));
        if !kind.is_empty() && !matches!(count.as_str(), "" | "0") {
            found["limits"][kind] = json!(count);
        }
    }
    found
}

/// What stands around the step: the store's folders it may see, and the launcher where something has
/// to be brought or collected.
fn around(
    start: &StartWork,
    component: &Value,
    input: &Value,
    folder: &Uri,
    place: &Place,
) -> Result<Launch, String> {
    let mut job = Job::default();
    let mut reads = Vec::new();
    for (name, artifact) in executor_input::inputs(start) {
        let text = artifact
            .get("uri")
            .and_then(Value::as_str)
            .unwrap_or_default();
        // What is no place of a store is passed on as it is.
        let Ok(uri) = Uri::parse(text) else { continue };
        let Some(path) = uri.pod_path() else { continue };
        if place.stores.is_local(&uri) {
            reads.push(uri);
        } else if place.stores.providers().location(&uri).is_some() {
            reads.push(uri.clone());
            job.inputs.push(Input {
                name: name.clone(),
                path: path.display().to_string(),
                source: Source::Uri(uri),
                archive: Archive::None,
                optional: false,
            });
        }
    }
    let at = |pointer: &str| input.pointer(pointer).and_then(Value::as_object);
    let files = at("/outputs/parameters").into_iter().flatten();
    for (name, about) in files {
        let path = about
            .get("outputFile")
            .map(engine::render)
            .unwrap_or_default();
        job.parameters.push(OutputParameter {
            name: name.clone(),
            path,
        });
    }
    for (name, _) in executor_input::declared(component, "artifacts") {
        let uri = folder.join(name);
        let path = uri.pod_path().ok_or_else(|| {
            format!("pipeline root {folder}: nothing can be written there (allowed: minio, s3, gs, azure)")
        })?;
        job.artifacts.push(OutputArtifact {
            name: name.clone(),
            path: path.display().to_string(),
            uri,
            archive: Archive::None,
            optional: true,
        });
    }
    if !(job.parameters.is_empty() && job.artifacts.is_empty()) {
        job.document = Some(folder.join(launch::DOCUMENT));
        job.executor_output = input.pointer("/outputs/outputFile").map(engine::render);
    }
    Ok(Launch {
        job,
        folder: folder.clone(),
        reads,
        stores: place.stores.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_quantities_or_the_older_numbers() {
        let asked = json!({"resourceCpuLimit": "1", "cpuLimit": 2.0, "memoryLimit": 0.5,
            "accelerator": {"type": "nvidia.com/gpu", "count": "1"}});
        assert_eq!(
            resources(&asked),
            json!({"limits": {"cpu": "1", "memory": "0.5G", "nvidia.com/gpu": "1"}})
        );
        assert_eq!(resources(&json!({"cpuLimit": 0.0})), json!({}));
    }
}
