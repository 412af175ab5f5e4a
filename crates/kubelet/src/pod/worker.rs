//! The asynchronous shell around one Pod's machine: it waits for whatever may happen, hands it to
//! the machine, and carries out what the machine answers.

mod perform;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, ResourceExt as _};
use stdx::Backoff;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::downward::Facts;
use super::machine::{Action, Event, Ids, Machine, Stage, State};
use super::record::Record;
use super::registry::PodView;
use super::report::{self, Report, Written};
use super::work::{self, ContainerWork, PodWork};
use super::{Context, paths, status};
use crate::runtime::ContainerRef;
use crate::volume::{self, MountedVolumes, Origins, refresh};

/// How long a status that only says "in progress" waits for a better one.
const PRELIMINARY: Duration = Duration::from_millis(50);

/// What the manager tells a worker.
#[derive(Debug)]
pub(crate) enum Input {
    /// The Pod's object, new or changed.
    Pod(Arc<Pod>),
    /// The object is gone.
    Removed,
    /// The kubelet stops.
    Drain,
}

/// What a task of the worker ended with.
#[derive(Debug)]
enum Done {
    Event(Event),
    Mounted(MountedVolumes, Origins),
    StatusWritten(Written),
    /// The preliminary status has waited long enough.
    PreliminaryDue,
    /// A status that was not taken is tried again.
    StatusRetry,
    Deleted(bool),
    Nothing,
}

/// What a worker waited for.
enum Next {
    Event(Event),
    /// Something that the machine need not hear of.
    Nothing,
    /// The manager takes the Pod back.
    Retire,
}

/// A status that only says "in progress" waits once for a better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preliminary {
    Fresh,
    Waiting,
    Due,
}

/// A Pod's worker.
#[derive(Debug)]
pub(crate) struct Worker {
    context: Arc<Context>,
    machine: Machine,
    pod_dir: PathBuf,
    inputs: mpsc::UnboundedReceiver<Input>,
    probes_told: mpsc::UnboundedReceiver<Event>,
    tell: mpsc::UnboundedSender<Event>,
    tasks: JoinSet<Done>,
    probes: HashMap<usize, Vec<AbortHandle>>,
    mounting: Option<AbortHandle>,
    volumes: Arc<MountedVolumes>,
    report: Report,
    status_retry: Backoff,
    /// A `StatusRetry` is under way: nothing is written before it.
    retry_waits: bool,
    /// How far the wait for something better than a preliminary status is.
    preliminary: Preliminary,
    deleting: bool,
    delete_retry: Backoff,
    saved: Option<Record>,
    view: watch::Sender<PodView>,
    pods: watch::Sender<Arc<Pod>>,
    services: watch::Receiver<u64>,
    /// Where the manager is told that there is nothing more to do.
    idle: mpsc::UnboundedSender<String>,
    idle_told: bool,
}

