//! The life of a Pod as a state machine: events in, actions out. Pure: no clock, no I/O, no API.
//!
//! [`Machine::handle`] takes one event, updates the state of the Pod and its containers, and then
//! plans what has to be done next from that state alone ([`Machine::plan`] in `plan.rs`). A
//! repeated or late event therefore cannot start anything twice. Deadlines (back-offs, grace
//! periods) are part of the state: [`Machine::next_deadline`] says when to send [`Event::Tick`].

mod plan;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{self as k8s, Pod};
use serde::{Deserialize, Serialize};

use super::backoff::RestartBackoff;
use super::record::{ContainerRecord, Record};
use crate::runtime::{ContainerRef, Exit, Image, ImageError};

/// The shortest time between SIGTERM and SIGKILL.
pub(crate) const MINIMUM_GRACE: Duration = Duration::from_secs(2);
/// How long a failed pull is shown as such before its back-off is.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(1);

/// Which part of the Pod's life it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing was done for it yet.
    New,
    /// Waits for the node to take it.
    Admitting,
    /// Its directory, address and volumes are being made.
    Preparing,
    /// Containers come and go as the Pod says.
    Active,
    /// Containers are being ended, and none is started any more.
    Stopping,
    /// No container runs or will run. Volumes are being taken down.
    Finished,
    /// Nothing is left but the Pod's directory (its logs).
    TornDown,
}

/// The role of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that keeps running beside the others.
    Sidecar,
    /// An ordinary container.
    Main,
}

/// A container that ended, in the words of the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Terminated {
    pub(crate) id: String,
    pub(crate) exit: Exit,
    pub(crate) reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<Timestamp>,
    /// It was ended because the kubelet stopped, whatever its code says.
    #[serde(default)]
    pub(crate) interrupted: bool,
}

impl Terminated {
    /// It did what it was there for.
    pub(crate) fn succeeded(&self) -> bool {
        self.exit.code == 0 && !self.interrupted
    }
}

/// How far the ending of a running container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Its preStop hook runs; SIGTERM follows at the end of it or then.
    PreStop { deadline: Timestamp },
    /// SIGTERM was sent; SIGKILL follows then.
    Term { deadline: Timestamp },
    /// SIGKILL was sent.
    Kill,
}

/// A running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) container: ContainerRef,
    pub(crate) started_at: Timestamp,
    /// The postStart hook has not ended yet.
    pub(crate) post_start: bool,
    /// The startup probe (if any) has succeeded.
    pub(crate) started: bool,
    /// The readiness probe (if any) has succeeded.
    pub(crate) ready: bool,
    pub(crate) stop: Option<Stop>,
}

/// What a container is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// Its turn has not come.
    Waiting,
    /// Its image is being looked for.
    Pulling,
    /// Something failed and is tried again then; until then the status says so.
    Held { until: Timestamp, reason: String, message: String, then: Held },
    /// Environment and mounts are being made and its program is being started.
    Starting(ContainerRef),
    Running(Running),
    Exited(Terminated),
}

/// What follows a [`State::Held`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// The status says the back-off instead of the error.
    PullBackOff { until: Timestamp },
    /// The image is looked for again.
    Pull,
    /// The same attempt is made again.
    Start,
    /// The next attempt is made.
    Restart,
}

/// A container of the Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// How many starts came before the current (or next) one.
    pub(crate) attempt: u32,
    pub(crate) state: State,
    pub(crate) last: Option<Terminated>,
    pub(crate) image: Option<Image>,
    pub(crate) restart_backoff: RestartBackoff,
    pub(crate) pull_backoff: RestartBackoff,
}

impl Container {
    fn running(&self) -> Option<&Running> {
        match &self.state {
            State::Running(running) => Some(running),
            _ => None,
        }
    }

    fn exited(&self) -> Option<&Terminated> {
        match &self.state {
            State::Exited(terminated) => Some(terminated),
            _ => None,
        }
    }

    /// A process may exist.
    fn is_live(&self) -> bool {
        matches!(self.state, State::Running(_) | State::Starting(_))
    }
}

/// Which probe spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    /// As Events say it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// Why a container could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StartFailure {
    /// What it refers to is not there (yet): `CreateContainerConfigError`.
    Config(String),
    /// Its surroundings could not be made: `CreateContainerError`.
    Create(String),
    /// Its program cannot be executed: it counts as ended with this code.
    CannotRun { exit_code: i32, message: String },
}

