//! The engine's shell: runs as Pods, durable over crashes.
//!
//! [`Runner`] is a cheap handle. Each unfinished run has one task that owns its [`engine::Run`]:
//! it folds news into it, appends the news to the journal, and only after the commit carries the
//! effects out and answers. One watch of Pods serves all runs. At a start every unfinished run is
//! replayed and its outstanding effects are carried out again: Pod names are derived from (run,
//! task, attempt), so what exists is adopted.
//!
//! Not in here: the KFP API and its tables. They meet the runner in two places: `create` takes a
//! job to run in the same transaction as the run's first journal entry, and table `run_status`
//! (see `crate::journal`) is kept up to date in the transaction of each entry, to be joined.

mod actor;
pub(crate) mod cache;
mod executor_input;
mod import;
mod kubernetes_platform;
mod launch;
mod news;
mod outputs;
mod patch;
mod patience;
mod pod;
mod reading;
mod resource;
mod step_log;
mod store;
mod watch;
mod workflow;
mod workspace;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use artifacts::Stores;
use db::Db;
use engine::{Effect, Run, RunPhase};
use jiff::Timestamp;
use serde_json::Value;
use stdx::{OnError, SharedClock, SharedRng, Supervisor};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

use self::actor::{Actor, Command, Message};
pub use self::reading::ReadArtifact;
pub(crate) use self::workflow::Nodes;
use crate::journal::{self, Also, Journal, Record, Status};

/// Settings of a runner.
#[derive(Debug, Clone)]
pub struct Options {
    /// The namespace in which runs execute.
    pub namespace: String,
    /// The service account of steps, unless the run names one.
    pub service_account: String,
    /// A step fails when no node could take its Pod for so long, whatever else ended.
    pub unschedulable_after: Duration,
    /// At most this many steps of all runs have a Pod at the same time. The rest wait here, where
    /// they cost next to nothing.
    pub pods_at_once: usize,
    /// Where artifacts are kept.
    pub stores: Stores,
    /// Whether tasks that succeeded before may be skipped.
    pub cache: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            namespace: "kubeflow".to_owned(),
            service_account: "pipeline-runner".to_owned(),
            unschedulable_after: Duration::from_secs(30),
            pods_at_once: 256,
            stores: Stores::default(),
            cache: true,
        }
    }
}

/// A run to start.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Its id, a UUID; drawn by the caller.
    pub run_id: String,
    /// Its name for people.
    pub display_name: String,
    /// The compiled Workflow.
    pub manifest: Arc<Value>,
    /// Parameters by the name the caller used; `-` and `_` are exchanged where only that fits.
    pub parameters: Vec<(String, Value)>,
    /// The service account of its steps; empty for the default.
    pub service_account: String,
    /// Further facts about it: `pipeline_root`, `scheduled_at`.
    pub facts: BTreeMap<String, Value>,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStatus {
    /// Its id.
    pub run_id: String,
    /// The name of its Workflow: the package's `generateName` and five random characters.
    pub workflow: String,
    /// How far it is.
    pub phase: RunPhase,
    /// Whether it was asked to end and has not yet.
    pub terminating: bool,
    /// Why it is how it is.
    pub message: Option<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such run.
    #[error("run {0:?} not found")]
    NotFound(String),
    /// A run with this id exists already.
    #[error("run {0:?} exists already")]
    Exists(String),
    /// The package or its parameters do not make a run.
    #[error("{0}")]
    Invalid(String),
    /// The run is not in a state for this.
    #[error("{0}")]
    State(String),
    /// The journal could not be read or written.
    #[error("{attempt}")]
    Journal {
        /// What was attempted.
        attempt: &'static str,
        /// The cause.
        #[source]
        source: journal::Error,
    },
    /// The cluster refused or could not be reached.
    #[error("{attempt}")]
    Kube {
        /// What was attempted.
        attempt: String,
        /// The cause.
        #[source]
        source: Box<kube::Error>,
    },
    /// An artifact could not be read.
    #[error(transparent)]
    Artifact(artifacts::Error),
    /// The runner is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// The Pod of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The container that does the step's work.
    pub container: String,
}

