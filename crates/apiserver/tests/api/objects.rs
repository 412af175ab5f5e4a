//! Reading and writing objects over the service.

use std::sync::Arc;
use std::time::Duration;

use apiserver::UserInfo;
use axum::body::Body;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Method, Request};
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, WatchEvent, WatchParams};
use serde_json::{Value, json};
use stdx::{ManualClock, SharedClock};

use crate::support::{config_map, pod, start, start_with};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn an_object_lives_from_create_to_delete() {
    let fixture = start().await;
    let created = fixture.post(MAPS, &config_map("a")).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let first = created.body["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let again = fixture.post(MAPS, &config_map("a")).await;
    assert_eq!(
        (again.code, again.body["reason"].as_str()),
        (409, Some("AlreadyExists"))
    );

    let mut changed = created.body.clone();
    changed["data"] = json!({"k": "v"});
    let updated = fixture.put(&format!("{MAPS}/a"), &changed).await;
    assert_eq!(updated.code, 200, "{}", updated.text);
    let stale = fixture.put(&format!("{MAPS}/a"), &changed).await;
    assert_eq!(stale.code, 409);
    assert_eq!(
        stale.body["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please \
         apply your changes to the latest version and try again"
    );
    assert_ne!(updated.body["metadata"]["resourceVersion"], first.as_str());

    let same = fixture.put(&format!("{MAPS}/a"), &updated.body).await;
    assert_eq!(
        same.body["metadata"]["resourceVersion"], updated.body["metadata"]["resourceVersion"],
        "a write without effect is none"
    );
    let deleted = fixture.delete(&format!("{MAPS}/a")).await;
    assert_eq!(
        (deleted.code, deleted.body["status"].as_str()),
        (200, Some("Success"))
    );
    assert_eq!(fixture.get(&format!("{MAPS}/a")).await.code, 404);
}

#[tokio::test]
async fn concurrent_patches_all_take_effect() {
    let fixture = start().await;
    fixture.post(MAPS, &config_map("a")).await;
    let path = format!("{MAPS}/a");
    let patches = (0..40).map(|i| {
        let patch = json!({"data": {format!("k{i}"): "v"}});
        let (fixture, path) = (&fixture, &path);
        async move { fixture.patch(path, "merge-patch+json", &patch).await.code }
    });
    let codes = futures::future::join_all(patches).await;
    assert!(codes.iter().all(|code| *code == 200), "{codes:?}");
    let data = fixture.get(&path).await.body["data"]
        .as_object()
        .unwrap()
        .len();
    assert_eq!(data, 40);
}

#[tokio::test]
async fn a_limited_list_shows_one_state_across_its_pages() {
    let fixture = start().await;
    for name in ["a", "b", "c", "d"] {
        fixture.post(MAPS, &config_map(name)).await;
    }
    let first = fixture.get(&format!("{MAPS}?limit=2")).await.body;
    let token = first["metadata"]["continue"].as_str().unwrap();
    fixture.delete(&format!("{MAPS}/c")).await;
    fixture.post(MAPS, &config_map("e")).await;
    let second = fixture
        .get(&format!("{MAPS}?limit=5&continue={token}"))
        .await
        .body;
    let names: Vec<&str> = second["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["c", "d"]);
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn a_pod_is_deleted_when_its_kubelet_says_so() {
    let fixture = start().await.with_account().await;
    let mut body = pod("p");
    body["spec"]["nodeName"] = "n".into();
    let created = fixture.post("/api/v1/namespaces/default/pods", &body).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let path = "/api/v1/namespaces/default/pods/p";
    let marked = fixture.delete(path).await.body;
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(fixture.get(path).await.code, 200);
    let gone = fixture
        .delete(&format!("{path}?gracePeriodSeconds=0"))
        .await;
    assert_eq!((gone.code, fixture.get(path).await.code), (200, 404));
}

#[tokio::test]
async fn services_get_addresses_and_ports_of_their_own() {
    let fixture = start().await;
    let service = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": "NodePort", "ports": [{"port": 80}]},
        })
    };
    let path = "/api/v1/namespaces/default/services";
    let bodies = ["a", "b"].map(service);
    let [a, b] = [
        fixture.post(path, &bodies[0]).await.body,
        fixture.post(path, &bodies[1]).await.body,
    ];
    assert!(
        a["spec"]["clusterIP"]
            .as_str()
            .unwrap()
            .starts_with("127.96.")
    );
    assert_ne!(a["spec"]["clusterIP"], b["spec"]["clusterIP"]);
    assert_ne!(
        a["spec"]["ports"][0]["nodePort"],
        b["spec"]["ports"][0]["nodePort"]
    );

    let mut taken = service("c");
    taken["spec"]["clusterIP"] = a["spec"]["clusterIP"].clone();
    taken["spec"]["ports"][0]["nodePort"] = b["spec"]["ports"][0]["nodePort"].clone();
    let refused = fixture.post(path, &taken).await;
    assert_eq!(refused.code, 422);
    assert!(
        refused.text.contains("provided IP is already allocated"),
        "{}",
        refused.text
    );
    assert!(
        refused.text.contains("provided port is already allocated"),
        "{}",
        refused.text
    );
    fixture.delete(&format!("{path}/a")).await;
    fixture.delete(&format!("{path}/b")).await;
    assert_eq!(fixture.post(path, &taken).await.code, 201);
}

#[tokio::test]
async fn retired_workload_versions_are_served_as_the_current_one() {
    let fixture = start().await;
    let deployment = json!({
        "apiVersion": "apps/v1beta2", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    });
    let path = "/apis/apps/v1beta2/namespaces/default/deployments";
    let created = fixture.post(path, &deployment).await;
    assert_eq!(created.code, 201, "{}", created.text);
    assert_eq!(created.body["apiVersion"], "apps/v1beta2");
    assert!(
        created.headers["warning"]
            .to_str()
            .unwrap()
            .contains("deprecated")
    );
    let current = fixture
        .get("/apis/apps/v1/namespaces/default/deployments/d")
        .await
        .body;
    assert_eq!(current["apiVersion"], "apps/v1");
    let patch = json!({"spec": {"replicas": 3}});
    let patched = fixture
        .patch(&format!("{path}/d"), "strategic-merge-patch+json", &patch)
        .await;
    assert_eq!(patched.body["spec"]["replicas"], 3);
}

#[tokio::test]
async fn bodies_and_answers_may_be_yaml() {
    let fixture = start().await;
    let mut request = Request::post(MAPS)
        .header("content-type", "application/yaml")
        .header("accept", "application/yaml")
        .body(Body::from(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: why}\ndata: {k: v}\n",
        ))
        .unwrap();
    request.extensions_mut().insert(UserInfo::admin("admin"));
    let answer = fixture.send(request).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/yaml");
    assert!(answer.text.contains("k: v"), "{}", answer.text);
}

