//! The words of the state machine: states, events, actions.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use crate::pod::backoff::RestartBackoff;
use crate::runtime::{ContainerRef, Exit, Image, ImageError};

/// The shortest time between SIGTERM and SIGKILL.
pub(crate) const MINIMUM_GRACE: Duration = Duration::from_secs(2);
/// How long a failed pull is shown as such before its back-off is.
pub(super) const PULL_ERROR_SHOWN: Duration = Duration::from_secs(1);

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
    Hook { deadline: Timestamp },
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
    Held {
        until: Timestamp,
        reason: String,
        message: String,
        then: Held,
    },
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
    /// When the current attempt started.
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) last: Option<Terminated>,
    pub(crate) image: Option<Image>,
    pub(crate) restart_backoff: RestartBackoff,
    pub(crate) pull_backoff: RestartBackoff,
}

impl Container {
    pub(super) fn running(&self) -> Option<&Running> {
        match &self.state {
            State::Running(running) => Some(running),
            _ => None,
        }
    }

    pub(super) fn exited(&self) -> Option<&Terminated> {
        match &self.state {
            State::Exited(terminated) => Some(terminated),
            _ => None,
        }
    }

    /// A process may exist.
    pub(super) fn is_live(&self) -> bool {
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
    Rejected {
        reason: String,
        message: String,
    },
    /// The volumes are there (a try that fails is made again, and an Event says why).
    Mounted,
    Pulled {
        container: usize,
        result: Result<Image, ImageError>,
    },
    Started {
        container: usize,
        at: Timestamp,
        id: ContainerRef,
    },
    StartFailed {
        container: usize,
        id: ContainerRef,
        failure: StartFailure,
    },
    /// An earlier start of the kubelet meant to start it, but it never came to that.
    NotStarted {
        container: usize,
        id: ContainerRef,
    },
    Exited {
        container: usize,
        id: ContainerRef,
        exit: Exit,
        message: Option<String>,
    },
    PostStart {
        container: usize,
        id: ContainerRef,
        result: Result<(), String>,
    },
    PreStopDone {
        container: usize,
        id: ContainerRef,
    },
    /// A probe has a new verdict.
    Probed {
        container: usize,
        id: ContainerRef,
        kind: ProbeKind,
        healthy: bool,
    },
    /// Volumes are gone, the address is free.
    TornDown,
    /// A deadline may have come.
    Tick,
}

impl Event {
    /// What happened, in a word, for the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Pod(_) => "pod",
            Self::Removed => "removed",
            Self::Drain => "drain",
            Self::Admitted(_) => "admitted",
            Self::Rejected { .. } => "rejected",
            Self::Mounted => "mounted",
            Self::Pulled { .. } => "pulled",
            Self::Started { .. } => "started",
            Self::StartFailed { .. } => "start failed",
            Self::NotStarted { .. } => "not started",
            Self::Exited { .. } => "exited",
            Self::PostStart { .. } => "post start",
            Self::PreStopDone { .. } => "pre stop done",
            Self::Probed { .. } => "probed",
            Self::TornDown => "torn down",
            Self::Tick => "tick",
        }
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask the node for resources and an address.
    Admit,
    /// Make the volumes.
    Mount,
    Pull {
        container: usize,
    },
    Start {
        container: usize,
        attempt: u32,
        image: Image,
        id: ContainerRef,
    },
    /// Wait for a container that an earlier start of the kubelet started.
    Watch {
        container: usize,
        id: ContainerRef,
    },
    PostStart {
        container: usize,
        id: ContainerRef,
    },
    PreStop {
        container: usize,
        id: ContainerRef,
    },
    /// Run the startup probe, or if `after_startup` the other two.
    Probe {
        container: usize,
        id: ContainerRef,
        after_startup: bool,
    },
    /// The container ends or ended: nothing shall probe it.
    StopProbes {
        container: usize,
    },
    Signal {
        id: ContainerRef,
        signal: i32,
    },
    /// The container has ended and its end is on record: the runtime need not keep it.
    Forget {
        id: ContainerRef,
    },
    Emit {
        container: Option<usize>,
        warning: bool,
        reason: &'static str,
        message: String,
    },
    /// Take volumes down, free address and resources.
    Teardown,
}

/// Why the Pod as a whole failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) message: String,
}
