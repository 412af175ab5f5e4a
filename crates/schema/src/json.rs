//! Reading JSON into a [`Tree`]: like `serde_json::Value`, but keys stay in the order of the
//! document and duplicates stay visible, which strict decoding must report.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::syntax;

/// A JSON document as written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// Parses `bytes`; the error is worded as Go's `encoding/json` words it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes)
            .map_err(|error| syntax::check(bytes).unwrap_or_else(|| error.to_string()))
    }

    /// What Go's type errors call this value.
    pub(crate) fn go_kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::List(_) => "array",
            Self::Map(_) => "object",
        }
    }

    /// The last entry named `key`, as the decoder would see it.
    pub(crate) fn get(&self, key: &str) -> Option<&Tree> {
        match self {
            Self::Map(entries) => entries
                .iter()
                .rev()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// The plain value; of duplicate keys the last wins, and each is added to `duplicates` by path.
    pub(crate) fn into_value(self, path: &mut String, duplicates: &mut Vec<String>) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Number(value) => Value::Number(value),
            Self::String(value) => Value::String(value),
            Self::List(items) => Value::Array(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(index, item)| {
                        let length = push_index(path, index);
                        let value = item.into_value(path, duplicates);
                        path.truncate(length);
                        value
                    })
                    .collect(),
            ),
            Self::Map(entries) => {
                let mut map = Map::new();
                for (key, entry) in entries {
                    let length = push_key(path, &key);
                    if map.contains_key(&key) {
                        note(duplicates, path);
                    }
                    let value = entry.into_value(path, duplicates);
                    path.truncate(length);
                    map.insert(key, value);
                }
                Value::Object(map)
            }
        }
    }

    /// The plain value where nobody asks about duplicates.
    pub(crate) fn into_plain(self) -> Value {
        self.into_value(&mut String::new(), &mut Vec::new())
    }
}

/// Upstream stops collecting strict errors here.
pub(crate) const MAX_STRICT_ERRORS: usize = 100;

fn note(paths: &mut Vec<String>, path: &str) {
    if paths.len() < MAX_STRICT_ERRORS && !paths.iter().any(|known| known == path) {
        paths.push(path.to_owned());
    }
}

/// Appends `.key`; returns the length to truncate to.
pub(crate) fn push_key(path: &mut String, key: &str) -> usize {
    let length = path.len();
    if length > 0 {
        path.push('.');
    }
    path.push_str(key);
    length
}

/// Appends `[index]`; returns the length to truncate to.
pub(crate) fn push_index(path: &mut String, index: usize) -> usize {
    let length = path.len();
    path.push('[');
    path.push_str(&index.to_string());
    path.push(']');
    length
}

impl From<Value> for Tree {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(value) => Self::Number(value),
            Value::String(value) => Self::String(value),
            Value::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Value::Object(map) => Self::Map(
                map.into_iter()
                    .map(|(key, value)| (key, Self::from(value)))
                    .collect(),
            ),
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Tree, E> {
        Number::from_f64(value)
            .map(Tree::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}
