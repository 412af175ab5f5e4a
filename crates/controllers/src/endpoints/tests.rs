//! Endpoints of Services over Pods in every state that matters.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::{Change, Observed, plan};

fn service(spec: Value) -> Arc<Service> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": "s", "namespace": "n", "uid": "svc", "labels": {"team": "a"}},
            "spec": spec,
        }))
        .unwrap(),
    )
}

fn pod(name: &str, ip: &str, ready: bool, port: i32) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "a"}},
        "spec": {"nodeName": "node", "containers": [{"name": "c",
            "ports": [{"name": "web", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIP": ip, "conditions":
            [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    }))
    .unwrap()
}

fn observe(service: Arc<Service>, pods: Vec<Pod>) -> Observed {
    Observed {
        service,
        pods: pods.into_iter().map(Arc::new).collect(),
        zones: BTreeMap::from([("node".to_owned(), "here".to_owned())]),
        slices: vec![],
        endpoints: None,
    }
}

fn created(changes: Vec<Change>) -> (Vec<EndpointSlice>, Endpoints) {
    let mut slices = Vec::new();
    let mut endpoints = None;
    for change in changes {
        match change {
            Change::CreateSlice(slice) => slices.push(*slice),
            Change::CreateEndpoints(made) => endpoints = Some(*made),
            other => panic!("unexpected {other:?}"),
        }
    }
    (slices, endpoints.unwrap())
}

fn web() -> Arc<Service> {
    service(json!({"selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": "web"}]}))
}

#[test]
fn ready_and_unready_pods_are_told_apart_in_both_forms() {
    let pods = vec![
        pod("p1", "10.0.0.1", true, 5000),
        pod("p2", "10.0.0.2", false, 5000),
    ];
    let (slices, endpoints) = created(plan(&observe(web(), pods)));
    let [slice] = slices.as_slice() else {
        panic!("one slice")
    };
    assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(5000));
    let ready = |i: usize| slice.endpoints[i].conditions.as_ref().unwrap().ready;
    assert_eq!((ready(0), ready(1)), (Some(true), Some(false)));
    assert_eq!(slice.endpoints[0].zone.as_deref(), Some("here"));
    assert_eq!(slice.metadata.labels.as_ref().unwrap()["team"], "a");
    let subset = &endpoints.subsets.unwrap()[0];
    assert_eq!(subset.addresses.as_ref().unwrap()[0].ip, "10.0.0.1");
    assert_eq!(
        subset.not_ready_addresses.as_ref().unwrap()[0].ip,
        "10.0.0.2"
    );
}

#[test]
fn pods_whose_named_port_differs_are_in_slices_of_their_own() {
    let pods = vec![
        pod("p1", "10.0.0.1", true, 5000),
        pod("p2", "10.0.0.2", true, 6000),
    ];
    let (slices, endpoints) = created(plan(&observe(web(), pods)));
    let ports: Vec<_> = slices
        .iter()
        .map(|s| s.ports.as_ref().unwrap()[0].port)
        .collect();
    assert_eq!(ports, [Some(5000), Some(6000)]);
    assert_eq!(endpoints.subsets.unwrap().len(), 2);
}

#[test]
fn a_service_without_pods_has_an_empty_slice() {
    let (slices, endpoints) = created(plan(&observe(web(), vec![])));
    assert!(slices[0].endpoints.is_empty() && slices[0].ports.is_none());
    assert!(endpoints.subsets.is_none());
}

#[test]
fn a_terminating_pod_serves_without_being_ready() {
    let mut leaving = pod("p1", "10.0.0.1", true, 5000);
    leaving.metadata.deletion_timestamp = Some(crate::meta::whole_seconds(jiff::Timestamp::MIN));
    let (slices, endpoints) = created(plan(&observe(web(), vec![leaving])));
    let conditions = slices[0].endpoints[0].conditions.clone().unwrap();
    assert_eq!(
        (conditions.ready, conditions.serving, conditions.terminating),
        (Some(false), Some(true), Some(true))
    );
    assert!(endpoints.subsets.is_none());
}

#[test]
fn not_ready_addresses_are_published_when_the_service_asks_for_it() {
    let service = service(json!({"selector": {"app": "a"}, "clusterIP": "None",
        "publishNotReadyAddresses": true}));
    let (slices, endpoints) = created(plan(&observe(
        service,
        vec![pod("p", "10.0.0.1", false, 1)],
    )));
    assert_eq!(
        slices[0].endpoints[0].conditions.as_ref().unwrap().ready,
        Some(true)
    );
    assert!(
        slices[0]
            .metadata
            .labels
            .as_ref()
            .unwrap()
            .contains_key(super::HEADLESS)
    );
    assert_eq!(
        endpoints.subsets.unwrap()[0]
            .addresses
            .as_ref()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn what_is_right_already_is_not_written_again() {
    let mut observed = observe(web(), vec![pod("p1", "10.0.0.1", true, 5000)]);
    let (slices, endpoints) = created(plan(&observed));
    observed.slices = slices.into_iter().map(Arc::new).collect();
    observed.endpoints = Some(Arc::new(endpoints));
    assert!(plan(&observed).is_empty());
    observed.pods.clear();
    let changes = plan(&observed);
    assert!(matches!(
        changes[..],
        [Change::ReplaceSlice(_), Change::ReplaceEndpoints(_)]
    ));
}

#[test]
fn more_than_a_hundred_endpoints_need_a_second_slice() {
    let pods = (0..130)
        .map(|i| pod(&format!("p{i}"), &format!("10.0.1.{i}"), true, 1))
        .collect();
    let (slices, _) = created(plan(&observe(web(), pods)));
    let sizes: Vec<_> = slices.iter().map(|slice| slice.endpoints.len()).collect();
    assert_eq!(sizes, [100, 30]);
}
