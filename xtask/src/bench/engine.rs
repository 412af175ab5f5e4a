//! Pipelines at work: how many steps a second a wide run makes, whether a step costs the same in a
//! small and in a large run, and what the server takes for it.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::measure::{median, peak_mb};
use super::runs::{fan_out, fresh, run, upload};
use super::{Row, step};
use crate::server::{Account, Server};

const SMALL: usize = 20;
const WIDE: usize = 2000;
const HUGE: usize = 10_000;
const SMALL_RUNS: usize = 9;

pub(crate) fn measure(binary: &Path, folder: &Path) -> Result<Vec<Row>> {
    let mut rows = step::measure(binary, folder)?;
    let server = Server::start(&Account::own(binary), &fresh(folder, "engine")?)?;
    let (url, pid) = (&server.status.http, server.status.pid);
    let per_step = |steps: usize| -> Result<f64> {
        let name = format!("fan-out-{steps}");
        let pipeline = upload(url, &name, fan_out(steps).to_string().as_bytes())?;
        let runs = if steps == SMALL { SMALL_RUNS } else { 1 };
        let mut times = Vec::new();
        for _ in 0..runs {
            let took = run(url, &pipeline, &json!([]))?.took;
            times.push(took.as_secs_f64() * 1e3 / steps as f64);
        }
        Ok(median(times))
    };
    let small = per_step(SMALL)?;
    let wide = per_step(WIDE)?;
    let memory = peak_mb(pid)?;
    rows.extend([
        Row::new(
            format!("steps a second, fan-out of {WIDE}"),
            1e3 / wide,
            "/s",
        )
        .at_least(300.0),
        Row::new(format!("  a step of {WIDE}"), wide, "ms")
            .beside(&format!("a step of {SMALL}"), Some(small)),
        Row::new("  the server's memory at its highest", memory, "MB").limit(150.0),
    ]);
    let huge = per_step(HUGE)?;
    rows.extend([
        Row::new(format!("a step of {HUGE}"), huge, "ms")
            .beside(&format!("a step of {SMALL}"), Some(small)),
        Row::new("  the server's memory at its highest", peak_mb(pid)?, "MB"),
    ]);
    Ok(rows)
}
