//! The DAG of a component: its tasks, and where its outputs come from.

use std::collections::{BTreeMap, BTreeSet};

use engine::{
    Argument, ArtifactArgument, Body, Condition, Dag, Each, OutputArtifact, OutputParameter,
    OutputSource, Ref, Shape, TaskSpec, Template, Text, Trigger,
};
use serde_json::Value;

use super::component::{Component, entries};
use super::inputs::{self, Around};
use super::pipeline::Pipeline;
use super::{cel, executor, kubernetes};
use crate::field::{Field, Invalid};

type Result<T> = core::result::Result<T, Invalid>;

/// Compiles the DAG of a component, and a template for each task that runs an executor. Answers the
/// components with DAGs that it calls.
pub(super) fn compile<'a>(
    known: &Pipeline<'a>,
    name: &str,
    component: &Component<'a>,
    templates: &mut BTreeMap<String, Template>,
) -> Result<BTreeSet<&'a str>> {
    let field = component.field.need("dag")?;
    field.only(&["outputs", "tasks"], &[])?;
    let tasks = entries(&field, "tasks")?;
    let mut around = Around {
        component,
        tasks: BTreeMap::new(),
    };
    let mut calls = BTreeSet::new();
    for (task, field) in &tasks {
        let (reference, called) = called(known, field)?;
        around.tasks.insert(task, called);
        if called.executor.is_none() {
            calls.insert(reference);
        }
    }
    let mut specs = Vec::new();
    for (task, field) in &tasks {
        specs.push(self::task(known, name, task, field, &around, templates)?);
    }
    refuse_circles(&specs, &tasks)?;
    let mut artifacts = component.input_artifacts();
    if name == "root" {
        // Nobody can give a run artifacts: what needs them says so when it is reached.
        for artifact in &mut artifacts {
            artifact.optional = true;
        }
    }
    let outputs = field.get("outputs")?;
    let template = Template {
        name: name.to_owned(),
        parameters: component.input_parameters(),
        artifacts,
        output_parameters: output_parameters(outputs.as_ref(), &around)?,
        output_artifacts: output_artifacts(outputs.as_ref(), &around)?,
        body: Body::Dag(Dag {
            tasks: specs,
            fail_fast: false,
        }),
        retry: None,
        timeout_seconds: None,
        parallelism: None,
    };
    templates.insert(name.to_owned(), template);
    Ok(calls)
}

/// The component that a task calls.
fn called<'a, 'p>(
    known: &'p Pipeline<'a>,
    field: &Field<'a>,
) -> Result<(&'a str, &'p Component<'a>)> {
    let reference = field.need("componentRef")?;
    reference.only(&["name"], &[])?;
    let reference = reference.need("name")?;
    let name = reference.str()?;
    match known.components.get(name) {
        Some(component) => Ok((name, component)),
        None => reference.invalid(format!("there is no component {name:?}")),
    }
}

fn task<'a>(
    known: &Pipeline<'a>,
    dag: &str,
    name: &'a str,
    field: &Field<'a>,
    around: &Around<'a, '_>,
    templates: &mut BTreeMap<String, Template>,
) -> Result<TaskSpec> {
    field.only(
        &[
            "artifactIterator",
            "cachingOptions",
            "componentRef",
            "dependentTasks",
            "inputs",
            "iteratorPolicy",
            "parameterIterator",
            "retryPolicy",
            "taskInfo",
            "triggerPolicy",
        ],
        &[],
    )?;
    let (reference, component) = called(known, field)?;
    let shown = match field.get("taskInfo")? {
        Some(info) => match info.get("name")? {
            Some(shown) => shown.str()?,
            None => name,
        },
        None => name,
    };
    let mut needs = Vec::new();
    for dependency in field.list("dependentTasks")? {
        let task = dependency.str()?;
        match around.tasks.get_key_value(task) {
            Some((task, _)) => needs.push(*task),
            None => return dependency.invalid(format!("there is no task {task:?} in this DAG")),
        }
    }
    let mut call = Call {
        arguments: Vec::new(),
        artifacts: Vec::new(),
        each: None,
    };
    call.read_inputs(field, component, around, name, &mut needs)?;
    call.read_iterators(field, component)?;
    let (trigger, condition) = trigger(field, component, &call)?;
    let limit = match field.get("iteratorPolicy")? {
        Some(policy) => {
            policy.only(&["parallelismLimit"], &[])?;
            let limit = policy.get("parallelismLimit")?;
            limit.map(|limit| limit.small_number()).transpose()?
        }
        None => None,
    };
    let mut settings = None;
    let template = match &component.executor {
        None => reference.to_owned(),
        Some(label) => {
            let label = label.str()?;
            settings = match known.platform.get(label) {
                Some(config) => Some(kubernetes::settings(
                    config, component, around, name, &mut needs,
                )?),
                None => None,
            };
            let task = executor::Task {
                name,
                shown,
                reference,
                component,
                field,
                call: &call,
                config: known.platform.get(label),
            };
            let mut template = executor::compile(known, &task)?;
            template.name = free_name(known, templates, dag, name);
            let name = template.name.clone();
            templates.insert(name.clone(), template);
            name
        }
    };
    check_given(field, component, &call, name)?;
    let mut dependencies: Vec<String> = Vec::new();
    for need in needs {
        if need == name {
            return field.invalid(format!("task {name:?} waits for itself"));
        }
        if !dependencies.iter().any(|d| d == need) {
            dependencies.push(need.to_owned());
        }
    }
    Ok(TaskSpec {
        name: name.to_owned(),
        template,
        dependencies,
        trigger,
        condition,
        each: call.each,
        arguments: call.arguments,
        artifacts: call.artifacts,
        parallelism: limit,
        settings,
        display_name: (shown != name && !shown.is_empty()).then(|| shown.to_owned()),
    })
}

