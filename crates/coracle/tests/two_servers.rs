//! Two servers on one machine at once: neither sees the other's Pods, addresses or ports.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use support::cluster::{create, delete_now, when};
use support::{Server, http, until};

/// A Pod that serves a page at its own address, and a Service before it; their addresses.
async fn serve(server: &Server) -> (String, String, i32) {
    let client = server.client().await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let services: Api<Service> = Api::namespaced(client, "default");
    let service = create(
        &services,
        json!({
            "metadata": {"name": "web"},
            "spec": {"type": "NodePort", "selector": {"app": "web"},
                "ports": [{"port": 5005, "targetPort": 5000}]},
        }),
    )
    .await;
    create(
        &pods,
        json!({
            "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main",
                "image": "gcr.io/kubeflow-examples/mnist/web-ui:v1",
                "ports": [{"containerPort": 5000}],
                "readinessProbe": {"tcpSocket": {"port": 5000}, "periodSeconds": 1}}]},
        }),
    )
    .await;
    let pod = when(&pods, "web", "ready", |pod: &Pod| {
        let conditions = pod
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten());
        conditions
            .clone()
            .any(|c| c.type_ == "Ready" && c.status == "True")
    })
    .await;
    let spec = service.spec.unwrap();
    let node_port = spec.ports.unwrap()[0].node_port.unwrap();
    (
        pod.status.unwrap().pod_ip.unwrap(),
        spec.cluster_ip.unwrap(),
        node_port,
    )
}

async fn answers(url: &str) -> bool {
    http::get(url)
        .await
        .is_ok_and(|answer| answer.status.is_success())
}

#[tokio::test]
async fn neither_sees_the_other() {
    let (one, two) = (Server::start(), Server::start());
    let (first, second) = (serve(&one).await, serve(&two).await);
    assert_ne!(first.0, second.0, "Pods have addresses of their own");
    assert_ne!(first.1, second.1, "so have Services");

    // The same container port, the same Service port, at the same time.
    for (server, (pod, cluster, node_port)) in [(&one, &first), (&two, &second)] {
        for url in [
            format!("http://{pod}:5000/"),
            format!("http://{cluster}:5005/"),
            format!("http://127.0.0.1:{node_port}/"),
        ] {
            until(&format!("{url} answers"), async || {
                answers(&url).await.then_some(())
            })
            .await;
        }
        let pods: Api<Pod> = Api::all(server.client().await);
        let names: Vec<_> = pods.list(&ListParams::default()).await.unwrap().items;
        assert_eq!(names.len(), 1, "it lists its own Pod alone");
    }

    // What ends in one goes on in the other.
    delete_now(&one.pods().await, "web").await;
    let url = format!("http://{}:5005/", first.1);
    until("the first Service has nobody behind it", async || {
        (!answers(&url).await).then_some(())
    })
    .await;
    assert!(answers(&format!("http://{}:5005/", second.1)).await);

    // A crash of one and its clean-up leave the other alone.
    one.kill();
    let down = one.run(&["down"]);
    assert!(down.status.success(), "{}", support::said(&down));
    assert!(answers(&format!("http://{}:5005/", second.1)).await);
    assert!(answers(&format!("http://{}:5000/", second.0)).await);

    // And the addresses of a data directory stay its own.
    two.kill();
    two.up();
    let again: Api<Pod> = two.pods().await;
    let pod = when(&again, "web", "running", |pod: &Pod| {
        pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
    })
    .await;
    assert_eq!(pod.status.unwrap().pod_ip.unwrap(), second.0);
    let url = format!("http://{}:5005/", second.1);
    until("its Service answers again", async || {
        answers(&url).await.then_some(())
    })
    .await;
}
