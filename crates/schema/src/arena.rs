//! The compiled form of schemas: an arena of [`Node`]s addressed by [`NodeId`]. Built-in kinds
//! share one arena, every custom kind has its own. How nodes come to be is in `builtin` and
//! `custom`; what walks them is in `coerce`, `strategic`, `typed`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::custom::Rules;

/// An interned string.
pub(crate) type Str = Arc<str>;

/// Index of a node in its arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(pub(crate) u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    String,
    Bool,
    Int32,
    Int64,
    Float,
    IntOrString,
    Quantity,
    Time,
    MicroTime,
    Bytes,
}

#[derive(Clone, Debug)]
pub(crate) enum Shape {
    Object(Object),
    /// String keys to values of one shape.
    Map(NodeId),
    List(NodeId),
    Scalar(Scalar),
    /// Any JSON; merged and owned as one value.
    Any,
    /// Any JSON inside, yet its objects are merged and owned field by field, as upstream's
    /// deduced schema has it: preserved unknown fields.
    Deduced,
}

/// How several writers share a list or map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Relation {
    /// Maps: field by field. Lists are never granular without keys.
    #[default]
    Granular,
    Atomic,
    Set,
    Keyed(Arc<[Str]>),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Object {
    pub(crate) fields: BTreeMap<Str, Field>,
    /// Unknown fields are kept (custom resources only).
    pub(crate) preserve_unknown: bool,
}

/// When Go writes a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Not a Go field: as it came.
    AsGiven,
    /// A pointer, absent when nil; `omit: false` writes null.
    Pointer { omit: bool },
    /// A value: written always, or left out when empty.
    Value { omit_empty: bool, omit_zero: bool },
}

#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) node: NodeId,
    pub(crate) presence: Presence,
    pub(crate) default: Option<Value>,
    pub(crate) patch: Patch,
}

/// How strategic merge treats a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Patch {
    pub(crate) merge: bool,
    pub(crate) retain_keys: bool,
    pub(crate) merge_key: Option<Str>,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) shape: Shape,
    pub(crate) relation: Relation,
    /// The Go type as error texts name it; empty for custom resources.
    pub(crate) go: Str,
    /// What custom resource definitions add.
    pub(crate) rules: Option<Box<Rules>>,
}

impl Node {
    pub(crate) fn new(shape: Shape, go: &str) -> Self {
        Self {
            shape,
            relation: Relation::default(),
            go: Str::from(go),
            rules: None,
        }
    }

    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        match &self.shape {
            Shape::Object(object) => object.fields.get(name),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Arena {
    nodes: Vec<Node>,
}

impl Arena {
    pub(crate) fn push(&mut self, node: Node) -> NodeId {
        let id = NodeId(u32::try_from(self.nodes.len()).expect("invariant: fewer than 2^32 nodes"));
        self.nodes.push(node);
        id
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(crate) fn replace(&mut self, id: NodeId, node: Node) {
        self.nodes[id.0 as usize] = node;
    }
}

/// One kind's compiled schema; cheap to clone, usable after its definition is gone.
#[derive(Clone, Debug)]
pub struct Type {
    pub(crate) arena: Arc<Arena>,
    pub(crate) root: NodeId,
    pub(crate) custom: bool,
}

/// A place in a schema while walking an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    pub(crate) arena: &'a Arena,
    pub(crate) id: NodeId,
}

impl<'a> Cursor<'a> {
    pub(crate) fn node(self) -> &'a Node {
        self.arena.node(self.id)
    }

    pub(crate) fn at(self, id: NodeId) -> Self {
        Self {
            arena: self.arena,
            id,
        }
    }

    /// The schema of the entry `key` of a map or object, where it has one.
    pub(crate) fn child(self, key: &str) -> Option<Self> {
        match &self.node().shape {
            Shape::Object(object) => object.fields.get(key).map(|field| self.at(field.node)),
            Shape::Map(value) => Some(self.at(*value)),
            _ => None,
        }
    }

    /// The schema of a list's items.
    pub(crate) fn item(self) -> Option<Self> {
        match &self.node().shape {
            Shape::List(item) => Some(self.at(*item)),
            _ => None,
        }
    }
}

impl Type {
    pub(crate) fn cursor(&self) -> Cursor<'_> {
        Cursor {
            arena: &self.arena,
            id: self.root,
        }
    }

    /// Whether a custom resource definition made this kind.
    pub fn is_custom(&self) -> bool {
        self.custom
    }

    /// Whether the kind has the top-level field `name` (`status`, `spec`).
    pub fn has_field(&self, name: &str) -> bool {
        self.cursor().node().field(name).is_some()
    }
}
