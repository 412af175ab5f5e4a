//! What a restart finds: the same objects, the same versions, watches that go on.

use apiserver::{MIGRATIONS, Server, UserInfo};
use axum::body::Body;
use db::Db;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use stdx::Supervisor;
use tower::ServiceExt as _;

use crate::support::{Fixture, config_map, options};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kube.db");
    let supervisor = Supervisor::new();
    let open = || Db::open(db::Options::file(&file), MIGRATIONS, &supervisor);
    let database = open().await.unwrap();
    let server = Server::open(options(database.clone())).await.unwrap();
    let fixture = Fixture {
        server,
        supervisor: supervisor.clone(),
    };
    fixture.post(MAPS, &config_map("kept")).await;
    let version = fixture.get(MAPS).await.body["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    fixture.post(MAPS, &config_map("gone")).await;
    fixture
        .patch(
            &format!("{MAPS}/kept"),
            "merge-patch+json",
            &json!({"data": {"k": "v"}}),
        )
        .await;
    fixture.delete(&format!("{MAPS}/gone")).await;
    let before = fixture.get(MAPS).await;
    drop(fixture);
    database.close().await;

    let database = open().await.unwrap();
    let server = Server::open(options(database.clone())).await.unwrap();
    let fixture = Fixture {
        server,
        supervisor: supervisor.clone(),
    };
    assert_eq!(fixture.get(MAPS).await.text, before.text);
    let namespaces = fixture.get("/api/v1/namespaces").await.body;
    assert_eq!(namespaces["items"].as_array().unwrap().len(), 4);

    // A watch from before the restart sees what it missed.
    let uri = format!("{MAPS}?watch=1&resourceVersion={version}&timeoutSeconds=1");
    let mut request = Request::get(uri).body(Body::empty()).unwrap();
    request.extensions_mut().insert(UserInfo::admin("admin"));
    let response = fixture.server.service().oneshot(request).await.unwrap();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let events: Vec<String> = text
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            let event: Value = serde_json::from_slice(line).unwrap();
            let name = event["object"]["metadata"]["name"].as_str().unwrap();
            format!("{} {name}", event["type"].as_str().unwrap())
        })
        .collect();
    assert_eq!(events, ["ADDED gone", "MODIFIED kept", "DELETED gone"]);

    let next = fixture.post(MAPS, &config_map("next")).await.body;
    let number = |value: &Value| {
        value["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    assert!(number(&next) > number(&before.body));
    database.close().await;
}

#[tokio::test]
async fn a_store_that_cannot_be_written_answers_and_lives() {
    let folder = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::new();
    let location = db::Options::file(folder.path().join("kube.db"));
    let database = Db::open(location, MIGRATIONS, &supervisor).await.unwrap();
    let server = Server::open(options(database.clone())).await.unwrap();
    let fixture = Fixture { server, supervisor };
    database.close().await;
    let refused = fixture.post(MAPS, &config_map("a")).await;
    assert_eq!(refused.code, 500, "{}", refused.text);
    assert!(refused.text.contains("database"), "{}", refused.text);
    assert_eq!(fixture.get(MAPS).await.code, 200);
    assert_eq!(fixture.get(&format!("{MAPS}/a")).await.code, 404);
}
