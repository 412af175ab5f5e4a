//! The inputs of a call: what was passed, else what the template has by default, of the right type.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;

use serde_json::Value;

use super::Run;
use super::scope::Inside;
use crate::plan::{Argument, InputArtifact, InputParameter, TaskSpec};
use crate::task::TaskId;
use crate::text::{Ref, Scope};
use crate::types::ParameterType;

type Result<T> = core::result::Result<T, String>;

/// The inputs of a call.
pub(super) struct Bound {
    pub(super) parameters: BTreeMap<String, Value>,
    pub(super) artifacts: BTreeMap<String, Value>,
    pub(super) settings: Option<Value>,
}

impl Run {
    /// Works out everything that a task passes.
    pub(super) fn bind_call(
        &self,
        id: TaskId,
        spec: &TaskSpec,
        scope: &Inside<'_>,
    ) -> Result<Bound> {
        let parameters = self.bind_named(id, spec, scope, None)?;
        let mut passed = BTreeMap::new();
        for argument in &spec.artifacts {
            let value = argument.value.value(scope);
            let value = value.map_err(|e| format!("input artifact {:?}: {e}", argument.name))?;
            if let Some(value) = value {
                passed.insert(argument.name.clone(), value);
            }
        }
        let source = |name: &str| {
            let mut all = spec.artifacts.iter();
            all.find(|a| a.name == name).map(|a| a.value.source())
        };
        let declared = &self.template(id).artifacts;
        let artifacts = self.bind_artifacts(declared, passed, &parameters, &source)?;
        let settings = match &spec.settings {
            Some(settings) => settings.value(scope)?,
            None => None,
        };
        Ok(Bound {
            parameters,
            artifacts,
            settings,
        })
    }

    /// Works out the parameters that a task passes: all, or those with these names.
    pub(super) fn bind_named(
        &self,
        id: TaskId,
        spec: &TaskSpec,
        scope: &Inside<'_>,
        only: Option<&BTreeSet<&str>>,
    ) -> Result<BTreeMap<String, Value>> {
        let wanted = |name: &str| only.is_none_or(|only| only.contains(name));
        let mut passed = BTreeMap::new();
        let pass = |argument: &Argument, scope: &Inside<'_>, passed: &mut BTreeMap<_, _>| {
            let value = argument.value.value(scope);
            let value = value.map_err(|e| format!("input parameter {:?}: {e}", argument.name))?;
            if let Some(value) = value {
                passed.insert(argument.name.clone(), value);
            }
            Ok::<_, String>(())
        };
        // Those that name others come after them.
        let names_others = |a: &&Argument| a.value.uses_arguments();
        for argument in spec.arguments.iter().filter(|a| !names_others(a)) {
            pass(argument, scope, &mut passed)?;
        }
        let others = passed.clone();
        let scope = Inside {
            arguments: Some(&others),
            ..*scope
        };
        for argument in spec.arguments.iter().filter(names_others) {
            pass(argument, &scope, &mut passed)?;
        }
        let source = |name: &str| {
            let mut all = spec.arguments.iter();
            all.find(|a| a.name == name).map(|a| a.value.source())
        };
        let declared = self.template(id).parameters.iter();
        self.bind_parameters(declared.filter(|p| wanted(&p.name)), passed, &source)
    }

    /// The entrypoint and the exit handler are called with the parameters of the run.
    pub(super) fn bind_run(&self, id: TaskId) -> Result<Bound> {
        let scope = Inside::of(self, None);
        let value = |name: &String| scope.lookup(&Ref::RunParameter(name.clone()));
        let passed = self
            .plan()
            .parameters
            .iter()
            .filter_map(|p| Some((p.name.clone(), value(&p.name)?)))
            .collect();
        let template = self.template(id);
        let parameters = self.bind_parameters(template.parameters.iter(), passed, &|_| None)?;
        let none = BTreeMap::new();
        let artifacts = self.bind_artifacts(&template.artifacts, none, &parameters, &|_| None)?;
        Ok(Bound {
            parameters,
            artifacts,
            settings: None,
        })
    }

    fn bind_parameters<'a>(
        &self,
        declared: impl Iterator<Item = &'a InputParameter>,
        mut passed: BTreeMap<String, Value>,
        source: &dyn Fn(&str) -> Option<String>,
    ) -> Result<BTreeMap<String, Value>> {
        let typed = self.plan().typed;
        let scope = Inside::of(self, None);
        let given = |value: &Value| !typed || !value.is_null();
        let mut bound = BTreeMap::new();
        for parameter in declared {
            let name = &parameter.name;
            let value = match passed.remove(name).filter(given) {
                Some(value) => Some(value),
                None => match &parameter.default {
                    Some(default) => default.value(&scope)?.filter(given),
                    None => None,
                },
            };
            let value = match (value, parameter.kind) {
                (Some(value), None) => value,
                (Some(value), Some(kind)) => kind
                    .coerce(value)
                    .map_err(|mismatch| format!("input parameter {name:?}: {mismatch}"))?,
                // The runner makes it.
                (None, Some(ParameterType::Config)) => continue,
                (None, _) if parameter.optional => continue,
                (None, _) if !typed => {
                    return Err(format!("inputs.parameters.{name} was not supplied"));
                }
                (None, _) => return Err(no_value("parameter", name, source(name))),
            };
            bound.insert(name.clone(), value);
        }
        Ok(bound)
    }

    fn bind_artifacts(
        &self,
        declared: &[InputArtifact],
        mut passed: BTreeMap<String, Value>,
        inputs: &BTreeMap<String, Value>,
        source: &dyn Fn(&str) -> Option<String>,
    ) -> Result<BTreeMap<String, Value>> {
        let scope = Inputs { run: self, inputs };
        let mut bound = BTreeMap::new();
        for artifact in declared {
            let name = &artifact.name;
            let value = match (passed.remove(name), &artifact.default) {
                (Some(value), _) => value,
                (None, Some(default)) => default.resolve(&scope),
                (None, None) if artifact.optional => continue,
                (None, None) if !self.plan().typed => {
                    return Err(format!("inputs.artifacts.{name} was not supplied"));
                }
                (None, None) => return Err(no_value("artifact", name, source(name))),
            };
            bound.insert(name.clone(), value);
        }
        Ok(bound)
    }
}

fn no_value(sort: &str, name: &str, source: Option<String>) -> String {
    match source {
        Some(source) => format!("input {sort} {name:?} has no value: {source} has none"),
        None => format!("input {sort} {name:?} was not given"),
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
            other => Inside::of(self.run, None).lookup(other),
        }
    }
}
