//! [`Kind`]: one row per resource type: its names, verbs and subresources, and the [`Strategy`] that
//! says how its objects are defaulted, prepared, validated, printed and selected.
//!
//! The order in which a server calls a row, as upstream does it:
//! - create: decode, [`Kind::default`], set `metadata.{namespace,uid,creationTimestamp,name}`,
//!   [`Kind::prepare_create`], [`Kind::validate_create`], store;
//! - update: decode or patch, [`Kind::default`], [`Kind::prepare_update`] (or
//!   [`Kind::prepare_status_update`]), [`Kind::validate_update`] (or
//!   [`Kind::validate_status_update`]), store. `new` carries the old uid and resourceVersion.
//!
//! Custom resources get a row at run time from [`Kind::custom`]. What needs other objects
//! (admission, address allocation) is the server's; the facts it needs are in
//! [`crate::core::service`] and [`crate::core::pod::admission`].

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::ctx::Ctx;
use crate::field::{ErrorList, Path};
use crate::selector::Fields;
use crate::table::{self, Column};
use crate::{meta, shape, tree};

/// A short static or run-time string.
pub type Name = Cow<'static, str>;

/// A resource type and everything hand-written about it.
#[derive(Clone, Debug)]
pub struct Kind {
    pub group: Name,
    pub version: Name,
    /// `Deployment`
    pub kind: Name,
    /// `deployments`
    pub plural: Name,
    /// `deployment`
    pub singular: Name,
    pub namespaced: bool,
    pub short_names: Vec<Name>,
    pub categories: Vec<Name>,
    pub verbs: Vec<Name>,
    pub subresources: Vec<Subresource>,
    pub strategy: Strategy,
}

/// A path below an object: `pods/log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// `status`
    pub name: Name,
    /// The kind that requests and answers carry there, `Scale` for `deployments/scale`.
    pub kind: Name,
    /// Group and version of that kind where they differ from the resource's own.
    pub group_version: Option<(Name, Name)>,
    pub verbs: Vec<Name>,
}

/// What the server has to draw for an object before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    None,
    /// Cluster IPs and node ports; see [`crate::core::service`].
    Service,
}

/// How changes count in `metadata.generation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The kind keeps none.
    Off,
    /// Starts at 1 and grows when `spec` changes.
    Spec,
    /// Starts at 1 and grows when anything but metadata and status changes.
    Content,
    /// As `Content`, where status has no subresource of its own and so counts.
    ContentAndStatus,
}

/// Functions and facts of a kind. [`Strategy::GENERIC`] does what every object gets; rows override.
#[derive(Clone, Copy, Debug)]
pub struct Strategy {
    pub default: fn(&mut Value),
    pub prepare_create: fn(&Ctx, &mut Value),
    pub prepare_update: fn(&Ctx, &mut Value, &Value),
    pub prepare_status: fn(&Ctx, &mut Value, &Value),
    /// Validates everything but metadata, which `name` governs.
    pub validate: fn(&Ctx, &Value) -> ErrorList,
    /// Validates a change; metadata's own rules are applied before.
    pub validate_update: fn(&Ctx, &Value, &Value) -> ErrorList,
    pub validate_status: fn(&Ctx, &Value, &Value) -> ErrorList,
    /// Messages for a name that is not allowed; the flag says that it is a generateName prefix.
    pub name: fn(&str, bool) -> Vec<String>,
    /// The cells of a table row, one per column; `None` prints Name and Created At.
    pub row: Option<fn(&Ctx, &Value) -> Vec<Value>>,
    pub fields: &'static Fields,
    /// The status of a new object as JSON; "" for a kind without one.
    pub empty_status: &'static str,
    pub generation: Generation,
    /// Whether `status` is a subresource that the main endpoint leaves alone.
    pub has_status: bool,
    /// Whether a new object may bring its status (Nodes).
    pub status_on_create: bool,
    /// Whether deletion waits `gracePeriodSeconds` (Pods).
    pub graceful: bool,
    /// Whether an update may leave `resourceVersion` out.
    pub unconditional_update: bool,
    /// Whether PUT to a missing name creates it.
    pub create_on_update: bool,
    pub allocation: Allocation,
    /// The warning every request on this kind gets, if it is deprecated.
    pub deprecation: Option<&'static str>,
    /// Further warnings about an object that is created or changed.
    pub warnings: fn(&Value, Option<&Value>) -> Vec<String>,
}

impl Strategy {
    /// Nothing kind-specific: DNS-subdomain names, spec kept as it comes, no status.
    pub const GENERIC: Self = Self {
        default: |_| {},
        prepare_create: |_, _| {},
        prepare_update: |_, _, _| {},
        prepare_status: |_, _, _| {},
        validate: |_, _| ErrorList::new(),
        validate_update: |_, _, _| ErrorList::new(),
        validate_status: |_, _, _| ErrorList::new(),
        name: crate::content::name_is_dns_subdomain,
        row: None,
        fields: &crate::selector::METADATA_FIELDS,
        empty_status: "",
        generation: Generation::Off,
        has_status: false,
        status_on_create: false,
        graceful: false,
        unconditional_update: true,
        create_on_update: false,
        allocation: Allocation::None,
        deprecation: None,
        warnings: |_, _| Vec::new(),
    };
}

