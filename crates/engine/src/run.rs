//! A run: its state, and the one way to change it.
//!
//! This file holds what callers see. How one event spreads through the tasks is in `turn`, what
//! becomes of a task in `decide`, its inputs in `bind`, what happens to attempts in `attempt`, how
//! values are found in `scope`, those of loops in `collect`, and stopping or retrying a whole run in
//! `reset`.

mod attempt;
mod bind;
mod collect;
mod decide;
mod reset;
mod scope;
mod turn;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::check::Problem;
use crate::effect::Effect;
use crate::event::{Event, RunCreated, Timer};
use crate::plan::{Body, Dag, Plan, Template};
use crate::task::{Kind, Phase, Task, TaskId, TaskPath};

use self::turn::Turn;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RunPhase {
    /// It goes on.
    Running,
    /// Everything did what it should.
    Succeeded,
    /// Something failed, or the run was ended before its time.
    Failed,
    /// Something could not be carried out.
    Error,
}

impl RunPhase {
    /// The name that Argo and KFP use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Error => "Error",
        }
    }

    /// Whether the run is over.
    pub fn finished(self) -> bool {
        self != Self::Running
    }

    fn of(phase: Phase) -> Self {
        match phase {
            Phase::Failed => Self::Failed,
            Phase::Error => Self::Error,
            Phase::Waiting
            | Phase::Pending
            | Phase::Running
            | Phase::Succeeded
            | Phase::Skipped
            | Phase::Omitted => Self::Succeeded,
        }
    }
}

/// Why a run could not be opened or an event not applied. The run is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plan cannot be executed.
    #[error("the plan cannot be executed: {0}")]
    Plan(Problem),
    /// Parameters without a default were not given.
    #[error("parameter {0:?} has no default and was not given")]
    MissingParameter(String),
    /// A parameter that the plan does not have.
    #[error("unknown parameter {name:?}; known are: {}", known.join(", "))]
    UnknownParameter {
        /// The name.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// Only a run that failed can be retried.
    #[error("only a failed run can be retried; this one is {}", .0.as_str())]
    NotRetryable(RunPhase),
    /// The run is over.
    #[error("the run is over: it is {}", .0.as_str())]
    Finished(RunPhase),
}

/// The state of a run.
#[derive(Debug, Clone)]
pub struct Run {
    created: RunCreated,
    version: u64,
    phase: RunPhase,
    message: Option<String>,
    started_at: Timestamp,
    finished_at: Option<Timestamp>,
    terminating: bool,
    tasks: Vec<Task>,
    by_path: BTreeMap<TaskPath, TaskId>,
    /// For tasks that a retry of the run took away: the number of their next attempt.
    burned: BTreeMap<TaskPath, u32>,
    dags: BTreeMap<String, DagIndex>,
    timers: BTreeMap<Timer, Timestamp>,
    /// Attempts going on, and those that wait because of the run's parallelism.
    active: u32,
    queue: VecDeque<TaskId>,
    exit: Option<TaskId>,
}

/// What is looked up in a DAG template again and again.
#[derive(Debug, Clone, Default)]
struct DagIndex {
    positions: BTreeMap<String, usize>,
    dependents: Vec<Vec<usize>>,
}

impl DagIndex {
    fn of(dag: &Dag) -> Self {
        let positions: BTreeMap<_, _> = dag
            .tasks
            .iter()
            .enumerate()
            .map(|(i, t)| (t.name.clone(), i))
            .collect();
        let mut dependents = alloc::vec![Vec::new(); dag.tasks.len()];
        for (i, task) in dag.tasks.iter().enumerate() {
            for dependency in &task.dependencies {
                if let Some(&position) = positions.get(dependency) {
                    dependents[position].push(i);
                }
            }
        }
        Self {
            positions,
            dependents,
        }
    }
}