impl Worker {
    /// A worker for a Pod, with what an earlier start of the kubelet has kept of it.
    pub(crate) fn new(
        context: Arc<Context>,
        pod: Arc<Pod>,
        inputs: mpsc::UnboundedReceiver<Input>,
        idle: mpsc::UnboundedSender<String>,
    ) -> Self {
        let uid = pod.uid().unwrap_or_default();
        let pod_dir = paths::pod_dir(&context.data_dir, &uid);
        let record = Record::load(&pod_dir).filter(|r| r.uid == uid);
        let seed = if let Some(record) = &record {
            record.seed.clone()
        } else {
            let mut bytes = [0; 20];
            context.rng.fill(&mut bytes);
            bytes.iter().map(|b| format!("{b:02x}")).collect()
        };
        let ids = Ids {
            pod_dir: pod_dir.clone(),
            seed,
        };
        let mut machine = match &record {
            Some(record) => Machine::restore(pod.clone(), ids, record),
            None => Machine::new(pod.clone(), ids, context.clock.now()),
        };
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) && record.is_none() {
            // It ended in another life of this node; nothing of it is left to do.
            machine.stage = Stage::TornDown;
        }
        let (tell, probes_told) = mpsc::unbounded_channel();
        let view = watch::Sender::new(PodView::of(&machine, pod_dir.clone()));
        context.registry.insert(view.subscribe());
        let retry = || Backoff::new(Duration::from_millis(200), 2.0, Duration::from_secs(30));
        Self {
            services: context.services.subscribe(),
            context,
            machine,
            pod_dir,
            inputs,
            probes_told,
            tell,
            tasks: JoinSet::new(),
            probes: HashMap::new(),
            mounting: None,
            volumes: Arc::default(),
            report: Report::new(),
            status_retry: retry(),
            retry_waits: false,
            preliminary: Preliminary::Fresh,
            deleting: false,
            delete_retry: retry(),
            saved: record,
            view,
            pods: watch::Sender::new(pod),
            idle,
            idle_told: false,
        }
    }

    /// Works until the Pod's object is gone and nothing of the Pod is left, until the kubelet has
    /// stopped and the Pod with it, or until the Pod has ended, everybody knows, and the manager
    /// agrees: thousands of them may lie about. What is in the registry stays for its logs.
    pub(crate) async fn run(mut self) {
        self.recover().await;
        if self.machine.stage == Stage::Finished {
            self.perform(Action::Teardown, &mut VecDeque::new());
        }
        self.step(Event::Tick);
        while !self.is_done() {
            if !self.idle_told && self.is_idle() {
                self.idle_told = true;
                // The manager ends with the kubelet, and all workers with it.
                drop(self.idle.send(self.machine.uid.clone()));
            }
            let event = match self.next().await {
                Next::Event(event) => Some(event),
                Next::Nothing => None,
                Next::Retire => break,
            };
            if let Some(event) = event {
                self.step(event);
            } else {
                self.after();
            }
        }
        if self.idle_told && !self.machine.removed {
            return;
        }
        self.context.registry.remove(&self.machine.pod);
        if self.machine.removed
            && let Err(error) = volume::remove_tree(&self.pod_dir)
        {
            tracing::warn!(path = %self.pod_dir.display(), "remove a pod's directory: {error}");
        }
    }

    fn is_done(&self) -> bool {
        if self.machine.removed {
            return self.machine.stage == Stage::TornDown;
        }
        let settled = self.machine.is_drained() || self.machine.stage == Stage::TornDown;
        self.machine.draining
            && settled
            && !self.report.in_flight
            && self
                .report
                .due(&self.machine, &self.context.node, self.context.clock.now())
                .is_none()
    }

    /// Whether the Pod has ended, the API has it, and its object does not ask for anything.
    fn is_idle(&self) -> bool {
        let phase = self.machine.pod.status.as_ref();
        let phase = phase.and_then(|status| status.phase.as_deref());
        self.machine.stage == Stage::TornDown
            && matches!(phase, Some("Succeeded" | "Failed"))
            && !self.machine.is_terminating()
            && !self.report.in_flight
            && !self.retry_waits
            && self
                .report
                .due(&self.machine, &self.context.node, self.context.clock.now())
                .is_none()
    }

    /// Asks the runtime about the containers that ran when the record was written.
    async fn recover(&mut self) {
        let open: Vec<(usize, ContainerRef)> = self
            .machine
            .containers
            .iter()
            .enumerate()
            .filter_map(|(index, c)| match &c.state {
                State::Starting(id) => Some((index, id.clone())),
                _ => None,
            })
            .collect();
        if open.is_empty() {
            return;
        }
        for (index, id) in open {
            if let Some(work) = self.container_work(index) {
                let event = work.recover(id).await;
                let actions = self.machine.apply(event, self.context.clock.now());
                self.save();
                let mut more = VecDeque::new();
                for action in actions {
                    self.perform(action, &mut more);
                }
            }
        }
    }

    /// Waits for the next thing to happen.
    async fn next(&mut self) -> Next {
        let clock = self.context.clock.clone();
        let deadline: BoxFuture<'static, ()> = match self.machine.next_deadline() {
            Some(at) => {
                let left = at.duration_since(clock.now());
                // Timers are no finer than a millisecond: never wake before the deadline.
                let left = Duration::try_from(left).unwrap_or_default();
                clock.sleep(left)
            }
            None => Box::pin(std::future::pending()),
        };
        let event = tokio::select! {
            biased;
            // Nothing comes after the news that the object is gone.
            input = self.inputs.recv(), if !self.machine.removed => match input {
                Some(Input::Pod(pod)) => {
                    self.pods.send_replace(pod.clone());
                    Some(Event::Pod(pod))
                }
                Some(Input::Removed) => Some(Event::Removed),
                Some(Input::Drain) => Some(Event::Drain),
                None if self.idle_told => return Next::Retire,
                // The manager is gone: the kubelet is being dropped as a whole.
                None => std::future::pending().await,
            },
            Some(done) = self.tasks.join_next() => match done {
                Ok(done) => self.done(done),
                Err(error) => {
                    if error.is_panic() {
                        tracing::error!(pod = self.machine.pod.name_any(), "a pod's task panicked");
                    }
                    None
                }
            },
            Some(event) = self.probes_told.recv() => Some(event),
            Ok(()) = self.services.changed() => {
                if !self.machine.is_over() && self.machine.ip.is_some() {
                    if let Err(error) = self.pod_work().write_hosts() {
                        tracing::warn!(pod = self.machine.pod.name_any(), "write the hosts file: {error}");
                    }
                }
                None
            },
            () = deadline => Some(Event::Tick),
        };
        event.map_or(Next::Nothing, Next::Event)
    }

    fn done(&mut self, done: Done) -> Option<Event> {
        match done {
            Done::Event(event) => Some(event),
            Done::Mounted(volumes, origins) => {
                self.mounting = None;
                self.volumes = Arc::new(volumes);
                self.keep_fresh(origins);
                Some(Event::Mounted)
            }
            Done::StatusWritten(written) => {
                tracing::trace!(pod = self.machine.pod.name_any(), "status written");
                if self.report.finished(written) {
                    self.status_retry.reset();
                } else {
                    self.retry_waits = true;
                    let pause = self.context.clock.sleep(self.status_retry.next_delay());
                    self.tasks.spawn(async move {
                        pause.await;
                        Done::StatusRetry
                    });
                }
                None
            }
            Done::StatusRetry => {
                self.retry_waits = false;
                None
            }
            Done::PreliminaryDue => {
                self.preliminary = Preliminary::Due;
                None
            }
            Done::Deleted(true) | Done::Nothing => None,
            Done::Deleted(false) => {
                self.deleting = false;
                None
            }
        }
    }

    /// Hands an event to the machine and carries out its answer, and what follows at once.
    fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            tracing::trace!(pod = self.machine.pod.name_any(), event = event.name());
            let actions = self.machine.handle(event, self.context.clock.now());
            self.save();
            for action in actions {
                self.perform(action, &mut events);
            }
        }
        self.after();
    }

    /// What follows every change: the record, the view for the server, the status, the deletion.
    fn after(&mut self) {
        self.save();
        let view = PodView::of(&self.machine, self.pod_dir.clone());
        self.view.send_replace(view);
        if self.machine.removed {
            return;
        }
        self.write_status();
        let reported = !self.report.in_flight
            && self
                .report
                .due(&self.machine, &self.context.node, self.context.clock.now())
                .is_none();
        if self.machine.deletion_is_due() && reported && !self.deleting {
            self.deleting = true;
            let (context, pod) = (self.context.clone(), self.machine.pod.clone());
            let pause = self.delete_retry.next_delay();
            self.tasks
                .spawn(async move { Done::Deleted(delete(&context, &pod, pause).await) });
        }
    }

    fn save(&mut self) {
        let record = self.machine.record();
        let untouched =
            self.saved.is_none() && matches!(self.machine.stage, Stage::New | Stage::Admitting);
        if self.saved.as_ref() == Some(&record) || untouched || !self.pod_dir.exists() {
            return;
        }
        if let Err(error) = record.save(&self.pod_dir) {
            tracing::warn!(path = %self.pod_dir.display(), "keep a pod's record: {error}");
        }
        self.saved = Some(record);
    }

    fn write_status(&mut self) {
        if self.report.in_flight || self.retry_waits {
            return;
        }
        let now = self.context.clock.now();
        let Some(next) = self.report.due(&self.machine, &self.context.node, now) else {
            return;
        };
        if status::is_preliminary(&self.machine) {
            match self.preliminary {
                Preliminary::Fresh => {
                    self.preliminary = Preliminary::Waiting;
                    let pause = self.context.clock.sleep(PRELIMINARY);
                    self.tasks.spawn(async move {
                        pause.await;
                        Done::PreliminaryDue
                    });
                    return;
                }
                Preliminary::Waiting => return,
                Preliminary::Due => {}
            }
        }
        self.report.in_flight = true;
        tracing::trace!(
            pod = self.machine.pod.name_any(),
            phase = next.phase,
            "write status"
        );
        let (client, pod) = (self.context.client.clone(), self.machine.pod.clone());
        self.tasks
            .spawn(async move { Done::StatusWritten(report::write(client, pod, next).await) });
    }

    fn facts(&self) -> Facts {
        Facts {
            pod_ip: self.machine.ip.map(|ip| ip.to_string()).unwrap_or_default(),
            host_ip: self.context.node.host_ip.to_string(),
            allocatable: Some(self.context.ledger.capacity()),
        }
    }

    fn pod_work(&self) -> PodWork {
        PodWork {
            context: self.context.clone(),
            pod: self.machine.pod.clone(),
            pod_dir: self.pod_dir.clone(),
            facts: self.facts(),
        }
    }

    fn container_work(&self, index: usize) -> Option<ContainerWork> {
        let (init, spec) = work::shared_specs(&self.machine.pod).remove(&index)?;
        Some(ContainerWork {
            pod: self.pod_work(),
            index,
            spec,
            init,
        })
    }

    fn spawn_event(&mut self, task: impl Future<Output = Event> + Send + 'static) {
        self.tasks.spawn(async move { Done::Event(task.await) });
    }

    fn keep_fresh(&mut self, origins: Origins) {
        let downward = self
            .machine
            .pod
            .spec
            .iter()
            .flat_map(|s| s.volumes.iter().flatten())
            .any(|v| v.downward_api.is_some() || v.projected.is_some());
        if origins.objects.is_empty() && origins.renew_at.is_none() && !downward {
            return;
        }
        let task = refresh::run(
            self.context.volumes.clone(),
            self.context.changes.clone(),
            self.pods.subscribe(),
            self.pod_dir.clone(),
            self.facts(),
            origins,
        );
        // It ends with the volumes: the same handle is aborted at teardown.
        self.mounting = Some(self.tasks.spawn(async move {
            task.await;
            Done::Nothing
        }));
    }
}

/// Ends the deletion of a Pod's object, which waited for its containers to end. The answer is
/// whether there is nothing more to do.
async fn delete(context: &Context, pod: &Pod, pause: Duration) -> bool {
    let api: Api<Pod> =
        Api::namespaced(context.client.clone(), &pod.namespace().unwrap_or_default());
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(&pod.name_any(), &params).await {
        Ok(_) => true,
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => true,
        Err(error) => {
            tracing::warn!(
                pod = pod.name_any(),
                "end the deletion of a pod: {}",
                stdx::error::chain(&error)
            );
            context.clock.sleep(pause).await;
            false
        }
    }
}
