//! `{{…}}` in texts.
//!
//! A tag whose first word is none of Argo's stays as it is (kfp's own placeholders do); a tag that
//! begins like one of Argo's and is none is an error.

use std::collections::BTreeMap;

use engine::{Piece, Ref, Shape, Text};
use serde_json::Value;

use crate::field::{Field, Invalid};

type Result<T> = core::result::Result<T, Invalid>;

/// Facts about a run that a text may name after `workflow.`.
const FACTS: [&str; 8] = [
    "name",
    "namespace",
    "uid",
    "serviceAccountName",
    "status",
    "failures",
    "mainEntrypoint",
    "creationTimestamp",
];

/// The letters that may follow `workflow.creationTimestamp.`: strftime's.
pub const TIME_FORMATS: &str = "aAbBCdDeFgGhHIjklmMpPRsSTuUVwWyYzZ";

/// The others.
const TIME_NAMES: [&str; 1] = ["RFC3339"];

/// Paths of a template's artifacts and output parameters, which texts of the same template may name
/// as `{{inputs.artifacts.x.path}}` and the like.
pub(super) type Paths = BTreeMap<String, Text>;

/// Parses the text of a field.
pub(super) fn text(field: &Field<'_>, source: &str, paths: &Paths) -> Result<Text> {
    parse(source, paths).or_else(|reason| field.invalid(reason))
}

/// Parses a scalar field whose value is a string, whatever it names: v1 knows no other type.
pub(super) fn scalar(field: &Field<'_>, paths: &Paths) -> Result<Text> {
    reference(field, paths).map(as_string)
}

/// Parses a scalar field that may be nothing but a reference, and then is what that names.
pub(super) fn reference(field: &Field<'_>, paths: &Paths) -> Result<Text> {
    text(field, &field.scalar()?, paths)
}

/// A text of more than one piece resolves to a string.
fn as_string(mut text: Text) -> Text {
    if matches!(text.0.as_slice(), [Piece::Ref { .. }]) {
        text.0.push(Piece::Literal(String::new()));
    }
    text
}

/// Parses every text in a tree.
pub(super) fn shape(field: &Field<'_>, paths: &Paths) -> Result<Shape> {
    let shape = match field.value {
        Value::String(source) if source.contains("{{") => {
            let text = text(field, source, paths)?;
            if text.refs().next().is_some() {
                Shape::Text(as_string(text))
            } else {
                plain_text(&text)
            }
        }
        Value::Array(_) => {
            let items = field.items()?;
            let items: Vec<Shape> = items
                .iter()
                .map(|item| shape(item, paths))
                .collect::<Result<_>>()?;
            if items.iter().all(is_plain) {
                Shape::Plain(field.value.clone())
            } else {
                Shape::List(items)
            }
        }
        Value::Object(_) => {
            let entries = field.entries()?.into_iter();
            let entries: BTreeMap<String, Shape> = entries
                .map(|(key, value)| Ok((key.to_owned(), shape(&value, paths)?)))
                .collect::<Result<_>>()?;
            if entries.values().all(is_plain) {
                Shape::Plain(field.value.clone())
            } else {
                Shape::Map(entries)
            }
        }
        other => Shape::Plain(other.clone()),
    };
    Ok(shape)
}

fn plain_text(text: &Text) -> Shape {
    Shape::Plain(Value::String(text.source()))
}

fn is_plain(shape: &Shape) -> bool {
    matches!(shape, Shape::Plain(_))
}

pub(super) fn parse(source: &str, paths: &Paths) -> core::result::Result<Text, String> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut literal = String::new();
    let mut rest = source;
    while let Some(start) = rest.find("{{") {
        let Some(length) = rest[start..].find("}}") else {
            break;
        };
        let tag = &rest[start..start + length + 2];
        literal.push_str(&rest[..start]);
        rest = &rest[start + length + 2..];
        match tag_of(tag[2..tag.len() - 2].trim(), paths)? {
            Tag::Ref(to) => {
                flush(&mut literal, &mut pieces);
                pieces.push(Piece::Ref {
                    to,
                    source: tag.to_owned(),
                });
            }
            Tag::Text(text) => {
                flush(&mut literal, &mut pieces);
                pieces.extend(text.0);
            }
            Tag::Foreign => literal.push_str(tag),
        }
    }
    literal.push_str(rest);
    flush(&mut literal, &mut pieces);
    Ok(Text(pieces))
}

