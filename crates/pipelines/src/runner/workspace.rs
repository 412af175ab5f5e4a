//! A pipeline's workspace: one claim per run, mounted into the tasks that speak of it.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use super::Shared;
use super::pod::{RUN_LABEL, WORKFLOW_LABEL};
use crate::journal::Record;

/// Where tasks see it.
pub(super) const MOUNT: &str = "/kfp-workspace";
/// The placeholder for that.
const PLACEHOLDER: &str = "{{$.workspace_path}}";

fn claim_name(record: &Record) -> String {
    format!("{}-kfp-workspace", record.workflow)
}

/// The name of the run's claim, made if it is missing, if the task has to do with it.
pub(super) async fn needed(
    shared: &Shared,
    record: &Record,
    settings: &Value,
    container: &Value,
    input: &Value,
) -> Result<Option<String>, String> {
    let speaks = |value: &Value| {
        let text = value.to_string();
        text.contains(MOUNT) || text.contains(PLACEHOLDER)
    };
    if !(speaks(&input["inputs"]) || speaks(container)) {
        return Ok(None);
    }
    let Some(workspace) = settings.pointer("/pipelineConfig/workspace") else {
        return Ok(None);
    };
    let name = claim_name(record);
    let claim = claim(&name, record, workspace)?;
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(shared.client.clone(), &shared.options.namespace);
    match claims.create(&PostParams::default(), &claim).await {
        Ok(_) => Ok(Some(name)),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(Some(name)),
        Err(error) => Err(format!(
            "make the workspace's claim {name}: {}",
            stdx::error::chain(&error)
        )),
    }
}

fn claim(name: &str, record: &Record, workspace: &Value) -> Result<PersistentVolumeClaim, String> {
    let size = workspace.get("size").and_then(Value::as_str);
    let size = size
        .filter(|size| !size.is_empty())
        .ok_or("the workspace has no size")?;
    let mut spec = json!({"accessModes": ["ReadWriteOnce"]});
    let patch = workspace
        .pointer("/kubernetes/pvcSpecPatch")
        .and_then(Value::as_object);
    for (key, value) in patch.into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec["resources"]["requests"]["storage"] = json!(size);
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "labels": {
            WORKFLOW_LABEL: record.workflow, RUN_LABEL: record.run}},
        "spec": spec,
    });
    serde_json::from_value(claim).map_err(|error| format!("the workspace makes no claim: {error}"))
}

/// Deletes the claim of a run, if there is one.
pub(super) async fn delete(shared: &Shared, record: &Record) {
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(shared.client.clone(), &shared.options.namespace);
    match claims
        .delete(&claim_name(record), &DeleteParams::default())
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => tracing::warn!(
            run_id = record.run,
            "delete the workspace's claim: {}",
            stdx::error::chain(&error)
        ),
        Ok(_) => {}
    }
}
