//! Create, update, patch and delete over HTTP: reading what is asked and showing what came of it.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use kinds::tree;
use serde_json::{Value, json};

use super::negotiate::{Form, media_type};
use super::query::{DeleteOptions, ListOptions, WriteOptions};
use super::{Call, Place, body, list, respond};
use crate::fieldmanager;
use crate::registry::delete::{Deleted, delete as delete_object};
use crate::registry::update::{Part, Proposal, update as update_object};
use crate::registry::{Resource, Writing, Written, create as creating};
use crate::status::{self, Result, Status};

const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

impl Call {
    /// A write by this caller.
    pub(crate) fn writing<'a>(
        &'a self,
        resource: &'a Arc<Resource>,
        place: &'a Place,
        options: WriteOptions,
    ) -> Writing<'a> {
        Writing {
            state: &self.state,
            resource,
            namespace: &place.namespace,
            subresource: &place.path.subresource,
            user: &self.user,
            manager: self.manager(&options.field_manager),
            options,
            warnings: Vec::new(),
        }
    }

    /// The whole body.
    pub(crate) async fn bytes(&mut self) -> Result<bytes::Bytes> {
        body::read(self.take_body()).await
    }

    fn show(
        &self,
        place: &Place,
        form: Form,
        written: &Written,
        warnings: &[String],
    ) -> Result<Response<Body>> {
        let code = if written.created {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let mut response = respond::written(
            &self.state,
            &place.resource,
            &written.object,
            form,
            &self.query,
            code,
        )?;
        respond::warn(&mut response, &place.resource.read_warnings());
        respond::warn(&mut response, warnings);
        Ok(response)
    }
}

pub(super) async fn create(mut call: Call, place: Place) -> Result<Response<Body>> {
    let form = call.form(true)?;
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let bytes = call.bytes().await?;
    let stored_as = call.state.resources.current().stored_as(&place.resource);
    let mut writing = call.writing(&stored_as, &place, options);
    let mut object = fieldmanager::decode(
        &call.state,
        &place.resource,
        &call.parts.headers,
        &bytes,
        writing.options.field_validation,
        &mut writing.warnings,
    )?;
    place.resource.to_stored(&mut object);
    let written = Box::pin(creating::create(&mut writing, object)).await?;
    let warnings = writing.warnings;
    call.show(&place, form, &written, &warnings)
}

/// PUT of the object, or of its status.
pub(crate) async fn update(mut call: Call, place: Place) -> Result<Response<Body>> {
    let form = call.form(true)?;
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let bytes = call.bytes().await?;
    let stored_as = call.state.resources.current().stored_as(&place.resource);
    let mut writing = call.writing(&stored_as, &place, options);
    let mut object = fieldmanager::decode(
        &call.state,
        &place.resource,
        &call.parts.headers,
        &bytes,
        writing.options.field_validation,
        &mut writing.warnings,
    )?;
    place.resource.to_stored(&mut object);
    let part = part(&place);
    let may_create = part == Part::Main && place.resource.kind.strategy.create_on_update;
    let mut propose = |_: &mut Writing<'_>, _: Option<&Value>| {
        Ok(Proposal {
            object: object.clone(),
            fields_settled: false,
        })
    };
    let updated = update_object(
        &mut writing,
        &place.path.name,
        part,
        may_create,
        &mut propose,
    );
    let written = Box::pin(updated).await?;
    let warnings = writing.warnings;
    call.show(&place, form, &written, &warnings)
}

fn part(place: &Place) -> Part {
    // The approval of a certificate request is a condition of its status.
    if matches!(place.path.subresource.as_str(), "status" | "approval") {
        Part::Status
    } else {
        Part::Main
    }
}

