//! Checking a tree against its type and bringing it into the form Go would encode: JSON types
//! checked with Go's error texts, unknown and duplicate fields collected and dropped, null treated
//! as absent, empty optional fields left out, fields that Go always writes filled in.

use serde_json::{Map, Value};

use crate::arena::{Cursor, Presence, Scalar, Shape, Type};
use crate::json::{MAX_STRICT_ERRORS, Tree, push_index, push_key};
use crate::{quantity, scalar};

/// A value in the form Go would encode it.
#[derive(Clone, Debug, PartialEq)]
pub struct Coerced {
    pub value: Value,
    /// `unknown field "spec.foo"`, `duplicate field "data.a"`, in the order of the document.
    pub strict: Vec<String>,
}

impl Type {
    /// Checks and normalises a tree that has no bytes any more, such as the result of a patch.
    /// The error is worded as Go's decoder words it.
    pub fn coerce(&self, value: Value) -> Result<Coerced, String> {
        self.coerce_tree(Tree::from(value))
    }

    pub(crate) fn coerce_tree(&self, tree: Tree) -> Result<Coerced, String> {
        let mut walker = Walker::default();
        let value = walker.value(self.cursor(), tree);
        match walker.fatal.or(walker.error) {
            Some(error) => Err(error),
            None => Ok(Coerced {
                value,
                strict: walker.strict,
            }),
        }
    }

    /// Drops what Go leaves out and fills in what Go always writes, without checking types: for
    /// trees changed by code after [`Type::coerce`]. Custom resources stay as they are, but for
    /// their metadata.
    pub fn normalise(&self, value: &mut Value) {
        normalise(self.cursor(), value);
    }

    /// The encoding of this kind's Go zero value: what a create is compared with.
    pub fn zero(&self) -> Value {
        zero(self.cursor())
    }
}

#[derive(Default)]
struct Walker<'a> {
    /// Where we are, as strict errors name it.
    path: String,
    /// The struct fields above, as type errors name them.
    fields: Vec<&'a str>,
    /// The Go type holding the last of them.
    owner: &'a str,
    strict: Vec<String>,
    /// The first mismatch: Go goes on after it.
    error: Option<String>,
    /// The first error of a type that decodes itself: Go stops there, and forgets mismatches.
    fatal: Option<String>,
}

impl<'a> Walker<'a> {
    fn strict(&mut self, what: &str) {
        self.strict_at(what, &self.path.clone());
    }

    fn strict_at(&mut self, what: &str, path: &str) {
        if self.strict.len() < MAX_STRICT_ERRORS {
            let text = format!("{what} field \"{path}\"");
            if !self.strict.contains(&text) {
                self.strict.push(text);
            }
        }
    }

    fn fail(&mut self, error: String) {
        if self.error.is_none() {
            self.error = Some(error);
        }
    }

    fn stop(&mut self, error: String) {
        if self.fatal.is_none() {
            self.fatal = Some(error);
        }
    }

    fn mismatch(&mut self, given: &str, go: &str) {
        let text = self.mismatch_text(given, go);
        self.fail(text);
    }

    fn mismatch_text(&self, given: &str, go: &str) -> String {
        let place = if self.fields.is_empty() {
            "Go value".to_owned()
        } else {
            let owner = self.owner.rsplit('.').next().unwrap_or_default();
            format!("Go struct field {owner}.{}", self.fields.join("."))
        };
        format!("json: cannot unmarshal {given} into {place} of type {go}")
    }

