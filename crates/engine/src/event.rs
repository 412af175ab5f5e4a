//! What can happen to a run: the entries of its journal.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan::Plan;
use crate::task::TaskPath;

/// How a run begins: the first entry of its journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunCreated {
    /// The run's id.
    pub run: String,
    /// When it was created.
    pub at: Timestamp,
    /// What it does.
    pub plan: Arc<Plan>,
    /// The parameters it was given, by their names in the plan.
    pub parameters: BTreeMap<String, Value>,
    /// Facts about the run that texts may name, such as `name` and `uid`.
    pub facts: BTreeMap<String, Value>,
}

/// Something that happened to a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// News of an attempt that is not over.
    TaskProgressed {
        /// The task.
        task: TaskPath,
        /// Which attempt.
        attempt: u32,
        /// When.
        at: Timestamp,
        /// Whether its work has begun.
        running: bool,
        /// Where it runs.
        host: Option<String>,
        /// Why it waits.
        message: Option<String>,
    },
    /// An attempt is over.
    TaskFinished {
        /// The task.
        task: TaskPath,
        /// Which attempt.
        attempt: u32,
        /// When.
        at: Timestamp,
        /// How.
        outcome: Outcome,
    },
    /// A timer has run out.
    TimerFired {
        /// Which.
        timer: Timer,
        /// When.
        at: Timestamp,
    },
    /// Somebody wants the run to end.
    TerminateRequested {
        /// When.
        at: Timestamp,
    },
    /// Somebody wants what failed to be tried again.
    RetryRequested {
        /// When.
        at: Timestamp,
    },
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Its work is done.
    Succeeded(Outputs),
    /// Its work failed.
    Failed {
        /// The exit code, if it had one.
        exit_code: Option<i32>,
        /// What went wrong.
        message: String,
    },
    /// Its work could not be carried out.
    Error {
        /// What went wrong.
        message: String,
        /// Whether trying again may help.
        transient: bool,
        /// Whether something of it is left that has to be stopped.
        stop: bool,
    },
    /// It was taken away from where it ran, for reasons that are not its own. The task begins anew,
    /// and that is not one of its retries.
    Lost {
        /// What happened.
        message: String,
    },
}

/// What an attempt produced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outputs {
    /// Parameters by name.
    pub parameters: BTreeMap<String, Value>,
    /// Where artifacts are, by name; opaque.
    pub artifacts: BTreeMap<String, Value>,
    /// The exit code.
    pub exit_code: Option<i32>,
    /// Where the outputs were taken from, when nothing was done because it had been done before:
    /// a name that only the runner understands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_from: Option<String>,
}

/// A timer of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Timer {
    /// The run's deadline.
    Run,
    /// A task's deadline: an attempt's, or a DAG's (attempt 0).
    Task(TaskPath, u32),
    /// The pause before an attempt.
    Retry(TaskPath, u32),
}

impl Event {
    /// When it happened.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::TaskProgressed { at, .. }
            | Self::TaskFinished { at, .. }
            | Self::TimerFired { at, .. }
            | Self::TerminateRequested { at }
            | Self::RetryRequested { at } => *at,
        }
    }
}
