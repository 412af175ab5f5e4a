//! The program around a step's command, inside the step's Pod.
//!
//! `coracle launch --job JSON -- COMMAND…` brings the artifacts a step reads to where it expects
//! them, runs the command as if it were not there (signals are passed on, the exit code is kept),
//! and hands over what the step wrote: artifacts go to their store, parameters and everything that
//! is known of artifacts into a [`Document`]. The document is the container's termination message
//! where it fits, else it lies in the attempt's folder and the message says where ([`Handover`]).
//!
//! A [`Job`] is made by the pipelines server, which also reads the document; so both ends of the
//! protocol are types of this crate. Entry point: [`main`]. Not in here: what a value means, and
//! which outputs must exist; the server knows that.

mod collect;
mod command;
mod document;
mod inputs;
mod job;
mod paths;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use artifacts::Stores;

pub use document::{Document, Handover, StoredArtifact, without_handover};
pub use job::{Archive, Input, Job, OutputArtifact, OutputParameter, Source};

use self::paths::Paths;

/// Where the volume of the image with this program is mounted.
pub const MOUNT: &str = "/kfp-launcher";
/// The program inside the volume.
pub const PROGRAM: &str = "/kfp-launcher/coracle";
/// The image with this program.
pub const IMAGE: &str = "coracle/launcher";
/// Where a Pod sees the default store.
pub const STORE: &str = "/minio";
/// What the node says of the container's image when its command is a program of a mounted image: a
/// JSON object with `program`, `entrypoint` and `cmd`.
pub const IMAGE_VARIABLE: &str = "CORACLE_IMAGE";

/// Why the launcher itself failed, and the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }

    pub(crate) fn of(error: &artifacts::Error) -> Self {
        Self::new(stdx::error::chain(error))
    }
}

/// Runs the launcher; the result is the step's exit code.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let (job, command) = match parse(args) {
        Ok(parsed) => parsed,
        Err(failure) => return fail(None, &failure),
    };
    let paths = match Paths::from_environment() {
        Ok(paths) => paths,
        Err(message) => return fail(None, &Failure::new(message)),
    };
    let message = paths.real(Path::new(&job.message));
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(
                Some(&message),
                &Failure::new(format!("start the async runtime: {error}")),
            );
        }
    };
    match runtime.block_on(run(&job, command, &paths, &message)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => fail(Some(&message), &failure),
    }
}

fn parse(args: Vec<OsString>) -> Result<(Job, Vec<OsString>), Failure> {
    let usage = |problem: &str| Failure {
        code: 2,
        message: format!("{problem}; usage: coracle launch --job JSON -- COMMAND…"),
    };
    let mut args = args.into_iter();
    if args.next().is_none_or(|word| word != "--job") {
        return Err(usage("expected --job"));
    }
    let job = args.next().unwrap_or_default();
    let job = job.to_str().ok_or_else(|| usage("the job is not UTF-8"))?;
    let job = serde_json::from_str(job)
        .map_err(|error| usage(&format!("the job cannot be read: {error}")))?;
    if args.next().is_none_or(|word| word != "--") {
        return Err(usage("expected -- before the command"));
    }
    Ok((job, args.collect()))
}

async fn run(
    job: &Job,
    command: Vec<OsString>,
    paths: &Paths,
    message: &Path,
) -> Result<u8, Failure> {
    let root = job.local_store.then(|| paths.real(Path::new(STORE)));
    let stores = Stores::new(root, job.providers.clone()).with_files();
    inputs::bring(job, &stores, paths).await?;
    collect::prepare(job, paths);
    let code = command::run(job, command).await?;
    if code != 0 {
        return Ok(code);
    }
    let document = collect::collect(job, &stores, paths).await?;
    collect::hand_over(job, &document, &stores, message).await?;
    Ok(0)
}

/// Says why in the log and in the container's termination message.
fn fail(message: Option<&Path>, failure: &Failure) -> ExitCode {
    drop(writeln!(std::io::stderr(), "coracle launch: {failure}"));
    if let Some(path) = message {
        // The log has it, too.
        drop(document::append(path, &failure.message));
    }
    ExitCode::from(failure.code)
}
