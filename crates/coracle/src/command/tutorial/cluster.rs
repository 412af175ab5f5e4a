//! The Kubernetes API as the tutorial needs it: apply manifests, wait by watching, follow a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use kube::api::{Api, DynamicObject, LogParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind, TypeMeta};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::de::DeserializeOwned;
use serde_json::Value;
use stdx::Clock;

use super::kfp;
use crate::failure::{Failure, Result};
use crate::output;

/// How long anything may take that should take a moment.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a run is looked at again at the latest, should no Pod change meanwhile.
const LOOK: Duration = Duration::from_millis(250);
const MANAGER: &str = "coracle-tutorial";

#[derive(Clone)]
pub(super) struct Cluster {
    client: kube::Client,
}

fn failed(what: &str) -> impl FnOnce(kube::Error) -> Failure + '_ {
    move |error| match error {
        kube::Error::Api(status) => Failure::failed(format!("{what}: {}", status.message)),
        other => Failure::unreachable(format!("{what}: {}", stdx::error::chain(&other))),
    }
}

impl Cluster {
    /// Connects as the kubeconfig says.
    pub(super) async fn connect(kubeconfig: &Path) -> Result<Self> {
        let unusable = |e: &dyn std::error::Error| {
            Failure::unreachable(format!(
                "{}: {}",
                kubeconfig.display(),
                stdx::error::chain(e)
            ))
        };
        let file = Kubeconfig::read_from(kubeconfig).map_err(|e| unusable(&e))?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .map_err(|e| unusable(&e))?;
        let client = kube::Client::try_from(config).map_err(|e| unusable(&e))?;
        Ok(Self { client })
    }

    /// Applies every document of a manifest: made if absent, merged if there.
    pub(super) async fn apply(&self, manifest: &str) -> Result<()> {
        for document in manifest.split("\n---\n") {
            let value: Value = serde_saphyr::from_str(document)
                .map_err(|e| Failure::failed(format!("a manifest is damaged: {e}")))?;
            self.apply_one(value).await?;
        }
        Ok(())
    }

