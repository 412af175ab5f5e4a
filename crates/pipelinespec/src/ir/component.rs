//! Components: what they take and what they give.

use std::collections::BTreeMap;

use engine::{InputArtifact, InputParameter, ParameterType, Shape};
use serde_json::Value;

use crate::field::{Field, Invalid};

type Result<T> = core::result::Result<T, Invalid>;

/// A component that was understood as far as its interface goes.
pub(crate) struct Component<'a> {
    pub(super) field: Field<'a>,
    pub(super) parameters: BTreeMap<&'a str, Input>,
    /// Its input artifacts, and whether each may be missing.
    pub(super) artifacts: BTreeMap<&'a str, bool>,
    pub(super) output_parameters: BTreeMap<&'a str, Field<'a>>,
    pub(super) output_artifacts: BTreeMap<&'a str, Field<'a>>,
    /// The executor it runs, unless it is a DAG.
    pub(super) executor: Option<Field<'a>>,
}

/// An input parameter.
pub(crate) struct Input {
    pub(super) kind: ParameterType,
    pub(super) optional: bool,
    pub(super) default: Option<Value>,
    pub(super) literals: Vec<Value>,
    pub(super) description: Option<String>,
}

impl<'a> Component<'a> {
    pub(crate) fn read(field: &Field<'a>) -> Result<Self> {
        field.only(
            &[
                "dag",
                "executorLabel",
                "inputDefinitions",
                "outputDefinitions",
                "singlePlatformSpecs",
                "taskConfigPassthroughs",
            ],
            &[],
        )?;
        let executor = field.get("executorLabel")?;
        match (&executor, field.get("dag")?) {
            (Some(_), None) | (None, Some(_)) => {}
            _ => return field.invalid("a component needs one of dag, executorLabel"),
        }
        let mut parameters = BTreeMap::new();
        let mut artifacts = BTreeMap::new();
        if let Some(inputs) = field.get("inputDefinitions")? {
            inputs.only(&["artifacts", "parameters"], &[])?;
            for (name, field) in entries(&inputs, "parameters")? {
                parameters.insert(name, input(&field)?);
            }
            for (name, field) in entries(&inputs, "artifacts")? {
                artifacts.insert(name, flag(&field, "isOptional")?);
            }
        }
        let mut component = Self {
            field: field.clone(),
            parameters,
            artifacts,
            output_parameters: BTreeMap::new(),
            output_artifacts: BTreeMap::new(),
            executor,
        };
        if let Some(outputs) = field.get("outputDefinitions")? {
            outputs.only(&["artifacts", "parameters"], &[])?;
            for (name, field) in entries(&outputs, "parameters")? {
                kind(&field)?;
                component.output_parameters.insert(name, field);
            }
            component.output_artifacts = entries(&outputs, "artifacts")?.into_iter().collect();
        }
        Ok(component)
    }

    /// Its input parameters, as those of a template.
    pub(super) fn input_parameters(&self) -> Vec<InputParameter> {
        let parameter = |(name, input): (&&str, &Input)| InputParameter {
            name: (*name).to_owned(),
            default: input.default.clone().map(Shape::Plain),
            kind: Some(input.kind),
            optional: input.optional,
        };
        self.parameters.iter().map(parameter).collect()
    }

    /// Its input artifacts, as those of a template.
    pub(super) fn input_artifacts(&self) -> Vec<InputArtifact> {
        let artifact = |(name, optional): (&&str, &bool)| InputArtifact {
            name: (*name).to_owned(),
            path: None,
            optional: *optional,
            default: None,
        };
        self.artifacts.iter().map(artifact).collect()
    }
}

/// The fields of the object below with this name; absent is empty.
pub(super) fn entries<'a>(field: &Field<'a>, name: &str) -> Result<Vec<(&'a str, Field<'a>)>> {
    field
        .get(name)?
        .map_or(Ok(Vec::new()), |field| field.entries())
}

pub(super) fn flag(field: &Field<'_>, name: &str) -> Result<bool> {
    field.get(name)?.map_or(Ok(false), |field| field.bool())
}

fn input(field: &Field<'_>) -> Result<Input> {
    field.only(
        &[
            "defaultValue",
            "description",
            "isOptional",
            "literals",
            "parameterType",
            "type",
        ],
        &[],
    )?;
    let kind = kind(field)?;
    let accepted = |value: &Field<'_>| match kind.accept(value.value.clone()) {
        Ok(value) => Ok(value),
        Err(mismatch) => value.invalid(mismatch.to_string()),
    };
    let default = field
        .get("defaultValue")?
        .map(|f| accepted(&f))
        .transpose()?;
    let literals = field.list("literals")?;
    let literals = literals.iter().map(accepted).collect::<Result<_>>()?;
    let description = field.get("description")?;
    Ok(Input {
        kind,
        optional: flag(field, "isOptional")?,
        default,
        literals,
        description: description
            .map(|d| d.str().map(str::to_owned))
            .transpose()?,
    })
}

fn kind(field: &Field<'_>) -> Result<ParameterType> {
    let Some(kind) = field.get("parameterType")? else {
        // As the first packages of this generation had it.
        return match field.get("type")? {
            None => field.invalid("parameterType is missing"),
            Some(kind) => match kind.str()? {
                "INT" => Ok(ParameterType::Integer),
                "DOUBLE" => Ok(ParameterType::Double),
                "STRING" => Ok(ParameterType::String),
                other => kind.invalid(format!(
                    "unknown type {other:?}; known are INT, DOUBLE, STRING"
                )),
            },
        };
    };
    let name = kind.str()?;
    if let Some(kind) = ParameterType::parse(name) {
        return Ok(kind);
    }
    let known = ParameterType::ALL.map(ParameterType::as_str);
    kind.invalid(format!(
        "unknown parameterType {name:?}; known are {}",
        known.join(", ")
    ))
}
