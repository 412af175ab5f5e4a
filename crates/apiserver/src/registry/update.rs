//! Changing objects: read, change, check, write; again if somebody else was faster.

use std::sync::Arc;

use kinds::tree;
use serde_json::Value;

use super::{Writing, Written, create, hooks};
use crate::admission::{self, Operation};
use crate::fieldmanager;
use crate::status::{Cause, Result, Status};
use crate::storage::{self, Expect, Object, Write};

/// How often a change is tried again before the client is told of the conflict.
const TRIES: usize = 100;

/// Which part of an object an endpoint may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but status.
    Main,
    /// Only status and some metadata.
    Status,
    /// What the server itself decides: bindings, finalization. Taken as it is.
    Raw,
}

/// A proposed successor of an object.
pub(crate) struct Proposal {
    pub(crate) object: Value,
    /// Whether `managedFields` is settled already, as after a server-side apply.
    pub(crate) fields_settled: bool,
}

/// Makes a proposal from what is there, as the served version shows it; `None` if nothing is there.
pub(crate) type Propose<'a> =
    dyn FnMut(&mut Writing<'_>, Option<&Value>) -> Result<Proposal> + Send + 'a;

/// Changes the object `name`. If it is missing and `may_create`, the proposal becomes a new object.
pub(crate) async fn update(
    writing: &mut Writing<'_>,
    name: &str,
    part: Part,
    may_create: bool,
    propose: &mut Propose<'_>,
) -> Result<Written> {
    let state = Arc::clone(writing.state);
    let resource = Arc::clone(writing.resource);
    let cache = state.store.cache(&resource.key);
    let warned = writing.warnings.len();
    for _ in 0..TRIES {
        writing.warnings.truncate(warned);
        let Some(live) = cache.get(writing.namespace, name) else {
            if !may_create {
                return Err(Status::not_found(resource.group(), resource.plural(), name));
            }
            let mut proposal = propose(writing, None)?;
            check_name(&proposal.object, name)?;
            if !tree::text(&proposal.object, "metadata.uid").is_empty() {
                let why = format!(
                    "Precondition failed: UID in precondition: {}, UID in object meta: ",
                    tree::text(&proposal.object, "metadata.uid")
                );
                return Err(Status::conflict(
                    resource.group(),
                    resource.plural(),
                    name,
                    &why,
                ));
            }
            let metadata = tree::child(&mut proposal.object, "metadata");
            tree::remove(metadata, "resourceVersion");
            return Box::pin(create::create(writing, proposal.object)).await;
        };
        // None says that somebody was faster: then with what they wrote.
        let attempt = attempt(writing, &live, name, part, propose);
        if let Some(written) = Box::pin(attempt).await? {
            return Ok(written);
        }
    }
    Err(Status::modified(resource.group(), resource.plural(), name))
}

/// One try; `None` if the object changed under it.
async fn attempt(
    writing: &mut Writing<'_>,
    live: &Arc<Object>,
    name: &str,
    part: Part,
    propose: &mut Propose<'_>,
) -> Result<Option<Written>> {
    let state = Arc::clone(writing.state);
    let resource = Arc::clone(writing.resource);
    let (group, plural) = (resource.group(), resource.plural());
    let ctx = state.ctx();
    let old = Arc::clone(live.value());
    let shown = resource.show(&old);
    let Proposal {
        mut object,
        fields_settled,
    } = propose(writing, Some(&shown))?;
    check_name(&object, name)?;
    create::namespace_of_request(&mut object, writing.namespace)?;
    let uid = tree::text(&object, "metadata.uid");
    let live_uid = tree::text(&old, "metadata.uid");
    if !uid.is_empty() && uid != live_uid {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {live_uid}"
        );
        return Err(Status::conflict(group, plural, name, &why));
    }
    let version = tree::text(&object, "metadata.resourceVersion");
    if version.is_empty() || version == "0" {
        if part != Part::Raw && !resource.kind.strategy.unconditional_update {
            let cause = Cause::new(
                "FieldValueInvalid",
                "metadata.resourceVersion",
                "Invalid value: 0x0: must be specified for an update",
            );
            return Err(writing.invalid(name, &[cause]));
        }
    } else if version != live.rv.to_string() {
        if version.parse::<u64>().is_err() {
            return Err(Status::bad_request(format!(
                "invalid resource version {}: strconv.ParseUint: parsing {0}: invalid syntax",
                kinds::field::quote(version)
            )));
        }
        return Err(Status::modified(group, plural, name));
    }
    if !fields_settled {
        fieldmanager::updated(writing, &shown, &mut object)?;
    }
    let old_shown = Arc::new(shown.into_owned());
    object = Box::pin(admission::admit(
        writing,
        Operation::Update,
        object,
        Some(old_shown),
    ))
    .await?;
    resource.to_stored(&mut object);
    resource.kind.default(&mut object);
    let mut causes = Vec::new();
    let mut reserved = None;
    match part {
        Part::Main => {
            resource.kind.prepare_update(&ctx, &mut object, &old);
            reserved = hooks::before_update(writing, &mut object, &old)?;
            causes = Cause::of(&resource.kind.validate_update(&ctx, &object, &old));
            causes.extend(fieldmanager::validate_custom(&state, &resource, &object));
        }
        Part::Status => {
            resource.kind.prepare_status_update(&ctx, &mut object, &old);
            causes = Cause::of(&resource.kind.validate_status_update(&ctx, &object, &old));
            causes.extend(fieldmanager::validate_custom(&state, &resource, &object));
        }
        Part::Raw => kinds::meta::keep_system_fields(&mut object, &old),
    }
    if !causes.is_empty() {
        return Err(writing.invalid(name, &causes));
    }
    if part == Part::Main {
        writing
            .warnings
            .extend(resource.kind.warnings(&object, Some(&old)));
    }
    let rv = Value::String(live.rv.to_string());
    tree::put(
        tree::child(&mut object, "metadata"),
        "resourceVersion",
        Some(rv),
    );
    let gone = goes_away(&object, &old, resource.is("", "namespaces"));
    if !gone && fieldmanager::same_but_for_times(&object, &old) {
        return Ok(Some(Written {
            object: Arc::clone(live),
            created: false,
        }));
    }
    if writing.options.dry_run {
        let object = Object::dry_run(writing.namespace, name, Some(live.rv), object);
        return Ok(Some(Written {
            object: Arc::new(object),
            created: false,
        }));
    }
    let mut write = Write {
        resource: Arc::clone(&resource.key),
        namespace: writing.namespace.to_owned(),
        name: name.to_owned(),
        expect: Expect::Version(live.rv),
        object: Some(object),
    };
    if gone {
        // The change that lets the object go is never stored; the client sees it all the same.
        let left = write.object.take().unwrap_or_default();
        return match state.store.write_as(write, writing.durability()).await {
            Ok(removed) => {
                let object = Object::dry_run(writing.namespace, name, Some(removed.rv), left);
                Ok(Some(Written {
                    object: Arc::new(object),
                    created: false,
                }))
            }
            Err(storage::Error::Conflict) => Ok(None),
            Err(error) => Err(Writing::store_error(error)),
        };
    }
    let written = state.store.write_as(write, writing.durability()).await;
    drop(reserved);
    match written {
        Ok(object) => Ok(Some(Written {
            object,
            created: false,
        })),
        Err(storage::Error::Conflict) => Ok(None),
        Err(error) => Err(Writing::store_error(error)),
    }
}

fn check_name(object: &Value, name: &str) -> Result<()> {
    let own = tree::text(object, "metadata.name");
    if own.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    if own != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        )));
    }
    Ok(())
}

/// Whether a change removes what held a deleted object back.
fn goes_away(new: &Value, old: &Value, namespace: bool) -> bool {
    tree::get(new, "metadata.deletionTimestamp").is_some()
        && tree::list(new, "metadata.finalizers").is_empty()
        && tree::int(old, "metadata.deletionGracePeriodSeconds").unwrap_or(0) == 0
        && (!namespace || tree::list(new, "spec.finalizers").is_empty())
}
