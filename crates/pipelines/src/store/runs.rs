//! Records of runs: what the API knows of a run beyond its state, which the journal keeps.

use db::sqlx::sqlite::SqliteRow;
use db::sqlx::{self, Row as _};
use db::{Db, WriteFuture};
use serde_json::Value;

use super::page::{Field, Kind, Listing, Page, Request};
use super::{Error, Result};
use crate::journal::Also;

/// A run as it was asked for.
#[derive(Debug, Clone)]
pub(crate) struct NewRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) description: String,
    pub(crate) experiment: String,
    pub(crate) pipeline: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) service_account: String,
    /// `[{name, value}]`.
    pub(crate) parameters: Value,
    pub(crate) created_at: i64,
}

/// A run with its state and the names of what it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) new: NewRecord,
    pub(crate) archived: bool,
    pub(crate) experiment_name: String,
    pub(crate) pipeline_name: Option<String>,
    pub(crate) version_name: Option<String>,
    pub(crate) phase: String,
    pub(crate) terminating: bool,
    pub(crate) message: Option<String>,
    /// RFC 3339.
    pub(crate) finished_at: Option<String>,
    /// The Workflow as it was compiled.
    pub(crate) manifest: String,
}

const FROM: &str = "FROM run_record r JOIN run_status s ON s.run = r.id
    JOIN experiment e ON e.id = r.experiment LEFT JOIN pipeline p ON p.id = r.pipeline
    LEFT JOIN pipeline_version v ON v.id = r.version JOIN journal_blob m ON m.hash = s.manifest";
const SELECT: &str = "r.*, s.phase, s.terminating, s.message, s.finished_at,
    e.name AS experiment_name, p.name AS pipeline_name, v.name AS version_name, m.body AS manifest
    FROM run_record r JOIN run_status s ON s.run = r.id
    JOIN experiment e ON e.id = r.experiment LEFT JOIN pipeline p ON p.id = r.pipeline
    LEFT JOIN pipeline_version v ON v.id = r.version JOIN journal_blob m ON m.hash = s.manifest";

const LISTING: Listing = Listing {
    noun: "run",
    select: SELECT,
    from: FROM,
    id: "r.id",
    fields: &[
        Field {
            names: &["name", "display_name"],
            sql: "r.name",
            kind: Kind::Text,
        },
        Field {
            names: &["id", "run_id"],
            sql: "r.id",
            kind: Kind::Text,
        },
        Field {
            names: &["created_at", "scheduled_at"],
            sql: "r.created_at",
            kind: Kind::Time,
        },
        Field {
            names: &["status", "state"],
            sql: "s.phase",
            kind: Kind::Text,
        },
        Field {
            names: &["description"],
            sql: "r.description",
            kind: Kind::Text,
        },
        Field {
            names: &["namespace"],
            sql: "r.namespace",
            kind: Kind::Text,
        },
        Field {
            names: &["experiment_id"],
            sql: "r.experiment",
            kind: Kind::Text,
        },
        Field {
            names: &["finished_at"],
            sql: "coalesce(unixepoch(s.finished_at) * 1000000, 0)",
            kind: Kind::Time,
        },
        Field {
            names: &["storage_state"],
            sql: "CASE r.archived WHEN 0 THEN 'STORAGESTATE_AVAILABLE' ELSE 'STORAGESTATE_ARCHIVED' END",
            kind: Kind::Text,
        },
    ],
};

fn record(row: &SqliteRow) -> sqlx::Result<Record> {
    let parameters: String = row.try_get("parameters")?;
    Ok(Record {
        new: NewRecord {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            namespace: row.try_get("namespace")?,
            description: row.try_get("description")?,
            experiment: row.try_get("experiment")?,
            pipeline: row.try_get("pipeline")?,
            version: row.try_get("version")?,
            service_account: row.try_get("service_account")?,
            parameters: serde_json::from_str(&parameters).unwrap_or_default(),
            created_at: row.try_get("created_at")?,
        },
        archived: row.try_get::<i64, _>("archived")? != 0,
        experiment_name: row.try_get("experiment_name")?,
        pipeline_name: row.try_get("pipeline_name")?,
        version_name: row.try_get("version_name")?,
        phase: row.try_get("phase")?,
        terminating: row.try_get::<i64, _>("terminating")? != 0,
        message: row.try_get("message")?,
        finished_at: row.try_get("finished_at")?,
        manifest: row.try_get("manifest")?,
    })
}

/// The write that joins the journal's first entry of a run.
pub(crate) fn insert(new: NewRecord) -> Also {
    Box::new(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            sqlx::query(
                "INSERT INTO run_record (id, name, namespace, description, experiment, pipeline,
                     version, service_account, parameters, created_at, archived)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0)",
            )
            .bind(new.id)
            .bind(new.name)
            .bind(new.namespace)
            .bind(new.description)
            .bind(&new.experiment)
            .bind(new.pipeline)
            .bind(new.version)
            .bind(new.service_account)
            .bind(new.parameters.to_string())
            .bind(new.created_at)
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
                .bind(id)
                .execute(tx)
                .await?;
            Ok(())
        })
    })
}

pub(crate) async fn get(db: &Db, id: &str) -> Result<Record> {
    let sql = sqlx::AssertSqlSafe(format!("SELECT {SELECT} WHERE r.id = $1"));
    let row = sqlx::query(sql)
        .bind(id)
        .fetch_optional(db.reader())
        .await?;
    row.map(|row| record(&row))
        .transpose()?
        .ok_or_else(|| Error::not_found("Run", id))
}

pub(crate) async fn list(
    db: &Db,
    experiment: Option<&str>,
    request: &Request,
) -> Result<(Vec<Record>, Page)> {
    let scopes: Vec<_> = experiment
        .map(|id| ("r.experiment = ?", id.to_owned()))
        .into_iter()
        .collect();
    let page = LISTING.page(db.reader(), request, &scopes).await?;
    let records = page.rows.iter().map(record).collect::<sqlx::Result<_>>()?;
    Ok((records, page))
}

/// Archives a run or takes it back; an archived experiment keeps its runs archived.
pub(crate) async fn archive(db: &Db, id: &str, archived: bool) -> Result<()> {
    let id = id.to_owned();
    db.write(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            let experiment: Option<(String, i64)> = sqlx::query_as(
                "SELECT e.id, e.archived FROM run_record r JOIN experiment e ON e.id = r.experiment
                 WHERE r.id = $1",
            )
            .bind(&id)
            .fetch_optional(&mut *tx)
            .await?;
            match experiment {
                None => return Err(db::Error::job(Error::not_found("Run", &id))),
                Some((experiment, 1)) if !archived => {
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
