//! Writes core/v1 Events about objects: in the background, and counted up instead of repeated.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use stdx::{OnError, SharedClock, Supervisor};
use tokio::sync::mpsc;

/// How many distinct events are remembered for counting.
const REMEMBERED: usize = 4096;

/// Records the Events of one controller.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::UnboundedSender<News>,
}

#[derive(Debug)]
struct News {
    about: ObjectReference,
    kind: &'static str,
    reason: String,
    message: String,
}

impl Recorder {
    /// A recorder that signs as `component`.
    pub(crate) fn new(
        client: Client,
        component: &'static str,
        clock: SharedClock,
        supervisor: &Supervisor,
    ) -> Self {
        let (queue, news) = mpsc::unbounded_channel();
        supervisor.spawn("event recorder", OnError::Log, async move {
            write(client, component, clock, news).await;
            Ok::<(), String>(())
        });
        Self { queue }
    }

    /// Something went as it should.
    pub(crate) fn normal<K>(&self, about: &K, reason: impl Into<String>, message: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.record(about, "Normal", reason.into(), message.into());
    }

    /// Something a user should look at.
    pub(crate) fn warning<K>(
        &self,
        about: &K,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) where
        K: Resource<DynamicType = ()>,
    {
        self.record(about, "Warning", reason.into(), message.into());
    }

    fn record<K>(&self, about: &K, kind: &'static str, reason: String, message: String)
    where
        K: Resource<DynamicType = ()>,
    {
        let mut about = about.object_ref(&());
        about.namespace = about.namespace.filter(|n| !n.is_empty());
        // The writer only goes away with the process.
        drop(self.queue.send(News {
            about,
            kind,
            reason,
            message,
        }));
    }
}

type Identity = (Option<String>, Option<String>, &'static str, String, String);

async fn write(
    client: Client,
    component: &'static str,
    clock: SharedClock,
    mut news: mpsc::UnboundedReceiver<News>,
) {
    let mut written: BTreeMap<Identity, (String, i32)> = BTreeMap::new();
    while let Some(item) = news.recv().await {
        let namespace = item
            .about
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let identity = (
            item.about.uid.clone(),
            item.about.name.clone(),
            item.kind,
            item.reason.clone(),
            item.message.clone(),
        );
        let now = Time(clock.now());
        if let Some((name, count)) = written.get_mut(&identity) {
            *count += 1;
            let patch = json!({"count": *count, "lastTimestamp": now});
            match api
                .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await
            {
                Ok(_) => continue,
                // The event has expired or its namespace is gone: tell it anew.
                Err(_) => drop(written.remove(&identity)),
            }
        }
        let event = event(&item, &namespace, component, now, clock.now());
        match api.create(&PostParams::default(), &event).await {
            Ok(created) => {
                if written.len() >= REMEMBERED {
                    written.clear();
                }
                written.insert(identity, (created.metadata.name.unwrap_or_default(), 1));
            }
            Err(error) => {
                // A namespace on its way out takes no events; nothing is lost.
                tracing::debug!(
                    component,
                    "event not recorded: {}",
                    stdx::error::chain(&error)
                );
            }
        }
    }
}

fn event(
    item: &News,
    namespace: &str,
    component: &str,
    now: Time,
    stamp: jiff::Timestamp,
) -> Event {
    let about = item.about.name.as_deref().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{about}.{:x}", stamp.as_nanosecond())),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: item.about.clone(),
        reason: Some(item.reason.clone()),
        message: Some(item.message.clone()),
        source: Some(EventSource {
            component: Some(component.to_owned()),
            host: None,
        }),
        reporting_component: Some(component.to_owned()),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        type_: Some(item.kind.to_owned()),
        ..Event::default()
    }
}
