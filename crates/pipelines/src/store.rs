//! What the API keeps beside the journal: experiments, pipelines, their versions, and the records of
//! runs. Every query of these tables is here; each write is one job of the database's writer.

pub(crate) mod experiments;
pub(crate) mod page;
pub(crate) mod pipelines;
pub(crate) mod runs;

use db::Migration;
use db::sqlx;

/// The tables, after the journal's.
pub(crate) const MIGRATION: Migration = Migration {
    version: 2,
    name: "experiments, pipelines, runs",
    sql: "
        CREATE TABLE experiment (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            namespace TEXT NOT NULL,
            description TEXT NOT NULL,
            created_at BIGINT NOT NULL,
            last_run_created_at BIGINT NOT NULL,
            archived BIGINT NOT NULL,
            UNIQUE (namespace, name)
        );
        CREATE INDEX experiment_created ON experiment (created_at, id);
        CREATE TABLE pipeline (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            namespace TEXT NOT NULL,
            description TEXT NOT NULL,
            created_at BIGINT NOT NULL,
            default_version TEXT,
            UNIQUE (namespace, name)
        );
        CREATE INDEX pipeline_created ON pipeline (created_at, id);
        CREATE TABLE pipeline_spec (hash TEXT PRIMARY KEY, body TEXT NOT NULL);
        CREATE TABLE pipeline_version (
            id TEXT PRIMARY KEY,
            pipeline TEXT NOT NULL REFERENCES pipeline (id) ON DELETE CASCADE,
            name TEXT NOT NULL,
            description TEXT NOT NULL,
            code_source_url TEXT NOT NULL,
            created_at BIGINT NOT NULL,
            spec TEXT NOT NULL REFERENCES pipeline_spec (hash),
            parameters TEXT NOT NULL,
            UNIQUE (pipeline, name)
        );
        CREATE INDEX version_created ON pipeline_version (pipeline, created_at, id);
        CREATE TABLE run_record (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            namespace TEXT NOT NULL,
            description TEXT NOT NULL,
            experiment TEXT NOT NULL REFERENCES experiment (id),
            pipeline TEXT,
            version TEXT,
            service_account TEXT NOT NULL,
            parameters TEXT NOT NULL,
            created_at BIGINT NOT NULL,
            archived BIGINT NOT NULL
        );
        CREATE INDEX run_created ON run_record (created_at, id);
        CREATE INDEX run_of_experiment ON run_record (experiment, created_at, id);
    ",
};

/// What went wrong, as the API tells it apart.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such thing.
    #[error("{kind} {id} not found")]
    NotFound {
        /// What was looked for.
        kind: &'static str,
        /// Its id or name.
        id: String,
    },
    /// The name is taken.
    #[error("{kind} {name:?} exists already; please choose another name")]
    Exists {
        /// What was to be made.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It is still used or otherwise not in a state for this.
    #[error("{0}")]
    State(String),
    /// The request's page token, order or filter makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The database failed.
    #[error("read or write the pipelines database")]
    Db(#[source] db::Error),
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

impl Error {
    pub(crate) fn not_found(kind: &'static str, id: &str) -> Self {
        Self::NotFound {
            kind,
            id: id.to_owned(),
        }
    }

    /// Unwraps an error of this kind that a database job returned.
    pub(crate) fn of_job(error: db::Error) -> Self {
        error.into_job::<Self>().unwrap_or_else(Self::Db)
    }
}

/// Whether an insert failed because the name is taken.
pub(crate) fn is_taken(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}
