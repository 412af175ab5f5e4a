//! Nothing a client sends makes this crate panic, and normal forms are stable.

use std::sync::LazyLock;

use proptest::prelude::*;
use schema::jsonpath::JsonPath;
use schema::managed::{self, Writer};
use schema::{ContentType, FieldSet, Gvk, Schemas, Type, read_value};
use serde_json::{Value, json};

/// Built once: a server has one, too.
static SCHEMAS: LazyLock<Schemas> = LazyLock::new(Schemas::builtin);

fn pod() -> Type {
    SCHEMAS
        .get(&Gvk::from_api_version("v1", "Pod"))
        .expect("a built-in kind")
}

/// Trees that use the names of a Pod, in right and wrong places.
fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z0-9:-]{0,4}".prop_map(Value::from),
        Just(json!("1500m")),
        Just(json!("2026-01-01T00:00:00+01:00")),
    ];
    leaf.prop_recursive(6, 64, 5, |inner| {
        let names = prop::sample::select(vec![
            "metadata",
            "spec",
            "status",
            "containers",
            "name",
            "ports",
            "containerPort",
            "env",
            "labels",
            "finalizers",
            "volumes",
            "resources",
            "requests",
            "cpu",
            "$patch",
            "$setElementOrder/containers",
            "$deleteFromPrimitiveList/finalizers",
            "$retainKeys",
            "creationTimestamp",
            "managedFields",
            "hostNetwork",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((names, inner), 0..5).prop_map(|entries| {
                Value::Object(
                    entries
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect(),
                )
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_decode_or_say_why(bytes in prop::collection::vec(any::<u8>(), 0..64), text in ".{0,64}") {
        for body in [bytes.as_slice(), text.as_bytes()] {
            for content in [ContentType::Json, ContentType::Yaml] {
                let want = Gvk::from_api_version("v1", "ConfigMap");
                if let Err(error) = SCHEMAS.decode(&want, body, content) {
                    prop_assert!(!error.to_string().is_empty());
                }
            }
        }
        drop(JsonPath::parse(&text));
    }

    #[test]
    fn what_serde_refuses_go_refuses_too(text in r#"[\[\]{}",:0-9a-z\\ .-]{0,12}"#) {
        let ours = read_value(text.as_bytes(), ContentType::Json);
        let plain = serde_json::from_str::<Value>(&text);
        prop_assert_eq!(ours.is_ok(), plain.is_ok());
    }

    #[test]
    fn coercion_reaches_a_fixed_point(tree in tree()) {
        if let Ok(once) = pod().coerce(tree) {
            let twice = pod().coerce(once.value.clone()).expect("coerced values coerce");
            prop_assert_eq!(&twice.value, &once.value);
            prop_assert!(twice.strict.is_empty());
            let mut normal = once.value.clone();
            pod().normalise(&mut normal);
            prop_assert_eq!(normal, once.value);
        }
    }

    #[test]
    fn any_tree_can_be_patched_compared_and_applied(live in tree(), patch in tree()) {
        drop(pod().strategic_merge(live.clone(), patch.clone()));
        let set = pod().field_set(&live);
        prop_assert_eq!(FieldSet::from_fields_v1(&set.to_fields_v1()).expect("our own encoding"), set);
        let reset = FieldSet::of_fields(&["status"]);
        let writer = Writer { manager: "m", api_version: "v1", subresource: "", time: "2026-01-01T00:00:00Z", reset: &reset };
        let mut new = patch.clone();
        managed::update(&pod(), Some(&live), &mut new, &writer);
        let mut new = patch.clone();
        managed::update(&pod(), None, &mut new, &writer);
        drop(managed::apply(&pod(), Some(&live), &patch, &writer, true));
        drop(managed::apply(&pod(), None, &patch, &writer, false));
        let kubectl = Writer { manager: "kubectl", ..writer };
        drop(managed::apply(&pod(), Some(&live), &patch, &kubectl, false));
    }
}
