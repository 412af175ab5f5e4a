//! The images this project replaces, and the programs behind them.
//!
//! [`catalogue`] says which image references are ours; the node starts such a container as this
//! binary itself, `coracle image NAME …`, which ends in [`main`]. The programs live in a Pod like
//! any other: they reach the cluster through their service account and nothing else. [`pod`] is what
//! they know of the Pod they run in, also on a machine that refuses mounts.
//!
//! Not in here: training and serving themselves (crates `trainer` and `serving`), and the decision
//! which containers run where.

mod catalogue;
mod cluster;
mod deploy_service;
mod kubeflow_deployer;
mod metallb;
pub mod pod;
mod web_ui;

#[cfg(test)]
mod fake_api;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;

use stdx::{SystemClock, SystemRng};

pub use catalogue::{BuiltIn, catalogue};

/// Runs the program of an image: the first argument is its name in the catalogue, the rest are the
/// container's arguments. Returns the container's exit code.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut args = args
        .into_iter()
        .map(|arg| arg.to_string_lossy().into_owned());
    let name = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    let pod = match pod::Pod::from_environment() {
        Ok(pod) => pod,
        Err(error) => return fail(&name, &error.to_string()),
    };
    match name.as_str() {
        catalogue::MODEL => trainer_main(args, &pod),
        catalogue::SERVING => serving_main(args, &pod),
        catalogue::DEPLOYER => block_on(&name, kubeflow_deployer::run(args, pod)),
        catalogue::DEPLOY_SERVICE => block_on(&name, deploy_service::run(args, pod)),
        catalogue::WEB_UI => block_on(&name, web_ui::run(args, pod)),
        catalogue::METALLB_CONTROLLER => block_on(&name, metallb::controller(args, pod)),
        catalogue::METALLB_SPEAKER => block_on(&name, metallb::speaker(args, pod)),
        _ => {
            let known: Vec<&str> = catalogue().iter().map(|image| image.program).collect();
            fail(
                &name,
                &format!("no such built-in image (there are: {})", known.join(", ")),
            )
        }
    }
}

/// Everything the environment says, for programs that read it themselves.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Programs of other crates write their log through `tracing`.
fn log_to_stderr() {
    let started = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
    if let Err(error) = started {
        say(&format!("start the log: {error}"));
    }
}

fn trainer_main(args: Vec<String>, pod: &pod::Pod) -> ExitCode {
    log_to_stderr();
    trainer::main(
        &args,
        &mut trainer::Host {
            env: &environment(),
            resolve: &|path| pod.path(path),
            clock: SystemClock::shared(),
            rng: SystemRng::shared(),
            log: &mut std::io::stdout(),
        },
    )
}

fn serving_main(mut args: Vec<String>, pod: &pod::Pod) -> ExitCode {
    log_to_stderr();
    let env = environment();
    // Further names come by environment: the original would refuse a flag that it does not know.
    if let Some(aliases) = env.get("CORACLE_MODEL_ALIASES") {
        args.push(format!("--model_alias={aliases}"));
    }
    serving::main(
        &args,
        &serving::Host {
            env: &env,
            resolve: &|path| pod.path(path),
            bind: pod.bind_address(),
            clock: SystemClock::shared(),
        },
    )
}

/// Why a program ended early, and its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Failure {
    /// The arguments make no sense: exit code 2, as argument parsers have it.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            message: message.into(),
        }
    }

    /// The work itself failed.
    pub(crate) fn work(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }
}

/// An async program on one thread: these spend their lives waiting.
fn block_on(name: &str, program: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(name, &format!("start the async runtime: {error}")),
    };
    match runtime.block_on(program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&format!("{name}: {failure}"));
            ExitCode::from(failure.code)
        }
    }
}

fn fail(name: &str, message: &str) -> ExitCode {
    say(&format!("{name}: {message}"));
    ExitCode::FAILURE
}

/// A line of the container's log. That nobody reads it any more is no reason to fail.
pub(crate) fn say(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// A line of the container's output.
pub(crate) fn print(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}
