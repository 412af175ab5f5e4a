//! The controller: gives every LoadBalancer Service an address, and says in Events why not.
//!
//! It works from its own picture of the Services, kept by one watch. A write that conflicts is
//! followed by news of whoever was faster, and is decided again then; a write that fails is tried
//! again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{
    ConfigMap, LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus,
};
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource as _};
use serde_json::json;
use stdx::{Backoff, SharedClock};

use super::allocator::{Allocator, Claim};
use super::events::{Events, Kind};
use super::{Setup, config, config_texts, key, log};
use crate::Failure;

const POOL: &str = "metallb.universe.tf/address-pool";
const SHARING: &str = "metallb.universe.tf/allow-shared-ip";

/// News that the controller acts on.
enum News {
    Config(Option<Box<(ConfigMap, String)>>),
    Services(Box<watcher::Event<Service>>),
}

pub(super) async fn run(setup: Setup) -> Result<(), Failure> {
    let configs = config_texts(&setup).map(News::Config);
    let api: Api<Service> = Api::all(setup.client.clone());
    let services = watcher(api, watcher::Config::default()).default_backoff();
    let services = services.filter_map(|event| async move {
        match event {
            Ok(event) => Some(News::Services(Box::new(event))),
            Err(error) => {
                log(
                    "watchFailed",
                    &format!("watch services: {error}"),
                    json!({}),
                );
                None
            }
        }
    });
    let mut controller = Controller::new(setup);
    let mut news = std::pin::pin!(futures::stream::select(configs, services));
    loop {
        tokio::select! {
            item = news.next() => match item {
                Some(News::Config(Some(config))) => {
                    controller.configure(&config.0, &config.1).await;
                }
                Some(News::Config(None)) => controller.config_is_gone(),
                Some(News::Services(event)) => controller.observe(*event).await,
                None => return Err(Failure::work("the watches ended")),
            },
            () = controller.retry_due() => controller.retry().await,
        }
        controller.measure();
    }
}

struct Controller {
    client: Client,
    clock: SharedClock,
    events: Events,
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
    retry: Retry,
}

/// Services whose write failed, and when they are tried again.
struct Retry {
    services: BTreeSet<String>,
    backoff: Backoff,
    due: Duration,
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// It was taken.
    Done,
    /// Somebody was faster, or the Service is gone; news of that is on its way.
    Superseded,
    /// It did not arrive, or was refused.
    Failed,
}

impl Controller {
    fn new(setup: Setup) -> Self {
        Self {
            events: Events::new(setup.client.clone(), setup.clock.clone()),
            clock: setup.clock,
            client: setup.client,
            metrics: setup.metrics,
            allocator: Allocator::default(),
            configured: false,
            synced: false,
            services: BTreeMap::new(),
            relisted: None,
            told: BTreeMap::new(),
            retry: Retry {
                services: BTreeSet::new(),
                backoff: Backoff::new(Duration::from_millis(100), 2.0, Duration::from_secs(30)),
                due: Duration::ZERO,
            },
        }
    }

    async fn configure(&mut self, map: &ConfigMap, text: &str) {
        let outcome = config::parse(text)
            .map_err(|error| error.to_string())
            .and_then(|config| self.allocator.configure(config));
        match outcome {
            Ok(()) => {
                log("configLoaded", "config (re)loaded", json!({}));
                self.configured = true;
                self.metrics.config_is_current();
                self.told.clear();
                self.reconcile_all().await;
            }
            Err(problem) => {
                log(
                    "configStale",
                    "config (re)load failed, config marked stale",
                    json!({"error": problem}),
                );
                self.metrics.config_is_stale();
                let about = map.object_ref(&());
                let reason = "InvalidConfig";
                self.events
                    .tell(about, Kind::Warning, reason, &problem)
                    .await;
            }
        }
    }

    fn config_is_gone(&self) {
        let what = "configuration is missing, MetalLB will not function";
        log(
            "configStale",
            what,
            json!({"error": "no MetalLB configuration in cluster"}),
        );
        self.metrics.config_is_stale();
    }

