//! The placeholders of a v2 container, filled in once its inputs and outputs are known.
//!
//! What can stand in a string: `{{$}}`, `{{$.inputs.parameters['x']}}`,
//! `{{$.inputs.artifacts['x']}}` with `.uri`, `.path` or `.metadata['k']`, and the same for outputs
//! with `{{$.outputs.parameters['x'].output_file}}`. Elements of `command` and `args` may also be
//! `{"Concat": […]}` and `{"IfPresent": {"InputName": …, "Then": …, "Else": …}}`, as objects or as
//! the JSON text of one. Whatever else looks like a placeholder is left as it is.

use serde_json::{Map, Value};

/// Why a placeholder cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It names something that the task does not have.
    #[error("placeholder {placeholder}: {reason}")]
    Unknown {
        /// The placeholder as it was written.
        placeholder: String,
        /// What is missing.
        reason: String,
    },
    /// An element of a command that is no placeholder.
    #[error("{0}")]
    Element(String),
}

type Result<T> = core::result::Result<T, Error>;

/// How deep placeholders may contain each other.
const MAX_DEPTH: u32 = 32;

/// The container with every placeholder filled in from the task's `ExecutorInput`.
///
/// An element of `command` or `args` may become none or several. Works on any JSON tree, keys
/// included, so it serves the metadata of importers as well.
pub fn resolve(container: &Value, executor_input: &Value) -> Result<Value> {
    let given = Given {
        input: executor_input,
    };
    let Value::Object(members) = container else {
        return given.tree(container);
    };
    let mut resolved = Map::new();
    for (name, value) in members {
        let value = match (name.as_str(), value) {
            ("command" | "args", Value::Array(elements)) => given.elements(elements)?,
            _ => given.tree(value)?,
        };
        resolved.insert(given.text(name)?, value);
    }
    Ok(Value::Object(resolved))
}

/// A value as it appears in a command: numbers without exponent and integers without a fraction,
/// lists and objects as compact JSON, nothing for null.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match (number.is_f64(), number.as_f64()) {
            // Display of a float has no exponent, and none of a whole one has a fraction.
            (true, Some(float)) => float.to_string(),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

struct Given<'a> {
    input: &'a Value,
}

