//! Training and serving the tutorial's network, beside TensorFlow doing the same.

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
/// Requests of one at a time.
const PREDICTIONS: &str = "2000";

pub(crate) fn measure(workspace: &Workspace, binary: &Path, folder: &Path) -> Result<Vec<Row>> {
    let python = TENSORFLOW.python(workspace);
    if let Err(error) = &python {
        println!("TensorFlow is not measured: {error:#}");
    }
    let peer = python.ok().map(|python| Peer {
        python,
        script: workspace.root.join("xtask/python/bench_tensorflow.py"),
        data: workspace.root.join("crates/model/mnist"),
    });
    let export = fresh(folder, "export")?;
    let ours = training(|steps| train(binary, &export, steps))?;
    let theirs = match &peer {
        Some(peer) => Some(training(|steps| {
            peer.train(&fresh(folder, "peer-export")?, steps)
        })?),
        None => None,
    };
    let predict = predict(workspace, binary, &export)?;
    let version = exported_version(&export)?;
    let signature = peer
        .as_ref()
        .map(|peer| peer.predict(&version))
        .transpose()?;
    let of = |field: fn(&Training) -> f64| theirs.as_ref().map(field);
    Ok(vec![
        Row::new("training, one step of batch 100", ours.step_ms, "ms")
            .beside("TensorFlow", of(|t| t.step_ms)),
        Row::new("training, whole process of 200 steps", ours.seconds, "s")
            .beside("TensorFlow", of(|t| t.seconds)),
        Row::new("training, most memory", ours.peak_mb, "MB")
            .limit(150.0)
            .beside("TensorFlow", of(|t| t.peak_mb)),
        Row::new("predict over gRPC, batch 1, p50", predict, "µs")
            .limit(500.0)
            .beside("TensorFlow in its own process, no network", signature),
    ])
}

struct Training {
    step_ms: f64,
    seconds: f64,
    peak_mb: f64,
}

fn training(mut train: impl FnMut(u32) -> Result<Cost>) -> Result<Training> {
    let (mut long, mut short, mut peak_mb) = (Vec::new(), Vec::new(), 0.0_f64);
    for _ in 0..TRIES {
        short.push(train(SHORT)?.seconds);
        let cost = train(LONG)?;
        long.push(cost.seconds);
        peak_mb = peak_mb.max(cost.peak_mb);
    }
    let (long, short) = (median(long), median(short));
    let step_ms = (long - short) * 1e3 / f64::from(LONG - SHORT);
    Ok(Training {
        step_ms,
        seconds: long,
        peak_mb,
    })
}

fn train(binary: &Path, export: &Path, steps: u32) -> Result<Cost> {
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
fn predict(workspace: &Workspace, binary: &Path, export: &Path) -> Result<f64> {
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
    let server = ModelServer::start(binary, export)?;
    let mut bench = Command::new(workspace.target.join("release/examples/serving_bench"));
    bench.args([server.grpc.as_str(), ModelServer::NAME, PREDICTIONS]);
    microseconds(&process::capture(&mut bench)?)
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
