//! What a step costs: a chain of steps that do nothing, beside starting the same program without a
//! server.

use std::path::Path;
use std::process::Command;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::measure::median;
use super::runs::{chain, fresh, run, upload};
use super::{Row, containers};
use crate::server::{Account, Server};

const STEPS: usize = 50;
const RUNS: usize = 7;
const SPAWNS: usize = 300;

pub(crate) fn measure(binary: &Path, folder: &Path) -> Result<Vec<Row>> {
    let data_dir = fresh(folder, "step")?;
    let server = Server::start(&Account::own(binary), &data_dir)?;
    let url = &server.status.http;
    let pipeline = upload(url, "chain", chain(STEPS).to_string().as_bytes())?;
    let (mut gaps, mut whole, mut spawns) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..=RUNS {
        let since = SystemTime::now();
        let took = run(url, &pipeline, &json!([]))?.took;
        let bare = bare_spawns(SPAWNS / RUNS)?;
        // The first one warms everything up.
        if number > 0 {
            let steps = containers::since(&data_dir, since)?;
            ensure!(steps.len() == STEPS, "{} of {STEPS} steps", steps.len());
            gaps.extend(
                steps
                    .windows(2)
                    .map(|pair| (pair[1].started - pair[0].started) * 1e3),
            );
            whole.push(took.as_secs_f64() * 1e3 / STEPS as f64);
            spawns.extend(bare);
        }
    }
    let bare = median(spawns);
    Ok(vec![
        Row::new(
            format!("a no-op step of a chain of {STEPS}, start to start"),
            median(gaps),
            "ms",
        )
        .limit(5.0)
        .beside("bare spawn", Some(bare)),
        Row::new("  the whole run over its steps", median(whole), "ms").limit(10.0),
    ])
}

/// Starting the steps' program and waiting for it, with nothing around.
fn bare_spawns(count: usize) -> Result<Vec<f64>> {
    (0..count)
        .map(|_| {
            let began = Instant::now();
            let status = Command::new("true").status().context("run `true`")?;
            ensure!(status.success(), "`true` ended with {status}");
            Ok(began.elapsed().as_secs_f64() * 1e3)
        })
        .collect()
}
