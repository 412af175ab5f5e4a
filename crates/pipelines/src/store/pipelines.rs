//! Pipelines and their versions. A version's package is kept once by its hash.

use std::collections::BTreeMap;

use db::sqlx::sqlite::SqliteRow;
use db::sqlx::{self, Row as _, SqliteConnection};
use db::{Db, WriteFuture};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::page::{Field, Kind, Listing, Page, Request};
use super::{Error, Result, is_taken};

/// A pipeline.
#[derive(Debug, Clone)]
pub(crate) struct Pipeline {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) display_name: String,
    pub(crate) namespace: String,
    pub(crate) description: String,
    /// A JSON object of texts.
    pub(crate) tags: Tags,
    pub(crate) created_at: i64,
    pub(crate) default_version: Option<String>,
}

/// Tags by their keys.
pub(crate) type Tags = BTreeMap<String, String>;

/// A version of a pipeline, with its package.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) id: String,
    pub(crate) pipeline: String,
    pub(crate) name: String,
    pub(crate) display_name: String,
    pub(crate) description: String,
    pub(crate) code_source_url: String,
    pub(crate) tags: Tags,
    pub(crate) created_at: i64,
    /// What v1beta1 shows: `[{name, value}]`.
    pub(crate) parameters: Value,
    /// The package as JSON text.
    pub(crate) spec: String,
}

const VERSION_BY_ID: &str = "SELECT v.*, s.body FROM pipeline_version v
    JOIN pipeline_spec s ON s.hash = v.spec WHERE v.id = $1";

const PIPELINES: Listing = Listing {
    noun: "pipeline",
    table: "pipeline",
    tags: Some("tags"),
    fields: &[
        Field {
            names: &["name"],
            sql: "name",
            kind: Kind::Text,
        },
        Field {
            names: &["display_name"],
            sql: "display_name",
            kind: Kind::Text,
        },
        Field {
            names: &["id", "pipeline_id"],
            sql: "id",
            kind: Kind::Text,
        },
        Field {
            names: &["created_at"],
            sql: "created_at",
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
    ],
    ..Listing::PLAIN
};

const VERSIONS: Listing = Listing {
    noun: "pipeline version",
    table: "pipeline_version",
    columns: "pipeline_version.*, (SELECT body FROM pipeline_spec WHERE hash = spec) AS body",
    tags: Some("tags"),
    fields: &[
        Field {
            names: &["name"],
            sql: "name",
            kind: Kind::Text,
        },
        Field {
            names: &["display_name"],
            sql: "display_name",
            kind: Kind::Text,
        },
        Field {
            names: &["id", "pipeline_version_id"],
            sql: "id",
            kind: Kind::Text,
        },
        Field {
            names: &["pipeline_id"],
            sql: "pipeline",
            kind: Kind::Text,
        },
        Field {
            names: &["created_at"],
            sql: "created_at",
            kind: Kind::Time,
        },
        Field {
            names: &["description"],
            sql: "description",
            kind: Kind::Text,
        },
        // Every version that is stored is ready.
        Field {
            names: &["status"],
            sql: "'PIPELINE_VERSION_READY'",
            kind: Kind::Text,
        },
        Field {
            names: &["pipeline_spec"],
            sql: "spec",
            kind: Kind::Text,
        },
    ],
    ..Listing::PLAIN
};

fn tags(row: &SqliteRow) -> sqlx::Result<Tags> {
    let text: String = row.try_get("tags")?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

/// Tags as they are stored.
fn tags_text(tags: &Tags) -> String {
    serde_json::to_string(tags).expect("invariant: texts are JSON")
}

fn pipeline(row: &SqliteRow) -> sqlx::Result<Pipeline> {
    Ok(Pipeline {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        display_name: row.try_get("display_name")?,
        tags: tags(row)?,
        namespace: row.try_get("namespace")?,
        description: row.try_get("description")?,
        created_at: row.try_get("created_at")?,
        default_version: row.try_get("default_version")?,
    })
}

fn version(row: &SqliteRow) -> sqlx::Result<Version> {
    let parameters: String = row.try_get("parameters")?;
    Ok(Version {
        id: row.try_get("id")?,
        pipeline: row.try_get("pipeline")?,
        name: row.try_get("name")?,
        display_name: row.try_get("display_name")?,
        tags: tags(row)?,
        spec: row.try_get("body")?,
        description: row.try_get("description")?,
        code_source_url: row.try_get("code_source_url")?,
        created_at: row.try_get("created_at")?,
        parameters: serde_json::from_str(&parameters).unwrap_or_default(),
    })
}

/// Stores a pipeline with its first version, if it has one, or neither.
pub(crate) async fn create(db: &Db, new: Pipeline, first: Option<Version>) -> Result<()> {
    db.write(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            let inserted = sqlx::query(
                "INSERT INTO pipeline (id, name, display_name, namespace, description, tags,
                     created_at, default_version) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(&new.id)
            .bind(&new.name)
            .bind(&new.display_name)
            .bind(&new.namespace)
            .bind(&new.description)
            .bind(tags_text(&new.tags))
            .bind(new.created_at)
            .bind(first.as_ref().map(|version| version.id.clone()))
            .execute(&mut *tx)
            .await;
            match inserted {
                Err(e) if is_taken(&e) => {
                    return Err(db::Error::job(Error::Exists {
                        kind: "pipeline",
                        name: new.name,
                    }));
                }
                other => other.map(drop)?,
            }
            match first {
                Some(first) => insert_version(tx, first).await,
                None => Ok(()),
            }
        })
    })
    .await
    .map_err(Error::of_job)
}

