//! The controller against an API server in memory.

use http::Method;
use serde_json::{Value, json};
use stdx::{OnError, Supervisor, SystemClock};

use super::*;
use crate::fake_api::{FakeApi, State};
use crate::metallb::metrics::Metrics;

const POOLS: &str = "address-pools:
- {name: main, protocol: layer2, addresses: [10.0.0.1-10.0.0.2]}
- {name: spare, protocol: layer2, addresses: [10.0.1.0/31], auto-assign: false}";

struct World {
    api: FakeApi,
    supervisor: Supervisor,
    metrics: Metrics,
}

impl World {
    fn start() -> Self {
        let world = Self {
            api: FakeApi::new(),
            supervisor: Supervisor::new(),
            metrics: Metrics::default(),
        };
        let setup = Setup {
            client: world.api.client(),
            namespace: "metallb-system".to_owned(),
            config_map: "config".to_owned(),
            metrics: world.metrics.clone(),
            clock: SystemClock::shared(),
        };
        world
            .supervisor
            .spawn("controller", OnError::Log, Box::pin(run(setup)));
        world
    }

    fn configure(&self, text: &str) {
        self.api.put(
            "configmaps",
            json!({"metadata": {"name": "config", "namespace": "metallb-system"},
                "data": {"config": text}}),
        );
    }

    /// A Service of type LoadBalancer; `more` is merged into it.
    fn service(&self, name: &str, port: i32, more: Value) {
        let mut service = json!({"metadata": {"name": name, "namespace": "n"}, "spec": {
            "type": "LoadBalancer", "clusterIP": "127.96.0.9",
            "ports": [{"port": port, "protocol": "TCP"}]}});
        for (path, value) in more.as_object().into_iter().flatten() {
            let (parent, field) = path.rsplit_once('/').unwrap();
            service.pointer_mut(&format!("/{parent}")).unwrap()[field] = value.clone();
        }
        self.api.put("services", service);
    }

    async fn has(&self, name: &str, address: &str) {
        let what = format!("{name} has {address:?}");
        self.api
            .until(&what, |state| ip(state, name) == address)
            .await;
    }

    async fn told(&self, reason: &str, message: &str) {
        let told = |state: &State| event(state, reason, message).is_some();
        self.api.until(&format!("{reason}: {message}"), told).await;
    }

    async fn end(self) {
        // Nothing but what MetalLB's manifest grants.
        for request in &self.api.state().requests {
            let granted = [
                "GET configmaps",
                "GET services",
                "PUT services/status",
                "POST events",
                "PATCH events",
            ];
            assert!(granted.contains(&request.as_str()), "{request}");
        }
        self.supervisor.shutdown().await;
    }
}

fn ip(state: &State, name: &str) -> String {
    let service = state.get("services", name);
    let ip = service.and_then(|s| s.pointer("/status/loadBalancer/ingress/0/ip"));
    ip.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn event(state: &State, reason: &str, message: &str) -> Option<Value> {
    let events = state.all("events");
    let found = events
        .into_iter()
        .find(|e| e["reason"] == reason && e["message"] == message);
    found.cloned()
}

#[tokio::test]
async fn addresses_are_given_run_out_and_go_to_who_waits() {
    let world = World::start();
    world.service("a", 80, Value::Null);
    world.service("b", 80, Value::Null);
    world.configure(POOLS);
    world.has("a", "10.0.0.1").await;
    world.has("b", "10.0.0.2").await;
    world.told("IPAllocated", "Assigned IP \"10.0.0.1\"").await;
    world.service("c", 80, Value::Null);
    let exhausted = "Failed to allocate IP for \"n/c\": no available IPs";
    world.told("AllocationFailed", exhausted).await;
    {
        let event = event(&world.api.state(), "AllocationFailed", exhausted).unwrap();
        assert_eq!(event["type"], "Warning");
        assert_eq!(event["source"]["component"], "metallb-controller");
        assert_eq!(event["involvedObject"]["kind"], "Service");
        assert_eq!(event["involvedObject"]["name"], "c");
    }
    world.api.delete("services", "a");
    world.has("c", "10.0.0.1").await;
    world.end().await;
}

#[tokio::test]
async fn an_address_is_taken_back_when_the_type_changes() {
    let world = World::start();
    world.configure("address-pools: [{name: a, protocol: layer2, addresses: [10.0.0.1/32]}]");
    world.service("a", 80, Value::Null);
    world.has("a", "10.0.0.1").await;
    world.service("b", 80, Value::Null);
    let waits = "Failed to allocate IP for \"n/b\": no available IPs";
    world.told("AllocationFailed", waits).await;
    let status = json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}});
    let mut changed = world.api.state().get("services", "a").unwrap().clone();
    changed["spec"]["type"] = json!("ClusterIP");
    changed["status"] = status;
    world.api.put("services", changed);
    world.has("a", "").await;
    world.has("b", "10.0.0.1").await;
    world.end().await;
}