impl Given<'_> {
    fn tree(&self, value: &Value) -> Result<Value> {
        Ok(match value {
            Value::String(text) => Value::String(self.text(text)?),
            Value::Array(items) => {
                let items: Result<Vec<_>> = items.iter().map(|item| self.tree(item)).collect();
                Value::Array(items?)
            }
            Value::Object(entries) => {
                let mut object = Map::new();
                for (key, value) in entries {
                    object.insert(self.text(key)?, self.tree(value)?);
                }
                Value::Object(object)
            }
            plain => plain.clone(),
        })
    }

    fn elements(&self, elements: &[Value]) -> Result<Value> {
        let mut resolved = Vec::new();
        for element in elements {
            self.element(element, 0, &mut resolved)?;
        }
        Ok(resolved.into_iter().map(Value::String).collect())
    }

    /// Adds what an element becomes: none, one or several arguments.
    fn element(&self, element: &Value, depth: u32, into: &mut Vec<String>) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::Element(format!(
                "placeholders are nested more than {MAX_DEPTH} deep"
            )));
        }
        match element {
            Value::String(text) => {
                if let Some(placeholder) = structured(text) {
                    return self.element(&placeholder, depth, into);
                }
                into.push(self.text(text)?);
                Ok(())
            }
            Value::Array(elements) => {
                for element in elements {
                    self.element(element, depth + 1, into)?;
                }
                Ok(())
            }
            Value::Object(members) => self.placeholder(members, depth, into),
            Value::Null => Ok(()),
            Value::Bool(_) | Value::Number(_) => {
                into.push(shown(element));
                Ok(())
            }
        }
    }

    fn placeholder(
        &self,
        members: &Map<String, Value>,
        depth: u32,
        into: &mut Vec<String>,
    ) -> Result<()> {
        if let Some(parts) = members.get("Concat") {
            let Value::Array(parts) = parts else {
                return Err(Error::Element(format!(
                    "Concat expects a list, got {parts}"
                )));
            };
            let mut pieces = Vec::new();
            for part in parts {
                self.element(part, depth + 1, &mut pieces)?;
            }
            into.push(pieces.concat());
            return Ok(());
        }
        let Some(about) = members.get("IfPresent") else {
            let names: Vec<&str> = members.keys().map(String::as_str).collect();
            return Err(Error::Element(format!(
                "unknown placeholder {}; known are Concat, IfPresent",
                names.join(", ")
            )));
        };
        let Some(name) = about.get("InputName").and_then(Value::as_str) else {
            return Err(Error::Element("IfPresent needs an InputName".to_owned()));
        };
        let branch = if self.present(name) { "Then" } else { "Else" };
        match about.get(branch) {
            Some(element) => self.element(element, depth + 1, into),
            None => Ok(()),
        }
    }

    /// Whether an input was given; null counts as not given.
    fn present(&self, name: &str) -> bool {
        let parameter = self.parameter("inputs", name);
        parameter.is_some_and(|value| !value.is_null()) || self.artifact("inputs", name).is_some()
    }

    fn parameter(&self, side: &str, name: &str) -> Option<&Value> {
        let key = match side {
            "inputs" => "parameterValues",
            _ => "parameters",
        };
        self.input.get(side)?.get(key)?.get(name)
    }

    /// The first artifact of a name.
    fn artifact(&self, side: &str, name: &str) -> Option<&Value> {
        self.input
            .get(side)?
            .get("artifacts")?
            .get(name)?
            .get("artifacts")?
            .get(0)
    }

    /// A text with its placeholders filled in.
    fn text(&self, source: &str) -> Result<String> {
        let mut text = String::new();
        let mut rest = source;
        while let Some(start) = rest.find("{{$") {
            let Some(length) = end_of(&rest[start..]) else {
                break;
            };
            let tag = &rest[start..start + length];
            text.push_str(&rest[..start]);
            match self.tag(tag)? {
                Some(value) => text.push_str(&value),
                None => text.push_str(tag),
            }
            rest = &rest[start + length..];
        }
        text.push_str(rest);
        Ok(text)
    }

    fn tag(&self, tag: &str) -> Result<Option<String>> {
        let inner = &tag[3..tag.len() - 2];
        if inner.is_empty() {
            return Ok(Some(self.input.to_string()));
        }
        if inner.starts_with(".json_escape") {
            return Ok(None);
        }
        for (side, sort) in [
            ("inputs", "parameters"),
            ("inputs", "artifacts"),
            ("outputs", "parameters"),
            ("outputs", "artifacts"),
        ] {
            let Some(rest) = inner.strip_prefix(&format!(".{side}.{sort}")) else {
                continue;
            };
            let Some((name, rest)) = key(rest) else {
                return Ok(None);
            };
            return if sort == "parameters" {
                self.parameter_tag(tag, side, name, rest)
            } else {
                self.artifact_tag(tag, side, name, rest)
            };
        }
        Ok(None)
    }

    fn parameter_tag(
        &self,
        tag: &str,
        side: &str,
        name: &str,
        rest: &str,
    ) -> Result<Option<String>> {
        let unknown = |reason: String| {
            Err(Error::Unknown {
                placeholder: tag.to_owned(),
                reason,
            })
        };
        match (side, rest) {
            ("inputs", "") => match self.parameter("inputs", name) {
                Some(value) => Ok(Some(shown(value))),
                None => unknown(format!("the input parameter {name:?} has no value")),
            },
            ("outputs", ".output_file") => {
                let about = self.parameter("outputs", name);
                match about.and_then(|about| about.get("outputFile")) {
                    Some(file) => Ok(Some(shown(file))),
                    None => unknown(format!("there is no output parameter {name:?}")),
                }
            }
            _ => Ok(None),
        }
    }

    fn artifact_tag(
        &self,
        tag: &str,
        side: &str,
        name: &str,
        rest: &str,
    ) -> Result<Option<String>> {
        let Some(artifact) = self.artifact(side, name) else {
            let sort = if side == "inputs" { "input" } else { "output" };
            return Err(Error::Unknown {
                placeholder: tag.to_owned(),
                reason: format!("the {sort} artifact {name:?} is not there"),
            });
        };
        let uri = artifact
            .get("uri")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let metadata = artifact.get("metadata");
        Ok(match rest {
            "" => Some(artifact.to_string()),
            ".uri" => Some(uri.to_owned()),
            ".path" => Some(match artifact.get("customPath").and_then(Value::as_str) {
                Some(path) if !path.is_empty() => path.to_owned(),
                _ => local_path(uri),
            }),
            ".metadata" => Some(metadata.map_or_else(|| "{}".to_owned(), Value::to_string)),
            _ => match rest.strip_prefix(".metadata").and_then(key) {
                Some((name, "")) => match metadata.and_then(|metadata| metadata.get(name)) {
                    Some(value) => Some(shown(value)),
                    None => {
                        return Err(Error::Unknown {
                            placeholder: tag.to_owned(),
                            reason: format!("the artifact has no metadata {name:?}"),
                        });
                    }
                },
                _ => None,
            },
        })
    }
}

/// An element that is the JSON text of a structured placeholder.
fn structured(text: &str) -> Option<Value> {
    let trimmed = text.trim();
    let starts = [
        "{\"Concat\"",
        "{\"IfPresent\"",
        "{ \"Concat\"",
        "{ \"IfPresent\"",
    ];
    if !starts.iter().any(|start| trimmed.starts_with(start)) {
        return None;
    }
    serde_json::from_str::<Value>(trimmed).ok()
}

/// The length of the placeholder at the start of a text.
fn end_of(text: &str) -> Option<usize> {
    let mut quote = None;
    let bytes = text.as_bytes();
    for (at, &byte) in bytes.iter().enumerate().skip(3) {
        match (quote, byte) {
            (Some(open), _) if byte == open => quote = None,
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at + 2),
            (None, b'\n') => return None,
            _ => {}
        }
    }
    None
}

/// The name in `['name']`, and what follows.
fn key(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('[')?;
    let quote = inner.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = &inner[1..];
    let end = inner.find(quote)?;
    let rest = inner[end + 1..].strip_prefix(']')?;
    Some((&inner[..end], rest))
}

/// Where a program finds what is at a URI.
pub fn local_path(uri: &str) -> String {
    for (scheme, folder) in [
        ("gs://", "/gcs/"),
        ("s3://", "/s3/"),
        ("minio://", "/minio/"),
    ] {
        if let Some(rest) = uri.strip_prefix(scheme) {
            return format!("{folder}{rest}");
        }
    }
    match uri.strip_prefix("oci://") {
        Some(rest) => format!("/oci/{}/models", rest.replace(['/', ':'], "_")),
        None => uri.to_owned(),
    }
}

#[cfg(test)]
mod tests;
