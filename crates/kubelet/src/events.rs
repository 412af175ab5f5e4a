//! Kubernetes Events about Pods and the Node: what `kubectl describe` shows at its end.
//!
//! Repeats of one message raise the count of the first Event. An object that causes very many is
//! slowed down (25 at once, then one in five minutes), so that a crashing Pod cannot fill the store.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use stdx::{OnError, SharedClock, Supervisor};
use tokio::sync::mpsc;

/// How many Events one object may cause at once, and how often one more is allowed.
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;
/// How many different Events are remembered for counting.
const REMEMBERED: usize = 4096;

/// Whether an Event tells of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

#[derive(Debug)]
struct Note {
    object: ObjectReference,
    severity: Severity,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Records Events. Clones share one writer, which works behind the callers' backs.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    notes: mpsc::UnboundedSender<Note>,
    clock: SharedClock,
}

impl Recorder {
    /// Starts the writer.
    pub(crate) fn start(
        client: Client,
        clock: SharedClock,
        node_name: &str,
        supervisor: &Supervisor,
    ) -> Self {
        let (notes, receiver) = mpsc::unbounded_channel();
        let writer = Writer {
            client,
            node: node_name.to_owned(),
            seen: HashMap::new(),
            budgets: HashMap::new(),
        };
        supervisor.spawn("kubelet-events", OnError::Log, async move {
            writer.run(receiver).await;
            Ok::<(), std::convert::Infallible>(())
        });
        Self { notes, clock }
    }

    /// Records an Event about any object.
    pub(crate) fn record(
        &self,
        object: ObjectReference,
        severity: Severity,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) {
        let note = Note {
            object,
            severity,
            reason: reason.into(),
            message: message.into(),
            at: self.clock.now(),
        };
        // The writer ends with the supervisor; nobody reads Events after that.
        drop(self.notes.send(note));
    }
}

/// The Pod (or with a field path one of its containers) as an Event refers to it.
pub(crate) fn pod_reference(pod: &Arc<Pod>, field_path: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.resource_version(),
        field_path,
    }
}

type Key = (String, String, String, String, String);

#[derive(Debug)]
struct Seen {
    name: String,
    count: i32,
    used: u64,
}

struct Writer {
    client: Client,
    node: String,
    seen: HashMap<Key, Seen>,
    budgets: HashMap<String, (f64, Timestamp)>,
}

impl Writer {
    async fn run(mut self, mut notes: mpsc::UnboundedReceiver<Note>) {
        let mut tick = 0;
        while let Some(note) = notes.recv().await {
            tick += 1;
            if self.seen.len() >= REMEMBERED {
                let half = tick - (REMEMBERED as u64) / 2;
                self.seen.retain(|_, seen| seen.used > half);
                self.budgets.retain(|_, (left, _)| *left < BURST - 1.0);
            }
            if let Err(error) = self.write(&note, tick).await {
                tracing::warn!(
                    reason = note.reason,
                    object = note.object.name,
                    "record an event: {}",
                    stdx::error::chain(&error)
                );
            }
        }
    }

    fn allowed(&mut self, note: &Note) -> bool {
        let uid = note.object.uid.clone().unwrap_or_default();
        let (left, since) = self.budgets.entry(uid).or_insert((BURST, note.at));
        let passed = note.at.duration_since(*since).as_secs_f64().max(0.0);
        *left = (*left + passed / REFILL_SECONDS).min(BURST);
        *since = note.at;
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }

    async fn write(&mut self, note: &Note, tick: u64) -> Result<(), kube::Error> {
        if !self.allowed(note) {
            return Ok(());
        }
        let text = |value: Option<&String>| value.cloned().unwrap_or_default();
        // The Node is not in a namespace; its Events live in `default`.
        let namespace = match text(note.object.namespace.as_ref()) {
            empty if empty.is_empty() => "default".to_owned(),
            namespace => namespace,
        };
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let key = (
            format!("{namespace}/{}", text(note.object.uid.as_ref())),
            text(note.object.name.as_ref()),
            text(note.object.field_path.as_ref()),
            note.reason.clone(),
            note.message.clone(),
        );
        if let Some(seen) = self.seen.get_mut(&key) {
            let count = seen.count + 1;
            let patch = json!({"count": count, "lastTimestamp": Time(note.at)});
            let patched = events
                .patch(&seen.name, &PatchParams::default(), &Patch::Merge(&patch))
                .await;
            match patched {
                Ok(_) => {
                    seen.count = count;
                    seen.used = tick;
                    return Ok(());
                }
                // It has expired: a new one follows.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let name = format!(
            "{}.{:x}",
            text(note.object.name.as_ref()),
            note.at.as_nanosecond() + i128::from(tick % 1000)
        );
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: note.object.clone(),
            type_: Some(
                match note.severity {
                    Severity::Normal => "Normal",
                    Severity::Warning => "Warning",
                }
                .to_owned(),
            ),
            reason: Some(note.reason.clone()),
            message: Some(note.message.clone()),
            count: Some(1),
            first_timestamp: Some(Time(note.at)),
            last_timestamp: Some(Time(note.at)),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        };
        match events.create(&PostParams::default(), &event).await {
            Ok(_) => {}
            // The namespace is going: its Events go with it.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
                tracing::debug!(namespace, "event not recorded: {}", status.message);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.seen.insert(
            key,
            Seen {
                name,
                count: 1,
                used: tick,
            },
        );
        Ok(())
    }
}