/// Starts, follows and ends runs. Clones share it.
#[derive(Clone)]
pub struct Runner {
    shared: Arc<Shared>,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

/// What the handle, the watch and the runs' tasks have in common.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) journal: Journal,
    pub(crate) db: Db,
    /// Logs are copied beside the steps that run, not in front of them.
    log_slots: Semaphore,
    pub(crate) client: kube::Client,
    pub(crate) clock: SharedClock,
    pub(crate) rng: SharedRng,
    supervisor: Supervisor,
    changes: broadcast::Sender<RunStatus>,
    /// One for each step that has a Pod.
    slots: Arc<Semaphore>,
    /// The unfinished runs. Messages are sent, and actors take themselves off, under this lock, so
    /// that no message is lost between the two.
    actors: Mutex<BTreeMap<String, mpsc::UnboundedSender<Message>>>,
}

impl Runner {
    /// Opens the journal (the database must have [`journal::MIGRATION`]), takes up every run that
    /// is not over, and starts to watch Pods. Tasks run under `supervisor`.
    pub async fn start(
        options: Options,
        db: Db,
        client: kube::Client,
        clock: SharedClock,
        rng: SharedRng,
        supervisor: &Supervisor,
    ) -> Result<Self, Error> {
        let journal = Journal::open(db.clone())
            .await
            .map_err(|source| Error::Journal {
                attempt: "open the journal",
                source,
            })?;
        let (changes, _) = broadcast::channel(1024);
        let shared = Arc::new(Shared {
            slots: Arc::new(Semaphore::new(options.pods_at_once)),
            options,
            journal,
            db,
            log_slots: Semaphore::new(2),
            client,
            clock,
            rng,
            supervisor: supervisor.clone(),
            changes,
            actors: Mutex::default(),
        });
        let unfinished = shared
            .journal
            .unfinished()
            .await
            .map_err(|source| Error::Journal {
                attempt: "list unfinished runs",
                source,
            })?;
        for run in unfinished {
            // One unreadable run must not keep the others from going on.
            if let Err(error) = shared.take_up(&run, None).await {
                tracing::error!(run_id = run, "take up run: {}", stdx::error::chain(&error));
            }
        }
        let watched = shared.clone();
        supervisor.spawn("pod watch", OnError::Log, watch::run(watched));
        Ok(Self { shared })
    }

    /// Starts a run. Its first journal entry and `also` are one transaction; after that it goes on
    /// by itself.
    pub async fn create(&self, new: NewRun, also: Option<Also>) -> Result<RunStatus, Error> {
        let shared = &self.shared;
        let invalid = |error: pipelinespec::Error| Error::Invalid(error.to_string());
        let package = pipelinespec::Package::from_json((*new.manifest).clone()).map_err(invalid)?;
        let parameters = pipelinespec::bind(&package.plan, &new.parameters).map_err(invalid)?;
        let at = shared.clock.now();
        let workflow = workflow::name(&package.document, &*shared.rng);
        let from_plan = package
            .document
            .pointer("/spec/serviceAccountName")
            .and_then(Value::as_str);
        let service_account = match (new.service_account.as_str(), from_plan) {
            ("", Some(account)) if !account.is_empty() => account.to_owned(),
            ("", _) => shared.options.service_account.clone(),
            (account, _) => account.to_owned(),
        };
        let mut record = Record {
            run: new.run_id,
            workflow,
            display_name: new.display_name,
            service_account,
            at,
            parameters,
            facts: BTreeMap::new(),
        };
        record.facts = workflow::facts(&record, &package.document, &shared.options.namespace);
        record.facts.extend(new.facts);
        let (run, effects) = Run::new(record.created(package.plan.clone()))
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let status = Status::of(&run);
        shared
            .journal
            .create(&record, &package.plan, &package.document, &status, also)
            .await
            .map_err(|source| match source {
                journal::Error::Exists(run) => Error::Exists(run),
                source => Error::Journal {
                    attempt: "record the new run",
                    source,
                },
            })?;
        let record = Arc::new(record);
        let answer = run_status(&record.run, record.workflow.clone(), &status);
        shared.publish(&answer);
        shared.spawn(record, package.document, run, effects, None);
        Ok(answer)
    }

