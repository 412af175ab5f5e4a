//! Records of runs: what the API knows of a run beyond its journal. The state in a record follows
//! the journal through triggers, in the transaction of the entry (see [`super::MIGRATION_LISTS`]).

use db::sqlx::sqlite::SqliteRow;
use db::sqlx::{self, Row as _};
use db::{Db, WriteFuture};
use serde_json::{Map, Value};

use super::experiments::STORAGE_STATES;
use super::page::{Counter, Counts, Current, Field, Index, Kind, Listing, Page, Request};
use super::{Error, Result};
use crate::journal::Also;

/// A run as it was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) description: String,
    pub(crate) experiment: String,
    pub(crate) pipeline: Option<String>,
    pub(crate) version: Option<String>,
    /// Empty for a run that somebody started.
    pub(crate) recurring_run: String,
    pub(crate) service_account: String,
    /// `[{name, value}]`; values are texts in v1 and anything in v2.
    pub(crate) parameters: Value,
    pub(crate) pipeline_root: String,
    /// What plugins were given, by their names.
    pub(crate) plugins: Map<String, Value>,
    pub(crate) created_at: i64,
    pub(crate) scheduled_at: i64,
}

/// A run with its state and the names of what it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) new: NewRecord,
    pub(crate) archived: bool,
    pub(crate) experiment_name: Option<String>,
    pub(crate) pipeline_name: Option<String>,
    pub(crate) version_name: Option<String>,
    /// By v2beta1's names.
    pub(crate) state: String,
    pub(crate) message: Option<String>,
    /// 0 while it is not over.
    pub(crate) finished_at: i64,
    /// The package as it was compiled, as JSON text.
    pub(crate) manifest: String,
}

/// A metric that a run has reported.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Metric {
    pub(crate) run: String,
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) format: String,
}

const JOINS: &str = " LEFT JOIN run_status s ON s.run = r.id
    LEFT JOIN experiment e ON e.id = r.experiment LEFT JOIN pipeline p ON p.id = r.pipeline
    LEFT JOIN pipeline_version v ON v.id = r.version
    LEFT JOIN journal_blob m ON m.hash = s.manifest";
const COLUMNS: &str = "r.*, s.message, e.name AS experiment_name, p.name AS pipeline_name,
    v.name AS version_name, m.body AS manifest";

const fn text(names: &'static [&'static str], sql: &'static str) -> Field {
    Field {
        names,
        sql,
        kind: Kind::Text,
    }
}

const fn time(names: &'static [&'static str], sql: &'static str) -> Field {
    Field {
        names,
        sql,
        kind: Kind::Time,
    }
}

