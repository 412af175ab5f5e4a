//! The speaker: announces on this node's network the addresses of Services that have ready Pods.
//!
//! With several nodes one of them announces an address: the first by a hash of node and Service, so
//! that all speakers agree without talking.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::Ipv4Addr;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Node, Service};
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::announcer::Announcer;
use super::config::Config;
use super::controller::current_address;
use super::{Setup, config_texts, key, load, log};
use crate::Failure;

enum News {
    Config(Option<(ConfigMap, String)>),
    Services(watcher::Event<Service>),
    Endpoints(watcher::Event<Endpoints>),
    Nodes(watcher::Event<Node>),
}

/// A picture of all objects of a kind, kept by a watch.
struct Picture<K> {
    objects: BTreeMap<String, K>,
    relisted: BTreeMap<String, K>,
}

impl<K: kube::Resource> Picture<K> {
    fn new() -> Self {
        Self { objects: BTreeMap::new(), relisted: BTreeMap::new() }
    }

    fn observe(&mut self, event: watcher::Event<K>) {
        match event {
            watcher::Event::Init => self.relisted.clear(),
            watcher::Event::InitApply(object) => {
                self.relisted.insert(key(object.meta()), object);
            }
            watcher::Event::InitDone => self.objects = std::mem::take(&mut self.relisted),
            watcher::Event::Apply(object) => {
                self.objects.insert(key(object.meta()), object);
            }
            watcher::Event::Delete(object) => {
                self.objects.remove(&key(object.meta()));
            }
        }
    }
}

fn watch<K>(setup: &Setup) -> impl futures::Stream<Item = watcher::Event<K>> + Send + use<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send
        + 'static,
{
    let api: Api<K> = Api::all(setup.client.clone());
    watcher(api, watcher::Config::default()).default_backoff().filter_map(|event| async move {
        let trouble = |error: &watcher::Error| {
            log("watchFailed", &format!("watch {}: {error}", K::plural(&())), json!({}));
        };
        event.inspect_err(trouble).ok()
    })
}

pub(super) async fn run(setup: Setup, node: String) -> Result<(), Failure> {
    let mut news = futures::stream::select_all([
        config_texts(&setup).map(News::Config).boxed(),
        watch::<Service>(&setup).map(News::Services).boxed(),
        watch::<Endpoints>(&setup).map(News::Endpoints).boxed(),
        watch::<Node>(&setup).map(News::Nodes).boxed(),
    ]);
    let mut config: Option<Config> = None;
    let mut services = Picture::<Service>::new();
    let mut endpoints = Picture::<Endpoints>::new();
    let mut nodes = Picture::<Node>::new();
    let mut announcer = Announcer::new();
    let mut announced: BTreeMap<String, Ipv4Addr> = BTreeMap::new();
    while let Some(item) = news.next().await {
        match item {
            News::Config(Some((_, text))) => match load(&text) {
                Ok(loaded) => {
                    config = Some(loaded);
                    setup.metrics.set("metallb_k8s_client_config_loaded_bool", 1.0);
                }
                Err(_) => setup.metrics.set("metallb_k8s_client_config_stale_bool", 1.0),
            },
            News::Config(None) => log("configDeleted", "config is gone, keeping the last", json!({})),
            News::Services(event) => services.observe(event),
            News::Endpoints(event) => endpoints.observe(event),
            News::Nodes(event) => nodes.observe(event),
        }
        let Some(config) = &config else { continue };
        let wanted = wanted(config, &services.objects, &endpoints.objects, &nodes.objects, &node);
        for (service, address) in announced.clone() {
            if wanted.get(&service) != Some(&address) {
                announced.remove(&service);
                log("serviceWithdrawn", "withdrawing service announcement",
                    json!({"service": service, "ip": address}));
                if !announced.values().any(|other| *other == address) {
                    announcer.withdraw(address);
                }
            }
        }
        for (service, address) in wanted {
            if announced.insert(service.clone(), address) != Some(address) {
                let pool = config.pool_of(address).map(|pool| pool.name.clone());
                log("serviceAnnounced", "service has IP, announcing", json!({
                    "service": service, "ip": address, "pool": pool, "protocol": "layer2"}));
                if let Err(problem) = announcer.announce(address) {
                    log("announceFailed", &problem, json!({"service": service, "ip": address}));
                }
            }
        }
        setup.metrics.set("metallb_speaker_announced", announced.len() as f64);
    }
    Err(Failure::work("the watches ended"))
}