    /// The service account of steps whose run names none.
    pub fn service_account(&self) -> &str {
        &self.shared.options.service_account
    }

    /// Asks a run to end: its Pods are deleted, its exit handler runs, and it ends as failed.
    pub async fn terminate(&self, run: &str) -> Result<(), Error> {
        self.command(run, Command::Terminate).await
    }

    /// Tries what failed in a failed run again.
    pub async fn retry(&self, run: &str) -> Result<(), Error> {
        self.command(run, Command::Retry).await
    }

    /// Ends a run at once, deletes its Pods and forgets it; `also` is part of the transaction.
    pub async fn delete(&self, run: &str, also: Option<Also>) -> Result<(), Error> {
        let shared = &self.shared;
        let (reply, ended) = oneshot::channel();
        if shared.send(run, Message::Forget(reply)) {
            // The actor going away is as good as its answer.
            let _ = ended.await;
        }
        let loaded = shared.load(run).await;
        shared
            .journal
            .delete(run, also)
            .await
            .map_err(|source| Error::Journal {
                attempt: "delete the run",
                source,
            })?;
        // A run that cannot be read is deleted all the same; what it owned stays.
        if let Ok((recorded, state)) = loaded {
            let record = &recorded.record;
            resource::delete_owned(shared, record, &state.created().plan).await;
            reading::delete_everything(shared, record, &state.settings()).await;
        }
        pod::delete_all(shared, run).await
    }

    /// How far a run is.
    pub async fn status(&self, run: &str) -> Result<RunStatus, Error> {
        let found = self.shared.journal.status(run).await;
        match found.map_err(|source| Error::Journal {
            attempt: "read the run's status",
            source,
        })? {
            Some((workflow, status)) => Ok(run_status(run, workflow, &status)),
            None => Err(Error::NotFound(run.to_owned())),
        }
    }

    /// The run's Workflow as Argo would show it now: the compiled one with its name, arguments and
    /// `status.nodes`.
    pub async fn workflow_manifest(&self, run: &str) -> Result<Value, Error> {
        let namespace = self.shared.options.namespace.clone();
        self.inspect(run, move |run, record, manifest| {
            workflow::render(run, record, manifest, &namespace)
        })
        .await
    }

    /// The Pod of a node of `status.nodes`; none if the node has no Pod or the run no such node.
    pub async fn pod_of(&self, run: &str, node: &str) -> Result<Option<PodRef>, Error> {
        let (namespace, node) = (self.shared.options.namespace.clone(), node.to_owned());
        self.inspect(run, move |run, record, _| {
            workflow::pod_of(run, record, &namespace, &node)
        })
        .await
    }

    /// Every committed change of any run, as it happens. A receiver that falls behind is told so.
    pub fn subscribe(&self) -> broadcast::Receiver<RunStatus> {
        self.shared.changes.subscribe()
    }

    async fn command(&self, run: &str, command: Command) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Command(command, reply);
        if let Some(message) = self.shared.send_or_return(run, message) {
            self.shared.take_up(run, Some(message)).await?;
        }
        answer.await.map_err(|_| Error::Stopping)?
    }

    /// Looks at a run as it is now, whether it goes on or is over.
    pub(crate) async fn inspect<T: Send + 'static>(
        &self,
        run: &str,
        look: impl FnOnce(&Run, &Record, &Value) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let look = Box::new(move |run: &Run, record: &Record, manifest: &Value| {
            // Nobody waiting any more is fine.
            let _ = reply.send(look(run, record, manifest));
        });
        if let Some(Message::Inspect(look)) =
            self.shared.send_or_return(run, Message::Inspect(look))
        {
            let (recorded, run) = self.shared.load(run).await?;
            look(&run, &recorded.record, &recorded.manifest);
        }
        answer.await.map_err(|_| Error::Stopping)
    }
}

