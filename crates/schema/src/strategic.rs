//! Strategic merge patches: the schema says which lists are merged and by which key, directives in
//! the patch say what is deleted, replaced, kept and in which order. JSON merge patches and JSON
//! patches need no schema and are not here.

use serde_json::{Map, Value};

use crate::arena::{Cursor, Patch, Type};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Why a patch cannot be merged; worded as upstream words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    #[error("expected a {want}, but received a {kind}")]
    WrongType {
        kind: &'static str,
        want: &'static str,
    },
    #[error("unknown patch type: {directive} in map: {map}")]
    UnknownDirective { directive: String, map: String },
    #[error("map: {map} does not contain declared merge key: {key}")]
    NoMergeKey { map: String, key: String },
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirectiveInList,
    #[error("cannot merge lists without merge key for {0}")]
    NoMergeKeyDeclared(String),
    #[error("list element types are not identical: {0}")]
    MixedList(String),
    #[error("no elements in any of the given slices")]
    NoElements,
    #[error("lists of lists are not supported")]
    ListOfLists,
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n")]
    ElementOrder { patch: String, order: String },
}

impl Type {
    /// Merges a strategic merge patch into `live`. The result is not yet checked or normalised:
    /// give it to [`Type::coerce`].
    pub fn strategic_merge(&self, live: Value, patch: Value) -> Result<Value, PatchError> {
        let Value::Object(patch) = patch else {
            return Err(PatchError::WrongType {
                kind: go_type(&patch),
                want: "map[string]interface {}",
            });
        };
        let live = match live {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        merge_map(Some(self.cursor()), live, patch).map(Value::Object)
    }
}

/// A value as Go's `%v` prints it.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_text).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let entries: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}:{}", go_text(value)))
                .collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

fn field_patch(cursor: Option<Cursor<'_>>, key: &str) -> Patch {
    cursor
        .and_then(|cursor| cursor.node().field(key))
        .map(|field| field.patch.clone())
        .unwrap_or_default()
}

fn merge_map(
    cursor: Option<Cursor<'_>>,
    mut live: Map<String, Value>,
    mut patch: Map<String, Value>,
) -> Result<Map<String, Value>, PatchError> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Map::new()),
            _ => Err(PatchError::UnknownDirective {
                directive: go_text(directive),
                map: go_text(&Value::Object(patch.clone())),
            }),
        };
    }
    retain_keys(&mut live, &mut patch)?;
    order_lists(cursor, &mut live, &mut patch)?;
    for (key, value) in patch {
        let (key, deletes) = match key.strip_prefix(DELETE_PRIMITIVES) {
            Some(name) => (name.to_owned(), true),
            None => (key, false),
        };
        if value.is_null() {
            live.remove(&key);
            continue;
        }
        let child = cursor.and_then(|cursor| cursor.child(&key));
        match (live.remove(&key), value) {
            (None, value) => {
                if let (false, Some(value)) = (deletes, without_directives(value)) {
                    live.insert(key, value);
                }
            }
            (Some(Value::Object(old)), Value::Object(new)) => {
                live.insert(key, Value::Object(merge_map(child, old, new)?));
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                let patch = field_patch(cursor, &key);
                let merged = if patch.merge {
                    merge_list(child, &patch, &key, old, new, deletes)?
                } else if deletes {
                    delete_primitives(old, &new)
                } else {
                    new
                };
                live.insert(key, Value::Array(merged));
            }
            (Some(old), value) => {
                let kept = if deletes {
                    Some(old)
                } else {
                    without_directives(value)
                };
                if let Some(kept) = kept {
                    live.insert(key, kept);
                }
            }
        }
    }
    Ok(live)
}

fn retain_keys(
    live: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), PatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(keys) = directive else {
        return Err(PatchError::RetainKeys);
    };
    let kept = |key: &str| keys.iter().any(|kept| kept.as_str() == Some(key));
    // In a patch of several maps the directive lists every key it sets.
    for (key, value) in patch.iter() {
        let plain = !key.starts_with(ELEMENT_ORDER) && !key.starts_with(DELETE_PRIMITIVES);
        if plain && !value.is_null() && !kept(key) {
            return Err(PatchError::RetainKeys);
        }
    }
    live.retain(|key, _| kept(key));
    Ok(())
}

/// Carries out the `$setElementOrder` directives: merges those lists and orders them.
fn order_lists(
    cursor: Option<Cursor<'_>>,
    live: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(ELEMENT_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let field = directive[ELEMENT_ORDER.len()..].to_owned();
        let Some(order) = list_or_none(patch.remove(&directive))? else {
            continue;
        };
        let child = cursor.and_then(|cursor| cursor.child(&field));
        let meta = field_patch(cursor, &field);
        let old = list_or_none(live.get(&field).cloned())?;
        if patch.get(&field).is_some_and(Value::is_null) {
            continue;
        }
        let new = list_or_none(patch.remove(&field))?;
        let key = meta.merge_key.as_deref();
        check_order(new.as_deref().unwrap_or_default(), &order, key)?;
        let nothing = |list: &Option<Vec<Value>>| list.as_ref().is_none_or(Vec::is_empty);
        if old.is_none() && new.is_none() {
            continue;
        }
        if nothing(&old) && nothing(&new) {
            return Err(PatchError::NoElements);
        }
        let merged = match (old.clone(), new) {
            (Some(old), Some(new)) if meta.merge => {
                merge_list(child, &meta, &field, old, new, false)?
            }
            (Some(_), Some(new)) => new,
            (None, Some(new)) => new.into_iter().filter_map(without_directives).collect(),
            (old, None) => old.unwrap_or_default(),
        };
        check_keys(&merged, key)?;
        let server_order = old.unwrap_or_default();
        live.insert(
            field,
            Value::Array(arrange(merged, &order, &server_order, key)),
        );
    }
    Ok(())
}

