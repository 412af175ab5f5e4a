//! The object store: an append-only table of events and a table of what is current, in SQLite.
//!
//! The resourceVersion is the event's number. All writes pass one task, which checks their
//! preconditions against what is committed and what is about to be, writes everything that is
//! waiting in one transaction, and only then publishes it to the caches, in order. Whoever wrote is
//! answered once it is on disk, or before (see [`Durability`]).
//! There is no second writer. Reads never touch the database: they are served from [`cache`].

pub(crate) mod cache;
mod load;
pub(crate) mod object;
mod write;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use db::{Db, Migration};
use serde_json::Value;
use stdx::Supervisor;
use tokio::sync::{mpsc, oneshot};

pub(crate) use cache::{Cache, Event, EventType, Previous, TooOld};
pub(crate) use object::Object;
pub(crate) use write::{Expect, Write};

/// The history of the store's tables, to be handed to [`Db::open`].
pub const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "events and current objects",
    sql: include_str!("schema.sql"),
}];

/// When a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// When it is on disk.
    Synced,
    /// When it can be read; on disk it is a moment later. A crash of the process loses nothing, a
    /// power cut may take such writes back, and those after them.
    Behind,
}

/// Why a write did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Error {
    /// The object is not what the write expected it to be.
    #[error("the object has changed")]
    Conflict,
    /// The database refused; nothing was written.
    #[error("{0}")]
    Database(String),
}

/// The store. It is shared; dropping the last handle ends its writer.
#[derive(Debug)]
pub(crate) struct Store {
    inner: Arc<Inner>,
    queue: mpsc::Sender<write::Pending>,
    /// Keeps the writer's task.
    _supervisor: Supervisor,
}

#[derive(Debug)]
struct Inner {
    db: Db,
    caches: RwLock<HashMap<Box<str>, Arc<Cache>>>,
    /// Everything up to here is committed and in the caches.
    published: AtomicU64,
    /// Nothing up to here could be read back for watches when the store was opened.
    compacted: u64,
}

impl Store {
    /// Loads what is stored.
    pub(crate) async fn open(db: Db) -> Result<Arc<Self>, db::Error> {
        let loaded = load::load(&db).await?;
        let inner = Arc::new(Inner {
            db,
            caches: RwLock::new(loaded.caches),
            published: AtomicU64::new(loaded.rv),
            compacted: loaded.compacted,
        });
        let (queue, pending) = mpsc::channel(1024);
        let supervisor = Supervisor::new();
        supervisor.spawn_graceful(
            "object store writer",
            write::run(Arc::clone(&inner), pending),
        );
        Ok(Arc::new(Self {
            inner,
            queue,
            _supervisor: supervisor,
        }))
    }

    /// The newest resourceVersion whose changes can be read.
    pub(crate) fn rv(&self) -> u64 {
        self.inner.published.load(Ordering::Acquire)
    }

    /// For [`Cache::snapshot`].
    pub(crate) fn position(&self) -> &AtomicU64 {
        &self.inner.published
    }

    /// The cache of a resource, named like `deployments.apps`; made when first asked for.
    pub(crate) fn cache(&self, resource: &str) -> Arc<Cache> {
        self.inner.cache(resource)
    }

    /// Writes one object: its new state is returned once it is on disk.
    pub(crate) async fn write(&self, write: Write) -> Result<Arc<Object>, Error> {
        self.write_as(write, Durability::Synced).await
    }

    /// Writes one object and returns its new state.
    pub(crate) async fn write_as(
        &self,
        write: Write,
        durability: Durability,
    ) -> Result<Arc<Object>, Error> {
        let mut written = self.submit(vec![write], durability).await?;
        Ok(written
            .pop()
            .expect("invariant: one write gives one object"))
    }

    /// Writes several objects in one transaction, or none.
    pub(crate) async fn write_all(&self, writes: Vec<Write>) -> Result<Vec<Arc<Object>>, Error> {
        self.submit(writes, Durability::Synced).await
    }

    async fn submit(
        &self,
        writes: Vec<Write>,
        durability: Durability,
    ) -> Result<Vec<Arc<Object>>, Error> {
        let (answer, answered) = oneshot::channel();
        let closed = || Error::Database("the object store is closed".to_owned());
        self.queue
            .send(write::Pending {
                writes,
                durability,
                answer,
            })
            .await
            .map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// One object as a tree.
    pub(crate) fn get_value(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Value>> {
        let cache = self.cache(&resource_key(group, resource));
        cache
            .get(namespace, name)
            .map(|object| Arc::clone(object.value()))
    }

    /// The objects of a namespace, or everywhere when it is empty, as trees.
    pub(crate) fn list_values(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
    ) -> Vec<Arc<Value>> {
        let cache = self.cache(&resource_key(group, resource));
        let snapshot = cache.snapshot(namespace, self.position());
        snapshot
            .objects
            .iter()
            .map(|object| Arc::clone(object.value()))
            .collect()
    }

    /// Whether the database can be read.
    pub(crate) async fn reachable(&self) -> bool {
        let read = db::sqlx::query("SELECT rv FROM compaction").fetch_one(self.inner.db.reader());
        read.await.is_ok()
    }

    /// How many objects there are, per resource.
    pub(crate) fn counts(&self) -> Vec<(String, usize)> {
        let caches = self
            .inner
            .caches
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut counts: Vec<_> = caches
            .iter()
            .map(|(name, cache)| (name.to_string(), cache.len()))
            .collect();
        counts.sort();
        counts
    }
}

impl Inner {
    fn cache(&self, resource: &str) -> Arc<Cache> {
        if let Some(cache) = self
            .caches
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(resource)
        {
            return Arc::clone(cache);
        }
        let mut caches = self.caches.write().unwrap_or_else(PoisonError::into_inner);
        let cache = caches.entry(resource.into()).or_insert_with(|| {
            let cache = Cache::default();
            cache.forget_up_to(self.compacted);
            Arc::new(cache)
        });
        Arc::clone(cache)
    }
}

/// How a resource is named in the store: `pods`, `deployments.apps`.
pub(crate) fn resource_key(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}

#[cfg(test)]
mod tests;
