//! Objects seen through their schema as field sets: the set of an object, what differs between
//! two, the merge of one into another, and the removal of a set. Server-side apply and managed
//! fields are built on these in `managed`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::arena::{Cursor, NodeId, Relation, Scalar, Shape, Type};
use crate::fieldset::{FieldSet, PathElement, display_path};

/// What is new, changed and gone between two objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) added: FieldSet,
    pub(crate) modified: FieldSet,
    pub(crate) removed: FieldSet,
}

/// Where we are in a schema: a node, or a place whose shape is taken from the value.
#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    Node(Cursor<'a>),
    Deduced,
}

/// How a value is to be taken at a place.
enum Atom<'a> {
    Leaf,
    List(Place<'a>, &'a Relation),
    Map,
}

impl<'a> Place<'a> {
    fn atom(self, value: &Value) -> Atom<'a> {
        match self {
            Self::Deduced => match value {
                Value::Object(_) => Atom::Map,
                _ => Atom::Leaf,
            },
            Self::Node(cursor) => {
                let node = cursor.node();
                if node.relation == Relation::Atomic {
                    return Atom::Leaf;
                }
                match (&node.shape, value) {
                    (Shape::Object(_) | Shape::Map(_), Value::Object(_) | Value::Null) => Atom::Map,
                    (Shape::List(item), Value::Array(_) | Value::Null) => {
                        Atom::List(Self::Node(cursor.at(*item)), &node.relation)
                    }
                    (Shape::Deduced, Value::Object(_)) => Atom::Map,
                    _ => Atom::Leaf,
                }
            }
        }
    }

    fn child(self, key: &str) -> Self {
        match self {
            Self::Deduced => Self::Deduced,
            Self::Node(cursor) => cursor.child(key).map_or(Self::Deduced, Self::Node),
        }
    }

    /// Whether `key` is a declared field here, not an entry of a map.
    fn declares(self, key: &str) -> bool {
        match self {
            Self::Deduced => false,
            Self::Node(cursor) => cursor.node().field(key).is_some(),
        }
    }

    /// The path element of a list's item; `None` if it lacks all its keys.
    fn element(self, relation: &Relation, item: &Value) -> Option<PathElement> {
        match relation {
            Relation::Set => Some(PathElement::Value(item.to_string())),
            Relation::Keyed(keys) => {
                let item = item.as_object()?;
                let mut key = Map::new();
                for name in keys.iter() {
                    let value = item.get::<str>(name).cloned().or_else(|| match self {
                        Self::Node(cursor) => cursor.node().field(name)?.default.clone(),
                        Self::Deduced => None,
                    });
                    if let Some(value) = value {
                        key.insert(name.to_string(), value);
                    }
                }
                if key.is_empty() {
                    return None;
                }
                Some(PathElement::Key(Value::Object(key).to_string()))
            }
            Relation::Granular | Relation::Atomic => None,
        }
    }

    /// The path elements of a list; `None` if one has none, and the list is one value then.
    fn elements(self, relation: &Relation, list: &[Value]) -> Option<Vec<PathElement>> {
        list.iter()
            .map(|item| self.element(relation, item))
            .collect()
    }
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn entries(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn is_void(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

impl Type {
    fn place(&self) -> Place<'_> {
        Place::Node(self.cursor())
    }

    /// The paths that `object` sets.
    pub fn field_set(&self, object: &Value) -> FieldSet {
        set_of(self.place(), object).1
    }

    pub(crate) fn compare(&self, old: &Value, new: &Value) -> Comparison {
        let mut comparison = Comparison::default();
        let mut path = Vec::new();
        compare(
            self.place(),
            Some(old),
            Some(new),
            &mut path,
            &mut comparison,
        );
        comparison
    }

    /// `applied` laid over `live`.
    pub(crate) fn merge(&self, live: &Value, applied: &Value) -> Value {
        merge(self.place(), Some(live), Some(applied)).unwrap_or_default()
    }

    pub(crate) fn remove_items(&self, object: &Value, set: &FieldSet) -> Value {
        remove(self.place(), object, set)
    }

    /// The set with the declared fields on the way to its members added.
    pub(crate) fn with_named_fields(&self, set: &FieldSet) -> FieldSet {
        with_named(self.place(), set)
    }

    /// Whether `object` can be applied: declared fields and types only, no item twice. The error
    /// names the path.
    pub(crate) fn check_applied(&self, object: &Value) -> Result<(), String> {
        check(self.place(), object, &mut Vec::new())
    }
}

/// Whether the value itself is a member, and the set below it.
fn set_of(place: Place<'_>, value: &Value) -> (bool, FieldSet) {
    let mut set = FieldSet::new();
    match place.atom(value) {
        Atom::Leaf => return (true, set),
        Atom::List(item_place, relation) => {
            let list = items(Some(value));
            let Some(elements) = item_place.elements(relation, list) else {
                return (true, set);
            };
            for (element, item) in elements.into_iter().zip(list) {
                set.add_member(element.clone());
                let below = set_of(item_place, item).1;
                set.set_child(element, below);
            }
        }
        Atom::Map => {
            for (key, value) in entries(Some(value)).into_iter().flatten() {
                let element = PathElement::field(key);
                let (leaf, below) = set_of(place.child(key), value);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if leaf || empty || !place.declares(key) {
                    set.add_member(element.clone());
                }
                set.set_child(element, below);
            }
        }
    }
    (false, set)
}

fn compare(
    place: Place<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<PathElement>,
    out: &mut Comparison,
) {
    let void = is_void(old) && is_void(new);
    // A null takes the form of the other side.
    let guide = match (old, new) {
        (Some(value), None | Some(Value::Null)) => value,
        (_, Some(value)) => value,
        (None, None) => return,
    };
    let atom = place.atom(guide);
    let same_form = match (old, new) {
        (Some(old), Some(new)) => {
            old.is_null()
                || new.is_null()
                || (old.is_object() == new.is_object() && old.is_array() == new.is_array())
        }
        _ => true,
    };
    match atom {
        Atom::List(item_place, relation) if !void && same_form => {
            let (olds, news) = (items(old), items(new));
            let (Some(old_elements), Some(new_elements)) = (
                item_place.elements(relation, olds),
                item_place.elements(relation, news),
            ) else {
                return leaf(old, new, path, out);
            };
            let mut pairs: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
            for (element, item) in old_elements.into_iter().zip(olds) {
                pairs.entry(element).or_default().0.push(item);
            }
            for (element, item) in new_elements.into_iter().zip(news) {
                pairs.entry(element).or_default().1.push(item);
            }
            for (element, (old, new)) in pairs {
                path.push(element);
                compare_items(item_place, &old, &new, path, out);
                path.pop();
            }
        }
        Atom::Map if !void && same_form => {
            let (olds, news) = (entries(old), entries(new));
            for (key, old) in olds.into_iter().flatten() {
                path.push(PathElement::field(key));
                let new = news.and_then(|news| news.get(key));
                compare(place.child(key), Some(old), new, path, out);
                path.pop();
            }
            for (key, new) in news.into_iter().flatten() {
                if olds.is_none_or(|olds| !olds.contains_key(key)) {
                    path.push(PathElement::field(key));
                    compare(place.child(key), None, Some(new), path, out);
                    path.pop();
                }
            }
        }
        _ => return leaf(old, new, path, out),
    }
    match (old, new) {
        (None, Some(_)) => out.added.insert(path),
        (Some(_), None) => out.removed.insert(path),
        _ => {}
    }
}

/// Compares the items of one path element; items that occur several times are one value together.
fn compare_items(
    place: Place<'_>,
    old: &[&Value],
    new: &[&Value],
    path: &mut Vec<PathElement>,
    out: &mut Comparison,
) {
    match (old, new) {
        ([] | [_], [] | [_]) => {
            compare(place, old.first().copied(), new.first().copied(), path, out);
        }
        ([_, _, ..], [_, _, ..]) => {
            if old != new {
                out.modified.insert(path);
            }
        }
        ([_, _, ..], new) => {
            if let Some(new) = new.first() {
                compare(place, None, Some(new), path, out);
            }
            out.removed.insert(path);
        }
        (old, _) => {
            if let Some(old) = old.first() {
                compare(place, Some(old), None, path, out);
            }
            out.added.insert(path);
        }
    }
}

fn leaf(old: Option<&Value>, new: Option<&Value>, path: &[PathElement], out: &mut Comparison) {
    match (old, new) {
        (None, Some(_)) => out.added.insert(path),
        (Some(_), None) => out.removed.insert(path),
        (Some(old), Some(new)) if old != new => out.modified.insert(path),
        _ => {}
    }
}

fn merge(place: Place<'_>, live: Option<&Value>, applied: Option<&Value>) -> Option<Value> {
    let (Some(old), Some(new)) = (live, applied) else {
        return applied.or(live).cloned();
    };
    if is_void(live) && is_void(applied) {
        return Some(new.clone());
    }
    let guide = if new.is_null() { old } else { new };
    match place.atom(guide) {
        Atom::Leaf => Some(new.clone()),
        Atom::Map => {
            let mut map = match old {
                Value::Object(map) => map.clone(),
                _ => Map::new(),
            };
            for (key, value) in entries(applied).into_iter().flatten() {
                if let Some(value) = merge(place.child(key), map.get(key), Some(value)) {
                    map.insert(key.clone(), value);
                }
            }
            Some(Value::Object(map))
        }
        Atom::List(item_place, relation) => Some(
            merge_list(item_place, relation, items(live), items(applied))
                .unwrap_or_else(|| new.clone()),
        ),
    }
}

/// Keeps the order of `new` for what both have, and what only `old` has at its place.
fn merge_list(
    place: Place<'_>,
    relation: &Relation,
    old: &[Value],
    new: &[Value],
) -> Option<Value> {
    let old_elements = place.elements(relation, old)?;
    let new_elements = place.elements(relation, new)?;
    let mut old_items: BTreeMap<&PathElement, &Value> = BTreeMap::new();
    for (element, item) in old_elements.iter().zip(old) {
        old_items.entry(element).or_insert(item);
    }
    let new_items: BTreeSet<&PathElement> = new_elements.iter().collect();
    let mut shared = new_elements
        .iter()
        .filter(|element| old_items.contains_key(element));
    let mut next_shared = shared.next();
    let mut merged: BTreeSet<&PathElement> = BTreeSet::new();
    let mut out = Vec::new();
    let (mut l, mut r) = (0, 0);
    while l < old_elements.len() || r < new_elements.len() {
        if let (Some(left), Some(right)) = (old_elements.get(l), new_elements.get(r)) {
            if left == right {
                out.extend(merge(place, old_items.get(left).copied(), Some(&new[r])));
                merged.insert(left);
                l += 1;
                r += 1;
                next_shared = shared.next();
                continue;
            }
            if new_items.contains(left) && next_shared.is_some_and(|next| next != left) {
                l += 1;
                continue;
            }
        }
        if let Some(left) = old_elements.get(l) {
            if !new_items.contains(left) {
                out.push(old[l].clone());
                l += 1;
                continue;
            }
            if merged.contains(left) {
                l += 1;
                continue;
            }
        }
        let Some(right) = new_elements.get(r) else {
            l += 1;
            continue;
        };
        out.extend(merge(place, old_items.get(right).copied(), Some(&new[r])));
        merged.insert(right);
        r += 1;
        if next_shared == Some(right) {
            next_shared = shared.next();
        }
    }
    Some(Value::Array(out))
}

fn remove(place: Place<'_>, value: &Value, set: &FieldSet) -> Value {
    match place.atom(value) {
        Atom::Leaf => value.clone(),
        Atom::List(item_place, relation) => {
            let list = items(Some(value));
            let Some(elements) = item_place.elements(relation, list) else {
                return value.clone();
            };
            let kept: Vec<Value> = elements
                .iter()
                .zip(list)
                .filter(|(element, _)| !set.has_member(element))
                .map(|(element, item)| match set.child(element) {
                    Some(below) => remove(item_place, item, below),
                    None => item.clone(),
                })
                .collect();
            if kept.is_empty() && !list.is_empty() {
                return Value::Null;
            }
            if value.is_null() {
                Value::Null
            } else {
                Value::Array(kept)
            }
        }
        Atom::Map => {
            let Some(map) = entries(Some(value)) else {
                return value.clone();
            };
            let mut kept = Map::new();
            for (key, value) in map {
                let element = PathElement::field(key);
                if set.has_member(&element) {
                    continue;
                }
                let value = match set.child(&element) {
                    Some(below) => remove(place.child(key), value, below),
                    None => value.clone(),
                };
                kept.insert(key.clone(), value);
            }
            if kept.is_empty() && !map.is_empty() {
                return Value::Null;
            }
            Value::Object(kept)
        }
    }
}

fn with_named(place: Place<'_>, set: &FieldSet) -> FieldSet {
    let mut result = set.clone();
    for (element, below) in set.children() {
        let child = match element {
            PathElement::Field(name) => {
                if place.declares(name) {
                    result.add_member(element.clone());
                }
                place.child(name)
            }
            _ => match place {
                Place::Node(cursor) => cursor.item().map_or(Place::Deduced, Place::Node),
                Place::Deduced => Place::Deduced,
            },
        };
        result.set_child(element.clone(), with_named(child, below));
    }
    result
}

fn check(place: Place<'_>, value: &Value, path: &mut Vec<PathElement>) -> Result<(), String> {
    let Place::Node(cursor) = place else {
        return Ok(());
    };
    let node = cursor.node();
    let wrong = |want: &str, path: &[PathElement]| {
        let got = match value {
            Value::Null => return Ok(()),
            Value::Bool(value) => format!("{value}"),
            Value::Number(value) => format!("{value}"),
            Value::String(value) => format!("{value:?}"),
            Value::Array(_) => "list".to_owned(),
            Value::Object(_) => "map".to_owned(),
        };
        Err(format!(
            "{}: expected {want}, got {got}",
            display_path(path)
        ))
    };
    match (&node.shape, value) {
        (Shape::Object(object), Value::Object(map)) => {
            for (key, value) in map {
                path.push(PathElement::field(key));
                if let Some(field) = object.fields.get(key.as_str()) {
                    check(Place::Node(cursor.at(field.node)), value, path)?;
                } else if !object.preserve_unknown {
                    return Err(format!(
                        "{}: field not declared in schema",
                        display_path(path)
                    ));
                }
                path.pop();
            }
            Ok(())
        }
        (Shape::Map(id), Value::Object(map)) => {
            for (key, value) in map {
                path.push(PathElement::field(key));
                check(Place::Node(cursor.at(*id)), value, path)?;
                path.pop();
            }
            Ok(())
        }
        (Shape::List(id), Value::Array(list)) => check_list(cursor, *id, list, path),
        (Shape::Object(_) | Shape::Map(_), _) => wrong("map", path),
        (Shape::List(_), _) => wrong("list", path),
        (Shape::Scalar(kind), _) => {
            let fits = match kind {
                Scalar::String | Scalar::Time | Scalar::MicroTime | Scalar::Bytes => {
                    value.is_string()
                }
                Scalar::Bool => value.is_boolean(),
                Scalar::Int32 | Scalar::Int64 | Scalar::Float => value.is_number(),
                Scalar::IntOrString | Scalar::Quantity => value.is_string() || value.is_number(),
            };
            if fits {
                return Ok(());
            }
            wrong(
                match kind {
                    Scalar::Bool => "boolean",
                    Scalar::Int32 | Scalar::Int64 | Scalar::Float => "numeric (int or float)",
                    _ => "string",
                },
                path,
            )
        }
        (Shape::Any | Shape::Deduced, _) => Ok(()),
    }
}

fn check_list(
    cursor: Cursor<'_>,
    id: NodeId,
    list: &[Value],
    path: &mut Vec<PathElement>,
) -> Result<(), String> {
    let place = Place::Node(cursor.at(id));
    let relation = &cursor.node().relation;
    let mut seen: BTreeSet<PathElement> = BTreeSet::new();
    for (index, item) in list.iter().enumerate() {
        let element = match relation {
            Relation::Granular | Relation::Atomic => {
                PathElement::Index(i64::try_from(index).unwrap_or(i64::MAX))
            }
            _ => {
                let Some(element) = place.element(relation, item) else {
                    return Err(format!(
                        "{}: element {index}: {}",
                        display_path(path),
                        missing_keys(relation)
                    ));
                };
                if !seen.insert(element.clone()) {
                    return Err(format!(
                        "{}: duplicate entries for key {element}",
                        display_path(path)
                    ));
                }
                element
            }
        };
        path.push(element);
        check(place, item, path)?;
        path.pop();
    }
    Ok(())
}

fn missing_keys(relation: &Relation) -> String {
    match relation {
        Relation::Keyed(keys) => format!(
            "associative list with keys has an element that omits all key fields {keys:?} (and \
             doesn't have default values for any key fields)"
        ),
        _ => "not a valid item".to_owned(),
    }
}
