//! Making new objects.

use std::sync::Arc;

use kinds::tree;
use serde_json::Value;

use super::service::Reservation;
use super::{Writing, Written, hooks};
use crate::admission::{self, Operation};
use crate::fieldmanager;
use crate::status::{Cause, Result, Status};
use crate::storage::{self, Expect, Object, Write};

/// A generated name: the prefix is cut so that both fit a label.
const LONGEST_PREFIX: usize = 58;
/// How often another generated name is tried when one is taken.
const TRIES: usize = 8;

/// Creates a decoded object.
pub(crate) async fn create(writing: &mut Writing<'_>, mut object: Value) -> Result<Written> {
    namespace_of_request(&mut object, writing.namespace)?;
    if !tree::text(&object, "metadata.resourceVersion").is_empty() {
        let message = "resourceVersion should not be set on objects to be created";
        return Err(Status::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            "",
            message,
        ));
    }
    fieldmanager::created(writing, &mut object)?;
    object = Box::pin(admission::admit(writing, Operation::Create, object, None)).await?;
    let object = Box::pin(finish(writing, object)).await?;
    Ok(Written {
        object,
        created: true,
    })
}

/// The part after admission: names, preparation, validation, the store.
async fn finish(writing: &mut Writing<'_>, mut object: Value) -> Result<Arc<Object>> {
    let state = Arc::clone(writing.state);
    let resource = Arc::clone(writing.resource);
    let prefix = tree::text(&object, "metadata.generateName").to_owned();
    let generate = tree::text(&object, "metadata.name").is_empty() && !prefix.is_empty();
    resource.to_stored(&mut object);
    for attempt in 0.. {
        let mut object = object.clone();
        if generate {
            let prefix: String = prefix.chars().take(LONGEST_PREFIX).collect();
            let name = format!("{prefix}{}", state.rng().suffix(5));
            tree::put(
                tree::child(&mut object, "metadata"),
                "name",
                Some(name.into()),
            );
        }
        // Held until the object is stored, so that nobody else draws the same address.
        let _reserved = prepare(writing, &mut object)?;
        let name = tree::text(&object, "metadata.name").to_owned();
        let taken = || Status::already_exists(resource.group(), resource.plural(), &name);
        if writing.options.dry_run {
            if state
                .store
                .cache(&resource.key)
                .get(writing.namespace, &name)
                .is_some()
            {
                return Err(taken());
            }
            return Ok(Arc::new(Object::dry_run(
                writing.namespace,
                &name,
                None,
                object,
            )));
        }
        match state
            .store
            .write_as(write_of(writing, &name, object), writing.durability())
            .await
        {
            Ok(object) => return Ok(object),
            Err(storage::Error::Conflict) if generate && attempt < TRIES => {}
            Err(storage::Error::Conflict) => return Err(taken()),
            Err(error) => return Err(Writing::store_error(error)),
        }
    }
    unreachable!("invariant: the loop above only ends by returning")
}

/// The store's part of creating an object.
pub(crate) fn write_of(writing: &Writing<'_>, name: &str, object: Value) -> Write {
    Write {
        resource: Arc::clone(&writing.resource.key),
        namespace: writing.namespace.to_owned(),
        name: name.to_owned(),
        expect: Expect::Absent,
        object: Some(object),
    }
}

/// Makes a named object ready for the store, or says what is wrong with it.
pub(crate) fn prepare(
    writing: &mut Writing<'_>,
    object: &mut Value,
) -> Result<Option<Reservation>> {
    let state = Arc::clone(writing.state);
    let resource = Arc::clone(writing.resource);
    let ctx = state.ctx();
    let metadata = tree::child(object, "metadata");
    for key in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    ] {
        tree::remove(metadata, key);
    }
    tree::put(metadata, "uid", Some(state.rng().uuid().into()));
    tree::put(metadata, "creationTimestamp", Some(ctx.now_text().into()));
    resource.kind.default(object);
    resource.kind.prepare_create(&ctx, object);
    let name = tree::text(object, "metadata.name").to_owned();
    let reserved = hooks::before_create(writing, object)?;
    let mut causes = Cause::of(&resource.kind.validate_create(&ctx, object));
    causes.extend(fieldmanager::validate_custom(&state, &resource, object));
    if !causes.is_empty() {
        return Err(writing.invalid(&name, &causes));
    }
    writing
        .warnings
        .extend(resource.kind.warnings(object, None));
    Ok(reserved)
}

/// The object lies in the namespace of the request, or says nothing of one.
pub(crate) fn namespace_of_request(object: &mut Value, namespace: &str) -> Result<()> {
    let metadata = tree::child(object, "metadata");
    let own = tree::text(metadata, "namespace");
    if own == namespace {
        return Ok(());
    }
    if own.is_empty() || namespace.is_empty() {
        let namespace = (!namespace.is_empty()).then(|| namespace.into());
        tree::put(metadata, "namespace", namespace);
        return Ok(());
    }
    Err(Status::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    ))
}