/// A list that may be absent or null, but nothing else.
fn list_or_none(value: Option<Value>) -> Result<Option<Vec<Value>>, PatchError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(other) => Err(PatchError::WrongType {
            kind: go_type(&other),
            want: "[]interface {}",
        }),
    }
}

/// The Go type that a JSON value decodes to.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Whether two items are the same by the merge key, or as values.
fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    }
}

fn index(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    list.iter().position(|other| same(other, item, key))
}

/// Items that `order` names come in its order; the others keep the place the server's order gives
/// them among those.
fn arrange(
    merged: Vec<Value>,
    order: &[Value],
    server_order: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let (mut named, mut others): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|item| index(order, item, key).is_some());
    named.sort_by_key(|item| index(order, item, key));
    others.sort_by_key(|item| index(server_order, item, key));
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        let place = index(server_order, &item, key);
        while let Some(other) = others.peek() {
            match (index(server_order, other, key), place) {
                (Some(left), Some(right)) if left < right => arranged.extend(others.next()),
                _ => break,
            }
        }
        arranged.push(item);
    }
    arranged.extend(others);
    arranged
}

fn delete_primitives(mut old: Vec<Value>, gone: &[Value]) -> Vec<Value> {
    old.retain(|item| !gone.contains(item));
    old
}

fn merge_list(
    list: Option<Cursor<'_>>,
    patch: &Patch,
    field: &str,
    old: Vec<Value>,
    new: Vec<Value>,
    deletes: bool,
) -> Result<Vec<Value>, PatchError> {
    if old.is_empty() && new.is_empty() {
        return Ok(old);
    }
    let all = || old.iter().chain(&new);
    if all().any(Value::is_array) {
        return Err(PatchError::ListOfLists);
    }
    let maps = all().any(Value::is_object);
    if maps && !all().all(Value::is_object) {
        return Err(PatchError::MixedList(go_text(&Value::Array(new))));
    }
    if !maps {
        if deletes {
            return Ok(delete_primitives(old, &new));
        }
        let mut merged: Vec<Value> = Vec::new();
        for item in old.iter().chain(&new) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(arrange(merged, &new, &old, None));
    }
    let Some(key) = patch.merge_key.as_deref() else {
        return Err(PatchError::NoMergeKeyDeclared(field.to_owned()));
    };
    let (old, new) = directives(old, new, key)?;
    let item_cursor = list.and_then(Cursor::item);
    let mut merged = old.clone();
    for item in &new {
        if item.get(key).is_none() {
            return Err(no_merge_key(item, key));
        }
        match merged.iter_mut().find(|other| same(other, item, Some(key))) {
            Some(known) => {
                let (Value::Object(old), Value::Object(new)) = (known.take(), item.clone()) else {
                    return Err(PatchError::MixedList(go_text(item)));
                };
                *known = Value::Object(merge_map(item_cursor, old, new)?);
            }
            None => merged.push(item.clone()),
        }
    }
    check_keys(&merged, Some(key))?;
    Ok(arrange(merged, &new, &old, Some(key)))
}

fn no_merge_key(item: &Value, key: &str) -> PatchError {
    PatchError::NoMergeKey {
        map: go_text(item),
        key: key.to_owned(),
    }
}

/// Carries out the `$patch` directives among a list's items; returns the lists without them.
fn directives(
    mut old: Vec<Value>,
    new: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut replace = false;
    let mut rest = Vec::new();
    for item in new {
        let Some(directive) = item.get(DIRECTIVE) else {
            rest.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                if item.get(key).is_none() {
                    return Err(no_merge_key(&item, key));
                }
                old.retain(|other| !same(other, &item, Some(key)));
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(PatchError::MergeDirectiveInList),
            _ => {
                return Err(PatchError::UnknownDirective {
                    directive: go_text(directive),
                    map: go_text(&item),
                });
            }
        }
    }
    if replace {
        return Ok((rest, Vec::new()));
    }
    Ok((old, rest))
}

/// A patch value that has nothing to merge with: nulls mean nothing in it, and a map with a
/// `$patch` is dropped. Other directives stay, to be found as unknown fields, as upstream.
fn without_directives(value: Value) -> Option<Value> {
    Some(match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => return None,
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(_, value)| !value.is_null())
                .filter_map(|(key, value)| Some((key, without_directives(value)?)))
                .collect(),
        ),
        Value::Array(items) => {
            Value::Array(items.into_iter().filter_map(without_directives).collect())
        }
        other => other,
    })
}

/// Every item of a keyed list must have its key.
fn check_keys(list: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    match key.and_then(|key| Some((list.iter().find(|item| item.get(key).is_none())?, key))) {
        Some((item, key)) => Err(no_merge_key(item, key)),
        None => Ok(()),
    }
}

/// Whether a patch list keeps the order that its `$setElementOrder` list gives.
fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        if !rest.any(|other| same(other, item, key)) {
            return Err(PatchError::ElementOrder {
                patch: go_text(&Value::Array(patch.to_vec())),
                order: go_text(&Value::Array(order.to_vec())),
            });
        }
    }
    Ok(())
}