impl Shared {
    /// Hands a message to the run's task, if it has one.
    pub(crate) fn send(&self, run: &str, message: Message) -> bool {
        self.send_or_return(run, message).is_none()
    }

    fn send_or_return(&self, run: &str, message: Message) -> Option<Message> {
        let actors = self.actors.lock().unwrap_or_else(PoisonError::into_inner);
        match actors.get(run) {
            Some(actor) => actor.send(message).err().map(|unsent| unsent.0),
            None => Some(message),
        }
    }

    /// Hands something to the task of every unfinished run.
    pub(crate) fn send_all(&self, message: impl Fn() -> Message) {
        let actors = self.actors.lock().unwrap_or_else(PoisonError::into_inner);
        for actor in actors.values() {
            // A task that is stopping needs no news.
            let _ = actor.send(message());
        }
    }

    pub(crate) fn publish(&self, status: &RunStatus) {
        // Nobody listening is fine.
        let _ = self.changes.send(status.clone());
    }

    async fn load(&self, run: &str) -> Result<(journal::Recorded, Run), Error> {
        let loaded = self.journal.load(run).await;
        let recorded = loaded
            .map_err(|source| Error::Journal {
                attempt: "read the run's journal",
                source,
            })?
            .ok_or_else(|| Error::NotFound(run.to_owned()))?;
        let created = recorded.record.created(recorded.plan.clone());
        let state = Run::replay(created, &recorded.events).map_err(|error| {
            Error::State(format!("the run's journal cannot be replayed: {error}"))
        })?;
        Ok((recorded, state))
    }

    /// Replays a run and gives it a task of its own, with a first message for it.
    async fn take_up(self: &Arc<Self>, run: &str, first: Option<Message>) -> Result<(), Error> {
        let (recorded, state) = self.load(run).await?;
        let effects = state.outstanding();
        self.spawn(recorded.record, recorded.manifest, state, effects, first);
        Ok(())
    }

    fn spawn(
        self: &Arc<Self>,
        record: Arc<Record>,
        manifest: Arc<Value>,
        run: Run,
        effects: Vec<Effect>,
        first: Option<Message>,
    ) {
        let mut actors = self.actors.lock().unwrap_or_else(PoisonError::into_inner);
        // A task that failed has left a closed channel behind.
        if let Some(actor) = actors.get(&record.run).filter(|actor| !actor.is_closed()) {
            // Somebody else was faster.
            if let Some(message) = first {
                drop(actor.send(message));
            }
            return;
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        if let Some(message) = first {
            drop(sender.send(message));
        }
        actors.insert(record.run.clone(), sender);
        let actor = Actor::new(self.clone(), record, manifest, run, receiver);
        self.supervisor
            .spawn("run", OnError::Log, actor.live(effects));
    }

    /// Takes a run's task off the list unless a message for it came in meanwhile.
    pub(crate) fn retire(
        &self,
        run: &str,
        inbox: &mut mpsc::UnboundedReceiver<Message>,
    ) -> Option<Message> {
        let mut actors = self.actors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(message) = inbox.try_recv() {
            return Some(message);
        }
        actors.remove(run);
        None
    }
}

fn run_status(run: &str, workflow: String, status: &Status) -> RunStatus {
    RunStatus {
        run_id: run.to_owned(),
        workflow,
        phase: status.phase,
        terminating: status.terminating,
        message: status.message.clone(),
        started_at: status.started_at,
        finished_at: status.finished_at,
    }
}
