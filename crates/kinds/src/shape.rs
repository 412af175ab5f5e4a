//! The shape of built-in objects as a real server's encoder writes them: members that are always
//! there (`status: {}`, `resources: {}`, required texts and numbers), empty lists and maps left out.
//!
//! A client that compares what it sent with what it got, and the recorded answers, see this shape;
//! it is data (`data/types.txt`), so no kind spells it out.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

/// How one member of a type is written.
#[derive(Debug)]
enum Member {
    /// Written with this value when absent.
    Scalar(Value),
    /// An object of a type, `-` for one without members of note.
    Object {
        of: &'static str,
        always: bool,
    },
    List {
        of: &'static str,
        keep_empty: bool,
    },
    Map,
}

type Members = Vec<(&'static str, Member)>;

#[derive(Debug, Default)]
struct Shapes {
    /// By group/version and kind.
    roots: HashMap<(&'static str, &'static str), &'static str>,
    types: HashMap<&'static str, Members>,
}

static SHAPES: LazyLock<Shapes> = LazyLock::new(|| parse(include_str!("../data/types.txt")));

fn parse(text: &'static str) -> Shapes {
    let mut shapes = Shapes::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let Some(first) = words.next() else { continue };
        if let Some(group_version) = first.strip_prefix('@') {
            if let (Some(kind), Some(of)) = (words.next(), words.next()) {
                shapes.roots.insert((group_version, kind), of);
            }
        } else {
            shapes
                .types
                .insert(first, words.filter_map(parse_member).collect());
        }
    }
    shapes
}

fn parse_member(word: &'static str) -> Option<(&'static str, Member)> {
    let at = word.find([':', '='])?;
    let (name, rest) = word.split_at(at);
    let member = if let Some(value) = rest.strip_prefix('=') {
        Member::Scalar(serde_json::from_str(value).ok()?)
    } else {
        let rest = &rest[1..];
        if rest == "{}" {
            Member::Map
        } else if let Some(of) = rest.strip_prefix("[]") {
            Member::List {
                of,
                keep_empty: false,
            }
        } else if let Some(of) = rest.strip_prefix("![]") {
            Member::List {
                of,
                keep_empty: true,
            }
        } else if let Some(of) = rest.strip_prefix('=') {
            Member::Object { of, always: true }
        } else {
            Member::Object {
                of: rest,
                always: false,
            }
        }
    };
    Some((name, member))
}

/// Brings an object of a built-in kind into shape; others stay as they are.
pub(crate) fn complete(api_version: &str, kind: &str, object: &mut Value) {
    let api_version = if api_version == "apps/v1beta2" {
        "apps/v1"
    } else {
        api_version
    };
    let root = SHAPES
        .roots
        .iter()
        .find(|((gv, k), _)| *gv == api_version && *k == kind);
    if let (Some((_, of)), Some(map)) = (root, object.as_object_mut()) {
        walk(of, map);
    }
}

fn walk(of: &str, object: &mut Map<String, Value>) {
    let Some(members) = SHAPES.types.get(of) else {
        return;
    };
    for (name, member) in members {
        let slot = object.get_mut(*name);
        match member {
            Member::Scalar(value) => {
                if slot.is_none_or(|slot| slot.is_null()) {
                    object.insert((*name).to_owned(), value.clone());
                }
            }
            Member::Object { of, always } => match slot {
                Some(Value::Object(inner)) => walk(of, inner),
                Some(Value::Null) | None if *always => {
                    let mut inner = Map::new();
                    walk(of, &mut inner);
                    object.insert((*name).to_owned(), Value::Object(inner));
                }
                _ => {}
            },
            Member::List { of, keep_empty } => match slot {
                Some(Value::Array(list)) if list.is_empty() && !keep_empty => {
                    object.remove(*name);
                }
                Some(Value::Array(list)) if !of.is_empty() => {
                    for item in list.iter_mut().filter_map(Value::as_object_mut) {
                        walk(of, item);
                    }
                }
                _ => {}
            },
            Member::Map => {
                if matches!(slot, Some(Value::Object(map)) if map.is_empty()) {
                    object.remove(*name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(api_version: &str, kind: &str, given: Value, expected: &Value) {
        let mut object = given;
        complete(api_version, kind, &mut object);
        assert_eq!(&object, expected);
    }

    #[test]
    fn shapes() {
        check(
            "v1",
            "ConfigMap",
            json!({"metadata": {"name": "a", "labels": {}}, "data": {}}),
            &json!({"metadata": {"name": "a"}}),
        );
        check(
            "apps/v1",
            "DaemonSet",
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "args": []}]}}}}),
            &json!({
                "metadata": {},
                "spec": {
                    "template": {
                        "metadata": {},
                        "spec": {"containers": [{"name": "c", "resources": {}}]},
                    },
                    "updateStrategy": {},
                },
                "status": {
                    "currentNumberScheduled": 0, "desiredNumberScheduled": 0,
                    "numberMisscheduled": 0, "numberReady": 0,
                },
            }),
        );
        check("x.io/v1", "Thing", json!({"a": {}}), &json!({"a": {}}));
    }
}