    fn value(&mut self, cursor: Cursor<'a>, tree: Tree) -> Value {
        let node = cursor.node();
        if tree == Tree::Null && !matches!(node.shape, Shape::Any | Shape::Deduced) {
            return if node.go.is_empty() {
                Value::Null
            } else {
                zero(cursor)
            };
        }
        match (&node.shape, tree) {
            (Shape::Object(_), Tree::Map(entries)) => self.object(cursor, entries),
            (Shape::Map(value), Tree::Map(entries)) => {
                let mut map = Map::new();
                for (key, entry) in entries {
                    let length = push_key(&mut self.path, &key);
                    if map.contains_key(&key) {
                        self.strict("duplicate");
                    }
                    let entry = self.value(cursor.at(*value), entry);
                    self.path.truncate(length);
                    map.insert(key, entry);
                }
                Value::Object(map)
            }
            (Shape::List(item), Tree::List(items)) => {
                let items = items.into_iter().enumerate().map(|(index, entry)| {
                    let length = push_index(&mut self.path, index);
                    let entry = self.value(cursor.at(*item), entry);
                    self.path.truncate(length);
                    entry
                });
                Value::Array(items.collect())
            }
            (Shape::Scalar(kind), tree) => self.scalar(*kind, &node.go, tree),
            (Shape::Any | Shape::Deduced, tree) => {
                let mut duplicates = Vec::new();
                let value = tree.into_value(&mut self.path, &mut duplicates);
                for path in duplicates {
                    self.strict_at("duplicate", &path);
                }
                value
            }
            // Custom resources are not typed here: their schema's validation speaks.
            (_, tree) if node.go.is_empty() => tree.into_plain(),
            (_, tree) => {
                self.mismatch(tree.go_kind(), &node.go);
                zero(cursor)
            }
        }
    }

    fn object(&mut self, cursor: Cursor<'a>, entries: Vec<(String, Tree)>) -> Value {
        let node = cursor.node();
        let Shape::Object(object) = &node.shape else {
            unreachable!("only called for objects");
        };
        let mut map = Map::new();
        let mut seen: Vec<&str> = Vec::new();
        let outer = self.owner;
        for (key, entry) in entries {
            let length = push_key(&mut self.path, &key);
            if let Some((name, field)) = object.fields.get_key_value(key.as_str()) {
                if seen.contains(&name.as_ref()) {
                    self.strict("duplicate");
                }
                seen.push(name);
                if entry == Tree::Null && field.presence != Presence::AsGiven {
                    map.remove(&key);
                } else {
                    self.fields.push(name);
                    self.owner = &node.go;
                    let entry = self.value(cursor.at(field.node), entry);
                    self.owner = outer;
                    self.fields.pop();
                    map.insert(key, entry);
                }
            } else if object.preserve_unknown {
                if map.contains_key(&key) {
                    self.strict("duplicate");
                }
                let entry = entry.into_plain();
                map.insert(key, entry);
            } else {
                self.strict("unknown");
            }
            self.path.truncate(length);
        }
        finish(cursor, &mut map);
        Value::Object(map)
    }

    fn scalar(&mut self, kind: Scalar, go: &str, tree: Tree) -> Value {
        let custom = go.is_empty();
        match (kind, tree) {
            (Scalar::String | Scalar::IntOrString, Tree::String(text)) => Value::String(text),
            (Scalar::Bool, Tree::Bool(value)) => Value::Bool(value),
            (Scalar::Float, Tree::Number(number)) => Value::Number(number),
            (_, tree) if custom => tree.into_plain(),
            (Scalar::Int32 | Scalar::IntOrString, Tree::Number(number)) => {
                let value = number.as_i64().and_then(|value| i32::try_from(value).ok());
                if value.is_none() {
                    let text = self.mismatch_text(&format!("number {number}"), "int32");
                    if kind == Scalar::IntOrString {
                        self.stop(text);
                    } else {
                        self.fail(text);
                    }
                }
                Value::from(value.unwrap_or_default())
            }
            (Scalar::Int64, Tree::Number(number)) => {
                let value = number.as_i64();
                if value.is_none() {
                    self.mismatch(&format!("number {number}"), go);
                }
                Value::from(value.unwrap_or_default())
            }
            (Scalar::IntOrString, tree) => {
                let text = self.mismatch_text(tree.go_kind(), "int32");
                self.stop(text);
                Value::from(0)
            }
            (Scalar::Quantity, Tree::String(text)) => self.quantity(&text),
            (Scalar::Quantity, Tree::Number(number)) => self.quantity(&number.to_string()),
            (Scalar::Quantity, _) => self.quantity("!"),
            (Scalar::Time | Scalar::MicroTime, Tree::String(text)) => {
                match scalar::time(&text, kind == Scalar::MicroTime) {
                    Ok(text) => Value::String(text),
                    Err(error) => {
                        self.stop(error);
                        Value::Null
                    }
                }
            }
            (Scalar::Time | Scalar::MicroTime, tree) => {
                let text = self.mismatch_text(tree.go_kind(), "string");
                self.stop(text);
                Value::Null
            }
            (Scalar::Bytes, Tree::String(text)) => match scalar::base64(&text) {
                Ok(text) => Value::String(text),
                Err(error) => {
                    self.fail(error);
                    Value::Null
                }
            },
            (_, tree) => {
                self.mismatch(tree.go_kind(), go);
                Value::Null
            }
        }
    }

