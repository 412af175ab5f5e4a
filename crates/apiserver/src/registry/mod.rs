//! The resources that are served, built-in and custom, and what is done with their objects.
//!
//! One [`Resource`] is a row of `kinds` as one API version serves it, plus where its objects are
//! stored and in which version. Create, update and delete are in the submodules, the same for all.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod hooks;
pub(crate) mod service;
pub(crate) mod update;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::{Bytes, BytesMut};
use kinds::table::custom::CustomTable;
use kinds::{Ctx, Kind, tree};
use schema::{Gvk, Schemas};
use serde_json::Value;

use crate::auth::UserInfo;
use crate::customresource;
use crate::endpoints::query::WriteOptions;
use crate::server::State;
use crate::status::{Cause, Result, Status};
use crate::storage::object::write_json;
use crate::storage::{Cache, Durability, Object, Store, resource_key};

/// Where a custom resource's scale is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScalePaths {
    pub(crate) spec_replicas: String,
    pub(crate) status_replicas: String,
    pub(crate) label_selector: String,
}

/// What only custom resources have.
#[derive(Debug)]
pub(crate) struct Custom {
    pub(crate) table: CustomTable,
    pub(crate) scale: Option<ScalePaths>,
    pub(crate) deprecation: Option<String>,
}

/// A resource in one API version.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) kind: Kind,
    /// The resource's name in the store.
    pub(crate) key: Arc<str>,
    pub(crate) api_version: String,
    pub(crate) list_kind: String,
    /// The schema's name.
    pub(crate) gvk: Gvk,
    pub(crate) stored_version: String,
    /// Whether objects are rewritten between this version and the stored one.
    pub(crate) converted: bool,
    pub(crate) custom: Option<Custom>,
}

/// Kinds that are questions, not objects: nothing of them is stored.
const REVIEWS: [&str; 8] = [
    "tokenreviews",
    "selfsubjectreviews",
    "subjectaccessreviews",
    "localsubjectaccessreviews",
    "selfsubjectaccessreviews",
    "selfsubjectrulesreviews",
    "bindings",
    "componentstatuses",
];

impl Resource {
    fn builtin(kind: Kind) -> Self {
        let stored = kinds::convert::storage(&kind);
        let (group, version) = stored.unwrap_or((&kind.group, &kind.version));
        Self {
            list_kind: format!("{}List", kind.kind),
            key: resource_key(group, &kind.plural).into(),
            api_version: kind.api_version(),
            gvk: Gvk::new(&*kind.group, &*kind.version, &*kind.kind),
            stored_version: Gvk::new(group, version, "").api_version(),
            converted: stored.is_some(),
            custom: None,
            kind,
        }
    }

    pub(crate) fn group(&self) -> &str {
        &self.kind.group
    }

    pub(crate) fn plural(&self) -> &str {
        &self.kind.plural
    }

    pub(crate) fn is_review(&self) -> bool {
        REVIEWS.contains(&self.plural())
            && matches!(
                self.group(),
                "" | "authentication.k8s.io" | "authorization.k8s.io"
            )
    }

    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.kind.group == group && self.kind.plural == plural
    }

    /// The object, or a 404.
    pub(crate) fn get(&self, state: &State, namespace: &str, name: &str) -> Result<Arc<Object>> {
        state
            .store
            .cache(&self.key)
            .get(namespace, name)
            .ok_or_else(|| Status::not_found(self.group(), self.plural(), name))
    }

    /// The object's text as this version serves it.
    pub(crate) fn bytes(&self, object: &Object) -> Bytes {
        let mut out = BytesMut::new();
        if self.converted {
            write_json(&mut out, &*self.shown(object));
        } else if self.custom.is_some() {
            object.write(&mut out, Some((&self.api_version, &self.kind.kind)));
        } else {
            return object.bytes().clone();
        }
        out.freeze()
    }

    /// Appends the object as a member of a list: built-in kinds leave their type out.
    pub(crate) fn write_item(&self, object: &Object, out: &mut BytesMut) {
        if self.converted {
            let mut shown = self.shown(object).into_owned();
            tree::remove(&mut shown, "kind");
            tree::remove(&mut shown, "apiVersion");
            write_json(out, &shown);
        } else if self.custom.is_some() {
            object.write(out, Some((&self.api_version, &self.kind.kind)));
        } else {
            object.write(out, None);
        }
    }

    /// The object as a tree, as this version serves it.
    pub(crate) fn shown<'a>(&self, object: &'a Object) -> Cow<'a, Value> {
        self.show(object.value())
    }

    /// A stored tree as this version serves it.
    pub(crate) fn show<'a>(&self, value: &'a Value) -> Cow<'a, Value> {
        if value["apiVersion"] == self.api_version.as_str() {
            return Cow::Borrowed(value);
        }
        let mut value = value.clone();
        if self.converted {
            kinds::convert::from_storage(&self.kind, &mut value);
        } else {
            value["apiVersion"] = self.api_version.as_str().into();
        }
        Cow::Owned(value)
    }

    /// A served tree as it is stored.
    pub(crate) fn to_stored(&self, value: &mut Value) {
        if value["apiVersion"] == self.stored_version.as_str() {
            return;
        }
        if self.converted {
            kinds::convert::to_storage(&self.kind, value);
        } else {
            value["apiVersion"] = self.stored_version.as_str().into();
        }
    }

    pub(crate) fn cells(&self, ctx: &Ctx, object: &Value) -> Vec<Value> {
        match &self.custom {
            Some(custom) => custom.table.row(ctx, object),
            None => self.kind.row(ctx, object),
        }
    }

    pub(crate) fn column_definitions(&self) -> Vec<Value> {
        let columns = match &self.custom {
            Some(custom) => custom.table.columns.as_slice(),
            None => self.kind.columns(),
        };
        columns.iter().map(kinds::table::Column::to_json).collect()
    }

    /// What every answer about a deprecated version says.
    pub(crate) fn read_warnings(&self) -> Vec<String> {
        let custom = self.custom.as_ref().and_then(|c| c.deprecation.clone());
        let builtin = self.kind.strategy.deprecation.map(ToOwned::to_owned);
        custom.into_iter().chain(builtin).collect()
    }
}

