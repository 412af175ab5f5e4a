//! `ExecutorInput`: what a v2 component is told, and how its `ExecutorOutput` becomes outputs.

use std::collections::BTreeMap;

use artifacts::Uri;
use engine::{ParameterType, StartWork};
use launcher::Document;
use serde_json::{Map, Value, json};

/// The files a component writes its outputs to, all of them below `private`.
fn parameter_file(private: &str, name: &str) -> String {
    format!("{private}/outputs/{name}")
}

/// The file in which a component describes its outputs. kfp's SDK takes the folder it lies in as the
/// one for artifacts that the component names itself (`dsl.get_uri`).
fn output_file(component: &Value, folder: &Uri, private: &str) -> String {
    let beside_artifacts = declared(component, "artifacts").next().is_some();
    match folder.pod_path().filter(|_| beside_artifacts) {
        Some(path) => path.join("executor_output.json").display().to_string(),
        None => format!("{private}/output_metadata.json"),
    }
}

/// The declared outputs of one kind (`parameters` or `artifacts`).
pub(super) fn declared<'a>(
    component: &'a Value,
    kind: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let found = component.pointer(&format!("/outputs/{kind}"));
    found.and_then(Value::as_object).into_iter().flatten()
}

/// Builds the document. `folder` is the attempt's own in its store.
pub(super) fn build(start: &StartWork, component: &Value, folder: &Uri, private: &str) -> Value {
    let optional = |name: &str| {
        let declaration = component
            .pointer("/inputs/parameters")
            .and_then(|p| p.get(name));
        declaration
            .and_then(|d| d.get("isOptional"))
            .and_then(Value::as_bool)
            == Some(true)
    };
    let parameters: Map<String, Value> = start
        .inputs
        .iter()
        .filter(|(name, value)| !(value.is_null() && optional(name)))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let artifacts: Map<String, Value> = start
        .artifacts
        .iter()
        .map(|(name, _, value)| (name.clone(), json!({"artifacts": as_list(value)})))
        .collect();
    let files: Map<String, Value> = declared(component, "parameters")
        .map(|(name, _)| {
            (
                name.clone(),
                json!({"outputFile": parameter_file(private, name)}),
            )
        })
        .collect();
    let produced: Map<String, Value> = declared(component, "artifacts")
        .map(|(name, definition)| {
            let artifact = provisioned(name, definition, folder);
            (name.clone(), json!({"artifacts": [artifact]}))
        })
        .collect();
    json!({
        "inputs": {"parameterValues": parameters, "artifacts": artifacts},
        "outputs": {
            "parameters": files,
            "artifacts": produced,
            "outputFile": output_file(component, folder, private),
        },
    })
}

/// An artifact as it is before the component ran.
fn provisioned(name: &str, definition: &Value, folder: &Uri) -> Value {
    let metadata = definition.get("metadata").filter(|m| m.is_object());
    json!({
        "name": name,
        "uri": folder.join(name).to_string(),
        "type": definition.get("artifactType").cloned().unwrap_or_else(|| json!({})),
        "metadata": metadata.cloned().unwrap_or_else(|| json!({})),
    })
}

fn as_list(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    }
}

/// Every artifact that the work was given.
pub(super) fn inputs(start: &StartWork) -> impl Iterator<Item = (&String, Value)> {
    let lists = start.artifacts.iter();
    lists.flat_map(|(name, _, value)| as_list(value).into_iter().map(move |one| (name, one)))
}

/// The same document for texts that become part of a Pod's command or environment: Kubernetes replaces
/// `$(NAME)` there, which must not happen inside of values.
pub(super) fn for_pod(input: &Value) -> Value {
    match input {
        Value::String(text) => Value::String(text.replace('$', "$$")),
        Value::Array(items) => items.iter().map(for_pod).collect(),
        Value::Object(fields) => {
            let escaped = fields.iter();
            escaped
                .map(|(name, value)| (name.replace('$', "$$"), for_pod(value)))
                .collect()
        }
        other => other.clone(),
    }
}

/// Values by name.
pub(super) type Values = BTreeMap<String, Value>;

/// The outputs of a component that ended well, by their declared types; the error names the output.
pub(super) fn outputs(
    component: &Value,
    folder: &Uri,
    document: &Document,
) -> Result<(Values, Values), String> {
    let told = document.executor_output.as_ref();
    let mut parameters = BTreeMap::new();
    for (name, definition) in declared(component, "parameters") {
        let kind = definition.get("parameterType").and_then(Value::as_str);
        let kind = ParameterType::parse(kind.unwrap_or("STRING")).ok_or_else(|| {
            format!("output parameter {name:?} has no type that is known: {definition}")
        })?;
        let wrong = |problem: String| format!("output parameter {name:?}: {problem}");
        let given = told
            .and_then(|output| output.get("parameterValues")?.get(name))
            .filter(|value| !value.is_null());
        let value = match (given, document.parameters.get(name)) {
            (Some(value), _) => kind
                .coerce(value.clone())
                .map_err(|mismatch| wrong(mismatch.to_string()))?,
            (None, Some(text)) => parse(kind, text).map_err(wrong)?,
            (None, None) => {
                return Err(wrong(format!(
                    "the step ended without giving it a value (it is declared as {kind})"
                )));
            }
        };
        parameters.insert(name.clone(), value);
    }
    let mut artifacts = BTreeMap::new();
    for (name, definition) in declared(component, "artifacts") {
        let base = provisioned(name, definition, folder);
        let list = told.and_then(|output| output.get("artifacts")?.get(name)?.get("artifacts"));
        let written = list.map(as_list).filter(|list| !list.is_empty());
        let merged: Vec<Value> = match written {
            Some(list) => list.iter().map(|one| merge(&base, one)).collect(),
            None => vec![base],
        };
        artifacts.insert(name.clone(), Value::Array(merged));
    }
    Ok((parameters, artifacts))
}

