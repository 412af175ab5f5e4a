//! Rules of creation and change, one table of cases per kind: an object (and its successor), and the
//! message of the errors, "" for none.

use kinds::Ctx;
use serde_json::{Value, json};

fn ctx() -> Ctx {
    Ctx::new("2026-01-01T00:00:00Z".parse().expect("a time"))
}

/// A stored object of a resource, made from `body` as a server makes it.
fn made(resource: (&str, &str, &str), body: &Value) -> (Value, String) {
    let (group, version, plural) = resource;
    let kind = kinds::find(group, version, plural).expect("a row");
    let mut object = body.clone();
    kind.default(&mut object);
    let metadata = &mut object["metadata"];
    if metadata["name"].is_null() {
        metadata["name"] = json!("x");
    }
    if kind.namespaced {
        metadata["namespace"] = json!("n");
    }
    metadata["uid"] = json!("u");
    kind.prepare_create(&ctx(), &mut object);
    let message = kind.validate_create(&ctx(), &object).message();
    object["metadata"]["resourceVersion"] = json!("1");
    (object, message)
}

fn check_create(resource: (&str, &str, &str), body: Value, expected: &str) {
    assert_eq!(made(resource, &body).1, expected, "{body}");
}

/// The error message and the result of changing an object by a closure.
fn changed(
    resource: (&str, &str, &str),
    body: &Value,
    change: impl Fn(&mut Value),
) -> (String, Value) {
    let (group, version, plural) = resource;
    let kind = kinds::find(group, version, plural).expect("a row");
    let (old, message) = made(resource, body);
    assert_eq!(message, "", "{body}");
    let mut new = old.clone();
    change(&mut new);
    kind.default(&mut new);
    kind.prepare_update(&ctx(), &mut new, &old);
    (kind.validate_update(&ctx(), &new, &old).message(), new)
}

const PODS: (&str, &str, &str) = ("", "v1", "pods");
const SERVICES: (&str, &str, &str) = ("", "v1", "services");
const DEPLOYMENTS: (&str, &str, &str) = ("apps", "v1", "deployments");

fn pod(container: Value) -> Value {
    let mut container = container;
    container["name"] = json!("c");
    container["image"] = json!("i");
    json!({"spec": {"containers": [container]}})
}

#[test]
fn containers() {
    let c = "spec.containers[0]";
    for (container, expected) in [
        (json!({}), String::new()),
        (
            json!({"ports": [{"containerPort": 70_000}]}),
            format!(
                "{c}.ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"
            ),
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]}),
            format!(
                "{c}.env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported \
                 values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \
                 \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \
                 \"status.podIPs\""
            ),
        ),
        (
            json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}),
            format!(
                "{c}.resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"
            ),
        ),
        (
            json!({"livenessProbe": {"exec": {"command": ["a"]}, "successThreshold": 2}}),
            format!("{c}.livenessProbe.successThreshold: Invalid value: 2: must be 1"),
        ),
        (
            json!({"readinessProbe": {}}),
            format!("{c}.readinessProbe: Required value: must specify a handler type"),
        ),
        (
            json!({"imagePullPolicy": "Sometimes"}),
            format!(
                "{c}.imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\""
            ),
        ),
    ] {
        check_create(PODS, pod(container), &expected);
    }
}

#[test]
fn volumes() {
    let with = |volume: Value| {
        let mut pod = pod(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}));
        pod["spec"]["volumes"] = json!([volume]);
        pod
    };
    check_create(PODS, with(json!({"name": "v"})), "");
    check_create(
        PODS,
        with(json!({"name": "v", "hostPath": {"path": "/a/../b"}})),
        "[spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..', \
         spec.containers[0].volumeMounts[0].name: Not found: \"v\"]",
    );
    check_create(
        PODS,
        with(json!({"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}})),
        "[spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type, \
         spec.containers[0].volumeMounts[0].name: Not found: \"v\"]",
    );
}

#[test]
fn a_pod_changes_in_few_places() {
    let (message, new) = changed(PODS, &pod(json!({})), |pod| {
        pod["spec"]["containers"][0]["image"] = json!("other");
        pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        pod["status"]["phase"] = json!("Failed");
    });
    assert_eq!(message, "");
    assert_eq!(new["status"]["phase"], "Pending");
    assert_eq!(new["metadata"]["generation"], 2);
    let (message, _) = changed(PODS, &pod(json!({})), |pod| {
        pod["spec"]["nodeName"] = json!("n");
    });
    assert!(message.starts_with("spec: Forbidden: pod updates may not change fields other than"));
    let (message, _) = changed(PODS, &pod(json!({})), |pod| {
        pod["metadata"]["uid"] = json!("v");
    });
    assert_eq!(
        message,
        "metadata.uid: Invalid value: \"v\": field is immutable"
    );
}

#[test]
fn services() {
    let body = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}});
    let (message, new) = changed(SERVICES, &body, |service| {
        service["spec"]["type"] = json!("ClusterIP");
    });
    assert_eq!(message, "");
    assert!(new["spec"]["ports"][0].get("nodePort").is_none());
    assert!(new["spec"].get("externalTrafficPolicy").is_none());
    let fixed = json!({"spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}});
    let (message, new) = changed(SERVICES, &fixed, |service| {
        service["spec"]["clusterIP"] = json!("10.0.0.2");
    });
    assert_eq!(
        message,
        "spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"
    );
    assert_eq!(new["spec"]["clusterIPs"], json!(["10.0.0.2"]));
    let (message, new) = changed(SERVICES, &fixed, |service| {
        service["spec"] = json!({"type": "ExternalName", "externalName": "a.b"});
    });
    assert_eq!((message.as_str(), new["spec"].get("clusterIP")), ("", None));
    check_create(
        SERVICES,
        json!({"spec": {"ports": [{"port": 80}], "externalIPs": ["127.0.0.1"]}}),
        "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range \
         (127.0.0.0/8, ::1/128)",
    );
}

#[test]
fn a_deployments_selector_stays() {
    let body = json!({"spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b", "c": "d"}}, "spec": pod(json!({}))["spec"]},
    }});
    let (message, new) = changed(DEPLOYMENTS, &body, |object| {
        object["spec"]["replicas"] = json!(3);
    });
    assert_eq!(
        (message.as_str(), &new["metadata"]["generation"]),
        ("", &json!(2))
    );
    let (message, _) = changed(DEPLOYMENTS, &body, |object| {
        object["spec"]["selector"] = json!({"matchLabels": {"c": "d"}});
    });
    assert_eq!(
        message,
        "spec.selector: Invalid value: {\"matchLabels\":{\"c\":\"d\"}}: field is immutable"
    );
}