const fn index(name: &'static str, equal: &'static [&'static str], order: &'static str) -> Index {
    Index { name, equal, order }
}

const LISTING: Listing = Listing {
    noun: "run",
    table: "run_record r",
    columns: COLUMNS,
    joins: JOINS,
    id: "r.id",
    fields: &[
        text(&["name", "display_name"], "r.name"),
        text(&["id", "run_id"], "r.id"),
        time(&["created_at"], "r.created_at"),
        time(&["finished_at"], "r.finished_at"),
        time(&["scheduled_at"], "r.scheduled_at"),
        text(&["description"], "r.description"),
        Field {
            names: &["storage_state"],
            sql: "r.archived",
            kind: STORAGE_STATES,
        },
        Field {
            names: &["status", "state", "state_history"],
            sql: "r.state",
            kind: Kind::State,
        },
        text(&["namespace"], "r.namespace"),
        text(&["experiment_id"], "r.experiment"),
        text(&["recurring_run_id"], "r.recurring_run"),
        text(&["pipeline_version_id"], "coalesce(r.version, '')"),
        text(&["service_account"], "r.service_account"),
        // What the original stores of a run's tasks; the order by it is the order by run.
        text(&["runtime_details"], "r.id"),
    ],
    tags: None,
    metric: Some(
        "coalesce((SELECT max(value) FROM run_metric WHERE run = r.id AND name = ?), -1.7e308)",
    ),
    indexes: &[
        index("run_created", &[], "r.created_at"),
        index("run_finished", &[], "r.finished_at"),
        index("run_named", &[], "r.name"),
        index("run_named_created", &["r.name"], "r.created_at"),
        index("run_archived_created", &["r.archived"], "r.created_at"),
        index("run_archived_named", &["r.archived"], "r.name"),
        index("run_state_created", &["r.state"], "r.created_at"),
        index("run_experiment_created", &["r.experiment"], "r.created_at"),
        index(
            "run_experiment_archived_created",
            &["r.experiment", "r.archived"],
            "r.created_at",
        ),
        index(
            "run_recurring_created",
            &["r.recurring_run"],
            "r.created_at",
        ),
    ],
    searched: Some(("r.name", "run_named")),
    counter: Some(Counter {
        table: "run_count r",
        columns: &["r.experiment", "r.archived", "r.state"],
        scope: "r.experiment",
    }),
};

fn record(row: &SqliteRow) -> sqlx::Result<Record> {
    let json = |column: &str| -> sqlx::Result<String> { row.try_get(column) };
    Ok(Record {
        new: NewRecord {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            namespace: row.try_get("namespace")?,
            description: row.try_get("description")?,
            experiment: row.try_get("experiment")?,
            pipeline: row.try_get("pipeline")?,
            version: row.try_get("version")?,
            recurring_run: row.try_get("recurring_run")?,
            service_account: row.try_get("service_account")?,
            parameters: serde_json::from_str(&json("parameters")?).unwrap_or_default(),
            pipeline_root: row.try_get("pipeline_root")?,
            plugins: serde_json::from_str(&json("plugins")?).unwrap_or_default(),
            created_at: row.try_get("created_at")?,
            scheduled_at: row.try_get("scheduled_at")?,
        },
        archived: row.try_get::<i64, _>("archived")? != 0,
        experiment_name: row.try_get("experiment_name")?,
        pipeline_name: row.try_get("pipeline_name")?,
        version_name: row.try_get("version_name")?,
        state: row.try_get("state")?,
        message: row.try_get("message")?,
        finished_at: row.try_get("finished_at")?,
        manifest: row
            .try_get::<Option<String>, _>("manifest")?
            .unwrap_or_default(),
    })
}

/// The write that joins the journal's first entry of a run.
pub(crate) fn insert(new: NewRecord) -> Also {
    Box::new(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            sqlx::query(
                "INSERT INTO run_record (id, name, namespace, description, experiment, pipeline,
                     version, recurring_run, service_account, parameters, pipeline_root, plugins,
                     created_at, scheduled_at, finished_at, state, archived)
                 SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
                     coalesce(CAST(unixepoch(finished_at, 'subsec') * 1000000 AS INTEGER), 0),
                     CASE WHEN phase = 'Succeeded' THEN 'SUCCEEDED'
                         WHEN phase IN ('Failed', 'Error') THEN 'FAILED' ELSE 'PENDING' END,
                     0
                 FROM run_status WHERE run = $1",
            )
            .bind(new.id)
            .bind(new.name)
            .bind(new.namespace)
            .bind(new.description)
            .bind(&new.experiment)
            .bind(new.pipeline)
            .bind(new.version)
            .bind(new.recurring_run)
            .bind(new.service_account)
            .bind(new.parameters.to_string())
            .bind(new.pipeline_root)
            .bind(Value::Object(new.plugins).to_string())
            .bind(new.created_at)
            .bind(new.scheduled_at)
            .execute(&mut *tx)
            .await?;
            sqlx::query("UPDATE experiment SET last_run_created_at = $1 WHERE id = $2")
                .bind(new.created_at)
                .bind(&new.experiment)
                .execute(tx)
                .await?;
            Ok(())
        })
    })
}

/// The write that joins the journal's removal of a run.
pub(crate) fn remove(id: &str) -> Also {
    let id = id.to_owned();
    Box::new(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            sqlx::query("DELETE FROM run_record WHERE id = $1")
                .bind(&id)
                .execute(tx)
                .await?;
            Ok(())
        })
    })
}

