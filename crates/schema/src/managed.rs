//! `metadata.managedFields`: who owns which field. [`update`] records an ordinary write,
//! [`apply`] is server-side apply. Both work on whole objects in Go form; when they are called in
//! a request (before admission) is the caller's business.

mod entries;

use std::collections::BTreeMap;

use serde_json::Value;

use self::entries::{
    Entry, Id, Managers, Operation, cap, decode, live_or_new, managed_of, put_managed, take_managed,
};
use crate::Gvk;
use crate::arena::Type;
use crate::fieldset::{FieldSet, PathElement, display_path};

/// The manager of fields that were there before anyone applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager of `kubectl apply --server-side`, and the annotation of a client-side apply.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Fields nobody owns.
const STRIPPED: [&str; 12] = [
    "apiVersion",
    "kind",
    "metadata",
    "metadata.name",
    "metadata.namespace",
    "metadata.creationTimestamp",
    "metadata.selfLink",
    "metadata.uid",
    "metadata.clusterName",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.resourceVersion",
];

/// Who writes, and how.
#[derive(Clone, Debug)]
pub struct Writer<'a> {
    /// `fieldManager`, or the user agent up to its slash; empty is "unknown".
    pub manager: &'a str,
    /// The version of the request, such as `apps/v1`.
    pub api_version: &'a str,
    /// The subresource, or "".
    pub subresource: &'a str,
    /// Now, as RFC 3339 in whole seconds.
    pub time: &'a str,
    /// Fields this endpoint resets and nobody may own through it: `status` for the main resource
    /// of a kind with a status subresource, `spec` and others for `/status`.
    pub reset: &'a FieldSet,
}

/// Fields that an apply would take from another manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `conflict with "two" using v1`: the message of a cause.
    pub message: String,
    /// `.spec.replicas`: the field of a cause.
    pub field: String,
    path: Vec<PathElement>,
}

/// Why an apply was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Displays as the message of the 409 Conflict.
    #[error("{}", conflict_message(.0))]
    Conflict(Vec<Conflict>),
    /// The applied configuration does not fit the schema.
    #[error("{0}")]
    Invalid(String),
    #[error("metadata.managedFields must be nil")]
    ManagedFieldsGiven,
}

impl Writer<'_> {
    fn id(&self, operation: Operation) -> Id {
        let name = if self.manager.is_empty() {
            "unknown"
        } else {
            self.manager
        };
        Id {
            manager: name.to_owned(),
            operation,
            api_version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => self.api_version.to_owned(),
            },
            subresource: self.subresource.to_owned(),
        }
    }
}

/// Records in `new.metadata.managedFields` what this write changed since `live`; `None` is a
/// create. What `new` brings as managed fields is honoured as upstream does: the main resource may
/// edit them, an entry `[{}]` resets them, nothing at all keeps the live ones.
pub fn update(ty: &Type, live: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let given = take_managed(new);
    let live_managed = live.map(managed_of).unwrap_or_default();
    let mut managers = live_or_new(&live_managed, given, !writer.subresource.is_empty());
    // Once nobody is tracked, an update does not start it; only an apply does.
    if managers.is_empty() && live.is_some() {
        return;
    }
    let before = live.map_or_else(|| ty.zero(), without_managed);
    record(
        ty,
        &before,
        new,
        &mut managers,
        writer,
        &writer.id(Operation::Update),
    );
    cap(&mut managers);
    put_managed(new, &managers);
}

/// Merges `applied` into `live` (`None` is a create), removes what this manager applied before
/// and no longer does, and records the ownership. The result still has to be defaulted and
/// validated. The times of unchanged entries stay; if nothing changed the object equals the live
/// one but for ownership.
///
/// The manager `kubectl` may take over what `kubectl apply` without `--server-side` last set, as
/// the annotation on the live object says, and keeps that annotation up to date.
pub fn apply(
    ty: &Type,
    live: Option<&Value>,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let outcome = merge_applied(ty, live, applied, writer, force);
    if writer.manager != KUBECTL {
        return outcome;
    }
    let mut result = match (
        outcome,
        live.and_then(|live| last_applied(ty, live, writer)),
    ) {
        (Err(ApplyError::Conflict(conflicts)), Some(allowed)) => {
            let left: Vec<Conflict> = conflicts
                .into_iter()
                .filter(|conflict| !allowed.has(&conflict.path))
                .collect();
            if !left.is_empty() {
                return Err(ApplyError::Conflict(left));
            }
            merge_applied(ty, live, applied, writer, true)?
        }
        (outcome, _) => outcome?,
    };
    let annotations = result
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut);
    if let Some(text) = annotations.and_then(|map| map.get_mut(LAST_APPLIED)) {
        let mut bare = applied.clone();
        let annotations = bare
            .pointer_mut("/metadata/annotations")
            .and_then(Value::as_object_mut);
        if let Some(annotations) = annotations {
            annotations.remove(LAST_APPLIED);
        }
        *text = Value::from(format!("{bare}\n"));
    }
    Ok(result)
}

