//! Tells when single objects of the API change, with one watch per object however many Pods care.
//!
//! Only resource versions are handed out: whoever hears of a change reads the object itself, so
//! that what it acts on is never older than what it was told.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use stdx::{OnError, Supervisor};

/// The kinds of objects that Pods refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
    Claim,
}

/// Names one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Watches objects for as long as somebody holds a [`Subscription`].
#[derive(Clone)]
pub(crate) struct Changes {
    client: Client,
    supervisor: Supervisor,
    watches: Arc<Mutex<HashMap<Key, Weak<Shared>>>>,
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Shared {
    versions: watch::Receiver<Known>,
    task: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a watch knows of its object.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Nothing,
    Absent,
    Version(String),
}

/// An interest in one object.
#[derive(Debug)]
pub(crate) struct Subscription {
    versions: watch::Receiver<Known>,
    // Keeps the watch going.
    _shared: Arc<Shared>,
}

impl Subscription {
    /// Completes when the object's version is not `seen` (`None`: it did not exist).
    pub(crate) async fn differs_from(&mut self, seen: Option<&str>) {
        let differs = |known: &Known| match (known, seen) {
            (Known::Nothing, _) | (Known::Absent, None) => false,
            (Known::Absent, Some(_)) | (Known::Version(_), None) => true,
            (Known::Version(version), Some(seen)) => version != seen,
        };
        if self.versions.wait_for(differs).await.is_err() {
            // The kubelet stops: nothing changes any more.
            std::future::pending::<()>().await;
        }
    }
}

impl Changes {
    pub(crate) fn new(client: Client, supervisor: Supervisor) -> Self {
        Self {
            client,
            supervisor,
            watches: Arc::default(),
        }
    }

    /// Begins to care about an object.
    pub(crate) fn subscribe(&self, key: &Key) -> Subscription {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = watches.get(key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let (sender, versions) = watch::channel(Known::Nothing);
            let shared = Arc::new(Shared {
                versions,
                task: self.watch(key, sender),
            });
            watches.insert(key.clone(), Arc::downgrade(&shared));
            shared
        });
        if watches.len() > 64 {
            watches.retain(|_, weak| weak.strong_count() > 0);
        }
        Subscription {
            versions: shared.versions.clone(),
            _shared: shared,
        }
    }

    fn watch(&self, key: &Key, sender: watch::Sender<Known>) -> AbortHandle {
        let client = self.client.clone();
        let (namespace, name) = (key.namespace.clone(), key.name.clone());
        let task = match key.kind {
            Kind::ConfigMap => self.supervisor.spawn(
                "kubelet-watch-configmap",
                OnError::Log,
                follow::<ConfigMap>(client, namespace, name, sender),
            ),
            Kind::Secret => self.supervisor.spawn(
                "kubelet-watch-secret",
                OnError::Log,
                follow::<Secret>(client, namespace, name, sender),
            ),
            Kind::Claim => self.supervisor.spawn(
                "kubelet-watch-claim",
                OnError::Log,
                follow::<PersistentVolumeClaim>(client, namespace, name, sender),
            ),
        };
        task.abort_handle()
    }
}

async fn follow<K>(
    client: Client,
    namespace: String,
    name: String,
    versions: watch::Sender<Known>,
) -> Result<(), std::convert::Infallible>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + fmt::Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let api: Api<K> = Api::namespaced(client, &namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut stream = std::pin::pin!(watcher(api, config).default_backoff());
    let version = |object: &K| Known::Version(object.resource_version().unwrap_or_default());
    let mut listed = Known::Absent;
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => listed = Known::Absent,
            Ok(watcher::Event::InitApply(object)) => listed = version(&object),
            Ok(watcher::Event::InitDone) => {
                versions.send_replace(listed.clone());
            }
            Ok(watcher::Event::Apply(object)) => {
                versions.send_replace(version(&object));
            }
            Ok(watcher::Event::Delete(_)) => {
                versions.send_replace(Known::Absent);
            }
            Err(error) => {
                tracing::debug!(namespace, name, "watch: {}", stdx::error::chain(&error));
            }
        }
    }
    Ok(())
}
