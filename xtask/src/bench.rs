//! `cargo xtask bench`: figures of the release build, each beside its peer where the peer is at hand,
//! all in one run on one machine. Medians of a few tries; the machine's load is printed, because
//! under load every figure grows.

mod engine;
mod learning;
mod measure;
mod pipeline;

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
            peer: None,
        }
    }

    fn limit(mut self, limit: f64) -> Self {
        self.limit = Some(limit);
        self
    }

    fn beside(mut self, peer: &str, value: Option<f64>) -> Self {
        self.peer = value.map(|value| (peer.to_owned(), value));
        self
    }
}

pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<()> {
    let all = match args {
        [] => true,
        [which] if which == "all" => true,
        [which] if which == "engine" => false,
        _ => bail!("bench: unknown arguments {args:?}, expected `engine` or `all`"),
    };
    let binary = workspace.build(Profile::Release)?;
    let folder = workspace.cache("bench")?;
    println!("load before: {}", load());
    let mut rows = engine::measure(&binary, &folder)?;
    if all {
        rows.extend(learning::measure(workspace, &binary, &folder)?);
        match pipeline::measure(workspace, &binary, &folder) {
            Ok(more) => rows.extend(more),
            Err(error) => println!("tutorial not measured: {error:#}"),
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
        let limit = row.limit.map_or_else(String::new, |limit| {
            let verdict = if row.value <= limit { "met" } else { "MISSED" };
            format!("≤ {} {verdict}", number(limit))
        });
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