/// PATCH of the object, or of its status, in any of the four ways.
pub(crate) async fn patch(mut call: Call, place: Place) -> Result<Response<Body>> {
    let form = call.form(true)?;
    let mut options = WriteOptions::parse(&call.query, "PatchOptions")?;
    let kind = PatchKind::parse(media_type(&call.parts.headers), &place.resource)?;
    options.apply = kind == PatchKind::Apply;
    if kind == PatchKind::Apply && options.field_manager.is_empty() {
        let cause = status::Cause::new(
            "FieldValueRequired",
            "fieldManager",
            "Required value: is required for apply patch",
        );
        return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[cause]));
    }
    if kind != PatchKind::Apply && call.query.has("force") {
        let cause = status::Cause::new(
            "FieldValueForbidden",
            "force",
            "Forbidden: may not be specified for non-apply patch",
        );
        return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[cause]));
    }
    let bytes = call.bytes().await?;
    let patch = Patch::read(kind, &bytes, &place.resource)?;
    let stored_as = call.state.resources.current().stored_as(&place.resource);
    let mut writing = call.writing(&stored_as, &place, options);
    writing.warnings.extend(patch.warnings.iter().cloned());
    let outer = Arc::clone(&place.resource);
    let mut propose = |writing: &mut Writing<'_>, live: Option<&Value>| {
        let shown = live.map(|live| outer.show(live));
        let object = patch.propose(writing, &outer, shown.as_deref())?;
        Ok(Proposal {
            object,
            fields_settled: kind == PatchKind::Apply,
        })
    };
    let may_create = kind == PatchKind::Apply && part(&place) == Part::Main;
    let updated = update_object(
        &mut writing,
        &place.path.name,
        part(&place),
        may_create,
        &mut propose,
    );
    let written = Box::pin(updated).await?;
    let warnings = writing.warnings;
    call.show(&place, form, &written, &warnings)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchKind {
    pub(crate) fn parse(media_type: &str, resource: &Resource) -> Result<Self> {
        let kind = match media_type {
            "application/json-patch+json" => Self::Json,
            "application/merge-patch+json" => Self::Merge,
            "application/strategic-merge-patch+json" if resource.custom.is_none() => {
                Self::Strategic
            }
            "application/apply-patch+yaml" => Self::Apply,
            _ => {
                let custom: Vec<&str> = PATCH_TYPES
                    .iter()
                    .copied()
                    .filter(|t| !t.contains("strategic"))
                    .collect();
                return Err(Status::unsupported_media_type(
                    if resource.custom.is_some() {
                        &custom
                    } else {
                        &PATCH_TYPES
                    },
                ));
            }
        };
        Ok(kind)
    }
}

/// A patch that was read; it may be applied again and again.
pub(crate) struct Patch {
    kind: PatchKind,
    value: Value,
    operations: Option<json_patch::Patch>,
    warnings: Vec<String>,
}

impl Patch {
    pub(crate) fn read(kind: PatchKind, bytes: &[u8], resource: &Resource) -> Result<Self> {
        let content = match kind {
            PatchKind::Apply => schema::ContentType::Yaml,
            _ => schema::ContentType::Json,
        };
        let (value, duplicates) = schema::read_value(bytes, content).map_err(|problem| {
            Status::bad_request(match kind {
                PatchKind::Apply => format!("error decoding YAML: {problem}"),
                _ => format!("error decoding patch: {problem}"),
            })
        })?;
        let mut operations = None;
        if kind == PatchKind::Json {
            operations = Some(serde_json::from_value(value.clone()).map_err(|problem| {
                Status::bad_request(format!("error decoding patch: {problem}"))
            })?);
        } else if !value.is_object() {
            return Err(Status::bad_request(format!(
                "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                go_name(&value)
            )));
        }
        if kind == PatchKind::Apply {
            check_applied(&value, resource)?;
        }
        let warnings = duplicates
            .iter()
            .map(|field| format!("duplicate field \"{field}\""))
            .collect();
        Ok(Self {
            kind,
            value,
            operations,
            warnings,
        })
    }

