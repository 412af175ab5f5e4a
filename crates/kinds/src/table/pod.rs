//! The row of a Pod: what its many states add up to in one word.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::ctx::Ctx;
use crate::table::{age, name, since, text_or};
use crate::tree;

pub(crate) fn row(ctx: &Ctx, pod: &Value) -> Vec<Value> {
    let summary = Summary::of(pod);
    let restarts = match summary.last_restart.as_deref() {
        Some(at) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, since(ctx, at))
        }
        _ => summary.restarts.to_string(),
    };
    let ip = tree::list(pod, "status.podIPs")
        .first()
        .map_or("", |ip| tree::text(ip, "ip"));
    vec![
        name(pod),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts),
        age(ctx, pod),
        json!(if ip.is_empty() { "<none>" } else { ip }),
        json!(text_or(pod, "spec.nodeName", "<none>")),
        json!(text_or(pod, "status.nominatedNodeName", "<none>")),
        json!(readiness_gates(pod)),
    ]
}

/// The conditions of a finished Pod's table row, by which kubectl knows it is finished.
pub(crate) fn row_conditions(pod: &Value) -> Option<Value> {
    let (reason, message) = match tree::text(pod, "status.phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

struct Summary {
    reason: String,
    ready: i64,
    total: usize,
    restarts: i64,
    last_restart: Option<String>,
}

/// Restarts and the time of the last one, added up over containers.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<(Timestamp, String)>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += tree::int(status, "restartCount").unwrap_or(0);
        let text = tree::text(status, "lastState.terminated.finishedAt");
        if let Ok(at) = text.parse::<Timestamp>() {
            if self.last.as_ref().is_none_or(|(last, _)| *last < at) {
                self.last = Some((at, text.to_owned()));
            }
        }
    }
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let phase = tree::text(pod, "status.phase");
        let mut reason = text_or(pod, "status.reason", phase).to_owned();
        if tree::list(pod, "status.conditions")
            .iter()
            .any(|condition| {
                tree::text(condition, "type") == "PodScheduled"
                    && tree::text(condition, "reason") == "SchedulingGated"
            })
        {
            "SchedulingGated".clone_into(&mut reason);
        }

        let init_containers = tree::list(pod, "spec.initContainers");
        let is_sidecar = |name: &str| {
            init_containers.iter().any(|container| {
                tree::text(container, "name") == name
                    && tree::text(container, "restartPolicy") == "Always"
            })
        };
        let sidecars = init_containers
            .iter()
            .filter(|c| tree::text(c, "restartPolicy") == "Always")
            .count();
        let total = tree::list(pod, "spec.containers").len() + sidecars;

        let (mut all, mut of_sidecars) = (Restarts::default(), Restarts::default());
        let (mut ready, mut initializing) = (0, false);
        for (i, status) in tree::list(pod, "status.initContainerStatuses")
            .iter()
            .enumerate()
        {
            all.add(status);
            let sidecar = is_sidecar(tree::text(status, "name"));
            if sidecar {
                of_sidecars.add(status);
            }
            let terminated = tree::get(status, "state.terminated");
            let waiting = tree::text(status, "state.waiting.reason");
            if terminated.is_some_and(|t| tree::int(t, "exitCode").unwrap_or(0) == 0) {
                continue;
            }
            if sidecar && tree::truthy(status, "started") {
                ready += i64::from(tree::truthy(status, "ready"));
                continue;
            }
            reason = if let Some(terminated) = terminated {
                format!("Init:{}", exit_reason(terminated))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{i}/{}", init_containers.len())
            };
            initializing = true;
            break;
        }

        if !initializing || has_condition(pod, "Initialized") {
            all = of_sidecars;
            let mut running = false;
            for status in tree::list(pod, "status.containerStatuses").iter().rev() {
                all.add(status);
                let waiting = tree::text(status, "state.waiting.reason");
                if !waiting.is_empty() {
                    waiting.clone_into(&mut reason);
                } else if let Some(terminated) = tree::get(status, "state.terminated") {
                    reason = exit_reason(terminated);
                } else if tree::truthy(status, "ready")
                    && tree::get(status, "state.running").is_some()
                {
                    running = true;
                    ready += 1;
                }
            }
            if reason == "Completed" && running {
                let word = if has_condition(pod, "Ready") {
                    "Running"
                } else {
                    "NotReady"
                };
                word.clone_into(&mut reason);
            }
        }

        if tree::get(pod, "metadata.deletionTimestamp").is_some() {
            if tree::text(pod, "status.reason") == "NodeLost" {
                "Unknown".clone_into(&mut reason);
            } else if !matches!(phase, "Succeeded" | "Failed") {
                "Terminating".clone_into(&mut reason);
            }
        }
        let last_restart = all.last.map(|(_, text)| text);
        Self {
            reason,
            ready,
            total,
            restarts: all.count,
            last_restart,
        }
    }
}