/// Stores a further version, which becomes the pipeline's default.
pub(crate) async fn create_version(db: &Db, new: Version) -> Result<()> {
    db.write(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            let (pipeline, id) = (new.pipeline.clone(), new.id.clone());
            let found = sqlx::query("UPDATE pipeline SET default_version = $1 WHERE id = $2")
                .bind(id)
                .bind(&pipeline)
                .execute(&mut *tx)
                .await?;
            if found.rows_affected() == 0 {
                return Err(db::Error::job(Error::not_found("Pipeline", &pipeline)));
            }
            insert_version(tx, new).await
        })
    })
    .await
    .map_err(Error::of_job)
}

async fn insert_version(
    tx: &mut SqliteConnection,
    new: Version,
) -> std::result::Result<(), db::Error> {
    let hash: String = Sha256::digest(&new.spec)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    sqlx::query("INSERT INTO pipeline_spec (hash, body) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(&hash)
        .bind(new.spec)
        .execute(&mut *tx)
        .await?;
    let inserted = sqlx::query(
        "INSERT INTO pipeline_version (id, pipeline, name, display_name, description,
             code_source_url, tags, created_at, spec, parameters)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(new.id)
    .bind(new.pipeline)
    .bind(&new.name)
    .bind(new.display_name)
    .bind(new.description)
    .bind(new.code_source_url)
    .bind(tags_text(&new.tags))
    .bind(new.created_at)
    .bind(hash)
    .bind(new.parameters.to_string())
    .execute(tx)
    .await;
    match inserted {
        Err(e) if is_taken(&e) => Err(db::Error::job(Error::Exists {
            kind: "pipeline version",
            name: new.name,
        })),
        other => Ok(other.map(drop)?),
    }
}

pub(crate) async fn get(db: &Db, id: &str) -> Result<Pipeline> {
    let row = sqlx::query("SELECT * FROM pipeline WHERE id = $1")
        .bind(id)
        .fetch_optional(db.reader())
        .await?;
    row.map(|row| pipeline(&row))
        .transpose()?
        .ok_or_else(|| Error::not_found("Pipeline", id))
}

pub(crate) async fn by_name(db: &Db, namespace: &str, name: &str) -> Result<Pipeline> {
    let row = sqlx::query("SELECT * FROM pipeline WHERE namespace = $1 AND name = $2")
        .bind(namespace)
        .bind(name)
        .fetch_optional(db.reader())
        .await?;
    row.map(|row| pipeline(&row))
        .transpose()?
        .ok_or_else(|| Error::not_found("Pipeline", name))
}

pub(crate) async fn list(db: &Db, request: &Request) -> Result<(Vec<Pipeline>, Page)> {
    let scopes = super::namespace("namespace", request);
    let page = PIPELINES.page(db.reader(), request, &scopes).await?;
    let pipelines = page
        .rows
        .iter()
        .map(pipeline)
        .collect::<sqlx::Result<_>>()?;
    Ok((pipelines, page))
}

/// Removes a pipeline with its versions; without `cascade` only one that has none.
pub(crate) async fn delete(db: &Db, id: &str, cascade: bool) -> Result<()> {
    if !cascade {
        let versions: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pipeline_version WHERE pipeline = $1")
                .bind(id)
                .fetch_one(db.reader())
                .await?;
        if versions > 0 {
            return Err(Error::State(format!(
                "pipeline {id} has {versions} versions; delete them first, or ask for cascade=true"
            )));
        }
    }
    remove(db, "Pipeline", "DELETE FROM pipeline WHERE id = $1", id).await
}

/// What a change of a pipeline or a version may set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    pub(crate) display_name: Option<String>,
    pub(crate) tags: Option<Tags>,
}

