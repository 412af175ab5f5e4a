//! Experiments.

use db::sqlx::sqlite::SqliteRow;
use db::sqlx::{self, Row as _};
use db::{Db, WriteFuture};

use super::page::{Field, Kind, Listing, Page, Request};
use super::{Error, Result, is_taken};

/// An experiment.
#[derive(Debug, Clone)]
pub(crate) struct Experiment {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) description: String,
    /// Microseconds since 1970, as all times here.
    pub(crate) created_at: i64,
    pub(crate) last_run_created_at: i64,
    pub(crate) archived: bool,
}

/// The names of both APIs for the column `archived`.
pub(super) const STORAGE_STATES: Kind = Kind::Names(&[
    ("AVAILABLE", 0),
    ("STORAGESTATE_AVAILABLE", 0),
    ("ARCHIVED", 1),
    ("STORAGESTATE_ARCHIVED", 1),
]);

const LISTING: Listing = Listing {
    noun: "experiment",
    table: "experiment",
    fields: &[
        Field {
            names: &["name", "display_name"],
            sql: "name",
            kind: Kind::Text,
        },
        Field {
            names: &["id", "experiment_id"],
            sql: "id",
            kind: Kind::Text,
        },
        Field {
            names: &["created_at"],
            sql: "created_at",
            kind: Kind::Time,
        },
        Field {
            names: &["last_run_created_at"],
            sql: "last_run_created_at",
            kind: Kind::Time,
        },
        Field {
            names: &["description"],
            sql: "description",
            kind: Kind::Text,
        },
        Field {
            names: &["namespace"],
            sql: "namespace",
            kind: Kind::Text,
        },
        Field {
            names: &["storage_state"],
            sql: "archived",
            kind: STORAGE_STATES,
        },
    ],
    ..Listing::PLAIN
};

fn experiment(row: &SqliteRow) -> sqlx::Result<Experiment> {
    Ok(Experiment {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        namespace: row.try_get("namespace")?,
        description: row.try_get("description")?,
        created_at: row.try_get("created_at")?,
        last_run_created_at: row.try_get("last_run_created_at")?,
        archived: row.try_get::<i64, _>("archived")? != 0,
    })
}

pub(crate) async fn create(db: &Db, new: Experiment) -> Result<()> {
    let name = new.name.clone();
    db.write(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            let inserted = sqlx::query(
                "INSERT INTO experiment (id, name, namespace, description, created_at,
                     last_run_created_at, archived) VALUES ($1, $2, $3, $4, $5, $6, 0)",
            )
            .bind(new.id)
            .bind(new.name)
            .bind(new.namespace)
            .bind(new.description)
            .bind(new.created_at)
            .bind(new.last_run_created_at)
            .execute(tx)
            .await;
            match inserted {
                Err(e) if is_taken(&e) => Err(db::Error::job(Error::Exists {
                    kind: "experiment",
                    name,
                })),
                other => Ok(other.map(drop)?),
            }
        })
    })
    .await
    .map_err(Error::of_job)
}

pub(crate) async fn get(db: &Db, id: &str) -> Result<Experiment> {
    let row = sqlx::query("SELECT * FROM experiment WHERE id = $1")
        .bind(id)
        .fetch_optional(db.reader())
        .await?;
    row.map(|row| experiment(&row))
        .transpose()?
        .ok_or_else(|| Error::not_found("Experiment", id))
}

pub(crate) async fn by_name(db: &Db, namespace: &str, name: &str) -> Result<Option<Experiment>> {
    let row = sqlx::query("SELECT * FROM experiment WHERE namespace = $1 AND name = $2")
        .bind(namespace)
        .bind(name)
        .fetch_optional(db.reader())
        .await?;
    Ok(row.map(|row| experiment(&row)).transpose()?)
}

pub(crate) async fn list(db: &Db, request: &Request) -> Result<(Vec<Experiment>, Page)> {
    let scopes = super::namespace("namespace", request);
    let page = LISTING.page(db.reader(), request, &scopes).await?;
    let experiments = page
        .rows
        .iter()
        .map(experiment)
        .collect::<sqlx::Result<_>>()?;
    Ok((experiments, page))
}

/// Archives an experiment with all its runs, or takes it (alone) back.
pub(crate) async fn archive(db: &Db, id: &str, archived: bool) -> Result<()> {
    let id = id.to_owned();
    db.write(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            let changed = sqlx::query("UPDATE experiment SET archived = $1 WHERE id = $2")
                .bind(i64::from(archived))
                .bind(&id)
                .execute(&mut *tx)
                .await?;
            if changed.rows_affected() == 0 {
                return Err(db::Error::job(Error::not_found("Experiment", &id)));
            }
            if archived {
                sqlx::query(
                    "UPDATE run_record SET archived = 1 WHERE experiment = $1 AND archived = 0",
                )
                .bind(&id)
                .execute(&mut *tx)
                .await?;
                super::recurring::disable_of_experiment(tx, &id).await?;
            }
            Ok(())
        })
    })
    .await
    .map_err(Error::of_job)
}

/// Removes an experiment; its runs stay, and its recurring runs fire no more.
pub(crate) async fn delete(db: &Db, id: &str) -> Result<()> {
    let id = id.to_owned();
    db.write(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            let gone = sqlx::query("DELETE FROM experiment WHERE id = $1")
                .bind(&id)
                .execute(&mut *tx)
                .await?;
            if gone.rows_affected() == 0 {
                return Err(db::Error::job(Error::not_found("Experiment", &id)));
            }
            super::recurring::disable_of_experiment(tx, &id).await?;
            Ok(())
        })
    })
    .await
    .map_err(Error::of_job)
}
