//! The controller: gives every LoadBalancer Service an address, and says in Events why not.
//!
//! It works from its own picture of the Services, kept by one watch. A write that conflicts is
//! followed by news of whoever was faster, and is decided again then.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{
    ConfigMap, LoadBalancerIngress, LoadBalancerStatus, ObjectReference, Service, ServiceStatus,
};
use kube::api::{Api, PostParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource as _};
use serde_json::json;

use super::allocator::{Allocator, Claim};
use super::{Setup, config_texts, key, load, log};
use crate::Failure;

const POOL: &str = "metallb.universe.tf/address-pool";
const SHARING: &str = "metallb.universe.tf/allow-shared-ip";

/// News that the controller acts on.
enum News {
    Config(Option<(ConfigMap, String)>),
    Services(watcher::Event<Service>),
}

pub(super) async fn run(setup: Setup) -> Result<(), Failure> {
    let configs = config_texts(&setup).map(News::Config);
    let api: Api<Service> = Api::all(setup.client.clone());
    let services = watcher(api, watcher::Config::default()).default_backoff();
    let services = services.filter_map(|event| async move {
        match event {
            Ok(event) => Some(News::Services(event)),
            Err(error) => {
                log("watchFailed", &format!("watch services: {error}"), json!({}));
                None
            }
        }
    });
    let mut controller = Controller::new(setup);
    let mut news = std::pin::pin!(futures::stream::select(configs, services));
    while let Some(item) = news.next().await {
        match item {
            News::Config(Some((map, text))) => controller.configure(&map, &text).await,
            News::Config(None) => log("configDeleted", "config is gone, keeping the last", json!({})),
            News::Services(event) => controller.observe(event).await,
        }
        controller.measure();
    }
    Err(Failure::work("the watches ended"))
}

struct Controller {
    client: Client,
    events: Recorder,
    metrics: super::metrics::Metrics,
    allocator: Allocator,
    configured: bool,
    /// Whether the first list of Services is complete: only then it is known which addresses are
    /// free.
    synced: bool,
    services: BTreeMap<String, Service>,
    /// Services seen since a new list began.
    relisted: Option<BTreeMap<String, Service>>,
    /// What was last said about a Service's failure, so that it is said once.
    told: BTreeMap<String, String>,
}

impl Controller {
    fn new(setup: Setup) -> Self {
        let reporter =
            Reporter { controller: "metallb-controller".to_owned(), instance: None };
        Self {
            events: Recorder::new(setup.client.clone(), reporter),
            client: setup.client,
            metrics: setup.metrics,
            allocator: Allocator::default(),
            configured: false,
            synced: false,
            services: BTreeMap::new(),
            relisted: None,
            told: BTreeMap::new(),
        }
    }

    async fn configure(&mut self, map: &ConfigMap, text: &str) {
        let outcome = load(text).map_err(|e| e.to_string()).and_then(|config| {
            self.allocator.configure(config).inspect_err(|error| {
                log("configStale", "config rejected", json!({"error": error}));
            })
        });
        self.metrics.set("metallb_k8s_client_config_stale_bool", outcome.is_err().into());
        match outcome {
            Ok(()) => {
                self.configured = true;
                self.metrics.set("metallb_k8s_client_config_loaded_bool", 1.0);
                self.told.clear();
                self.reconcile_all().await;
            }
            Err(problem) => {
                self.tell(&map.object_ref(&()), EventType::Warning, "InvalidConfig", &problem).await;
            }
        }
    }

    async fn observe(&mut self, event: watcher::Event<Service>) {
        self.metrics.count("metallb_k8s_client_updates_total");
        match event {
            watcher::Event::Init => self.relisted = Some(BTreeMap::new()),
            watcher::Event::InitApply(service) => {
                self.relisted.get_or_insert_default().insert(key(&service.metadata), service);
            }
            watcher::Event::InitDone => {
                let listed = self.relisted.take().unwrap_or_default();
                let gone: Vec<String> =
                    self.services.keys().filter(|k| !listed.contains_key(*k)).cloned().collect();
                self.services = listed;
                for service in gone {
                    self.forget(&service);
                }
                self.synced = true;
                self.reconcile_all().await;
            }
            watcher::Event::Apply(service) => {
                let name = key(&service.metadata);
                self.services.insert(name.clone(), service);
                if self.reconcile(&name).await {
                    self.reconcile_waiting().await;
                }
            }
            watcher::Event::Delete(service) => {
                let name = key(&service.metadata);
                self.services.remove(&name);
                self.forget(&name);
                self.reconcile_waiting().await;
            }
        }
    }

    fn forget(&mut self, service: &str) {
        self.told.remove(service);
        if self.allocator.release(service) {
            log("serviceDeleted", "IP returned to the pool", json!({"service": service}));
        }
    }

    /// All Services; those that have an address first, so that nobody gets it instead.
    async fn reconcile_all(&mut self) {
        if !self.synced || !self.configured {
            return;
        }
        let (with, without): (Vec<String>, Vec<String>) = self
            .services
            .iter()
            .map(|(name, service)| (name.clone(), current_address(service).is_some()))
            .fold((Vec::new(), Vec::new()), |(mut with, mut without), (name, has)| {
                if has { with.push(name) } else { without.push(name) }
                (with, without)
            });
        for name in with.into_iter().chain(without) {
            self.reconcile(&name).await;
        }
    }

    /// Those that wait for an address, after one became free.
    async fn reconcile_waiting(&mut self) {
        for name in self.told.keys().cloned().collect::<Vec<_>>() {
            self.reconcile(&name).await;
        }
    }