/// The names of a custom resource's row.
#[derive(Clone, Debug)]
pub struct CustomNames {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub namespaced: bool,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    /// Whether the version has the status subresource.
    pub status: bool,
    /// Whether the version has the scale subresource.
    pub scale: bool,
}

/// The verbs of an ordinary resource.
pub const ALL_VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
/// The verbs of an ordinary subresource.
pub const SUB_VERBS: [&str; 3] = ["get", "patch", "update"];

impl Kind {
    /// A custom resource's row.
    pub fn custom(names: CustomNames) -> Self {
        let owned = |list: Vec<String>| list.into_iter().map(Cow::Owned).collect();
        let mut subresources = Vec::new();
        if names.status {
            subresources.push(Subresource::plain("status", &names.kind));
        }
        if names.scale {
            subresources.push(Subresource {
                group_version: Some(("autoscaling".into(), "v1".into())),
                ..Subresource::plain("scale", "Scale")
            });
        }
        Self {
            strategy: Strategy {
                has_status: names.status,
                generation: if names.status {
                    Generation::Content
                } else {
                    Generation::ContentAndStatus
                },
                fields: &crate::selector::CUSTOM_FIELDS,
                unconditional_update: false,
                ..Strategy::GENERIC
            },
            group: names.group.into(),
            version: names.version.into(),
            kind: names.kind.into(),
            plural: names.plural.into(),
            singular: names.singular.into(),
            namespaced: names.namespaced,
            short_names: owned(names.short_names),
            categories: owned(names.categories),
            verbs: ALL_VERBS.map(Cow::Borrowed).to_vec(),
            subresources,
        }
    }

    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            return self.version.to_string();
        }
        format!("{}/{}", self.group, self.version)
    }

    /// `Deployment.apps`, or `Pod` for the core group; messages about validity use it.
    pub fn group_kind(&self) -> String {
        qualified(&self.kind, &self.group)
    }

    /// `deployments.apps`, or `pods` for the core group; most other messages use it.
    pub fn group_resource(&self) -> String {
        qualified(&self.plural, &self.group)
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|have| have == verb)
    }

    /// Group and version that this kind's objects are stored under: its own, except for the old
    /// versions that are served for old manifests. Such objects go through [`convert::to_storage`]
    /// first and are then handled by the row of the stored version.
    ///
    /// [`convert::to_storage`]: crate::convert::to_storage
    pub fn storage(&self) -> (&str, &str) {
        crate::convert::storage(self).unwrap_or((&self.group, &self.version))
    }

    /// The conditions of an object's table row, if it has any (finished Pods).
    pub fn row_conditions(&self, object: &Value) -> Option<Value> {
        let is_pod = self.group.is_empty() && self.plural == "pods";
        if is_pod {
            table::pod::row_conditions(object)
        } else {
            None
        }
    }

    /// Fills in what upstream's defaulting fills in, and the members that its encoder always writes.
    pub fn default(&self, object: &mut Value) {
        if !object.is_object() {
            return;
        }
        if !self.strategy.fields.custom {
            tree::drop_nulls(object);
        }
        meta::tidy(object);
        (self.strategy.default)(object);
        if !self.strategy.fields.custom {
            shape::complete(&self.api_version(), &self.kind, object);
        }
        if !self.strategy.empty_status.is_empty() && tree::get(object, "status").is_none() {
            tree::put(object, "status", Some(self.new_status()));
        }
    }

    /// Makes a decoded object a new one: no status from outside, first generation, finalizers.
    /// `metadata.uid` and `metadata.creationTimestamp` are set before.
    pub fn prepare_create(&self, ctx: &Ctx, object: &mut Value) {
        if self.strategy.has_status && !self.strategy.status_on_create {
            let status = (!self.strategy.empty_status.is_empty()).then(|| self.new_status());
            tree::put(object, "status", status);
        }
        if self.strategy.generation == Generation::Off {
            tree::remove(tree::child(object, "metadata"), "generation");
        } else {
            tree::child(object, "metadata")["generation"] = json!(1);
        }
        (self.strategy.prepare_create)(ctx, object);
    }

    /// Makes `new` the successor of `old`: system fields and status stay, generation counts.
    pub fn prepare_update(&self, ctx: &Ctx, new: &mut Value, old: &Value) {
        self.carry_metadata(new, old);
        if self.strategy.has_status {
            tree::put(new, "status", old.get("status").cloned());
        }
        (self.strategy.prepare_update)(ctx, new, old);
        self.count_generation(new, old);
    }

    /// Makes `new` the successor of `old` at the status endpoint: only status and some metadata change.
    pub fn prepare_status_update(&self, ctx: &Ctx, new: &mut Value, old: &Value) {
        self.carry_metadata(new, old);
        meta::keep_for_status(new, old, self.strategy.fields.custom);
        let (Some(new_map), Some(old_map)) = (new.as_object_mut(), old.as_object()) else {
            return;
        };
        let outside = |key: &str| !matches!(key, "metadata" | "status" | "kind" | "apiVersion");
        new_map.retain(|key, _| !outside(key) || old_map.contains_key(key));
        for (key, value) in old_map.iter().filter(|(key, _)| outside(key)) {
            new_map.insert(key.clone(), value.clone());
        }
        if let Some(generation) = tree::get(old, "metadata.generation") {
            tree::child(new, "metadata")["generation"] = generation.clone();
        }
        (self.strategy.prepare_status)(ctx, new, old);
    }

    /// The errors of a new object, after [`Kind::prepare_create`].
    pub fn validate_create(&self, ctx: &Ctx, object: &Value) -> ErrorList {
        let mut errors = self.validate_metadata(object);
        if !self.strategy.fields.custom {
            errors.extend(meta::validate_kube_finalizers(object));
        }
        errors.extend((self.strategy.validate)(ctx, object));
        if errors.is_empty() {
            errors = meta::validate_common(object, self.namespaced);
        }
        errors
    }

    /// The errors of a change, after [`Kind::prepare_update`].
    pub fn validate_update(&self, ctx: &Ctx, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate_changed_metadata(new, old);
        errors.extend((self.strategy.validate_update)(ctx, new, old));
        errors
    }

    /// The errors of a status change, after [`Kind::prepare_status_update`].
    pub fn validate_status_update(&self, ctx: &Ctx, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate_changed_metadata(new, old);
        errors.extend((self.strategy.validate_status)(ctx, new, old));
        errors
    }

    /// The columns of this kind's table.
    pub fn columns(&self) -> &'static [Column] {
        table::columns(&self.group, &self.version, &self.plural)
    }

    /// The cells of an object's row, one per column of [`Kind::columns`].
    pub fn row(&self, ctx: &Ctx, object: &Value) -> Vec<Value> {
        match self.strategy.row {
            Some(row) => row(ctx, object),
            None => table::generic_row(object),
        }
    }

    /// Warnings for an object that is created (`old` is none) or changed.
    pub fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings: Vec<String> = self
            .strategy
            .deprecation
            .iter()
            .map(ToString::to_string)
            .collect();
        warnings.extend((self.strategy.warnings)(object, old));
        warnings
    }

    fn validate_metadata(&self, object: &Value) -> ErrorList {
        meta::validate(
            object,
            self.namespaced,
            self.strategy.name,
            &Path::new("metadata"),
        )
    }

    /// The generic layer and the strategy both check a change of metadata, so that each of its errors
    /// is a cause twice (and told once).
    fn validate_changed_metadata(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = meta::validate_common(new, self.namespaced);
        errors.extend(meta::validate_update(new, old));
        errors.extend(meta::validate_update(new, old));
        errors
    }

    fn carry_metadata(&self, new: &mut Value, old: &Value) {
        meta::keep_system_fields(new, old);
        let unversioned = tree::text(new, "metadata.resourceVersion").is_empty();
        if unversioned && self.strategy.unconditional_update {
            let version = tree::get(old, "metadata.resourceVersion").cloned();
            tree::put(tree::child(new, "metadata"), "resourceVersion", version);
        }
    }

    fn new_status(&self) -> Value {
        serde_json::from_str(self.strategy.empty_status)
            .expect("invariant: every row's empty status is JSON, which a test checks")
    }

    fn count_generation(&self, new: &mut Value, old: &Value) {
        let changed = match self.strategy.generation {
            Generation::Off => {
                let kept = tree::get(old, "metadata.generation").cloned();
                tree::put(tree::child(new, "metadata"), "generation", kept);
                return;
            }
            Generation::Spec => !tree::same(new, old, "spec"),
            Generation::Content => content_changed(new, old, &["metadata", "status"]),
            Generation::ContentAndStatus => content_changed(new, old, &["metadata"]),
        };
        let before = tree::int(old, "metadata.generation").unwrap_or(0);
        tree::child(new, "metadata")["generation"] = json!(before + i64::from(changed));
    }
}

impl Subresource {
    /// A subresource that carries the given kind in its resource's own group and version.
    pub fn plain(name: &str, kind: &str) -> Self {
        Self {
            name: Cow::Owned(name.to_owned()),
            kind: Cow::Owned(kind.to_owned()),
            group_version: None,
            verbs: SUB_VERBS.map(Cow::Borrowed).to_vec(),
        }
    }
}

fn content_changed(new: &Value, old: &Value, except: &[&str]) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else {
        return new != old;
    };
    let counts = |key: &String| !except.contains(&key.as_str());
    new.keys()
        .chain(old.keys())
        .filter(|key| counts(key))
        .any(|key| !tree::alike(new.get(key), old.get(key)))
}

fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() {
        name.to_owned()
    } else {
        format!("{name}.{group}")
    }
}
