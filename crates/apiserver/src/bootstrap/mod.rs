//! What a cluster has from its first moment, made in one transaction; and what later starts bring
//! up to date: the address of the API itself and the default roles of newer programs.

mod roles;

use std::sync::Arc;

use kinds::tree;
use serde_json::{Value, json};

use crate::auth::UserInfo;
use crate::customresource;
use crate::endpoints::query::{FieldValidation, WriteOptions};
use crate::fieldmanager;
use crate::registry::create::{prepare, write_of};
use crate::registry::{Resource, Writing};
use crate::server::{Error, State};
use crate::storage::{Expect, Write};

/// Makes what is missing: everything at the first start, the default roles at any.
pub(crate) async fn first_start(state: &Arc<State>) -> Result<(), Error> {
    let first = state.store.cache("namespaces").get("", "default").is_none();
    let mut objects = roles::objects();
    if first {
        objects.splice(0..0, cluster(state));
        objects.extend(state.options.bootstrap.iter().cloned());
    }
    let mut writes = Vec::new();
    let mut reserved = Vec::new();
    let mut defined: Vec<Arc<Resource>> = Vec::new();
    for object in objects {
        if let Some(write) = ready(state, &object, &mut defined, &mut reserved)? {
            writes.push(write);
        }
    }
    writes.extend(endpoint(state));
    if !writes.is_empty() {
        state
            .store
            .write_all(writes)
            .await
            .map_err(|error| Error::Bootstrap {
                object: "the first objects".to_owned(),
                problem: error.to_string(),
            })?;
    }
    Ok(())
}

/// The write that makes one object; `None` if it is there.
fn ready(
    state: &Arc<State>,
    object: &Value,
    defined: &mut Vec<Arc<Resource>>,
    reserved: &mut Vec<Option<crate::registry::service::Reservation>>,
) -> Result<Option<Write>, Error> {
    let (api_version, kind) = (tree::text(object, "apiVersion"), tree::text(object, "kind"));
    let (namespace, name) = (
        tree::text(object, "metadata.namespace"),
        tree::text(object, "metadata.name"),
    );
    let refuse = |problem: String| Error::Bootstrap {
        object: format!("{api_version} {kind} {namespace}/{name}"),
        problem,
    };
    let table = state.resources.current();
    let resource = table
        .find_kind(api_version, kind)
        .or_else(|| {
            defined
                .iter()
                .find(|r| r.api_version == api_version && r.kind.kind == kind)
                .cloned()
        })
        .ok_or_else(|| refuse("no such kind is served".to_owned()))?;
    let namespace = match (resource.kind.namespaced, namespace) {
        (true, "") => "default",
        (true, namespace) => namespace,
        (false, _) => "",
    };
    if state
        .store
        .cache(&resource.key)
        .get(namespace, name)
        .is_some()
    {
        return Ok(None);
    }
    let user = UserInfo::admin("system:apiserver");
    let stored_as = table.stored_as(&resource);
    let mut writing = Writing {
        state,
        resource: &stored_as,
        namespace,
        subresource: "",
        user: &user,
        options: WriteOptions {
            dry_run: false,
            field_manager: String::new(),
            field_validation: FieldValidation::Strict,
            force: false,
            apply: false,
        },
        manager: "kube-apiserver".to_owned(),
        warnings: Vec::new(),
    };
    let mut warnings = Vec::new();
    let made = (|| {
        let mut object = fieldmanager::coerce(
            state,
            &resource,
            object.clone(),
            FieldValidation::Strict,
            &mut warnings,
        )?;
        resource.to_stored(&mut object);
        crate::registry::create::namespace_of_request(&mut object, namespace)?;
        fieldmanager::created(&writing, &mut object)?;
        reserved.push(prepare(&mut writing, &mut object)?);
        Ok(object)
    })();
    let object =
        made.map_err(|status: crate::status::Status| refuse(status.message().to_owned()))?;
    if stored_as.is(customresource::GROUP, customresource::PLURAL) {
        defined.extend(
            customresource::resources(&state.schemas, &object)
                .into_iter()
                .map(Arc::new),
        );
    }
    Ok(Some(write_of(&writing, name, object)))
}

fn cluster(state: &State) -> Vec<Value> {
    let mut objects: Vec<Value> = ["default", "kube-system", "kube-public", "kube-node-lease"]
        .iter()
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
        .collect();
    for (name, value) in kinds::core::pod::admission::SYSTEM_PRIORITIES {
        let description = if name == "system-node-critical" {
            "Used for system critical pods that must not be moved from their current node."
        } else {
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."
        };
        objects.push(json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value, "description": description,
        }));
    }
    let target = state
        .options
        .kubernetes_endpoint
        .map_or(6443, |(_, port)| port);
    objects.push(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": state.options.kubernetes_service_ip.to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": target}],
        },
    }));
    objects
}

/// The endpoint behind Service `default/kubernetes`, in both forms, where it is not up to date.
fn endpoint(state: &State) -> Vec<Write> {
    let Some((ip, port)) = state.options.kubernetes_endpoint else {
        return Vec::new();
    };
    let (ip, now) = (ip.to_string(), state.ctx().now_text());
    let metadata = |labels: Value| {
        json!({
            "name": "kubernetes", "namespace": "default", "labels": labels,
            "uid": state.rng().uuid(), "creationTimestamp": now,
        })
    };
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": metadata(json!({"endpointslice.kubernetes.io/skip-mirror": "true"})),
        "subsets": [{
            "addresses": [{"ip": ip}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": metadata(json!({"kubernetes.io/service-name": "kubernetes"})),
        "addressType": "IPv4",
        "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    let mut writes = Vec::new();
    for (resource, object) in [
        ("endpoints", endpoints),
        ("endpointslices.discovery.k8s.io", slice),
    ] {
        let found = state.store.cache(resource).get("default", "kubernetes");
        let same = found.as_ref().is_some_and(|found| {
            ["subsets", "endpoints", "ports"]
                .iter()
                .all(|key| tree::same(found.value(), &object, key))
        });
        if !same {
            writes.push(Write {
                resource: resource.into(),
                namespace: "default".to_owned(),
                name: "kubernetes".to_owned(),
                expect: found.map_or(Expect::Absent, |found| Expect::Version(found.rv)),
                object: Some(object),
            });
        }
    }
    writes
}
