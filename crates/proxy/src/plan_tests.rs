//! What the proxy listens on for which Service.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

fn here() -> Here {
    Here {
        name: "node".to_owned(),
        address: "127.97.0.1".parse().unwrap(),
        node_port_addresses: vec!["127.0.0.1".parse().unwrap()],
    }
}

fn service(name: &str, created: &str, spec: Value, balancer: &[&str]) -> Arc<Service> {
    let ingress: Vec<Value> = balancer.iter().map(|ip| json!({"ip": ip})).collect();
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "uid": name, "creationTimestamp": created},
            "spec": spec,
            "status": {"loadBalancer": {"ingress": ingress}},
        }))
        .unwrap(),
    )
}

fn slice(service: &str, endpoints: Value) -> Arc<EndpointSlice> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": format!("{service}-1"), "namespace": "n",
                "labels": {SERVICE_NAME: service}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 5000, "protocol": "TCP"}],
            "endpoints": endpoints,
        }))
        .unwrap(),
    )
}

const EARLY: &str = "2026-01-01T00:00:00Z";
const LATE: &str = "2026-01-02T00:00:00Z";

fn planned(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Plan {
    plan(services.iter(), slices.iter(), &here())
}

fn described(plan: &Plan) -> Vec<String> {
    plan.routes
        .iter()
        .map(|(listen, route)| format!("{listen} {} {:?}", route.owner.name, route.endpoints))
        .collect()
}

fn web() -> Arc<Service> {
    let spec = json!({"type": "LoadBalancer", "clusterIP": "127.96.0.9",
        "ports": [{"port": 80, "nodePort": 30080}]});
    service("web", EARLY, spec, &["127.77.0.10"])
}

#[test]
fn a_load_balancer_is_reached_in_every_way() {
    let plan = planned(
        &[web()],
        &[slice("web", json!([{"addresses": ["127.97.0.5"]}]))],
    );
    assert_eq!(
        described(&plan),
        [
            "127.0.0.1:30080 web [127.97.0.5:5000]",
            "127.77.0.10:80 web [127.97.0.5:5000]",
            "127.77.0.10:30080 web [127.97.0.5:5000]",
            "127.96.0.9:80 web [127.97.0.5:5000]",
            "127.97.0.1:30080 web [127.97.0.5:5000]",
        ]
    );
}

#[test]
fn only_ready_endpoints_count_unless_all_are_ending() {
    let ending = json!({"addresses": ["127.97.0.6"],
        "conditions": {"ready": false, "serving": true, "terminating": true}});
    let unready = json!({"addresses": ["127.97.0.7"], "conditions": {"ready": false}});
    let ready = json!({"addresses": ["127.97.0.5"], "conditions": {"ready": true}});
    let cluster = Listen {
        address: "127.96.0.9:80".parse().unwrap(),
        protocol: Protocol::Tcp,
    };
    let targets = |endpoints: Value| {
        planned(&[web()], &[slice("web", endpoints)]).routes[&cluster]
            .endpoints
            .clone()
    };
    assert_eq!(
        targets(json!([ready, ending, unready])),
        ["127.97.0.5:5000".parse().unwrap()]
    );
    assert_eq!(
        targets(json!([ending, unready])),
        ["127.97.0.6:5000".parse().unwrap()]
    );
    assert!(targets(json!([unready])).is_empty());
}

#[test]
fn an_address_that_two_want_stays_with_the_older_and_the_other_is_told() {
    let spec = |cluster: &str| {
        json!({"clusterIP": cluster, "externalIPs": ["127.0.0.9"],
        "ports": [{"port": 80}]})
    };
    let services = [
        service("young", LATE, spec("127.96.0.2"), &[]),
        service("old", EARLY, spec("127.96.0.1"), &[]),
    ];
    let plan = planned(&services, &[]);
    assert_eq!(
        described(&plan),
        [
            "127.0.0.9:80 old []",
            "127.96.0.1:80 old []",
            "127.96.0.2:80 young []"
        ]
    );
    let [taken] = plan.taken.as_slice() else {
        panic!("one loser")
    };
    assert_eq!(
        (taken.service.name.as_deref(), &*taken.by),
        (Some("young"), "n/old")
    );
}

#[test]
fn headless_and_external_services_are_none_of_our_business() {
    let services = [
        service(
            "headless",
            EARLY,
            json!({"clusterIP": "None", "ports": [{"port": 80}]}),
            &[],
        ),
        service(
            "ext",
            EARLY,
            json!({"type": "ExternalName", "externalName": "x"}),
            &[],
        ),
    ];
    assert_eq!(planned(&services, &[]), Plan::default());
}

#[test]
fn local_policies_keep_to_this_node() {
    let spec = json!({"type": "NodePort", "clusterIP": "127.96.0.9",
        "externalTrafficPolicy": "Local", "ports": [{"port": 80, "nodePort": 30080}]});
    let endpoints = json!([{"addresses": ["127.97.0.5"], "nodeName": "node"},
        {"addresses": ["127.97.1.5"], "nodeName": "other"}]);
    let plan = planned(
        &[service("web", EARLY, spec, &[])],
        &[slice("web", endpoints)],
    );
    assert_eq!(
        described(&plan),
        [
            "127.0.0.1:30080 web [127.97.0.5:5000]",
            "127.96.0.9:80 web [127.97.0.5:5000, 127.97.1.5:5000]",
            "127.97.0.1:30080 web [127.97.0.5:5000]",
        ]
    );
}

#[test]
fn affinity_lasts_as_long_as_the_service_says() {
    let affinity = |more: Value| {
        let mut spec = json!({"clusterIP": "127.96.0.9", "ports": [{"port": 80}]});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let plan = planned(&[service("web", EARLY, spec, &[])], &[]);
        plan.routes.values().next().unwrap().affinity
    };
    assert_eq!(affinity(json!({})), None);
    assert_eq!(
        affinity(json!({"sessionAffinity": "ClientIP"})),
        Some(DEFAULT_AFFINITY)
    );
    let short = json!({"sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}}});
    assert_eq!(affinity(short), Some(Duration::from_secs(7)));
}
