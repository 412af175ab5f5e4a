//! The one ordered path of writes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use db::sqlx;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::cache::{Event, EventType, Previous};
use super::object::{Object, key};
use super::{Error, Inner};

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
    pub(super) answer: oneshot::Sender<Result<Vec<Arc<Object>>, Error>>,
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

/// Runs until the store is dropped.
pub(super) async fn run(inner: Arc<Inner>, mut queue: mpsc::Receiver<Pending>) {
    let mut rv = inner.published.load(Ordering::Acquire);
    let mut since_compaction = 0;
    let mut batch = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let mut overlay = Overlay::new();
        let mut changes = Vec::new();
        let mut waiting = Vec::new();
        for Pending { writes, answer } in batch.drain(..) {
            match prepare(&inner, &mut overlay, &mut rv, writes) {
                Ok(prepared) => {
                    let objects = prepared
                        .iter()
                        .map(|c: &Change| Arc::clone(&c.event.object))
                        .collect();
                    waiting.push((answer, objects));
                    changes.extend(prepared);
                }
                // Whoever no longer waits does not care either.
                Err(error) => drop(answer.send(Err(error))),
            }
        }
        if changes.is_empty() {
            continue;
        }
        since_compaction += changes.len() as u64;
        match commit(&inner, &changes).await {
            Ok(()) => {
                for Change { resource, event } in changes {
                    inner.cache(&resource).publish(event);
                }
                inner.published.store(rv, Ordering::Release);
                for (answer, objects) in waiting {
                    drop(answer.send(Ok(objects)));
                }
            }
            Err(error) => {
                let error = stdx::error::chain(&error);
                tracing::error!("write {} objects: {error}", changes.len());
                for (answer, _) in waiting {
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

async fn commit(inner: &Inner, changes: &[Change]) -> Result<(), db::Error> {
    let rows: Vec<Row> = changes
        .iter()
        .map(|change| Row {
            resource: Arc::clone(&change.resource),
            object: Arc::clone(&change.event.object),
            kind: change.event.kind,
        })
        .collect();
    inner
        .db
        .write(move |connection: &mut db::SqliteConnection| {
            Box::pin(async move {
                for row in rows {
                    insert(connection, row).await?;
                }
                Ok(())
            }) as db::WriteFuture<'_, ()>
        })
        .await
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
        .write(move |connection: &mut db::SqliteConnection| {
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
