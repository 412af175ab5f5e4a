//! The one ordered path of writes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use db::sqlx;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::cache::{Event, EventType, Previous};
use super::object::{Object, key};
use super::{Durability, Error, Inner};

/// At most this many requests share a transaction.
const BATCH: usize = 256;
/// How many events are kept for watches that resume.
const KEEP: u64 = 4096;
/// How many events are written between two compactions.
const COMPACT_EVERY: u64 = 1024;

/// What a write expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// No such object.
    Absent,
    /// The object at this resourceVersion.
    Version(u64),
}

/// A write of one object.
#[derive(Debug)]
pub(crate) struct Write {
    /// Named like `deployments.apps`.
    pub(crate) resource: Arc<str>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) expect: Expect,
    /// The new state, or `None` to delete.
    pub(crate) object: Option<Value>,
}

/// Writes that stand or fall together, and who waits for them.
pub(super) struct Pending {
    pub(super) writes: Vec<Write>,
    pub(super) durability: Durability,
    pub(super) answer: Answer,
}

/// A change that has its number.
struct Change {
    resource: Arc<str>,
    event: Event,
}

/// The part of a change that goes to disk.
struct Row {
    resource: Arc<str>,
    object: Arc<Object>,
    kind: EventType,
}

/// What the transaction being put together will leave behind, by (resource, key).
type Overlay = HashMap<(Arc<str>, String), Option<Arc<Object>>>;

type Answer = oneshot::Sender<Result<Vec<Arc<Object>>, Error>>;

/// Runs until the store is dropped.
pub(super) async fn run(inner: Arc<Inner>, mut queue: mpsc::Receiver<Pending>) {
    let mut rv = inner.published.load(Ordering::Acquire);
    let mut since_compaction = 0;
    let mut batch = Vec::with_capacity(BATCH);
    // Answers that wait for a sync, which goes on while the next batch is put together.
    let mut syncs = FuturesUnordered::new();
    loop {
        let received = tokio::select! {
            biased;
            Some(()) = syncs.next(), if !syncs.is_empty() => continue,
            received = queue.recv_many(&mut batch, BATCH) => received,
        };
        if received == 0 {
            break;
        }
        let mut overlay = Overlay::new();
        let mut changes = Vec::new();
        let (mut behind, mut waiting) = (Vec::new(), Vec::new());
        for pending in batch.drain(..) {
            match prepare(&inner, &mut overlay, &mut rv, pending.writes) {
                Ok(prepared) => {
                    let objects: Vec<_> = prepared
                        .iter()
                        .map(|c: &Change| Arc::clone(&c.event.object))
                        .collect();
                    match pending.durability {
                        Durability::Behind => behind.push((pending.answer, objects)),
                        Durability::Synced => waiting.push((pending.answer, objects)),
                    }
                    changes.extend(prepared);
                }
                // Whoever no longer waits does not care either.
                Err(error) => drop(pending.answer.send(Err(error))),
            }
        }
        if changes.is_empty() {
            continue;
        }
        since_compaction += changes.len() as u64;
        tracing::trace!(first = %changes[0].resource, changes = changes.len(), "commit begins");
        match commit(&inner, &changes, !waiting.is_empty()).await {
            Ok(synced) => {
                tracing::trace!(changes = changes.len(), rv, "committed");
                for Change { resource, event } in changes {
                    inner.cache(&resource).publish(event);
                }
                inner.published.store(rv, Ordering::Release);
                for (answer, objects) in behind {
                    drop(answer.send(Ok(objects)));
                }
                if let Some(synced) = synced {
                    syncs.push(answer_when(synced, waiting));
                }
            }
            Err(error) => {
                let error = stdx::error::chain(&error);
                tracing::error!("write {} objects: {error}", changes.len());
                for (answer, _) in behind.into_iter().chain(waiting) {
                    drop(answer.send(Err(Error::Database(error.clone()))));
                }
            }
        }
        if since_compaction >= COMPACT_EVERY {
            since_compaction = 0;
            if let Err(error) = compact(&inner, rv.saturating_sub(KEEP)).await {
                tracing::warn!("compact the event table: {}", stdx::error::chain(&error));
            }
        }
    }
    while syncs.next().await.is_some() {}
}

/// Answers when what was written is on disk.
async fn answer_when(synced: db::Synced, waiting: Vec<(Answer, Vec<Arc<Object>>)>) {
    let outcome = synced.wait().await;
    let outcome = outcome.map_err(|error| Error::Database(stdx::error::chain(&error)));
    for (answer, objects) in waiting {
        drop(answer.send(outcome.clone().map(|()| objects)));
    }
}

