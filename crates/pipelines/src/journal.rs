//! The journal: every run's first entry and its events, append-only, and the epoch that fences off
//! a server that has been replaced.
//!
//! An append names the version it expects; it fails when the run has moved on or when a newer
//! server has opened the journal. Table `run_status` is kept in the same transaction: it is what
//! lists of runs join. Tables: `journal_epoch`, `journal_blob` (plans and Workflows by their hash,
//! so that a thousand runs of one pipeline keep it once), `run_status`, `journal_event`.

use std::collections::BTreeMap;
use std::sync::Arc;

use db::sqlx::{self, Row as _};
use db::{Db, Migration, SqliteConnection, WriteFuture};
use engine::{Event, Plan, RunCreated, RunPhase};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The tables, as the first step of the history of the database they are in.
pub const MIGRATION: Migration = Migration {
    version: 1,
    name: "journal of runs",
    sql: "
        CREATE TABLE journal_epoch (id INTEGER PRIMARY KEY, epoch BIGINT NOT NULL);
        INSERT INTO journal_epoch (id, epoch) VALUES (1, 0);
        CREATE TABLE journal_blob (hash TEXT PRIMARY KEY, body TEXT NOT NULL);
        CREATE TABLE run_status (
            run TEXT PRIMARY KEY,
            workflow TEXT NOT NULL UNIQUE,
            version BIGINT NOT NULL,
            phase TEXT NOT NULL,
            terminating BIGINT NOT NULL,
            message TEXT,
            started_at TEXT NOT NULL,
            finished_at TEXT,
            plan TEXT NOT NULL REFERENCES journal_blob (hash),
            manifest TEXT NOT NULL REFERENCES journal_blob (hash),
            created TEXT NOT NULL
        );
        CREATE INDEX run_unfinished ON run_status (run) WHERE finished_at IS NULL;
        CREATE TABLE journal_event (
            run TEXT NOT NULL REFERENCES run_status (run) ON DELETE CASCADE,
            version BIGINT NOT NULL,
            epoch BIGINT NOT NULL,
            body TEXT NOT NULL,
            PRIMARY KEY (run, version)
        );
    ",
};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error("journal database")]
    Db(#[source] db::Error),
    /// The run has moved on, or a newer server has opened the journal.
    #[error("run {0:?} was changed by another server")]
    Stale(String),
    /// A run with this id exists already.
    #[error("run {0:?} exists already")]
    Exists(String),
    /// An entry cannot be read.
    #[error("journal of run {run:?}: unreadable {what}")]
    Unreadable {
        /// The run.
        run: String,
        /// Which entry.
        what: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// Whether the same append may succeed later.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Db(error) if error.retryable())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the run has moved on")]
struct Moved;

#[derive(Debug, thiserror::Error)]
#[error("the run exists already")]
struct Present;

/// What is known of a run besides its plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The run's id.
    pub run: String,
    /// The name of its Workflow.
    pub workflow: String,
    /// Its name for people.
    pub display_name: String,
    /// The service account of its steps.
    pub service_account: String,
    /// When it was created.
    pub at: Timestamp,
    /// Its parameters.
    pub parameters: BTreeMap<String, Value>,
    /// Facts that its texts may name.
    pub facts: BTreeMap<String, Value>,
}

impl Record {
    /// The engine's first entry for this run.
    pub fn created(&self, plan: Arc<Plan>) -> RunCreated {
        RunCreated {
            run: self.run.clone(),
            at: self.at,
            plan,
            parameters: self.parameters.clone(),
            facts: self.facts.clone(),
        }
    }
}

/// A row of `run_status`, without what never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// How many events the run has seen.
    pub version: u64,
    /// How far it is.
    pub phase: RunPhase,
    /// Whether it was asked to end and has not yet.
    pub terminating: bool,
    /// Why it is how it is.
    pub message: Option<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
}

impl Status {
    /// The status of a run.
    pub fn of(run: &engine::Run) -> Self {
        Self {
            version: run.version(),
            phase: run.phase(),
            terminating: run.terminating(),
            message: run.message().map(str::to_owned),
            started_at: run.started_at(),
            finished_at: run.finished_at(),
        }
    }
}

/// A run as it was recorded.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// What is known of it besides its plan.
    pub record: Arc<Record>,
    /// Its plan.
    pub plan: Arc<Plan>,
    /// Its Workflow as it was compiled.
    pub manifest: Arc<Value>,
    /// Its events.
    pub events: Vec<Event>,
}

/// A job that joins the transaction of an entry.
pub type Also = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> WriteFuture<'c, ()> + Send>;

/// The open journal. Clones share it.
#[derive(Debug, Clone)]
pub struct Journal {
    db: Db,
    epoch: i64,
}

