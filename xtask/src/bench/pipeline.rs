//! The tutorial's run, from `POST runs` to the page that answers, with the example's own package and
//! manifests. Its volume is a claim that the server provisions, so nothing outside is touched.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Row;
use super::engine::{fresh, run, upload};
use super::measure::{median, whole};
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
    let server = Server::start(&Account::own(binary), &fresh(folder, "pipeline")?)?;
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
    let (mut whole_run, mut training) = (Vec::new(), Vec::new());
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
        whole_run.push(done.began.elapsed().as_secs_f64());
        // The same training right beside it, for the machine's speed changes.
        let mut train = Command::new(binary);
        train.args(["image", "mnist-model", "/opt/model.py", "--tf-export-dir"]);
        training.push(whole(train.arg(folder.join("pipeline-export")))?.seconds);
    }
    let (run, training) = (median(whole_run), median(training));
    Ok(vec![
        Row::new("the tutorial's run, from POST to the page", run, "s").limit(training + 1.5),
        Row::new("  of it: training by itself", training, "s"),
    ])
}
