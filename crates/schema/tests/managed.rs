//! Managed fields and server-side apply, against what a real server recorded.

use std::sync::LazyLock;

use proptest::prelude::*;
use schema::managed::{self, ApplyError, Writer};
use schema::{ContentType, FieldSet, Gvk, Schemas, Type};
use serde_json::{Value, json};

/// Built once: a server has one, too.
static SCHEMAS: LazyLock<Schemas> = LazyLock::new(Schemas::builtin);

fn ty(api_version: &str, kind: &str) -> Type {
    SCHEMAS
        .get(&Gvk::from_api_version(api_version, kind))
        .expect("a built-in kind")
}

fn go(api_version: &str, kind: &str, value: &Value) -> Value {
    SCHEMAS
        .decode(
            &Gvk::from_api_version(api_version, kind),
            value.to_string().as_bytes(),
            ContentType::Json,
        )
        .expect("a good object")
        .value
}

struct By {
    manager: &'static str,
    time: &'static str,
    reset: FieldSet,
}

fn by(manager: &'static str) -> By {
    By {
        manager,
        time: "2026-01-01T00:00:00Z",
        reset: FieldSet::new(),
    }
}

impl By {
    fn writer<'a>(&'a self, api_version: &'a str) -> Writer<'a> {
        Writer {
            manager: self.manager,
            api_version,
            subresource: "",
            time: self.time,
            reset: &self.reset,
        }
    }
}

fn managed_fields(object: &Value) -> &Value {
    &object["metadata"]["managedFields"]
}

#[test]
fn a_create_and_an_update_are_recorded_apart() {
    let ty = ty("v1", "ConfigMap");
    let mut live = go(
        "v1",
        "ConfigMap",
        &json!({"metadata": {"name": "a", "labels": {"l": "1"}}, "data": {"k": "v"}}),
    );
    managed::update(&ty, None, &mut live, &by("tester").writer("v1"));
    let tester = json!({
        "manager": "tester", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {".": {}, "f:k": {}}, "f:metadata": {"f:labels": {".": {}, "f:l": {}}}},
    });
    assert_eq!(managed_fields(&live), &json!([tester]));

    let mut new = live.clone();
    new["data"]["z"] = json!("1");
    managed::update(&ty, Some(&live), &mut new, &by("other").writer("v1"));
    assert_eq!(
        managed_fields(&new),
        &json!([{
            "manager": "other", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:z": {}}},
        }, tester])
    );

    // A changed value changes hands; a removed one is nobody's.
    let mut newer = new.clone();
    newer["data"]["k"] = json!("w");
    newer["metadata"].as_object_mut().unwrap().remove("labels");
    managed::update(&ty, Some(&new), &mut newer, &by("other").writer("v1"));
    assert_eq!(
        managed_fields(&newer)[0]["fieldsV1"],
        json!({"f:data": {"f:k": {}, "f:z": {}}})
    );
    assert_eq!(managed_fields(&newer)[1]["fieldsV1"], json!({"f:data": {}}));
}