#[test]
fn other_kinds() {
    check_create(
        ("", "v1", "persistentvolumeclaims"),
        json!({"spec": {}}),
        "[spec.accessModes: Required value: at least 1 access mode is required, \
         spec.resources[storage]: Required value]",
    );
    check_create(
        ("storage.k8s.io", "v1", "storageclasses"),
        json!({"provisioner": "p", "reclaimPolicy": "Keep"}),
        "reclaimPolicy: Unsupported value: \"Keep\": supported values: \"Delete\", \"Retain\"",
    );
    check_create(
        ("batch", "v1", "cronjobs"),
        json!({"spec": {"schedule": "61 * * * *", "concurrencyPolicy": "Maybe",
            "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never",
                "containers": [{"name": "c", "image": "i"}]}}}}}}),
        "[spec.schedule: Invalid value: \"61 * * * *\": end of range (61) above maximum (59): 61, \
         spec.concurrencyPolicy: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\", \
         \"Replace\"]",
    );
    check_create(
        ("rbac.authorization.k8s.io", "v1", "clusterroles"),
        json!({"metadata": {"name": "a:b"}, "rules": [{"nonResourceURLs": ["/x"], "verbs": ["get"]}]}),
        "",
    );
    check_create(
        ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
        json!({"metadata": {"name": "wrong.x.io"}, "spec": {"group": "x.io", "scope": "Cluster",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]}}),
        "metadata.name: Invalid value: \"wrong.x.io\": must be spec.names.plural+\".\"+spec.group",
    );
}

#[test]
fn an_immutable_config_map_stays() {
    let maps = ("", "v1", "configmaps");
    let body = json!({"immutable": true, "data": {"a": "1"}});
    let (message, _) = changed(maps, &body, |map| map["data"]["a"] = json!("2"));
    assert_eq!(
        message,
        "data: Forbidden: field is immutable when `immutable` is set"
    );
    let (message, _) = changed(maps, &body, |map| {
        map["metadata"]["labels"] = json!({"l": "x"});
    });
    assert_eq!(message, "");
}

#[test]
fn custom_resources_count_generations_and_keep_status() {
    let names = kinds::CustomNames {
        group: "x.io".to_owned(),
        version: "v1".to_owned(),
        kind: "Thing".to_owned(),
        plural: "things".to_owned(),
        singular: "thing".to_owned(),
        namespaced: true,
        short_names: Vec::new(),
        categories: Vec::new(),
        status: true,
        scale: false,
    };
    let kind = kinds::Kind::custom(names);
    let mut object = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"a": null}, "status": {"b": 1}});
    kind.default(&mut object);
    kind.prepare_create(&ctx(), &mut object);
    assert_eq!(object["spec"], json!({"a": null}));
    assert!(object.get("status").is_none());
    object["metadata"]["resourceVersion"] = json!("1");
    let mut new = object.clone();
    new["spec"]["a"] = json!(2);
    new["status"] = json!({"b": 2});
    kind.prepare_update(&ctx(), &mut new, &object);
    assert_eq!(new["metadata"]["generation"], 2);
    assert!(new.get("status").is_none());
    let mut status = object.clone();
    status["status"] = json!({"b": 2});
    status["spec"]["a"] = json!(3);
    kind.prepare_status_update(&ctx(), &mut status, &object);
    assert_eq!(
        (&status["status"]["b"], &status["spec"]["a"]),
        (&json!(2), &Value::Null)
    );
    assert_eq!(
        kind.validate_status_update(&ctx(), &status, &object)
            .message(),
        ""
    );
}
