//! Deleting objects: at once, after a grace period, or when their finalizers are gone.

use std::sync::Arc;
use std::time::Duration;

use kinds::tree;
use serde_json::{Value, json};

use super::Writing;
use crate::admission::{self, Operation};
use crate::customresource;
use crate::endpoints::query::{DeleteOptions, Propagation};
use crate::status::{Result, Status};
use crate::storage::{self, Expect, Object, Write};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// As for updates.
const TRIES: usize = 100;

/// What a deletion left.
pub(crate) enum Deleted {
    /// Nothing; this is the last state.
    Gone(Arc<Object>),
    /// The object, marked for deletion.
    Marked(Arc<Object>),
}

/// Deletes the object `name`.
pub(crate) async fn delete(
    writing: &mut Writing<'_>,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted> {
    let resource = Arc::clone(writing.resource);
    let cache = writing.state.store.cache(&resource.key);
    for _ in 0..TRIES {
        let live = cache
            .get(writing.namespace, name)
            .ok_or_else(|| Status::not_found(resource.group(), resource.plural(), name))?;
        preconditions(&resource.kind.kind, name, &live, options)?;
        let old = Arc::new(resource.shown(&live).into_owned());
        let admitted = admission::admit(writing, Operation::Delete, Value::Null, Some(old));
        Box::pin(admitted).await?;
        if let Some(deleted) = Box::pin(attempt(writing, &live, name, options)).await? {
            return Ok(deleted);
        }
    }
    Err(Status::modified(resource.group(), resource.plural(), name))
}

fn preconditions(kind: &str, name: &str, live: &Object, options: &DeleteOptions) -> Result<()> {
    let value = live.value();
    if let Some(wanted) = &options.uid {
        let found = tree::text(value, "metadata.uid");
        if wanted != found {
            let why = format!(
                "the UID in the precondition ({wanted}) does not match the UID in record ({found}). \
                 The object might have been deleted and then recreated"
            );
            return Err(Status::conflict("", kind, name, &why));
        }
    }
    if let Some(wanted) = &options.resource_version {
        let found = live.rv.to_string();
        if *wanted != found {
            let why = format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the \
                 ResourceVersion in record ({found}). The object might have been modified"
            );
            return Err(Status::conflict("", kind, name, &why));
        }
    }
    Ok(())
}

/// One try; `None` if the object changed under it.
async fn attempt(
    writing: &mut Writing<'_>,
    live: &Arc<Object>,
    name: &str,
    options: &DeleteOptions,
) -> Result<Option<Deleted>> {
    let state = Arc::clone(writing.state);
    let resource = Arc::clone(writing.resource);
    let mut object = Value::clone(live.value());
    let namespace = resource.is("", "namespaces");
    let deleting = tree::get(&object, "metadata.deletionTimestamp").is_some();
    if namespace && deleting && !tree::list(&object, "spec.finalizers").is_empty() {
        let why = "The system is ensuring all content is removed from this namespace.  Upon \
                   completion, this namespace will automatically be purged by the system.";
        return Err(Status::conflict(
            resource.group(),
            resource.plural(),
            name,
            why,
        ));
    }
    let grace = if resource.kind.strategy.graceful {
        grace(&object, options)
    } else {
        0
    };
    let shortened =
        tree::int(&object, "metadata.deletionGracePeriodSeconds").is_none_or(|left| grace < left);
    set_finalizers(&mut object, options);
    let held = !tree::list(&object, "metadata.finalizers").is_empty()
        || (namespace && !tree::list(&object, "spec.finalizers").is_empty());
    if !deleting || shortened {
        let after = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let when = state
            .clock()
            .now()
            .saturating_add(after)
            .unwrap_or(jiff::Timestamp::MAX);
        let when = when.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let metadata = tree::child(&mut object, "metadata");
        tree::put(metadata, "deletionTimestamp", Some(when.into()));
        tree::put(metadata, "deletionGracePeriodSeconds", Some(grace.into()));
        if let Some(generation) = tree::int(metadata, "generation").filter(|_| !deleting) {
            tree::put(metadata, "generation", Some((generation + 1).into()));
        }
    }
    if namespace {
        tree::put(
            tree::child(&mut object, "status"),
            "phase",
            Some("Terminating".into()),
        );
    }
    let marked = held || grace > 0;
    if marked && object == **live.value() {
        return Ok(Some(Deleted::Marked(Arc::clone(live))));
    }
    if options.dry_run {
        let object = Arc::new(Object::dry_run(
            writing.namespace,
            name,
            Some(live.rv),
            object,
        ));
        return Ok(Some(if marked {
            Deleted::Marked(object)
        } else {
            Deleted::Gone(object)
        }));
    }
    let write = Write {
        resource: Arc::clone(&resource.key),
        namespace: writing.namespace.to_owned(),
        name: name.to_owned(),
        expect: Expect::Version(live.rv),
        object: marked.then(|| object.clone()),
    };
    // A definition takes its objects with it.
    let mut writes = Vec::new();
    if !marked && resource.is(customresource::GROUP, customresource::PLURAL) {
        writes = customresource::removals(&state, &object);
    }
    writes.push(write);
    let written = state.store.write_all(writes).await.map(|mut written| {
        written
            .pop()
            .expect("invariant: every write gives an object")
    });
    match written {
        Ok(written) if marked => Ok(Some(Deleted::Marked(written))),
        Ok(written) => {
            let last = Object::dry_run(writing.namespace, name, Some(written.rv), object);
            Ok(Some(Deleted::Gone(Arc::new(last))))
        }
        Err(storage::Error::Conflict) => Ok(None),
        Err(error) => Err(Writing::store_error(error)),
    }
}

/// How long a Pod may take to end: what was asked, else what it says itself; none if it does not run.
fn grace(pod: &Value, options: &DeleteOptions) -> i64 {
    let unscheduled = tree::text(pod, "spec.nodeName").is_empty();
    let over = matches!(tree::text(pod, "status.phase"), "Failed" | "Succeeded");
    if unscheduled || over {
        return 0;
    }
    let own = tree::int(pod, "spec.terminationGracePeriodSeconds").unwrap_or(30);
    options.grace_period_seconds.unwrap_or(own).max(0)
}

/// The finalizers of the garbage collector follow from how dependents are to be treated.
fn set_finalizers(object: &mut Value, options: &DeleteOptions) {
    let Some(propagation) = options.propagation else {
        return;
    };
    let metadata = tree::child(object, "metadata");
    let mut finalizers: Vec<Value> = tree::list(metadata, "finalizers").to_vec();
    finalizers.retain(|f| f != ORPHAN && f != FOREGROUND);
    match propagation {
        Propagation::Orphan => finalizers.push(json!(ORPHAN)),
        Propagation::Foreground => finalizers.push(json!(FOREGROUND)),
        Propagation::Background => {}
    }
    let finalizers = (!finalizers.is_empty()).then(|| Value::from(finalizers));
    tree::put(metadata, "finalizers", finalizers);
}