/// What happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// The Pod's object changed.
    Pod(Arc<Pod>),
    /// The Pod's object is gone.
    Removed,
    /// The kubelet stops.
    Drain,
    /// The node takes the Pod.
    Admitted(Ipv4Addr),
    /// The node does not take the Pod.
    Rejected { reason: String, message: String },
    /// The volumes are there (a try that fails is made again, and an Event says why).
    Mounted,
    Pulled { container: usize, result: Result<Image, ImageError> },
    Started { container: usize, at: Timestamp, id: ContainerRef },
    StartFailed { container: usize, id: ContainerRef, failure: StartFailure },
    /// An earlier start of the kubelet meant to start it, but it never came to that.
    NotStarted { container: usize, id: ContainerRef },
    Exited { container: usize, id: ContainerRef, exit: Exit, message: Option<String> },
    PostStart { container: usize, id: ContainerRef, result: Result<(), String> },
    PreStopDone { container: usize, id: ContainerRef },
    /// A probe has a new verdict.
    Probed { container: usize, id: ContainerRef, kind: ProbeKind, healthy: bool },
    /// Volumes are gone, the address is free.
    TornDown,
    /// A deadline may have come.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask the node for resources and an address.
    Admit,
    /// Make the volumes.
    Mount,
    Pull { container: usize },
    Start { container: usize, attempt: u32, image: Image, id: ContainerRef },
    /// Wait for a container that an earlier start of the kubelet started.
    Watch { container: usize, id: ContainerRef },
    PostStart { container: usize, id: ContainerRef },
    PreStop { container: usize, id: ContainerRef },
    /// Run the startup probe, or if `after_startup` the other two.
    Probe { container: usize, id: ContainerRef, after_startup: bool },
    /// The container ends or ended: nothing shall probe it.
    StopProbes { container: usize },
    Signal { id: ContainerRef, signal: i32 },
    /// The container has ended and its end is on record: the runtime need not keep it.
    Forget { id: ContainerRef },
    Emit { container: Option<usize>, warning: bool, reason: &'static str, message: String },
    /// Take volumes down, free address and resources.
    Teardown,
}

/// Why the Pod as a whole failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// A Pod's life.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) pod: Arc<Pod>,
    pub(crate) uid: String,
    pub(crate) stage: Stage,
    pub(crate) containers: Vec<Container>,
    pub(crate) ip: Option<Ipv4Addr>,
    /// When the kubelet first saw it.
    pub(crate) start_time: Timestamp,
    /// All init containers have succeeded once.
    pub(crate) initialized: bool,
    pub(crate) failure: Option<Failure>,
    /// The Pod's object is gone.
    pub(crate) removed: bool,
    /// The kubelet stops.
    pub(crate) draining: bool,
    /// When the latest allowed stop of everything began.
    stop_deadline: Option<Timestamp>,
    ids: Ids,
}

/// Makes container ids and state directories; deterministic given the Pod and the attempt.
#[derive(Debug, Clone)]
pub(crate) struct Ids {
    pub(crate) pod_dir: std::path::PathBuf,
    /// Random per Pod on this node.
    pub(crate) seed: String,
}

impl Ids {
    fn container(&self, name: &str, attempt: u32) -> ContainerRef {
        // FNV over name and attempt, spread to 64 digits with the Pod's random seed in front.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in name.bytes().chain(attempt.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        ContainerRef {
            id: format!("{:.40}{hash:016x}{attempt:08x}", self.seed),
            state_dir: super::paths::state_dir(&self.pod_dir, name, attempt),
        }
    }
}

