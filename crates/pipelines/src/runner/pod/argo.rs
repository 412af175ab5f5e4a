//! A step of a Workflow as a Pod: the template's container, with what Argo's own extras mean to
//! Kubernetes.

use std::path::Path;

use artifacts::Uri;
use engine::{StartWork, WantedParameter};
use k8s_openapi::api::core::v1::Pod;
use launcher::{Archive, Input, Job, OutputArtifact, OutputParameter, Source};
use serde_json::{Map, Value, json};

use super::{MAIN, Names, add_environment, list, metadata, replace_late};
use crate::journal::Record;
use crate::runner::launch::{self, Launch};
use crate::runner::store::{self, Place};

/// The Pod of an attempt; the error is for the step's message.
pub(super) fn build(
    record: &Record,
    settings: &Value,
    start: &StartWork,
    names: &Names,
    place: &Place,
) -> Result<Pod, String> {
    let mut spec = start.spec.clone();
    replace_late(&mut spec, &names.pod, start.attempt);
    let part = |name: &str| {
        // The Workflow's own `priority` is that of the run among runs.
        let of_workflow = match name {
            "priority" => "podPriority",
            "priorityClassName" => "podPriorityClassName",
            other => other,
        };
        spec.get(name)
            .or_else(|| settings.get(of_workflow))
            .cloned()
    };

    let mut main = spec.get("container").cloned().unwrap_or_default();
    main["name"] = json!(MAIN);
    add_environment(&mut main, record, start);
    let launch = wrap(&mut main, start, names, record, place)?;
    let mut init = list(spec.get("initContainers"));
    // A sidecar that ends when the step does is what Kubernetes calls a restartable init container.
    init.extend(list(spec.get("sidecars")).into_iter().map(|mut sidecar| {
        sidecar["restartPolicy"] = json!("Always");
        sidecar
    }));
    for container in &mut init {
        // Argo's own extra; mirrored mounts are the main container's.
        if container.get("mirrorVolumeMounts").and_then(Value::as_bool) == Some(true) {
            let mounts = main
                .get("volumeMounts")
                .cloned()
                .unwrap_or_else(|| json!([]));
            container["volumeMounts"] = mounts;
        }
        if let Some(fields) = container.as_object_mut() {
            fields.remove("mirrorVolumeMounts");
        }
    }
    let mut volumes = volumes(&spec, settings, std::iter::once(&main).chain(&init))?;
    if let Some(launch) = launch {
        launch.apply(&mut main, &mut volumes)?;
    }

    let mut pod_spec = Map::new();
    pod_spec.insert("restartPolicy".to_owned(), json!("Never"));
    pod_spec.insert("containers".to_owned(), json!([main]));
    if !init.is_empty() {
        pod_spec.insert("initContainers".to_owned(), Value::Array(init));
    }
    if !volumes.is_empty() {
        pod_spec.insert("volumes".to_owned(), Value::Array(volumes));
    }
    let account = spec.get("serviceAccountName").and_then(Value::as_str);
    pod_spec.insert(
        "serviceAccountName".to_owned(),
        json!(
            account
                .filter(|a| !a.is_empty())
                .unwrap_or(&record.service_account)
        ),
    );
    if let Some(seconds) = start.timeout_seconds {
        pod_spec.insert("activeDeadlineSeconds".to_owned(), json!(seconds));
    }
    for name in [
        "affinity",
        "automountServiceAccountToken",
        "dnsConfig",
        "dnsPolicy",
        "hostAliases",
        "hostNetwork",
        "imagePullSecrets",
        "nodeSelector",
        "priority",
        "priorityClassName",
        "schedulerName",
        "securityContext",
        "tolerations",
    ] {
        if let Some(value) = part(name) {
            pod_spec.insert(name.to_owned(), value);
        }
    }
    for patch in [settings.get("podSpecPatch"), spec.get("podSpecPatch")] {
        if let Some(patch) = patch.and_then(Value::as_str) {
            crate::runner::patch::apply(&mut pod_spec, patch)?;
        }
    }
    let metadata = metadata(
        record,
        &[settings.get("podMetadata"), spec.get("metadata")],
        start,
        names,
        &place.namespace,
    );
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec});
    serde_json::from_value(pod)
        .map_err(|error| format!("template {:?} does not make a Pod: {error}", start.template))
}

