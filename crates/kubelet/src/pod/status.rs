//! The `status` of a Pod, from its machine. Pure, but for the times that are handed in.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::machine::{Container, Machine, Role, Stage, State, Terminated};

/// What a status says about the node.
#[derive(Debug, Clone)]
pub(crate) struct NodeFacts {
    pub(crate) host_ip: Ipv4Addr,
    /// The scheme of container ids.
    pub(crate) runtime: String,
}

/// The status to report now. `previous` is the last one known, for times of transition and for
/// conditions that belong to others.
pub(crate) fn compute(
    machine: &Machine,
    previous: &PodStatus,
    node: &NodeFacts,
    now: Timestamp,
) -> PodStatus {
    let pod = &machine.pod;
    let spec = pod.spec.clone().unwrap_or_default();
    let phase = phase(machine, previous);
    let statuses = |init: bool| {
        let list: Vec<ContainerStatus> = machine
            .containers
            .iter()
            .enumerate()
            .filter(|(_, c)| (c.role != Role::Main) == init)
            .map(|(index, c)| container_status(machine, index, c, node))
            .collect();
        (!list.is_empty() && !is_rejected(machine)).then_some(list)
    };
    let ip = machine
        .ip
        .filter(|_| machine.stage != Stage::TornDown || machine.is_over());
    let conditions = conditions(machine, &spec, phase, previous, now);
    PodStatus {
        phase: Some(phase.to_owned()),
        reason: machine.failure.as_ref().map(|f| f.reason.clone()),
        message: machine.failure.as_ref().map(|f| f.message.clone()),
        conditions: Some(conditions),
        host_ip: Some(node.host_ip.to_string()),
        host_ips: Some(vec![HostIP {
            ip: node.host_ip.to_string(),
        }]),
        pod_ip: ip.map(|ip| ip.to_string()),
        pod_ips: ip.map(|ip| vec![PodIP { ip: ip.to_string() }]),
        start_time: Some(Time(whole_seconds(machine.start_time))),
        qos_class: Some(
            previous
                .qos_class
                .clone()
                .unwrap_or_else(|| qos_class(&spec).to_owned()),
        ),
        init_container_statuses: statuses(true),
        container_statuses: statuses(false),
        ..PodStatus::default()
    }
}

fn is_rejected(machine: &Machine) -> bool {
    machine.failure.is_some()
        && machine
            .containers
            .iter()
            .all(|c| c.state == State::Waiting && c.attempt == 0)
        && machine.ip.is_none()
}

