//! Where the outputs of a DAG come from.

use engine::{OutputArtifact, OutputParameter, OutputSource, Ref, Text};

use super::component::entries;
use super::inputs::{self, Around};
use crate::field::{Field, Invalid};

type Result<T> = core::result::Result<T, Invalid>;

/// Its output parameters.
pub(super) fn parameters(
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

/// Its output artifacts.
pub(super) fn artifacts(
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