/// What the last client-side apply set and still stands: the fields of its annotation that are
/// the same in the live object.
fn last_applied(ty: &Type, live: &Value, writer: &Writer<'_>) -> Option<FieldSet> {
    let text = live["metadata"]["annotations"][LAST_APPLIED].as_str()?;
    let last: Value = serde_json::from_str(text).ok()?;
    if last["apiVersion"] != writer.api_version {
        return None;
    }
    let comparison = ty.compare(&last, live);
    let set = ty.field_set(&last);
    Some(
        set.difference(&comparison.modified)
            .difference(&comparison.added)
            .difference(&comparison.removed),
    )
}

fn merge_applied(
    ty: &Type,
    live: Option<&Value>,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    if applied["metadata"]["managedFields"]
        .as_array()
        .is_some_and(|list| !list.is_empty())
    {
        return Err(ApplyError::ManagedFieldsGiven);
    }
    let mut applied = applied.clone();
    if let Some(metadata) = applied.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    ty.check_applied(&applied).map_err(|fault| {
        let text = |name: &str| applied["metadata"][name].as_str().unwrap_or("").to_owned();
        ApplyError::Invalid(format!(
            "failed to create typed patch object ({}/{}; {}): {fault}",
            text("namespace"),
            text("name"),
            Gvk::of(&applied).unwrap_or_default(),
        ))
    })?;
    let zero = ty.zero();
    let before = live.map_or_else(|| zero.clone(), without_managed);
    let mut managers = live
        .map(managed_of)
        .map_or_else(Managers::new, |list| decode(&list));
    if managers.is_empty() && live.is_some() {
        let first = Writer {
            manager: BEFORE_FIRST_APPLY,
            ..writer.clone()
        };
        let id = first.id(Operation::Update);
        record(ty, &zero, &before, &mut managers, &first, &id);
    }

    let id = writer.id(Operation::Apply);
    let last = managers.remove(&id);
    let last_time = last.as_ref().and_then(|entry| entry.time.clone());
    let last_set = last.map(|entry| entry.set).unwrap_or_default();
    let set = ty.field_set(&applied).recursive_difference(writer.reset);
    let merged = ty.merge(&before, &applied);
    let pruned = prune(
        ty,
        &merged,
        &managers,
        &last_set.recursive_difference(writer.reset),
        &set,
    );
    let mut result = drop_nulls_from_prune(ty, pruned);
    ty.normalise(&mut result);

    let comparison = ty.compare(&before, &result);
    let changed = comparison
        .added
        .union(&comparison.modified)
        .recursive_difference(writer.reset);
    take(&mut managers, None, &changed, &comparison.removed, force)?;

    let unchanged = before == result && live.is_some();
    let set = set.difference(&FieldSet::of_fields(&STRIPPED));
    if !set.is_empty() {
        let entry = Entry {
            set,
            api_version: writer.api_version.to_owned(),
            time: if unchanged {
                last_time
            } else {
                Some(writer.time.to_owned())
            },
        };
        managers.insert(id, entry);
    }
    put_managed(&mut result, &managers);
    Ok(result)
}

/// Takes the managed fields of `live` if nothing but their times differs, so that a write without
/// effect stays one.
pub fn ignore_times(live: &Value, new: &mut Value) {
    let timeless = |object: &Value| {
        let mut object = object.clone();
        let entries = object
            .get_mut("metadata")
            .and_then(|metadata| metadata.get_mut("managedFields"))
            .and_then(Value::as_array_mut);
        for entry in entries
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
        {
            entry.remove("time");
        }
        object
    };
    if timeless(live) == timeless(new) {
        new.clone_from(live);
    }
}

