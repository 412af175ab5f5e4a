//! Reading the store back at start-up: what is current, and the changes watches may resume from.

use std::collections::HashMap;
use std::sync::Arc;

use db::sqlx::Row as _;
use db::{Db, sqlx};

use super::cache::{Cache, Event, EventType, Previous};
use super::object::{Object, key};

pub(super) struct Loaded {
    pub(super) caches: HashMap<Box<str>, Arc<Cache>>,
    pub(super) rv: u64,
    pub(super) compacted: u64,
}

pub(super) async fn load(db: &Db) -> Result<Loaded, db::Error> {
    let mut caches: HashMap<Box<str>, Arc<Cache>> = HashMap::new();
    let compacted: i64 = sqlx::query_scalar("SELECT rv FROM compaction")
        .fetch_one(db.reader())
        .await?;
    let compacted = compacted as u64;
    let rows = sqlx::query(
        "SELECT e.rv, e.resource, e.namespace, e.name, e.type, e.object, c.rv IS NOT NULL AS live \
         FROM event e LEFT JOIN current c ON c.rv = e.rv ORDER BY e.rv",
    )
    .fetch_all(db.reader())
    .await?;
    let mut rv = compacted;
    let mut latest: HashMap<(Box<str>, String), Arc<Object>> = HashMap::new();
    for row in rows {
        let number = row.try_get::<i64, _>(0)? as u64;
        let resource: String = row.try_get(1)?;
        let namespace: String = row.try_get(2)?;
        let name: String = row.try_get(3)?;
        let kind = match row.try_get::<i64, _>(4)? {
            0 => EventType::Added,
            1 => EventType::Modified,
            _ => EventType::Deleted,
        };
        let live: bool = row.try_get(6)?;
        rv = rv.max(number);
        let at = (resource.into_boxed_str(), key(&namespace, &name));
        let object = Arc::new(Object::stored(namespace, name, number, row.try_get(5)?));
        let cache = caches.entry(at.0.clone()).or_default();
        if live {
            cache.restore_object(Arc::clone(&object));
        }
        let before = latest.insert(at, Arc::clone(&object));
        if number > compacted {
            let previous = match (kind, before) {
                (EventType::Added, _) => Previous::None,
                (_, Some(before)) => Previous::Known(before),
                (_, None) => Previous::Forgotten,
            };
            cache.restore_event(Event {
                kind,
                object,
                previous,
            });
        }
    }
    for cache in caches.values() {
        cache.forget_up_to(compacted);
    }
    Ok(Loaded {
        caches,
        rv,
        compacted,
    })
}