    /// Brings one Service in order; true if an address became free.
    async fn reconcile(&mut self, name: &str) -> bool {
        if !self.synced || !self.configured {
            return false;
        }
        let Some(service) = self.services.get(name).cloned() else { return false };
        let spec = service.spec.clone().unwrap_or_default();
        let balanced = spec.type_.as_deref() == Some("LoadBalancer")
            && spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty());
        if !balanced {
            self.told.remove(name);
            let freed = self.allocator.release(name);
            if current_address(&service).is_some() {
                log("clearAssignment", "not a LoadBalancer", json!({"service": name}));
                self.write(&service, None).await;
            }
            return freed;
        }
        let claim = match claim(name, &service) {
            Ok(claim) => claim,
            Err(problem) => {
                self.refuse(&service, name, &problem).await;
                return self.allocator.release(name);
            }
        };
        let current = current_address(&service);
        let kept = current.filter(|address| claim.wanted.is_none_or(|wanted| wanted == *address));
        if let Some(address) = kept {
            match self.allocator.assign(&claim, address) {
                Ok(()) => {
                    self.told.remove(name);
                    return false;
                }
                Err(problem) => {
                    let why = format!("current IP not allowed by config: {problem}");
                    log("clearAssignment", &why, json!({"service": name, "ip": address}));
                }
            }
        }
        let freed = self.allocator.release(name);
        match self.allocator.allocate(&claim) {
            Ok(address) => {
                log("ipAllocated", "IP address assigned by controller",
                    json!({"service": name, "ip": address}));
                if self.write(&service, Some(address)).await {
                    self.told.remove(name);
                    let text = format!("Assigned IP {:?}", address.to_string());
                    let about = service.object_ref(&());
                    self.tell(&about, EventType::Normal, "IPAllocated", &text).await;
                } else {
                    self.allocator.release(name);
                }
            }
            Err(problem) => {
                let text = format!("Failed to allocate IP for {name:?}: {problem}");
                self.refuse(&service, name, &text).await;
            }
        }
        freed
    }

    /// Says once why a Service has no address, and takes away one it may not have.
    async fn refuse(&mut self, service: &Service, name: &str, text: &str) {
        if current_address(service).is_some() {
            self.write(service, None).await;
        }
        if self.told.insert(name.to_owned(), text.to_owned()).as_deref() == Some(text) {
            return;
        }
        log("allocationFailed", text, json!({"service": name}));
        self.tell(&service.object_ref(&()), EventType::Warning, "AllocationFailed", text).await;
    }

    /// Writes the Service's status; true if it was taken.
    async fn write(&mut self, service: &Service, address: Option<Ipv4Addr>) -> bool {
        let (name, namespace) = (
            service.metadata.name.clone().unwrap_or_default(),
            service.metadata.namespace.clone().unwrap_or_default(),
        );
        let mut changed = service.clone();
        let status = changed.status.get_or_insert_with(ServiceStatus::default);
        status.load_balancer = Some(LoadBalancerStatus {
            ingress: address.map(|address| {
                vec![LoadBalancerIngress { ip: Some(address.to_string()), ..Default::default() }]
            }),
        });
        let api: Api<Service> = Api::namespaced(self.client.clone(), &namespace);
        match api.replace_status(&name, &PostParams::default(), &changed).await {
            Ok(updated) => {
                self.services.insert(key(&updated.metadata), updated);
                true
            }
            // Somebody was faster, or it is gone; news of that is on its way.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => false,
            Err(error) => {
                log("updateFailed", &format!("update service status: {error}"),
                    json!({"service": key(&service.metadata)}));
                false
            }
        }
    }

    async fn tell(&self, about: &ObjectReference, kind: EventType, reason: &str, note: &str) {
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note.to_owned()),
            action: "Allocate".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.events.publish(&event, about).await {
            log("eventFailed", &format!("record event {reason}: {error}"), json!({}));
        }
    }

    fn measure(&self) {
        for (pool, total, used) in self.allocator.usage() {
            let series = |name: &str| format!("metallb_allocator_{name}{{pool={pool:?}}}");
            self.metrics.set(series("addresses_total"), total as f64);
            self.metrics.set(series("addresses_in_use_total"), used as f64);
        }
    }
}

/// The address in a Service's status.
pub(super) fn current_address(service: &Service) -> Option<Ipv4Addr> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    ingress.first()?.ip.as_ref()?.parse().ok()
}

fn claim(name: &str, service: &Service) -> Result<Claim, String> {
    let spec = service.spec.clone().unwrap_or_default();
    let annotation = |key: &str| {
        service.metadata.annotations.as_ref().and_then(|all| all.get(key)).cloned()
    };
    let wanted = match spec.load_balancer_ip.as_deref().filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            format!("invalid spec.loadBalancerIP {text:?}: expected an IPv4 address")
        })?),
    };
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    let backend_key = match (local, &spec.selector) {
        (true, Some(selector)) => {
            selector.iter().map(|(key, value)| format!("{key}={value},")).collect()
        }
        _ => String::new(),
    };
    let ports = spec.ports.unwrap_or_default();
    Ok(Claim {
        service: name.to_owned(),
        wanted,
        pool: annotation(POOL),
        sharing_key: annotation(SHARING).unwrap_or_default(),
        backend_key,
        ports: ports
            .into_iter()
            .map(|port| (port.protocol.unwrap_or_else(|| "TCP".to_owned()), port.port))
            .collect(),
    })
}
