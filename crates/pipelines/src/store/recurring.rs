//! Recurring runs as they were asked for, and how far they have fired.
//!
//! A firing moves `fired` and `last` on in the transaction that makes its run, if they still are
//! what the firing was decided on: so no firing makes two runs, and none is lost.

use db::sqlx::sqlite::SqliteRow;
use db::sqlx::{self, Row as _};
use db::{Db, Migration, SqliteConnection, WriteFuture};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::page::{Field, Index, Kind, Listing, Page, Request};
use super::{Error, Result};
use crate::journal::Also;
use crate::recurring::schedule::{Schedule, Trigger};

/// The table.
pub(crate) const MIGRATION: Migration = Migration {
    version: 20,
    name: "recurring runs",
    sql: "
        CREATE TABLE recurring_run (
            id TEXT PRIMARY KEY,
            resource TEXT NOT NULL,
            name TEXT NOT NULL,
            namespace TEXT NOT NULL,
            description TEXT NOT NULL,
            experiment TEXT NOT NULL,
            pipeline TEXT,
            version TEXT,
            spec TEXT,
            parameters TEXT NOT NULL,
            pipeline_root TEXT NOT NULL,
            service_account TEXT NOT NULL,
            plugins TEXT NOT NULL,
            schedule TEXT NOT NULL,
            catchup BIGINT NOT NULL,
            max_concurrency BIGINT NOT NULL,
            enabled BIGINT NOT NULL,
            created_at BIGINT NOT NULL,
            updated_at BIGINT NOT NULL,
            since BIGINT NOT NULL,
            last BIGINT,
            fired BIGINT NOT NULL,
            error TEXT NOT NULL
        );
        CREATE INDEX recurring_created ON recurring_run (created_at, id);
        CREATE INDEX recurring_experiment_created ON recurring_run (experiment, created_at, id);
        CREATE INDEX recurring_enabled ON recurring_run (id) WHERE enabled = 1;
        CREATE INDEX run_recurring_active ON run_record (recurring_run, id)
            WHERE finished_at = 0 AND recurring_run <> '';
    ",
};

/// A recurring run. Times are microseconds since 1970.
#[derive(Debug, Clone)]
pub(crate) struct RecurringRun {
    pub(crate) id: String,
    /// What its runs are called after.
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) description: String,
    pub(crate) experiment: String,
    pub(crate) pipeline: Option<String>,
    /// None for the newest version at each firing.
    pub(crate) version: Option<String>,
    /// A package that was given whole, as JSON text.
    pub(crate) spec: Option<String>,
    /// `[{name, value}]`.
    pub(crate) parameters: Value,
    pub(crate) pipeline_root: String,
    pub(crate) service_account: String,
    pub(crate) plugins: Map<String, Value>,
    pub(crate) trigger: Trigger,
    pub(crate) catchup: bool,
    pub(crate) max_concurrency: u32,
    pub(crate) enabled: bool,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
    /// When its trigger was set.
    pub(crate) since: i64,
    /// The nominal time of its last firing, in seconds.
    pub(crate) last: Option<i64>,
    /// How often it has fired.
    pub(crate) fired: u64,
    /// Why the firing that is due makes no run; empty if nothing is wrong.
    pub(crate) error: String,
}

impl RecurringRun {
    /// What its firings follow from.
    pub(crate) fn schedule(&self) -> Schedule {
        Schedule {
            trigger: self.trigger.clone(),
            catchup: self.catchup,
            max_concurrency: self.max_concurrency,
            enabled: self.enabled,
            since: Timestamp::from_microsecond(self.since).unwrap_or_default(),
            last: self.last.and_then(|at| Timestamp::from_second(at).ok()),
        }
    }

    /// The given parameters.
    pub(crate) fn parameters(&self) -> Vec<(String, Value)> {
        self.parameters
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|p| Some((p.get("name")?.as_str()?.to_owned(), p.get("value")?.clone())))
            .collect()
    }
}

/// The next firing of a recurring run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Firing {
    /// Whose.
    pub(crate) recurring_run: String,
    /// Its nominal time.
    pub(crate) at: Timestamp,
    /// Its number, from 1.
    pub(crate) index: u64,
}

/// Somebody else has fired it, or it was changed, disabled or deleted meanwhile.
#[derive(Debug, thiserror::Error)]
#[error("the recurring run has changed")]
pub(crate) struct Changed;

const fn text(names: &'static [&'static str], sql: &'static str) -> Field {
    let kind = Kind::Text;
    Field { names, sql, kind }
}

const fn time(names: &'static [&'static str], sql: &'static str) -> Field {
    let kind = Kind::Time;
    Field { names, sql, kind }
}