impl Machine {
    /// A Pod that this node has not seen before.
    pub(crate) fn new(pod: Arc<Pod>, ids: Ids, now: Timestamp) -> Self {
        let mut machine = Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            pod,
            stage: Stage::New,
            containers: Vec::new(),
            ip: None,
            start_time: now,
            initialized: false,
            failure: None,
            removed: false,
            draining: false,
            stop_deadline: None,
            ids,
        };
        machine.containers = specs(&machine.pod)
            .map(|(role, spec)| Container {
                name: spec.name.clone(),
                role,
                attempt: 0,
                state: State::Waiting,
                last: None,
                image: None,
                restart_backoff: RestartBackoff::default(),
                pull_backoff: RestartBackoff::default(),
            })
            .collect();
        machine
    }

    /// A Pod that an earlier start of the kubelet worked on. Containers that ran then are in
    /// [`State::Starting`] until an event says what became of them.
    pub(crate) fn restore(pod: Arc<Pod>, ids: Ids, record: &Record) -> Self {
        let mut machine = Self::new(pod, ids, record.start_time);
        machine.ip = record.ip;
        machine.initialized = record.initialized;
        machine.failure.clone_from(&record.failure);
        for container in &mut machine.containers {
            let Some(saved) = record.containers.get(&container.name) else { continue };
            container.attempt = saved.attempt;
            container.last.clone_from(&saved.last);
            container.restart_backoff = saved.restart_backoff;
            container.image.clone_from(&saved.image);
            container.state = match (&saved.exited, &saved.live) {
                (Some(exited), _) => State::Exited(exited.clone()),
                (None, Some(id)) => State::Starting(id.clone()),
                (None, None) => State::Waiting,
            };
        }
        if record.finished {
            machine.stage = Stage::Finished;
        }
        machine
    }

    /// What has to be kept for [`Machine::restore`].
    pub(crate) fn record(&self) -> Record {
        let meta = &self.pod.metadata;
        let containers = self
            .containers
            .iter()
            .map(|c| {
                let saved = ContainerRecord {
                    attempt: c.attempt,
                    live: match &c.state {
                        State::Starting(id) => Some(id.clone()),
                        State::Running(running) => Some(running.container.clone()),
                        _ => None,
                    },
                    exited: c.exited().cloned(),
                    last: c.last.clone(),
                    image: c.image.clone(),
                    restart_backoff: c.restart_backoff,
                };
                (c.name.clone(), saved)
            })
            .collect();
        Record {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: self.uid.clone(),
            seed: self.ids.seed.clone(),
            ip: self.ip,
            start_time: self.start_time,
            initialized: self.initialized,
            finished: matches!(self.stage, Stage::Finished | Stage::TornDown),
            failure: self.failure.clone(),
            containers,
        }
    }

    /// The specification of a container.
    pub(crate) fn spec_of(&self, container: usize) -> &k8s::Container {
        specs(&self.pod)
            .nth(container)
            .map(|(_, spec)| spec)
            .expect("invariant: the list of containers of a Pod never changes")
    }

    /// Whether the Pod shall go (its object says so, is gone, or the kubelet stops).
    pub(crate) fn is_terminating(&self) -> bool {
        self.removed || self.draining || self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Whether the object's deletion waits for this node.
    pub(crate) fn deletion_is_due(&self) -> bool {
        self.stage == Stage::TornDown
            && !self.removed
            && self.pod.metadata.deletion_timestamp.is_some()
    }

    /// No container runs or will ever run again.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Finished | Stage::TornDown)
    }

    /// When the next [`Event::Tick`] is due.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let mut deadlines: Vec<Timestamp> = self
            .containers
            .iter()
            .filter_map(|c| match &c.state {
                State::Held { until, .. } if self.stage == Stage::Active => Some(*until),
                State::Running(Running {
                    stop: Some(Stop::PreStop { deadline } | Stop::Term { deadline }),
                    ..
                }) => Some(*deadline),
                _ => None,
            })
            .collect();
        if !matches!(self.stage, Stage::Finished | Stage::TornDown | Stage::Stopping) {
            deadlines.extend(self.active_deadline());
        }
        deadlines.into_iter().min()
    }

    fn active_deadline(&self) -> Option<Timestamp> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        self.start_time.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    /// Takes one event and says what to do next.
    pub(crate) fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Action> {
        let mut actions = self.apply(event, now);
        self.plan(now, &mut actions);
        actions
    }

    /// Takes one event, without planning what comes next: for catching up after a restart.
    pub(crate) fn apply(&mut self, event: Event, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Pod(pod) => self.pod = pod,
            Event::Removed => self.removed = true,
            Event::Drain => self.draining = true,
            Event::Admitted(ip) => {
                self.ip = Some(ip);
                if self.stage == Stage::Admitting {
                    self.stage = Stage::Preparing;
                    actions.push(Action::Mount);
                }
            }
            Event::Rejected { reason, message } => {
                actions.push(Action::Emit {
                    container: None,
                    warning: true,
                    reason: rejection(&reason),
                    message: message.clone(),
                });
                self.failure =
                    Some(Failure { reason, message: format!("Pod was rejected: {message}") });
                self.stage = Stage::Stopping;
            }
            Event::Mounted => {
                if self.stage == Stage::Preparing {
                    self.stage = Stage::Active;
                }
            }
            Event::Pulled { container, result } => self.pulled(container, result, now, &mut actions),
            Event::Started { container, at, id } => self.started(container, at, id, &mut actions),
            Event::StartFailed { container, id, failure } => {
                self.start_failed(container, &id, failure, now, &mut actions);
            }
            Event::NotStarted { container, id } => {
                if let Some(container) = self.containers.get_mut(container)
                    && container.state == State::Starting(id)
                {
                    container.state = State::Waiting;
                }
            }
            Event::Exited { container, id, exit, message } => {
                self.exited(container, &id, exit, message, &mut actions);
            }
            Event::PostStart { container, id, result } => {
                self.post_start_done(container, &id, result, now, &mut actions);
            }
            Event::PreStopDone { container, id } => {
                if let Some(running) = self.running_mut(container, &id)
                    && let Some(Stop::PreStop { deadline }) = running.stop
                {
                    term(running, deadline, now, &mut actions);
                }
            }
            Event::Probed { container, id, kind, healthy } => {
                self.probed(container, &id, kind, healthy, now, &mut actions);
            }
            Event::TornDown => {
                if self.stage == Stage::Finished {
                    self.stage = Stage::TornDown;
                }
            }
            Event::Tick => {}
        }
        actions
    }

    fn running_mut(&mut self, container: usize, id: &ContainerRef) -> Option<&mut Running> {
        match &mut self.containers.get_mut(container)?.state {
            State::Running(running) if running.container == *id => Some(running),
            _ => None,
        }
    }

    fn pulled(
        &mut self,
        index: usize,
        result: Result<Image, ImageError>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let image_name = self.spec_of(index).image.clone().unwrap_or_default();
        let container = &mut self.containers[index];
        if container.state != State::Pulling {
            return;
        }
        let error = match result {
            Ok(image) => {
                container.pull_backoff.reset();
                container.image = Some(image);
                container.state = State::Waiting;
                return;
            }
            Err(error) => error,
        };
        let reason = match &error {
            ImageError::InvalidName { .. } => "InvalidImageName",
            ImageError::NotFound(_) | ImageError::Unavailable(_) => "ErrImagePull",
        };
        // `Never` forbids fetching, so its absence is not a failed pull.
        let never = self.pull_policy(index) == "Never";
        let container = &mut self.containers[index];
        let (reason, message) = if never && reason == "ErrImagePull" {
            (
                "ErrImageNeverPull",
                format!(
                    "Container image {image_name:?} is not present with pull policy of Never"
                ),
            )
        } else {
            (reason, error.to_string())
        };
        let mut emit = |reason: &'static str, message: String| {
            actions.push(Action::Emit { container: Some(index), warning: true, reason, message });
        };
        match reason {
            "ErrImagePull" => {
                emit("Failed", format!("Failed to pull image {image_name:?}: {message}"));
            }
            "InvalidImageName" => emit(
                "InspectFailed",
                format!("Failed to apply default image tag {image_name:?}: {message}"),
            ),
            _ => emit("ErrImageNeverPull", message.clone()),
        }
        emit("Failed", format!("Error: {reason}"));
        let until = now + container.pull_backoff.failed(now);
        let then = if reason == "ErrImagePull" {
            Held::PullBackOff { until }
        } else {
            Held::Pull
        };
        let until = if reason == "ErrImagePull" { now + PULL_ERROR_SHOWN } else { until };
        container.state = State::Held { until, reason: reason.to_owned(), message, then };
    }

    /// The pull policy, with the default that depends on the tag.
    pub(crate) fn pull_policy(&self, container: usize) -> &str {
        self.spec_of(container).image_pull_policy.as_deref().unwrap_or("IfNotPresent")
    }

    fn started(
        &mut self,
        index: usize,
        at: Timestamp,
        id: ContainerRef,
        actions: &mut Vec<Action>,
    ) {
        let spec = self.spec_of(index);
        let post_start = spec.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some());
        let started = !post_start && spec.startup_probe.is_none();
        let ready = started && spec.readiness_probe.is_none();
        let probed = spec.startup_probe.is_some()
            || spec.readiness_probe.is_some()
            || spec.liveness_probe.is_some();
        let container = &mut self.containers[index];
        if !matches!(&container.state, State::Starting(expected) if *expected == id) {
            return;
        }
        container.state = State::Running(Running {
            container: id.clone(),
            started_at: at,
            post_start,
            started,
            ready,
            stop: None,
        });
        actions.push(Action::Watch { container: index, id: id.clone() });
        if post_start {
            actions.push(Action::PostStart { container: index, id });
        } else if probed {
            actions.push(Action::Probe { container: index, id, after_startup: started });
        }
    }

    fn start_failed(
        &mut self,
        index: usize,
        id: &ContainerRef,
        failure: StartFailure,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let container = &mut self.containers[index];
        if !matches!(&container.state, State::Starting(expected) if expected == id) {
            return;
        }
        let (reason, message) = match failure {
            StartFailure::Config(message) => ("CreateContainerConfigError", message),
            StartFailure::Create(message) => ("CreateContainerError", message),
            StartFailure::CannotRun { exit_code, message } => {
                actions.push(Action::Emit {
                    container: Some(index),
                    warning: true,
                    reason: "Failed",
                    message: format!("Error: {message}"),
                });
                container.state = State::Exited(Terminated {
                    id: id.id.clone(),
                    exit: Exit {
                        code: exit_code,
                        signal: None,
                        oom_killed: false,
                        message: None,
                        at: now,
                    },
                    reason: "StartError".to_owned(),
                    message: Some(message),
                    started_at: None,
                    interrupted: false,
                });
                return;
            }
        };
        actions.push(Action::Emit {
            container: Some(index),
            warning: true,
            reason: "Failed",
            message: format!("Error: {message}"),
        });
        container.state = State::Held {
            until: now + container.pull_backoff.failed_quickly(),
            reason: reason.to_owned(),
            message,
            then: Held::Start,
        };
    }

    fn exited(
        &mut self,
        index: usize,
        id: &ContainerRef,
        exit: Exit,
        message: Option<String>,
        actions: &mut Vec<Action>,
    ) {
        let Some(container) = self.containers.get_mut(index) else { return };
        let (started_at, stopped) = match &container.state {
            State::Running(running) if running.container == *id => {
                (Some(running.started_at), running.stop.is_some())
            }
            State::Starting(expected) if expected == id => (None, false),
            _ => return,
        };
        let reason = match (&exit, exit.code) {
            (Exit { oom_killed: true, .. }, _) => "OOMKilled",
            (Exit { message: Some(_), .. }, _) => "ContainerStatusUnknown",
            (_, 0) => "Completed",
            _ => "Error",
        };
        let message = message.or_else(|| exit.message.clone());
        container.state = State::Exited(Terminated {
            id: id.id.clone(),
            exit,
            reason: reason.to_owned(),
            message,
            started_at,
            interrupted: stopped && self.draining,
        });
        actions.push(Action::StopProbes { container: index });
        actions.push(Action::Forget { id: id.clone() });
    }

    fn post_start_done(
        &mut self,
        index: usize,
        id: &ContainerRef,
        result: Result<(), String>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let spec = self.spec_of(index);
        let startup = spec.startup_probe.is_some();
        let readiness = spec.readiness_probe.is_some();
        let probed = startup || readiness || spec.liveness_probe.is_some();
        let Some(running) = self.running_mut(index, id) else { return };
        if !running.post_start {
            return;
        }
        running.post_start = false;
        match result {
            Ok(()) => {
                running.started = !startup;
                running.ready = !startup && !readiness;
                let after_startup = running.started;
                if probed && running.stop.is_none() {
                    let id = id.clone();
                    actions.push(Action::Probe { container: index, id, after_startup });
                }
            }
            Err(message) => {
                actions.push(Action::Emit {
                    container: Some(index),
                    warning: true,
                    reason: "FailedPostStartHook",
                    message,
                });
                actions.push(Action::Emit {
                    container: Some(index),
                    warning: false,
                    reason: "Killing",
                    message: "FailedPostStartHook".to_owned(),
                });
                let grace = self.grace(index, None);
                self.stop_container(index, grace, now, actions);
            }
        }
    }

    fn probed(
        &mut self,
        index: usize,
        id: &ContainerRef,
        kind: ProbeKind,
        healthy: bool,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let spec = self.spec_of(index);
        let name = spec.name.clone();
        let readiness = spec.readiness_probe.is_some();
        let others = readiness || spec.liveness_probe.is_some();
        let grace = match kind {
            ProbeKind::Startup => spec.startup_probe.as_ref(),
            ProbeKind::Liveness => spec.liveness_probe.as_ref(),
            ProbeKind::Readiness => spec.readiness_probe.as_ref(),
        }
        .and_then(|p| p.termination_grace_period_seconds);
        let Some(running) = self.running_mut(index, id) else { return };
        match (kind, healthy) {
            (ProbeKind::Readiness, healthy) => running.ready = healthy && running.started,
            (ProbeKind::Startup, true) => {
                if running.started {
                    return;
                }
                running.started = true;
                running.ready = !readiness;
                if others && running.stop.is_none() {
                    let id = id.clone();
                    actions.push(Action::Probe { container: index, id, after_startup: true });
                }
            }
            (ProbeKind::Liveness, true) => {}
            (ProbeKind::Startup | ProbeKind::Liveness, false) => {
                if running.stop.is_some() {
                    return;
                }
                running.ready = false;
                actions.push(Action::Emit {
                    container: Some(index),
                    warning: false,
                    reason: "Killing",
                    message: format!(
                        "Container {name} failed {} probe, will be restarted",
                        kind.word().to_lowercase()
                    ),
                });
                let grace = self.grace(index, grace);
                self.stop_container(index, grace, now, actions);
            }
        }
    }

    /// How long a container may take to end: by the deletion, the probe, or the Pod.
    fn grace(&self, _container: usize, probe: Option<i64>) -> Duration {
        let spec = self.pod.spec.as_ref();
        let seconds = self
            .pod
            .metadata
            .deletion_grace_period_seconds
            .or(probe)
            .or(spec.and_then(|s| s.termination_grace_period_seconds))
            .unwrap_or(30);
        Duration::from_secs(seconds.max(0).unsigned_abs()).max(MINIMUM_GRACE)
    }

    fn stop_container(
        &mut self,
        index: usize,
        grace: Duration,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let has_hook =
            self.spec_of(index).lifecycle.as_ref().is_some_and(|l| l.pre_stop.is_some());
        let State::Running(running) = &mut self.containers[index].state else { return };
        if running.stop.is_some() {
            return;
        }
        running.ready = false;
        actions.push(Action::StopProbes { container: index });
        let deadline = now + grace;
        if has_hook {
            running.stop = Some(Stop::PreStop { deadline });
            actions.push(Action::PreStop { container: index, id: running.container.clone() });
        } else {
            term(running, deadline, now, actions);
        }
    }
}