/// Times in a status are whole seconds, as everything of `metav1.Time`.
pub(crate) fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// The phase, by the rules of the kubelet.
pub(crate) fn phase(machine: &Machine, previous: &PodStatus) -> &'static str {
    // A Pod that has ended never comes back.
    match previous.phase.as_deref() {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    if machine.failure.is_some() {
        return "Failed";
    }
    let init_failed = machine
        .containers
        .iter()
        .any(|c| match (&c.role, &c.state) {
            (Role::Init, State::Exited(t)) => !t.succeeded() && !machine.restarts(c, t),
            _ => false,
        });
    if init_failed {
        return "Failed";
    }
    if !machine.initialized {
        return if machine.is_over() {
            "Failed"
        } else {
            "Pending"
        };
    }
    let mains = || machine.containers.iter().filter(|c| c.role == Role::Main);
    let (mut waiting, mut running, mut stopped, mut succeeded, mut final_) = (0, 0, 0, 0, 0);
    for container in mains() {
        match &container.state {
            State::Running(_) => running += 1,
            State::Exited(ended) => {
                stopped += 1;
                succeeded += usize::from(ended.succeeded());
                final_ += usize::from(!machine.restarts(container, ended));
            }
            _ if container.last.is_some() => stopped += 1,
            _ => waiting += 1,
        }
    }
    let total = waiting + running + stopped;
    let sidecar_runs = machine
        .containers
        .iter()
        .any(|c| c.role == Role::Sidecar && matches!(c.state, State::Running(_)));
    if waiting > 0 {
        // Containers that an ended Pod never started do not hold it in Pending.
        return if machine.is_over() {
            "Failed"
        } else {
            "Pending"
        };
    }
    if running > 0 {
        return "Running";
    }
    if stopped == total && (final_ == total || machine.is_over()) {
        // Sidecars are still being ended: the Pod has not.
        if sidecar_runs {
            return "Running";
        }
        return if succeeded == total {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    "Running"
}

fn container_status(
    machine: &Machine,
    index: usize,
    container: &Container,
    node: &NodeFacts,
) -> ContainerStatus {
    let scheme = &node.runtime;
    let has_init = machine.containers.iter().any(|c| c.role != Role::Main);
    let pending = if has_init {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    let waiting = |reason: &str, message: Option<&String>| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: message.cloned(),
        }),
        ..ContainerState::default()
    };
    let mut last = container.last.as_ref();
    let state = match &container.state {
        State::Held {
            reason, message, ..
        } => waiting(reason, Some(message)),
        State::Waiting | State::Pulling | State::Starting(_) => waiting(pending, None),
        State::Running(running) => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(Time(whole_seconds(running.started_at))),
            }),
            ..ContainerState::default()
        },
        State::Exited(ended) => {
            last = last.filter(|l| l.id != ended.id);
            ContainerState {
                terminated: Some(terminated(ended, scheme)),
                ..ContainerState::default()
            }
        }
    };
    let running = match &container.state {
        State::Running(running) => Some(running),
        _ => None,
    };
    let id = match &container.state {
        State::Running(running) => Some(&running.container.id),
        State::Exited(ended) => Some(&ended.id),
        _ => container.last.as_ref().map(|l| &l.id),
    };
    let ready = match (container.role, &container.state) {
        (Role::Init, State::Exited(ended)) => ended.succeeded(),
        (Role::Init, _) => false,
        _ => running.is_some_and(|r| r.ready && r.started && !r.post_start),
    };
    let started = match container.role {
        Role::Init => running.is_some(),
        _ => running.is_some_and(|r| r.started && !r.post_start),
    };
    ContainerStatus {
        name: container.name.clone(),
        container_id: id.map(|id| format!("{scheme}://{id}")),
        image: machine.spec_of(index).image.clone().unwrap_or_default(),
        image_id: match (&container.image, id) {
            (Some(image), Some(_)) => image.id.clone(),
            _ => String::new(),
        },
        ready,
        started: Some(started),
        restart_count: container.attempt as i32,
        state: Some(state),
        last_state: last.map(|ended| ContainerState {
            terminated: Some(terminated(ended, scheme)),
            ..ContainerState::default()
        }),
        ..ContainerStatus::default()
    }
}

fn terminated(ended: &Terminated, scheme: &str) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: ended.exit.code,
        signal: ended.exit.signal,
        reason: Some(ended.reason.clone()),
        message: ended.message.clone(),
        started_at: Some(Time(whole_seconds(
            ended.started_at.unwrap_or(Timestamp::UNIX_EPOCH),
        ))),
        finished_at: Some(Time(whole_seconds(ended.exit.at))),
        container_id: Some(format!("{scheme}://{}", ended.id)),
    }
}

fn conditions(
    machine: &Machine,
    spec: &PodSpec,
    phase: &str,
    previous: &PodStatus,
    now: Timestamp,
) -> Vec<PodCondition> {
    let old = |kind: &str| {
        previous
            .conditions
            .iter()
            .flatten()
            .find(|c| c.type_ == kind)
    };
    let generation = machine.pod.metadata.generation;
    let condition = |kind: &str, verdict: Verdict| {
        let before = old(kind);
        let status = if verdict.status { "True" } else { "False" };
        let since = before
            .filter(|c| c.status == status)
            .and_then(|c| c.last_transition_time.clone());
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.map(str::to_owned),
            message: verdict.message,
            last_transition_time: Some(since.unwrap_or_else(|| Time(whole_seconds(now)))),
            last_probe_time: None,
            observed_generation: generation,
        }
    };
    let sandbox = machine.ip.is_some()
        && matches!(machine.stage, Stage::Active | Stage::Stopping)
        && !machine.is_over();
    let containers_ready = containers_ready(machine, phase);
    let ready = ready(&containers_ready, spec, previous);
    vec![
        condition("PodReadyToStartContainers", Verdict::from(sandbox)),
        condition("Initialized", initialized(machine, phase)),
        condition("Ready", ready),
        condition("ContainersReady", containers_ready),
        // Whoever bound the Pod has said so already, unless it was bound by hand.
        old("PodScheduled")
            .cloned()
            .unwrap_or_else(|| condition("PodScheduled", true.into())),
    ]
}

