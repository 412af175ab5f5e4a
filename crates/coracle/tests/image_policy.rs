//! ImagePolicy and ClusterImagePolicy, created, changed and deleted while the server runs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use support::Server;
use support::cluster::{create, gone, phase, shell_pod, when};

const GROUP: &str = "securityenforcement.admission.cloud.ibm.com";

fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1beta1", kind))
}

fn policy(kind: &str, name: &str, repositories: &[&str]) -> Value {
    let repositories: Vec<Value> = repositories.iter().map(|r| json!({"name": r})).collect();
    json!({"apiVersion": format!("{GROUP}/v1beta1"), "kind": kind, "metadata": {"name": name},
        "spec": {"repositories": repositories}})
}

async fn make(api: &Api<DynamicObject>, object: Value) {
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

async fn remove(api: &Api<DynamicObject>, name: &str) {
    api.delete(name, &DeleteParams::default()).await.unwrap();
    assert!(api.get_opt(name).await.unwrap().is_none());
}

/// What admission says to a Pod with this image, without making it: the message of a refusal.
async fn judged(client: &Client, namespace: &str, image: &str) -> Option<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut pod = shell_pod("judged", "true");
    pod["spec"]["containers"][0]["image"] = json!(image);
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match pods.create(&dry, &pod).await {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => {
            assert_eq!(
                (status.code, status.reason.as_str()),
                (403, "Forbidden"),
                "{status:?}"
            );
            assert!(
                status.message.contains(image),
                "the image is named: {}",
                status.message
            );
            assert!(status.message.contains("denied"), "{}", status.message);
            Some(status.message.clone())
        }
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn policies_count_at_once_and_the_namespaced_goes_before_the_clusters() {
    let server = Server::start();
    let client = server.client().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in ["strict", "other"] {
        create(&namespaces, json!({"metadata": {"name": name}})).await;
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(client.clone(), name);
        when(&accounts, "default", "made", |_| true).await;
    }
    let strict: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), "strict", &resource("ImagePolicy"));
    let cluster: Api<DynamicObject> =
        Api::all_with(client.clone(), &resource("ClusterImagePolicy"));

    // None: everything is admitted.
    assert_eq!(judged(&client, "strict", "evil.example.com/x").await, None);

    // Created.
    make(&strict, policy("ImagePolicy", "ours", &["docker.io/*"])).await;
    assert!(
        judged(&client, "strict", "evil.example.com/x")
            .await
            .is_some()
    );
    assert!(judged(&client, "strict", "gcr.io/a/b:1").await.is_some());
    assert_eq!(
        judged(&client, "strict", "busybox").await,
        None,
        "docker.io/library/busybox"
    );
    assert_eq!(
        judged(&client, "strict", "metallb/speaker:v0.7.3").await,
        None
    );
    assert_eq!(
        judged(&client, "other", "evil.example.com/x").await,
        None,
        "another namespace"
    );

    // Init containers and templates are judged as well.
    let pods: Api<Pod> = Api::namespaced(client.clone(), "strict");
    let mut pod = shell_pod("init", "true");
    pod["spec"]["initContainers"] = json!([{"name": "i", "image": "evil.example.com/init"}]);
    let refused = pods
        .create(
            &PostParams::default(),
            &serde_json::from_value(pod).unwrap(),
        )
        .await;
    let Err(kube::Error::Api(refused)) = refused else {
        panic!("admitted")
    };
    assert!(
        refused.message.contains("evil.example.com/init"),
        "{}",
        refused.message
    );
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "strict");
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "evil.example.com/d"}]}},
    }});
    let refused = deployments
        .create(
            &PostParams::default(),
            &serde_json::from_value(deployment).unwrap(),
        )
        .await;
    let Err(kube::Error::Api(refused)) = refused else {
        panic!("admitted")
    };
    assert!(
        refused.message.contains("evil.example.com/d"),
        "{}",
        refused.message
    );

    // What runs already may be touched under a stricter policy, but not with a worse image.
    create(&pods, shell_pod("runs", "sleep 1000")).await;
    phase(&pods, "runs", "Running").await;

    // Changed.
    let merge = |value: Value| Patch::Merge(value);
    let params = PatchParams::default();
    let spec = json!({"spec": {"repositories": [{"name": "evil.example.com/*"}]}});
    strict.patch("ours", &params, &merge(spec)).await.unwrap();
    assert_eq!(judged(&client, "strict", "evil.example.com/x").await, None);
    assert!(judged(&client, "strict", "busybox").await.is_some());
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    pods.patch("runs", &params, &merge(labelled)).await.unwrap();
    let image = json!({"spec": {"containers": [{"name": "main", "image": "gcr.io/worse"}]}});
    let worse = pods.patch("runs", &params, &Patch::Strategic(image)).await;
    let Err(kube::Error::Api(worse)) = worse else {
        panic!("admitted")
    };
    assert!(worse.message.contains("gcr.io/worse"), "{}", worse.message);

    // The cluster's counts where a namespace has none of its own.
    make(&cluster, policy("ClusterImagePolicy", "all", &["gcr.io/*"])).await;
    assert!(judged(&client, "other", "busybox").await.is_some());
    assert_eq!(judged(&client, "other", "gcr.io/a/b:1").await, None);
    assert_eq!(
        judged(&client, "strict", "evil.example.com/x").await,
        None,
        "its own goes first"
    );
    assert!(
        judged(&client, "strict", "gcr.io/a/b:1").await.is_some(),
        "and alone"
    );

    // An empty list allows nothing.
    let nothing = json!({"spec": {"repositories": []}});
    strict
        .patch("ours", &params, &merge(nothing))
        .await
        .unwrap();
    assert!(
        judged(&client, "strict", "evil.example.com/x")
            .await
            .is_some()
    );

    // Deleted.
    remove(&strict, "ours").await;
    assert_eq!(
        judged(&client, "strict", "gcr.io/a/b:1").await,
        None,
        "the cluster's decides"
    );
    assert!(
        judged(&client, "strict", "evil.example.com/x")
            .await
            .is_some()
    );
    remove(&cluster, "all").await;
    assert_eq!(judged(&client, "strict", "evil.example.com/x").await, None);
    assert_eq!(judged(&client, "other", "busybox").await, None);

    // A policy goes with its namespace, and a restart forgets none.
    make(&strict, policy("ImagePolicy", "last", &["docker.io/*"])).await;
    server.kill();
    server.up();
    let client = server.client().await;
    assert!(
        judged(&client, "strict", "evil.example.com/x")
            .await
            .is_some()
    );
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .delete("strict", &DeleteParams::default())
        .await
        .unwrap();
    gone(&namespaces, "strict").await;
}