/// Sends SIGTERM; at least [`MINIMUM_GRACE`] is left to heed it.
fn term(running: &mut Running, deadline: Timestamp, now: Timestamp, actions: &mut Vec<Action>) {
    let deadline = deadline.max(now + MINIMUM_GRACE);
    running.stop = Some(Stop::Term { deadline });
    actions.push(Action::Signal {
        id: running.container.clone(),
        signal: super::SIGTERM,
    });
}

fn rejection(reason: &str) -> &'static str {
    match reason {
        "OutOfcpu" => "OutOfcpu",
        "OutOfmemory" => "OutOfmemory",
        "OutOfpods" => "OutOfpods",
        "OutOfephemeral-storage" => "OutOfephemeral-storage",
        _ => "Rejected",
    }
}

/// The containers of a Pod in the order of [`Machine::containers`]: init containers, then the rest.
pub(crate) fn specs(pod: &Pod) -> impl Iterator<Item = (Role, &k8s::Container)> {
    let spec = pod.spec.as_ref();
    let init = spec.into_iter().flat_map(|s| s.init_containers.iter().flatten()).map(|c| {
        let sidecar = c.restart_policy.as_deref() == Some("Always");
        (if sidecar { Role::Sidecar } else { Role::Init }, c)
    });
    init.chain(spec.into_iter().flat_map(|s| s.containers.iter()).map(|c| (Role::Main, c)))
}

#[cfg(test)]
mod tests;
