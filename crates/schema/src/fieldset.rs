//! Sets of field paths as `managedFields` hold them: a trie of [`PathElement`]s with set algebra
//! and the `FieldsV1` encoding. How a set follows from an object is in `typed`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

/// One step of a path. Keys and values are held as canonical JSON text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// A field of an object or map: `f:name`.
    Field(String),
    /// An item of a keyed list: `k:{"name":"a"}`.
    Key(String),
    /// An item of a set: `v:"a"`.
    Value(String),
    /// An item by position: `i:0`.
    Index(i64),
}

impl PathElement {
    pub fn field(name: &str) -> Self {
        Self::Field(name.to_owned())
    }

    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let canonical = |rest: &str| {
            let value: Value = serde_json::from_str(rest).ok()?;
            Some(value.to_string())
        };
        Some(match kind {
            "f" => Self::Field(rest.to_owned()),
            "k" => Self::Key(canonical(rest)?),
            "v" => Self::Value(canonical(rest)?),
            "i" => Self::Index(rest.parse().ok()?),
            _ => return None,
        })
    }

    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(key) => format!("k:{key}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

impl fmt::Display for PathElement {
    /// As conflict messages print it: `.name`, `[name="a"]`, `[="x"]`, `[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(key) => {
                let parsed: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
                let parts: Vec<String> = parsed
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                write!(f, "[{}]", parts.join(","))
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// Why `fieldsV1` could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a FieldsV1 path element")]
pub struct Error(String);

/// A set of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    members: BTreeSet<PathElement>,
    children: BTreeMap<PathElement, FieldSet>,
}

impl FieldSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// A set of plain fields, each given with dots: `metadata.name`, `status`.
    pub fn of_fields(paths: &[&str]) -> Self {
        let mut set = Self::new();
        for path in paths {
            let path: Vec<_> = path.split('.').map(PathElement::field).collect();
            set.insert(&path);
        }
        set
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    pub fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    pub fn has(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self.children.get(first).is_some_and(|set| set.has(rest)),
        }
    }

    pub(crate) fn has_member(&self, element: &PathElement) -> bool {
        self.members.contains(element)
    }

    pub(crate) fn add_member(&mut self, element: PathElement) {
        self.members.insert(element);
    }

    /// The paths below `element`.
    pub fn child(&self, element: &PathElement) -> Option<&FieldSet> {
        self.children.get(element)
    }

    pub(crate) fn children(&self) -> impl Iterator<Item = (&PathElement, &FieldSet)> {
        self.children.iter()
    }

    pub(crate) fn set_child(&mut self, element: PathElement, set: FieldSet) {
        if set.is_empty() {
            self.children.remove(&element);
        } else {
            self.children.insert(element, set);
        }
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut result = self.clone();
        result.members.extend(other.members.iter().cloned());
        for (element, set) in &other.children {
            let merged = match result.children.get(element) {
                Some(own) => own.union(set),
                None => set.clone(),
            };
            result.set_child(element.clone(), merged);
        }
        result
    }

    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut result = Self {
            members: self.members.intersection(&other.members).cloned().collect(),
            children: BTreeMap::new(),
        };
        for (element, set) in &self.children {
            if let Some(theirs) = other.children.get(element) {
                result.set_child(element.clone(), set.intersection(theirs));
            }
        }
        result
    }

    /// The paths of `self` that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.minus(other, false)
    }

    /// Like [`FieldSet::difference`], but a member of `other` also takes what lies below it.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        self.minus(other, true)
    }

    fn minus(&self, other: &Self, recursive: bool) -> Self {
        let mut result = Self {
            members: self.members.difference(&other.members).cloned().collect(),
            children: BTreeMap::new(),
        };
        for (element, set) in &self.children {
            if recursive && other.members.contains(element) {
                continue;
            }
            let rest = match other.children.get(element) {
                Some(theirs) => set.minus(theirs, recursive),
                None => set.clone(),
            };
            result.set_child(element.clone(), rest);
        }
        result
    }

    /// Every path, members before what lies below them.
    pub fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut all = Vec::new();
        self.collect(&mut Vec::new(), &mut all);
        all
    }

    fn collect(&self, prefix: &mut Vec<PathElement>, all: &mut Vec<Vec<PathElement>>) {
        for element in &self.members {
            prefix.push(element.clone());
            all.push(prefix.clone());
            prefix.pop();
        }
        for (element, set) in &self.children {
            prefix.push(element.clone());
            set.collect(prefix, all);
            prefix.pop();
        }
    }

    /// The `fieldsV1` of a managed fields entry.
    pub fn to_fields_v1(&self) -> Value {
        let mut map = Map::new();
        for element in &self.members {
            map.insert(element.encode(), Value::Object(Map::new()));
        }
        for (element, set) in &self.children {
            let mut below = set.to_fields_v1();
            if self.members.contains(element) {
                below["."] = Value::Object(Map::new());
            }
            map.insert(element.encode(), below);
        }
        Value::Object(map)
    }

    pub fn from_fields_v1(value: &Value) -> Result<Self, Error> {
        let mut set = Self::new();
        let map = value.as_object().ok_or_else(|| Error(value.to_string()))?;
        for (key, below) in map {
            if key == "." {
                continue;
            }
            let element = PathElement::parse(key).ok_or_else(|| Error(key.clone()))?;
            let fields = below.as_object().ok_or_else(|| Error(key.clone()))?;
            if fields.is_empty() || fields.contains_key(".") {
                set.members.insert(element.clone());
            }
            set.set_child(element, Self::from_fields_v1(below)?);
        }
        Ok(set)
    }
}

/// A whole path as conflict messages print it.
pub fn display_path(path: &[PathElement]) -> String {
    path.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{FieldSet, PathElement, display_path};

    fn set(value: serde_json::Value) -> FieldSet {
        FieldSet::from_fields_v1(&value).unwrap()
    }

    #[test]
    fn fields_v1_round_trips() {
        let value = json!({
            "f:data": {".": {}, "f:k": {}},
            "f:spec": {"f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}},
            "f:list": {"v:\"a\"": {}, "i:3": {}},
        });
        assert_eq!(set(value.clone()).to_fields_v1(), value);
        assert!(FieldSet::from_fields_v1(&json!({"x": {}})).is_err());
        assert!(FieldSet::from_fields_v1(&json!([])).is_err());
    }

    #[test]
    fn algebra_keeps_members_and_children_apart() {
        let whole = set(json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}}));
        let part = set(json!({"f:data": {"f:a": {}}}));
        assert_eq!(
            whole.difference(&part).to_fields_v1(),
            json!({"f:data": {".": {}, "f:b": {}}})
        );
        assert_eq!(whole.intersection(&part), part);
        assert_eq!(whole.union(&part), whole);
        let data = FieldSet::of_fields(&["data"]);
        assert_eq!(
            whole.difference(&data).to_fields_v1(),
            json!({"f:data": {"f:a": {}, "f:b": {}}})
        );
        assert!(whole.recursive_difference(&data).is_empty());
    }

    #[test]
    fn paths_print_as_conflicts_show_them() {
        let path = [
            PathElement::field("spec"),
            PathElement::Key("{\"name\":\"a\",\"port\":80}".to_owned()),
            PathElement::Value("\"x\"".to_owned()),
            PathElement::Index(2),
        ];
        assert_eq!(display_path(&path), ".spec[name=\"a\",port=80][=\"x\"][2]");
    }
}
