//! Pipelines for the benchmarks and their runs, through the API that everyone uses.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::http;

/// How often a run is asked whether it is over. The answer holds the whole Workflow, so asking has
/// its price.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// How much of a run's time may go into asking: one part in this many.
const ASK_SHARE: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(600);

/// A folder for a data directory that is not there yet.
pub(crate) fn fresh(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(path)
}

/// A workflow of steps that do nothing, one after the other.
pub(crate) fn chain(steps: usize) -> Value {
    let tasks: Vec<Value> = (0..steps)
        .map(|at| match at {
            0 => json!({"name": "step-0", "template": "nothing"}),
            _ => json!({
                "name": format!("step-{at}"),
                "template": "nothing",
                "dependencies": [format!("step-{}", at - 1)],
            }),
        })
        .collect();
    workflow("chain", &tasks)
}

/// A workflow of steps that do nothing, all at once.
pub(crate) fn fan_out(steps: usize) -> Value {
    let items: Vec<usize> = (0..steps).collect();
    let task = json!({"name": "each", "template": "nothing", "withItems": items});
    workflow("fan-out", &[task])
}

fn workflow(name: &str, tasks: &[Value]) -> Value {
    let about = json!({"name": name}).to_string();
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            "generateName": format!("{name}-"),
            "annotations": {"pipelines.kubeflow.org/pipeline_spec": about},
        },
        "spec": {
            "entrypoint": name,
            "serviceAccountName": "pipeline-runner",
            "arguments": {"parameters": []},
            "templates": [
                {"name": name, "dag": {"tasks": tasks}},
                {"name": "nothing", "container": {"image": "busybox", "command": ["true"]}},
            ],
        },
    })
}

/// Uploads a package and returns the pipeline's id.
pub(crate) fn upload(url: &str, name: &str, package: &[u8]) -> Result<String> {
    let path = format!("{url}/apis/v1beta1/pipelines/upload?name={name}");
    let answer: Value = serde_json::from_str(&http::upload(&path, "package.yaml", package)?)?;
    let id = answer["id"]
        .as_str()
        .with_context(|| format!("the upload gave {answer}"))?;
    Ok(id.to_owned())
}

/// A run that has succeeded.
pub(crate) struct Done {
    pub(crate) began: Instant,
    pub(crate) took: Duration,
}

/// Runs a pipeline to its end.
pub(crate) fn run(url: &str, pipeline: &str, parameters: &Value) -> Result<Done> {
    let body = json!({
        "name": "bench",
        "pipeline_spec": {"pipeline_id": pipeline, "parameters": parameters},
    });
    let began = Instant::now();
    let answer = http::post_json(&format!("{url}/apis/v1beta1/runs"), &body)?;
    let answer: Value = serde_json::from_str(&answer)?;
    let id = answer["run"]["id"]
        .as_str()
        .with_context(|| format!("the run is {answer}"))?;
    let path = format!("{url}/apis/v1beta1/runs/{id}");
    loop {
        let asked = Instant::now();
        let now: Value = serde_json::from_str(&http::get(&path)?)?;
        let status = now["run"]["status"].as_str().unwrap_or_default();
        match status {
            "Succeeded" => {
                return Ok(Done {
                    began,
                    took: began.elapsed(),
                });
            }
            "Failed" | "Error" => anyhow::bail!("the run ended as {status}: {now}"),
            _ => ensure!(began.elapsed() < PATIENCE, "the run is still {status:?}"),
        }
        std::thread::sleep(ASK_EVERY.max(asked.elapsed() * ASK_SHARE));
    }
}
