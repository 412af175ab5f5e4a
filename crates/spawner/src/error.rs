//! The client's error.

use std::io;
use std::path::PathBuf;

use crate::spec::StartError;

/// What went wrong between a caller and its containers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error("open data directory {}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The spawner process did not come up.
    #[error("start spawner process: {reason}")]
    Start {
        /// What it said, or how it ended.
        reason: String,
    },
    /// The spawner cannot be spoken to.
    #[error("talk to spawner: {what}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The spawner answered something unexpected.
    #[error("spawner answered: {0}")]
    Protocol(String),
    /// The container or exec did not start; the Display of the inner error is for the user.
    #[error("{0}")]
    NotStarted(StartError),
    /// The container does not run (any more).
    #[error("container {0} is not running")]
    NotRunning(String),
    /// A signal could not be sent.
    #[error("signal container {id}")]
    Signal {
        /// The container.
        id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether the same request may succeed a moment later.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Start { .. })
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
