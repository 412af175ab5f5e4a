//! Watches the metadata of every kind there is, custom ones included as they come and go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject};
use kube::core::metadata::PartialObjectMeta;
use kube::discovery::{ApiCapabilities, Discovery, Scope, verbs};
use kube::runtime::watcher;
use kube::{Api, Client};
use stdx::{Backoff, OnError, SharedClock, Supervisor};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::runtime::{Cache, Change};

/// An object of any kind, without its content.
pub(crate) type Metadata = PartialObjectMeta<DynamicObject>;

/// A kind that the server serves.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Vec<String>,
}

impl Kind {
    fn new(resource: ApiResource, capabilities: &ApiCapabilities) -> Self {
        Self {
            resource,
            namespaced: capabilities.scope == Scope::Namespaced,
            verbs: capabilities.operations.clone(),
        }
    }

    pub(crate) fn supports(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    /// The API of this kind's metadata in one namespace, or of all when it has none.
    pub(crate) fn api(&self, client: &Client, namespace: &str) -> Api<Metadata> {
        if self.namespaced && !namespace.is_empty() {
            Api::namespaced_with(client.clone(), namespace, &self.resource)
        } else {
            Api::all_with(client.clone(), &self.resource)
        }
    }

    /// What tells kinds apart: group, version and plural.
    fn identity(&self) -> String {
        format!("{}/{}", self.resource.api_version, self.resource.plural)
    }
}

type Handler = Box<dyn Fn(&Monitors, &Arc<Kind>, Change<'_, Metadata>) + Send + Sync>;

/// Kinds whose objects own nothing, are owned by nothing and are many.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

/// The watches of all kinds.
pub(crate) struct Monitors {
    client: Client,
    clock: SharedClock,
    supervisor: Supervisor,
    kinds: watch::Sender<Arc<Vec<Arc<Kind>>>>,
    running: Mutex<BTreeMap<String, Monitor>>,
    handlers: Vec<Handler>,
    /// Set once the objects of all kinds of the first discovery are known.
    filled: watch::Sender<bool>,
}

struct Monitor {
    cache: Arc<Cache<Metadata>>,
    task: JoinHandle<()>,
}

impl Monitors {
    pub(crate) fn new(client: Client, clock: SharedClock, supervisor: &Supervisor) -> Self {
        Self {
            client,
            clock,
            supervisor: supervisor.clone(),
            kinds: watch::Sender::new(Arc::default()),
            running: Mutex::default(),
            handlers: Vec::new(),
            filled: watch::Sender::new(false),
        }
    }

    /// Calls `handler` after every change of any object.
    pub(crate) fn on_change(
        &mut self,
        handler: impl Fn(&Monitors, &Arc<Kind>, Change<'_, Metadata>) + Send + Sync + 'static,
    ) {
        self.handlers.push(Box::new(handler));
    }

    /// The kinds of the last discovery.
    pub(crate) fn kinds(&self) -> Arc<Vec<Arc<Kind>>> {
        self.kinds.borrow().clone()
    }

    /// Whether anything that is watched is left in the namespace.
    pub(crate) fn holds(&self, namespace: &str) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .values()
            .any(|monitor| monitor.cache.holds(namespace))
    }

    /// Completes when the objects of all kinds of the first discovery are known.
    pub(crate) fn filled(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut receiver = self.filled.subscribe();
        async move {
            // The sender lives as long as the controllers.
            drop(receiver.wait_for(|filled| *filled).await);
        }
    }

    /// Discovers now, and again whenever a CustomResourceDefinition changes.
    pub(crate) fn start(self: Arc<Self>) {
        let supervisor = self.supervisor.clone();
        supervisor.spawn("kinds", OnError::Log, async move {
            self.follow().await;
            Ok::<(), String>(())
        });
    }

    async fn follow(self: &Arc<Self>) {
        self.discover_until_it_works().await;
        self.watch_filling();
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let mut events = std::pin::pin!(watcher(definitions, watcher::Config::default()));
        let mut backoff = Backoff::new(Duration::from_millis(20), 2.0, Duration::from_secs(30));
        // The first list only repeats what was just discovered.
        let mut listed = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::InitDone) if !listed => {
                    listed = true;
                    backoff.reset();
                }
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
                Ok(_) => {
                    backoff.reset();
                    self.discover_until_it_works().await;
                }
                Err(error) => {
                    tracing::debug!("definitions: {}", stdx::error::chain(&error));
                    self.clock.sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    async fn discover_until_it_works(self: &Arc<Self>) {
        let mut backoff = Backoff::new(Duration::from_millis(10), 2.0, Duration::from_secs(10));
        loop {
            match discover(&self.client).await {
                Ok(kinds) => return self.adopt(kinds),
                Err(error) => {
                    tracing::debug!("discovery: {}", stdx::error::chain(&error));
                    self.clock.sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    /// Starts a watch for each new kind and ends those of kinds that are gone.
    fn adopt(self: &Arc<Self>, kinds: Vec<Arc<Kind>>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let watched: BTreeMap<String, &Arc<Kind>> = kinds
            .iter()
            .filter(|kind| kind.supports(verbs::WATCH) && kind.supports(verbs::LIST))
            .filter(|kind| {
                !IGNORED.contains(&(kind.resource.group.as_str(), kind.resource.plural.as_str()))
            })
            .map(|kind| (kind.identity(), kind))
            .collect();
        let mut ended = Vec::new();
        running.retain(|identity, monitor| {
            let keep = watched.contains_key(identity);
            if !keep {
                monitor.task.abort();
                ended.push(monitor.cache.clone());
            }
            keep
        });
        for (identity, kind) in watched {
            running
                .entry(identity)
                .or_insert_with(|| self.monitor(kind.clone()));
        }
        drop(running);
        self.kinds.send_replace(Arc::new(kinds));
        for cache in ended {
            // Its objects are gone with the kind.
            cache.apply(watcher::Event::Init);
            cache.apply(watcher::Event::InitDone);
        }
    }

    fn monitor(self: &Arc<Self>, kind: Arc<Kind>) -> Monitor {
        let cache = Cache::new();
        let (monitors, of) = (self.clone(), kind.clone());
        cache.on_change(move |change: Change<'_, Metadata>| {
            for handler in &monitors.handlers {
                handler(
                    &monitors,
                    &of,
                    Change {
                        old: change.old,
                        new: change.new,
                    },
                );
            }
        });
        let api: Api<Metadata> = Api::all_with(self.client.clone(), &kind.resource);
        let (filling, clock) = (cache.clone(), self.clock.clone());
        let task = self.supervisor.spawn("metadata", OnError::Log, async move {
            fill(&filling, api, &clock).await;
            Ok::<(), String>(())
        });
        Monitor { cache, task }
    }

    fn watch_filling(self: &Arc<Self>) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let synced: Vec<_> = running
            .values()
            .map(|monitor| monitor.cache.synced())
            .collect();
        drop(running);
        let monitors = self.clone();
        self.supervisor.spawn("metadata", OnError::Log, async move {
            futures::future::join_all(synced).await;
            monitors.filled.send_replace(true);
            Ok::<(), String>(())
        });
    }
}

async fn discover(client: &Client) -> kube::Result<Vec<Arc<Kind>>> {
    let discovery = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(discovery) if discovery.groups().next().is_some() => discovery,
        _ => Discovery::new(client.clone()).run().await?,
    };
    Ok(discovery
        .groups()
        .flat_map(kube::discovery::ApiGroup::resources_by_stability)
        .map(|(resource, capabilities)| Arc::new(Kind::new(resource, &capabilities)))
        .collect())
}

async fn fill(cache: &Arc<Cache<Metadata>>, api: Api<Metadata>, clock: &SharedClock) {
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
    let mut backoff = Backoff::new(Duration::from_millis(10), 2.0, Duration::from_secs(10));
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if !matches!(event, watcher::Event::Init) {
                    backoff.reset();
                }
                cache.apply(event.modify(|object| {
                    object.metadata.managed_fields = None;
                    object.metadata.annotations = None;
                    object.metadata.labels = None;
                }));
            }
            Err(error) => {
                tracing::debug!("metadata: {}", stdx::error::chain(&error));
                clock.sleep(backoff.next_delay()).await;
            }
        }
    }
}
