//! The server by itself: how fast it is there, what it takes when idle, what a step costs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Row;
use super::measure::{median, memory_mb, resident_mb};
use crate::http;
use crate::process;
use crate::server::{Account, Server, Started};

const STARTS: usize = 7;
const STEPS: usize = 50;
const RUNS: usize = 5;
/// How long a server settles before its memory counts as idle.
const SETTLE: Duration = Duration::from_secs(3);

pub(crate) fn measure(binary: &Path, folder: &Path) -> Result<Vec<Row>> {
    let account = Account::own(binary);
    let data_dir = fresh(folder, "engine")?;
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let began = Instant::now();
        let server = Started::start(&account, &data_dir)?;
        first.push(began.elapsed().as_secs_f64());
        server.keep()?;
        let began = Instant::now();
        let server = Started::start(&account, &data_dir)?;
        again.push(began.elapsed().as_secs_f64());
        drop(server);
    }
    let server = Server::start(&account, &data_dir)?;
    std::thread::sleep(SETTLE);
    let pid = server.status.pid;
    let (resident, all) = (resident_mb(pid)?, memory_mb(binary, pid, &data_dir)?);
    let pipeline = upload(
        &server.status.http,
        "chain",
        chain(STEPS).to_string().as_bytes(),
    )?;
    let mut steps = Vec::new();
    for _ in 0..RUNS {
        let took = run(&server.status.http, &pipeline, &json!([]))?.took;
        steps.push(took.as_secs_f64() * 1e3 / STEPS as f64);
    }
    Ok(vec![
        Row::new(
            "start to ready, first start, whole command",
            median(first),
            "s",
        )
        .limit(0.3),
        Row::new(
            "start to ready, later starts, whole command",
            median(again),
            "s",
        )
        .limit(0.3),
        Row::new("idle memory, server (resident)", resident, "MB").limit(60.0),
        Row::new("idle memory, server and spawner (proportional)", all, "MB"),
        Row::new("a no-op step, from one to the next", median(steps), "ms").limit(10.0),
    ])
}

/// A folder for a data directory that is not there yet.
pub(crate) fn fresh(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(path)
}

/// A workflow of steps that do nothing, one after the other.
fn chain(steps: usize) -> Value {
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
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            "generateName": "chain-",
            "annotations": {"pipelines.kubeflow.org/pipeline_spec": "{\"name\": \"chain\"}"},
        },
        "spec": {
            "entrypoint": "chain",
            "serviceAccountName": "pipeline-runner",
            "arguments": {"parameters": []},
            "templates": [
                {"name": "chain", "dag": {"tasks": tasks}},
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
    let status = process::until(Duration::from_secs(300), || {
        let now: Value = serde_json::from_str(&http::get(&path)?)?;
        let status = now["run"]["status"].as_str().unwrap_or_default().to_owned();
        ensure!(
            matches!(&*status, "Succeeded" | "Failed" | "Error"),
            "the run is {status:?}"
        );
        Ok(status)
    })?;
    ensure!(status == "Succeeded", "the run ended as {status}");
    Ok(Done {
        began,
        took: began.elapsed(),
    })
}