/// The Services this node announces, and their addresses.
fn wanted(
    config: &Config,
    services: &BTreeMap<String, Service>,
    endpoints: &BTreeMap<String, Endpoints>,
    nodes: &BTreeMap<String, Node>,
    here: &str,
) -> BTreeMap<String, Ipv4Addr> {
    let known: BTreeSet<String> =
        nodes.values().filter_map(|node| node.metadata.name.clone()).collect();
    services
        .iter()
        .filter_map(|(name, service)| {
            let spec = service.spec.as_ref()?;
            let address = current_address(service)?;
            let balanced = spec.type_.as_deref() == Some("LoadBalancer");
            if !balanced || config.pool_of(address).is_none() {
                return None;
            }
            let ready = ready_nodes(endpoints.get(name)?);
            if ready.is_empty() {
                return None;
            }
            let local = spec.external_traffic_policy.as_deref() == Some("Local");
            let candidates: Vec<&String> = known
                .iter()
                .filter(|node| !local || ready.contains(&Some((*node).clone())))
                .collect();
            let first = candidates.into_iter().min_by_key(|node| rank(node, name))?;
            (first == here).then(|| (name.clone(), address))
        })
        .collect()
}

/// The nodes of a Service's ready Pods; `None` for an endpoint that names no node.
fn ready_nodes(endpoints: &Endpoints) -> BTreeSet<Option<String>> {
    let subsets = endpoints.subsets.iter().flatten();
    let ready = subsets.flat_map(|subset| subset.addresses.iter().flatten());
    ready.map(|address| address.node_name.clone()).collect()
}

fn rank(node: &str, service: &str) -> u64 {
    // The keys of a DefaultHasher made this way are fixed, so speakers of one build agree.
    let mut hasher = DefaultHasher::new();
    (node, service).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metallb::config;

    fn from<K: DeserializeOwned>(value: serde_json::Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_services_with_ready_pods_are_announced_and_by_one_node() {
        let config = config::parse(
            "address-pools: [{name: a, protocol: layer2, addresses: [10.0.0.0/24]}]",
        )
        .unwrap();
        let service: Service = from(json!({
            "metadata": {"name": "s", "namespace": "n"}, "spec": {"type": "LoadBalancer"},
            "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.7"}]}}}));
        let services = BTreeMap::from([("n/s".to_owned(), service)]);
        let nodes: BTreeMap<String, Node> = ["a", "b", "c"]
            .iter()
            .map(|name| (format!("/{name}"), from(json!({"metadata": {"name": name}}))))
            .collect();
        let with = |subsets: serde_json::Value| {
            BTreeMap::from([("n/s".to_owned(), from::<Endpoints>(json!({"subsets": subsets})))])
        };
        let count = |endpoints: &BTreeMap<String, Endpoints>| {
            ["a", "b", "c"]
                .iter()
                .filter(|node| !wanted(&config, &services, endpoints, &nodes, node).is_empty())
                .count()
        };
        assert_eq!(count(&with(json!([{"addresses": [{"ip": "10.1.0.1", "nodeName": "b"}]}]))), 1);
        assert_eq!(count(&with(json!([{"notReadyAddresses": [{"ip": "10.1.0.1"}]}]))), 0);
        assert_eq!(count(&BTreeMap::new()), 0);
    }
}
