//! The speaker: announces on this node's network the addresses of Services that have ready Pods.
//!
//! Of the nodes with ready Pods one announces an address: the first by a hash of node and Service,
//! so that all speakers agree without talking.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Service};
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::de::DeserializeOwned;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::config::{self, Config};
use super::controller::current_address;
use super::{Setup, announcer, config_texts, key, log};
use crate::Failure;

enum News {
    Config(Option<Box<(ConfigMap, String)>>),
    Services(Box<watcher::Event<Service>>),
    Endpoints(Box<watcher::Event<Endpoints>>),
}

/// A picture of all objects of a kind, kept by a watch.
struct Picture<K> {
    objects: BTreeMap<String, K>,
    relisted: BTreeMap<String, K>,
    /// Whether the first list is complete.
    synced: bool,
}

impl<K: kube::Resource> Picture<K> {
    fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            relisted: BTreeMap::new(),
            synced: false,
        }
    }

    fn observe(&mut self, event: watcher::Event<K>) {
        match event {
            watcher::Event::Init => self.relisted.clear(),
            watcher::Event::InitApply(object) => {
                self.relisted.insert(key(object.meta()), object);
            }
            watcher::Event::InitDone => {
                self.objects = std::mem::take(&mut self.relisted);
                self.synced = true;
            }
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
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let api: Api<K> = Api::all(setup.client.clone());
    watcher(api, watcher::Config::default())
        .default_backoff()
        .filter_map(|event| async move {
            let trouble = |error: &watcher::Error| {
                let what = format!("watch {}: {error}", K::plural(&()));
                log("watchFailed", &what, json!({}));
            };
            event.inspect_err(trouble).ok()
        })
}

pub(super) async fn run(setup: Setup, node: String) -> Result<(), Failure> {
    let mut news = futures::stream::select_all([
        config_texts(&setup).map(News::Config).boxed(),
        watch::<Service>(&setup)
            .map(|event| News::Services(Box::new(event)))
            .boxed(),
        watch::<Endpoints>(&setup)
            .map(|event| News::Endpoints(Box::new(event)))
            .boxed(),
    ]);
    let mut speaker = Speaker {
        node,
        metrics: setup.metrics,
        config: None,
        services: Picture::new(),
        endpoints: Picture::new(),
        announced: BTreeMap::new(),
    };
    while let Some(item) = news.next().await {
        match item {
            News::Config(config) => speaker.configure(config.map(|config| config.1)),
            News::Services(event) => speaker.services.observe(*event),
            News::Endpoints(event) => speaker.endpoints.observe(*event),
        }
        speaker.follow();
    }
    Err(Failure::work("the watches ended"))
}

struct Speaker {
    node: String,
    metrics: super::metrics::Metrics,
    config: Option<Config>,
    services: Picture<Service>,
    endpoints: Picture<Endpoints>,
    /// What this node announces: by Service its address.
    announced: BTreeMap<String, Ipv4Addr>,
}

impl Speaker {
    fn configure(&mut self, text: Option<String>) {
        let missing = || "no MetalLB configuration in cluster".to_owned();
        let parsed = text
            .ok_or_else(missing)
            .and_then(|text| config::parse(&text).map_err(|error| error.to_string()));
        match parsed {
            Ok(config) => {
                log("configLoaded", "config (re)loaded", json!({}));
                self.config = Some(config);
                self.metrics.config_is_current();
            }
            Err(problem) => {
                log(
                    "configStale",
                    "config (re)load failed, config marked stale",
                    json!({"error": problem}),
                );
                self.metrics.config_is_stale();
            }
        }
    }

    /// Makes the announcements what they should be.
    fn follow(&mut self) {
        let Some(config) = &self.config else { return };
        if !self.services.synced || !self.endpoints.synced {
            return;
        }
        let wanted = wanted(
            config,
            &self.services.objects,
            &self.endpoints.objects,
            &self.node,
        );
        self.announced.retain(|service, address| {
            let stays = wanted.get(service) == Some(address);
            if !stays {
                // Neighbours forget by themselves, or hear from the next announcer.
                log(
                    "serviceWithdrawn",
                    "withdrawing service announcement",
                    json!({"service": service, "ip": address}),
                );
            }
            stays
        });
        for (service, address) in wanted {
            if self.announced.contains_key(&service) {
                continue;
            }
            let pool = config.pool_of(address).map(|pool| pool.name.as_str());
            log(
                "serviceAnnounced",
                "service has IP, announcing",
                json!({"service": service, "ip": address, "pool": pool, "protocol": "layer2"}),
            );
            if let Err(problem) = announcer::announce(address) {
                let about = json!({"service": service, "ip": address});
                log("announceFailed", &problem, about);
            }
            self.announced.insert(service, address);
        }
        let series = self.announced.iter().map(|(service, address)| {
            let node = &self.node;
            let labels =
                format!("service={service:?},protocol=\"layer2\",node={node:?},ip=\"{address}\"");
            (format!("metallb_speaker_announced{{{labels}}}"), 1.0)
        });
        let series = series.collect();
        self.metrics.replace("metallb_speaker_announced", series);
    }
}

/// The Services this node announces, and their addresses.
fn wanted(
    config: &Config,
    services: &BTreeMap<String, Service>,
    endpoints: &BTreeMap<String, Endpoints>,
    here: &str,
) -> BTreeMap<String, Ipv4Addr> {
    let of = |(name, service): (&String, &Service)| {
        let balanced = service.spec.as_ref()?.type_.as_deref() == Some("LoadBalancer");
        let address = current_address(service).filter(|_| balanced)?;
        config.pool_of(address)?;
        let candidates = usable_nodes(endpoints.get(name)?);
        let first = candidates.into_iter().min_by_key(|node| rank(node, name))?;
        (first == here).then(|| (name.clone(), address))
    };
    services.iter().filter_map(of).collect()
}

/// The nodes that have a Pod of the Service which is ready on all its ports.
fn usable_nodes(endpoints: &Endpoints) -> BTreeSet<&str> {
    let subsets = || endpoints.subsets.iter().flatten();
    let unready: BTreeSet<&str> = subsets()
        .flat_map(|subset| subset.not_ready_addresses.iter().flatten())
        .map(|address| address.ip.as_str())
        .collect();
    subsets()
        .flat_map(|subset| subset.addresses.iter().flatten())
        .filter(|address| !unready.contains(address.ip.as_str()))
        .filter_map(|address| address.node_name.as_deref())
        .collect()
}

fn rank(node: &str, service: &str) -> [u8; 32] {
    Sha256::digest(format!("{node}#{service}")).into()
}

#[cfg(test)]
mod tests;
