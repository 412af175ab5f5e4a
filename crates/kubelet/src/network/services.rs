//! The services of the cluster, followed by two watches that all Pods share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::hosts::{self, ServiceName};
use crate::pod::environment;
use stdx::{OnError, Supervisor};

type Objects<K> = BTreeMap<(String, String), K>;

/// What is known of services. Clones share it.
#[derive(Clone)]
pub(crate) struct Services {
    state: Arc<Mutex<State>>,
    version: watch::Sender<u64>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    services: Objects<Service>,
    slices: Objects<EndpointSlice>,
    listed: (bool, bool),
    names: Arc<Vec<ServiceName>>,
}

impl Services {
    /// Starts the watches.
    pub(crate) fn start(client: &Client, supervisor: &Supervisor) -> Self {
        let services = Self {
            state: Arc::default(),
            version: watch::Sender::new(0),
        };
        let (mine, api) = (services.clone(), Api::<Service>::all(client.clone()));
        supervisor.spawn("kubelet-services", OnError::Log, async move {
            follow(api, |change| {
                mine.change(|s| {
                    apply(&mut s.services, change, &mut s.listed.0);
                });
            })
            .await;
            Ok::<(), std::convert::Infallible>(())
        });
        let (mine, api) = (services.clone(), Api::<EndpointSlice>::all(client.clone()));
        supervisor.spawn("kubelet-endpointslices", OnError::Log, async move {
            follow(api, |change| {
                mine.change(|s| {
                    apply(&mut s.slices, change, &mut s.listed.1);
                });
            })
            .await;
            Ok::<(), std::convert::Infallible>(())
        });
        services
    }

    fn change(&self, update: impl FnOnce(&mut State)) {
        let changed = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let listed = state.listed;
            update(&mut state);
            let names = hosts::service_names(state.services.values(), state.slices.values());
            let changed = *state.names != names || listed != state.listed;
            state.names = Arc::new(names);
            changed
        };
        if changed {
            self.version.send_modify(|v| *v += 1);
        }
    }

    /// Completes when both lists have been read once.
    pub(crate) async fn ready(&self) {
        let mut versions = self.version.subscribe();
        let listed = |_: &u64| {
            self.state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .listed
                == (true, true)
        };
        // The sender lives in `self`.
        drop(versions.wait_for(listed).await);
    }

    /// Wakes when names change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The names of all services.
    pub(crate) fn names(&self) -> Arc<Vec<ServiceName>> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .names
            .clone()
    }

    /// The service variables of a container in `namespace`.
    pub(crate) fn variables(
        &self,
        namespace: &str,
        links: bool,
        api: &(String, u16),
    ) -> Vec<(String, String)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let own = state
            .services
            .iter()
            // The API's own service is told by the address that answers for it.
            .filter(|((of, name), _)| {
                links
                    && of == namespace
                    && (of.as_str(), name.as_str()) != ("default", "kubernetes")
            })
            .map(|(_, service)| service);
        environment::service_variables(own, api)
    }
}

fn apply<K: Resource>(objects: &mut Objects<K>, change: watcher::Event<K>, listed: &mut bool) {
    let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
    match change {
        // A fresh list follows; what it lacks has gone.
        watcher::Event::Init => objects.clear(),
        watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
            objects.insert(key(&object), object);
        }
        watcher::Event::Delete(object) => {
            objects.remove(&key(&object));
        }
        watcher::Event::InitDone => *listed = true,
    }
}

/// Hands every event to `change`; a list is handed over as a whole.
async fn follow<K>(api: Api<K>, change: impl Fn(watcher::Event<K>))
where
    K: Resource<DynamicType = ()> + Clone + fmt::Debug + DeserializeOwned + Send + 'static,
{
    let mut stream = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut list = Vec::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(event @ (watcher::Event::Init | watcher::Event::InitApply(_))) => list.push(event),
            Ok(done @ watcher::Event::InitDone) => {
                list.drain(..).chain([done]).for_each(&change);
            }
            Ok(event) => change(event),
            Err(error) => tracing::debug!("watch services: {}", stdx::error::chain(&error)),
        }
    }
}