fn flush(literal: &mut String, pieces: &mut Vec<Piece>) {
    if !literal.is_empty() {
        pieces.push(Piece::Literal(core::mem::take(literal)));
    }
}

enum Tag {
    Ref(Ref),
    Text(Text),
    Foreign,
}

fn tag_of(tag: &str, paths: &Paths) -> core::result::Result<Tag, String> {
    if let Some(expression) = tag.strip_prefix('=') {
        return Err(format!(
            "expression tags are not supported: {{{{={expression}}}}}"
        ));
    }
    let unknown = |allowed: &str| Err(format!("unknown reference {{{{{tag}}}}}; {allowed}"));
    let owned = |text: &str| text.to_owned();
    let (first, rest) = tag.split_once('.').unwrap_or((tag, ""));
    let to = match first {
        "item" if rest.is_empty() => Ref::Item(Vec::new()),
        "item" => Ref::Item(rest.split('.').map(owned).collect()),
        "inputs" | "outputs" if paths.contains_key(tag) => {
            return Ok(Tag::Text(paths[tag].clone()));
        }
        "inputs" => match rest.split_once('.') {
            Some(("parameters", name)) if !name.is_empty() => Ref::Input(owned(name)),
            Some(("artifacts", name)) if !name.is_empty() => Ref::InputArtifact(owned(name)),
            _ => return unknown("allowed after inputs are parameters.NAME and artifacts.NAME"),
        },
        "outputs" => {
            return unknown(
                "allowed after outputs are parameters.NAME.path and artifacts.NAME.path of this template",
            );
        }
        // Steps are tasks in groups.
        "tasks" | "steps" => {
            let Some((task, of)) = rest.split_once('.') else {
                return unknown("expected tasks.TASK.outputs.parameters.NAME");
            };
            let task = owned(task);
            if let Some(name) = of.strip_prefix("outputs.parameters.") {
                Ref::Output {
                    task,
                    name: owned(name),
                }
            } else if let Some(name) = of.strip_prefix("outputs.artifacts.") {
                Ref::OutputArtifact {
                    task,
                    name: owned(name),
                }
            } else if of == "status" {
                Ref::TaskStatus(task)
            } else {
                return unknown(
                    "allowed after a task are outputs.parameters.NAME, outputs.artifacts.NAME and status",
                );
            }
        }
        "workflow" => {
            if let Some(name) = rest.strip_prefix("parameters.") {
                Ref::RunParameter(owned(name))
            } else if let Some(format) = rest.strip_prefix("creationTimestamp.") {
                let letter = format.len() == 1 && TIME_FORMATS.contains(format);
                if !letter && !TIME_NAMES.contains(&format) {
                    return unknown(&format!(
                        "allowed after creationTimestamp are RFC3339 and one of {TIME_FORMATS}"
                    ));
                }
                Ref::Run(owned(rest))
            } else if FACTS.contains(&rest)
                || rest.starts_with("labels.")
                || rest.starts_with("annotations.")
            {
                Ref::Run(owned(rest))
            } else {
                return unknown(&format!(
                    "allowed after workflow are parameters.NAME, labels.NAME, annotations.NAME, {}",
                    FACTS.join(", ")
                ));
            }
        }
        "pod" if rest == "name" => Ref::Late("pod.name".to_owned()),
        "pod" => return unknown("allowed is pod.name"),
        "retries" if rest.is_empty() => Ref::Late("retries".to_owned()),
        _ => return Ok(Tag::Foreign),
    };
    Ok(Tag::Ref(to))
}
