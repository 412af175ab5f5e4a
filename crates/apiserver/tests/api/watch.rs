//! Watches over HTTP: nothing is missed, nothing comes twice, selectors and expiry.

use std::collections::BTreeMap;

use apiserver::UserInfo;
use axum::body::Body;
use futures::StreamExt as _;
use http::Request;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{Fixture, config_map, start};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The events of a watch, one at a time.
struct Events {
    body: axum::body::BodyDataStream,
    buffer: Vec<u8>,
}

impl Events {
    async fn open(fixture: &Fixture, query: &str) -> Self {
        let mut request = Request::get(format!("{MAPS}?watch=1&{query}"))
            .body(Body::empty())
            .unwrap();
        request.extensions_mut().insert(UserInfo::admin("admin"));
        let response = fixture.server.service().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        Self {
            body: response.into_body().into_data_stream(),
            buffer: Vec::new(),
        }
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.buffer
                .extend_from_slice(&self.body.next().await?.unwrap());
        }
    }

    async fn summary(&mut self) -> String {
        let event = self.next().await.unwrap();
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-");
        format!("{} {name}", event["type"].as_str().unwrap())
    }
}

#[tokio::test]
async fn a_watch_has_no_gap_under_concurrent_writes() {
    let fixture = start().await;
    let start = fixture.get(MAPS).await.body["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut early = Events::open(&fixture, &format!("resourceVersion={start}")).await;
    let writers = (0..8).map(|writer| {
        let fixture = &fixture;
        async move {
            for round in 0..10 {
                let name = format!("m{}", (writer * 3 + round) % 12);
                match round % 3 {
                    0 => drop(fixture.post(MAPS, &config_map(&name)).await),
                    1 => {
                        let patch = json!({"data": {format!("w{writer}"): round.to_string()}});
                        let path = format!("{MAPS}/{name}");
                        drop(fixture.patch(&path, "merge-patch+json", &patch).await);
                    }
                    _ => drop(fixture.delete(&format!("{MAPS}/{name}")).await),
                }
            }
        }
    });
    futures::future::join_all(writers).await;
    fixture.post(MAPS, &config_map("last")).await;
    // A watcher that came first and one that comes late see the same, and it adds up to the list.
    let mut late = Events::open(&fixture, &format!("resourceVersion={start}")).await;
    let mut state: BTreeMap<String, String> = BTreeMap::new();
    let mut previous = start.parse::<u64>().unwrap();
    loop {
        let event = early.next().await.unwrap();
        assert_eq!(Some(&event), late.next().await.as_ref());
        let metadata = &event["object"]["metadata"];
        let name = metadata["name"].as_str().unwrap().to_owned();
        let version = metadata["resourceVersion"].as_str().unwrap().to_owned();
        let number = version.parse::<u64>().unwrap();
        assert!(number > previous, "{number} after {previous}");
        previous = number;
        let known = state.contains_key(&name);
        match event["type"].as_str().unwrap() {
            "ADDED" => assert!(!known && state.insert(name.clone(), version).is_none()),
            "MODIFIED" => assert!(known && state.insert(name.clone(), version).is_some()),
            "DELETED" => assert!(state.remove(&name).is_some()),
            other => panic!("{other}"),
        }
        if name == "last" {
            break;
        }
    }
    let list = fixture.get(MAPS).await.body;
    let listed: BTreeMap<String, String> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let text = |key: &str| item["metadata"][key].as_str().unwrap().to_owned();
            (text("name"), text("resourceVersion"))
        })
        .collect();
    assert_eq!(state, listed);
}

#[tokio::test]
async fn an_object_enters_and_leaves_a_selection() {
    let fixture = start().await;
    let mut events = Events::open(&fixture, "labelSelector=t%3Dx").await;
    fixture.post(MAPS, &config_map("a")).await;
    let path = format!("{MAPS}/a");
    let label = |value: Value| json!({"metadata": {"labels": {"t": value}}});
    for value in [json!("x"), json!("y"), json!("x")] {
        fixture
            .patch(&path, "merge-patch+json", &label(value))
            .await;
    }
    fixture
        .patch(&path, "merge-patch+json", &json!({"data": {"k": "v"}}))
        .await;
    fixture.delete(&path).await;
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(events.summary().await);
    }
    assert_eq!(
        seen,
        ["ADDED a", "DELETED a", "ADDED a", "MODIFIED a", "DELETED a"]
    );
}

#[tokio::test]
async fn the_end_of_initial_events_is_marked() {
    let fixture = start().await;
    fixture.post(MAPS, &config_map("a")).await;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = Events::open(&fixture, query).await;
    assert_eq!(events.summary().await, "ADDED a");
    let mark = events.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(
        mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
}

#[tokio::test]
async fn a_position_that_is_no_longer_kept_is_expired() {
    let fixture = start().await;
    fixture.post(MAPS, &config_map("a")).await;
    for i in 0..1100 {
        let patch = json!({"data": {"k": i.to_string()}});
        fixture
            .patch(&format!("{MAPS}/a"), "merge-patch+json", &patch)
            .await;
    }
    let mut events = Events::open(&fixture, "resourceVersion=1").await;
    let error = events.next().await.unwrap();
    assert_eq!(
        (error["type"].as_str(), error["object"]["code"].as_u64()),
        (Some("ERROR"), Some(410))
    );
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn watches_end_when_the_server_stops() {
    let fixture = start().await;
    let mut events = Events::open(&fixture, "resourceVersion=0").await;
    fixture.server.shutdown().await;
    assert!(events.next().await.is_none());
}
