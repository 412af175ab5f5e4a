//! Which runs have been over for long enough to be forgotten: by the server's setting, or by what
//! the package itself says.

use std::time::Duration;

use db::sqlx;
use db::{Db, Migration, WriteFuture};

use super::Result;
use crate::journal::Also;

/// The table.
pub(crate) const MIGRATION: Migration = Migration {
    version: 21,
    name: "time to live of runs",
    sql: "
        CREATE TABLE run_ttl (run TEXT PRIMARY KEY, success BIGINT, failure BIGINT) WITHOUT ROWID;
        CREATE TRIGGER run_ttl_deleted AFTER DELETE ON run_record BEGIN
            DELETE FROM run_ttl WHERE run = old.id;
        END;
    ",
};

/// How many seconds a run is kept after its end, by how it ended; none for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ttl {
    pub(crate) success: Option<u64>,
    pub(crate) failure: Option<u64>,
}

/// The write that joins the first journal entry of a run that has a time to live.
pub(crate) fn insert(run: String, ttl: Ttl, record: Also) -> Also {
    let seconds = |of: Option<u64>| of.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
    Box::new(move |tx| -> WriteFuture<'_, ()> {
        Box::pin(async move {
            sqlx::query("INSERT INTO run_ttl (run, success, failure) VALUES ($1, $2, $3)")
                .bind(run)
                .bind(seconds(ttl.success))
                .bind(seconds(ttl.failure))
                .execute(&mut *tx)
                .await?;
            record(tx).await
        })
    })
}

/// The runs whose time is up first, and when that is (microseconds since 1970), soonest first.
pub(crate) async fn soonest(
    db: &Db,
    server: Option<Duration>,
    count: i64,
) -> Result<Vec<(String, i64)>> {
    let mut found: Vec<(String, i64)> = sqlx::query_as(
        "SELECT id, finished_at + seconds * 1000000 AS due FROM (
             SELECT r.id, r.finished_at,
                 CASE r.state WHEN 'SUCCEEDED' THEN t.success ELSE t.failure END AS seconds
             FROM run_ttl t CROSS JOIN run_record r ON r.id = t.run WHERE r.finished_at > 0)
         WHERE seconds IS NOT NULL AND seconds < 1000000000000 ORDER BY due LIMIT $1",
    )
    .bind(count)
    .fetch_all(db.reader())
    .await?;
    if let Some(ttl) = server {
        let micros = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
        let oldest: Vec<(String, i64)> = sqlx::query_as(
            "SELECT id, finished_at FROM run_record INDEXED BY run_finished WHERE finished_at > 0
             ORDER BY finished_at, id LIMIT $1",
        )
        .bind(count)
        .fetch_all(db.reader())
        .await?;
        found.extend(
            oldest
                .into_iter()
                .map(|(id, ended)| (id, ended.saturating_add(micros))),
        );
        found.sort_by_key(|(_, due)| *due);
        found.truncate(count as usize);
    }
    Ok(found)
}
