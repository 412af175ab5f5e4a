//! Where the inputs of a task come from.

use std::collections::BTreeMap;

use engine::{Expression, Ref, Shape};
use serde_json::Value;

use super::cel;
use super::component::Component;
use super::text::{self, Macros};
use crate::field::{Field, Invalid};

type Result<T> = core::result::Result<T, Invalid>;

/// The DAG a task belongs to: what its inputs can name.
pub(super) struct Around<'a, 'p> {
    /// The component of the DAG.
    pub(super) component: &'p Component<'a>,
    /// What the tasks of the DAG call.
    pub(super) tasks: BTreeMap<&'a str, &'p Component<'a>>,
}

/// An input parameter: its value, with the tasks it needs added to `needs`.
pub(super) fn parameter<'a>(
    spec: &Field<'a>,
    around: &Around<'a, '_>,
    task: &str,
    needs: &mut Vec<&'a str>,
) -> Result<Shape> {
    spec.only(
        &[
            "componentInputParameter",
            "parameterExpressionSelector",
            "runtimeValue",
            "taskFinalStatus",
            "taskOutputParameter",
        ],
        &[],
    )?;
    let shape = source(spec, around, task, needs)?;
    let Some(selector) = spec.get("parameterExpressionSelector")? else {
        return Ok(shape);
    };
    let text = selector.str()?;
    if text.is_empty() {
        return Ok(shape);
    }
    let of = match shape {
        Shape::Value(of) => *of,
        Shape::Plain(value) => Expression::Constant(value),
        _ => return selector.invalid("there is nothing to select from in this input"),
    };
    match cel::selector(text, &of) {
        Ok(expression) => Ok(Shape::Value(Box::new(expression))),
        Err(reason) => selector.invalid(reason),
    }
}

fn source<'a>(
    spec: &Field<'a>,
    around: &Around<'a, '_>,
    task: &str,
    needs: &mut Vec<&'a str>,
) -> Result<Shape> {
    if let Some(field) = spec.get("componentInputParameter")? {
        return component_input(&field, around);
    }
    if let Some(field) = spec.get("taskOutputParameter")? {
        return task_output(&field, around, needs);
    }
    if let Some(field) = spec.get("taskFinalStatus")? {
        field.only(&["producerTask"], &[])?;
        let (name, _) = producer(&field, "producerTask", around)?;
        needs.push(name);
        let reference = |to: Ref| Shape::reference(to);
        let plain = |text: &str| Shape::Plain(Value::String(text.to_owned()));
        return Ok(Shape::Map(BTreeMap::from([
            (
                "state".to_owned(),
                reference(Ref::TaskState(name.to_owned())),
            ),
            (
                "error".to_owned(),
                reference(Ref::TaskError(name.to_owned())),
            ),
            ("pipelineTaskName".to_owned(), plain(name)),
            (
                "pipelineJobResourceName".to_owned(),
                reference(Ref::Run("name".to_owned())),
            ),
        ])));
    }
    match spec.get("runtimeValue")? {
        Some(field) => runtime_value(&field, around, task),
        None if spec
            .value
            .as_object()
            .is_some_and(|map| map.get("runtimeValue").is_some_and(Value::is_null)) =>
        {
            Ok(Shape::Plain(Value::Null))
        }
        None => spec.invalid(
            "an input parameter needs one of componentInputParameter, taskOutputParameter, \
             runtimeValue, taskFinalStatus",
        ),
    }
}

/// An input of the component that the DAG is in.
pub(super) fn component_input(field: &Field<'_>, around: &Around<'_, '_>) -> Result<Shape> {
    let name = field.str()?;
    if around.component.parameters.contains_key(name) {
        return Ok(Shape::reference(Ref::Input(name.to_owned())));
    }
    let known: Vec<&str> = around.component.parameters.keys().copied().collect();
    field.invalid(format!(
        "the component of this DAG has no input parameter {name:?}; it has: {}",
        list(&known)
    ))
}