/// A name for the template of a task, from those of its DAG and its own.
fn free_name(
    known: &Pipeline<'_>,
    templates: &BTreeMap<String, Template>,
    dag: &str,
    task: &str,
) -> String {
    let base = match dag.strip_prefix("comp-").unwrap_or(dag) {
        "root" => task.to_owned(),
        dag => format!("{dag}-{task}"),
    };
    let taken = |name: &str| {
        name == "root" || templates.contains_key(name) || known.components.contains_key(name)
    };
    if !taken(&base) {
        return base;
    }
    let mut numbered = (2..).map(|n| format!("{base}-{n}"));
    numbered
        .find(|name| !taken(name))
        .expect("invariant: there are more numbers than templates")
}

/// What a task passes.
pub(super) struct Call {
    pub(super) arguments: Vec<Argument>,
    pub(super) artifacts: Vec<ArtifactArgument>,
    each: Option<Each>,
}

impl Call {
    fn read_inputs<'a>(
        &mut self,
        field: &Field<'a>,
        component: &Component<'a>,
        around: &Around<'a, '_>,
        task: &str,
        needs: &mut Vec<&'a str>,
    ) -> Result<()> {
        let Some(given) = field.get("inputs")? else {
            return Ok(());
        };
        given.only(&["artifacts", "parameters"], &[])?;
        for (name, spec) in entries(&given, "parameters")? {
            let value = inputs::parameter(&spec, around, task, needs)?;
            if let (Some(input), Shape::Plain(constant)) = (component.parameters.get(name), &value)
                && !(constant.is_null() && (input.optional || input.default.is_some()))
                && let Err(mismatch) = input.kind.coerce(constant.clone())
            {
                return spec.invalid(format!("input parameter {name:?}: {mismatch}"));
            }
            self.arguments.push(Argument {
                name: name.to_owned(),
                value,
            });
        }
        for (name, spec) in entries(&given, "artifacts")? {
            if !component.artifacts.contains_key(name) {
                let known: Vec<&str> = component.artifacts.keys().copied().collect();
                return spec.invalid(format!(
                    "the component has no input artifact {name:?}; it has: {}",
                    inputs::list(&known)
                ));
            }
            let value = inputs::artifact(&spec, around, needs)?;
            self.artifacts.push(ArtifactArgument {
                name: name.to_owned(),
                value,
            });
        }
        Ok(())
    }

    fn read_iterators(&mut self, field: &Field<'_>, component: &Component<'_>) -> Result<()> {
        let item = || Shape::Text(Text::reference(Ref::Item(Vec::new()), ""));
        match (
            field.get("parameterIterator")?,
            field.get("artifactIterator")?,
        ) {
            (None, None) => {}
            (Some(_), Some(both)) => {
                return both.invalid("a task has parameterIterator or artifactIterator, not both");
            }
            (Some(iterator), None) => {
                iterator.only(&["itemInput", "items"], &[])?;
                let name = iterator.need("itemInput")?;
                if !component.parameters.contains_key(name.str()?) {
                    return name.invalid("the component has no such input parameter");
                }
                self.each = Some(self.items(&iterator.need("items")?, component)?);
                self.arguments
                    .retain(|a| Some(a.name.as_str()) != name.value.as_str());
                self.arguments.push(Argument {
                    name: name.str()?.to_owned(),
                    value: item(),
                });
            }
            (None, Some(iterator)) => {
                iterator.only(&["itemInput", "items"], &[])?;
                let name = iterator.need("itemInput")?;
                if !component.artifacts.contains_key(name.str()?) {
                    return name.invalid("the component has no such input artifact");
                }
                let items = iterator.need("items")?;
                items.only(&["inputArtifact"], &[])?;
                let items = items.need("inputArtifact")?;
                let from = self
                    .artifacts
                    .iter()
                    .find(|a| Some(a.name.as_str()) == items.value.as_str());
                let Some(from) = from else {
                    return items.invalid("the task has no such input artifact to iterate over");
                };
                self.each = Some(Each::From(from.value.clone()));
                self.artifacts.push(ArtifactArgument {
                    name: name.str()?.to_owned(),
                    value: Shape::List(vec![item()]),
                });
            }
        }
        Ok(())
    }

    fn items(&self, items: &Field<'_>, component: &Component<'_>) -> Result<Each> {
        items.only(&["inputParameter", "raw"], &[])?;
        if let Some(raw) = items.get("raw")? {
            let list: Value = match serde_json::from_str(raw.str()?) {
                Ok(list) => list,
                Err(error) => return raw.invalid(format!("the items are not JSON: {error}")),
            };
            return match list {
                Value::Array(list) => Ok(Each::Items(list.into_iter().map(Shape::Plain).collect())),
                other => raw.invalid(format!("the items must be a JSON list, got {other}")),
            };
        }
        let input = items.need("inputParameter")?;
        let name = input.str()?;
        if let Some(argument) = self.arguments.iter().find(|a| a.name == name) {
            return Ok(Each::From(argument.value.clone()));
        }
        match component
            .parameters
            .get(name)
            .and_then(|i| i.default.clone())
        {
            Some(default) => Ok(Each::From(Shape::Plain(default))),
            None => input.invalid("the task has no such input parameter to iterate over"),
        }
    }
}

