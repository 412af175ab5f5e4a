//! The state of a task: a call of a template that a run has reached.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where a task is in its run: empty for the entrypoint, `.train` for a task of its DAG,
/// `.loop(0:a).train` for one inside an iteration. Stable over replays and restarts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskPath(Arc<str>);

impl TaskPath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for TaskPath {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for TaskPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A task's place in [`crate::Run::tasks`]; a parent's is smaller than its children's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskId(pub(crate) u32);

impl TaskId {
    /// The task at a place of [`crate::Run::tasks`].
    pub fn at(index: usize) -> Self {
        Self(index as u32)
    }

    /// The position in [`crate::Run::tasks`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Its dependencies have not ended, or it waits for its turn.
    Waiting,
    /// Its work was asked for and has not begun.
    Pending,
    /// It goes on.
    Running,
    /// It did what it should.
    Succeeded,
    /// Its condition did not hold.
    Skipped,
    /// Its work failed.
    Failed,
    /// Its work could not be carried out.
    Error,
    /// It was not reached, because something before it did not succeed.
    Omitted,
}

impl Phase {
    /// Whether the task is over.
    pub fn finished(self) -> bool {
        !matches!(self, Self::Waiting | Self::Pending | Self::Running)
    }

    /// Whether the task failed or could not be carried out.
    pub fn unsuccessful(self) -> bool {
        matches!(self, Self::Failed | Self::Error)
    }

    /// The name that Argo and KFP use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting | Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Skipped => "Skipped",
            Self::Failed => "Failed",
            Self::Error => "Error",
            Self::Omitted => "Omitted",
        }
    }
}

/// A call of a template.
#[derive(Debug, Clone)]
pub struct Task {
    /// Where it is.
    pub path: TaskPath,
    /// Its name for people: the task's name, with the item in a loop.
    pub display_name: String,
    /// The template it calls.
    pub template: String,
    /// The DAG or loop it belongs to.
    pub parent: Option<TaskId>,
    /// The DAG it belongs to (a loop's items belong to the loop's DAG).
    pub frame: Option<TaskId>,
    /// Which task of that DAG it is.
    pub(crate) position: usize,
    /// The item of its loop.
    pub item: Option<Value>,
    /// How far it is.
    pub phase: Phase,
    /// Why.
    pub message: Option<String>,
    /// When it was reached.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// Parameters it was called with.
    pub inputs: BTreeMap<String, Value>,
    /// Artifacts it was called with.
    pub input_artifacts: BTreeMap<String, Value>,
    /// Parameters it produced.
    pub outputs: BTreeMap<String, Value>,
    /// Artifacts it produced.
    pub output_artifacts: BTreeMap<String, Value>,
    /// Where its outputs were taken from, when its work had been done before.
    pub cached_from: Option<String>,
    /// The settings that its call gives its work.
    pub settings: Option<Value>,
    /// What is special about its sort.
    pub kind: Kind,
    /// Dependencies that are not over.
    pub(crate) blocked: u32,
    /// Whether it counts against its DAG's parallelism.
    pub(crate) holds_slot: bool,
    /// Whether it counts against its loop's parallelism.
    pub(crate) holds_loop_slot: bool,
}

/// What is special about a sort of task.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A call of a DAG.
    Dag(Frame),
    /// A loop: one task for each item.
    Loop(Loop),
    /// Work for the runner.
    Work(WorkState),
}

/// The state of a DAG that is executed.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// Its tasks, in the order of the template; empty until it is reached.
    pub tasks: Vec<TaskId>,
    pub(crate) open: bool,
    pub(crate) remaining: usize,
    pub(crate) active: u32,
    pub(crate) queue: VecDeque<TaskId>,
    pub(crate) failed: Option<TaskId>,
    /// Nothing of it starts any more.
    pub(crate) stopped: bool,
    /// How many frames were opened by the same event on the way to this one.
    pub(crate) depth: u32,
    pub(crate) opened_by: u64,
}

/// The state of a loop.
#[derive(Debug, Clone, Default)]
pub struct Loop {
    /// One task for each item.
    pub items: Vec<TaskId>,
    pub(crate) remaining: usize,
    pub(crate) failed: Option<TaskId>,
    pub(crate) active: u32,
    pub(crate) queue: VecDeque<TaskId>,
}

/// The state of work.
#[derive(Debug, Clone, Default)]
pub struct WorkState {
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// Attempts before this one belong to an earlier try of the whole run.
    pub(crate) first: usize,
    /// The number of the first attempt in `attempts`.
    pub(crate) offset: u32,
    /// Whether it counts against the run's parallelism.
    pub(crate) holds_run_slot: bool,
}

impl WorkState {
    /// The number of the attempt at this place of `attempts`.
    pub fn number(&self, place: usize) -> u32 {
        self.offset + place as u32
    }

    /// The latest attempt and its number.
    pub fn latest(&self) -> Option<(u32, &Attempt)> {
        let place = self.attempts.len().checked_sub(1)?;
        Some((self.number(place), &self.attempts[place]))
    }
}

/// One attempt at some work.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// How far it is; never `Waiting`.
    pub phase: Phase,
    /// Why.
    pub message: Option<String>,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// Where it ran.
    pub host: Option<String>,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// Whether it has to be stopped, because it did not end by itself.
    pub(crate) stop: bool,
    /// Whether it was taken away, so that it does not count.
    pub lost: bool,
}

impl Task {
    pub(crate) fn frame_state(&self) -> Option<&Frame> {
        match &self.kind {
            Kind::Dag(frame) => Some(frame),
            Kind::Loop(_) | Kind::Work(_) => None,
        }
    }

    /// Its attempts, if it is work.
    pub fn work(&self) -> Option<&WorkState> {
        match &self.kind {
            Kind::Work(work) => Some(work),
            Kind::Dag(_) | Kind::Loop(_) => None,
        }
    }
}
