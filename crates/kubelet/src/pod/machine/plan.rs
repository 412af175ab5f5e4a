//! The second half of the state machine: what has to be done next, from the state alone.

use jiff::Timestamp;

use super::{
    Action, Container, Failure, Held, MINIMUM_GRACE, Machine, Role, Stage, State, Stop, Terminated,
    react::term,
};
use crate::pod::SIGKILL;

impl Machine {
    pub(super) fn plan(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.stage == Stage::New && !self.is_terminating() {
            self.stage = Stage::Admitting;
            actions.push(Action::Admit);
        }
        self.check_deadlines(now, actions);
        if self.stage == Stage::Active {
            self.plan_active(now, actions);
        }
        if self.stage == Stage::Stopping {
            self.plan_stopping(now, actions);
        }
        self.push_stops(now, actions);
    }

    /// Reasons for the Pod as a whole to end, and mounts to try again.
    fn check_deadlines(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if matches!(
            self.stage,
            Stage::Stopping | Stage::Finished | Stage::TornDown
        ) {
            return;
        }
        if self.is_terminating() {
            self.stage = Stage::Stopping;
            return;
        }
        if self
            .active_deadline()
            .is_some_and(|deadline| now >= deadline)
        {
            let message = "Pod was active on the node longer than the specified deadline";
            actions.push(Action::Emit {
                container: None,
                warning: false,
                reason: "DeadlineExceeded",
                message: message.to_owned(),
            });
            self.failure = Some(Failure {
                reason: "DeadlineExceeded".to_owned(),
                message: message.to_owned(),
            });
            self.stage = Stage::Stopping;
        }
    }

    fn plan_active(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for index in 0..self.containers.len() {
            self.end_hold(index, now, actions);
        }
        if self.initialized {
            for index in self.of_role(Role::Sidecar) {
                self.drive(index, now, actions);
            }
        } else {
            self.initialized = self.drive_init(now, actions);
        }
        if !self.initialized {
            let failed = self.containers.iter().any(|c| {
                c.role == Role::Init
                    && c.exited()
                        .is_some_and(|t| !t.succeeded() && !self.restarts(c, t))
            });
            if failed {
                self.stage = Stage::Stopping;
            }
            return;
        }
        for index in self.of_role(Role::Main) {
            self.drive(index, now, actions);
        }
        let over = self
            .containers
            .iter()
            .filter(|c| c.role == Role::Main)
            .all(|c| c.exited().is_some_and(|t| !self.restarts(c, t)));
        if over {
            self.stage = Stage::Stopping;
        }
    }

    fn of_role(&self, role: Role) -> Vec<usize> {
        (0..self.containers.len())
            .filter(|i| self.containers[*i].role == role)
            .collect()
    }

