//! Carrying out what the machine asks for: each action becomes a task, or is done at once.

use std::collections::VecDeque;

use super::{Done, Worker};
use crate::events::{Severity, pod_reference};
use crate::node::resources::Requests;
use crate::pod::machine::{Action, Event, ProbeKind};

impl Worker {
    /// Carries out one action; what is known at once goes into `events`.
    pub(super) fn perform(&mut self, action: Action, events: &mut VecDeque<Event>) {
        match action {
            Action::Admit => events.push_back(self.admit()),
            Action::Mount => {
                let work = self.pod_work();
                let task = self.tasks.spawn(async move {
                    let (volumes, origins) = work.mount().await;
                    Done::Mounted(volumes, origins)
                });
                self.mounting = Some(task);
            }
            Action::Pull { container } => {
                let policy = self.machine.pull_policy(container).to_owned();
                if let Some(work) = self.container_work(container) {
                    self.spawn_event(work.pull(policy));
                }
            }
            Action::Start {
                container,
                attempt,
                image,
                id,
            } => {
                let volumes = self.volumes.clone();
                if let Some(work) = self.container_work(container) {
                    self.spawn_event(work.start(id, attempt, image, volumes));
                }
            }
            Action::Watch { container, id } => {
                if let Some(work) = self.container_work(container) {
                    self.spawn_event(work.watch(id));
                }
            }
            Action::PostStart { container, id } => {
                if let Some(work) = self.container_work(container) {
                    self.spawn_event(work.post_start(id));
                }
            }
            Action::PreStop { container, id } => {
                if let Some(work) = self.container_work(container) {
                    self.spawn_event(work.pre_stop(id));
                }
            }
            Action::Probe {
                container,
                id,
                after_startup,
            } => {
                let kinds: &[ProbeKind] = if after_startup {
                    &[ProbeKind::Liveness, ProbeKind::Readiness]
                } else {
                    &[ProbeKind::Startup]
                };
                for kind in kinds {
                    let Some(work) = self.container_work(container) else {
                        continue;
                    };
                    let (id, tell, kind) = (id.clone(), self.tell.clone(), *kind);
                    let task = self.tasks.spawn(async move {
                        work.probe(id, kind, tell).await;
                        Done::Nothing
                    });
                    self.probes.entry(container).or_default().push(task);
                }
            }
            Action::StopProbes { container } => {
                for task in self.probes.remove(&container).into_iter().flatten() {
                    task.abort();
                }
            }
            Action::Signal { id, signal } => {
                let runtime = self.context.runtime.clone();
                self.tasks.spawn(async move {
                    // It may have ended on its own: its end is on its way.
                    if let Err(error) = runtime.signal(&id, signal).await {
                        tracing::debug!(container = id.id, "signal {signal}: {error}");
                    }
                    Done::Nothing
                });
            }
            Action::Forget { id } => {
                let runtime = self.context.runtime.clone();
                self.tasks.spawn(async move {
                    if let Err(error) = runtime.remove(&id).await {
                        tracing::debug!(container = id.id, "remove: {error}");
                    }
                    Done::Nothing
                });
            }
            Action::Emit {
                container,
                warning,
                reason,
                message,
            } => {
                let severity = if warning {
                    Severity::Warning
                } else {
                    Severity::Normal
                };
                if let Some(work) = container.and_then(|index| self.container_work(index)) {
                    work.emit(severity, reason, message);
                } else {
                    let object = pod_reference(&self.machine.pod, None);
                    self.context
                        .recorder
                        .record(object, severity, reason, message);
                }
            }
            Action::Teardown => {
                if let Some(task) = self.mounting.take() {
                    task.abort();
                }
                let work = self.pod_work();
                self.spawn_event(async move {
                    work.tear_down();
                    Event::TornDown
                });
            }
        }
    }

    /// Asks the node for resources and an address, and makes the Pod's directory.
    fn admit(&self) -> Event {
        let context = &self.context;
        let uid = self.machine.uid.clone();
        let spec = self.machine.pod.spec.clone().unwrap_or_default();
        let known = self.saved.is_some();
        if let Err(refusal) = context.ledger.admit(&uid, Requests::of(&spec), known) {
            return Event::Rejected {
                reason: refusal.reason,
                message: refusal.message,
            };
        }
        let refused = |message: String| Event::Rejected {
            reason: "UnexpectedAdmissionError".to_owned(),
            message,
        };
        let ip = if spec.host_network == Some(true) {
            context.node.host_ip
        } else {
            match context.addresses.assign(&uid, self.machine.ip) {
                Some(ip) => ip,
                None => return refused("no pod address is free on this node".to_owned()),
            }
        };
        let mut work = self.pod_work();
        work.facts.pod_ip = ip.to_string();
        match work.prepare() {
            Ok(()) => Event::Admitted(ip),
            Err(error) => refused(format!("make {}: {error}", self.pod_dir.display())),
        }
    }
}