#[test]
fn go_zero_values_decide_what_a_create_owns() {
    let set = |api_version: &str, kind: &str, value: Value, reset: &[&str]| {
        let mut object = go(api_version, kind, &value);
        let by = By {
            reset: FieldSet::of_fields(reset),
            ..by("m")
        };
        managed::update(
            &ty(api_version, kind),
            None,
            &mut object,
            &by.writer(api_version),
        );
        managed_fields(&object)[0]["fieldsV1"].clone()
    };
    assert_eq!(
        set(
            "v1",
            "PersistentVolume",
            json!({"metadata": {"name": "p"}, "spec": {
            "storageClassName": "m", "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem",
            "hostPath": {"path": "/mnt/data", "type": ""}}, "status": {"phase": "Pending"}}),
            &["status"]
        ),
        json!({"f:spec": {"f:accessModes": {}, "f:capacity": {".": {}, "f:storage": {}},
            "f:hostPath": {".": {}, "f:path": {}, "f:type": {}}, "f:persistentVolumeReclaimPolicy": {},
            "f:storageClassName": {}, "f:volumeMode": {}}})
    );
    assert_eq!(
        set(
            "v1",
            "Pod",
            json!({"metadata": {"generateName": "p-", "ownerReferences": [{"uid": "u", "kind": "K", "name": "n", "apiVersion": "v1"}]},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]}], "securityContext": {}}}),
            &["status"]
        ),
        json!({
            "f:metadata": {"f:generateName": {}, "f:ownerReferences": {".": {}, "k:{\"uid\":\"u\"}": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"c\"}": {
                    ".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}},
                }},
                "f:securityContext": {},
            },
        })
    );
    assert_eq!(
        set(
            "v1",
            "Service",
            json!({"metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]}}),
            &["status"]
        ),
        json!({"f:spec": {
            "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {}}},
            "f:selector": {},
        }})
    );
}

#[test]
fn old_updaters_are_merged() {
    let ty = ty("v1", "ConfigMap");
    let mut live = go(
        "v1",
        "ConfigMap",
        &json!({"metadata": {"name": "a", "uid": "u"}, "data": {"x": "0"}}),
    );
    managed::update(&ty, None, &mut live, &by("m00").writer("v1"));
    for index in 1..13 {
        let manager = format!("m{index:02}");
        let time = format!("2026-01-01T00:00:{index:02}Z");
        let mut new = live.clone();
        new["data"][&manager] = json!("1");
        let reset = FieldSet::new();
        let writer = Writer {
            manager: &manager,
            api_version: "v1",
            subresource: "",
            time: &time,
            reset: &reset,
        };
        managed::update(&ty, Some(&live), &mut new, &writer);
        live = new;
    }
    let entries = managed_fields(&live).as_array().unwrap();
    assert_eq!(entries.len(), 10);
    assert_eq!(entries[0]["manager"], "ancient-changes");
    assert_eq!(entries[0]["time"], "2026-01-01T00:00:03Z");
    assert_eq!(
        entries[0]["fieldsV1"],
        json!({"f:data": {".": {}, "f:x": {}, "f:m01": {}, "f:m02": {}, "f:m03": {}}})
    );
}

#[test]
fn a_write_without_effect_keeps_the_times() {
    let ty = ty("v1", "ConfigMap");
    let mut live = go(
        "v1",
        "ConfigMap",
        &json!({"metadata": {"name": "a"}, "data": {"x": "0"}}),
    );
    managed::update(&ty, None, &mut live, &by("m").writer("v1"));
    let mut new = live.clone();
    new["metadata"]["managedFields"][0]["time"] = json!("2027-01-01T00:00:00Z");
    managed::ignore_times(&live, &mut new);
    assert_eq!(new, live);
}

fn apply(
    live: Option<&Value>,
    applied: &Value,
    manager: &'static str,
    force: bool,
) -> Result<Value, ApplyError> {
    let ty = ty("v1", "ConfigMap");
    managed::apply(&ty, live, applied, &by(manager).writer("v1"), force)
}

fn map(data: Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    if !data.is_null() {
        object["data"] = data;
    }
    object
}

#[test]
fn what_is_no_longer_applied_goes() {
    let live = apply(None, &map(json!({"k": "1", "x": "2"})), "one", false).unwrap();
    let live = apply(Some(&live), &map(json!({"k": "1"})), "one", false).unwrap();
    assert_eq!(live["data"], json!({"k": "1"}));
    let live = apply(Some(&live), &map(Value::Null), "one", false).unwrap();
    assert!(live.get("data").is_none());
    assert!(live["metadata"].get("managedFields").is_none());
}

#[test]
fn ownership_is_shared_by_equal_values() {
    let live = apply(None, &map(json!({"k": "1"})), "one", false).unwrap();
    let live = apply(Some(&live), &map(json!({"k": "1"})), "two", false).unwrap();
    assert_eq!(
        managed_fields(&live),
        &json!([
            {"manager": "two", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}}}},
            {"manager": "one", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}}}},
        ])
    );
    let live = apply(Some(&live), &map(Value::Null), "one", false).unwrap();
    assert_eq!(live["data"], json!({"k": "1"}));
    assert_eq!(
        managed_fields(&live),
        &json!([{"manager": "two", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}}}}])
    );
}

#[test]
fn conflicts_name_managers_and_fields() {
    let live = apply(None, &map(json!({"k": "1", "l": "1"})), "one", false).unwrap();
    let error = apply(Some(&live), &map(json!({"k": "2"})), "two", false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"one\": .data.k"
    );
    let error = apply(Some(&live), &map(json!({"k": "2", "l": "2"})), "two", false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.k\n- .data.l"
    );
    let ApplyError::Conflict(conflicts) = error else {
        panic!("a conflict")
    };
    assert_eq!(conflicts[0].message, "conflict with \"one\"");
    assert_eq!(conflicts[0].field, ".data.k");

    let live = apply(Some(&live), &map(json!({"k": "2"})), "two", true).unwrap();
    assert_eq!(live["data"], json!({"k": "2", "l": "1"}));
    assert_eq!(
        managed_fields(&live)[0]["fieldsV1"],
        json!({"f:data": {"f:l": {}}})
    );

    let mut updated = go("v1", "ConfigMap", &map(json!({"k": "1"})));
    managed::update(
        &ty("v1", "ConfigMap"),
        None,
        &mut updated,
        &by("three").writer("v1"),
    );
    let error = apply(Some(&updated), &map(json!({"k": "2"})), "two", false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"three\" using v1: .data.k"
    );
}

