//! `podSpecPatch`: a strategic merge into a Pod's specification.

use serde_json::{Map, Value};

/// Lists whose items are known by a field; every other list is replaced.
const KEYS: [(&str, &str); 12] = [
    ("containers", "name"),
    ("ephemeralContainers", "name"),
    ("env", "name"),
    ("hostAliases", "ip"),
    ("imagePullSecrets", "name"),
    ("initContainers", "name"),
    ("ports", "containerPort"),
    ("resourceClaims", "name"),
    ("topologySpreadConstraints", "topologyKey"),
    ("volumeDevices", "devicePath"),
    ("volumeMounts", "mountPath"),
    ("volumes", "name"),
];

/// Merges a patch, which is YAML or JSON.
pub(super) fn apply(spec: &mut Map<String, Value>, patch: &str) -> Result<(), String> {
    let problem = |what: String| format!("podSpecPatch: {what}");
    let patch: Value = serde_saphyr::from_str(patch)
        .map_err(|error| problem(format!("it is not YAML: {error}")))?;
    match patch {
        Value::Null => Ok(()),
        Value::Object(patch) => merge(spec, patch).map_err(problem),
        _ => Err(problem("it is no object".to_owned())),
    }
}

fn merge(into: &mut Map<String, Value>, patch: Map<String, Value>) -> Result<(), String> {
    for (key, value) in patch {
        if key.starts_with('$') {
            return Err(format!("{key:?} is not supported here"));
        }
        match (into.get_mut(&key), value) {
            (_, Value::Null) => {
                into.remove(&key);
            }
            (Some(Value::Object(into)), Value::Object(patch)) => merge(into, patch)?,
            (Some(Value::Array(into)), Value::Array(patch)) => {
                match KEYS.iter().find(|(list, _)| *list == key) {
                    Some((_, name)) => merge_lists(into, patch, name)?,
                    None => *into = patch,
                }
            }
            (_, Value::Object(patch)) => {
                let mut fresh = Map::new();
                merge(&mut fresh, patch)?;
                into.insert(key, Value::Object(fresh));
            }
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
    Ok(())
}

fn merge_lists(into: &mut Vec<Value>, patch: Vec<Value>, name: &str) -> Result<(), String> {
    for item in patch {
        let Value::Object(mut fields) = item else {
            return Err(format!("expected an object with {name}, got {item}"));
        };
        let known = fields.get(name).cloned();
        let Some(known) = known else {
            return Err(format!("an item without {name} cannot be merged"));
        };
        let place = into.iter().position(|item| item.get(name) == Some(&known));
        match (fields.remove("$patch"), place) {
            (Some(directive), place) if directive == "delete" => {
                place.map(|place| into.remove(place));
            }
            (Some(directive), Some(place)) if directive == "replace" => {
                into[place] = Value::Object(fields);
            }
            (Some(directive), _) if directive != "merge" && directive != "replace" => {
                return Err(format!(
                    "$patch is {directive}, not merge, replace or delete"
                ));
            }
            (_, Some(place)) => {
                if let Some(into) = into[place].as_object_mut() {
                    merge(into, fields)?;
                }
            }
            (_, None) => into.push(Value::Object(fields)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(patch: &Value) -> Result<Value, String> {
        let spec = json!({
            "containers": [
                {"name": "main", "image": "a", "resources": {"limits": {"cpu": "1"}},
                    "env": [{"name": "A", "value": "1"}]},
                {"name": "other", "image": "b"},
            ],
            "nodeSelector": {"a": "b"},
            "tolerations": [{"key": "x"}],
        });
        let Value::Object(mut spec) = spec else {
            unreachable!()
        };
        apply(&mut spec, &patch.to_string()).map(|()| Value::Object(spec))
    }

    #[test]
    fn lists_with_names_are_merged_and_others_replaced() {
        let spec = patched(&json!({
            "containers": [
                {"name": "main", "resources": {"limits": {"memory": "1G"}},
                    "env": [{"name": "B", "value": "2"}]},
                {"name": "other", "$patch": "delete"},
                {"name": "new", "image": "c"},
            ],
            "nodeSelector": {"c": "d", "a": null},
            "tolerations": [{"key": "y"}],
        }));
        let expect = json!({
            "containers": [
                {"name": "main", "image": "a",
                    "resources": {"limits": {"cpu": "1", "memory": "1G"}},
                    "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
                {"name": "new", "image": "c"},
            ],
            "nodeSelector": {"c": "d"},
            "tolerations": [{"key": "y"}],
        });
        assert_eq!(spec, Ok(expect));
    }

    #[test]
    fn what_cannot_be_merged_is_named() {
        let check = |patch: Value, expect: &str| {
            let problem = patched(&patch).unwrap_err();
            assert!(problem.contains(expect), "{problem}");
        };
        check(json!(["a"]), "podSpecPatch: it is no object");
        check(json!({"containers": [{"image": "x"}]}), "without name");
        check(
            json!({"containers": ["main"]}),
            "expected an object with name",
        );
        check(json!({"$retainKeys": []}), "not supported");
        check(
            json!({"containers": [{"name": "main", "$patch": "x"}]}),
            "not merge",
        );
    }
}
