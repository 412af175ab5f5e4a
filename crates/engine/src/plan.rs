//! What a run is going to do: templates, the tasks of a DAG, and how values flow between them.
//!
//! Both v1 Argo Workflows and v2 IR compile to these types; nothing here knows either.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::condition::Condition;
use crate::retry::RetryPolicy;
use crate::text::{Shape, Text};
use crate::types::ParameterType;

/// A compiled pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The template that a run executes.
    pub entrypoint: String,
    /// The template that runs after the entrypoint, however it ended.
    pub on_exit: Option<String>,
    /// Templates by name.
    pub templates: BTreeMap<String, Template>,
    /// The parameters of a run, in the order of the package.
    pub parameters: Vec<RunParameter>,
    /// At most this many pieces of work at once in the whole run.
    pub parallelism: Option<u32>,
    /// The run fails after this many seconds.
    pub deadline_seconds: Option<u64>,
    /// Settings of the run that only the runner understands.
    pub settings: Shape,
    /// Values keep their types: what a loop produced is the list of what its iterations produced
    /// (lists of artifacts joined, nothing for no items), and a parameter of another type than its
    /// template declares is an error. Otherwise values are texts.
    #[serde(default, skip_serializing_if = "is_false")]
    pub typed: bool,
}

/// A parameter that a run may be given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunParameter {
    /// Its name.
    pub name: String,
    /// Its value when the run gives none; without one it must be given, unless it is optional.
    pub default: Option<Value>,
    /// Its type; without one it is a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ParameterType>,
    /// Whether it may have no value at all.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
    /// If there are any, its value must be one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub literals: Vec<Value>,
    /// What its author says about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Something that can be executed, as often as it is called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// Its name.
    pub name: String,
    /// Parameters it takes.
    pub parameters: Vec<InputParameter>,
    /// Artifacts it takes.
    pub artifacts: Vec<InputArtifact>,
    /// Parameters it produces.
    pub output_parameters: Vec<OutputParameter>,
    /// Artifacts it produces.
    pub output_artifacts: Vec<OutputArtifact>,
    /// What it does.
    pub body: Body,
    /// Whether and when a failed attempt is tried again.
    pub retry: Option<RetryPolicy>,
    /// An attempt (or the DAG) fails after this many seconds; a number after resolution.
    pub timeout_seconds: Option<Text>,
    /// At most this many direct children of the DAG at once.
    pub parallelism: Option<u32>,
}

/// A parameter that a template takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputParameter {
    /// Its name.
    pub name: String,
    /// Its value when the caller gives none.
    pub default: Option<Shape>,
    /// Its type; without one every value will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ParameterType>,
    /// Whether it may have no value at all.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
}

/// An artifact that a template takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputArtifact {
    /// Its name.
    pub name: String,
    /// Where the work expects it.
    pub path: Option<Text>,
    /// Whether it may be missing.
    pub optional: bool,
    /// What it is when the caller gives none.
    pub default: Option<Shape>,
}

/// A parameter that a template produces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputParameter {
    /// Its name.
    pub name: String,
    /// Where its value comes from.
    pub source: OutputSource,
    /// Its value when the source has none.
    pub default: Option<Text>,
}

/// Where the value of an output parameter comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputSource {
    /// A file that the work wrote.
    File(Text),
    /// A path into the object that a resource template made.
    JsonPath(Text),
    /// A text; in a DAG it may name outputs of its tasks.
    Text(Text),
}

/// An artifact that a template produces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputArtifact {
    /// Its name.
    pub name: String,
    /// For work: the path it wrote. For a DAG: a reference to a task's artifact.
    pub source: Text,
    /// Whether it may be missing.
    pub optional: bool,
    /// Settings that only the runner understands.
    pub settings: Value,
}

/// What a template does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// Something the runner carries out.
    Work(Work),
    /// A graph of calls of other templates.
    Dag(Dag),
}

/// Something the runner carries out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Which sort of thing it is.
    pub kind: WorkKind,
    /// Opaque, with references in it.
    pub spec: Shape,
}

/// Which sort of work it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkKind {
    /// A program in a container.
    Container,
    /// A request about an object of the cluster.
    Resource,
    /// Something that exists already becomes an artifact.
    Import,
}

/// A graph of calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dag {
    /// Its tasks; names are unique.
    pub tasks: Vec<TaskSpec>,
    /// Start nothing more once a task has failed.
    pub fail_fast: bool,
}

/// A call of a template inside a DAG.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its name, unique in the DAG.
    pub name: String,
    /// The template it calls.
    pub template: String,
    /// Tasks that have to end first.
    pub dependencies: Vec<String>,
    /// How they have to end.
    pub trigger: Trigger,
    /// Skip the task unless this holds.
    pub condition: Option<Condition>,
    /// Call the template once for each item.
    pub each: Option<Each>,
    /// Parameters passed.
    pub arguments: Vec<Argument>,
    /// Artifacts passed.
    pub artifacts: Vec<ArtifactArgument>,
    /// At most this many iterations at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<u32>,
    /// Settings for the work it calls, resolved here and named there by [`crate::Ref::Settings`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Shape>,
    /// Its name for people, if it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// How the dependencies of a task have to end for it to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Trigger {
    /// Each succeeded or was skipped by its condition.
    #[default]
    SucceededOrSkipped,
    /// Each succeeded.
    Succeeded,
    /// Each ended, in whatever way.
    Completed,
}

/// The items of a loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Each {
    /// Known when the pipeline was compiled.
    Items(Vec<Shape>),
    /// A list, or the JSON text of one, known when the task is reached.
    From(Shape),
}

/// A parameter passed to a template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Argument {
    /// The template's name for it.
    pub name: String,
    /// Its value.
    pub value: Shape,
}

/// An artifact passed to a template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArtifactArgument {
    /// The template's name for it.
    pub name: String,
    /// Where it is: usually one reference.
    pub value: Shape,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
fn is_false(value: &bool) -> bool {
    !value
}

impl Plan {
    /// The parameter called `name`; when there is none, the one whose name differs only in `-` and
    /// `_` exchanged.
    pub fn parameter(&self, name: &str) -> Option<&RunParameter> {
        let exact = self.parameters.iter().find(|p| p.name == name);
        exact.or_else(|| {
            self.parameters
                .iter()
                .find(|p| same_but_for_dashes(&p.name, name))
        })
    }
}

fn same_but_for_dashes(a: &str, b: &str) -> bool {
    let dash = |c: char| if c == '_' { '-' } else { c };
    a.chars().map(dash).eq(b.chars().map(dash))
}