impl Journal {
    /// Opens the journal in a database that has [`MIGRATION`], and fences off whoever had it open.
    pub async fn open(db: Db) -> Result<Self, Error> {
        let bump = "UPDATE journal_epoch SET epoch = epoch + 1 WHERE id = 1 RETURNING epoch";
        let epoch = db
            .write(move |connection| {
                Box::pin(async move {
                    let row = sqlx::query(bump).fetch_one(connection).await?;
                    Ok(row.try_get::<i64, _>(0)?)
                })
            })
            .await
            .map_err(Error::Db)?;
        Ok(Self { db, epoch })
    }

    /// Writes a run's first entry, and `also` with it.
    pub async fn create(
        &self,
        record: &Record,
        plan: &Plan,
        manifest: &Value,
        status: &Status,
        also: Option<Also>,
    ) -> Result<(), Error> {
        let run = record.run.clone();
        let text = |value: serde_json::Result<String>, what: &str| {
            value.map_err(|source| Error::Unreadable {
                run: record.run.clone(),
                what: what.to_owned(),
                source,
            })
        };
        let plan = text(serde_json::to_string(plan), "plan")?;
        let manifest = text(serde_json::to_string(manifest), "manifest")?;
        let created = text(serde_json::to_string(record), "record")?;
        let (plan_hash, manifest_hash) = (hash(&plan), hash(&manifest));
        let workflow = record.workflow.clone();
        let status = status.clone();
        let job = job(move |connection| {
            Box::pin(async move {
                for (hash, body) in [(&plan_hash, &plan), (&manifest_hash, &manifest)] {
                    sqlx::query(
                        "INSERT INTO journal_blob (hash, body) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                    )
                    .bind(hash)
                    .bind(body)
                    .execute(&mut *connection)
                    .await?;
                }
                let inserted = sqlx::query(
                    "INSERT INTO run_status (run, workflow, version, phase, terminating, message,
                         started_at, finished_at, plan, manifest, created)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING",
                )
                .bind(run)
                .bind(workflow)
                .bind(status.version as i64)
                .bind(status.phase.as_str())
                .bind(i64::from(status.terminating))
                .bind(status.message)
                .bind(status.started_at.to_string())
                .bind(status.finished_at.map(|at| at.to_string()))
                .bind(plan_hash)
                .bind(manifest_hash)
                .bind(created)
                .execute(&mut *connection)
                .await?;
                if inserted.rows_affected() == 0 {
                    return Err(db::Error::job(Present));
                }
                match also {
                    Some(also) => also(connection).await,
                    None => Ok(()),
                }
            })
        });
        self.db
            .write(job)
            .await
            .map_err(|error| match error.into_job::<Present>() {
                Ok(Present) => Error::Exists(record.run.clone()),
                Err(other) => Error::Db(other),
            })
    }

    /// Appends events to a run that has seen `expected` of them.
    pub async fn append(
        &self,
        run: &str,
        expected: u64,
        events: &[Event],
        status: &Status,
    ) -> Result<(), Error> {
        let unreadable = |source| Error::Unreadable {
            run: run.to_owned(),
            what: "event".to_owned(),
            source,
        };
        let bodies = events
            .iter()
            .map(serde_json::to_string)
            .collect::<Result<Vec<_>, _>>();
        let bodies = bodies.map_err(unreadable)?;
        let (id, status, epoch) = (run.to_owned(), status.clone(), self.epoch);
        let job = job(move |connection| {
            Box::pin(async move {
                let moved = sqlx::query(
                    "UPDATE run_status SET version = $1, phase = $2, terminating = $3,
                         message = $4, finished_at = $5
                     WHERE run = $6 AND version = $7
                         AND EXISTS (SELECT 1 FROM journal_epoch WHERE epoch = $8)",
                )
                .bind(status.version as i64)
                .bind(status.phase.as_str())
                .bind(i64::from(status.terminating))
                .bind(status.message)
                .bind(status.finished_at.map(|at| at.to_string()))
                .bind(&id)
                .bind(expected as i64)
                .bind(epoch)
                .execute(&mut *connection)
                .await?;
                if moved.rows_affected() == 0 {
                    return Err(db::Error::job(Moved));
                }
                for (version, body) in (expected as i64..).zip(bodies) {
                    sqlx::query(
                        "INSERT INTO journal_event (run, version, epoch, body)
                         VALUES ($1, $2, $3, $4)",
                    )
                    .bind(&id)
                    .bind(version)
                    .bind(epoch)
                    .bind(body)
                    .execute(&mut *connection)
                    .await?;
                }
                Ok(())
            })
        });
        self.db
            .write(job)
            .await
            .map_err(|error| match error.into_job::<Moved>() {
                Ok(Moved) => Error::Stale(run.to_owned()),
                Err(other) => Error::Db(other),
            })
    }

