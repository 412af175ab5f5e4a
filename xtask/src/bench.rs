//! `cargo xtask bench`: figures of the release build, each beside its peer where the peer is at hand,
//! all in one run on one machine. Medians of a few tries; the machine's load is printed, because
//! under load every figure grows.

mod containers;
mod engine;
mod learning;
mod measure;
mod pipeline;
mod runs;
mod start;
mod step;

use anyhow::{Result, bail};

use crate::workspace::{Profile, Workspace};

/// One line of the table.
#[derive(Debug)]
struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    /// What it should not exceed.
    limit: Option<f64>,
    /// What it should reach.
    floor: Option<f64>,
    /// Who else was measured, in the same unit.
    peer: Option<(String, f64)>,
}

impl Row {
    fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            value,
            unit,
            limit: None,
            floor: None,
            peer: None,
        }
    }

    fn limit(mut self, limit: impl Into<Option<f64>>) -> Self {
        self.limit = limit.into();
        self
    }

    fn at_least(mut self, floor: f64) -> Self {
        self.floor = Some(floor);
        self
    }

    fn beside(mut self, peer: &str, value: Option<f64>) -> Self {
        self.peer = value.map(|value| (peer.to_owned(), value));
        self
    }
}

/// What can be measured, in the order of the table.
const PARTS: [&str; 6] = ["start", "step", "engine", "train", "predict", "tutorial"];

pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<()> {
    let everything = matches!(args, []) || args == ["all"];
    if let Some(unknown) = args
        .iter()
        .find(|arg| !everything && !PARTS.contains(&arg.as_str()))
    {
        bail!(
            "bench: unknown part {unknown:?}, expected `all` or some of {}",
            PARTS.join(", ")
        );
    }
    // The engine's table begins with the step's.
    let wanted = |part: &str| match (everything, part) {
        (true, part) => part != "step",
        (false, part) => args.iter().any(|arg| arg == part),
    };
    let binary = workspace.build(Profile::Release)?;
    let folder = workspace.cache("bench")?;
    println!("load before: {}", load());
    let mut rows = Vec::new();
    for part in PARTS.into_iter().filter(|part| wanted(part)) {
        let measured = match part {
            "start" => start::measure(&binary, &folder),
            "step" => step::measure(&binary, &folder),
            "engine" => engine::measure(&binary, &folder),
            "train" => learning::train(workspace, &binary, &folder),
            "predict" => learning::predict(workspace, &binary, &folder),
            _ => pipeline::measure(workspace, &binary, &folder),
        };
        match measured {
            Ok(more) => rows.extend(more),
            Err(error) if everything => println!("{part} not measured: {error:#}"),
            Err(error) => return Err(error),
        }
    }
    println!("load after: {}\n", load());
    print(&rows);
    Ok(())
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn print(rows: &[Row]) {
    println!("{:<52} {:>12}  {:>16}  peer", "", "coracle", "target");
    for row in rows {
        let value = format!("{} {}", number(row.value), row.unit);
        let limit = match (row.limit, row.floor) {
            (Some(limit), _) => format!("≤ {} {}", number(limit), verdict(row.value <= limit)),
            (None, Some(floor)) => {
                format!("≥ {} {}", number(floor), verdict(row.value >= floor))
            }
            (None, None) => String::new(),
        };
        let peer = row.peer.as_ref().map_or_else(String::new, |(name, value)| {
            format!(
                "{} {} {name}, ratio {:.2}",
                number(*value),
                row.unit,
                row.value / value
            )
        });
        println!("{:<52} {value:>12}  {limit:>16}  {peer}", row.what);
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// Three significant digits or so.
fn number(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}
