//! `cargo xtask test`: every suite in order, each with its own line, and the sum as the last one.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::suites::{SUITES, Session};
use crate::tally::{Outcome, Tally};
use crate::workspace::Workspace;

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// The larger counts.
    pub(crate) full: bool,
    /// Accept new snapshots.
    pub(crate) bless: bool,
    /// Only these suites.
    only: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    let options = Options::parse(args)?;
    let mut session = Session::new(workspace, options.clone())?;
    let mut tally = Tally::default();
    for suite in SUITES {
        if !options.only.is_empty() && !options.only.iter().any(|name| name == suite.name) {
            continue;
        }
        println!("== {}: {}", suite.name, suite.about);
        let began = Instant::now();
        let outcome = (suite.run)(&mut session).unwrap_or_else(|error| {
            let mut outcome = Outcome::default();
            outcome.add(false, format!("{error:#}"));
            outcome
        });
        tally.add(suite.name, &outcome, began.elapsed());
    }
    drop(session);
    Ok(if tally.finish() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--full" => options.full = true,
                "--bless" => options.bless = true,
                "--only" => {
                    let name = args.next().context("--only needs the name of a suite")?;
                    if !SUITES.iter().any(|suite| suite.name == name) {
                        bail!("no suite {name:?}, there are: {}", names());
                    }
                    options.only.push(name.clone());
                }
                _ => bail!(
                    "test: unknown argument {arg:?}, expected --full, --bless or --only SUITE \
                     ({})",
                    names()
                ),
            }
        }
        Ok(options)
    }
}

fn names() -> String {
    SUITES
        .iter()
        .map(|suite| suite.name)
        .collect::<Vec<_>>()
        .join(", ")
}
