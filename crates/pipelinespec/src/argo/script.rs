//! Script templates: a container whose program is a text in the template. The text becomes an input
//! artifact, and its path the last argument of the command.

use engine::{InputArtifact, Shape, Text};
use serde_json::Value;

use super::container;
use super::text::{self, Paths};
use crate::field::{Field, Invalid};

type Result<T> = core::result::Result<T, Invalid>;

/// Where Argo puts a script.
const PATH: &str = "/argo/staging/script";

/// The container of a script, and its text as an artifact.
pub(super) fn compile(field: &Field<'_>, paths: &Paths) -> Result<(Value, InputArtifact)> {
    let source = field.need("source")?;
    let mut plain = field.value.clone();
    if let Some(fields) = plain.as_object_mut() {
        fields.remove("source");
    }
    container::check(&field.with(&plain))?;
    if field.list("command")?.is_empty() {
        return field.invalid("command is missing: the interpreter of the script");
    }
    let command = plain.get("command").and_then(Value::as_array);
    let mut args: Vec<Value> = command.into_iter().flatten().skip(1).cloned().collect();
    args.extend(
        plain
            .get("args")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .cloned(),
    );
    args.push(PATH.into());
    let first = command.and_then(|c| c.first()).cloned();
    plain["command"] = Value::Array(first.into_iter().collect());
    plain["args"] = Value::Array(args);
    let data = Shape::Text(text::scalar(&source, paths)?);
    let raw = Shape::Map([("data".to_owned(), data)].into());
    let artifact = InputArtifact {
        name: "argo-script".to_owned(),
        path: Some(Text::literal(PATH)),
        optional: false,
        default: Some(Shape::Map([("raw".to_owned(), raw)].into())),
    };
    Ok((plain, artifact))
}
