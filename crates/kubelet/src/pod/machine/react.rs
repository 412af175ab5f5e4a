//! The first half of the state machine: what each event changes.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Action, Held, MINIMUM_GRACE, Machine, PULL_ERROR_SHOWN, ProbeKind, Running, StartFailure,
    State, Stop, Terminated,
};
use crate::pod::SIGTERM;
use crate::runtime::{ContainerRef, Exit, Image, ImageError};

impl Machine {
    pub(super) fn running_mut(
        &mut self,
        container: usize,
        id: &ContainerRef,
    ) -> Option<&mut Running> {
        match &mut self.containers.get_mut(container)?.state {
            State::Running(running) if running.container == *id => Some(running),
            _ => None,
        }
    }

    pub(super) fn pulled(
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
                format!("Container image {image_name:?} is not present with pull policy of Never"),
            )
        } else {
            (reason, error.to_string())
        };
        let mut emit = |reason: &'static str, message: String| {
            actions.push(Action::Emit {
                container: Some(index),
                warning: true,
                reason,
                message,
            });
        };
        match reason {
            "ErrImagePull" => {
                emit(
                    "Failed",
                    format!("Failed to pull image {image_name:?}: {message}"),
                );
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
        let until = if reason == "ErrImagePull" {
            now + PULL_ERROR_SHOWN
        } else {
            until
        };
        container.state = State::Held {
            until,
            reason: reason.to_owned(),
            message,
            then,
        };
    }

    /// The pull policy, with the default that depends on the tag.
    pub(crate) fn pull_policy(&self, container: usize) -> &str {
        self.spec_of(container)
            .image_pull_policy
            .as_deref()
            .unwrap_or("IfNotPresent")
    }

    pub(super) fn started(
        &mut self,
        index: usize,
        at: Timestamp,
        id: ContainerRef,
        actions: &mut Vec<Action>,
    ) {
        let spec = self.spec_of(index);
        let post_start = spec
            .lifecycle
            .as_ref()
            .is_some_and(|l| l.post_start.is_some());
        let started = !post_start && spec.startup_probe.is_none();
        let ready = started && spec.readiness_probe.is_none();
        let probed = spec.startup_probe.is_some()
            || spec.readiness_probe.is_some()
            || spec.liveness_probe.is_some();
        let container = &mut self.containers[index];
        if !matches!(&container.state, State::Starting(expected) if *expected == id) {
            return;
        }
        container.started_at = Some(at);
        container.state = State::Running(Running {
            container: id.clone(),
            started_at: at,
            post_start,
            started,
            ready,
            stop: None,
        });
        actions.push(Action::Watch {
            container: index,
            id: id.clone(),
        });
        if post_start {
            actions.push(Action::PostStart {
                container: index,
                id,
            });
        } else if probed {
            actions.push(Action::Probe {
                container: index,
                id,
                after_startup: started,
            });
        }
    }

    pub(super) fn start_failed(
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

    pub(super) fn exited(
        &mut self,
        index: usize,
        id: &ContainerRef,
        exit: Exit,
        message: Option<String>,
        actions: &mut Vec<Action>,
    ) {
        let Some(container) = self.containers.get_mut(index) else {
            return;
        };
        let (started_at, stopped) = match &container.state {
            State::Running(running) if running.container == *id => {
                (Some(running.started_at), running.stop.is_some())
            }
            State::Starting(expected) if expected == id => (container.started_at, false),
            _ => return,
        };
        let reason = match (&exit, exit.code) {
            (
                Exit {
                    oom_killed: true, ..
                },
                _,
            ) => "OOMKilled",
            (
                Exit {
                    message: Some(_), ..
                },
                _,
            ) => "ContainerStatusUnknown",
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

    pub(super) fn post_start_done(
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
        let Some(running) = self.running_mut(index, id) else {
            return;
        };
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
                    actions.push(Action::Probe {
                        container: index,
                        id,
                        after_startup,
                    });
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

    pub(super) fn probed(
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
        let Some(running) = self.running_mut(index, id) else {
            return;
        };
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
                    actions.push(Action::Probe {
                        container: index,
                        id,
                        after_startup: true,
                    });
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
    pub(super) fn grace(&self, _container: usize, probe: Option<i64>) -> Duration {
        let spec = self.pod.spec.as_ref();
        let seconds = self
            .pod
            .metadata
            .deletion_grace_period_seconds
            .or(probe)
            .or_else(|| spec.and_then(|s| s.termination_grace_period_seconds))
            .unwrap_or(30);
        Duration::from_secs(seconds.max(0).unsigned_abs()).max(MINIMUM_GRACE)
    }

    pub(super) fn stop_container(
        &mut self,
        index: usize,
        grace: Duration,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let has_hook = self
            .spec_of(index)
            .lifecycle
            .as_ref()
            .is_some_and(|l| l.pre_stop.is_some());
        let State::Running(running) = &mut self.containers[index].state else {
            return;
        };
        if running.stop.is_some() {
            return;
        }
        running.ready = false;
        actions.push(Action::StopProbes { container: index });
        let deadline = now + grace;
        if has_hook {
            running.stop = Some(Stop::Hook { deadline });
            actions.push(Action::PreStop {
                container: index,
                id: running.container.clone(),
            });
        } else {
            term(running, deadline, now, actions);
        }
    }
}

/// Sends SIGTERM; at least [`MINIMUM_GRACE`] is left to heed it.
pub(super) fn term(
    running: &mut Running,
    deadline: Timestamp,
    now: Timestamp,
    actions: &mut Vec<Action>,
) {
    let deadline = deadline.max(now + MINIMUM_GRACE);
    running.stop = Some(Stop::Term { deadline });
    actions.push(Action::Signal {
        id: running.container.clone(),
        signal: SIGTERM,
    });
}

pub(super) fn rejection(reason: &str) -> &'static str {
    match reason {
        "OutOfcpu" => "OutOfcpu",
        "OutOfmemory" => "OutOfmemory",
        "OutOfpods" => "OutOfpods",
        "OutOfephemeral-storage" => "OutOfephemeral-storage",
        _ => "Rejected",
    }
}