#[tokio::test]
async fn requests_for_addresses_and_pools_are_met_or_refused_with_the_reason() {
    let world = World::start();
    world.configure(POOLS);
    let wants = |ip: &str| json!({"spec/loadBalancerIP": ip});
    let pool = |name: &str| json!({"metadata/annotations": {POOL: name}});
    world.service("a", 80, wants("10.0.0.2"));
    world.has("a", "10.0.0.2").await;
    world.service("spare", 80, pool("spare"));
    world.has("spare", "10.0.1.0").await;
    for (name, more, why) in [
        (
            "far",
            wants("10.9.9.9"),
            "\"10.9.9.9\" is not allowed in config",
        ),
        (
            "odd",
            wants("ten"),
            "invalid spec.loadBalancerIP \"ten\": expected an IPv4 address",
        ),
        (
            "late",
            wants("10.0.0.2"),
            "can't change sharing key for \"n/late\", address also in use by n/a",
        ),
        ("lost", pool("nope"), "unknown pool \"nope\""),
    ] {
        world.service(name, 80, more);
        let message = format!("Failed to allocate IP for \"n/{name}\": {why}");
        world.told("AllocationFailed", &message).await;
    }
    // Another wish takes the place of the old address.
    world.service("a", 80, wants("10.0.0.1"));
    world.has("a", "10.0.0.1").await;
    world.has("late", "10.0.0.2").await;
    world.end().await;
}

#[tokio::test]
async fn an_address_is_shared_by_agreement_on_different_ports() {
    let world = World::start();
    world.configure(POOLS);
    let shared = json!({"metadata/annotations": {SHARING: "key"},
        "spec/loadBalancerIP": "10.0.0.1"});
    world.service("a", 80, shared.clone());
    world.service("b", 81, shared.clone());
    world.has("a", "10.0.0.1").await;
    world.has("b", "10.0.0.1").await;
    world.service("c", 81, shared);
    let clash = "Failed to allocate IP for \"n/c\": port TCP/81 is already in use on \"10.0.0.1\"";
    world.told("AllocationFailed", clash).await;
    world.end().await;
}

#[tokio::test]
async fn a_bad_configuration_is_reported_and_the_last_good_one_stays() {
    let world = World::start();
    world.configure("address-pools: [{name: a, protocol: carrier-pigeon}]");
    let bad = "parsing address pool #1: unknown protocol \"carrier-pigeon\" (allowed: layer2)";
    world.told("InvalidConfig", bad).await;
    world.service("a", 80, Value::Null);
    world.configure(POOLS);
    world.has("a", "10.0.0.1").await;
    // It would take away an address that is in use.
    world.configure("address-pools: [{name: b, protocol: layer2, addresses: [10.5.0.0/24]}]");
    let incompatible = "new config not compatible with assigned IPs: service \"n/a\" cannot own \
                        \"10.0.0.1\" under new config";
    world.told("InvalidConfig", incompatible).await;
    world.service("b", 80, Value::Null);
    world.has("b", "10.0.0.2").await;
    world.service("c", 80, Value::Null);
    let exhausted = "Failed to allocate IP for \"n/c\": no available IPs";
    world.told("AllocationFailed", exhausted).await;
    // More room, live.
    world.configure("address-pools: [{name: m, protocol: layer2, addresses: [10.0.0.0/28]}]");
    world.has("c", "10.0.0.0").await;
    world.end().await;
}

#[tokio::test]
async fn what_failed_again_is_counted_and_not_told_anew() {
    let world = World::start();
    world.configure(POOLS);
    world.service("a", 80, json!({"spec/loadBalancerIP": "10.9.9.9"}));
    let message = "Failed to allocate IP for \"n/a\": \"10.9.9.9\" is not allowed in config";
    world.told("AllocationFailed", message).await;
    world.configure(&format!("{POOLS}\n"));
    let counted = |state: &State| {
        event(state, "AllocationFailed", message).is_some_and(|event| event["count"] == 2)
    };
    world.api.until("count", counted).await;
    assert_eq!(world.api.state().all("events").len(), 1);
    world.end().await;
}

#[tokio::test]
async fn addresses_of_before_a_restart_are_kept_and_foreign_ones_cleared() {
    let world = World::start();
    let had = |ip: &str| json!({"loadBalancer": {"ingress": [{"ip": ip}]}});
    let service = |name: &str, ip: &str| {
        json!({"metadata": {"name": name, "namespace": "n"},
            "spec": {"type": "LoadBalancer", "clusterIP": "127.96.0.9", "ports": [{"port": 80}]},
            "status": had(ip)})
    };
    // The first by name has no address yet: it must not get the one of the second. Nor that of the
    // third, which had one, if not of a pool.
    world.service("a", 80, Value::Null);
    world.api.put("services", service("b", "10.0.0.1"));
    world.api.put("services", service("c", "192.0.2.1"));
    world.configure(POOLS);
    world.has("c", "10.0.0.2").await;
    let waits = "Failed to allocate IP for \"n/a\": no available IPs";
    world.told("AllocationFailed", waits).await;
    world.has("b", "10.0.0.1").await;
    world.end().await;
}

#[tokio::test]
async fn a_write_that_fails_is_tried_again() {
    let world = World::start();
    world.api.fail_once(Method::PUT, "/status");
    world.service("a", 80, Value::Null);
    world.configure(POOLS);
    world.has("a", "10.0.0.1").await;
    world.end().await;
}

#[tokio::test]
async fn the_pools_are_measured() {
    let world = World::start();
    world.service("a", 80, Value::Null);
    world.configure(POOLS);
    for line in [
        "metallb_allocator_addresses_total{pool=\"main\"} 2",
        "metallb_allocator_addresses_in_use_total{pool=\"main\"} 1",
        "metallb_k8s_client_config_loaded_bool 1",
    ] {
        let printed = async {
            while !world.metrics.render().contains(line) {
                tokio::task::yield_now().await;
            }
        };
        let patience = Duration::from_secs(20);
        let outcome = tokio::time::timeout(patience, printed).await;
        assert!(outcome.is_ok(), "{line}: {}", world.metrics.render());
    }
    world.end().await;
}