pub(crate) async fn get(db: &Db, id: &str) -> Result<Record> {
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM run_record r{JOINS} WHERE r.id = $1"
    ));
    let row = sqlx::query(sql)
        .bind(id)
        .fetch_optional(db.reader())
        .await?;
    row.map(|row| record(&row))
        .transpose()?
        .ok_or_else(|| Error::not_found("Run", id))
}

/// Whose runs are listed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Of<'a> {
    pub(crate) experiment: Option<&'a str>,
    pub(crate) recurring_run: Option<&'a str>,
}

pub(crate) async fn list(
    db: &Db,
    kept: &Counts,
    of: Of<'_>,
    request: &Request,
) -> Result<(Vec<Record>, Page)> {
    let scopes: Vec<_> = [
        ("r.experiment", of.experiment),
        ("r.recurring_run", of.recurring_run),
    ]
    .into_iter()
    .filter_map(|(column, id)| Some((column, id?.to_owned())))
    .collect();
    let counts = Current {
        kept,
        changes: db.changes(),
    };
    let page = LISTING
        .page_counted(db.reader(), request, &scopes, Some(counts))
        .await?;
    let records = page.rows.iter().map(record).collect::<sqlx::Result<_>>()?;
    Ok((records, page))
}

/// The states a run has had, oldest first: microseconds and name.
pub(crate) async fn history(db: &Db, id: &str) -> Result<Vec<(i64, String)>> {
    let rows = sqlx::query_as("SELECT at, state FROM run_history WHERE run = $1 ORDER BY rowid")
        .bind(id)
        .fetch_all(db.reader())
        .await?;
    Ok(rows)
}

/// The metrics of a run.
pub(crate) async fn metrics(db: &Db, id: &str) -> Result<Vec<Metric>> {
    let rows: Vec<(String, String, String, f64, String)> = sqlx::query_as(
        "SELECT run, node, name, value, format FROM run_metric WHERE run = $1 ORDER BY node, name",
    )
    .bind(id)
    .fetch_all(db.reader())
    .await?;
    Ok(rows
        .into_iter()
        .map(|(run, node, name, value, format)| Metric {
            run,
            node,
            name,
            value,
            format,
        })
        .collect())
}

/// Stores a metric once; answers whether it is new.
pub(crate) async fn report(db: &Db, metric: Metric) -> Result<bool> {
    db.write(move |tx| -> WriteFuture<'_, bool> {
        Box::pin(async move {
            let inserted = sqlx::query(
                "INSERT INTO run_metric (run, node, name, value, format)
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            )
            .bind(metric.run)
            .bind(metric.node)
            .bind(metric.name)
            .bind(metric.value)
            .bind(metric.format)
            .execute(tx)
            .await?;
            Ok(inserted.rows_affected() > 0)
        })
    })
    .await
    .map_err(Error::of_job)
}

/// Archives a run or takes it back; an archived experiment keeps its runs archived.
pub(crate) async fn archive(db: &Db, id: &str, archived: bool) -> Result<()> {
    let id = id.to_owned();
    db.write(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            let experiment: Option<(String, Option<i64>)> = sqlx::query_as(
                "SELECT r.experiment, e.archived FROM run_record r
                 LEFT JOIN experiment e ON e.id = r.experiment WHERE r.id = $1",
            )
            .bind(&id)
            .fetch_optional(&mut *tx)
            .await?;
            match experiment {
                None => return Err(db::Error::job(Error::not_found("Run", &id))),
                Some((experiment, Some(1))) if !archived => {
                    return Err(db::Error::job(Error::State(format!(
                        "run {id} belongs to archived experiment {experiment}; unarchive that first"
                    ))));
                }
                Some(_) => {}
            }
            sqlx::query("UPDATE run_record SET archived = $1 WHERE id = $2")
                .bind(i64::from(archived))
                .bind(&id)
                .execute(tx)
                .await?;
            Ok(())
        })
    })
    .await
    .map_err(Error::of_job)
}
