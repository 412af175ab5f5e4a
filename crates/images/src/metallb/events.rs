//! Events of the core API group, which is the one MetalLB's manifest grants.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use stdx::SharedClock;

use super::log;

const COMPONENT: &str = "metallb-controller";

/// How many Events are remembered for counting instead of writing them again.
const REMEMBERED: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Warning,
}

/// Writes Events; the same one again raises the count of the first.
pub(super) struct Events {
    client: Client,
    clock: SharedClock,
    written: BTreeMap<Identity, Written>,
}

/// Object, reason, message.
type Identity = (Option<String>, &'static str, String);

struct Written {
    name: String,
    count: i32,
}

impl Events {
    pub(super) fn new(client: Client, clock: SharedClock) -> Self {
        Self {
            client,
            clock,
            written: BTreeMap::new(),
        }
    }

    /// Tells about an object; failing to is only logged.
    pub(super) async fn tell(
        &mut self,
        about: ObjectReference,
        kind: Kind,
        reason: &'static str,
        message: &str,
    ) {
        if let Err(error) = self.write(about, kind, reason, message).await {
            log(
                "eventFailed",
                &format!("record event {reason}: {error}"),
                json!({}),
            );
        }
    }

    async fn write(
        &mut self,
        about: ObjectReference,
        kind: Kind,
        reason: &'static str,
        message: &str,
    ) -> kube::Result<()> {
        let namespace = about.namespace.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let now = Time(self.clock.now());
        let identity = (about.uid.clone(), reason, message.to_owned());
        if let Some(before) = self.written.get_mut(&identity) {
            before.count += 1;
            let change = json!({"count": before.count, "lastTimestamp": now});
            let patch = Patch::Strategic(change);
            match api
                .patch(&before.name, &PatchParams::default(), &patch)
                .await
            {
                Ok(_) => return Ok(()),
                // Expired, or not ours to change: it is told anew.
                Err(kube::Error::Api(_)) => drop(self.written.remove(&identity)),
                Err(error) => return Err(error),
            }
        }
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!(
                    "{}.{:x}",
                    about.name.as_deref().unwrap_or_default(),
                    self.clock.now().as_nanosecond()
                )),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: about,
            type_: Some(format!("{kind:?}")),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            source: Some(EventSource {
                component: Some(COMPONENT.to_owned()),
                host: None,
            }),
            reporting_component: Some(COMPONENT.to_owned()),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            count: Some(1),
            ..Event::default()
        };
        let created = api.create(&PostParams::default(), &event).await?;
        if self.written.len() >= REMEMBERED {
            self.written.clear();
        }
        let name = created.name_any();
        self.written.insert(identity, Written { name, count: 1 });
        Ok(())
    }
}
