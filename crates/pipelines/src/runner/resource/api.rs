//! Which objects a template is about, and whose rights it has.

use http::HeaderValue;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::Api;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::Scope;
use serde_json::Value;

use super::Problem;
use crate::runner::Shared;

/// The objects of one kind.
pub(super) struct Found {
    pub(super) api: Api<DynamicObject>,
    pub(super) kind: String,
}

/// A client that acts as a service account, so that the step can do what its account may do.
pub(super) fn act_as(shared: &Shared, account: &str) -> Result<kube::Client, Problem> {
    let namespace = shared.options.namespace.clone();
    let user = format!("system:serviceaccount:{namespace}:{account}");
    let user = HeaderValue::from_str(&user)
        .map_err(|_| Problem::Failed(format!("{account:?} is no service account's name")))?;
    let client = shared.client.clone();
    let service = tower::service_fn(move |mut request: http::Request<kube::client::Body>| {
        request
            .headers_mut()
            .insert("impersonate-user", user.clone());
        let client = client.clone();
        async move { client.send(request).await }
    });
    Ok(kube::Client::new(service, namespace))
}

/// The objects that a manifest is one of.
pub(super) async fn of_object(
    client: &kube::Client,
    object: &Value,
    namespace: &str,
) -> Result<Found, Problem> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let (Some(version), Some(kind)) = (text("/apiVersion"), text("/kind")) else {
        return Err(Problem::Failed(
            "the manifest has no apiVersion or no kind".to_owned(),
        ));
    };
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let (resource, capabilities): (ApiResource, _) = kube::discovery::pinned_kind(client, &gvk)
        .await
        .map_err(|error| {
            let about = match group {
                "" => format!("the cluster has no kind {kind} of {version}"),
                _ => format!(
                    "the cluster has no kind {kind} of {group}/{version}: install the \
                     CustomResourceDefinition (and the controller) that it comes with"
                ),
            };
            match error {
                kube::Error::Discovery(_) => Problem::Failed(about),
                kube::Error::Api(status) if status.code == 404 => Problem::Failed(about),
                error => Problem::of(
                    &format!("find out about {kind} of {group}/{version}"),
                    &error,
                ),
            }
        })?;
    let namespace = text("/metadata/namespace")
        .filter(|n| !n.is_empty())
        .unwrap_or(namespace);
    let api = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => Api::namespaced_with(client.clone(), namespace, &resource),
    };
    Ok(Found {
        api,
        kind: kind.to_owned(),
    })
}

/// The objects that a word of a command line means: `pvc`, `pods`, `Deployment`, `jobs.batch`.
pub(super) async fn of_word(
    client: &kube::Client,
    word: &str,
    namespace: &str,
) -> Result<Found, Problem> {
    let failed = |error: kube::Error| Problem::of("ask which kinds the cluster has", &error);
    let (name, group) = word.split_once('.').unwrap_or((word, ""));
    let name = name.to_ascii_lowercase();
    let core = client.list_core_api_resources("v1").await.map_err(failed)?;
    if let Some(found) = matching(&core, &name).filter(|_| group.is_empty()) {
        return Ok(found.objects(client, namespace));
    }
    for offered in client.list_api_groups().await.map_err(failed)?.groups {
        let version = offered
            .preferred_version
            .as_ref()
            .or_else(|| offered.versions.first());
        let Some(version) = version.filter(|_| group.is_empty() || offered.name.starts_with(group))
        else {
            continue;
        };
        let kinds = client
            .list_api_group_resources(&version.group_version)
            .await;
        if let Some(found) = matching(&kinds.map_err(failed)?, &name) {
            return Ok(found.objects(client, namespace));
        }
    }
    let message = format!("the cluster has no kind that is called {word:?}");
    Err(Problem::Failed(message))
}

struct Match {
    resource: ApiResource,
    namespaced: bool,
}

impl Match {
    fn objects(self, client: &kube::Client, namespace: &str) -> Found {
        let api = if self.namespaced {
            Api::namespaced_with(client.clone(), namespace, &self.resource)
        } else {
            Api::all_with(client.clone(), &self.resource)
        };
        Found {
            api,
            kind: self.resource.kind,
        }
    }
}

fn matching(list: &APIResourceList, name: &str) -> Option<Match> {
    let (group, version) = match list.group_version.split_once('/') {
        Some((group, version)) => (group, version),
        None => ("", list.group_version.as_str()),
    };
    let found = list.resources.iter().find(|resource| {
        let short = resource.short_names.iter().flatten();
        resource.name == name
            || resource.singular_name == name
            || resource.kind.to_ascii_lowercase() == name
            || short.into_iter().any(|short| short == name)
    })?;
    let gvk = GroupVersionKind::gvk(group, version, &found.kind);
    Some(Match {
        resource: ApiResource::from_gvk_with_plural(&gvk, &found.name),
        namespaced: found.namespaced,
    })
}
