//! Who announces what, and the speaker's verbs.

use serde_json::Value;
use stdx::{OnError, Supervisor, SystemClock};

use super::*;
use crate::fake_api::FakeApi;
use crate::metallb::metrics::Metrics;

const POOLS: &str = "address-pools: [{name: a, protocol: layer2, addresses: [127.77.0.0/24]}]";

fn from<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn service() -> Value {
    json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"type": "LoadBalancer"},
        "status": {"loadBalancer": {"ingress": [{"ip": "127.77.0.7"}]}}})
}

fn endpoints(subsets: &Value) -> Value {
    json!({"metadata": {"name": "s", "namespace": "n"}, "subsets": subsets})
}

/// Which of three nodes announce the Service.
fn announcers(service: Value, subsets: &Value) -> Vec<&'static str> {
    let config = config::parse(POOLS).unwrap();
    let services = BTreeMap::from([("n/s".to_owned(), from(service))]);
    let endpoints = BTreeMap::from([("n/s".to_owned(), from(endpoints(subsets)))]);
    let announces = |node: &&str| !wanted(&config, &services, &endpoints, node).is_empty();
    ["a", "b", "c"].into_iter().filter(announces).collect()
}

#[test]
fn one_of_the_nodes_with_ready_pods_announces() {
    let on = |nodes: &[&str]| {
        let addresses: Vec<Value> = nodes
            .iter()
            .enumerate()
            .map(|(at, node)| json!({"ip": format!("10.1.0.{at}"), "nodeName": node}))
            .collect();
        json!([{"addresses": addresses}])
    };
    assert_eq!(announcers(service(), &on(&["b"])), ["b"]);
    assert_eq!(announcers(service(), &on(&["a", "b", "c"])).len(), 1);
    let none: [&str; 0] = [];
    let unready = json!([{"notReadyAddresses": [{"ip": "10.1.0.1", "nodeName": "a"}]}]);
    assert_eq!(announcers(service(), &unready), none);
    assert_eq!(announcers(service(), &json!([])), none);
    // Ready on one port, not on the other.
    let half = json!([{"addresses": [{"ip": "10.1.0.1", "nodeName": "a"}], "ports": [{"port": 1}]},
        {"notReadyAddresses": [{"ip": "10.1.0.1", "nodeName": "a"}], "ports": [{"port": 2}]}]);
    assert_eq!(announcers(service(), &half), none);
}

#[test]
fn only_load_balancers_with_an_address_of_a_pool_are_announced() {
    let subsets = json!([{"addresses": [{"ip": "10.1.0.1", "nodeName": "a"}]}]);
    for (path, value) in [
        ("/spec/type", json!("ClusterIP")),
        ("/status/loadBalancer/ingress/0/ip", json!("192.0.2.1")),
        ("/status/loadBalancer/ingress", json!([])),
    ] {
        let mut service = service();
        *service.pointer_mut(path).unwrap() = value;
        assert!(announcers(service, &subsets).is_empty(), "{path}");
    }
}

#[tokio::test]
async fn announcements_follow_the_cluster() {
    let (api, supervisor, metrics) = (FakeApi::new(), Supervisor::new(), Metrics::default());
    let setup = Setup {
        client: api.client(),
        namespace: "metallb-system".to_owned(),
        config_map: "config".to_owned(),
        metrics: metrics.clone(),
        clock: SystemClock::shared(),
    };
    let ready = json!([{"addresses": [{"ip": "10.1.0.1", "nodeName": "here"}]}]);
    api.put("services", service());
    api.put("endpoints", endpoints(&ready));
    let config = |text: &str| {
        let metadata = json!({"name": "config", "namespace": "metallb-system"});
        api.put(
            "configmaps",
            json!({"metadata": metadata, "data": {"config": text}}),
        );
    };
    config(POOLS);
    supervisor.spawn(
        "speaker",
        OnError::Log,
        Box::pin(run(setup, "here".to_owned())),
    );
    let series = "metallb_speaker_announced{service=\"n/s\",protocol=\"layer2\",node=\"here\",\
                  ip=\"127.77.0.7\"} 1";
    let until = async |text: &str, wanted: bool| {
        let met = async {
            while metrics.render().contains(text) != wanted {
                tokio::task::yield_now().await;
            }
        };
        let patience = std::time::Duration::from_secs(20);
        let outcome = tokio::time::timeout(patience, met).await;
        assert!(outcome.is_ok(), "{text} {wanted}: {}", metrics.render());
    };
    until(series, true).await;
    api.put("endpoints", endpoints(&json!([])));
    until(series, false).await;
    api.put("endpoints", endpoints(&ready));
    until(series, true).await;
    // A bad configuration changes nothing.
    config("address-pools: {");
    until("metallb_k8s_client_config_stale_bool 1", true).await;
    until(series, true).await;
    api.delete("services", "s");
    until(series, false).await;
    for request in &api.state().requests {
        let granted = ["GET configmaps", "GET services", "GET endpoints"];
        assert!(granted.contains(&request.as_str()), "{request}");
    }
    supervisor.shutdown().await;
}
