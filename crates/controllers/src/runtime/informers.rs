//! The shared caches: one watch per kind for all controllers.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service,
    ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use stdx::{Backoff, OnError, SharedClock, Supervisor};

use super::Cache;

/// Every cache there is.
#[derive(Clone)]
pub(crate) struct Informers {
    pub(crate) controller_revisions: Arc<Cache<ControllerRevision>>,
    pub(crate) daemon_sets: Arc<Cache<DaemonSet>>,
    pub(crate) deployments: Arc<Cache<Deployment>>,
    pub(crate) endpoint_slices: Arc<Cache<EndpointSlice>>,
    pub(crate) endpoints: Arc<Cache<Endpoints>>,
    pub(crate) jobs: Arc<Cache<Job>>,
    pub(crate) namespaces: Arc<Cache<Namespace>>,
    pub(crate) nodes: Arc<Cache<Node>>,
    pub(crate) persistent_volume_claims: Arc<Cache<PersistentVolumeClaim>>,
    pub(crate) persistent_volumes: Arc<Cache<PersistentVolume>>,
    pub(crate) pods: Arc<Cache<Pod>>,
    pub(crate) replica_sets: Arc<Cache<ReplicaSet>>,
    /// Only the ConfigMaps `kube-root-ca.crt`.
    pub(crate) root_ca_maps: Arc<Cache<ConfigMap>>,
    pub(crate) service_accounts: Arc<Cache<ServiceAccount>>,
    pub(crate) services: Arc<Cache<Service>>,
    pub(crate) stateful_sets: Arc<Cache<StatefulSet>>,
    pub(crate) storage_classes: Arc<Cache<StorageClass>>,
}

/// The name of the ConfigMap with the cluster's certificate bundle.
pub(crate) const ROOT_CA_MAP: &str = "kube-root-ca.crt";

impl Informers {
    pub(crate) fn new() -> Self {
        Self {
            controller_revisions: Cache::new(),
            daemon_sets: Cache::new(),
            deployments: Cache::new(),
            endpoint_slices: Cache::new(),
            endpoints: Cache::new(),
            jobs: Cache::new(),
            namespaces: Cache::new(),
            nodes: Cache::new(),
            persistent_volume_claims: Cache::new(),
            persistent_volumes: Cache::new(),
            pods: Cache::new(),
            replica_sets: Cache::new(),
            root_ca_maps: Cache::new(),
            service_accounts: Cache::new(),
            services: Cache::new(),
            stateful_sets: Cache::new(),
            storage_classes: Cache::new(),
        }
    }

    /// Starts the watches; handlers must be registered before.
    pub(crate) fn start(&self, client: &Client, clock: &SharedClock, supervisor: &Supervisor) {
        let watch = Watch {
            client,
            clock,
            supervisor,
        };
        watch.all(&self.controller_revisions);
        watch.all(&self.daemon_sets);
        watch.all(&self.deployments);
        watch.all(&self.endpoint_slices);
        watch.all(&self.endpoints);
        watch.all(&self.jobs);
        watch.all(&self.namespaces);
        watch.all(&self.nodes);
        watch.all(&self.persistent_volume_claims);
        watch.all(&self.persistent_volumes);
        watch.all(&self.pods);
        watch.all(&self.replica_sets);
        watch.some(&self.root_ca_maps, &format!("metadata.name={ROOT_CA_MAP}"));
        watch.all(&self.service_accounts);
        watch.all(&self.services);
        watch.all(&self.stateful_sets);
        watch.all(&self.storage_classes);
    }
}

struct Watch<'a> {
    client: &'a Client,
    clock: &'a SharedClock,
    supervisor: &'a Supervisor,
}

impl Watch<'_> {
    fn all<K>(&self, cache: &Arc<Cache<K>>)
    where
        K: Resource<DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        self.start(cache, watcher::Config::default());
    }

    fn some<K>(&self, cache: &Arc<Cache<K>>, fields: &str)
    where
        K: Resource<DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        self.start(cache, watcher::Config::default().fields(fields));
    }

    fn start<K>(&self, cache: &Arc<Cache<K>>, config: watcher::Config)
    where
        K: Resource<DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        let api = Api::<K>::all(self.client.clone());
        let fill = fill(cache.clone(), api, config, self.clock.clone());
        self.supervisor.spawn("informer", OnError::Log, async move {
            fill.await;
            Ok::<(), String>(())
        });
    }
}

/// Keeps `cache` up to date for ever.
pub(crate) async fn fill<K>(
    cache: Arc<Cache<K>>,
    api: Api<K>,
    config: watcher::Config,
    clock: SharedClock,
) where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let url = api.resource_url().to_owned();
    let mut events = std::pin::pin!(watcher(api, config));
    // Short at first: at start the API server is about to listen.
    let mut backoff = Backoff::new(Duration::from_millis(10), 2.0, Duration::from_secs(10));
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if !matches!(event, watcher::Event::Init) {
                    backoff.reset();
                }
                cache.apply(event);
            }
            Err(error) => {
                let pause = backoff.next_delay();
                if pause > Duration::from_secs(1) {
                    tracing::warn!(%url, "watch fails: {}", stdx::error::chain(&error));
                } else {
                    tracing::debug!(%url, "watch fails: {}", stdx::error::chain(&error));
                }
                clock.sleep(pause).await;
            }
        }
    }
}
