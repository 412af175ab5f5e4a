//! Training and serving the tutorial's network, beside TensorFlow doing the same. Both take turns,
//! so that what else the machine does meets both.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Row;
use super::measure::{Cost, median, whole};
use super::runs::fresh;
use crate::process;
use crate::suites::{ModelServer, exported_version};
use crate::tools::python::TENSORFLOW;
use crate::workspace::Workspace;

/// The tutorial's steps, and a few only: the difference is steps alone, without start and end.
const LONG: u32 = 200;
const SHORT: u32 = 20;
const TRIES: usize = 3;
/// Requests of one at a time, in each try.
const PREDICTIONS: &str = "1000";

/// Training: a step, the whole process, its memory.
pub(crate) fn train(workspace: &Workspace, binary: &Path, folder: &Path) -> Result<Vec<Row>> {
    let peer = Peer::find(workspace);
    let export = fresh(folder, "export")?;
    let mut ours = Training::default();
    let mut theirs = Training::default();
    for _ in 0..TRIES {
        ours.short.push(run(binary, &export, SHORT)?.seconds);
        if let Some(peer) = &peer {
            let cost = peer.train(&fresh(folder, "peer-export")?, SHORT)?;
            theirs.short.push(cost.seconds);
        }
        ours.take(run(binary, &export, LONG)?);
        if let Some(peer) = &peer {
            theirs.take(peer.train(&fresh(folder, "peer-export")?, LONG)?);
        }
    }
    let of = |field: fn(&Training) -> f64| peer.is_some().then(|| field(&theirs));
    let [step, seconds] = [of(Training::step_ms), of(Training::seconds)];
    Ok(vec![
        Row::new("training, one step of batch 100", ours.step_ms(), "ms")
            .limit(step)
            .beside("TensorFlow", step),
        Row::new("training, whole process of 200 steps", ours.seconds(), "s")
            .limit(seconds.map(|seconds| 0.8 * seconds))
            .beside("TensorFlow", seconds),
        Row::new("training, most memory", ours.peak_mb, "MB")
            .limit(150.0)
            .beside("TensorFlow", of(|training| training.peak_mb)),
    ])
}

/// The times of some runs.
#[derive(Debug, Default)]
struct Training {
    short: Vec<f64>,
    long: Vec<f64>,
    peak_mb: f64,
}

impl Training {
    fn take(&mut self, long: Cost) {
        self.long.push(long.seconds);
        self.peak_mb = self.peak_mb.max(long.peak_mb);
    }

    fn seconds(&self) -> f64 {
        median(self.long.clone())
    }

    fn step_ms(&self) -> f64 {
        (self.seconds() - median(self.short.clone())) * 1e3 / f64::from(LONG - SHORT)
    }
}

fn run(binary: &Path, export: &Path, steps: u32) -> Result<Cost> {
    let mut train = Command::new(binary);
    train
        .args([
            "image",
            "mnist-model",
            "/opt/model.py",
            "--tf-train-steps",
            &steps.to_string(),
        ])
        .arg("--tf-export-dir")
        .arg(export);
    whole(&mut train)
}

/// The median answer time of our server, asked over gRPC from another process.
pub(crate) fn predict(workspace: &Workspace, binary: &Path, folder: &Path) -> Result<Vec<Row>> {
    let example = [
        "build",
        "--release",
        "--locked",
        "-p",
        "serving",
        "--example",
        "serving_bench",
    ];
    process::run(&mut workspace.cargo(&example))?;
    let peer = Peer::find(workspace);
    let export = fresh(folder, "export")?;
    run(binary, &export, SHORT)?;
    let version = exported_version(&export)?;
    let server = ModelServer::start(binary, &export)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..TRIES {
        let mut bench = Command::new(workspace.target.join("release/examples/serving_bench"));
        bench.args([server.grpc.as_str(), ModelServer::NAME, PREDICTIONS]);
        ours.push(microseconds(&process::capture(&mut bench)?)?);
        if let Some(peer) = &peer {
            theirs.push(peer.predict(&version)?);
        }
    }
    let theirs = peer.is_some().then(|| median(theirs));
    Ok(vec![
        Row::new("predict over gRPC, batch 1, p50", median(ours), "µs")
            .limit(500.0)
            .beside("TensorFlow in its own process, no network", theirs),
    ])
}

/// The figure in `… p50 N us …`.
fn microseconds(said: &str) -> Result<f64> {
    said.split_once("p50 ")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
        .with_context(|| format!("no p50 in {said:?}"))
}

/// TensorFlow, doing the same in Python.
struct Peer {
    python: PathBuf,
    script: PathBuf,
    data: PathBuf,
}

impl Peer {
    fn find(workspace: &Workspace) -> Option<Self> {
        match TENSORFLOW.python(workspace) {
            Ok(python) => Some(Self {
                python,
                script: workspace.root.join("xtask/python/bench_tensorflow.py"),
                data: workspace.root.join("crates/model/mnist"),
            }),
            Err(error) => {
                println!("TensorFlow is not measured: {error:#}");
                None
            }
        }
    }

    fn train(&self, export: &Path, steps: u32) -> Result<Cost> {
        let mut train = Command::new(&self.python);
        train
            .arg(&self.script)
            .arg("train")
            .arg(&self.data)
            .arg(export)
            .arg(steps.to_string());
        whole(&mut train)
    }

    fn predict(&self, version: &Path) -> Result<f64> {
        let mut predict = Command::new(&self.python);
        predict
            .arg(&self.script)
            .arg("predict")
            .arg(version)
            .arg(PREDICTIONS);
        microseconds(&process::capture(&mut predict)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_read_from_the_tools_line() {
        let said = "predict batch 1: p50 312 us, p90 330 us, p99 400 us, min 290 us\n";
        assert_eq!(microseconds(said).unwrap().to_string(), "312");
        assert!(microseconds("").is_err());
    }
}
