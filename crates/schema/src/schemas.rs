//! [`Schemas`]: all kinds, built-in and custom, by group, version and kind.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

use crate::arena::{Arena, NodeId, Type};
use crate::custom::FieldError;
use crate::{Gvk, builtin, custom};

/// All schemas the server knows. Share it in an `Arc`; every method takes `&self`.
#[derive(Debug)]
pub struct Schemas {
    builtin: Arc<Arena>,
    roots: BTreeMap<Gvk, NodeId>,
    custom: RwLock<BTreeMap<Gvk, Custom>>,
}

#[derive(Clone, Debug)]
struct Custom {
    ty: Type,
    /// The structural schema as given, for OpenAPI documents.
    source: Arc<Value>,
}

impl Default for Schemas {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Schemas {
    /// The built-in kinds; takes a few milliseconds.
    pub fn builtin() -> Self {
        let (arena, roots) = builtin::compile();
        Self {
            builtin: Arc::new(arena),
            roots,
            custom: RwLock::default(),
        }
    }

    /// The schema of a kind, if it is known.
    pub fn get(&self, gvk: &Gvk) -> Option<Type> {
        if let Some(&root) = self.roots.get(gvk) {
            return Some(Type {
                arena: self.builtin.clone(),
                root,
                custom: false,
            });
        }
        let custom = self.custom.read().unwrap_or_else(PoisonError::into_inner);
        custom.get(gvk).map(|custom| custom.ty.clone())
    }

    /// Adds or replaces a custom kind by its `openAPIV3Schema`. The errors name fields below
    /// `openAPIV3Schema`.
    pub fn install(&self, gvk: Gvk, structural: &Value) -> Result<(), Vec<FieldError>> {
        let ty = custom::compile(structural)?;
        let entry = Custom {
            ty,
            source: Arc::new(structural.clone()),
        };
        let mut custom = self.custom.write().unwrap_or_else(PoisonError::into_inner);
        custom.insert(gvk, entry);
        Ok(())
    }

    /// Forgets a custom kind.
    pub fn remove(&self, gvk: &Gvk) {
        let mut custom = self.custom.write().unwrap_or_else(PoisonError::into_inner);
        custom.remove(gvk);
    }

    /// The custom kinds of a group-version with their structural schemas.
    pub(crate) fn custom_kinds(&self, group: &str, version: &str) -> Vec<(Gvk, Arc<Value>)> {
        let custom = self.custom.read().unwrap_or_else(PoisonError::into_inner);
        custom
            .iter()
            .filter(|(gvk, _)| gvk.group == group && gvk.version == version)
            .map(|(gvk, custom)| (gvk.clone(), custom.source.clone()))
            .collect()
    }
}