/// The object without its managed fields.
pub fn without_managed(object: &Value) -> Value {
    let mut object = object.clone();
    take_managed(&mut object);
    object
}

/// Gives what changed from `before` to `new` to the manager `id`.
fn record(
    ty: &Type,
    before: &Value,
    new: &Value,
    managers: &mut Managers,
    writer: &Writer<'_>,
    id: &Id,
) {
    let comparison = ty.compare(before, new);
    let changed = comparison
        .added
        .union(&comparison.modified)
        .recursive_difference(writer.reset);
    let removed = comparison.removed.recursive_difference(writer.reset);
    // Everybody loses what changed, this manager's earlier self included: it is given back below.
    take(managers, None, &changed, &removed, true)
        .expect("invariant: a forced take has no conflicts");
    let set = changed.difference(&FieldSet::of_fields(&STRIPPED));
    if set.is_empty() {
        return;
    }
    let set = match managers.remove(id) {
        Some(previous) => previous.set.union(&set),
        None => set,
    };
    let entry = Entry {
        set,
        api_version: writer.api_version.to_owned(),
        time: Some(writer.time.to_owned()),
    };
    managers.insert(id.clone(), entry);
}

/// Takes changed and removed fields from all managers but `keep`; without force, fields that
/// others own are conflicts.
fn take(
    managers: &mut Managers,
    keep: Option<&Id>,
    changed: &FieldSet,
    removed: &FieldSet,
    force: bool,
) -> Result<(), ApplyError> {
    if !force {
        let mut conflicts = Vec::new();
        for (id, entry) in managers.iter().filter(|(id, _)| Some(*id) != keep) {
            for path in entry.set.intersection(changed).paths() {
                conflicts.push(Conflict {
                    message: format!("conflict with {}", id.describe()),
                    field: display_path(&path),
                    path,
                });
            }
        }
        if !conflicts.is_empty() {
            return Err(ApplyError::Conflict(conflicts));
        }
    }
    for (id, entry) in managers.iter_mut() {
        if Some(id) != keep {
            entry.set = entry.set.difference(changed).difference(removed);
        }
    }
    managers.retain(|_, entry| !entry.set.is_empty());
    Ok(())
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [conflict] = conflicts {
        return format!(
            "Apply failed with 1 conflict: {}: {}",
            conflict.message, conflict.field
        );
    }
    let mut by_manager: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for conflict in conflicts {
        by_manager
            .entry(&conflict.message)
            .or_default()
            .push(&conflict.field);
    }
    let mut lines = Vec::new();
    for (message, fields) in by_manager {
        let manager = message.strip_prefix("conflict with ").unwrap_or(message);
        lines.push(format!("conflicts with {manager}:"));
        lines.extend(fields.into_iter().map(|field| format!("- {field}")));
    }
    format!(
        "Apply failed with {} conflicts: {}",
        conflicts.len(),
        lines.join("\n")
    )
}

/// Removes from `merged` what this applier set last time and does not set now, unless another
/// manager owns it.
fn prune(
    ty: &Type,
    merged: &Value,
    others: &Managers,
    last_set: &FieldSet,
    new_set: &FieldSet,
) -> Value {
    if last_set.is_empty() {
        return merged.clone();
    }
    let named = |set: &FieldSet| ty.with_named_fields(set);
    let merged_set = named(&ty.field_set(merged));
    let last = named(last_set);

    let pruned = ty.remove_items(merged, &last);
    let owned = others
        .values()
        .fold(new_set.clone(), |set, entry| set.union(&entry.set));
    let kept = named(&ty.field_set(&pruned)).union(&named(&owned));
    let pruned = ty.remove_items(merged, &merged_set.difference(&kept));

    let kept = named(&ty.field_set(&pruned));
    let gone = merged_set.difference(&kept).intersection(&last);
    ty.remove_items(merged, &gone)
}

/// Removing the last entry of a map leaves null; in custom resources, which keep nulls, it goes.
fn drop_nulls_from_prune(ty: &Type, value: Value) -> Value {
    fn drop(value: Value) -> Value {
        match value {
            Value::Object(map) => Value::Object(
                map.into_iter()
                    .filter(|(_, value)| !value.is_null())
                    .map(|(key, value)| (key, drop(value)))
                    .collect(),
            ),
            other => other,
        }
    }
    if ty.is_custom() { drop(value) } else { value }
}
