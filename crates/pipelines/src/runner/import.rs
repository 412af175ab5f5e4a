//! Importers: something that exists already becomes an artifact. No Pod runs.

use std::collections::BTreeMap;

use engine::{Event, Outcome, Outputs, StartWork};
use serde_json::{Value, json};

use super::Shared;

/// Makes the artifact of an importer.
pub(super) fn carry_out(shared: &Shared, start: StartWork) -> Event {
    let outcome = match artifact(&start) {
        Ok((name, artifact)) => Outcome::Succeeded(Outputs {
            artifacts: BTreeMap::from([(name, json!([artifact]))]),
            ..Outputs::default()
        }),
        Err(message) => Outcome::Failed {
            exit_code: None,
            message,
        },
    };
    Event::TaskFinished {
        task: start.task,
        attempt: start.attempt,
        at: shared.clock.now(),
        outcome,
    }
}

fn artifact(start: &StartWork) -> Result<(String, Value), String> {
    let spec = &start.spec;
    let uri = spec.get("artifactUri").filter(|uri| !uri.is_null());
    let uri = uri
        .map(engine::render)
        .filter(|uri| !uri.is_empty())
        .ok_or("the importer has no artifact URI")?;
    let scheme = uri.split_once("://").map(|(scheme, _)| scheme);
    let kind = spec.get("typeSchema").cloned().unwrap_or_else(|| json!({}));
    let title = kind
        .get("schemaTitle")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if scheme == Some("oci") && title != "system.Model" {
        return Err(format!(
            "importer of {uri}: oci:// is for artifacts of type system.Model, not {title:?}"
        ));
    }
    let name = start
        .output_artifacts
        .first()
        .map_or("artifact", |wanted| wanted.name.as_str())
        .to_owned();
    let metadata = spec.get("metadata").filter(|m| m.is_object()).cloned();
    let metadata = metadata.unwrap_or_else(|| json!({}));
    let input = json!({"inputs": {"parameterValues": start.inputs}});
    let metadata = pipelinespec::placeholders::resolve(&metadata, &input)
        .map_err(|error| format!("the metadata of the importer: {error}"))?;
    let artifact = json!({"name": name, "uri": uri, "type": kind, "metadata": metadata});
    Ok((name, artifact))
}
