//! What a first start makes beyond plain Kubernetes: the namespace of Kubeflow Pipelines with its
//! accounts, the default StorageClass, and the parts of IBM Cloud Private that the tutorial names.
//!
//! The objects go into the API server's own first transaction. What depends on this start's
//! addresses is brought up to date by [`publish`] at every start.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Where runs execute, as in a Kubeflow installation.
pub(crate) const NAMESPACE: &str = "kubeflow";
/// The port of Service `ml-pipeline` (and of the listener behind it) for HTTP.
pub(crate) const ML_PIPELINE_PORT: u16 = 8888;

const POLICY_GROUP: &str = "securityenforcement.admission.cloud.ibm.com";
const RBAC: &str = "rbac.authorization.k8s.io";

/// The objects of the first start, in the order in which they are made.
pub(crate) fn objects() -> Vec<Value> {
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": "standard",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": controllers::PROVISIONER,
            "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate",
        }),
        // The name is what matters to the tutorial: on IBM Cloud Private it grants the use of the
        // privileged PodSecurityPolicy, a kind that Kubernetes has removed since.
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "ibm-privileged-clusterrole"},
            "rules": [{"apiGroups": ["policy"], "resources": ["podsecuritypolicies"],
                "resourceNames": ["ibm-privileged-psp"], "verbs": ["use"]}],
        }),
        policy_crd("ImagePolicy", "imagepolicies", "imagepolicy", "Namespaced"),
        policy_crd(
            "ClusterImagePolicy",
            "clusterimagepolicies",
            "clusterimagepolicy",
            "Cluster",
        ),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "ml-pipeline", "namespace": NAMESPACE,
                "labels": {"app": "ml-pipeline"}},
            "spec": {"ports": [{"name": "http", "port": ML_PIPELINE_PORT,
                "targetPort": ML_PIPELINE_PORT, "protocol": "TCP"}]},
        }),
    ];
    objects.extend(account("pipeline-runner", &runner_rules()));
    objects.extend(account("ml-pipeline", &server_rules()));
    // The server asks the API who a token belongs to.
    objects.push(json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRoleBinding",
        "metadata": {"name": "ml-pipeline:auth-delegator"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "system:auth-delegator"},
        "subjects": [{"kind": "ServiceAccount", "name": "ml-pipeline", "namespace": NAMESPACE}],
    }));
    objects
}

/// A service account of [`NAMESPACE`] with a role of its own name.
fn account(name: &str, rules: &Value) -> [Value; 3] {
    let metadata = json!({"name": name, "namespace": NAMESPACE});
    [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
        json!({"apiVersion": format!("{RBAC}/v1"), "kind": "Role", "metadata": metadata,
            "rules": rules}),
        json!({"apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}]}),
    ]
}

/// What Kubeflow Pipelines grants the account that steps run as, and secrets and config maps to
/// change as well: resource templates make them in the SDK's own examples.
fn runner_rules() -> Value {
    json!([
        {"apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["persistentvolumes", "persistentvolumeclaims"],
            "verbs": ["*"]},
        {"apiGroups": ["snapshot.storage.k8s.io"], "resources": ["volumesnapshots"],
            "verbs": ["create", "delete", "get", "list", "watch"]},
        {"apiGroups": ["argoproj.io"], "resources": ["workflows"],
            "verbs": ["get", "list", "watch", "update", "patch"]},
        {"apiGroups": [""], "resources": ["pods", "pods/exec", "pods/log", "services"],
            "verbs": ["*"]},
        {"apiGroups": ["", "apps", "extensions"], "resources": ["deployments", "replicasets"],
            "verbs": ["*"]},
        {"apiGroups": ["kubeflow.org", "serving.kserve.io"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["get", "list", "watch"]},
    ])
}

/// What the Pipelines server itself needs: steps as Pods, their logs and news of them.
fn server_rules() -> Value {
    json!([
        {"apiGroups": [""], "resources": ["pods", "pods/log"],
            "verbs": ["create", "get", "list", "watch", "update", "patch", "delete",
                "deletecollection"]},
        // A step that changes the cluster does so as the step's own account.
        {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]},
        {"apiGroups": [""], "resources": ["persistentvolumeclaims", "configmaps"],
            "verbs": ["get", "list", "watch", "create", "delete"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch", "get", "list"]},
    ])
}

fn policy_crd(kind: &str, plural: &str, singular: &str, scope: &str) -> Value {
    let opaque = json!({"type": "object", "nullable": true,
        "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{POLICY_GROUP}")},
        "spec": {
            "group": POLICY_GROUP, "scope": scope,
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural,
                "singular": singular},
            "versions": [{"name": "v1beta1", "served": true, "storage": true, "schema": {
                "openAPIV3Schema": {"type": "object", "properties": {"spec": {
                    "type": "object", "properties": {"repositories": {
                        "type": "array", "items": {
                            "type": "object", "required": ["name"],
                            "properties": {"name": {"type": "string"}, "policy": opaque},
                        },
                    }},
                }}},
            }}],
        },
    })
}

/// Points Service `ml-pipeline` at this start's listener.
pub(crate) async fn publish(client: &kube::Client, node: Ipv4Addr, port: u16) -> kube::Result<()> {
    let name = "ml-pipeline";
    let metadata = json!({"name": name, "namespace": NAMESPACE,
        "labels": {"kubernetes.io/service-name": name}});
    put(
        client,
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
            "addressType": "IPv4", "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [node], "conditions": {"ready": true}}],
        }),
        |slice: &EndpointSlice| {
            slice
                .endpoints
                .iter()
                .any(|e| e.addresses == [node.to_string()])
        },
    )
    .await?;
    put(
        client,
        json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "subsets": [{"addresses": [{"ip": node}],
                "ports": [{"name": "http", "port": port, "protocol": "TCP"}]}],
        }),
        |endpoints: &Endpoints| {
            endpoints
                .subsets
                .iter()
                .flatten()
                .flat_map(|s| s.addresses.iter().flatten())
                .any(|a| a.ip == node.to_string())
        },
    )
    .await
}

/// Makes the object, or replaces it unless it is already as it should be.
async fn put<K>(client: &kube::Client, object: Value, fits: impl Fn(&K) -> bool) -> kube::Result<()>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + serde::Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), NAMESPACE);
    let mut wanted: K = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    let name = wanted.meta().name.clone().unwrap_or_default();
    match api.get_opt(&name).await? {
        Some(found) if fits(&found) => {}
        Some(found) => {
            wanted
                .meta_mut()
                .resource_version
                .clone_from(&found.meta().resource_version);
            api.replace(&name, &PostParams::default(), &wanted).await?;
        }
        None => {
            api.create(&PostParams::default(), &wanted).await?;
        }
    }
    Ok(())
}