/// An output parameter of another task of the DAG.
pub(super) fn task_output<'a>(
    field: &Field<'a>,
    around: &Around<'a, '_>,
    needs: &mut Vec<&'a str>,
) -> Result<Shape> {
    field.only(&["outputParameterKey", "producerTask"], &[])?;
    let (task, component) = producer(field, "producerTask", around)?;
    let key = field.need("outputParameterKey")?;
    let name = key.str()?;
    if !component.output_parameters.contains_key(name) {
        let known: Vec<&str> = component.output_parameters.keys().copied().collect();
        return key.invalid(format!(
            "task {task:?} has no output parameter {name:?}; it has: {}",
            list(&known)
        ));
    }
    needs.push(task);
    Ok(Shape::reference(Ref::Output {
        task: task.to_owned(),
        name: name.to_owned(),
    }))
}

fn runtime_value(field: &Field<'_>, around: &Around<'_, '_>, task: &str) -> Result<Shape> {
    field.only(&["constant", "constantValue", "runtimeParameter"], &[])?;
    if let Some(parameter) = field.get("runtimeParameter")? {
        return component_input(&parameter, around);
    }
    if let Some(old) = field.get("constantValue")? {
        let entries = old.entries()?;
        return match entries.as_slice() {
            [("intValue" | "doubleValue" | "stringValue", value)] => {
                Ok(Shape::Plain(value.value.clone()))
            }
            _ => old.invalid("expected one of intValue, doubleValue, stringValue"),
        };
    }
    // null is a value here, too.
    let value = field.value.get("constant").unwrap_or(&Value::Null);
    Ok(text::constant(value, &Macros::of_task(task)))
}

/// An input artifact, likewise; always a list of artifacts.
pub(super) fn artifact<'a>(
    spec: &Field<'a>,
    around: &Around<'a, '_>,
    needs: &mut Vec<&'a str>,
) -> Result<Shape> {
    spec.only(&["componentInputArtifact", "taskOutputArtifact"], &[])?;
    if let Some(field) = spec.get("componentInputArtifact")? {
        let name = field.str()?;
        if around.component.artifacts.contains_key(name) {
            return Ok(Shape::reference(Ref::InputArtifact(name.to_owned())));
        }
        let known: Vec<&str> = around.component.artifacts.keys().copied().collect();
        return field.invalid(format!(
            "the component of this DAG has no input artifact {name:?}; it has: {}",
            list(&known)
        ));
    }
    let Some(field) = spec.get("taskOutputArtifact")? else {
        return spec
            .invalid("an input artifact needs one of componentInputArtifact, taskOutputArtifact");
    };
    field.only(&["outputArtifactKey", "producerTask"], &[])?;
    let (task, component) = producer(&field, "producerTask", around)?;
    let key = field.need("outputArtifactKey")?;
    let name = key.str()?;
    if !component.output_artifacts.contains_key(name) {
        let known: Vec<&str> = component.output_artifacts.keys().copied().collect();
        return key.invalid(format!(
            "task {task:?} has no output artifact {name:?}; it has: {}",
            list(&known)
        ));
    }
    needs.push(task);
    Ok(Shape::reference(Ref::OutputArtifact {
        task: task.to_owned(),
        name: name.to_owned(),
    }))
}

/// The task that a field names, and what it calls.
pub(super) fn producer<'a, 'p>(
    field: &Field<'a>,
    key: &str,
    around: &Around<'a, 'p>,
) -> Result<(&'a str, &'p Component<'a>)> {
    let producer = field.need(key)?;
    let name = producer.str()?;
    if let Some(component) = around.tasks.get(name) {
        return Ok((name, component));
    }
    let known: Vec<&str> = around.tasks.keys().copied().collect();
    producer.invalid(format!(
        "there is no task {name:?} in this DAG; its tasks are: {}",
        list(&known)
    ))
}

pub(super) fn list(names: &[&str]) -> String {
    if names.is_empty() {
        "(none)".to_owned()
    } else {
        names.join(", ")
    }
}