/// Checks what the writes expect and numbers them. Either all of them are taken or none.
fn prepare(
    inner: &Inner,
    overlay: &mut Overlay,
    rv: &mut u64,
    writes: Vec<Write>,
) -> Result<Vec<Change>, Error> {
    let mut mine = Overlay::new();
    let mut number = *rv;
    let mut changes = Vec::with_capacity(writes.len());
    for Write {
        resource,
        namespace,
        name,
        expect,
        object,
    } in writes
    {
        let at = (Arc::clone(&resource), key(&namespace, &name));
        let found = match mine.get(&at).or_else(|| overlay.get(&at)) {
            Some(found) => found.clone(),
            None => inner.cache(&resource).get(&namespace, &name),
        };
        let expected = match (expect, &found) {
            (Expect::Absent, None) => true,
            (Expect::Version(wanted), Some(found)) => found.rv == wanted,
            _ => false,
        };
        if !expected {
            return Err(Error::Conflict);
        }
        let (kind, value) = match (object, &found) {
            (Some(value), None) => (EventType::Added, value),
            (Some(value), Some(_)) => (EventType::Modified, value),
            (None, Some(found)) => (EventType::Deleted, Value::clone(found.value())),
            (None, None) => return Err(Error::Conflict),
        };
        number += 1;
        let object = Arc::new(Object::new(&namespace, &name, number, value));
        let left = (kind != EventType::Deleted).then(|| Arc::clone(&object));
        mine.insert(at, left);
        let previous = found.map_or(Previous::None, Previous::Known);
        changes.push(Change {
            resource,
            event: Event {
                kind,
                object,
                previous,
            },
        });
    }
    *rv = number;
    overlay.extend(mine);
    Ok(changes)
}

/// Commits the changes; the sync is told of only if somebody waits for it.
async fn commit(
    inner: &Inner,
    changes: &[Change],
    awaited: bool,
) -> Result<Option<db::Synced>, db::Error> {
    let rows: Vec<Row> = changes
        .iter()
        .map(|change| Row {
            resource: Arc::clone(&change.resource),
            object: Arc::clone(&change.event.object),
            kind: change.event.kind,
        })
        .collect();
    let job = job(move |connection| {
        Box::pin(async move {
            for row in rows {
                insert(connection, row).await?;
            }
            Ok(())
        })
    });
    if awaited {
        let ((), synced) = inner.db.commit(job).await?;
        Ok(Some(synced))
    } else {
        inner.db.write_behind(job).await?;
        Ok(None)
    }
}

/// Tells the compiler what a closure is before it guesses.
fn job<F>(job: F) -> F
where
    F: for<'c> FnOnce(&'c mut db::SqliteConnection) -> db::WriteFuture<'c, ()>,
{
    job
}

async fn insert(connection: &mut db::SqliteConnection, row: Row) -> Result<(), db::Error> {
    let Row {
        resource,
        object,
        kind,
    } = row;
    sqlx::query(
        "INSERT INTO event (rv, resource, namespace, name, type, object) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(object.rv as i64)
    .bind(&*resource)
    .bind(&*object.namespace)
    .bind(&*object.name)
    .bind(kind as i64)
    .bind(&object.bytes()[..])
    .execute(&mut *connection)
    .await?;
    if kind == EventType::Deleted {
        sqlx::query("DELETE FROM current WHERE resource = $1 AND namespace = $2 AND name = $3")
            .bind(&*resource)
            .bind(&*object.namespace)
            .bind(&*object.name)
            .execute(connection)
            .await?;
    } else {
        sqlx::query(
            "INSERT INTO current (resource, namespace, name, rv) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (resource, namespace, name) DO UPDATE SET rv = excluded.rv",
        )
        .bind(&*resource)
        .bind(&*object.namespace)
        .bind(&*object.name)
        .bind(object.rv as i64)
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Forgets events up to `rv`, except those that hold the current state of an object.
async fn compact(inner: &Inner, rv: u64) -> Result<(), db::Error> {
    let rv = rv as i64;
    inner
        .db
        .write_behind(move |connection: &mut db::SqliteConnection| {
            Box::pin(async move {
                sqlx::query(
                    "DELETE FROM event WHERE rv <= $1 \
                     AND NOT EXISTS (SELECT 1 FROM current WHERE current.rv = event.rv)",
                )
                .bind(rv)
                .execute(&mut *connection)
                .await?;
                sqlx::query("UPDATE compaction SET rv = MAX(rv, $1)")
                    .bind(rv)
                    .execute(connection)
                    .await?;
                Ok(())
            }) as db::WriteFuture<'_, ()>
        })
        .await
}