#[derive(Debug, Clone)]
struct Verdict {
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl From<bool> for Verdict {
    fn from(status: bool) -> Self {
        Self {
            status,
            reason: None,
            message: None,
        }
    }
}

fn initialized(machine: &Machine, phase: &str) -> Verdict {
    if phase == "Succeeded" {
        return Verdict {
            status: true,
            reason: Some("PodCompleted"),
            message: None,
        };
    }
    let has_init = machine.containers.iter().any(|c| c.role != Role::Main);
    if machine.initialized || (!has_init && !is_rejected(machine)) {
        return true.into();
    }
    let incomplete: Vec<&str> = machine
        .containers
        .iter()
        .filter(|c| match (&c.role, &c.state) {
            (Role::Main, _) => false,
            (Role::Init, State::Exited(ended)) => !ended.succeeded(),
            (Role::Sidecar, State::Running(running)) => !running.started,
            _ => true,
        })
        .map(|c| c.name.as_str())
        .collect();
    Verdict {
        status: false,
        reason: Some(if phase == "Failed" {
            "PodFailed"
        } else {
            "ContainersNotInitialized"
        }),
        message: (phase != "Failed").then(|| {
            format!(
                "containers with incomplete status: [{}]",
                incomplete.join(" ")
            )
        }),
    }
}

fn containers_ready(machine: &Machine, phase: &str) -> Verdict {
    match phase {
        "Succeeded" => {
            return Verdict {
                status: false,
                reason: Some("PodCompleted"),
                message: None,
            };
        }
        "Failed" => {
            return Verdict {
                status: false,
                reason: Some("PodFailed"),
                message: None,
            };
        }
        _ => {}
    }
    let unready: Vec<&str> = machine
        .containers
        .iter()
        .filter(|c| c.role != Role::Init)
        .filter(|c| match &c.state {
            State::Running(r) => !(r.ready && r.started && !r.post_start),
            _ => true,
        })
        .map(|c| c.name.as_str())
        .collect();
    if unready.is_empty() && machine.initialized {
        return true.into();
    }
    Verdict {
        status: false,
        reason: Some("ContainersNotReady"),
        message: Some(format!(
            "containers with unready status: [{}]",
            unready.join(" ")
        )),
    }
}

fn ready(containers: &Verdict, spec: &PodSpec, previous: &PodStatus) -> Verdict {
    if !containers.status {
        return containers.clone();
    }
    let mut missing = Vec::new();
    for gate in spec.readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match previous
            .conditions
            .iter()
            .flatten()
            .find(|c| c.type_ == *kind)
        {
            Some(condition) if condition.status == "True" => {}
            Some(condition) => missing.push(format!(
                "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                condition.status
            )),
            None => missing.push(format!(
                "corresponding condition of pod readiness gate {kind:?} does not exist."
            )),
        }
    }
    if missing.is_empty() {
        return true.into();
    }
    Verdict {
        status: false,
        reason: Some("ReadinessGatesNotReady"),
        message: Some(missing.join(", ")),
    }
}

/// The quality-of-service class, from requests and limits of cpu and memory.
pub(crate) fn qos_class(spec: &PodSpec) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for container in spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
    {
        let resources = container.resources.as_ref();
        for name in ["cpu", "memory"] {
            let limit = resources
                .and_then(|r| r.limits.as_ref())
                .and_then(|l| l.get(name));
            let request = resources
                .and_then(|r| r.requests.as_ref())
                .and_then(|r| r.get(name));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some()
                && request.is_none_or(|r| {
                    crate::quantity::millis(r) == limit.and_then(crate::quantity::millis)
                });
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Whether a status may wait a moment for a better one: it only says that work goes on.
pub(crate) fn is_preliminary(machine: &Machine) -> bool {
    let spec = machine.pod.spec.as_ref();
    // That one of these runs interests nobody if it is over in a moment; others may be waited for.
    let will_end = spec
        .and_then(|spec| spec.restart_policy.as_deref())
        .is_some_and(|policy| policy != "Always");
    !machine.is_terminating()
        && machine.failure.is_none()
        && machine.containers.iter().all(|c| {
            let in_progress = match &c.state {
                State::Waiting | State::Pulling | State::Starting(_) => true,
                State::Running(_) => will_end,
                State::Exited(ended) => will_end && c.role == Role::Init && ended.succeeded(),
                State::Held { .. } => false,
            };
            in_progress && c.last.is_none()
        })
}

/// The status that the object has, for comparing and for times of transition.
pub(crate) fn of(pod: &Pod) -> PodStatus {
    pod.status.clone().unwrap_or_default()
}
