//! Where the references of a template find their values.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;

use super::Run;
use crate::plan::{InputArtifact, InputParameter};
use crate::task::{Kind, Phase, Task, TaskId};
use crate::text::{Ref, Scope, render};

/// The references inside one template: `task` is the call of that template.
pub(super) struct Inside<'a> {
    pub(super) run: &'a Run,
    pub(super) task: Option<TaskId>,
    pub(super) item: Option<&'a Value>,
}

impl Inside<'_> {
    fn caller(&self) -> Option<&Task> {
        self.task.map(|id| &self.run.tasks[id.index()])
    }

    fn sibling(&self, name: &str) -> Option<&Task> {
        let caller = self.caller()?;
        let position = *self.run.dags.get(&caller.template)?.positions.get(name)?;
        let id = *caller.frame_state()?.tasks.get(position)?;
        Some(&self.run.tasks[id.index()])
    }
}

impl Scope for Inside<'_> {
    fn lookup(&self, to: &Ref) -> Option<Value> {
        match to {
            Ref::Input(name) => self.caller()?.inputs.get(name).cloned(),
            Ref::InputArtifact(name) => self.caller()?.input_artifacts.get(name).cloned(),
            Ref::Output { task, name } => {
                let task = self.sibling(task)?;
                match &task.kind {
                    Kind::Loop(_) => self.run.collected(task, |t| t.outputs.get(name)),
                    Kind::Dag(_) | Kind::Work(_) => task.outputs.get(name).cloned(),
                }
            }
            Ref::OutputArtifact { task, name } => {
                let task = self.sibling(task)?;
                match &task.kind {
                    Kind::Loop(_) => self.run.collected(task, |t| t.output_artifacts.get(name)),
                    Kind::Dag(_) | Kind::Work(_) => task.output_artifacts.get(name).cloned(),
                }
            }
            Ref::TaskStatus(task) => {
                let phase = self.sibling(task)?.phase;
                phase
                    .finished()
                    .then(|| Value::String(phase.as_str().to_owned()))
            }
            Ref::RunParameter(name) => self.run.parameter(name),
            Ref::Run(name) => self.run.fact(name),
            Ref::Item(path) => {
                let mut value = self.item?;
                for key in path {
                    value = match value {
                        Value::Object(map) => map.get(key)?,
                        Value::Array(list) => list.get(key.parse::<usize>().ok()?)?,
                        _ => return None,
                    };
                }
                Some(value.clone())
            }
            Ref::Late(_) => None,
        }
    }
}

impl Run {
    /// A parameter of the run: as given, else the plan's default.
    fn parameter(&self, name: &str) -> Option<Value> {
        let given = self.created.parameters.get(name);
        let declared = || self.plan().parameters.iter().find(|p| p.name == name);
        given.cloned().or_else(|| declared()?.default.clone())
    }

    /// A fact about the run: those that change come from its state, the rest from its creation.
    fn fact(&self, name: &str) -> Option<Value> {
        match name {
            "status" => Some(Value::String(self.status_for_exit().to_owned())),
            "failures" => Some(Value::String(self.failures().to_string())),
            _ => self.created.facts.get(name).cloned(),
        }
    }

    /// What the exit handler learns about the rest of the run.
    fn status_for_exit(&self) -> &'static str {
        match self.tasks.first().map(|main| main.phase) {
            Some(phase) if phase.unsuccessful() => phase.as_str(),
            Some(phase) if phase.finished() => Phase::Succeeded.as_str(),
            _ => Phase::Running.as_str(),
        }
    }

    fn failures(&self) -> Value {
        let failed = |t: &&Task| t.phase.unsuccessful() && matches!(t.kind, Kind::Work(_));
        self.tasks
            .iter()
            .filter(failed)
            .map(|task| {
                serde_json::json!({
                    "displayName": task.display_name,
                    "message": task.message,
                    "templateName": task.template,
                    "phase": task.phase.as_str(),
                    "finishedAt": task.finished_at.map(|at| at.to_string()),
                })
            })
            .collect()
    }

    /// The values of a loop's iterations as one list. A string that is JSON joins as what it says.
    fn collected<'a>(
        &'a self,
        task: &'a Task,
        of: impl Fn(&'a Task) -> Option<&'a Value>,
    ) -> Option<Value> {
        let Kind::Loop(state) = &task.kind else {
            return None;
        };
        if task.phase != Phase::Succeeded {
            return None;
        }
        let values = state
            .items
            .iter()
            .filter_map(|id| of(&self.tasks[id.index()]));
        let values: Vec<Value> = values
            .map(|value| match value {
                Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| value.clone()),
                other => other.clone(),
            })
            .collect();
        (!values.is_empty()).then_some(Value::Array(values))
    }

    /// The parameters for a call: passed ones, else the template's defaults, else a problem.
    pub(super) fn bind_parameters(
        &self,
        declared: &[InputParameter],
        mut passed: BTreeMap<String, Value>,
    ) -> Result<BTreeMap<String, Value>, String> {
        let scope = Inside {
            run: self,
            task: None,
            item: None,
        };
        let mut bound = BTreeMap::new();
        for parameter in declared {
            let value = match (passed.remove(&parameter.name), &parameter.default) {
                (Some(value), _) => value,
                (None, Some(default)) => default.resolve(&scope),
                (None, None) => {
                    return Err(alloc::format!(
                        "inputs.parameters.{} was not supplied",
                        parameter.name
                    ));
                }
            };
            bound.insert(parameter.name.clone(), value);
        }
        Ok(bound)
    }

    /// The artifacts for a call, likewise; an optional one may be missing.
    pub(super) fn bind_artifacts(
        &self,
        declared: &[InputArtifact],
        mut passed: BTreeMap<String, Value>,
        inputs: &BTreeMap<String, Value>,
    ) -> Result<BTreeMap<String, Value>, String> {
        let scope = Inputs { run: self, inputs };
        let mut bound = BTreeMap::new();
        for artifact in declared {
            let value = match (passed.remove(&artifact.name), &artifact.default) {
                (Some(value), _) => value,
                (None, Some(default)) => default.resolve(&scope),
                (None, None) if artifact.optional => continue,
                (None, None) => {
                    return Err(alloc::format!(
                        "inputs.artifacts.{} was not supplied",
                        artifact.name
                    ));
                }
            };
            bound.insert(artifact.name.clone(), value);
        }
        Ok(bound)
    }
}

/// A template's inputs that are not bound to a task yet.
struct Inputs<'a> {
    run: &'a Run,
    inputs: &'a BTreeMap<String, Value>,
}

impl Scope for Inputs<'_> {
    fn lookup(&self, to: &Ref) -> Option<Value> {
        match to {
            Ref::Input(name) => self.inputs.get(name).cloned(),
            other => Inside {
                run: self.run,
                task: None,
                item: None,
            }
            .lookup(other),
        }
    }
}

/// An item as part of a task's name: `(2:heads)`, `(0:a:1,b:2)`.
pub(super) fn item_suffix(index: usize, item: &Value) -> String {
    let text = match item {
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| alloc::format!("{key}:{}", render(value));
            map.iter().map(entry).collect::<Vec<_>>().join(",")
        }
        other => render(other),
    };
    alloc::format!("({index}:{text})")
}
