//! Artifacts: what a URI names, where that is, and how it gets there and back.
//!
//! [`Uri`] is a parsed `scheme://bucket/key`; [`Stores`] reads and writes what URIs name. The default
//! store is a folder of this machine, `<root>/<bucket>/<key>` for `minio://bucket/key`, and everything
//! about it is plain files: a step's own folder of the store can be mounted into its Pod, so nothing
//! is copied. Other stores are told by [`Providers`], the settings of a `kfp-launcher` ConfigMap.
//!
//! Contents are streamed; only [`Stores::get`] and [`Stores::put`] hold one in memory, and `get` has a
//! limit. Not in here: who may see what, and when artifacts are made or deleted.

pub mod archive;
mod local;
mod provider;
mod stores;
mod uri;

pub use provider::{Credentials, Location, Provider, Providers, SecretRef, Secrets};
pub use stores::{Reader, Stores};
pub use uri::{Scheme, Uri};

use std::io;

/// What went wrong with an artifact.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A URI makes no sense.
    #[error("artifact URI {uri:?}: {problem}")]
    Uri {
        /// The text.
        uri: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Nothing is there.
    #[error("artifact {0}: there is nothing at this URI")]
    NotFound(Uri),
    /// It is larger than the caller can take.
    #[error("artifact {uri}: {size} bytes are more than the {limit} bytes allowed here")]
    TooLarge {
        /// What.
        uri: Uri,
        /// How large it is.
        size: u64,
        /// How large it may be.
        limit: u64,
    },
    /// No store is known for it.
    #[error("artifact {uri}: {problem}")]
    NoStore {
        /// What.
        uri: Uri,
        /// Why there is none.
        problem: String,
    },
    /// A file could not be read or written.
    #[error("{attempt}")]
    Io {
        /// What was attempted.
        attempt: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempt = attempt.into();
        move |source| Self::Io { attempt, source }
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
