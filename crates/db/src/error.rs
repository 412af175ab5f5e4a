//! What can go wrong with a database, as its users tell it apart.

use std::path::PathBuf;

/// An error of a database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be opened or created.
    #[error("open database {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// Another process holds the file.
    #[error("database {path} is in use by another process")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer program.
    #[error("database {path} has version {found}, this program knows up to {known}")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// A migration failed; the file is as it was.
    #[error("migrate database to version {version} ({name})")]
    Migrate {
        /// The version that was to be reached.
        version: i64,
        /// What the migration is called.
        name: &'static str,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// A statement failed; its job was rolled back.
    #[error("database statement failed")]
    Statement(#[from] sqlx::Error),
    /// The commit that carried the job failed; nothing of it was written.
    #[error("database commit failed: {0}")]
    Commit(String),
    /// The disk is full; nothing was written.
    #[error("no space left on the disk for the database")]
    DiskFull,
    /// The database was closed while the job waited.
    #[error("database is closed")]
    Closed,
    /// The job itself declined; it was rolled back.
    #[error("{0}")]
    Job(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Wraps an error of the caller's own, to pass through [`crate::Db::write`].
    pub fn job(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Job(Box::new(error))
    }

    /// The caller's own error, if this is one of type `E`.
    pub fn into_job<E: std::error::Error + Send + Sync + 'static>(self) -> Result<E, Self> {
        match self {
            Self::Job(inner) => inner.downcast::<E>().map(|e| *e).map_err(Self::Job),
            other => Err(other),
        }
    }

    /// Whether the same write may succeed later without any change.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::DiskFull | Self::Commit(_))
    }

    /// Names the disk being full apart from other failures (SQLITE_FULL, primary code 13).
    pub(crate) fn of_statement(error: sqlx::Error) -> Self {
        let full = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .is_some_and(|code| code == "13");
        if full {
            Self::DiskFull
        } else {
            Self::Statement(error)
        }
    }
}
