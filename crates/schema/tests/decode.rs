//! Decoding as upstream's handlers do it: messages, strictness, the form Go encodes.

use std::sync::LazyLock;

use schema::{ContentType, Gvk, Schemas};
use serde_json::{Value, json};

/// Built once: a server has one, too.
static SCHEMAS: LazyLock<Schemas> = LazyLock::new(Schemas::builtin);

fn decode(kind: &str, body: &str) -> Result<Value, String> {
    let (api_version, kind) = kind.rsplit_once('.').unwrap_or(("v1", kind));
    let want = Gvk::from_api_version(api_version, kind);
    SCHEMAS
        .decode(&want, body.as_bytes(), ContentType::Json)
        .map(|decoded| decoded.value)
        .map_err(|error| error.to_string())
}

fn strict(kind: &str, body: &str) -> Vec<String> {
    SCHEMAS
        .decode(
            &Gvk::from_api_version("v1", kind),
            body.as_bytes(),
            ContentType::Json,
        )
        .expect("a good object")
        .strict
}

#[test]
fn broken_bodies_are_refused_in_upstreams_words() {
    let cases = [
        (
            "{not json",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: invalid character 'n' looking for beginning of object key string ({not json)",
        ),
        (
            "[]",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" } (5b5d)",
        ),
        (
            "",
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
        ),
        (
            r#"{"kind":"Pod","apiVersion":"v1"}"#,
            "Pod in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion",
        ),
        (
            r#"{"kind":"ConfigMap","apiVersion":"v2"}"#,
            "ConfigMap in version \"v2\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v2\" in scheme \"pkg/runtime/scheme.go:110\"",
        ),
        (
            r#"{"kind":5}"#,
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field .kind of type string ({\"kind\":5})",
        ),
        (
            r#"{"kind":"ConfigMap","apiVersion":"v1","data":{"a":1}}"#,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            r#"{"metadata":{"labels":[]}}"#,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            r#"{"binaryData":{"a":"*"}}"#,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: illegal base64 data at input byte 0",
        ),
        (
            r#"{"metadata":{"creationTimestamp":"soon"}}"#,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: parsing time \"soon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"soon\" as \"2006\"",
        ),
    ];
    for (body, want) in cases {
        assert_eq!(decode("ConfigMap", body).unwrap_err(), want, "{body}");
    }
}

#[test]
fn type_errors_name_the_go_field() {
    let cases = [
        (
            r#"{"spec":{"containers":"no"}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            r#"{"spec":{"containers":[{"ports":[{"containerPort":"eighty"}]}]}}"#,
            "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            r#"{"spec":{"containers":[{"ports":[{"containerPort":1.5}]}]}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            r#"{"spec":{"restartPolicy":3}}"#,
            "json: cannot unmarshal number into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
        ),
        (
            r#"{"spec":{"hostNetwork":"yes"}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
        ),
        (
            r#"{"spec":{"volumes":[{"hostPath":"/mnt"}]}}"#,
            "json: cannot unmarshal string into Go struct field Volume.spec.volumes.hostPath of type v1.HostPathVolumeSource",
        ),
        (
            r#"{"spec":{"nodeSelector":{"a":true}}}"#,
            "json: cannot unmarshal bool into Go struct field PodSpec.spec.nodeSelector of type string",
        ),
        (
            r#"{"spec":"x"}"#,
            "json: cannot unmarshal string into Go struct field Pod.spec of type v1.PodSpec",
        ),
        (
            r#"{"spec":{"containers":[{"resources":{"requests":{"cpu":"lots"}}}]}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            r#"{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":true}}}]}}"#,
            "json: cannot unmarshal bool into Go struct field HTTPGetAction.spec.containers.livenessProbe.httpGet.port of type int32",
        ),
    ];
    for (body, want) in cases {
        let error = decode("Pod", body).unwrap_err();
        assert_eq!(
            error,
            format!("Pod in version \"v1\" cannot be handled as a Pod: {want}")
        );
    }
}

#[test]
fn strict_errors_come_in_document_order() {
    assert_eq!(
        strict(
            "Pod",
            r#"{"zzz":1,"spec":{"restartPolcy":"x","containers":[{"name":"a","imag":1,"name":"b"}]},"aaa":2}"#
        ),
        [
            "unknown field \"zzz\"",
            "unknown field \"spec.restartPolcy\"",
            "unknown field \"spec.containers[0].imag\"",
            "duplicate field \"spec.containers[0].name\"",
            "unknown field \"aaa\"",
        ]
    );
    assert_eq!(
        strict("ConfigMap", r#"{"data":{"a":"1","a":"2"},"Data":{}}"#),
        ["duplicate field \"data.a\"", "unknown field \"Data\""]
    );
    let decoded = SCHEMAS
        .decode(
            &Gvk::from_api_version("v1", "ConfigMap"),
            br#"{"dtaa":{}}"#,
            ContentType::Json,
        )
        .unwrap();
    assert_eq!(
        decoded.strict_error().unwrap().to_string(),
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"dtaa\""
    );
}

#[test]
fn yaml_speaks_version_1_1() {
    let decode = |text: &str| {
        SCHEMAS.decode(
            &Gvk::from_api_version("v1", "ConfigMap"),
            text.as_bytes(),
            ContentType::Yaml,
        )
    };
    assert_eq!(
        decode("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: y\n")
            .unwrap_err()
            .to_string(),
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.name of type string"
    );
    let twice = decode("metadata:\n  name: a\ndata:\n  k: v\n  k: w\n").unwrap();
    assert_eq!(
        twice.strict,
        ["yaml: unmarshal errors:\n  line 5: key \"k\" already set in map"]
    );
    assert_eq!(twice.value["data"]["k"], "w");
}

#[test]
fn objects_take_the_form_go_encodes() {
    let pod = decode(
        "Pod",
        r#"{"metadata":{"name":"p","labels":null,"annotations":{}},"spec":{"hostNetwork":false,
            "automountServiceAccountToken":false,"nodeName":"","volumes":[],
            "containers":[{"name":"c","env":null,"resources":{"requests":{"cpu":"1000m","memory":1024}}}]}}"#,
    )
    .unwrap();
    assert_eq!(
        pod,
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p"},
            "spec": {
                "automountServiceAccountToken": false,
                "containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1024"}}}],
            },
            "status": {},
        })
    );
    let deployment = decode(
        "apps/v1.Deployment",
        r#"{"spec":{"replicas":0,"template":{}}}"#,
    )
    .unwrap();
    assert_eq!(
        deployment["spec"],
        json!({
            "replicas": 0, "selector": null, "strategy": {},
            "template": {"metadata": {}, "spec": {"containers": null}},
        })
    );
    let role = decode("rbac.authorization.k8s.io/v1.Role", "{}").unwrap();
    assert_eq!(role["rules"], Value::Null);
    assert!(role.as_object().unwrap().contains_key("rules"));
}

#[test]
fn retired_versions_decode_as_themselves() {
    let value = decode(
        "apps/v1beta2.Deployment",
        r#"{"apiVersion":"apps/v1beta2","kind":"Deployment"}"#,
    )
    .unwrap();
    assert_eq!(value["apiVersion"], "apps/v1beta2");
    assert!(
        decode(
            "apps/v1.Deployment",
            r#"{"apiVersion":"apps/v1beta2","kind":"Deployment"}"#
        )
        .unwrap_err()
        .contains("does not match the expected API version (apps/v1)")
    );
}

#[test]
fn a_patched_tree_is_checked_again() {
    let ty = SCHEMAS
        .get(&Gvk::from_api_version("v1", "ConfigMap"))
        .unwrap();
    let coerced = ty.coerce(json!({"data": {"a": null}, "x": 1})).unwrap();
    assert_eq!(coerced.value["data"]["a"], "");
    assert_eq!(coerced.strict, ["unknown field \"x\""]);
    assert!(ty.coerce(json!({"data": "x"})).is_err());
}
