//! What the proxy knows of the cluster: Services and EndpointSlices, mirrored by two watches.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use stdx::{Backoff, OnError, SharedClock, Supervisor};
use tokio::sync::mpsc;

/// Something that a watch told.
pub(crate) enum News {
    Service(Box<Event<Service>>),
    Slice(Box<Event<EndpointSlice>>),
}

/// Both kinds as last seen.
#[derive(Default)]
pub(crate) struct Cluster {
    services: Mirror<Service>,
    slices: Mirror<EndpointSlice>,
}

impl Cluster {
    pub(crate) fn apply(&mut self, news: News) {
        match news {
            News::Service(event) => self.services.apply(*event),
            News::Slice(event) => self.slices.apply(*event),
        }
    }

    /// Whether both kinds were listed once; before that every Service would look empty.
    pub(crate) fn is_known(&self) -> bool {
        self.services.listed && self.slices.listed
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.objects.values()
    }

    pub(crate) fn slices(&self) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.slices.objects.values()
    }
}

type Objects<K> = BTreeMap<(String, String), Arc<K>>;

struct Mirror<K> {
    objects: Objects<K>,
    listing: Objects<K>,
    listed: bool,
}

impl<K> Default for Mirror<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            listing: BTreeMap::new(),
            listed: false,
        }
    }
}

impl<K: Resource> Mirror<K> {
    fn apply(&mut self, event: Event<K>) {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => {
                self.listing.insert(key(&object), Arc::new(object));
            }
            Event::InitDone => {
                self.objects = std::mem::take(&mut self.listing);
                self.listed = true;
            }
            Event::Apply(object) => {
                self.objects.insert(key(&object), Arc::new(object));
            }
            Event::Delete(object) => {
                self.objects.remove(&key(&object));
            }
        }
    }
}

/// Starts both watches.
pub(crate) fn start(
    client: &Client,
    clock: &SharedClock,
    supervisor: &Supervisor,
) -> mpsc::UnboundedReceiver<News> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let services: Api<Service> = Api::all(client.clone());
    let slices: Api<EndpointSlice> = Api::all(client.clone());
    let to = sender.clone();
    follow(services, clock, supervisor, move |event| {
        to.send(News::Service(Box::new(event))).is_ok()
    });
    follow(slices, clock, supervisor, move |event| {
        sender.send(News::Slice(Box::new(event))).is_ok()
    });
    receiver
}

fn follow<K>(
    api: Api<K>,
    clock: &SharedClock,
    supervisor: &Supervisor,
    tell: impl Fn(Event<K>) -> bool + Send + 'static,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let clock = clock.clone();
    supervisor.spawn("service proxy watch", OnError::Log, async move {
        let url = api.resource_url().to_owned();
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        // Short at first: at start the API server is about to listen.
        let mut backoff = Backoff::new(Duration::from_millis(10), 2.0, Duration::from_secs(10));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if !matches!(event, Event::Init) {
                        backoff.reset();
                    }
                    if !tell(event) {
                        break;
                    }
                }
                Err(error) => {
                    let pause = backoff.next_delay();
                    tracing::debug!(%url, "watch fails: {}", stdx::error::chain(&error));
                    clock.sleep(pause).await;
                }
            }
        }
        Ok::<(), String>(())
    });
}
