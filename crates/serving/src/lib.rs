//! The program behind the `tensorflow/serving` image: it serves the newest version of a SavedModel
//! over TensorFlow Serving's gRPC and REST protocols and follows the versions that appear in its
//! base path.
//!
//! Entries: [`main`] runs the whole program from its arguments; [`Server::start`] runs it inside a
//! process that has a runtime and a supervisor already. The parts carry TensorFlow Serving's names:
//! the *source* polls the base path for *aspired versions*, the *manager* loads and unloads
//! *servables*, the edges translate. Invariant: a version is unloaded only after a newer one
//! answers, and a request keeps the version it started with.
//!
//! Absent: the model's format and arithmetic (crate `model`), batching across requests, several
//! models in one server, and the Classify, Regress and MultiInference methods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use stdx::{SharedClock, Supervisor};

mod options;

mod manager;
mod source;

mod predict;
mod status;

mod grpc;
mod json;
mod rest;
mod server;

pub use options::{Options, UsageError};
pub use server::{Error, Server};

/// The generated types, clients and servers of the wire protocol (`proto/`, written by
/// `cargo xtask codegen`).
pub mod proto {
    #![expect(
        clippy::pedantic,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )]
    include!("generated/tensorflow.serving.rs");
}

/// Everything that the program gets from outside besides its arguments.
pub struct Host<'a> {
    /// The environment; `MODEL_NAME` and `MODEL_BASE_PATH` are read.
    pub env: &'a BTreeMap<String, String>,
    /// Maps a path of the program's view to one of the host's; `Path::to_path_buf` where both
    /// are one.
    pub resolve: &'a dyn Fn(&Path) -> PathBuf,
    /// The address to listen on: the Pod's.
    pub bind: IpAddr,
    /// Paces the polling.
    pub clock: SharedClock,
}

impl std::fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("bind", &self.bind)
            .finish_non_exhaustive()
    }
}

/// Exit code of a server that could not start or broke down.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of arguments that make no sense.
pub const EXIT_USAGE: u8 = 2;

/// Runs the program until SIGTERM or SIGINT; `args` are the container's arguments, with or without
/// the program's name in front. Must not be called from inside a runtime.
pub fn main(args: &[String], host: &Host<'_>) -> ExitCode {
    let mut options = match Options::parse(args, host.env) {
        Ok(options) => options,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    options.bind = host.bind;
    options.model_base_path = (host.resolve)(&options.model_base_path);
    // Two threads: one request is one thread's work, and big batches use rayon's.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(serve(options, Arc::clone(&host.clock))),
        Err(source) => Err(Error::Runtime { source }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", stdx::error::chain(&error));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Serves until a signal asks to stop or a listener breaks down.
async fn serve(options: Options, clock: SharedClock) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let hook = |source| Error::Runtime { source };
    let mut terminate = signal(SignalKind::terminate()).map_err(hook)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(hook)?;
    let supervisor = Supervisor::new();
    let server = Server::start(options, clock, &supervisor).await?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("got SIGTERM, finishing requests"),
        _ = interrupt.recv() => tracing::info!("got SIGINT, finishing requests"),
        () = supervisor.cancelled() => {}
    }
    supervisor.shutdown().await;
    server.outcome()
}