/// Changes a pipeline.
pub(crate) async fn update(db: &Db, id: &str, change: Change) -> Result<()> {
    let sql = "UPDATE pipeline SET display_name = coalesce($2, display_name),
        tags = coalesce($3, tags) WHERE id = $1";
    set(db, "Pipeline", sql, id, change).await
}

/// Changes a version.
pub(crate) async fn update_version(db: &Db, id: &str, change: Change) -> Result<()> {
    let sql = "UPDATE pipeline_version SET display_name = coalesce($2, display_name),
        tags = coalesce($3, tags) WHERE id = $1";
    set(db, "PipelineVersion", sql, id, change).await
}

async fn set(
    db: &Db,
    kind: &'static str,
    sql: &'static str,
    id: &str,
    change: Change,
) -> Result<()> {
    let id = id.to_owned();
    db.write(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            let changed = sqlx::query(sql)
                .bind(&id)
                .bind(change.display_name)
                .bind(change.tags.as_ref().map(tags_text))
                .execute(tx)
                .await?;
            if changed.rows_affected() == 0 {
                return Err(db::Error::job(Error::not_found(kind, &id)));
            }
            Ok(())
        })
    })
    .await
    .map_err(Error::of_job)
}

pub(crate) async fn get_version(db: &Db, id: &str) -> Result<Version> {
    let row = sqlx::query(VERSION_BY_ID)
        .bind(id)
        .fetch_optional(db.reader())
        .await?;
    row.map(|row| version(&row))
        .transpose()?
        .ok_or_else(|| Error::not_found("PipelineVersion", id))
}

/// The newest version of a pipeline.
pub(crate) async fn latest_version(db: &Db, pipeline: &str) -> Result<Version> {
    let row = sqlx::query(
        "SELECT v.*, s.body FROM pipeline_version v JOIN pipeline_spec s ON s.hash = v.spec
         WHERE v.pipeline = $1 ORDER BY v.created_at DESC, v.rowid DESC LIMIT 1",
    )
    .bind(pipeline)
    .fetch_optional(db.reader())
    .await?;
    row.map(|row| version(&row))
        .transpose()?
        .ok_or_else(|| Error::not_found("PipelineVersion of pipeline", pipeline))
}

pub(crate) async fn list_versions(
    db: &Db,
    pipeline: &str,
    request: &Request,
) -> Result<(Vec<Version>, Page)> {
    let scope = [("pipeline", pipeline.to_owned())];
    let page = VERSIONS.page(db.reader(), request, &scope).await?;
    let versions = page.rows.iter().map(version).collect::<sqlx::Result<_>>()?;
    Ok((versions, page))
}

pub(crate) async fn set_default_version(db: &Db, pipeline: &str, version: &str) -> Result<()> {
    let (pipeline, version) = (pipeline.to_owned(), version.to_owned());
    db.write(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            let changed = sqlx::query(
                "UPDATE pipeline SET default_version = $1 WHERE id = $2 AND EXISTS
                     (SELECT 1 FROM pipeline_version WHERE id = $1 AND pipeline = $2)",
            )
            .bind(&version)
            .bind(&pipeline)
            .execute(tx)
            .await?;
            if changed.rows_affected() == 0 {
                let what = format!("{version} of pipeline {pipeline}");
                return Err(db::Error::job(Error::not_found("PipelineVersion", &what)));
            }
            Ok(())
        })
    })
    .await
    .map_err(Error::of_job)
}

pub(crate) async fn delete_version(db: &Db, id: &str) -> Result<()> {
    remove(
        db,
        "PipelineVersion",
        "DELETE FROM pipeline_version WHERE id = $1",
        id,
    )
    .await
}

/// Deletes one row, then the packages nobody refers to any more.
async fn remove(db: &Db, kind: &'static str, sql: &'static str, id: &str) -> Result<()> {
    let id = id.to_owned();
    db.write(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            let gone = sqlx::query(sql).bind(&id).execute(&mut *tx).await?;
            if gone.rows_affected() == 0 {
                return Err(db::Error::job(Error::not_found(kind, &id)));
            }
            sqlx::query(
                "DELETE FROM pipeline_spec WHERE NOT EXISTS
                     (SELECT 1 FROM pipeline_version WHERE spec = pipeline_spec.hash)",
            )
            .execute(&mut *tx)
            .await?;
            // A default version that is gone gives way to the newest that is left.
            sqlx::query(
                "UPDATE pipeline SET default_version =
                     (SELECT v.id FROM pipeline_version v WHERE v.pipeline = pipeline.id
                      ORDER BY v.created_at DESC, v.rowid DESC LIMIT 1)
                 WHERE NOT EXISTS
                     (SELECT 1 FROM pipeline_version v WHERE v.id = pipeline.default_version)",
            )
            .execute(tx)
            .await?;
            Ok(())
        })
    })
    .await
    .map_err(Error::of_job)
}
