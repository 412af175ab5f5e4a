//! What becomes of a task whose dependencies have ended: omitted, skipped, iterated or called.
//!
//! Nothing here changes the run.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;

use super::Run;
use super::bind::Bound;
use super::scope::Inside;
use crate::condition::Condition;
use crate::plan::{Body, Each, OutputSource, TaskSpec, Trigger};
use crate::task::{Kind, Phase, TaskId};
use crate::text::Text;

/// What becomes of a task whose dependencies have ended.
pub(super) enum Decision {
    End(Phase, String),
    Iterate(Vec<Value>),
    Call(Bound),
}

impl Decision {
    fn call(bound: Result<Bound, String>) -> Self {
        bound.map_or_else(|problem| Self::End(Phase::Error, problem), Self::Call)
    }
}

/// Whether a condition depends on the item of the task's loop.
fn per_item(spec: &TaskSpec, condition: &Condition) -> bool {
    let named = condition.arguments();
    let mut arguments = spec.arguments.iter();
    condition.uses_item()
        || arguments.any(|a| named.contains(a.name.as_str()) && a.value.uses_item())
}

impl Run {
    /// Why a task of this frame must not start; `None` when it may.
    pub(super) fn refusal(&self, id: TaskId, frame: TaskId) -> Option<String> {
        let state = self.tasks[frame.index()].frame_state()?;
        if state.stopped {
            let reason = self.tasks[frame.index()].message.as_deref();
            return Some(format!(
                "omitted: {}",
                reason.unwrap_or("the run is ending")
            ));
        }
        let Body::Dag(dag) = &self.template(frame).body else {
            return None;
        };
        let failed = state.failed.filter(|_| dag.fail_fast)?;
        if dag.tasks[self.tasks[id.index()].position].trigger == Trigger::Completed {
            return None;
        }
        Some(format!(
            "omitted: {} did not succeed",
            self.tasks[failed.index()].display_name
        ))
    }

    pub(super) fn decide(&self, id: TaskId, frame: TaskId, spec: &TaskSpec) -> Decision {
        let task = &self.tasks[id.index()];
        if let Some(message) = self.refusal(id, frame) {
            return Decision::End(Phase::Omitted, message);
        }
        if task.item.is_none() {
            for dependency in self.dependencies(id) {
                let dependency = &self.tasks[dependency.index()];
                let holds = match spec.trigger {
                    Trigger::Completed => true,
                    Trigger::Succeeded => dependency.phase == Phase::Succeeded,
                    Trigger::SucceededOrSkipped => {
                        matches!(dependency.phase, Phase::Succeeded | Phase::Skipped)
                    }
                };
                if !holds {
                    let message = format!(
                        "omitted: {} is {}",
                        dependency.display_name,
                        dependency.phase.as_str()
                    );
                    return Decision::End(Phase::Omitted, message);
                }
            }
        }
        let scope = Inside {
            item: task.item.as_ref(),
            called: Some(id),
            ..Inside::of(self, Some(frame))
        };
        if let Some(condition) = &spec.condition
            && task.item.is_some() == per_item(spec, condition)
        {
            match self.holds(id, spec, condition, &scope) {
                Ok(None) => {}
                Ok(Some(message)) => return Decision::End(Phase::Skipped, message),
                Err(message) => return Decision::End(Phase::Error, message),
            }
        }
        if task.item.is_none()
            && let Some(each) = &spec.each
        {
            return match items(each, &scope) {
                Ok(items) => Decision::Iterate(items),
                Err(problem) => Decision::End(Phase::Error, problem),
            };
        }
        Decision::call(self.bind_call(id, spec, &scope))
    }

    /// Whether the condition of a task holds: if not, the reason.
    fn holds(
        &self,
        id: TaskId,
        spec: &TaskSpec,
        condition: &Condition,
        scope: &Inside<'_>,
    ) -> Result<Option<String>, String> {
        let named = condition.arguments();
        let arguments = if named.is_empty() {
            BTreeMap::new()
        } else {
            self.bind_named(id, spec, scope, Some(&named))?
        };
        let scope = Inside {
            arguments: Some(&arguments),
            ..*scope
        };
        let values = || condition.with_values(&scope);
        match condition.holds(&scope) {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(format!("when '{}' evaluated false", values()))),
            Err(problem) => Err(format!("when '{}': {problem}", values())),
        }
    }

    pub(super) fn decide_root(&self, id: TaskId) -> Decision {
        Decision::call(self.bind_run(id))
    }

    pub(super) fn has_omitted_items(&self, id: TaskId) -> bool {
        let Kind::Loop(state) = &self.tasks[id.index()].kind else {
            return false;
        };
        state
            .items
            .iter()
            .any(|item| self.tasks[item.index()].phase == Phase::Omitted)
    }

    /// How many DAGs this event has opened on the way to this one.
    pub(super) fn idle_depth(&self, id: TaskId) -> u32 {
        let parent = self.tasks[id.index()]
            .frame
            .and_then(|f| self.tasks[f.index()].frame_state());
        match parent {
            Some(frame) if frame.opened_by == self.version => frame.depth + 1,
            _ => 0,
        }
    }

    pub(super) fn dag_outputs(
        &self,
        id: TaskId,
    ) -> (BTreeMap<String, Value>, BTreeMap<String, Value>) {
        let scope = Inside::of(self, Some(id));
        let template = self.template(id);
        let mut parameters = BTreeMap::new();
        for output in &template.output_parameters {
            let OutputSource::Text(text) = &output.source else {
                continue;
            };
            let default = || output.default.as_ref().map(|text| text.resolve(&scope));
            // An output of a task that was skipped has no value.
            if let Some(value) = text.resolve_all(&scope).or_else(default) {
                parameters.insert(output.name.clone(), value);
            }
        }
        let mut artifacts = BTreeMap::new();
        for output in &template.output_artifacts {
            if let Some(value) = output.source.resolve_all(&scope) {
                artifacts.insert(output.name.clone(), value);
            }
        }
        (parameters, artifacts)
    }

    pub(super) fn seconds(&self, id: TaskId, text: &Text) -> Result<u64, String> {
        let scope = Inside::of(self, Some(id));
        let value = text.resolve_string(&scope);
        value.trim().parse().map_err(|_| {
            format!("activeDeadlineSeconds is {value:?}, not a whole number of seconds")
        })
    }
}

fn items(each: &Each, scope: &Inside<'_>) -> Result<Vec<Value>, String> {
    match each {
        Each::Items(shapes) => Ok(shapes.iter().map(|shape| shape.resolve(scope)).collect()),
        Each::From(shape) => {
            let Some(value) = shape.value(scope)? else {
                return Err(format!(
                    "the items of a loop have no value: {} has none",
                    shape.source()
                ));
            };
            let list = match value {
                Value::String(text) => serde_json::from_str(text.trim()).map_err(|error| {
                    let start: String = text.chars().take(100).collect();
                    format!("the items of a loop must be a JSON list, got {start:?}: {error}")
                })?,
                other => other,
            };
            match list {
                Value::Array(items) => Ok(items),
                other => {
                    let start: String = other.to_string().chars().take(100).collect();
                    Err(format!(
                        "the items of a loop must be a JSON list, got {start}"
                    ))
                }
            }
        }
    }
}