    /// What `live` would become, in the stored form.
    pub(crate) fn propose(
        &self,
        writing: &mut Writing<'_>,
        outer: &Resource,
        live: Option<&Value>,
    ) -> Result<Value> {
        let state = Arc::clone(writing.state);
        let validation = writing.options.field_validation;
        if self.kind == PatchKind::Apply {
            return self.apply(writing, outer, live);
        }
        let Some(live) = live else {
            return Err(Status::internal("nothing to patch"));
        };
        let patched = match self.kind {
            PatchKind::Merge => {
                let mut value = live.clone();
                json_patch::merge(&mut value, &self.value);
                value
            }
            PatchKind::Json => {
                let mut value = live.clone();
                let operations = self.operations.as_ref().map_or(&[][..], |patch| &patch.0);
                json_patch::patch(&mut value, operations).map_err(|error| {
                    tracing::debug!("JSON patch: {error}");
                    Status::unprocessable_patch()
                })?;
                value
            }
            PatchKind::Strategic => fieldmanager::schema_of(&state, outer)?
                .strategic_merge(live.clone(), self.value.clone())
                .map_err(|error| Status::bad_request(error.to_string()))?,
            PatchKind::Apply => unreachable!("invariant: returned above"),
        };
        check_type(&patched, outer)?;
        let mut object =
            fieldmanager::coerce(&state, outer, patched, validation, &mut writing.warnings)?;
        outer.to_stored(&mut object);
        Ok(object)
    }

    fn apply(
        &self,
        writing: &mut Writing<'_>,
        outer: &Resource,
        live: Option<&Value>,
    ) -> Result<Value> {
        let state = Arc::clone(writing.state);
        let mut applied = self.value.clone();
        let metadata = tree::child(&mut applied, "metadata");
        if !writing.namespace.is_empty() && tree::text(metadata, "namespace").is_empty() {
            tree::put(metadata, "namespace", Some(writing.namespace.into()));
        }
        // The configuration keeps only what it says: checked for types, but not defaulted.
        let schema = fieldmanager::schema_of(&state, outer)?;
        let strict = schema.coerce(applied.clone()).map_err(|problem| {
            Status::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: {problem}",
                outer.kind.kind, outer.kind.version, outer.kind.kind
            ))
        })?;
        match writing.options.field_validation {
            super::query::FieldValidation::Strict if !strict.strict.is_empty() => {
                return Err(Status::bad_request(format!(
                    "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
                    outer.kind.kind,
                    outer.kind.version,
                    outer.kind.kind,
                    strict.strict.join(", ")
                )));
            }
            super::query::FieldValidation::Warn => writing.warnings.extend(strict.strict),
            _ => {}
        }
        outer.to_stored(&mut applied);
        let stored_live = live.map(|live| {
            let mut live = live.clone();
            outer.to_stored(&mut live);
            live
        });
        let mut result = fieldmanager::apply(writing, stored_live.as_ref(), &applied)?;
        fieldmanager::complete(&state, &Arc::clone(writing.resource), &mut result)?;
        Ok(result)
    }
}

fn check_applied(value: &Value, resource: &Resource) -> Result<()> {
    let text = |path| tree::text(value, path);
    if text("apiVersion").is_empty() || text("kind").is_empty() {
        return Err(Status::bad_request(
            "apiVersion and kind must be set in an applied configuration",
        ));
    }
    if text("metadata.name").is_empty() {
        return Err(Status::bad_request(
            "metadata.name must be set in an applied configuration",
        ));
    }
    if text("apiVersion") != resource.api_version || text("kind") != resource.kind.kind {
        return Err(Status::bad_request(format!(
            "apply configuration is of {}, Kind={}, the endpoint serves {}, Kind={}",
            text("apiVersion"),
            text("kind"),
            resource.api_version,
            resource.kind.kind
        )));
    }
    Ok(())
}

