//! Between the wire and the registry: decoding with the kind's schema, defaults, patches, and the
//! bookkeeping of who owns which field. The mechanics are in `schema`; here is when they happen.

use http::HeaderMap;
use kinds::tree;
use schema::managed::{self, ApplyError};
use schema::{FieldSet, Type};
use serde_json::Value;

use crate::endpoints::query::FieldValidation;
use crate::registry::{Resource, Writing};
use crate::server::State;
use crate::status::{Cause, Result, Status};

/// The schema of a resource's objects.
pub(crate) fn schema_of(state: &State, resource: &Resource) -> Result<Type> {
    state.schemas.get(&resource.gvk).ok_or_else(|| {
        Status::internal(format!(
            "no schema for {} {}",
            resource.api_version, resource.kind.kind
        ))
    })
}

/// Reads an object of this resource from a request's body.
pub(crate) fn decode(
    state: &State,
    resource: &Resource,
    headers: &HeaderMap,
    bytes: &[u8],
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value> {
    let (bytes, content_type) = crate::endpoints::body::text(headers, bytes, &resource.kind.kind)?;
    let decoded = state
        .schemas
        .decode(&resource.gvk, &bytes, content_type)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    match validation {
        FieldValidation::Strict => {
            if let Some(error) = decoded.strict_error() {
                return Err(Status::bad_request(error.to_string()));
            }
        }
        FieldValidation::Warn => warnings.extend(decoded.strict.iter().cloned()),
        FieldValidation::Ignore => {}
    }
    let mut value = decoded.value;
    complete(state, resource, &mut value)?;
    Ok(value)
}

/// Defaults, and for custom resources pruning.
pub(crate) fn complete(state: &State, resource: &Resource, value: &mut Value) -> Result<()> {
    let schema = schema_of(state, resource)?;
    if schema.is_custom() {
        schema.prune(value);
        schema.default_fields(value);
    }
    resource.kind.default(value);
    schema.normalise(value);
    Ok(())
}

/// Makes a typed object of a patch's result.
pub(crate) fn coerce(
    state: &State,
    resource: &Resource,
    value: Value,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value> {
    let coerced = schema_of(state, resource)?
        .coerce(value)
        .map_err(|problem| {
            Status::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: {problem}",
                resource.kind.kind, resource.kind.version, resource.kind.kind
            ))
        })?;
    match validation {
        FieldValidation::Strict if !coerced.strict.is_empty() => {
            return Err(Status::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
                resource.kind.kind,
                resource.kind.version,
                resource.kind.kind,
                coerced.strict.join(", ")
            )));
        }
        FieldValidation::Warn => warnings.extend(coerced.strict),
        FieldValidation::Strict | FieldValidation::Ignore => {}
    }
    let mut value = coerced.value;
    complete(state, resource, &mut value)?;
    Ok(value)
}

/// Fields that an endpoint resets, so that nobody owns them through it.
fn reset_fields(resource: &Resource, subresource: &str) -> FieldSet {
    match subresource {
        "" if resource.kind.strategy.has_status => FieldSet::of_fields(&["status"]),
        "status" => FieldSet::of_fields(&["spec", "metadata"]),
        _ => FieldSet::of_fields(&[]),
    }
}

fn with_writer<T>(writing: &Writing<'_>, act: impl FnOnce(&managed::Writer<'_>) -> T) -> T {
    let time = writing.state.ctx().now_text();
    let reset = reset_fields(writing.resource, writing.subresource);
    act(&managed::Writer {
        manager: &writing.manager,
        api_version: &writing.resource.api_version,
        subresource: writing.subresource,
        time: &time,
        reset: &reset,
    })
}

/// Records that everything in a new object is this manager's.
pub(crate) fn created(writing: &Writing<'_>, object: &mut Value) -> Result<()> {
    let applied = tree::list(object, "metadata.managedFields")
        .iter()
        .any(|entry| entry["operation"] == "Apply" && entry["manager"] == writing.manager.as_str());
    if applied && writing.options.apply {
        return Ok(());
    }
    let schema = schema_of(writing.state, writing.resource)?;
    with_writer(writing, |writer| {
        managed::update(&schema, None, object, writer);
    });
    Ok(())
}

/// Records what changed since `live` as this manager's.
pub(crate) fn updated(writing: &Writing<'_>, live: &Value, object: &mut Value) -> Result<()> {
    let schema = schema_of(writing.state, writing.resource)?;
    with_writer(writing, |writer| {
        managed::update(&schema, Some(live), object, writer);
    });
    Ok(())
}

/// Server-side apply.
pub(crate) fn apply(writing: &Writing<'_>, live: Option<&Value>, applied: &Value) -> Result<Value> {
    let schema = schema_of(writing.state, writing.resource)?;
    let result = with_writer(writing, |writer| {
        managed::apply(&schema, live, applied, writer, writing.options.force)
    });
    match result {
        Ok(value) => Ok(value),
        Err(ApplyError::Conflict(conflicts)) => {
            let causes: Vec<Cause> = conflicts
                .iter()
                .map(|c| Cause::new("FieldManagerConflict", &c.field, c.message.clone()))
                .collect();
            Err(Status::apply_conflict(
                ApplyError::Conflict(conflicts).to_string(),
                &causes,
            ))
        }
        Err(ApplyError::Invalid(message)) => Err(Status::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            "",
            message,
        )),
        Err(error) => Err(Status::bad_request(error.to_string())),
    }
}

/// What a custom resource's schema objects to.
pub(crate) fn validate_custom(state: &State, resource: &Resource, object: &Value) -> Vec<Cause> {
    if resource.custom.is_none() {
        return Vec::new();
    }
    let Some(schema) = state.schemas.get(&resource.gvk) else {
        return Vec::new();
    };
    let errors = schema.validate(object);
    errors
        .into_iter()
        .map(|e| Cause::new(e.reason, &e.field, e.message))
        .collect()
}

/// Whether a write would change nothing but the times of managed fields.
pub(crate) fn same_but_for_times(new: &Value, old: &Value) -> bool {
    let mut new = new.clone();
    managed::ignore_times(old, &mut new);
    new == *old
}