fn exit_reason(terminated: &Value) -> String {
    let reason = tree::text(terminated, "reason");
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match tree::int(terminated, "signal") {
        Some(signal) if signal != 0 => format!("Signal:{signal}"),
        _ => format!(
            "ExitCode:{}",
            tree::int(terminated, "exitCode").unwrap_or(0)
        ),
    }
}

fn has_condition(pod: &Value, kind: &str) -> bool {
    tree::list(pod, "status.conditions")
        .iter()
        .any(|condition| {
            tree::text(condition, "type") == kind && tree::text(condition, "status") == "True"
        })
}

fn readiness_gates(pod: &Value) -> String {
    let gates = tree::list(pod, "spec.readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let met = gates
        .iter()
        .filter(|gate| has_condition(pod, tree::text(gate, "conditionType")));
    format!("{}/{}", met.count(), gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: Value, expected: [&str; 3]) {
        let pod = json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "m"}], "initContainers": [{"name": "i"}, {"name": "j"}]},
            "status": status,
        });
        let ctx = Ctx::new("2026-01-01T00:10:00Z".parse().unwrap());
        let row = row(&ctx, &pod);
        let cells: Vec<&str> = row[1..4]
            .iter()
            .map(|cell| cell.as_str().unwrap())
            .collect();
        assert_eq!(cells, expected, "{}", pod["status"]);
    }

    #[test]
    fn states() {
        let main = |state: Value, ready: bool, restarts: i64| {
            json!({"phase": "Running", "containerStatuses":
                [{"name": "m", "ready": ready, "restartCount": restarts, "state": state}]})
        };
        check(json!({"phase": "Pending"}), ["0/1", "Pending", "0"]);
        check(
            main(json!({"running": {}}), true, 0),
            ["1/1", "Running", "0"],
        );
        check(
            main(json!({"waiting": {"reason": "CrashLoopBackOff"}}), false, 3),
            ["0/1", "CrashLoopBackOff", "3"],
        );
        check(
            main(json!({"terminated": {"exitCode": 3}}), false, 0),
            ["0/1", "ExitCode:3", "0"],
        );
        check(
            main(
                json!({"terminated": {"exitCode": 137, "signal": 9}}),
                false,
                0,
            ),
            ["0/1", "Signal:9", "0"],
        );
        check(
            json!({"phase": "Failed", "reason": "Evicted"}),
            ["0/1", "Evicted", "0"],
        );
    }

    #[test]
    fn initializing() {
        let init = |statuses: Value| json!({"phase": "Pending", "initContainerStatuses": statuses});
        let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0}}});
        check(
            init(json!([done, {"name": "j", "state": {"waiting": {"reason": "PodInitializing"}}}])),
            ["0/1", "Init:1/2", "0"],
        );
        check(
            init(
                json!([{"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]),
            ),
            ["0/1", "Init:Error", "2"],
        );
        check(
            init(json!([{"name": "i", "state": {"waiting": {"reason": "ErrImagePull"}}}])),
            ["0/1", "Init:ErrImagePull", "0"],
        );
    }

    #[test]
    fn restarts_tell_when() {
        check(
            json!({"phase": "Running", "containerStatuses": [{"name": "m", "ready": true, "restartCount": 1,
                "state": {"running": {}},
                "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:05:00Z"}}}]}),
            ["1/1", "Running", "1 (5m ago)"],
        );
    }
}