/// What a component wrote into a parameter's file.
fn parse(kind: ParameterType, text: &str) -> Result<Value, String> {
    let trimmed = text.trim();
    let expected = || {
        let start: String = trimmed.chars().take(60).collect();
        format!("expected {kind}, the step wrote {start:?}")
    };
    match kind {
        ParameterType::String => Ok(Value::String(text.to_owned())),
        ParameterType::Boolean => match trimmed {
            "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(json!(true)),
            "false" | "False" | "FALSE" | "f" | "F" | "0" => Ok(json!(false)),
            _ => Err(expected()),
        },
        ParameterType::Double | ParameterType::Integer => {
            let number = trimmed
                .parse::<i64>()
                .map(Value::from)
                .or_else(|_| trimmed.parse::<f64>().map(Value::from));
            kind.accept(number.map_err(|_| expected())?)
                .map_err(|_| expected())
        }
        ParameterType::List
        | ParameterType::Struct
        | ParameterType::FinalStatus
        | ParameterType::Config => {
            let value = serde_json::from_str(trimmed)
                .map_err(|error| format!("{}, which is not JSON: {error}", expected()))?;
            kind.accept(value).map_err(|mismatch| mismatch.to_string())
        }
    }
}

/// An artifact with what the component said about it.
fn merge(base: &Value, told: &Value) -> Value {
    let mut merged = base.clone();
    for key in ["uri", "customPath"] {
        let text = told.get(key).and_then(Value::as_str);
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            merged[key] = json!(text);
        }
    }
    if let (Some(into), Some(from)) = (
        merged["metadata"].as_object_mut(),
        told.get("metadata").and_then(Value::as_object),
    ) {
        into.extend(from.clone());
    }
    if let Some(name) = told.get("name").and_then(Value::as_str)
        && !name.is_empty()
    {
        merged["name"] = json!(name);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(outputs: &Value) -> Value {
        json!({"outputs": outputs})
    }

    fn folder() -> Uri {
        Uri::parse("minio://b/r").unwrap()
    }

    #[test]
    fn outputs_are_read_by_their_types() {
        for (kind, text, expect) in [
            ("STRING", " a\n", json!(" a\n")),
            ("NUMBER_INTEGER", " 5\n", json!(5)),
            ("NUMBER_INTEGER", "5.0", json!(5)),
            ("NUMBER_DOUBLE", "0.5", json!(0.5)),
            ("BOOLEAN", "True", json!(true)),
            ("LIST", "[1, \"a\"]", json!([1, "a"])),
            ("STRUCT", "{\"a\": null}", json!({"a": null})),
        ] {
            let component = component(&json!({"parameters": {"x": {"parameterType": kind}}}));
            let document = Document {
                parameters: [("x".to_owned(), text.to_owned())].into(),
                ..Document::default()
            };
            let (parameters, _) = outputs(&component, &folder(), &document).unwrap();
            assert_eq!(parameters["x"], expect, "{kind}");
        }
        for (kind, text) in [
            ("NUMBER_INTEGER", "5.5"),
            ("BOOLEAN", "yes"),
            ("LIST", "{}"),
        ] {
            let component = component(&json!({"parameters": {"x": {"parameterType": kind}}}));
            let document = Document {
                parameters: [("x".to_owned(), text.to_owned())].into(),
                ..Document::default()
            };
            let error = outputs(&component, &folder(), &document).unwrap_err();
            assert!(error.contains("\"x\"") && error.contains(kind), "{error}");
        }
    }

    #[test]
    fn a_declared_output_parameter_must_be_there() {
        let component = component(&json!({"parameters": {"x": {"parameterType": "STRING"}}}));
        let error = outputs(&component, &folder(), &Document::default()).unwrap_err();
        assert!(error.contains("\"x\""), "{error}");
    }

    #[test]
    fn what_a_component_says_of_an_artifact_is_merged() {
        let component = component(&json!({"artifacts": {"m": {
            "artifactType": {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"},
            "metadata": {"a": 1}}}}));
        let told = json!({"artifacts": {"m": {"artifacts": [
            {"uri": "gs://x/y", "metadata": {"b": 2}}]}}});
        let document = Document {
            executor_output: Some(told),
            ..Document::default()
        };
        let (_, artifacts) = outputs(&component, &folder(), &document).unwrap();
        assert_eq!(
            artifacts["m"],
            json!([{"name": "m", "uri": "gs://x/y", "metadata": {"a": 1, "b": 2},
                "type": {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"}}])
        );
        let (_, artifacts) = outputs(&component, &folder(), &Document::default()).unwrap();
        assert_eq!(artifacts["m"][0]["uri"], "minio://b/r/m");
    }

    #[test]
    fn values_are_safe_from_the_node() {
        let input = json!({"a": ["$(HOME) $x"]});
        assert_eq!(for_pod(&input), json!({"a": ["$$(HOME) $$x"]}));
    }
}