fn trigger(
    field: &Field<'_>,
    component: &Component<'_>,
    call: &Call,
) -> Result<(Trigger, Option<Condition>)> {
    let Some(policy) = field.get("triggerPolicy")? else {
        return Ok((Trigger::Succeeded, None));
    };
    policy.only(&["condition", "strategy"], &[])?;
    let trigger = match policy.get("strategy")? {
        None => Trigger::Succeeded,
        Some(strategy) => match strategy.str()? {
            "" | "TRIGGER_STRATEGY_UNSPECIFIED" | "ALL_UPSTREAM_TASKS_SUCCEEDED" => {
                Trigger::Succeeded
            }
            "ALL_UPSTREAM_TASKS_COMPLETED" => Trigger::Completed,
            other => {
                return strategy.invalid(format!(
                    "unknown strategy {other:?}; known are ALL_UPSTREAM_TASKS_SUCCEEDED, \
                     ALL_UPSTREAM_TASKS_COMPLETED"
                ));
            }
        },
    };
    let Some(condition) = policy.get("condition")? else {
        return Ok((trigger, None));
    };
    let source = condition.str()?;
    if source.is_empty() {
        return Ok((trigger, None));
    }
    let expression = match cel::condition(source) {
        Ok(expression) => expression,
        Err(reason) => return condition.invalid(reason),
    };
    let condition_of = Condition::Holds(expression);
    for name in condition_of.arguments() {
        let known = component.parameters.contains_key(name)
            || call.arguments.iter().any(|a| a.name == name);
        if !known {
            return condition.invalid(format!("the task has no input parameter {name:?}"));
        }
    }
    Ok((trigger, Some(condition_of)))
}

/// Everything a component needs must be passed.
fn check_given(
    field: &Field<'_>,
    component: &Component<'_>,
    call: &Call,
    task: &str,
) -> Result<()> {
    for (name, input) in &component.parameters {
        let given = call.arguments.iter().any(|a| a.name == *name);
        let made = input.kind == engine::ParameterType::Config;
        if !given && !made && !input.optional && input.default.is_none() {
            return field.invalid(format!(
                "task {task:?} does not pass the input parameter {name:?}, which has no default"
            ));
        }
    }
    for (name, optional) in &component.artifacts {
        if !optional && !call.artifacts.iter().any(|a| a.name == *name) {
            return field.invalid(format!(
                "task {task:?} does not pass the input artifact {name:?}, which is not optional"
            ));
        }
    }
    Ok(())
}