    /// Completes when failed writes are due for another try; never when there are none.
    fn retry_due(&self) -> impl Future<Output = ()> + Send + use<> {
        let pause = self.retry.due.saturating_sub(self.clock.monotonic());
        let sleep = (!self.retry.services.is_empty()).then(|| self.clock.sleep(pause));
        async move {
            match sleep {
                Some(sleep) => sleep.await,
                None => std::future::pending().await,
            }
        }
    }

    async fn retry(&mut self) {
        let mut freed = false;
        for name in std::mem::take(&mut self.retry.services) {
            freed |= self.reconcile(&name).await;
        }
        if freed {
            self.reconcile_waiting().await;
        }
        if self.retry.services.is_empty() {
            self.retry.backoff.reset();
        }
    }

    async fn observe(&mut self, event: watcher::Event<Service>) {
        self.metrics.count("metallb_k8s_client_updates_total");
        match event {
            watcher::Event::Init => self.relisted = Some(BTreeMap::new()),
            watcher::Event::InitApply(service) => {
                self.relisted
                    .get_or_insert_default()
                    .insert(key(&service.metadata), service);
            }
            watcher::Event::InitDone => {
                let listed = self.relisted.take().unwrap_or_default();
                let gone: Vec<String> = self
                    .services
                    .keys()
                    .filter(|k| !listed.contains_key(*k))
                    .cloned()
                    .collect();
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
            log(
                "serviceDeleted",
                "IP returned to the pool",
                json!({"service": service}),
            );
        }
    }

    /// All Services; those that have an address first, so that nobody gets it instead.
    async fn reconcile_all(&mut self) {
        if !self.synced || !self.configured {
            return;
        }
        let (with, without): (Vec<_>, Vec<_>) = self
            .services
            .iter()
            .partition(|(_, service)| current_address(service).is_some());
        let names = with.into_iter().chain(without).map(|(name, _)| name);
        for name in names.cloned().collect::<Vec<_>>() {
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
        let Some(service) = self.services.get(name).cloned() else {
            return false;
        };
        let spec = service.spec.clone().unwrap_or_default();
        let balanced = spec.type_.as_deref() == Some("LoadBalancer")
            && spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty());
        if !balanced {
            self.told.remove(name);
            let freed = self.allocator.release(name);
            if has_ingress(&service) {
                log(
                    "clearAssignment",
                    "not a LoadBalancer",
                    json!({"service": name}),
                );
                self.write(&service, None).await;
            }
            return freed;
        }
        let claim = match claim(name, &service) {
            Ok(claim) => claim,
            Err(problem) => {
                let freed = self.allocator.release(name);
                let text = format!("Failed to allocate IP for {name:?}: {problem}");
                self.refuse(&service, name, &text).await;
                return freed;
            }
        };
        if let Some(address) = current_address(&service) {
            match self.keep(&claim, address) {
                Ok(()) => {
                    self.told.remove(name);
                    return false;
                }
                Err(why) => {
                    log(
                        "clearAssignment",
                        &why,
                        json!({"service": name, "ip": address}),
                    );
                }
            }
        }
        let freed = self.allocator.release(name);
        match self.allocator.allocate(&claim) {
            Ok(address) => {
                log(
                    "ipAllocated",
                    "IP address assigned by controller",
                    json!({"service": name, "ip": address}),
                );
                self.give(&service, name, address).await;
            }
            Err(problem) => {
                let text = format!("Failed to allocate IP for {name:?}: {problem}");
                self.refuse(&service, name, &text).await;
            }
        }
        freed
    }

    /// Lets a Service keep the address it has, unless it wants another or may not have this one.
    fn keep(&mut self, claim: &Claim, address: Ipv4Addr) -> Result<(), String> {
        if claim.wanted.is_some_and(|wanted| wanted != address) {
            return Err("user requested a different IP than the one currently assigned".to_owned());
        }
        self.allocator
            .assign(claim, address)
            .map_err(|why| format!("current IP not allowed by config, clearing: {why}"))
    }

    async fn give(&mut self, service: &Service, name: &str, address: Ipv4Addr) {
        if self.write(service, Some(address)).await != Written::Done {
            self.allocator.release(name);
            return;
        }
        self.told.remove(name);
        let text = format!("Assigned IP {:?}", address.to_string());
        let about = service.object_ref(&());
        self.events
            .tell(about, Kind::Normal, "IPAllocated", &text)
            .await;
    }

    /// Says once why a Service has no address, and takes away one it may not have.
    async fn refuse(&mut self, service: &Service, name: &str, text: &str) {
        if has_ingress(service) {
            self.write(service, None).await;
        }
        let before = self.told.insert(name.to_owned(), text.to_owned());
        if before.as_deref() == Some(text) {
            return;
        }
        log("allocationFailed", text, json!({"service": name}));
        let about = service.object_ref(&());
        self.events
            .tell(about, Kind::Warning, "AllocationFailed", text)
            .await;
    }

    /// Writes the Service's status.
    async fn write(&mut self, service: &Service, address: Option<Ipv4Addr>) -> Written {
        let (name, namespace) = (
            service.metadata.name.clone().unwrap_or_default(),
            service.metadata.namespace.clone().unwrap_or_default(),
        );
        let mut changed = service.clone();
        let status = changed.status.get_or_insert_with(ServiceStatus::default);
        status.load_balancer = Some(LoadBalancerStatus {
            ingress: address.map(|address| {
                vec![LoadBalancerIngress {
                    ip: Some(address.to_string()),
                    ..Default::default()
                }]
            }),
        });
        let api: Api<Service> = Api::namespaced(self.client.clone(), &namespace);
        let key = key(&service.metadata);
        match api
            .replace_status(&name, &PostParams::default(), &changed)
            .await
        {
            Ok(updated) => {
                self.services.insert(key, updated);
                Written::Done
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                Written::Superseded
            }
            Err(error) => {
                log(
                    "updateServiceStatus",
                    &format!("failed to update service status: {error}"),
                    json!({"service": key}),
                );
                self.metrics.count("metallb_k8s_client_update_errors_total");
                if self.retry.services.is_empty() {
                    self.retry.due = self.clock.monotonic() + self.retry.backoff.next_delay();
                }
                self.retry.services.insert(key);
                Written::Failed
            }
        }
    }

    fn measure(&self) {
        let mut series = Vec::new();
        for (pool, total, used) in self.allocator.usage() {
            let named = |name: &str| format!("metallb_allocator_{name}{{pool={pool:?}}}");
            series.push((named("addresses_total"), total as f64));
            series.push((named("addresses_in_use_total"), used as f64));
        }
        self.metrics.replace("metallb_allocator_", series);
    }
}

/// The address in a Service's status; several are none of ours.
pub(super) fn current_address(service: &Service) -> Option<Ipv4Addr> {
    match ingress(service) {
        [only] => only.ip.as_ref()?.parse().ok(),
        _ => None,
    }
}

fn has_ingress(service: &Service) -> bool {
    !ingress(service).is_empty()
}

fn ingress(service: &Service) -> &[LoadBalancerIngress] {
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref());
    ingress.unwrap_or_default()
}

fn claim(name: &str, service: &Service) -> Result<Claim, String> {
    let spec = service.spec.clone().unwrap_or_default();
    let annotation = |key: &str| {
        service
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(key))
            .cloned()
    };
    let wanted = match spec
        .load_balancer_ip
        .as_deref()
        .filter(|text| !text.is_empty())
    {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            format!("invalid spec.loadBalancerIP {text:?}: expected an IPv4 address")
        })?),
    };
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    let backend_key = match (local, &spec.selector) {
        (true, Some(selector)) => selector
            .iter()
            .map(|(key, value)| format!("{key}={value},"))
            .collect(),
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

#[cfg(test)]
mod tests;