/// A patch may not turn the object into another kind.
fn check_type(value: &Value, resource: &Resource) -> Result<()> {
    let (version, kind) = (tree::text(value, "apiVersion"), tree::text(value, "kind"));
    if version == resource.api_version && kind == resource.kind.kind {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "{kind} in version \"{}\" cannot be handled as a {}: the patch changes the object's type from {}, Kind={}",
        version.rsplit('/').next().unwrap_or_default(),
        resource.kind.kind,
        resource.api_version,
        resource.kind.kind
    )))
}

fn go_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

async fn delete_options(call: &mut Call) -> Result<DeleteOptions> {
    let bytes = call.bytes().await?;
    let options = body::options(&call.parts.headers, &bytes, "DeleteOptions")?;
    DeleteOptions::parse(&call.query, options.as_ref())
}

fn write_options(delete: &DeleteOptions) -> WriteOptions {
    WriteOptions {
        dry_run: delete.dry_run,
        field_manager: String::new(),
        field_validation: super::query::FieldValidation::Ignore,
        force: false,
        apply: false,
    }
}

pub(super) async fn delete(mut call: Call, place: Place) -> Result<Response<Body>> {
    let form = call.form(true)?;
    let options = delete_options(&mut call).await?;
    let stored_as = call.state.resources.current().stored_as(&place.resource);
    let mut writing = call.writing(&stored_as, &place, write_options(&options));
    let deleted = Box::pin(delete_object(&mut writing, &place.path.name, &options)).await?;
    let warnings = writing.warnings;
    let resource = &place.resource;
    let mut response = match deleted {
        Deleted::Gone(object) if !returns_object(resource) => {
            let uid = tree::text(object.value(), "metadata.uid");
            let answer =
                status::deleted(resource.group(), resource.plural(), &place.path.name, uid);
            respond::value(StatusCode::OK, form, &answer)
        }
        Deleted::Gone(object) | Deleted::Marked(object) => {
            respond::object(&call.state, resource, &object, form, &call.query)?
        }
    };
    respond::warn(&mut response, &resource.read_warnings());
    respond::warn(&mut response, &warnings);
    Ok(response)
}

/// Kinds whose deletion answers with the object even when it is gone.
fn returns_object(resource: &Resource) -> bool {
    match resource.group() {
        "" => matches!(
            resource.plural(),
            "pods"
                | "podtemplates"
                | "services"
                | "serviceaccounts"
                | "resourcequotas"
                | "persistentvolumes"
                | "persistentvolumeclaims"
        ),
        "storage.k8s.io" => matches!(
            resource.plural(),
            "storageclasses" | "volumeattachments" | "csidrivers" | "csinodes"
        ),
        _ => false,
    }
}

pub(super) async fn delete_collection(mut call: Call, place: Place) -> Result<Response<Body>> {
    let form = call.form(true)?;
    let options = delete_options(&mut call).await?;
    let list_options = ListOptions::parse(&call.query, false)?;
    let page = list::page(&call, &place, &list_options)?;
    let table = call.state.resources.current();
    let stored_as = table.stored_as(&place.resource);
    let mut items = Vec::new();
    for object in &page.objects {
        let one = Place {
            resource: Arc::clone(&place.resource),
            path: place.path.clone(),
            namespace: object.namespace.to_string(),
        };
        let mut writing = call.writing(&stored_as, &one, write_options(&options));
        match Box::pin(delete_object(&mut writing, &object.name, &options)).await {
            Ok(Deleted::Gone(object) | Deleted::Marked(object)) => {
                items.push(place.resource.shown(&object).into_owned());
            }
            // Somebody else was faster, which is what was wanted.
            Err(status) if status.code() == StatusCode::NOT_FOUND => {}
            Err(status) => return Err(status),
        }
    }
    let answer = json!({
        "kind": place.resource.list_kind,
        "apiVersion": place.resource.api_version,
        "metadata": {"resourceVersion": page.rv.to_string()},
        "items": items,
    });
    Ok(respond::value(StatusCode::OK, form, &answer))
}