    /// A run as it was recorded, if there is one with this id.
    pub async fn load(&self, run: &str) -> Result<Option<Recorded>, Error> {
        let row = sqlx::query(
            "SELECT s.created, p.body, m.body FROM run_status s
             JOIN journal_blob p ON p.hash = s.plan JOIN journal_blob m ON m.hash = s.manifest
             WHERE s.run = $1",
        )
        .bind(run)
        .fetch_optional(self.db.reader())
        .await
        .map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let text = |index: usize| row.try_get::<String, _>(index).map_err(failed);
        let unreadable = |what: &str, source| Error::Unreadable {
            run: run.to_owned(),
            what: what.to_owned(),
            source,
        };
        let record = serde_json::from_str(&text(0)?).map_err(|e| unreadable("record", e))?;
        let plan = serde_json::from_str(&text(1)?).map_err(|e| unreadable("plan", e))?;
        let manifest = serde_json::from_str(&text(2)?).map_err(|e| unreadable("manifest", e))?;
        let rows = sqlx::query("SELECT body FROM journal_event WHERE run = $1 ORDER BY version")
            .bind(run)
            .fetch_all(self.db.reader())
            .await
            .map_err(failed)?;
        let mut events = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            let body: String = row.try_get(0).map_err(failed)?;
            let event = serde_json::from_str(&body);
            events.push(event.map_err(|e| unreadable(&format!("event {index}"), e))?);
        }
        Ok(Some(Recorded {
            record: Arc::new(record),
            plan: Arc::new(plan),
            manifest: Arc::new(manifest),
            events,
        }))
    }

    /// The name of a run's Workflow and its status.
    pub async fn status(&self, run: &str) -> Result<Option<(String, Status)>, Error> {
        let row = sqlx::query(
            "SELECT workflow, version, phase, terminating, message, started_at, finished_at
             FROM run_status WHERE run = $1",
        )
        .bind(run)
        .fetch_optional(self.db.reader())
        .await
        .map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let status = Status {
            version: row.try_get::<i64, _>(1).map_err(failed)? as u64,
            phase: match row.try_get::<String, _>(2).map_err(failed)?.as_str() {
                "Succeeded" => RunPhase::Succeeded,
                "Failed" => RunPhase::Failed,
                "Error" => RunPhase::Error,
                _ => RunPhase::Running,
            },
            terminating: row.try_get::<i64, _>(3).map_err(failed)? != 0,
            message: row.try_get(4).map_err(failed)?,
            started_at: time(row.try_get(5).map_err(failed)?).unwrap_or(Timestamp::UNIX_EPOCH),
            finished_at: row
                .try_get::<Option<String>, _>(6)
                .map_err(failed)?
                .and_then(time),
        };
        Ok(Some((row.try_get(0).map_err(failed)?, status)))
    }

    /// The runs that are not over.
    pub async fn unfinished(&self) -> Result<Vec<String>, Error> {
        let rows =
            sqlx::query("SELECT run FROM run_status WHERE finished_at IS NULL ORDER BY started_at")
                .fetch_all(self.db.reader())
                .await
                .map_err(failed)?;
        rows.iter()
            .map(|row| row.try_get(0).map_err(failed))
            .collect()
    }

    /// Forgets a run and plans and Workflows that no other run has, and does `also` with it.
    pub async fn delete(&self, run: &str, also: Option<Also>) -> Result<(), Error> {
        let id = run.to_owned();
        let job = job(move |connection| {
            Box::pin(async move {
                let gone =
                    sqlx::query("DELETE FROM run_status WHERE run = $1 RETURNING plan, manifest")
                        .bind(&id)
                        .fetch_optional(&mut *connection)
                        .await?;
                if let Some(row) = gone {
                    for column in 0..2usize {
                        let hash: String = row.try_get(column)?;
                        sqlx::query(
                            "DELETE FROM journal_blob WHERE hash = $1 AND NOT EXISTS
                                 (SELECT 1 FROM run_status WHERE plan = $1 OR manifest = $1)",
                        )
                        .bind(hash)
                        .execute(&mut *connection)
                        .await?;
                    }
                }
                match also {
                    Some(also) => also(connection).await,
                    None => Ok(()),
                }
            })
        });
        self.db.write(job).await.map_err(Error::Db)
    }
}

/// Lets a closure be general over the connection's lifetime.
fn job<F>(job: F) -> F
where
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> WriteFuture<'c, ()> + Send,
{
    job
}

fn failed(error: sqlx::Error) -> Error {
    Error::Db(error.into())
}

fn time(text: String) -> Option<Timestamp> {
    text.parse().ok()
}

fn hash(text: &str) -> String {
    Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