const LISTING: Listing = Listing {
    noun: "recurring run",
    table: "recurring_run",
    fields: &[
        text(&["name", "display_name"], "name"),
        text(&["id", "recurring_run_id", "job_id"], "id"),
        time(&["created_at"], "created_at"),
        time(&["updated_at"], "updated_at"),
        text(&["description"], "description"),
        text(&["namespace"], "namespace"),
        text(&["experiment_id"], "experiment"),
        text(&["pipeline_id"], "coalesce(pipeline, '')"),
        text(&["pipeline_version_id"], "coalesce(version, '')"),
        text(&["service_account"], "service_account"),
        Field {
            names: &["status", "mode", "enabled"],
            sql: "enabled",
            kind: Kind::Names(&[
                ("ENABLED", 1),
                ("ENABLE", 1),
                ("true", 1),
                ("DISABLED", 0),
                ("DISABLE", 0),
                ("false", 0),
            ]),
        },
    ],
    indexes: &[
        Index {
            name: "recurring_created",
            equal: &[],
            order: "created_at",
        },
        Index {
            name: "recurring_experiment_created",
            equal: &["experiment"],
            order: "created_at",
        },
    ],
    ..Listing::PLAIN
};

fn recurring_run(row: &SqliteRow) -> sqlx::Result<RecurringRun> {
    let json = |column: &str| -> sqlx::Result<String> { row.try_get(column) };
    let flag = |column: &str| -> sqlx::Result<bool> { Ok(row.try_get::<i64, _>(column)? != 0) };
    let trigger = serde_json::from_str(&json("schedule")?)
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(RecurringRun {
        id: row.try_get("id")?,
        resource: row.try_get("resource")?,
        name: row.try_get("name")?,
        namespace: row.try_get("namespace")?,
        description: row.try_get("description")?,
        experiment: row.try_get("experiment")?,
        pipeline: row.try_get("pipeline")?,
        version: row.try_get("version")?,
        spec: row.try_get("spec")?,
        parameters: serde_json::from_str(&json("parameters")?).unwrap_or_default(),
        pipeline_root: row.try_get("pipeline_root")?,
        service_account: row.try_get("service_account")?,
        plugins: serde_json::from_str(&json("plugins")?).unwrap_or_default(),
        trigger,
        catchup: flag("catchup")?,
        max_concurrency: row.try_get::<i64, _>("max_concurrency")? as u32,
        enabled: flag("enabled")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        since: row.try_get("since")?,
        last: row.try_get("last")?,
        fired: row.try_get::<i64, _>("fired")? as u64,
        error: row.try_get("error")?,
    })
}

fn stored(trigger: &Trigger) -> String {
    serde_json::to_string(trigger).expect("invariant: a trigger is plain data")
}

pub(crate) async fn create(db: &Db, new: RecurringRun) -> Result<()> {
    db.write(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            sqlx::query(
                "INSERT INTO recurring_run (id, resource, name, namespace, description, experiment,
                     pipeline, version, spec, parameters, pipeline_root, service_account, plugins,
                     schedule, catchup, max_concurrency, enabled, created_at, updated_at, since,
                     last, fired, error)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                     $17, $18, $19, $20, NULL, 0, '')",
            )
            .bind(new.id)
            .bind(new.resource)
            .bind(new.name)
            .bind(new.namespace)
            .bind(new.description)
            .bind(new.experiment)
            .bind(new.pipeline)
            .bind(new.version)
            .bind(new.spec)
            .bind(new.parameters.to_string())
            .bind(new.pipeline_root)
            .bind(new.service_account)
            .bind(Value::Object(new.plugins).to_string())
            .bind(stored(&new.trigger))
            .bind(i64::from(new.catchup))
            .bind(i64::from(new.max_concurrency))
            .bind(i64::from(new.enabled))
            .bind(new.created_at)
            .bind(new.updated_at)
            .bind(new.since)
            .execute(tx)
            .await?;
            Ok(())
        })
    })
    .await
    .map_err(Error::of_job)
}

/// Writes what somebody changed; how far it has fired stays as it is.
pub(crate) async fn update(db: &Db, new: RecurringRun) -> Result<()> {
    db.write(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            let changed = sqlx::query(
                "UPDATE recurring_run SET name = $2, description = $3, experiment = $4,
                     pipeline = $5, version = $6, spec = $7, parameters = $8, pipeline_root = $9,
                     service_account = $10, plugins = $11, schedule = $12, catchup = $13,
                     max_concurrency = $14, enabled = $15, updated_at = $16, since = $17, error = ''
                 WHERE id = $1",
            )
            .bind(&new.id)
            .bind(new.name)
            .bind(new.description)
            .bind(new.experiment)
            .bind(new.pipeline)
            .bind(new.version)
            .bind(new.spec)
            .bind(new.parameters.to_string())
            .bind(new.pipeline_root)
            .bind(new.service_account)
            .bind(Value::Object(new.plugins).to_string())
            .bind(stored(&new.trigger))
            .bind(i64::from(new.catchup))
            .bind(i64::from(new.max_concurrency))
            .bind(i64::from(new.enabled))
            .bind(new.updated_at)
            .bind(new.since)
            .execute(tx)
            .await?;
            found(changed.rows_affected(), &new.id)
        })
    })
    .await
    .map_err(Error::of_job)
}

