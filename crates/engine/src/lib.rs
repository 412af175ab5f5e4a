//! The durable run state machine: a [`Plan`] and a sequence of [`Event`]s in, [`Effect`]s out.
//!
//! [`Run`] is the entry type. `Run::new` opens a run, [`Run::apply`] folds one event into it and
//! answers what has to be done in the world, and [`Run::outstanding`] derives the same effects
//! again after a replay, so that a crash between the journal and the world loses nothing.
//!
//! Invariants: the same plan and the same events give the same state and the same effects, byte
//! for byte; an effect is named by (run, task, attempt) and may be carried out any number of
//! times; news about an attempt that is over changes nothing; once a run has finished nothing of
//! it starts unless a retry is asked for.
//!
//! Deliberately absent: Kubernetes, KFP's wire formats, SQL, async, clocks, randomness. Ids, names
//! and times enter inside events; what a task does is an opaque JSON tree with references in it.

#![no_std]

extern crate alloc;

mod check;
mod condition;
mod effect;
mod event;
mod expression;
mod plan;
mod retry;
mod run;
mod task;
mod text;
mod types;

pub use check::Problem;
pub use condition::{Comparison, Condition, Operand};
pub use effect::{Effect, StartWork, WantedArtifact, WantedParameter};
pub use event::{Event, Outcome, Outputs, RunCreated, Timer};
pub use expression::Expression;
pub use plan::{
    Argument, ArtifactArgument, Body, Dag, Each, InputArtifact, InputParameter, OutputArtifact,
    OutputParameter, OutputSource, Plan, RunParameter, TaskSpec, Template, Trigger, Work, WorkKind,
};
pub use retry::{RetryOn, RetryPolicy, parse_duration};
pub use run::{Error, Run, RunPhase};
pub use task::{Attempt, Kind, Phase, Task, TaskId, TaskPath};
pub use text::{Piece, Ref, Shape, Text, render};
pub use types::{Mismatch, ParameterType};
