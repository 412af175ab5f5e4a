//! Warning Events about Services whose addresses cannot be listened on.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use stdx::{OnError, SharedClock, Supervisor};
use tokio::sync::mpsc;

const COMPONENT: &str = "kube-proxy";

/// How many distinct Events are remembered for counting.
const REMEMBERED: usize = 1024;

/// Writes Events in the background.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    queue: mpsc::UnboundedSender<(ObjectReference, String)>,
}

impl Events {
    pub(crate) fn start(
        client: Client,
        node_name: String,
        clock: SharedClock,
        supervisor: &Supervisor,
    ) -> Self {
        let (queue, news) = mpsc::unbounded_channel();
        supervisor.spawn("service proxy events", OnError::Log, async move {
            write(client, node_name, clock, news).await;
            Ok::<(), String>(())
        });
        Self { queue }
    }

    /// Says that a Service's address cannot be listened on.
    pub(crate) fn failed_to_listen(&self, service: &ObjectReference, message: String) {
        // The writer only goes away with the process.
        drop(self.queue.send((service.clone(), message)));
    }
}

async fn write(
    client: Client,
    node_name: String,
    clock: SharedClock,
    mut news: mpsc::UnboundedReceiver<(ObjectReference, String)>,
) {
    let mut written: BTreeMap<(Option<String>, String), (String, i32)> = BTreeMap::new();
    while let Some((service, message)) = news.recv().await {
        let namespace = service
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let now = Time(clock.now());
        let identity = (service.uid.clone(), message.clone());
        if let Some((name, count)) = written.get_mut(&identity) {
            *count += 1;
            let patch = Patch::Merge(json!({"count": *count, "lastTimestamp": now}));
            match api.patch(name, &PatchParams::default(), &patch).await {
                Ok(_) => continue,
                // Expired: it is told anew.
                Err(_) => drop(written.remove(&identity)),
            }
        }
        let name = service.name.as_deref().unwrap_or_default();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", clock.now().as_nanosecond())),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: service,
            type_: Some("Warning".to_owned()),
            reason: Some("FailedToListen".to_owned()),
            message: Some(message),
            source: Some(EventSource {
                component: Some(COMPONENT.to_owned()),
                host: Some(node_name.clone()),
            }),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(node_name.clone()),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            count: Some(1),
            ..Event::default()
        };
        match api.create(&PostParams::default(), &event).await {
            Ok(created) => {
                if written.len() >= REMEMBERED {
                    written.clear();
                }
                written.insert(identity, (created.metadata.name.unwrap_or_default(), 1));
            }
            Err(error) => tracing::warn!("event not recorded: {}", stdx::error::chain(&error)),
        }
    }
}