/// What the launcher has to do around the step, if anything.
fn wrap(
    main: &mut Value,
    start: &StartWork,
    names: &Names,
    record: &Record,
    place: &Place,
) -> Result<Option<Launch>, String> {
    let folder = store::attempt_of_workflow(record, &names.pod)?;
    let mut job = Job::default();
    let mut reads = Vec::new();
    for (name, path, value) in &start.artifacts {
        let path = path
            .clone()
            .ok_or_else(|| format!("input artifact {name:?}: the template gives it no path"))?;
        let (source, archive) = input_source(name, value)?;
        if let Source::Uri(uri) = &source {
            reads.push(uri.clone());
        }
        job.inputs.push(Input {
            name: name.clone(),
            path,
            source,
            archive,
            optional: false,
        });
    }
    for wanted in &start.output_parameters {
        if let WantedParameter::File { name, path, .. } = wanted {
            job.parameters.push(OutputParameter {
                name: name.clone(),
                path: path.clone(),
            });
        }
    }
    for wanted in &start.output_artifacts {
        let archive = match wanted.settings.pointer("/archive/none") {
            Some(_) => Archive::None,
            None => Archive::Tgz,
        };
        let own = wanted.settings.pointer("/s3/key").and_then(Value::as_str);
        let uri = match own {
            Some(key) => store::default_uri(
                wanted
                    .settings
                    .pointer("/s3/bucket")
                    .and_then(Value::as_str),
                key,
            )?,
            None if archive == Archive::Tgz => folder.join(&format!("{}.tgz", wanted.name)),
            None => folder.join(&wanted.name),
        };
        job.artifacts.push(OutputArtifact {
            name: wanted.name.clone(),
            path: wanted.path.clone(),
            uri,
            archive,
            optional: wanted.optional,
        });
    }
    if job == Job::default() {
        return Ok(None);
    }
    job.document = Some(folder.join(launch::DOCUMENT));
    main["terminationMessagePolicy"] = json!("File");
    Ok(Some(Launch {
        job,
        folder,
        reads,
        stores: place.stores.clone(),
    }))
}

/// What an artifact that was passed is.
fn input_source(name: &str, value: &Value) -> Result<(Source, Archive), String> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let wrong = |problem: String| format!("input artifact {name:?}: {problem}");
    if let Some(raw) = text("/raw/data").or_else(|| text("/raw")) {
        return Ok((Source::Raw(raw.to_owned()), Archive::None));
    }
    let (uri, tgz) = if let Some(uri) = text("/uri") {
        let uri = Uri::parse(uri).map_err(|error| wrong(error.to_string()))?;
        (uri, text("/archive") == Some("tgz"))
    } else if let Some(key) = text("/s3/key") {
        (
            store::default_uri(text("/s3/bucket"), key)?,
            Path::new(key).extension().is_some_and(|end| end == "tgz"),
        )
    } else {
        return Err(wrong(format!(
            "{value} is no artifact that can be read (allowed: one from a step, raw data, an s3 key)"
        )));
    };
    let archive = if tgz { Archive::Tgz } else { Archive::None };
    Ok((Source::Uri(uri), archive))
}

/// The volumes that the containers mount: the template's, else the Workflow's.
fn volumes<'a>(
    spec: &Value,
    settings: &Value,
    containers: impl Iterator<Item = &'a Value>,
) -> Result<Vec<Value>, String> {
    let known: Vec<Value> = list(spec.get("volumes"))
        .into_iter()
        .chain(list(settings.get("volumes")))
        .collect();
    let mut used: Vec<Value> = Vec::new();
    for container in containers {
        let mounts = list(container.get("volumeMounts")).into_iter();
        for mount in mounts.chain(list(container.get("volumeDevices"))) {
            let name = mount
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if used.iter().any(|volume| volume["name"] == name) {
                continue;
            }
            let volume = known.iter().find(|volume| volume["name"] == name).ok_or_else(|| {
                format!("volume {name:?} is mounted, but neither the template nor the workflow has it")
            })?;
            let mut volume = volume.clone();
            if volume.as_object().is_some_and(|fields| fields.len() == 1) {
                volume["emptyDir"] = json!({});
            }
            used.push(volume);
        }
    }
    Ok(used)
}
