//! Strategic merge patches on built-in kinds.

use std::sync::LazyLock;

use proptest::prelude::*;
use schema::{Gvk, Schemas, Type};
use serde_json::{Value, json};

/// Built once: a server has one, too.
static SCHEMAS: LazyLock<Schemas> = LazyLock::new(Schemas::builtin);

fn deployment() -> Type {
    SCHEMAS
        .get(&Gvk::from_api_version("apps/v1", "Deployment"))
        .expect("a built-in kind")
}

fn spec(containers: Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": containers}}}})
}

fn patched(live: Value, patch: Value) -> Value {
    deployment()
        .strategic_merge(live, patch)
        .expect("a good patch")
}

#[test]
fn lists_merge_by_key_and_new_items_come_first() {
    let live = spec(json!([{"name": "a", "image": "i:1", "env": [{"name": "X", "value": "1"}]}]));
    let live = patched(live, spec(json!([{"name": "b", "image": "j:2"}])));
    assert_eq!(
        live,
        spec(json!([
            {"name": "b", "image": "j:2"},
            {"name": "a", "image": "i:1", "env": [{"name": "X", "value": "1"}]},
        ]))
    );
    let live = patched(
        live,
        spec(json!([{"name": "a", "image": "i:9", "env": [{"name": "Y", "value": "2"}]}])),
    );
    assert_eq!(
        live,
        spec(json!([
            {"name": "b", "image": "j:2"},
            {"name": "a", "image": "i:9", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]},
        ]))
    );
    let live = patched(live, spec(json!([{"name": "b", "$patch": "delete"}])));
    assert_eq!(
        live["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn directives_delete_replace_retain_and_order() {
    let live = spec(json!([{"name": "a"}, {"name": "b"}]));
    assert_eq!(
        patched(
            live.clone(),
            spec(json!([{"$patch": "replace"}, {"name": "c"}]))
        ),
        spec(json!([{"name": "c"}]))
    );
    assert_eq!(
        patched(
            live,
            json!({"spec": {"template": {"spec": {
                "$setElementOrder/containers": [{"name": "z"}, {"name": "a"}],
                "containers": [{"name": "z", "image": "z:1"}],
            }}}})
        ),
        spec(json!([{"name": "z", "image": "z:1"}, {"name": "a"}, {"name": "b"}]))
    );
    let strategy =
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    assert_eq!(
        patched(
            strategy.clone(),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}})
        ),
        json!({"spec": {"strategy": {"type": "Recreate"}}})
    );
    assert_eq!(
        patched(
            strategy,
            json!({"spec": {"strategy": {"$patch": "replace", "type": "Recreate"}}})
        ),
        json!({"spec": {"strategy": {"type": "Recreate"}}})
    );
}

#[test]
fn primitive_lists_unite_and_shrink() {
    let live = json!({"metadata": {"finalizers": ["e.com/a"]}});
    let live = patched(live, json!({"metadata": {"finalizers": ["e.com/b"]}}));
    assert_eq!(
        live,
        json!({"metadata": {"finalizers": ["e.com/b", "e.com/a"]}})
    );
    let live = patched(
        live,
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["e.com/a"]}}),
    );
    assert_eq!(live, json!({"metadata": {"finalizers": ["e.com/b"]}}));
    assert_eq!(
        patched(live, json!({"metadata": {"finalizers": null}})),
        json!({"metadata": {}})
    );
}

#[test]
fn bad_patches_say_what_is_wrong() {
    let merge = |patch: Value| {
        deployment()
            .strategic_merge(spec(json!([{"name": "a"}])), patch)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        merge(spec(json!([{"image": "x"}]))),
        "map: map[image:x] does not contain declared merge key: name"
    );
    assert_eq!(
        merge(json!({"spec": {"$patch": "swap"}})),
        "unknown patch type: swap in map: map[$patch:swap]"
    );
    assert_eq!(
        merge(json!([1])),
        "expected a map[string]interface {}, but received a []interface {}"
    );
    assert_eq!(
        merge(json!({"spec": {"$retainKeys": ["template"], "replicas": 1}})),
        "invalid patch format of retainKeys"
    );
    let out_of_order = json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "a"}],
        "containers": [{"name": "b"}],
    }}}});
    assert!(
        merge(out_of_order).starts_with("The order in patch list:\n[map[name:b]]\n doesn't match")
    );
}

fn containers() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(
        "[a-d]",
        ("[a-z]{1,3}", prop::collection::vec("[a-z]{1,2}", 0..3)),
        0..4,
    )
    .prop_map(|map| {
        let list = map
            .into_iter()
            .map(|(name, (image, args))| json!({"name": name, "image": image, "args": args}));
        Value::Array(list.collect())
    })
}

proptest! {
    #[test]
    fn a_patch_of_itself_changes_nothing(list in containers()) {
        let live = spec(list);
        prop_assert_eq!(patched(live.clone(), live.clone()), live);
    }

    #[test]
    fn merging_twice_is_merging_once(live in containers(), patch in containers()) {
        let once = patched(spec(live), spec(patch.clone()));
        prop_assert_eq!(patched(once.clone(), spec(patch)), once);
    }

    #[test]
    fn everything_patched_in_is_there(live in containers(), patch in containers()) {
        let merged = patched(spec(live), spec(patch.clone()));
        let merged = merged["spec"]["template"]["spec"]["containers"].as_array().unwrap().clone();
        for item in patch.as_array().unwrap() {
            let found = merged.iter().find(|other| other["name"] == item["name"]).unwrap();
            prop_assert_eq!(&found["image"], &item["image"]);
            prop_assert_eq!(&found["args"], &item["args"]);
        }
    }
}
