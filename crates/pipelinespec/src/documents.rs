//! From a text to the documents in it, and which of them is the pipeline.

use serde_json::Value;

use crate::Error;

/// The one pipeline in a text.
pub(crate) enum Document {
    /// A v1 Argo Workflow.
    Workflow(Value),
    /// v2 IR, and the platform spec that came with it.
    Ir {
        pipeline: Value,
        platform: Option<Value>,
    },
}

/// A package has no more values than this, aliases counted each time.
const MAX_NODES: usize = 2_000_000;

/// They are nested no deeper than this. (What was understood is stored as JSON, whose readers stop
/// at 128.)
const MAX_DEPTH: usize = 100;

/// The parser needs some 25 KiB for each level in a debug build.
const STACK: usize = 16 << 20;

/// Parses every document of a YAML (or JSON) text.
///
/// On a thread of its own: the parser is recursive, and a caller's stack may be too small for it.
pub(crate) fn parse<T: serde::de::DeserializeOwned + Send>(text: &str) -> Result<Vec<T>, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("package".to_owned());
        let parser = thread.stack_size(STACK).spawn_scoped(scope, || read(text));
        let parser =
            parser.map_err(|error| Error::Yaml(format!("no thread to parse it on: {error}")))?;
        parser
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<Vec<T>, Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_depth: MAX_DEPTH,
        },
        with_snippet: false,
        // `y` is a text for the SDK that writes packages, and it quotes what else might be a boolean.
        strict_booleans: true,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let message = error.to_string();
        let limits = ["budget", "recursion"].iter().any(|word| message.contains(word));
        Error::Yaml(if limits {
            format!(
                "{message}; a package has at most {MAX_NODES} values, nested at most {MAX_DEPTH} deep"
            )
        } else {
            message
        })
    })
}

/// The pipeline among the documents; empty and other documents do not count.
pub(crate) fn pipeline(documents: Vec<Value>) -> Result<Document, Error> {
    let mut workflow = None;
    let mut ir = None;
    let mut platform = None;
    let mut others = Vec::new();
    for document in documents.into_iter().flat_map(split) {
        if is_workflow(&document) {
            if workflow.replace(document).is_some() {
                return Err(Error::Several("Workflow"));
            }
        } else if is_ir(&document) {
            if ir.replace(document).is_some() {
                return Err(Error::Several("pipeline spec"));
            }
        } else if document.pointer("/platforms/kubernetes").is_some() {
            if platform.replace(document).is_some() {
                return Err(Error::Several("platform spec"));
            }
        } else if !document.is_null() {
            others.push(describe(&document));
        }
    }
    match (workflow, ir) {
        (Some(_), Some(_)) => Err(Error::Several("pipeline")),
        (Some(workflow), None) => Ok(Document::Workflow(workflow)),
        (None, Some(pipeline)) => Ok(Document::Ir { pipeline, platform }),
        (None, None) if others.is_empty() => Err(Error::NoPipeline(String::new())),
        (None, None) => Err(Error::NoPipeline(format!("; found {}", others.join(", ")))),
    }
}

/// Both specs as members of one document, as the API has them, are two documents.
fn split(mut document: Value) -> Vec<Value> {
    match document.get("pipeline_spec") {
        Some(Value::Object(_)) => ["pipeline_spec", "platform_spec"]
            .iter()
            .filter_map(|name| document.get_mut(*name).map(Value::take))
            .collect(),
        _ => vec![document],
    }
}

fn text_at<'a>(document: &'a Value, pointer: &str) -> Option<&'a str> {
    document.pointer(pointer).and_then(Value::as_str)
}

fn is_workflow(document: &Value) -> bool {
    text_at(document, "/apiVersion").is_some_and(|v| v.starts_with("argoproj.io/"))
        && text_at(document, "/kind") == Some("Workflow")
}

fn is_ir(document: &Value) -> bool {
    let has = |name| document.get(name).is_some();
    has("pipelineInfo") && (has("root") || has("schemaVersion"))
}

fn describe(document: &Value) -> String {
    match (
        text_at(document, "/apiVersion"),
        text_at(document, "/kind"),
        document,
    ) {
        (Some(version), Some(kind), _) => format!("{version} {kind}"),
        (_, _, Value::Object(map)) => {
            let keys: Vec<_> = map.keys().take(5).map(String::as_str).collect();
            format!("a map with the keys {}", keys.join(", "))
        }
        (_, _, Value::Array(_)) => "a list".to_owned(),
        _ => "a scalar".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_y_is_a_text_as_the_sdk_that_wrote_it_means() {
        let read: Vec<Value> = parse("{a: y, b: N, c: 'on', d: true}").unwrap();
        assert_eq!(read, [json!({"a": "y", "b": "N", "c": "on", "d": true})]);
    }
}
