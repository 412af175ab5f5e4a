//! What the API keeps beside the journal: experiments, pipelines, their versions, and the records of
//! runs. Every query of these tables is here; each write is one job of the database's writer.

pub(crate) mod experiments;
pub(crate) mod page;
pub(crate) mod pipelines;
pub(crate) mod recurring;
pub(crate) mod retention;
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

/// What v2beta1 shows, and what lists of a million runs need: the state of a run beside its record,
/// kept by triggers in the transaction of each journal entry, and counters instead of counting.
pub(crate) const MIGRATION_LISTS: Migration = Migration {
    version: 3,
    name: "states, tags, metrics and counters",
    sql: "
        ALTER TABLE pipeline ADD COLUMN display_name TEXT NOT NULL DEFAULT '';
        ALTER TABLE pipeline ADD COLUMN tags TEXT NOT NULL DEFAULT '{}';
        UPDATE pipeline SET display_name = name;
        ALTER TABLE pipeline_version ADD COLUMN display_name TEXT NOT NULL DEFAULT '';
        ALTER TABLE pipeline_version ADD COLUMN tags TEXT NOT NULL DEFAULT '{}';
        UPDATE pipeline_version SET display_name = name;
        ALTER TABLE run_record RENAME TO run_record_before;
        DROP INDEX run_created;
        DROP INDEX run_of_experiment;
        CREATE TABLE run_record (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            namespace TEXT NOT NULL,
            description TEXT NOT NULL,
            experiment TEXT NOT NULL,
            pipeline TEXT,
            version TEXT,
            recurring_run TEXT NOT NULL,
            service_account TEXT NOT NULL,
            parameters TEXT NOT NULL,
            pipeline_root TEXT NOT NULL,
            plugins TEXT NOT NULL,
            created_at BIGINT NOT NULL,
            scheduled_at BIGINT NOT NULL,
            finished_at BIGINT NOT NULL,
            state TEXT NOT NULL,
            archived BIGINT NOT NULL
        );
        CREATE TABLE run_history (run TEXT NOT NULL, at BIGINT NOT NULL, state TEXT NOT NULL);
        CREATE INDEX history_of_run ON run_history (run, at);
        CREATE TABLE run_count (
            experiment TEXT NOT NULL,
            archived BIGINT NOT NULL,
            state TEXT NOT NULL,
            n BIGINT NOT NULL,
            PRIMARY KEY (experiment, archived, state)
        ) WITHOUT ROWID;
        CREATE TABLE run_metric (
            run TEXT NOT NULL,
            node TEXT NOT NULL,
            name TEXT NOT NULL,
            value DOUBLE PRECISION NOT NULL,
            format TEXT NOT NULL,
            PRIMARY KEY (run, node, name)
        ) WITHOUT ROWID;

        CREATE TRIGGER run_inserted AFTER INSERT ON run_record BEGIN
            INSERT INTO run_history (run, at, state)
                VALUES (new.id, CASE WHEN new.finished_at > 0 THEN new.finished_at
                    ELSE new.created_at END, new.state);
            INSERT INTO run_count VALUES (new.experiment, new.archived, new.state, 1)
                ON CONFLICT DO UPDATE SET n = n + 1;
            INSERT INTO run_count VALUES ('', new.archived, new.state, 1)
                ON CONFLICT DO UPDATE SET n = n + 1;
        END;
        CREATE TRIGGER run_deleted AFTER DELETE ON run_record BEGIN
            DELETE FROM run_history WHERE run = old.id;
            DELETE FROM run_metric WHERE run = old.id;
            UPDATE run_count SET n = n - 1 WHERE experiment IN ('', old.experiment)
                AND archived = old.archived AND state = old.state;
        END;
        CREATE TRIGGER run_moved AFTER UPDATE OF archived, state, experiment ON run_record
            WHEN (new.archived, new.state, new.experiment)
                IS NOT (old.archived, old.state, old.experiment)
        BEGIN
            UPDATE run_count SET n = n - 1 WHERE experiment IN ('', old.experiment)
                AND archived = old.archived AND state = old.state;
            INSERT INTO run_count VALUES (new.experiment, new.archived, new.state, 1)
                ON CONFLICT DO UPDATE SET n = n + 1;
            INSERT INTO run_count VALUES ('', new.archived, new.state, 1)
                ON CONFLICT DO UPDATE SET n = n + 1;
        END;
        CREATE TRIGGER run_state_changed AFTER UPDATE OF state ON run_record
            WHEN new.state IS NOT old.state
        BEGIN
            INSERT INTO run_history (run, at, state)
                VALUES (new.id, CASE WHEN new.finished_at > 0 THEN new.finished_at
                    ELSE CAST(unixepoch('now', 'subsec') * 1000000 AS INTEGER) END, new.state);
        END;
        CREATE TRIGGER run_status_changed AFTER UPDATE ON run_status
            WHEN (new.phase, new.terminating, new.finished_at)
                IS NOT (old.phase, old.terminating, old.finished_at)
                OR (SELECT state FROM run_record WHERE id = new.run) = 'PENDING'
        BEGIN
            UPDATE run_record SET
                finished_at = coalesce(
                    CAST(unixepoch(new.finished_at, 'subsec') * 1000000 AS INTEGER), 0),
                state = CASE
                    WHEN new.phase = 'Succeeded' THEN 'SUCCEEDED'
                    WHEN new.phase IN ('Failed', 'Error') THEN 'FAILED'
                    WHEN new.terminating <> 0 THEN 'CANCELING'
                    ELSE 'RUNNING' END
            WHERE id = new.run;
        END;

        INSERT INTO run_record
            SELECT r.id, r.name, r.namespace, r.description, r.experiment, r.pipeline, r.version,
                '', r.service_account, r.parameters, '', '{}', r.created_at, r.created_at,
                coalesce(CAST(unixepoch(s.finished_at, 'subsec') * 1000000 AS INTEGER), 0),
                CASE
                    WHEN s.phase = 'Succeeded' THEN 'SUCCEEDED'
                    WHEN s.phase IN ('Failed', 'Error') THEN 'FAILED'
                    WHEN s.terminating <> 0 THEN 'CANCELING'
                    ELSE 'RUNNING' END,
                r.archived
            FROM run_record_before r JOIN run_status s ON s.run = r.id;
        DROP TABLE run_record_before;
        CREATE INDEX run_created ON run_record (created_at, id);
        CREATE INDEX run_finished ON run_record (finished_at, id);
        CREATE INDEX run_named ON run_record (name, id);
        CREATE INDEX run_named_created ON run_record (name, created_at, id);
        CREATE INDEX run_archived_created ON run_record (archived, created_at, id);
        CREATE INDEX run_archived_named ON run_record (archived, name, id);
        CREATE INDEX run_state_created ON run_record (state, created_at, id);
        CREATE INDEX run_experiment_created ON run_record (experiment, created_at, id);
        CREATE INDEX run_experiment_archived_created
            ON run_record (experiment, archived, created_at, id);
        CREATE INDEX run_recurring_created ON run_record (recurring_run, created_at, id);
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

/// The scope of a list that names a namespace.
pub(crate) fn namespace(column: &'static str, request: &page::Request) -> Vec<page::Scope> {
    match request.namespace.as_str() {
        "" => Vec::new(),
        namespace => vec![(column, namespace.to_owned())],
    }
}
