//! The store alone: order, preconditions, what a snapshot shows, compaction.

use std::sync::Arc;

use db::Db;
use serde_json::{Value, json};
use stdx::Supervisor;

use super::{Error, Expect, MIGRATIONS, Store, TooOld, Write};

async fn database(name: &str) -> Db {
    Db::open(db::Options::memory(name), MIGRATIONS, &Supervisor::new())
        .await
        .unwrap()
}

fn write(name: &str, expect: Expect, value: Option<&str>) -> Write {
    let object =
        |v: &str| json!({"apiVersion": "v1", "kind": "T", "metadata": {"name": name}, "v": v});
    Write {
        resource: "things".into(),
        namespace: "ns".to_owned(),
        name: name.to_owned(),
        expect,
        object: value.map(object),
    }
}

#[tokio::test]
async fn a_write_holds_only_for_the_version_it_expects() {
    let store = Store::open(database("store-expect").await).await.unwrap();
    let first = store
        .write(write("a", Expect::Absent, Some("1")))
        .await
        .unwrap();
    let again = store.write(write("a", Expect::Absent, Some("2"))).await;
    assert!(matches!(again, Err(Error::Conflict)));
    let second = store
        .write(write("a", Expect::Version(first.rv), Some("2")))
        .await
        .unwrap();
    let stale = store
        .write(write("a", Expect::Version(first.rv), None))
        .await;
    assert!(matches!(stale, Err(Error::Conflict)));
    let gone = store
        .write(write("a", Expect::Version(second.rv), None))
        .await
        .unwrap();
    assert_eq!((gone.rv, store.rv()), (second.rv + 1, second.rv + 1));
    assert!(store.cache("things").get("ns", "a").is_none());
}

#[tokio::test]
async fn writes_that_belong_together_all_happen_or_none() {
    let store = Store::open(database("store-all").await).await.unwrap();
    store
        .write(write("b", Expect::Absent, Some("1")))
        .await
        .unwrap();
    let both = vec![
        write("a", Expect::Absent, Some("1")),
        write("b", Expect::Absent, Some("1")),
    ];
    assert!(matches!(store.write_all(both).await, Err(Error::Conflict)));
    assert!(store.cache("things").get("ns", "a").is_none());
}

#[tokio::test]
async fn of_many_writers_of_one_version_one_wins() {
    let store = Store::open(database("store-race").await).await.unwrap();
    let first = store
        .write(write("a", Expect::Absent, Some("0")))
        .await
        .unwrap();
    let writes = (0..20).map(|i| {
        let store = Arc::clone(&store);
        let write = write("a", Expect::Version(first.rv), Some(&i.to_string()));
        async move { store.write(write).await.is_ok() }
    });
    let won = futures::future::join_all(writes)
        .await
        .into_iter()
        .filter(|ok| *ok)
        .count();
    assert_eq!(won, 1);
}

#[tokio::test]
async fn the_past_can_be_listed_as_far_as_it_is_kept() {
    let store = Store::open(database("store-past").await).await.unwrap();
    let a = store
        .write(write("a", Expect::Absent, Some("1")))
        .await
        .unwrap();
    store
        .write(write("b", Expect::Absent, Some("1")))
        .await
        .unwrap();
    let then = store.rv();
    store
        .write(write("a", Expect::Version(a.rv), None))
        .await
        .unwrap();
    store
        .write(write("c", Expect::Absent, Some("1")))
        .await
        .unwrap();
    let cache = store.cache("things");
    let names = |objects: Vec<Arc<super::Object>>| -> Vec<String> {
        objects.iter().map(|o| o.name.to_string()).collect()
    };
    assert_eq!(names(cache.snapshot_at("ns", then).unwrap()), ["a", "b"]);
    assert_eq!(
        names(cache.snapshot("ns", store.position()).objects),
        ["b", "c"]
    );
    cache.forget_up_to(then + 1);
    assert_eq!(
        cache.snapshot_at("ns", then).unwrap_err(),
        TooOld { oldest: then + 1 }
    );
}

#[tokio::test]
async fn a_compacted_store_keeps_what_is_current() {
    let database = database("store-compact").await;
    let store = Store::open(database.clone()).await.unwrap();
    store
        .write(write("still", Expect::Absent, Some("1")))
        .await
        .unwrap();
    let mut last = store
        .write(write("busy", Expect::Absent, Some("0")))
        .await
        .unwrap();
    for i in 0..6000 {
        let next = write("busy", Expect::Version(last.rv), Some(&i.to_string()));
        last = store.write(next).await.unwrap();
    }
    let rows: i64 = db::sqlx::query_scalar("SELECT COUNT(*) FROM event")
        .fetch_one(database.reader())
        .await
        .unwrap();
    assert!(rows < 5200, "{rows} events are kept");
    drop(store);
    let store = Store::open(database).await.unwrap();
    assert_eq!(store.rv(), last.rv);
    let cache = store.cache("things");
    assert_eq!(cache.len(), 2);
    let value: &Value = &cache.get("ns", "busy").unwrap().value().clone();
    assert_eq!(value["v"], "5999");
    assert!(cache.events_after(1).is_err());
    assert!(store.cache("unheard-of").events_after(1).is_err());
    assert!(cache.events_after(last.rv - 10).is_ok());
}
