//! How many rows fit a filter: from counters where they tell, else counted, and kept until a row changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use db::sqlx::{self, AssertSqlSafe, SqlitePool};

use super::{Conditions, Key, Listing, Result, arguments};

/// So many counts are kept; a new one more forgets them all.
const KEPT: usize = 256;

/// Counts that were made, by their query and its values. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Mutex<HashMap<String, Kept>>>);

#[derive(Debug, Clone)]
struct Kept {
    changes: u64,
    total: i64,
}

impl Counts {
    fn get(&self, key: &str, changes: u64) -> Option<i64> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(key)
            .filter(|kept| kept.changes == changes)
            .map(|kept| kept.total)
    }

    fn put(&self, key: String, changes: u64, total: i64) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, Kept { changes, total });
    }
}

/// Kept counts, and the number of changes the database has seen (read before anything is counted,
/// so that a change in between makes a count stale and never wrong).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Current<'a> {
    pub(crate) kept: &'a Counts,
    pub(crate) changes: u64,
}

impl Listing {
    pub(super) async fn count(
        &self,
        pool: &SqlitePool,
        conditions: &Conditions,
        counts: Option<Current<'_>>,
    ) -> Result<i64> {
        let counted = self.counter.filter(|counter| {
            conditions
                .columns
                .iter()
                .all(|column| column.is_some_and(|c| counter.columns.contains(&c)))
        });
        if let Some(counter) = counted {
            let mut clause = conditions.clause();
            if !conditions.columns.contains(&Some(counter.scope)) {
                let word = if clause.is_empty() { " WHERE" } else { " AND" };
                clause = format!("{clause}{word} {} = ''", counter.scope);
            }
            let query = format!("SELECT coalesce(sum(n), 0) FROM {}{clause}", counter.table);
            return number(pool, query, &conditions.values).await;
        }
        let query = format!("SELECT count(*) FROM {}{}", self.table, conditions.clause());
        let Some(counts) = counts else {
            return number(pool, query, &conditions.values).await;
        };
        let key = format!("{query} {:?}", conditions.values);
        if let Some(total) = counts.kept.get(&key, counts.changes) {
            return Ok(total);
        }
        let total = number(pool, query, &conditions.values).await?;
        counts.kept.put(key, counts.changes, total);
        Ok(total)
    }
}

async fn number(pool: &SqlitePool, query: String, values: &[Key]) -> Result<i64> {
    Ok(
        sqlx::query_scalar_with(AssertSqlSafe(query), arguments(values)?)
            .fetch_one(pool)
            .await?,
    )
}
