//! Finalization of namespaces: the namespace controller takes `spec.finalizers` away here.

use axum::body::Body;
use http::Response;
use kinds::tree;
use serde_json::Value;

use crate::endpoints::query::WriteOptions;
use crate::endpoints::{Call, Place, respond};
use crate::fieldmanager;
use crate::registry::Writing;
use crate::registry::update::{Part, Proposal, update};
use crate::status::Result;

pub(super) async fn finalize(mut call: Call, place: Place) -> Result<Response<Body>> {
    let form = call.form(true)?;
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let bytes = call.bytes().await?;
    let mut writing = call.writing(&place.resource, &place, options);
    let asked = fieldmanager::decode(
        &call.state,
        &place.resource,
        &call.parts.headers,
        &bytes,
        writing.options.field_validation,
        &mut writing.warnings,
    )?;
    let mut propose = |_: &mut Writing<'_>, live: Option<&Value>| {
        let mut object = live.cloned().unwrap_or_default();
        for key in ["name", "uid", "resourceVersion"] {
            if let Some(value) = asked["metadata"].get(key).filter(|v| !v.is_null()) {
                object["metadata"][key] = value.clone();
            }
        }
        let finalizers = asked["spec"].get("finalizers").cloned();
        tree::put(tree::child(&mut object, "spec"), "finalizers", finalizers);
        Ok(Proposal {
            object,
            fields_settled: false,
        })
    };
    let updated = update(
        &mut writing,
        &place.path.name,
        Part::Raw,
        false,
        &mut propose,
    );
    let written = Box::pin(updated).await?;
    respond::object(
        &call.state,
        &place.resource,
        &written.object,
        form,
        &call.query,
    )
}