    fn quantity(&mut self, text: &str) -> Value {
        match quantity::canonical(text) {
            Ok(text) => Value::String(text),
            Err(error) => {
                self.stop(error.to_owned());
                Value::from("0")
            }
        }
    }
}

/// Applies Go's `omitempty` and zero values to the fields of one object.
fn finish(cursor: Cursor<'_>, map: &mut Map<String, Value>) {
    let Shape::Object(object) = &cursor.node().shape else {
        return;
    };
    for (name, field) in &object.fields {
        let name: &str = name;
        let given = map.get(name).filter(|value| !value.is_null());
        match field.presence {
            Presence::AsGiven => {}
            Presence::Pointer { omit } => match (given, omit) {
                (Some(_), _) => {}
                (None, true) => {
                    map.remove(name);
                }
                (None, false) => {
                    map.insert(name.to_owned(), Value::Null);
                }
            },
            Presence::Value {
                omit_empty,
                omit_zero,
            } => {
                let shape = &cursor.at(field.node).node().shape;
                match given {
                    Some(value) if omit_empty && is_empty(shape, value) => {
                        map.remove(name);
                    }
                    Some(_) => {}
                    None if omit_zero || (omit_empty && can_be_empty(shape)) => {
                        map.remove(name);
                    }
                    None => {
                        map.insert(name.to_owned(), zero(cursor.at(field.node)));
                    }
                }
            }
        }
    }
}

/// Whether Go's `omitempty` ever leaves a field of this shape out: it does not for structs.
fn can_be_empty(shape: &Shape) -> bool {
    match shape {
        Shape::Object(_) | Shape::Any | Shape::Deduced => false,
        Shape::Map(_) | Shape::List(_) => true,
        Shape::Scalar(kind) => matches!(
            kind,
            Scalar::String
                | Scalar::Bool
                | Scalar::Int32
                | Scalar::Int64
                | Scalar::Float
                | Scalar::Bytes
        ),
    }
}

fn is_empty(shape: &Shape, value: &Value) -> bool {
    can_be_empty(shape)
        && match value {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
        }
}

fn zero(cursor: Cursor<'_>) -> Value {
    match &cursor.node().shape {
        Shape::Object(_) => {
            let mut map = Map::new();
            finish(cursor, &mut map);
            Value::Object(map)
        }
        _ if cursor.node().go.is_empty() => Value::Null,
        Shape::Scalar(Scalar::String) => Value::from(""),
        Shape::Scalar(Scalar::Bool) => Value::Bool(false),
        Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Float | Scalar::IntOrString) => {
            Value::from(0)
        }
        Shape::Scalar(Scalar::Quantity) => Value::from("0"),
        _ => Value::Null,
    }
}

fn normalise(cursor: Cursor<'_>, value: &mut Value) {
    match (&cursor.node().shape, value) {
        (Shape::Object(object), Value::Object(map)) => {
            for (name, field) in &object.fields {
                if let Some(value) = map.get_mut::<str>(name) {
                    normalise(cursor.at(field.node), value);
                }
            }
            finish(cursor, map);
        }
        (Shape::Map(id), Value::Object(map)) => {
            for value in map.values_mut() {
                normalise(cursor.at(*id), value);
            }
        }
        (Shape::List(id), Value::Array(items)) => {
            for value in items {
                normalise(cursor.at(*id), value);
            }
        }
        (Shape::Scalar(Scalar::Quantity), Value::String(text)) => {
            if let Ok(canonical) = quantity::canonical(text) {
                *text = canonical;
            }
        }
        _ => {}
    }
}
