//! What a run wants done in the world. Every effect may be carried out more than once.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use jiff::Timestamp;
use serde_json::Value;

use crate::event::Timer;
use crate::plan::WorkKind;
use crate::run::RunPhase;
use crate::task::TaskPath;

/// Something to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Begin an attempt, unless it has begun.
    StartWork(Box<StartWork>),
    /// End an attempt, if it still goes on. What it reports afterwards no longer counts.
    StopWork {
        /// The task.
        task: TaskPath,
        /// Which attempt.
        attempt: u32,
    },
    /// Report [`crate::Event::TimerFired`] at `at` or soon after.
    StartTimer {
        /// Which.
        timer: Timer,
        /// When it is due.
        at: Timestamp,
    },
    /// The run is over.
    RunFinished {
        /// How it ended.
        phase: RunPhase,
    },
}

/// An attempt to begin.
#[derive(Debug, Clone, PartialEq)]
pub struct StartWork {
    /// The task.
    pub task: TaskPath,
    /// Which attempt.
    pub attempt: u32,
    /// The template.
    pub template: String,
    /// The task's name for people.
    pub display_name: String,
    /// Which sort of work.
    pub kind: WorkKind,
    /// What to do, without references except those that only the runner knows.
    pub spec: Value,
    /// Parameters it was called with.
    pub inputs: BTreeMap<String, Value>,
    /// Artifacts it was called with and where the work expects each.
    pub artifacts: Vec<(String, Option<String>, Value)>,
    /// Parameters to collect when the work is done.
    pub output_parameters: Vec<WantedParameter>,
    /// Artifacts to collect when the work is done.
    pub output_artifacts: Vec<WantedArtifact>,
    /// The work fails after this many seconds (a timer of the run sees to it, too).
    pub timeout_seconds: Option<u64>,
}

/// A parameter to collect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedParameter {
    /// The content of a file.
    File {
        /// The parameter.
        name: String,
        /// The file.
        path: String,
        /// The value when there is no such file.
        default: Option<String>,
    },
    /// A path into the object.
    JsonPath {
        /// The parameter.
        name: String,
        /// The path.
        path: String,
        /// The value when the object has no such path.
        default: Option<String>,
    },
    /// A text that is known already, but for what only the runner knows.
    Text {
        /// The parameter.
        name: String,
        /// The text.
        value: String,
    },
}

/// An artifact to collect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedArtifact {
    /// The artifact.
    pub name: String,
    /// The file or folder.
    pub path: String,
    /// Whether it may be missing.
    pub optional: bool,
    /// Settings that only the runner understands.
    pub settings: Value,
}
