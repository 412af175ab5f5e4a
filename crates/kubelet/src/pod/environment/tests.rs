//! Expansion, sources and service variables of a container's environment.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn lookup(name: &str) -> Option<&'static str> {
    match name {
        "A" => Some("1"),
        "B" => Some("$(A)"),
        _ => None,
    }
}

#[test]
fn references_are_expanded_once_and_unknown_ones_stay() {
    for (text, expect) in [
        ("x$(A)y", "x1y"),
        ("$(B)", "$(A)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(C)", "$(C)"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
        ("", ""),
    ] {
        assert_eq!(expand(text, lookup), expect, "{text}");
    }
}

proptest! {
    #[test]
    fn a_text_without_dollars_is_untouched(text in "[^$]*") {
        prop_assert_eq!(expand(&text, lookup), text);
    }

    #[test]
    fn a_doubled_dollar_protects_any_text(text in "\\PC*") {
        let doubled = text.replace('$', "$$");
        prop_assert_eq!(expand(&doubled, lookup), text);
    }
}

fn container(spec: serde_json::Value) -> Container {
    serde_json::from_value(spec).unwrap()
}

fn built(spec: serde_json::Value, sources: &Sources) -> Result<Environment, String> {
    let pod = Pod {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some("p".into()),
            namespace: Some("ns".into()),
            ..Default::default()
        },
        ..Default::default()
    };
    build(
        &container(spec),
        &Inputs {
            pod: &pod,
            facts: &Facts::default(),
            sources,
            image: &[("IMG".into(), "i".into()), ("PATH".into(), "/img".into())],
            services: &[("DB_SERVICE_HOST".into(), "10.0.0.1".into())],
            hostname: "p",
        },
    )
}

#[test]
fn own_variables_override_sources_which_override_services_and_image() {
    let sources = Sources {
        config_maps: [(
            "cm".to_owned(),
            Some(
                serde_json::from_value(json!({"data": {"K": "cm", "IMG": "cm", "only": "x"}}))
                    .unwrap(),
            ),
        )]
        .into(),
        secrets: [(
            "s".to_owned(),
            Some(serde_json::from_value(json!({"data": {"pw": "c2VjcmV0"}})).unwrap()),
        )]
        .into(),
    };
    let env = built(
        json!({"name": "c",
            "envFrom": [{"configMapRef": {"name": "cm"}}, {"prefix": "P_", "configMapRef": {"name": "cm"}},
                        {"configMapRef": {"name": "none", "optional": true}}],
            "env": [{"name": "K", "value": "own"}, {"name": "URL", "value": "$(DB_SERVICE_HOST)/$(K)/$(LATER)/$(IMG2)"},
                    {"name": "LATER", "value": "z"},
                    {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pw"}}},
                    {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "OPT", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "no", "optional": true}}}]}),
        &sources,
    )
    .unwrap();
    for (name, value) in [
        ("K", Some("own")),
        ("P_K", Some("cm")),
        ("IMG", Some("cm")),
        ("URL", Some("10.0.0.1/own/$(LATER)/$(IMG2)")),
        ("PW", Some("secret")),
        ("ME", Some("p")),
        ("OPT", None),
        ("PATH", Some("/img")),
        ("HOSTNAME", Some("p")),
    ] {
        assert_eq!(env.get(name), value, "{name}");
    }
}

#[test]
fn a_missing_source_says_which() {
    let none = Sources::default();
    let error = |spec| built(spec, &none).unwrap_err();
    assert_eq!(
        error(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "gone"}}]})),
        "configmap \"gone\" not found"
    );
    assert_eq!(
        error(
            json!({"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "k"}}}]})
        ),
        "secret \"gone\" not found"
    );
    let sources = Sources {
        config_maps: [("cm".to_owned(), Some(ConfigMap::default()))].into(),
        ..Sources::default()
    };
    assert_eq!(
        built(json!({"name": "c", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]}), &sources)
            .unwrap_err(),
        "couldn't find key k in ConfigMap ns/cm"
    );
}

#[test]
fn services_are_told_in_the_form_of_links() {
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "web-ui"},
        "spec": {"clusterIP": "127.96.0.5", "ports": [{"name": "http", "port": 80}, {"port": 90, "protocol": "UDP"}]}
    }))
    .unwrap();
    let headless: Service = serde_json::from_value(json!({
        "metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}
    }))
    .unwrap();
    let env = service_variables([&service, &headless], &("127.96.0.1".to_owned(), 443));
    let get = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    for (name, value) in [
        ("WEB_UI_SERVICE_HOST", Some("127.96.0.5")),
        ("WEB_UI_SERVICE_PORT", Some("80")),
        ("WEB_UI_SERVICE_PORT_HTTP", Some("80")),
        ("WEB_UI_PORT", Some("tcp://127.96.0.5:80")),
        ("WEB_UI_PORT_90_UDP_PROTO", Some("udp")),
        ("WEB_UI_PORT_80_TCP_ADDR", Some("127.96.0.5")),
        ("KUBERNETES_SERVICE_PORT_HTTPS", Some("443")),
        ("KUBERNETES_PORT_443_TCP", Some("tcp://127.96.0.1:443")),
        ("H_SERVICE_HOST", None),
    ] {
        assert_eq!(get(name), value, "{name}");
    }
}
