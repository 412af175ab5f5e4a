//! The DAG of a component: its tasks and what they wait for.

use std::collections::{BTreeMap, BTreeSet};

use engine::{Body, Condition, Dag, TaskSpec, Template, Trigger};

use super::call::Call;
use super::component::{Component, entries};
use super::inputs::Around;
use super::pipeline::Pipeline;
use super::{cel, executor, kubernetes, outputs};
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
        output_parameters: outputs::parameters(outputs.as_ref(), &around)?,
        output_artifacts: outputs::artifacts(outputs.as_ref(), &around)?,
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
    call.read_inputs(field, component, around, shown, &mut needs)?;
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
                    config, component, around, shown, &mut needs,
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
