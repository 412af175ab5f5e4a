//! Where the references of a template find their values.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;

use super::Run;
use crate::task::{Kind, Phase, Task, TaskId};
use crate::text::{Ref, Scope, render};

/// The references inside one template: `task` is the call of that template.
pub(super) struct Inside<'a> {
    pub(super) run: &'a Run,
    pub(super) task: Option<TaskId>,
    pub(super) item: Option<&'a Value>,
    /// The task whose call is worked out, in a DAG.
    pub(super) called: Option<TaskId>,
    /// Its parameters, once they are known.
    pub(super) arguments: Option<&'a BTreeMap<String, Value>>,
}

impl<'a> Inside<'a> {
    pub(super) fn of(run: &'a Run, task: Option<TaskId>) -> Self {
        Self {
            run,
            task,
            item: None,
            called: None,
            arguments: None,
        }
    }

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
                    Kind::Loop(_) if self.run.plan().typed => {
                        self.run.collected_parameters(task, name)
                    }
                    Kind::Loop(_) => self.run.collected(task, |t| t.outputs.get(name)),
                    Kind::Dag(_) | Kind::Work(_) => task.outputs.get(name).cloned(),
                }
            }
            Ref::OutputArtifact { task, name } => {
                let task = self.sibling(task)?;
                match &task.kind {
                    Kind::Loop(_) if self.run.plan().typed => {
                        self.run.collected_artifacts(task, name)
                    }
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
            Ref::TaskState(task) => self.sibling(task)?.state().map(Value::from),
            Ref::TaskError(task) => Some(self.sibling(task)?.error()),
            Ref::FirstOf(all) => all.iter().find_map(|to| self.lookup(to)),
            Ref::Argument(name) => self.arguments?.get(name).cloned(),
            Ref::Settings => self.caller()?.settings.clone(),
            Ref::TaskUid => {
                let id = self.called.or(self.task)?;
                Some(Value::String(
                    self.run.task_uid(&self.run.tasks[id.index()]),
                ))
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
