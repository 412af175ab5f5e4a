//! Pods for which there is no place on any node, whatever ends: a step that waits for one waits for
//! ever, so after a while it fails and says what it was waiting for.

use std::sync::Arc;

use engine::{Event, Outcome};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use super::{Shared, news};

/// The scheduler's words for: it would not help if other Pods went.
const NO_USE: &str = "Preemption is not helpful for scheduling";
const SOME_USE: &str = "No preemption victims found";
/// A volume is being made, which takes its time.
const NOT_YET: &str = "unbound immediate PersistentVolumeClaims";

/// Why no node can ever take the Pod as things are.
pub(super) fn hopeless(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?;
    let condition = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    })?;
    let message = condition.message.as_deref()?;
    let alone = message.contains(NO_USE) && !message.contains(SOME_USE);
    (alone && !message.contains(NOT_YET)).then_some(message)
}

/// Waits, looks again, and ends the attempt if nothing has changed. `None` when the Pod has a node
/// or is gone.
pub(super) async fn run_out(shared: Arc<Shared>, pod: Arc<Pod>) -> Option<Event> {
    let (task, attempt) = news::attempt_of(&pod)?;
    let name = pod.metadata.name.as_deref()?;
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &shared.options.namespace);
    let patience = shared.options.unschedulable_after;
    loop {
        shared.clock.sleep(patience).await;
        let now = match api.get_opt(name).await {
            Ok(now) => now?,
            Err(error) => {
                tracing::warn!(pod = name, "look at pod: {}", stdx::error::chain(&error));
                continue;
            }
        };
        let placed = now
            .spec
            .as_ref()
            .is_some_and(|spec| spec.node_name.is_some());
        if placed || now.metadata.uid != pod.metadata.uid {
            return None;
        }
        if let Some(reason) = hopeless(&now) {
            let seconds = patience.as_secs();
            let reason = reason.split(" preemption:").next().unwrap_or(reason);
            return Some(Event::TaskFinished {
                task,
                attempt,
                at: shared.clock.now(),
                outcome: Outcome::Error {
                    message: format!("no node could take the step for {seconds} s: {reason}"),
                    transient: false,
                    stop: true,
                },
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(message: &str) -> Pod {
        let condition = json!({"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": message});
        let pod = json!({"metadata": {"name": "p"}, "status": {"conditions": [condition]}});
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn only_a_pod_for_which_no_node_could_make_room_is_hopeless() {
        let check = |message: &str, expect: bool| {
            assert_eq!(hopeless(&pod(message)).is_some(), expect, "{message}");
        };
        check(
            "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are \
             available: 1 Preemption is not helpful for scheduling.",
            true,
        );
        check(
            "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 1 \
             No preemption victims found for incoming pod, 1 Preemption is not helpful for \
             scheduling.",
            false,
        );
        check("0/1 nodes are available: 1 Insufficient cpu.", false);
        assert_eq!(hopeless(&Pod::default()), None);
    }
}