    /// Runs init containers in their order; whether all of them let the others start.
    fn drive_init(&mut self, now: Timestamp, actions: &mut Vec<Action>) -> bool {
        for index in 0..self.containers.len() {
            match self.containers[index].role {
                Role::Main => {}
                Role::Init => {
                    if self.containers[index]
                        .exited()
                        .is_some_and(Terminated::succeeded)
                    {
                        continue;
                    }
                    self.drive(index, now, actions);
                    return false;
                }
                Role::Sidecar => {
                    self.drive(index, now, actions);
                    let up = self.containers[index]
                        .running()
                        .is_some_and(|r| r.started && !r.post_start && r.stop.is_none());
                    if !up {
                        // Those behind it that ran before keep running, but nothing new starts.
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Whether a container that ended starts again.
    pub(crate) fn restarts(&self, container: &Container, ended: &Terminated) -> bool {
        let policy = self
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.restart_policy.as_deref())
            .unwrap_or("Always");
        match (container.role, policy) {
            (Role::Sidecar, _) | (Role::Main, "Always") => true,
            (Role::Init | Role::Main, "Never") => false,
            (Role::Init | Role::Main, _) => ended.exit.code != 0 || ended.interrupted,
        }
    }

    /// Moves a container whose turn it is one step on.
    fn drive(&mut self, index: usize, now: Timestamp, actions: &mut Vec<Action>) {
        if let State::Exited(ended) = &self.containers[index].state {
            let ended = ended.clone();
            if !self.restarts(&self.containers[index], &ended) {
                return;
            }
            self.restart(index, ended, now, actions);
        }
        let container = &mut self.containers[index];
        if container.state != State::Waiting {
            return;
        }
        match container.image.clone() {
            None => {
                container.state = State::Pulling;
                actions.push(Action::Pull { container: index });
            }
            Some(image) => {
                let attempt = container.attempt;
                container.started_at = None;
                let id = self.ids.container(&container.name, attempt);
                container.state = State::Starting(id.clone());
                actions.push(Action::Start {
                    container: index,
                    attempt,
                    image,
                    id,
                });
            }
        }
    }

    fn restart(
        &mut self,
        index: usize,
        ended: Terminated,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let pod = self.full_name();
        let container = &mut self.containers[index];
        // A container that was only ended because the kubelet stopped has not crashed.
        let crashed = !ended.interrupted;
        let held = container
            .restart_backoff
            .hold_until(ended.exit.at, now)
            .filter(|_| crashed);
        container.last = Some(ended);
        let Some(until) = held else {
            if crashed {
                container.restart_backoff.restarted(now);
            }
            container.attempt += 1;
            container.image = None;
            container.state = State::Waiting;
            return;
        };
        actions.push(Action::Emit {
            container: Some(index),
            warning: true,
            reason: "BackOff",
            message: format!(
                "Back-off restarting failed container {} in pod {pod}",
                container.name
            ),
        });
        container.state = State::Held {
            until,
            reason: "CrashLoopBackOff".to_owned(),
            message: format!(
                "back-off {} restarting failed container={} pod={pod}",
                duration_words(container.restart_backoff.seconds()),
                container.name
            ),
            then: Held::Restart,
        };
    }

    /// `NAME_NAMESPACE(UID)`, as messages name a Pod.
    fn full_name(&self) -> String {
        let meta = &self.pod.metadata;
        format!(
            "{}_{}({})",
            meta.name.as_deref().unwrap_or_default(),
            meta.namespace.as_deref().unwrap_or_default(),
            self.uid
        )
    }

    fn end_hold(&mut self, index: usize, now: Timestamp, actions: &mut Vec<Action>) {
        let image = self.spec_of(index).image.clone().unwrap_or_default();
        let container = &mut self.containers[index];
        let State::Held {
            until,
            message,
            then,
            ..
        } = &container.state
        else {
            return;
        };
        if now < *until {
            return;
        }
        match *then {
            Held::PullBackOff { until } => {
                let message = format!("Back-off pulling image {image:?}: ErrImagePull: {message}");
                let mut emit = |warning, reason, message| {
                    actions.push(Action::Emit {
                        container: Some(index),
                        warning,
                        reason,
                        message,
                    });
                };
                emit(
                    false,
                    "BackOff",
                    format!("Back-off pulling image {image:?}"),
                );
                emit(true, "Failed", "Error: ImagePullBackOff".to_owned());
                container.state = State::Held {
                    until,
                    reason: "ImagePullBackOff".to_owned(),
                    message,
                    then: Held::Pull,
                };
            }
            Held::Pull => {
                container.image = None;
                container.state = State::Waiting;
            }
            Held::Start => container.state = State::Waiting,
            Held::Restart => {
                container.restart_backoff.restarted(now);
                container.attempt += 1;
                container.image = None;
                container.state = State::Waiting;
            }
        }
    }

    /// Ends what runs: first the main and init containers together, then sidecars, last one first.
    fn plan_stopping(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let others_live = self
            .containers
            .iter()
            .any(|c| c.role != Role::Sidecar && c.is_live());
        let mut stopping: Vec<usize> = Vec::new();
        if others_live {
            stopping.extend(self.of_role(Role::Init));
            stopping.extend(self.of_role(Role::Main));
        } else {
            let live = |i: &usize| self.containers[*i].is_live();
            stopping.extend(self.of_role(Role::Sidecar).into_iter().rev().find(live));
        }
        for index in stopping {
            if self.containers[index]
                .running()
                .is_some_and(|r| r.stop.is_none())
            {
                let name = self.containers[index].name.clone();
                actions.push(Action::Emit {
                    container: Some(index),
                    warning: false,
                    reason: "Killing",
                    message: format!("Stopping container {name}"),
                });
                let grace = if self.removed {
                    MINIMUM_GRACE
                } else {
                    self.grace(index, None)
                };
                let end = *self.stop_deadline.get_or_insert(now + grace);
                let left = end.duration_since(now).try_into().unwrap_or_default();
                self.stop_container(index, grace.min(left), now, actions);
            }
        }
        if self.containers.iter().any(Container::is_live) || self.is_drained() {
            return;
        }
        if self.draining && self.failure.is_none() && !self.ran_to_the_end() {
            self.failure = Some(Failure {
                reason: "Terminated".to_owned(),
                message: "Pod was terminated in response to imminent node shutdown.".to_owned(),
            });
        }
        self.stage = Stage::Finished;
        actions.push(Action::Teardown);
    }

    /// The kubelet stops, nothing of the Pod runs any more, and the next start goes on with it.
    pub(crate) fn is_drained(&self) -> bool {
        let restartable = self
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.restart_policy.as_deref())
            .is_none_or(|p| p != "Never");
        let nothing_started = self
            .containers
            .iter()
            .all(|c| c.exited().is_none() && c.last.is_none());
        self.draining
            && self.stage == Stage::Stopping
            && self.failure.is_none()
            && !self.removed
            && self.pod.metadata.deletion_timestamp.is_none()
            && !self.containers.iter().any(Container::is_live)
            && (nothing_started || (restartable && !self.ran_to_the_end()))
    }

    /// The main containers have ended as the restart policy wants.
    fn ran_to_the_end(&self) -> bool {
        self.containers
            .iter()
            .filter(|c| c.role == Role::Main)
            .all(|c| {
                c.exited()
                    .is_some_and(|t| !t.interrupted && !self.restarts(c, t))
            })
    }

    /// SIGTERM after a hook that takes too long, SIGKILL after a SIGTERM that is not heeded.
    fn push_stops(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let deletion = self.pod.metadata.deletion_timestamp.as_ref().map(|t| t.0);
        let removed = self.removed;
        for container in &mut self.containers {
            let State::Running(running) = &mut container.state else {
                continue;
            };
            // A second, more urgent deletion shortens what is left.
            if let Some(Stop::Hook { deadline } | Stop::Term { deadline }) = &mut running.stop {
                if let Some(deletion) = deletion {
                    *deadline = (*deadline).min(deletion.max(now + MINIMUM_GRACE));
                }
                if removed {
                    *deadline = (*deadline).min(now + MINIMUM_GRACE);
                }
            }
            match running.stop {
                Some(Stop::Hook { deadline }) if now >= deadline => {
                    term(running, deadline, now, actions);
                }
                Some(Stop::Term { deadline }) if now >= deadline => {
                    running.stop = Some(Stop::Kill);
                    actions.push(Action::Signal {
                        id: running.container.clone(),
                        signal: SIGKILL,
                    });
                }
                _ => {}
            }
        }
    }
}

/// Seconds as messages write a duration: `10s`, `1m20s`, `5m0s`.
fn duration_words(seconds: i64) -> String {
    if seconds < 60 {
        format!("{seconds}s")
    } else {
        format!("{}m{}s", seconds / 60, seconds % 60)
    }
}