/// All resources at one moment.
#[derive(Debug, Default)]
pub(crate) struct Table {
    built_from: u64,
    by_path: HashMap<String, Arc<Resource>>,
    /// In the order of discovery: built-in ones first.
    pub(crate) all: Vec<Arc<Resource>>,
    versions: BTreeSet<(String, String)>,
}

impl Table {
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.by_path.get(&path_key(group, version, plural)).cloned()
    }

    pub(crate) fn has_version(&self, group: &str, version: &str) -> bool {
        self.versions
            .contains(&(group.to_owned(), version.to_owned()))
    }

    /// The resource whose objects this one shows in another form; itself where they are the same.
    pub(crate) fn stored_as(&self, resource: &Arc<Resource>) -> Arc<Resource> {
        let stored = kinds::convert::storage(&resource.kind).filter(|_| resource.converted);
        stored
            .and_then(|(group, version)| self.find(group, version, resource.plural()))
            .unwrap_or_else(|| Arc::clone(resource))
    }

    /// The resource of a kind.
    pub(crate) fn find_kind(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        self.all
            .iter()
            .find(|r| r.api_version == api_version && r.kind.kind == kind)
            .cloned()
    }

    fn add(&mut self, resource: Resource) {
        let kind = &resource.kind;
        let path = path_key(&kind.group, &kind.version, &kind.plural);
        if self.by_path.contains_key(&path) {
            return;
        }
        self.versions
            .insert((kind.group.to_string(), kind.version.to_string()));
        let resource = Arc::new(resource);
        self.by_path.insert(path, Arc::clone(&resource));
        self.all.push(resource);
    }
}

fn path_key(group: &str, version: &str, plural: &str) -> String {
    [group, version, plural].join("/")
}

/// Keeps the table in step with the CustomResourceDefinitions.
#[derive(Debug)]
pub(crate) struct Resources {
    definitions: Arc<Cache>,
    store: Arc<Store>,
    schemas: Arc<Schemas>,
    table: RwLock<Arc<Table>>,
}

impl Resources {
    pub(crate) fn new(store: Arc<Store>, schemas: Arc<Schemas>) -> Self {
        let definitions = store.cache(&resource_key(customresource::GROUP, customresource::PLURAL));
        let table = RwLock::new(Arc::new(builtin()));
        Self {
            definitions,
            store,
            schemas,
            table,
        }
    }

    /// The resources as of now: a definition that was answered is in here.
    pub(crate) fn current(&self) -> Arc<Table> {
        let now = self.definitions.last();
        {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            if table.built_from == now {
                return Arc::clone(&table);
            }
        }
        let mut slot = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if slot.built_from != now {
            let mut table = builtin();
            table.built_from = now;
            let definitions = self.definitions.snapshot("", self.store.position()).objects;
            let before: Vec<Gvk> = slot
                .all
                .iter()
                .filter(|r| r.custom.is_some())
                .map(|r| r.gvk.clone())
                .collect();
            for definition in &definitions {
                for resource in customresource::resources(&self.schemas, definition.value()) {
                    table.add(resource);
                }
            }
            for gvk in before {
                if !table.all.iter().any(|r| r.gvk == gvk) {
                    self.schemas.remove(&gvk);
                }
            }
            *slot = Arc::new(table);
        }
        Arc::clone(&slot)
    }
}

fn builtin() -> Table {
    let mut table = Table::default();
    for kind in kinds::all() {
        table.add(Resource::builtin(kind.clone()));
    }
    table
}

/// A write on its way: who, what, how. Warnings gather in it.
pub(crate) struct Writing<'a> {
    pub(crate) state: &'a Arc<State>,
    pub(crate) resource: &'a Arc<Resource>,
    pub(crate) namespace: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) user: &'a UserInfo,
    pub(crate) options: WriteOptions,
    pub(crate) manager: String,
    pub(crate) warnings: Vec<String>,
}

/// What a write left behind.
pub(crate) struct Written {
    pub(crate) object: Arc<Object>,
    pub(crate) created: bool,
}

impl Writing<'_> {
    /// When the write is answered: at once for what a part of this process keeps up to date anyway.
    pub(crate) fn durability(&self) -> Durability {
        let kept = [
            ("", "pods"),
            ("", "nodes"),
            ("", "events"),
            ("events.k8s.io", "events"),
            ("coordination.k8s.io", "leases"),
        ];
        let kept = kept
            .iter()
            .any(|(group, plural)| self.resource.is(group, plural));
        if self.user.in_process && kept {
            Durability::Behind
        } else {
            Durability::Synced
        }
    }

    /// 422 with everything that is wrong.
    pub(crate) fn invalid(&self, name: &str, causes: &[Cause]) -> Status {
        Status::invalid(
            self.resource.group(),
            &self.resource.kind.kind,
            name,
            causes,
        )
    }

    /// A store error as a Status.
    pub(crate) fn store_error(error: crate::storage::Error) -> Status {
        Status::internal(error)
    }
}
