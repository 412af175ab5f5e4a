//! The tutorial's run, from `POST runs` to the page that answers, with the example's own package and
//! manifests. Its volume is a claim that the server provisions, so nothing outside is touched.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::measure::{self, median};
use super::runs::{fresh, run, upload};
use super::{Row, containers};
use crate::server::{Account, Server};
use crate::workspace::Workspace;
use crate::{http, process, tools};

const TRIES: usize = 3;

const CLAIM: &str = r#"{"apiVersion": "v1", "kind": "PersistentVolumeClaim",
  "metadata": {"name": "bench-claim", "namespace": "kubeflow"},
  "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}"#;

pub(crate) fn measure(workspace: &Workspace, binary: &Path, folder: &Path) -> Result<Vec<Row>> {
    let kubectl = tools::kubectl::find(workspace)?;
    let example = workspace.root.join("examples/mnist");
    let data_dir = fresh(folder, "pipeline")?;
    let server = Server::start(&Account::own(binary), &data_dir)?;
    let ask = |args: &[&str]| {
        process::capture(
            Command::new(&kubectl)
                .args(args)
                .env("KUBECONFIG", &server.status.kubeconfig),
        )
    };
    let claim = folder.join("claim.json");
    std::fs::write(&claim, CLAIM).context("write the claim")?;
    for manifest in [
        &example.join("manifests/metallb.yaml"),
        &example.join("manifests/address-pool.yaml"),
        &claim,
    ] {
        ask(&["apply", "--filename", &manifest.display().to_string()])?;
    }
    let package = std::fs::read(example.join("mnist_pipeline.yaml")).context("read the package")?;
    let pipeline = upload(&server.status.http, "mnist", &package)?;
    let parameters = json!([{"name": "pvc_name", "value": "bench-claim"}]);
    let (mut whole_run, mut overhead, mut training) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TRIES {
        ask(&[
            "--namespace",
            "kubeflow",
            "delete",
            "deployment,service",
            "web-ui",
            "mnist-service",
            "--ignore-not-found",
        ])?;
        let since = SystemTime::now();
        let done = run(&server.status.http, &pipeline, &parameters)?;
        let port = ask(&[
            "--namespace",
            "kubeflow",
            "get",
            "service",
            "web-ui",
            "--output",
            "jsonpath={.spec.ports[0].nodePort}",
        ])?;
        let page = format!("http://127.0.0.1:{}/", port.trim());
        process::until(Duration::from_secs(60), || {
            let text = http::get(&page)?;
            ensure!(
                text.contains("Connected (model version"),
                "the page has no model yet"
            );
            Ok(())
        })?;
        let whole = done.began.elapsed().as_secs_f64();
        // The longest container is the training; the rest of the time is what everything else took.
        let trained = containers::since(&data_dir, since)?
            .iter()
            .filter_map(|container| Some(container.ended? - container.started))
            .fold(0.0, f64::max);
        whole_run.push(whole);
        overhead.push(whole - trained);
        // The same training right beside it, for the machine's speed changes.
        let mut train = Command::new(binary);
        train.args(["image", "mnist-model", "/opt/model.py", "--tf-export-dir"]);
        training.push(measure::whole(train.arg(folder.join("pipeline-export")))?.seconds);
    }
    let (run, training) = (median(whole_run), median(training));
    Ok(vec![
        Row::new("the tutorial's run, from POST to the page", run, "s"),
        Row::new(
            "  of it: all but the training's own process",
            median(overhead),
            "s",
        )
        .limit(1.5),
        Row::new("  training by itself, outside of a run", training, "s"),
    ])
}
