//! The scale subresource: `autoscaling/v1` Scale over any kind that has replicas.

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Response, StatusCode};
use kinds::selector::LabelSelector;
use kinds::tree;
use serde_json::{Value, json};

use crate::endpoints::negotiate::media_type;
use crate::endpoints::query::WriteOptions;
use crate::endpoints::write::PatchKind;
use crate::endpoints::{Call, Place, body, respond};
use crate::registry::Writing;
use crate::registry::update::{Part, Proposal, update};
use crate::registry::{Resource, ScalePaths};
use crate::status::{Cause, Result, Status};

pub(super) async fn serve(mut call: Call, place: Place) -> Result<Response<Body>> {
    let form = call.form(false)?;
    let name = place.path.name.clone();
    if call.parts.method == Method::GET {
        let object = place.resource.get(&call.state, &place.namespace, &name)?;
        return Ok(respond::value(
            StatusCode::OK,
            form,
            &of(&place.resource, object.value()),
        ));
    }
    let patching = call.parts.method == Method::PATCH;
    let kind = if patching {
        "PatchOptions"
    } else {
        "UpdateOptions"
    };
    let options = WriteOptions::parse(&call.query, kind)?;
    let bytes = call.bytes().await?;
    let (bytes, content) = if patching {
        (
            std::borrow::Cow::Borrowed(&bytes[..]),
            schema::ContentType::Yaml,
        )
    } else {
        body::text(&call.parts.headers, &bytes, "Scale")?
    };
    let (change, _) = schema::read_value(&bytes, content).map_err(|problem| {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type Scale): {problem}"
        ))
    })?;
    let patch = patching
        .then(|| PatchKind::parse(media_type(&call.parts.headers), &place.resource))
        .transpose()?;
    let stored_as = call.state.resources.current().stored_as(&place.resource);
    let mut writing = call.writing(&stored_as, &place, options);
    let mut propose = |_: &mut Writing<'_>, live: Option<&Value>| {
        let live = live.cloned().unwrap_or_default();
        let mut scale = of(&stored_as, &live);
        match patch {
            None => scale = change.clone(),
            Some(PatchKind::Json) => {
                let operations: json_patch::Patch = serde_json::from_value(change.clone())
                    .map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
                json_patch::patch(&mut scale, &operations)
                    .map_err(|_| Status::unprocessable_patch())?;
            }
            // A Scale has no lists, so a strategic merge and an apply are a merge.
            Some(_) => json_patch::merge(&mut scale, &change),
        }
        let object = apply(&stored_as, live, &scale, &name)?;
        Ok(Proposal {
            object,
            fields_settled: false,
        })
    };
    let updated = update(&mut writing, &name, Part::Main, false, &mut propose);
    let written = Box::pin(updated).await?;
    Ok(respond::value(
        StatusCode::OK,
        form,
        &of(&place.resource, written.object.value()),
    ))
}

fn paths(resource: &Resource) -> ScalePaths {
    let custom = resource
        .custom
        .as_ref()
        .and_then(|custom| custom.scale.clone());
    custom.unwrap_or_else(|| ScalePaths {
        spec_replicas: ".spec.replicas".to_owned(),
        status_replicas: ".status.replicas".to_owned(),
        label_selector: String::new(),
    })
}

/// The scale of an object.
fn of(resource: &Resource, object: &Value) -> Value {
    let paths = paths(resource);
    let number = |path: &str| tree::int(object, path.trim_start_matches('.')).unwrap_or(0);
    let mut metadata = json!({});
    for key in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        tree::put(&mut metadata, key, object["metadata"].get(key).cloned());
    }
    let mut spec = json!({});
    let replicas = number(&paths.spec_replicas);
    if replicas != 0 {
        spec["replicas"] = replicas.into();
    }
    let mut status = json!({"replicas": number(&paths.status_replicas)});
    let selector = if resource.custom.is_some() {
        tree::text(object, paths.label_selector.trim_start_matches('.')).to_owned()
    } else {
        selector_text(object)
    };
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec,
        "status": status,
    })
}

/// The selector as text; ReplicationControllers have a plain map.
fn selector_text(object: &Value) -> String {
    let selector = tree::get(object, "spec.selector");
    let plain =
        selector.filter(|s| s.get("matchLabels").is_none() && s.get("matchExpressions").is_none());
    match plain.and_then(Value::as_object) {
        Some(labels) if !labels.is_empty() => LabelSelector::from_labels(Some(labels)).to_string(),
        _ => LabelSelector::from_object(selector)
            .map(|s| s.to_string())
            .unwrap_or_default(),
    }
}

/// The object with the replicas that `scale` asks for.
fn apply(resource: &Arc<Resource>, mut object: Value, scale: &Value, name: &str) -> Result<Value> {
    let asked = tree::get(scale, "spec.replicas");
    let replicas = match asked {
        None => 0,
        Some(value) => value.as_i64().ok_or_else(|| {
            Status::bad_request("Scale in version \"v1\" cannot be handled as a Scale: spec.replicas must be an integer")
        })?,
    };
    if replicas < 0 {
        let message = format!("Invalid value: {replicas}: must be greater than or equal to 0");
        let cause = Cause::new("FieldValueInvalid", "spec.replicas", message);
        return Err(Status::invalid("autoscaling", "Scale", name, &[cause]));
    }
    let version = tree::text(scale, "metadata.resourceVersion").to_owned();
    if !version.is_empty() {
        object["metadata"]["resourceVersion"] = version.into();
    }
    let uid = tree::text(scale, "metadata.uid").to_owned();
    if !uid.is_empty() {
        object["metadata"]["uid"] = uid.into();
    }
    let path = paths(resource).spec_replicas;
    let mut at = &mut object;
    let keys: Vec<&str> = path.trim_start_matches('.').split('.').collect();
    for key in &keys[..keys.len() - 1] {
        at = tree::child(at, key);
    }
    at[keys[keys.len() - 1]] = replicas.into();
    Ok(object)
}