#[tokio::test]
async fn a_stranger_and_a_user_without_rights_are_told_so() {
    let fixture = start().await;
    let anonymous = fixture
        .send(Request::get(MAPS).body(Body::empty()).unwrap())
        .await;
    assert_eq!(anonymous.code, 403);
    assert_eq!(
        anonymous.body["message"],
        "configmaps is forbidden: User \"system:anonymous\" cannot list resource \"configmaps\" \
         in API group \"\" in the namespace \"default\""
    );
    let bad = Request::get(MAPS).header("authorization", "Bearer nonsense");
    assert_eq!(
        fixture.send(bad.body(Body::empty()).unwrap()).await.code,
        401
    );
    let alice = UserInfo::new("alice", &[]);
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "rb"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "User", "name": "alice"}],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    assert_eq!(fixture.post(bindings, &binding).await.code, 201);
    let json = "application/json";
    let list = fixture
        .as_user(alice.clone(), Method::GET, MAPS, json, &Value::Null)
        .await;
    assert_eq!(list.code, 200);
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "more"},
        "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}],
    });
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    assert_eq!(
        fixture
            .as_user(alice, Method::POST, roles, json, &role)
            .await
            .code,
        403
    );
}

#[tokio::test]
async fn rights_cannot_be_handed_out_by_who_does_not_have_them() {
    let fixture = start().await;
    let carol = UserInfo::new("carol", &[]);
    for (name, resources, verbs) in [
        ("writer", json!(["roles"]), json!(["create"])),
        ("reader", json!(["pods"]), json!(["get"])),
    ] {
        let groups = if name == "writer" {
            json!(["rbac.authorization.k8s.io"])
        } else {
            json!([""])
        };
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": [{"apiGroups": groups, "resources": resources, "verbs": verbs}],
        });
        fixture
            .post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role)
            .await;
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "User", "name": "carol"}],
        });
        fixture
            .post(
                "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
                &binding,
            )
            .await;
    }
    let role = |name: &str, resource: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": name},
            "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}],
        })
    };
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    let json = "application/json";
    let held = fixture
        .as_user(carol.clone(), Method::POST, path, json, &role("a", "pods"))
        .await;
    assert_eq!(held.code, 201, "{}", held.text);
    let more = fixture
        .as_user(carol, Method::POST, path, json, &role("b", "secrets"))
        .await;
    assert_eq!(more.code, 403);
    assert!(
        more.text
            .contains("is attempting to grant RBAC permissions not currently held")
    );
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let fixture = start().await;
    let mut large = config_map("a");
    large["data"] = json!({"k": "x".repeat(4 * 1024 * 1024)});
    assert_eq!(fixture.post(MAPS, &large).await.code, 413);
}

#[tokio::test]
async fn events_are_forgotten_an_hour_after_they_were_last_seen() {
    let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    let shared: SharedClock = clock.clone();
    let fixture = start_with(|options| options.clock = shared).await;
    let event = |name: &str, seen: &str| {
        json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name},
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
            "reason": "R", "message": "m", "type": "Normal", "lastTimestamp": seen,
        })
    };
    let path = "/api/v1/namespaces/default/events";
    for (name, seen) in [
        ("old", "2026-01-01T00:00:00Z"),
        ("new", "2026-01-01T00:58:00Z"),
    ] {
        let made = fixture.post(path, &event(name, seen)).await;
        assert_eq!(made.code, 201, "{}", made.text);
    }
    let client = fixture.server.client_for(UserInfo::admin("boss"), "test");
    let events: Api<Event> = Api::namespaced(client, "default");
    let version = fixture.get(path).await.body["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    clock.advance(Duration::from_secs(61 * 60));
    let mut watch = events
        .watch(&WatchParams::default(), &version)
        .await
        .unwrap()
        .boxed();
    let gone = watch.try_next().await.unwrap().unwrap();
    let WatchEvent::Deleted(gone) = gone else {
        panic!("{gone:?}")
    };
    assert_eq!(gone.metadata.name.as_deref(), Some("old"));
    assert_eq!(fixture.get(&format!("{path}/new")).await.code, 200);
}

#[tokio::test]
async fn a_field_may_be_owned_part_by_part_although_its_type_is_atomic() {
    let fixture = start().await;
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/x"}, "claimRef": {"namespace": "default", "name": "c"},
        },
    });
    let made = fixture.post("/api/v1/persistentvolumes", &volume).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let owned = &made.body["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:claimRef"];
    assert_eq!(*owned, json!({".": {}, "f:name": {}, "f:namespace": {}}));
}
