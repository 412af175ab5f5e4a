//! Reading and changing JSON trees by dotted path. Null counts as absent, as it does for a decoder.
//!
//! Keys that hold dots themselves (labels, annotations) are indexed directly instead.

use serde_json::{Map, Value};

/// The value under a dotted path; null and missing are both `None`.
pub fn get<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    let mut at = tree;
    for key in path.split('.') {
        at = at.get(key)?;
    }
    (!at.is_null()).then_some(at)
}

/// The mutable value under a dotted path, if there is one.
pub fn get_mut<'a>(tree: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    let mut at = tree;
    for key in path.split('.') {
        at = at.get_mut(key)?;
    }
    (!at.is_null()).then_some(at)
}

/// The string under a dotted path, or "".
pub fn text<'a>(tree: &'a Value, path: &str) -> &'a str {
    get(tree, path).and_then(Value::as_str).unwrap_or("")
}

/// The integer under a dotted path.
pub fn int(tree: &Value, path: &str) -> Option<i64> {
    get(tree, path).and_then(Value::as_i64)
}

/// Whether the boolean under a dotted path is true.
pub fn truthy(tree: &Value, path: &str) -> bool {
    get(tree, path).and_then(Value::as_bool).unwrap_or(false)
}

/// The list under a dotted path, or an empty one.
pub fn list<'a>(tree: &'a Value, path: &str) -> &'a [Value] {
    get(tree, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The mutable list under a dotted path, or an empty one.
pub fn list_mut<'a>(tree: &'a mut Value, path: &str) -> &'a mut [Value] {
    get_mut(tree, path)
        .and_then(Value::as_array_mut)
        .map_or(&mut [], Vec::as_mut_slice)
}

/// The object under a dotted path.
pub fn map<'a>(tree: &'a Value, path: &str) -> Option<&'a Map<String, Value>> {
    get(tree, path).and_then(Value::as_object)
}

/// The entries of the object under a dotted path whose values are strings.
pub fn strings<'a>(tree: &'a Value, path: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    map(tree, path)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or("")))
}

/// The strings of the list under a dotted path.
pub fn words<'a>(tree: &'a Value, path: &str) -> Vec<&'a str> {
    list(tree, path).iter().filter_map(Value::as_str).collect()
}

/// The object at `tree`, which becomes one if it is null or anything else.
pub fn object(tree: &mut Value) -> &mut Map<String, Value> {
    if !tree.is_object() {
        *tree = Value::Object(Map::new());
    }
    match tree {
        Value::Object(map) => map,
        _ => unreachable!("invariant: made an object above"),
    }
}

/// The object member `key` of `tree`, made where it is missing.
pub fn child<'a>(tree: &'a mut Value, key: &str) -> &'a mut Value {
    let slot = object(tree).entry(key).or_insert(Value::Null);
    object(slot);
    slot
}

/// Sets `key` unless it already has a value other than null.
pub fn set_default(tree: &mut Value, key: &str, value: impl Into<Value>) {
    let slot = object(tree).entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = value.into();
    }
}

/// As [`set_default`], and the empty string counts as absent, as it does for Go's string fields.
pub fn set_default_text(tree: &mut Value, key: &str, value: &str) {
    let slot = object(tree).entry(key).or_insert(Value::Null);
    if slot.is_null() || slot.as_str() == Some("") {
        *slot = value.into();
    }
}

/// Sets `key` to `value`, or removes it.
pub fn put(tree: &mut Value, key: &str, value: Option<Value>) {
    match value {
        Some(value) if !value.is_null() => {
            object(tree).insert(key.to_owned(), value);
        }
        _ => remove(tree, key),
    }
}

/// Removes `key` if `tree` is an object that has it.
pub fn remove(tree: &mut Value, key: &str) {
    if let Some(map) = tree.as_object_mut() {
        map.remove(key);
    }
}

/// Whether two trees hold the same under a dotted path; null, missing, `{}` and `[]` are alike,
/// as they are for a comparison of decoded objects.
pub fn same(left: &Value, right: &Value, path: &str) -> bool {
    alike(get(left, path), get(right, path))
}

/// Equality in which null, missing, and empty maps and lists are alike at every depth.
pub fn alike(left: Option<&Value>, right: Option<&Value>) -> bool {
    let (left, right) = (solid(left), solid(right));
    match (left, right) {
        (None, None) => true,
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            a.iter().all(|(k, v)| alike(Some(v), b.get(k)))
                && b.iter()
                    .all(|(k, v)| a.contains_key(k) || solid(Some(v)).is_none())
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(x, y)| alike(Some(x), Some(y)))
        }
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

fn solid(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| match value {
        Value::Null => false,
        Value::Object(map) => map.values().any(|v| solid(Some(v)).is_some()),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    })
}

/// Removes null members at every depth: to a decoder they are absent.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
