//! The kubelet's own server: logs and commands over HTTPS.

use crate::support::Rig;
use futures::StreamExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use kubelet::runtime::fake::Behaviour;
use serde_json::{Value, json};

async fn running_pod(rig: &Rig) -> Value {
    rig.pod(
        "p",
        json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "img"}]}),
    );
    let running = |p: &Value| crate::support::phase(p) == "Running";
    rig.wait_for(rig.api.pod("p", running)).await
}

fn client(rig: &Rig) -> kube::Client {
    let uri = format!("https://{}", rig.address).parse().unwrap();
    let mut config = kube::Config::new(uri);
    config.accept_invalid_certs = true;
    kube::Client::try_from(config).unwrap()
}

async fn get(client: &kube::Client, path: &str) -> Result<String, kube::Error> {
    client
        .request_text(Request::get(path).body(Vec::new()).unwrap())
        .await
}

#[tokio::test]
async fn logs_are_served_whole_in_part_and_as_they_grow() {
    let rig = Rig::new(|_| Behaviour::Run).await;
    running_pod(&rig).await;
    let path = rig.runtime.started()[0].log.path.clone();
    std::fs::write(
        &path,
        "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stderr F two\n",
    )
    .unwrap();
    let client = client(&rig);
    let logs = "/containerLogs/default/p/c";
    assert_eq!(get(&client, logs).await.unwrap(), "one\ntwo\n");
    assert_eq!(
        get(&client, &format!("{logs}?tailLines=1&timestamps=true"))
            .await
            .unwrap(),
        "2026-01-01T00:00:01Z two\n"
    );
    let refused = |error: kube::Error| match error {
        kube::Error::Api(status) => (status.code, status.message.clone()),
        other => panic!("{other}"),
    };
    let (code, _) = refused(
        get(&client, "/containerLogs/default/none/c")
            .await
            .unwrap_err(),
    );
    assert_eq!(code, 404);
    let (code, message) = refused(
        get(&client, "/containerLogs/default/p/x")
            .await
            .unwrap_err(),
    );
    assert_eq!(code, 400);
    assert!(message.contains("known: c"), "{message}");
    let (code, message) = refused(
        get(&client, &format!("{logs}?previous=true"))
            .await
            .unwrap_err(),
    );
    assert_eq!(code, 400);
    assert!(message.contains("previous terminated container \"c\" in pod \"p\" not found"));
    let (code, _) = refused(
        get(&client, &format!("{logs}?tailLines=-1"))
            .await
            .unwrap_err(),
    );
    assert_eq!(code, 400);

    let follow = Request::get(format!("{logs}?follow=true"))
        .body(kube::client::Body::empty())
        .unwrap();
    let mut body = client
        .send(follow)
        .await
        .unwrap()
        .into_body()
        .into_data_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), "one\ntwo\n");
    let more = "2026-01-01T00:00:02Z stdout F three\n";
    use std::io::Write as _;
    std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(more.as_bytes())
        .unwrap();
    assert_eq!(body.next().await.unwrap().unwrap(), "three\n");
    rig.runtime.exit("c", 0);
    assert!(
        rig.wait_for(body.next()).await.is_none(),
        "it ends with the container"
    );
    assert_eq!(get(&client, logs).await.unwrap(), "one\ntwo\nthree\n");
}

#[tokio::test]
async fn a_command_answers_over_its_channels_and_its_code_comes_last() {
    let rig = Rig::new(|_| Behaviour::Run).await;
    running_pod(&rig).await;
    rig.runtime
        .on_exec(|_, spec| (3, format!("ran {}", spec.argv.join(" "))));
    let request =
        Request::get("/exec/default/p/c?command=echo&command=hi%20there&stdout=true&stderr=true")
            .body(Vec::new())
            .unwrap();
    let connection = client(&rig).connect(request).await.unwrap();
    let mut stream = connection.into_stream();
    let mut channels = [String::new(), String::new(), String::new(), String::new()];
    let mut closed = None;
    while let Some(Ok(message)) = stream.next().await {
        if message.is_close() {
            closed = Some(format!("{message:?}"));
        } else if message.is_binary() {
            let data = message.into_data();
            channels[usize::from(data[0])].push_str(std::str::from_utf8(&data[1..]).unwrap());
        }
    }
    assert!(
        closed.unwrap().contains("Normal"),
        "clients want a normal close"
    );
    assert_eq!(channels[1], "ran echo hi there");
    let status: Value = serde_json::from_str(&channels[3]).unwrap();
    assert_eq!(status["status"], "Failure");
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(
        status["details"]["causes"],
        json!([{"reason": "ExitCode", "message": "3"}])
    );
    assert_eq!(rig.runtime.commands()[0].1, ["echo", "hi there"]);
}

#[tokio::test]
async fn the_node_tells_which_pods_it_has_and_what_they_use() {
    let rig = Rig::new(|_| Behaviour::Run).await;
    running_pod(&rig).await;
    let client = client(&rig);
    assert_eq!(get(&client, "/healthz").await.unwrap(), "ok");
    let pods: Value = serde_json::from_str(&get(&client, "/pods").await.unwrap()).unwrap();
    assert_eq!(pods["items"][0]["metadata"]["name"], "p");
    let stats: Value =
        serde_json::from_str(&get(&client, "/stats/summary").await.unwrap()).unwrap();
    assert_eq!(stats["node"]["nodeName"], "n");
    assert_eq!(stats["pods"][0]["containers"][0]["name"], "c");
}