impl Run {
    /// Opens a run. The first effects start what has no dependencies.
    pub fn new(created: RunCreated) -> Result<(Self, Vec<Effect>), Error> {
        created.plan.check().map_err(Error::Plan)?;
        for name in created.parameters.keys() {
            if !created.plan.parameters.iter().any(|p| p.name == *name) {
                let known = created
                    .plan
                    .parameters
                    .iter()
                    .map(|p| p.name.clone())
                    .collect();
                return Err(Error::UnknownParameter {
                    name: name.clone(),
                    known,
                });
            }
        }
        for parameter in &created.plan.parameters {
            let given = created.parameters.contains_key(&parameter.name);
            if parameter.default.is_none() && !parameter.optional && !given {
                return Err(Error::MissingParameter(parameter.name.clone()));
            }
        }
        let mut dags = BTreeMap::new();
        for (name, template) in &created.plan.templates {
            if let Body::Dag(dag) = &template.body {
                dags.insert(name.clone(), DagIndex::of(dag));
            }
        }
        let at = created.at;
        let mut run = Self {
            version: 0,
            phase: RunPhase::Running,
            message: None,
            started_at: at,
            finished_at: None,
            terminating: false,
            tasks: Vec::new(),
            by_path: BTreeMap::new(),
            burned: BTreeMap::new(),
            dags,
            timers: BTreeMap::new(),
            active: 0,
            queue: VecDeque::new(),
            exit: None,
            created,
        };
        let effects = run.turn(at, |turn| {
            turn.start_run_deadline();
            turn.open_entrypoint();
        });
        Ok((run, effects))
    }

