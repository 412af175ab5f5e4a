//! Events do not live for ever: an hour after they were last seen they are deleted, as upstream.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use kinds::tree;
use serde_json::Value;
use stdx::OnError;

use crate::server::State;
use crate::storage::{Expect, Write};

const LIFE: Duration = Duration::from_secs(60 * 60);
const LOOK_EVERY: Duration = Duration::from_secs(5 * 60);

/// Looks for expired events until the server is shut down or dropped.
pub(crate) fn start(state: &Arc<State>) {
    let clock = Arc::clone(state.clock());
    let weak = Arc::downgrade(state);
    state
        .supervisor
        .spawn("event expiry", OnError::Log, async move {
            loop {
                clock.sleep(LOOK_EVERY).await;
                let Some(state) = Weak::upgrade(&weak) else {
                    return Ok::<(), Infallible>(());
                };
                expire(&state).await;
            }
        });
}

/// Deletes the events that nobody has seen for an hour.
async fn expire(state: &State) {
    let Ok(before) = state.clock().now().checked_sub(LIFE) else {
        return;
    };
    let cache = state.store.cache("events");
    for event in cache.snapshot("", state.store.position()).objects {
        if last_seen(event.value()).is_none_or(|seen| seen >= before) {
            continue;
        }
        let write = Write {
            resource: "events".into(),
            namespace: event.namespace.to_string(),
            name: event.name.to_string(),
            expect: Expect::Version(event.rv),
            object: None,
        };
        // One that changed meanwhile was seen again.
        if let Err(error) = state.store.write(write).await {
            tracing::debug!(name = %event.name, "expire an event: {error}");
        }
    }
}

fn last_seen(event: &Value) -> Option<Timestamp> {
    [
        "series.lastObservedTime",
        "lastTimestamp",
        "eventTime",
        "metadata.creationTimestamp",
    ]
    .iter()
    .filter_map(|path| tree::text(event, path).parse().ok())
    .max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_latest_of_an_events_times_counts() {
        let event = json!({
            "metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"},
            "lastTimestamp": "2024-01-01T05:00:00Z", "eventTime": null,
        });
        assert_eq!(last_seen(&event), "2024-01-01T05:00:00Z".parse().ok());
        assert_eq!(last_seen(&json!({})), None);
    }
}
