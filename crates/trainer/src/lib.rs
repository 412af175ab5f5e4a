//! The program behind the `mnist/model` image: it trains a network on MNIST, reports progress,
//! keeps checkpoints, judges the result on the test set and exports a SavedModel.
//!
//! Entry: [`main`], which takes arguments and a [`Host`] and answers the process's exit code.
//! Invariant: an export or a checkpoint is either whole or not there, and the same seed on the
//! same data gives the same weights whatever the number of threads.
//!
//! Absent: the network's shape and the export format (crate `model`), Kubernetes, and the exchange
//! of parameters between processes: of several replicas each trains alone and the chief exports.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use stdx::{SharedClock, SharedRng};

mod options;

pub mod batches;
pub mod cnn;
pub mod linear;
pub mod optimizer;

mod checkpoint;
mod run;
mod tf_config;

pub use options::{ModelType, Options, UsageError};
pub use run::{Error, Outcome, run};
pub use tf_config::Role;

/// Everything that the program gets from outside besides its arguments.
pub struct Host<'a> {
    /// The environment; `TF_CONFIG` is read.
    pub env: &'a BTreeMap<String, String>,
    /// Maps a path of the program's view to one of the host's; `Path::to_path_buf` where both
    /// are one.
    pub resolve: &'a dyn Fn(&Path) -> PathBuf,
    /// For export names and durations.
    pub clock: SharedClock,
    /// Where a run without `--seed` gets one from.
    pub rng: SharedRng,
    /// Where progress and errors are written, a line at a time.
    pub log: &'a mut dyn Write,
}

impl std::fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

/// Exit code of a run that failed.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of arguments that make no sense.
pub const EXIT_USAGE: u8 = 2;

/// Runs the program; `args` are the container's arguments without a program name, a leading
/// `/opt/model.py` is skipped.
pub fn main(args: &[String], host: &mut Host<'_>) -> ExitCode {
    let (options, ignored) = match Options::parse(args) {
        Ok(parsed) => parsed,
        Err(error) => {
            say(host.log, format_args!("error: {error}"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if !ignored.is_empty() {
        say(
            host.log,
            format_args!("ignoring unknown arguments: {}", ignored.join(" ")),
        );
    }
    match run(&options, host) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error @ Error::TfConfig { .. }) => {
            say(
                host.log,
                format_args!("error: {}", stdx::error::chain(&error)),
            );
            ExitCode::from(EXIT_USAGE)
        }
        Err(error) => {
            say(
                host.log,
                format_args!("error: {}", stdx::error::chain(&error)),
            );
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Writes a line. A log that is gone must not end a training run.
pub(crate) fn say(log: &mut dyn Write, line: std::fmt::Arguments<'_>) {
    drop(writeln!(log, "{line}"));
    drop(log.flush());
}