    /// Rebuilds a run from its journal; its effects are forgotten ([`Run::outstanding`] has them).
    pub fn replay<'a>(
        created: RunCreated,
        events: impl IntoIterator<Item = &'a Event>,
    ) -> Result<Self, Error> {
        let (mut run, _) = Self::new(created)?;
        for event in events {
            run.apply(event)?;
        }
        Ok(run)
    }

    /// Folds one event into the run and answers what has to be done. News that comes too late or
    /// twice changes nothing and is no error.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the methods' paths are not general enough over the turn's lifetime"
    )]
    pub fn apply(&mut self, event: &Event) -> Result<Vec<Effect>, Error> {
        let at = event.at();
        match event {
            Event::TaskProgressed {
                task,
                attempt,
                running,
                host,
                message,
                ..
            } => {
                self.version += 1;
                if let Some(&id) = self.by_path.get(task) {
                    self.progress(id, *attempt, *running, host.as_ref(), message.as_ref());
                }
                Ok(Vec::new())
            }
            Event::TaskFinished {
                task,
                attempt,
                outcome,
                ..
            } => {
                // A task that the run does not have was taken away by a retry of the run.
                let id = self.by_path.get(task).copied();
                Ok(self.turn(at, |turn| {
                    if let Some(id) = id {
                        turn.attempt_finished(id, *attempt, outcome);
                    }
                }))
            }
            Event::TimerFired { timer, .. } => Ok(self.turn(at, |turn| turn.timer_fired(timer))),
            Event::TerminateRequested { .. } => {
                if self.phase.finished() {
                    return Err(Error::Finished(self.phase));
                }
                Ok(self.turn(at, |turn| turn.terminate()))
            }
            Event::RetryRequested { .. } => {
                if !matches!(self.phase, RunPhase::Failed | RunPhase::Error) {
                    return Err(Error::NotRetryable(self.phase));
                }
                Ok(self.turn(at, |turn| turn.retry_run()))
            }
        }
    }

    /// Whether the event would change anything: news that is not need not be written down.
    pub fn is_news(&self, event: &Event) -> bool {
        match event {
            Event::TaskProgressed {
                task,
                attempt,
                running,
                host,
                message,
                ..
            } => self.live_attempt(task, *attempt).is_some_and(|live| {
                let began = *running && live.phase != Phase::Running;
                let moved = host.is_some() && live.host != *host;
                began || moved || (live.message != *message && live.phase == Phase::Pending)
            }),
            Event::TaskFinished { task, attempt, .. } => {
                self.live_attempt(task, *attempt).is_some()
            }
            Event::TimerFired { timer, .. } => self.timers.contains_key(timer),
            Event::TerminateRequested { .. } => !self.phase.finished(),
            Event::RetryRequested { .. } => {
                matches!(self.phase, RunPhase::Failed | RunPhase::Error)
            }
        }
    }

    /// Everything that has to be done for the run to go on, whatever was done before.
    pub fn outstanding(&self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (index, task) in self.tasks.iter().enumerate() {
            let Kind::Work(work) = &task.kind else {
                continue;
            };
            for (place, attempt) in work.attempts.iter().enumerate() {
                let number = work.number(place);
                if attempt.stop {
                    effects.push(Effect::StopWork {
                        task: task.path.clone(),
                        attempt: number,
                    });
                } else if !attempt.phase.finished() {
                    effects.push(self.start_effect(TaskId(index as u32), number));
                }
            }
        }
        for (timer, at) in &self.timers {
            effects.push(Effect::StartTimer {
                timer: timer.clone(),
                at: *at,
            });
        }
        if self.phase.finished() {
            effects.push(Effect::RunFinished { phase: self.phase });
        }
        effects
    }

    /// How the run began.
    pub fn created(&self) -> &RunCreated {
        &self.created
    }

    /// How many events it has seen; the next one's place in the journal.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How far it is.
    pub fn phase(&self) -> RunPhase {
        self.phase
    }

    /// Whether it was asked to end and has not yet.
    pub fn terminating(&self) -> bool {
        self.terminating && !self.phase.finished()
    }

    /// Why it is how it is.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// When it began.
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// When it was over.
    pub fn finished_at(&self) -> Option<Timestamp> {
        self.finished_at
    }

    /// Its tasks, parents before children. `TaskId::index` is the place in this list.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The task at a path.
    pub fn task(&self, path: &TaskPath) -> Option<&Task> {
        self.by_path.get(path).map(|id| &self.tasks[id.index()])
    }

    /// The exit handler's task, once it was reached.
    pub fn exit_task(&self) -> Option<TaskId> {
        self.exit
    }

    /// The settings of the run, with the references in them resolved.
    pub fn settings(&self) -> serde_json::Value {
        self.plan().settings.resolve(&scope::Inside::of(self, None))
    }

    /// The tasks of its DAG that a task waits for; none for the entrypoint and the exit handler.
    pub fn dependencies(&self, id: TaskId) -> Vec<TaskId> {
        let Some((frame, spec)) = self.call_of(id) else {
            return Vec::new();
        };
        let Some(state) = self.tasks[frame.index()].frame_state() else {
            return Vec::new();
        };
        let index = &self.dags[&self.tasks[frame.index()].template];
        spec.dependencies
            .iter()
            .filter_map(|name| index.positions.get(name))
            .filter_map(|&position| state.tasks.get(position).copied())
            .collect()
    }

    /// The start of an attempt that goes on, as its effect had it.
    pub fn start_of(&self, path: &TaskPath, attempt: u32) -> Option<Effect> {
        let id = *self.by_path.get(path)?;
        self.live_attempt(path, attempt)
            .map(|_| self.start_effect(id, attempt))
    }

    fn plan(&self) -> &Plan {
        &self.created.plan
    }

    fn template(&self, id: TaskId) -> &Template {
        let name = &self.tasks[id.index()].template;
        self.plan()
            .templates
            .get(name)
            .expect("invariant: a checked plan has its templates")
    }

    /// The frame a task belongs to and the call in it; none for the entrypoint and exit handler.
    fn call_of(&self, id: TaskId) -> Option<(TaskId, &crate::plan::TaskSpec)> {
        let task = &self.tasks[id.index()];
        let frame = task.frame?;
        match &self.template(frame).body {
            Body::Dag(dag) => dag.tasks.get(task.position).map(|spec| (frame, spec)),
            Body::Work(_) => None,
        }
    }

    fn turn(&mut self, at: Timestamp, first: impl FnOnce(&mut Turn<'_>)) -> Vec<Effect> {
        self.version += 1;
        let mut turn = Turn::new(self, at);
        first(&mut turn);
        turn.settle()
    }
}