#[test]
fn keyed_lists_merge_item_by_item() {
    let ty = ty("apps/v1", "Deployment");
    let apply = |live: Option<&Value>, spec: Value, manager: &'static str| {
        let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec});
        managed::apply(&ty, live, &applied, &by(manager).writer("apps/v1"), false).unwrap()
    };
    let live = apply(
        None,
        json!({"replicas": 0, "selector": {"matchLabels": {"app": "d"}}, "template": {
        "metadata": {"labels": {"app": "d"}},
        "spec": {"containers": [{"name": "a", "image": "i:1", "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 80}]}]}}}),
        "one",
    );
    let one = json!({"f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {
        "f:metadata": {"f:labels": {"f:app": {}}},
        "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {},
            "f:env": {"k:{\"name\":\"X\"}": {".": {}, "f:name": {}, "f:value": {}}},
            "f:image": {}, "f:name": {},
            "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}});
    assert_eq!(managed_fields(&live)[0]["fieldsV1"], one);
    let live = apply(
        Some(&live),
        json!({"template": {"spec": {"containers": [{"name": "a", "env": [{"name": "Z", "value": "9"}]}]}}}),
        "two",
    );
    assert_eq!(
        live["spec"]["template"]["spec"]["containers"],
        json!([{"name": "a", "image": "i:1", "resources": {}, "env": [{"name": "X", "value": "1"}, {"name": "Z", "value": "9"}], "ports": [{"containerPort": 80}]}])
    );
    assert_eq!(managed_fields(&live)[0]["fieldsV1"], one);
    assert_eq!(
        managed_fields(&live)[1]["fieldsV1"],
        json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {},
            "f:env": {"k:{\"name\":\"Z\"}": {".": {}, "f:name": {}, "f:value": {}}}, "f:name": {}}}}}}})
    );
    let live = apply(Some(&live), json!({"replicas": 3}), "one");
    assert!(
        live["spec"]["template"]["spec"]["containers"][0]
            .get("image")
            .is_none()
    );
}

#[test]
fn objects_from_before_apply_keep_an_owner() {
    let live = go(
        "v1",
        "ConfigMap",
        &json!({"metadata": {"name": "a", "uid": "u"}, "data": {"k": "1"}}),
    );
    let error = apply(Some(&live), &map(json!({"k": "2"})), "one", false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.k"
    );
    let live = apply(Some(&live), &map(json!({"k": "2"})), "one", true).unwrap();
    assert_eq!(managed_fields(&live)[1]["manager"], "before-first-apply");
}

#[test]
fn kubectl_takes_over_what_it_applied_from_the_client() {
    const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let mut live = go("v1", "ConfigMap", &map(json!({"k": "1", "l": "1"})));
    live["metadata"]["uid"] = json!("u");
    live["metadata"]["annotations"] = json!({LAST: map(json!({"k": "1"})).to_string()});
    managed::update(
        &ty("v1", "ConfigMap"),
        None,
        &mut live,
        &by("kubectl-client-side-apply").writer("v1"),
    );
    assert!(apply(Some(&live), &map(json!({"k": "2"})), "one", false).is_err());
    let error = apply(
        Some(&live),
        &map(json!({"k": "2", "l": "2"})),
        "kubectl",
        false,
    )
    .unwrap_err();
    assert!(error.to_string().ends_with(": .data.l"));
    let new = apply(Some(&live), &map(json!({"k": "2"})), "kubectl", false).unwrap();
    assert_eq!(new["data"], json!({"k": "2", "l": "1"}));
    assert_eq!(
        new["metadata"]["annotations"][LAST],
        format!("{}\n", map(json!({"k": "2"})))
    );
}

#[test]
fn what_does_not_fit_the_schema_is_not_applied() {
    let error = apply(
        None,
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "dtaa": 1}),
        "one",
        false,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .dtaa: field not declared in schema"
    );
    let twice = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}});
    let error = managed::apply(
        &ty("apps/v1", "Deployment"),
        None,
        &twice,
        &by("one").writer("apps/v1"),
        false,
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with(".spec.template.spec.containers: duplicate entries for key [name=\"a\"]")
    );
}

fn data() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-d]", "[xy]", 0..4).prop_map(|map| json!(map))
}

proptest! {
    #[test]
    fn a_set_survives_its_encoding(value in data(), labels in data()) {
        let set = ty("v1", "ConfigMap").field_set(&json!({"data": value, "metadata": {"labels": labels}}));
        prop_assert_eq!(FieldSet::from_fields_v1(&set.to_fields_v1()).unwrap(), set);
    }

    #[test]
    fn applying_twice_changes_nothing(first in data(), second in data()) {
        let live = apply(None, &map(first), "one", false).unwrap();
        let once = apply(Some(&live), &map(second.clone()), "two", true).unwrap();
        let twice = apply(Some(&once), &map(second), "two", false).unwrap();
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn a_forced_apply_sets_what_it_says_and_keeps_the_rest(first in data(), second in data()) {
        let live = apply(None, &map(first.clone()), "one", false).unwrap();
        let live = apply(Some(&live), &map(second.clone()), "two", true).unwrap();
        let mut want = first.as_object().unwrap().clone();
        want.extend(second.as_object().unwrap().clone());
        let got = live.get("data").and_then(Value::as_object).cloned().unwrap_or_default();
        prop_assert_eq!(got, want);
    }
}
