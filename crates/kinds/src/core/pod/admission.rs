//! What admission adds to every new Pod, as pure functions; looking the ServiceAccount or
//! PriorityClass up is the server's part.

use serde_json::{Value, json};

use crate::tree::{self, set_default};

/// Where containers find their ServiceAccount's token.
pub const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Mirror Pods carry this annotation and get no ServiceAccount.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// The Pod's ServiceAccount, `default` where it names none (and then it is set).
pub fn service_account(pod: &mut Value) -> String {
    let spec = tree::child(pod, "spec");
    let name = tree::text(spec, "serviceAccountName").to_owned();
    let name = if name.is_empty() {
        "default".to_owned()
    } else {
        name
    };
    spec["serviceAccountName"] = json!(name);
    spec["serviceAccount"] = json!(name);
    name
}

/// Whether the Pod gets a token volume: its own word, else the account's, else yes.
pub fn wants_token(pod: &Value, account: &Value) -> bool {
    tree::get(pod, "spec.automountServiceAccountToken")
        .or_else(|| tree::get(account, "automountServiceAccountToken"))
        .and_then(Value::as_bool)
        .unwrap_or(true)
}

/// Adds the ServiceAccount's image pull secrets where the Pod has none, and the projected token
/// volume `kube-api-access-<suffix>` with a mount in every container that mounts nothing there.
pub fn apply_service_account(pod: &mut Value, account: &Value, suffix: &str) {
    if tree::list(pod, "spec.imagePullSecrets").is_empty() {
        let secrets = tree::list(account, "imagePullSecrets");
        if !secrets.is_empty() {
            pod["spec"]["imagePullSecrets"] = json!(secrets);
        }
    }
    if !wants_token(pod, account) {
        return;
    }
    let existing = tree::list(pod, "spec.volumes")
        .iter()
        .map(|volume| tree::text(volume, "name"))
        .find(|name| name.starts_with("kube-api-access-"))
        .map(str::to_owned);
    let is_new = existing.is_none();
    let volume = existing.unwrap_or_else(|| format!("kube-api-access-{suffix}"));
    let mount = json!({"name": volume, "readOnly": true, "mountPath": TOKEN_PATH});
    let mut mounted = false;
    let spec = tree::child(pod, "spec");
    for list in ["initContainers", "containers"] {
        for container in tree::list_mut(spec, list) {
            let has = tree::list(container, "volumeMounts")
                .iter()
                .any(|mount| tree::text(mount, "mountPath") == TOKEN_PATH);
            if !has {
                push(container, "volumeMounts", mount.clone());
                mounted = true;
            }
        }
    }
    if mounted && is_new {
        push(spec, "volumes", token_volume(&volume));
    }
}

fn push(tree_: &mut Value, key: &str, item: Value) {
    let slot = tree::object(tree_).entry(key).or_insert(Value::Null);
    match slot.as_array_mut() {
        Some(list) => list.push(item),
        None => *slot = json!([item]),
    }
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }},
                {"downwardAPI": {"items": [{
                    "path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                }]}},
            ],
        },
    })
}

/// Tolerates an unready and an unreachable node for 300 seconds, unless the Pod says something.
pub fn default_tolerations(pod: &mut Value) {
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerated = tree::list(pod, "spec.tolerations")
            .iter()
            .any(|toleration| {
                let own = tree::text(toleration, "key");
                let effect = tree::text(toleration, "effect");
                (own == key || own.is_empty()) && (effect == "NoExecute" || effect.is_empty())
            });
        if !tolerated {
            let toleration = json!({
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            });
            push(tree::child(pod, "spec"), "tolerations", toleration);
        }
    }
}

/// Sets priority and preemption policy; `class` is the PriorityClass named by the Pod, or the
/// default one, or none.
pub fn apply_priority(pod: &mut Value, class: Option<&Value>) {
    let spec = tree::child(pod, "spec");
    let Some(class) = class else {
        spec["priority"] = json!(0);
        set_default(spec, "preemptionPolicy", "PreemptLowerPriority");
        return;
    };
    spec["priorityClassName"] = json!(tree::text(class, "metadata.name"));
    spec["priority"] = json!(tree::int(class, "value").unwrap_or(0));
    let policy = tree::text(class, "preemptionPolicy");
    let policy = if policy.is_empty() {
        "PreemptLowerPriority"
    } else {
        policy
    };
    set_default(spec, "preemptionPolicy", policy);
}

/// The two built-in priority classes, which exist without being stored: (name, value).
pub const SYSTEM_PRIORITIES: [(&str, i64); 2] = [
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];