fn found(rows: u64, id: &str) -> std::result::Result<(), db::Error> {
    if rows == 0 {
        return Err(db::Error::job(Error::not_found("RecurringRun", id)));
    }
    Ok(())
}

pub(crate) async fn get(db: &Db, id: &str) -> Result<RecurringRun> {
    let row = sqlx::query("SELECT * FROM recurring_run WHERE id = $1")
        .bind(id)
        .fetch_optional(db.reader())
        .await?;
    row.map(|row| recurring_run(&row))
        .transpose()?
        .ok_or_else(|| Error::not_found("RecurringRun", id))
}

pub(crate) async fn list(
    db: &Db,
    experiment: Option<&str>,
    request: &Request,
) -> Result<(Vec<RecurringRun>, Page)> {
    let mut scopes = super::namespace("namespace", request);
    scopes.extend(experiment.map(|id| ("experiment", id.to_owned())));
    let page = LISTING.page(db.reader(), request, &scopes).await?;
    let found = page
        .rows
        .iter()
        .map(recurring_run)
        .collect::<sqlx::Result<_>>()?;
    Ok((found, page))
}

pub(crate) async fn enable(db: &Db, id: &str, enabled: bool, now: i64) -> Result<()> {
    let id = id.to_owned();
    db.write(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            let changed =
                sqlx::query("UPDATE recurring_run SET enabled = $1, updated_at = $2 WHERE id = $3")
                    .bind(i64::from(enabled))
                    .bind(now)
                    .bind(&id)
                    .execute(tx)
                    .await?;
            found(changed.rows_affected(), &id)
        })
    })
    .await
    .map_err(Error::of_job)
}

/// Disables those of an experiment, as part of what puts the experiment away.
pub(crate) async fn disable_of_experiment(
    tx: &mut SqliteConnection,
    experiment: &str,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE recurring_run SET enabled = 0 WHERE experiment = $1 AND enabled = 1")
        .bind(experiment)
        .execute(tx)
        .await?;
    Ok(())
}

/// Deletes one; its runs stay.
pub(crate) async fn delete(db: &Db, id: &str) -> Result<()> {
    let id = id.to_owned();
    db.write(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            let gone = sqlx::query("DELETE FROM recurring_run WHERE id = $1")
                .bind(&id)
                .execute(tx)
                .await?;
            found(gone.rows_affected(), &id)
        })
    })
    .await
    .map_err(Error::of_job)
}

/// The enabled ones, with how often each has fired.
pub(crate) async fn enabled(db: &Db) -> Result<Vec<(String, Schedule, u64)>> {
    let rows = sqlx::query("SELECT * FROM recurring_run WHERE enabled = 1 ORDER BY id")
        .fetch_all(db.reader())
        .await?;
    rows.iter()
        .map(|row| {
            let one = recurring_run(row)?;
            let schedule = one.schedule();
            Ok((one.id, schedule, one.fired))
        })
        .collect()
}

/// The runs of one that are not over.
pub(crate) async fn active(db: &Db, id: &str) -> Result<Vec<String>> {
    let runs = sqlx::query_scalar(
        "SELECT id FROM run_record
         WHERE recurring_run = $1 AND finished_at = 0 AND recurring_run <> ''",
    )
    .bind(id)
    .fetch_all(db.reader())
    .await?;
    Ok(runs)
}

/// The write that joins the first journal entry of a firing's run.
pub(crate) fn fire(firing: Firing, record: Also) -> Also {
    Box::new(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            let moved = sqlx::query(
                "UPDATE recurring_run SET fired = $1, last = $2, error = ''
                 WHERE id = $3 AND fired = $1 - 1 AND coalesce(last < $2, 1) AND enabled = 1",
            )
            .bind(firing.index as i64)
            .bind(firing.at.as_second())
            .bind(firing.recurring_run)
            .execute(&mut *tx)
            .await?;
            if moved.rows_affected() == 0 {
                return Err(db::Error::job(Changed));
            }
            record(tx).await
        })
    })
}

/// Notes why a firing makes no run.
pub(crate) async fn fail(db: &Db, id: &str, why: String) -> Result<()> {
    let id = id.to_owned();
    db.write(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            sqlx::query("UPDATE recurring_run SET error = $1 WHERE id = $2")
                .bind(why)
                .bind(id)
                .execute(tx)
                .await?;
            Ok(())
        })
    })
    .await
    .map_err(Error::of_job)
}