fn output_parameters(
    outputs: Option<&Field<'_>>,
    around: &Around<'_, '_>,
) -> Result<Vec<OutputParameter>> {
    let mut parameters = Vec::new();
    let Some(outputs) = outputs else {
        return Ok(parameters);
    };
    outputs.only(&["artifacts", "parameters"], &[])?;
    for (name, field) in entries(outputs, "parameters")? {
        if !around.component.output_parameters.contains_key(name) {
            return field.invalid(format!(
                "the component does not declare the output parameter {name:?}"
            ));
        }
        field.only(&["valueFromOneof", "valueFromParameter"], &[])?;
        let selectors = match (
            field.get("valueFromParameter")?,
            field.get("valueFromOneof")?,
        ) {
            (Some(one), None) => vec![one],
            (None, Some(several)) => {
                several.only(&["parameterSelectors"], &[])?;
                several.list("parameterSelectors")?
            }
            _ => return field.invalid("expected one of valueFromParameter, valueFromOneof"),
        };
        let mut refs = Vec::new();
        for selector in &selectors {
            selector.only(&["outputParameterKey", "producerSubtask"], &[])?;
            let (task, component) = inputs::producer(selector, "producerSubtask", around)?;
            let key = selector.need("outputParameterKey")?;
            if !component.output_parameters.contains_key(key.str()?) {
                return key.invalid(format!("task {task:?} has no such output parameter"));
            }
            refs.push(Ref::Output {
                task: task.to_owned(),
                name: key.str()?.to_owned(),
            });
        }
        parameters.push(OutputParameter {
            name: name.to_owned(),
            source: OutputSource::Text(first_of(&field, refs)?),
            default: None,
        });
    }
    Ok(parameters)
}

fn output_artifacts(
    outputs: Option<&Field<'_>>,
    around: &Around<'_, '_>,
) -> Result<Vec<OutputArtifact>> {
    let mut artifacts = Vec::new();
    let Some(outputs) = outputs else {
        return Ok(artifacts);
    };
    for (name, field) in entries(outputs, "artifacts")? {
        let Some(definition) = around.component.output_artifacts.get(name) else {
            return field.invalid(format!(
                "the component does not declare the output artifact {name:?}"
            ));
        };
        field.only(&["artifactSelectors"], &[])?;
        let mut refs = Vec::new();
        for selector in field.list("artifactSelectors")? {
            selector.only(&["outputArtifactKey", "producerSubtask"], &[])?;
            let (task, component) = inputs::producer(&selector, "producerSubtask", around)?;
            let key = selector.need("outputArtifactKey")?;
            if !component.output_artifacts.contains_key(key.str()?) {
                return key.invalid(format!("task {task:?} has no such output artifact"));
            }
            refs.push(Ref::OutputArtifact {
                task: task.to_owned(),
                name: key.str()?.to_owned(),
            });
        }
        artifacts.push(OutputArtifact {
            name: name.to_owned(),
            source: first_of(&field, refs)?,
            optional: true,
            settings: definition.value.clone(),
        });
    }
    Ok(artifacts)
}

fn first_of(field: &Field<'_>, mut refs: Vec<Ref>) -> Result<Text> {
    let to = match refs.len() {
        0 => return field.invalid("there is no selector"),
        1 => refs.remove(0),
        _ => Ref::FirstOf(refs),
    };
    let source = to.describe();
    Ok(Text::reference(to, &source))
}

/// Tasks that wait for each other, with the place of one of them.
fn refuse_circles(specs: &[TaskSpec], tasks: &[(&str, Field<'_>)]) -> Result<()> {
    let mut left: BTreeMap<&str, &TaskSpec> = specs.iter().map(|s| (s.name.as_str(), s)).collect();
    loop {
        let before = left.len();
        let waits = |spec: &TaskSpec| {
            let mut dependencies = spec.dependencies.iter();
            dependencies.any(|d| left.contains_key(d.as_str()))
        };
        let done: Vec<&str> = left
            .iter()
            .filter(|(_, spec)| !waits(spec))
            .map(|(name, _)| *name)
            .collect();
        left.retain(|name, _| !done.contains(name));
        if left.len() == before {
            break;
        }
    }
    let Some((_, field)) = tasks.iter().find(|(name, _)| left.contains_key(name)) else {
        return Ok(());
    };
    let names: Vec<&str> = left.keys().copied().collect();
    field.invalid(format!(
        "these tasks wait for each other: {}",
        names.join(", ")
    ))
}