    async fn apply_one(&self, value: Value) -> Result<()> {
        let text = |pointer: &str| {
            value
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let types = TypeMeta {
            api_version: text("/apiVersion").into(),
            kind: text("/kind").into(),
        };
        let what = format!("apply {} {}", types.kind, text("/metadata/name"));
        let gvk = GroupVersionKind::try_from(&types)
            .map_err(|e| Failure::failed(format!("{what}: {e}")))?;
        let (resource, name) = (
            ApiResource::from_gvk(&gvk),
            text("/metadata/name").to_owned(),
        );
        let api: Api<DynamicObject> = match text("/metadata/namespace") {
            "" => Api::all_with(self.client.clone(), &resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource),
        };
        let object = serde_json::from_value(value.clone())
            .map_err(|e| Failure::failed(format!("{what}: {e}")))?;
        let post = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        match api.create(&post, &object).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let params = PatchParams {
                    field_manager: Some(MANAGER.to_owned()),
                    ..Default::default()
                };
                api.patch(&name, &params, &Patch::Merge(&value))
                    .await
                    .map_err(failed(&what))?;
                Ok(())
            }
            Err(error) => Err(failed(&what)(error)),
        }
    }

    /// Gives MetalLB addresses, unless it has some already.
    pub(super) async fn address_pool(&self, addresses: &str) -> Result<()> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), "metallb-system");
        let config = format!(
            "address-pools:\n- name: default\n  protocol: layer2\n  addresses:\n  - {addresses}\n"
        );
        let map = ConfigMap {
            metadata: kube::core::ObjectMeta {
                name: Some("config".to_owned()),
                ..Default::default()
            },
            data: Some(BTreeMap::from([("config".to_owned(), config)])),
            ..ConfigMap::default()
        };
        match api.create(&PostParams::default(), &map).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            Err(error) => Err(failed("create the address pool")(error)),
        }
    }

    /// Waits until `count` Pods of a selector are ready; their names.
    pub(super) async fn pods_ready(
        &self,
        namespace: &str,
        selector: &str,
        count: usize,
    ) -> Result<Vec<String>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let config = watcher::Config::default().labels(selector);
        let mut ready = BTreeMap::new();
        let mut pods = std::pin::pin!(watcher(api, config).default_backoff().applied_objects());
        let waiting = async {
            while let Some(pod) = pods.next().await {
                let Ok(pod) = pod else { continue };
                let name = pod.metadata.name.clone().unwrap_or_default();
                ready.insert(name, is_ready(&pod));
                if ready.values().filter(|ready| **ready).count() >= count {
                    break;
                }
            }
        };
        let done = tokio::time::timeout(PATIENCE, waiting).await;
        if done.is_err() {
            return Err(Failure::failed(format!(
                "Pods {selector} of namespace {namespace} are not ready after {} s",
                PATIENCE.as_secs()
            ))
            .hint(format!(
                "kubectl -n {namespace} describe pods -l {selector}"
            )));
        }
        Ok(ready
            .into_iter()
            .filter(|(_, ready)| *ready)
            .map(|(name, _)| name)
            .collect())
    }

    /// Waits until a claim has its volume.
    pub(super) async fn claim_bound(&self, namespace: &str, name: &str) -> Result<()> {
        let bound = |claim: PersistentVolumeClaim| {
            let phase = claim.status.and_then(|status| status.phase);
            (phase.as_deref() == Some("Bound")).then_some(())
        };
        self.until(namespace, name, bound)
            .await
            .map_err(|failure| failure.hint(format!("kubectl -n {namespace} describe pvc {name}")))
    }

    /// Waits until a Service has an address, and gives it back.
    pub(super) async fn load_balancer(&self, namespace: &str, name: &str) -> Result<Service> {
        let with_address = |service: Service| {
            let status = service
                .status
                .as_ref()?
                .load_balancer
                .as_ref()?
                .ingress
                .as_ref()?;
            (!status.is_empty()).then(|| service.clone())
        };
        self.until(namespace, name, with_address).await
    }

    /// Watches one object until `found` finds in it what is waited for.
    async fn until<K, T>(
        &self,
        namespace: &str,
        name: &str,
        found: impl Fn(K) -> Option<T>,
    ) -> Result<T>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut news = std::pin::pin!(watcher(api, config).default_backoff().applied_objects());
        let waiting = async {
            loop {
                if let Some(value) = news
                    .next()
                    .await
                    .and_then(std::result::Result::ok)
                    .and_then(&found)
                {
                    return value;
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.map_err(|_| {
            let kind = K::kind(&());
            Failure::failed(format!(
                "{kind} {namespace}/{name} is not as expected after {} s",
                PATIENCE.as_secs()
            ))
        })
    }

    /// Shows a run's steps as they come and go, with the log of the training, until it is over.
    pub(super) async fn follow_run(
        &self,
        pipelines: &kfp::Client,
        run: &str,
        clock: &dyn Clock,
    ) -> Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), "kubeflow");
        let config = watcher::Config::default().labels(&format!("pipeline/runid={run}"));
        let mut pods = std::pin::pin!(watcher(api, config).default_backoff().applied_objects());
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        let mut log: Option<tokio::task::JoinHandle<()>> = None;
        loop {
            tokio::select! {
                Some(news) = pods.next() => {
                    if let Ok(pod) = news {
                        self.show(&pod, &mut seen, &mut log);
                    }
                }
                () = clock.sleep(LOOK) => {}
            }
            let (status, error) = pipelines.status(run).await?;
            match status.as_str() {
                "Succeeded" => break,
                "Failed" | "Error" => {
                    return Err(Failure::failed(format!("the run failed: {error}")).hint(
                        "kubectl -n kubeflow get pods, and the logs of the one that failed",
                    ));
                }
                _ => {}
            }
        }
        if let Some(log) = log {
            // The log ends with its container; what is missing of it is no failure of the run.
            let _ = log.await;
        }
        Ok(())
    }

    fn show(
        &self,
        pod: &Pod,
        seen: &mut BTreeMap<String, String>,
        log: &mut Option<tokio::task::JoinHandle<()>>,
    ) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let phase = pod
            .status
            .as_ref()
            .and_then(|s| s.phase.clone())
            .unwrap_or_default();
        if seen.insert(name.clone(), phase.clone()).as_deref() == Some(phase.as_str()) {
            return;
        }
        match phase.as_str() {
            "Running" => output::progress("Running", &name),
            "Succeeded" => output::done("Succeeded", &name),
            "Failed" => output::warning(&format!("{name} failed")),
            _ => {}
        }
        if log.is_none()
            && matches!(phase.as_str(), "Running" | "Succeeded")
            && name.contains("-train-")
        {
            let following = show_log(self.client.clone(), name);
            *log = Some(stdx::Supervisor::new().spawn_graceful("training log", following));
        }
    }
}

/// Prints a Pod's log as it grows.
async fn show_log(client: kube::Client, name: String) {
    let api: Api<Pod> = Api::namespaced(client, "kubeflow");
    let params = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let Ok(stream) = api.log_stream(&name, &params).await else {
        return;
    };
    let mut lines = stream.lines();
    while let Ok(Some(line)) = lines.try_next().await {
        output::remark(&line);
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn readiness_is_read_from_the_conditions() {
        let pod = |status: &str| -> Pod {
            serde_json::from_value(json!({
                "status": {"conditions": [{"type": "Ready", "status": status}]}}))
            .unwrap()
        };
        assert!(is_ready(&pod("True")) && !is_ready(&pod("False")) && !is_ready(&Pod::default()));
    }
}
