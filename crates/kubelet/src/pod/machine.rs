//! The life of a Pod as a state machine: events in, actions out. Pure: no clock, no I/O, no API.
//!
//! [`Machine::handle`] takes one event, updates the state of the Pod and its containers, and then
//! plans what has to be done next from that state alone ([`Machine::plan`] in `plan.rs`). A
//! repeated or late event therefore cannot start anything twice. Deadlines (back-offs, grace
//! periods) are part of the state: [`Machine::next_deadline`] says when to send [`Event::Tick`].

mod plan;
mod react;
mod types;

pub(crate) use types::*;

use std::net::Ipv4Addr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{self as k8s, Pod};

use super::backoff::RestartBackoff;
use super::record::{ContainerRecord, Record};
use crate::runtime::ContainerRef;
use react::{rejection, term};

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
                started_at: None,
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
            let Some(saved) = record.containers.get(&container.name) else {
                continue;
            };
            container.attempt = saved.attempt;
            container.started_at = saved.started_at;
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
                    started_at: c.started_at,
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
                    stop: Some(Stop::Hook { deadline } | Stop::Term { deadline }),
                    ..
                }) => Some(*deadline),
                _ => None,
            })
            .collect();
        if !matches!(
            self.stage,
            Stage::Finished | Stage::TornDown | Stage::Stopping
        ) {
            deadlines.extend(self.active_deadline());
        }
        deadlines.into_iter().min()
    }

    fn active_deadline(&self) -> Option<Timestamp> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        self.start_time
            .checked_add(SignedDuration::from_secs(seconds))
            .ok()
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
                self.failure = Some(Failure {
                    reason,
                    message: format!("Pod was rejected: {message}"),
                });
                self.stage = Stage::Stopping;
            }
            Event::Mounted => {
                if self.stage == Stage::Preparing {
                    self.stage = Stage::Active;
                }
            }
            Event::Pulled { container, result } => {
                self.pulled(container, result, now, &mut actions);
            }
            Event::Started { container, at, id } => self.started(container, at, id, &mut actions),
            Event::StartFailed {
                container,
                id,
                failure,
            } => {
                self.start_failed(container, &id, failure, now, &mut actions);
            }
            Event::NotStarted { container, id } => {
                if let Some(container) = self.containers.get_mut(container)
                    && container.state == State::Starting(id)
                {
                    container.state = State::Waiting;
                }
            }
            Event::Exited {
                container,
                id,
                exit,
                message,
            } => {
                self.exited(container, &id, exit, message, &mut actions);
            }
            Event::PostStart {
                container,
                id,
                result,
            } => {
                self.post_start_done(container, &id, result, now, &mut actions);
            }
            Event::PreStopDone { container, id } => {
                if let Some(running) = self.running_mut(container, &id)
                    && let Some(Stop::Hook { deadline }) = running.stop
                {
                    term(running, deadline, now, &mut actions);
                }
            }
            Event::Probed {
                container,
                id,
                kind,
                healthy,
            } => {
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
}

/// The containers of a Pod in the order of [`Machine::containers`]: init containers, then the rest.
pub(crate) fn specs(pod: &Pod) -> impl Iterator<Item = (Role, &k8s::Container)> {
    let spec = pod.spec.as_ref();
    let init = spec
        .into_iter()
        .flat_map(|s| s.init_containers.iter().flatten())
        .map(|c| {
            let sidecar = c.restart_policy.as_deref() == Some("Always");
            (if sidecar { Role::Sidecar } else { Role::Init }, c)
        });
    init.chain(
        spec.into_iter()
            .flat_map(|s| s.containers.iter())
            .map(|c| (Role::Main, c)),
    )
}

#[cfg(test)]
mod tests;
