//! Placeholders that are known before a task starts: those in constants and in importers.

use engine::{Piece, Ref, Shape, Text};
use serde_json::Value;

/// Where the workspace of a run is in its Pods.
const WORKSPACE: &str = "/kfp-workspace";

/// What placeholders mean at a place.
pub(super) struct Macros<'a> {
    task: &'a str,
    inputs: Inputs,
}

/// What `{{$.inputs.parameters['x']}}` means.
enum Inputs {
    /// Another parameter of the same call.
    Arguments,
    /// An input of the template.
    Own,
    /// Nothing yet.
    Later,
}

impl<'a> Macros<'a> {
    /// In a constant that a task passes.
    pub(super) fn of_task(task: &'a str) -> Self {
        Self {
            task,
            inputs: Inputs::Arguments,
        }
    }

    /// In an executor that needs no container.
    pub(super) fn of_executor(task: &'a str) -> Self {
        Self {
            task,
            inputs: Inputs::Own,
        }
    }

    /// In a container.
    pub(super) fn of_container(task: &'a str) -> Self {
        Self {
            task,
            inputs: Inputs::Later,
        }
    }

    fn meaning(&self, tag: &str) -> Option<Piece> {
        let reference = |to: Ref| {
            Some(Piece::Ref {
                to,
                source: format!("{{{{$.{tag}}}}}"),
            })
        };
        let fact = |name: &str| reference(Ref::Run(name.to_owned()));
        match tag {
            "pipeline_job_name" => fact("display_name"),
            "pipeline_job_resource_name" => fact("name"),
            "pipeline_job_uuid" => fact("uid"),
            "pipeline_job_create_time_utc" => fact("created_at"),
            "pipeline_job_schedule_time_utc" => fact("scheduled_at"),
            "pipeline_task_name" => Some(Piece::Literal(self.task.to_owned())),
            "pipeline_task_uuid" => reference(Ref::TaskUid),
            "workspace_path" => Some(Piece::Literal(WORKSPACE.to_owned())),
            _ => {
                let name = parameter(tag)?.to_owned();
                reference(match self.inputs {
                    Inputs::Arguments => Ref::Argument(name),
                    Inputs::Own => Ref::Input(name),
                    Inputs::Later => return None,
                })
            }
        }
    }
}

/// The name in `inputs.parameters['name']`.
fn parameter(tag: &str) -> Option<&str> {
    let rest = tag.strip_prefix("inputs.parameters[")?.strip_suffix(']')?;
    let quoted = |quote| rest.strip_prefix(quote)?.strip_suffix(quote);
    quoted('\'').or_else(|| quoted('"'))
}

/// A text with its placeholders; those that mean nothing here stay as they are.
pub(super) fn parse(source: &str, macros: &Macros<'_>) -> Text {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut literal = String::new();
    let mut rest = source;
    while let Some(start) = rest.find("{{$.") {
        let Some(length) = rest[start..].find("}}") else {
            break;
        };
        let tag = &rest[start + 4..start + length];
        literal.push_str(&rest[..start]);
        match macros.meaning(tag) {
            Some(Piece::Literal(text)) => literal.push_str(&text),
            Some(reference) => {
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(core::mem::take(&mut literal)));
                }
                pieces.push(reference);
            }
            None => literal.push_str(&rest[start..start + length + 2]),
        }
        rest = &rest[start + length + 2..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Text(pieces)
}

/// A JSON tree with placeholders in its texts and keys.
pub(super) fn constant(value: &Value, macros: &Macros<'_>) -> Shape {
    match value {
        Value::String(source) if source.contains("{{$.") => {
            let text = parse(source, macros);
            match text.0.as_slice() {
                [Piece::Literal(text)] => Shape::Plain(Value::String(text.clone())),
                _ => Shape::Text(text),
            }
        }
        Value::Array(items) if has_placeholder(value) => {
            Shape::List(items.iter().map(|item| constant(item, macros)).collect())
        }
        Value::Object(entries) if has_placeholder(value) => Shape::Entries(
            entries
                .iter()
                .map(|(key, value)| (parse(key, macros), constant(value, macros)))
                .collect(),
        ),
        plain => Shape::Plain(plain.clone()),
    }
}

fn has_placeholder(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("{{$."),
        Value::Array(items) => items.iter().any(has_placeholder),
        Value::Object(entries) => entries
            .iter()
            .any(|(key, value)| key.contains("{{$.") || has_placeholder(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
