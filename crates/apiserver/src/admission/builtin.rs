//! The plugins that upstream switches on by default and that this server's users meet: namespace
//! lifecycle, service accounts, tolerations, priority, default storage class, protection of
//! volumes in use.

use std::sync::Arc;
use std::time::Duration;

use kinds::core::pod::admission as pods;
use kinds::tree;
use serde_json::{Value, json};

use super::{AdmissionRequest, Operation};
use crate::server::State;
use crate::status::{Cause, Result, Status};

/// How long a Pod waits for its namespace's default account, which a controller makes.
const ACCOUNT_WAIT: Duration = Duration::from_secs(1);
/// Namespaces that are always there.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) async fn admit(state: &Arc<State>, request: &mut AdmissionRequest) -> Result<()> {
    namespace_lifecycle(state, request)?;
    if request.operation != Operation::Create || !request.subresource.is_empty() {
        return Ok(());
    }
    match (request.group.as_str(), request.resource.as_str()) {
        ("", "pods") => {
            service_account(state, request).await?;
            pods::default_tolerations(&mut request.object);
            priority(state, request)
        }
        ("", "persistentvolumeclaims") => {
            default_storage_class(state, request);
            protect(&mut request.object, "kubernetes.io/pvc-protection");
            Ok(())
        }
        ("", "persistentvolumes") => {
            protect(&mut request.object, "kubernetes.io/pv-protection");
            Ok(())
        }
        _ => Ok(()),
    }
}

fn namespace_lifecycle(state: &State, request: &AdmissionRequest) -> Result<()> {
    if request.group.is_empty() && request.resource == "namespaces" {
        if request.operation == Operation::Delete && IMMORTAL.contains(&request.name.as_str()) {
            return Err(request.forbidden("this namespace may not be deleted"));
        }
        return Ok(());
    }
    let name = request.namespace.as_str();
    if name.is_empty() || request.operation != Operation::Create {
        return Ok(());
    }
    let Some(namespace) = state.store.get_value("", "namespaces", "", name) else {
        return Err(Status::not_found("", "namespaces", name));
    };
    if tree::get(&namespace, "metadata.deletionTimestamp").is_some()
        || tree::text(&namespace, "status.phase") == "Terminating"
    {
        let why = format!(
            "unable to create new content in namespace {name} because it is being terminated"
        );
        let cause = Cause::new(
            "NamespaceTerminating",
            "metadata.namespace",
            format!("namespace {name} is being terminated"),
        );
        return Err(request.forbidden(&why).with_cause(cause));
    }
    Ok(())
}

async fn service_account(state: &Arc<State>, request: &mut AdmissionRequest) -> Result<()> {
    let annotations = tree::map(&request.object, "metadata.annotations");
    if annotations.is_some_and(|a| a.contains_key(pods::MIRROR_ANNOTATION)) {
        return Ok(());
    }
    let name = pods::service_account(&mut request.object);
    let namespace = request.namespace.clone();
    let cache = state.store.cache("serviceaccounts");
    let mut changed = cache.subscribe();
    let mut account = cache.get(&namespace, &name);
    if account.is_none() && name == "default" {
        let mut deadline = state.clock().sleep(ACCOUNT_WAIT);
        while account.is_none() {
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { break },
                () = &mut deadline => break,
            }
            account = cache.get(&namespace, &name);
        }
    }
    let Some(account) = account else {
        return Err(request.forbidden(&format!(
            "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
        )));
    };
    let suffix = state.rng().suffix(5);
    pods::apply_service_account(&mut request.object, account.value(), &suffix);
    Ok(())
}

fn priority(state: &State, request: &mut AdmissionRequest) -> Result<()> {
    const GROUP: &str = "scheduling.k8s.io";
    let name = tree::text(&request.object, "spec.priorityClassName").to_owned();
    let class = if name.is_empty() {
        state
            .store
            .list_values(GROUP, "priorityclasses", "")
            .into_iter()
            .filter(|class| tree::truthy(class, "globalDefault"))
            .min_by_key(|class| tree::int(class, "value").unwrap_or(0))
    } else {
        let class = state.store.get_value(GROUP, "priorityclasses", "", &name);
        if class.is_none() {
            return Err(request.forbidden(&format!("no PriorityClass with name {name} was found")));
        }
        class
    };
    pods::apply_priority(&mut request.object, class.as_deref());
    Ok(())
}

fn default_storage_class(state: &State, request: &mut AdmissionRequest) {
    let claim = &mut request.object;
    let named = tree::get(claim, "spec.storageClassName").is_some()
        || tree::map(claim, "metadata.annotations")
            .is_some_and(|a| a.contains_key("volume.beta.kubernetes.io/storage-class"));
    if named {
        return;
    }
    let is_default = |class: &Value| {
        [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ]
        .iter()
        .any(|key| class["metadata"]["annotations"][key] == "true")
    };
    // The newest default wins, then the first by name, as upstream has it.
    let mut classes = state
        .store
        .list_values("storage.k8s.io", "storageclasses", "");
    classes.retain(|class| is_default(class));
    classes.sort_by(|a, b| {
        let made = |class: &Value| tree::text(class, "metadata.creationTimestamp").to_owned();
        let name = |class: &Value| tree::text(class, "metadata.name").to_owned();
        made(b).cmp(&made(a)).then_with(|| name(a).cmp(&name(b)))
    });
    if let Some(class) = classes.first() {
        let name = class["metadata"]["name"].clone();
        tree::put(tree::child(claim, "spec"), "storageClassName", Some(name));
    }
}

/// Keeps a volume or claim until the controller that watches its use lets it go.
fn protect(object: &mut Value, finalizer: &str) {
    let metadata = tree::child(object, "metadata");
    let mut finalizers = tree::list(metadata, "finalizers").to_vec();
    if !finalizers.iter().any(|f| f == finalizer) {
        finalizers.push(json!(finalizer));
        metadata["finalizers"] = finalizers.into();
    }
}
