//! A Kubernetes client for a server, waiting by watches, and Pods to try things with.

use std::fmt::Debug;
use std::path::Path;
use std::process::Output;

use futures::{AsyncReadExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, ListParams, LogParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Server, kubectl, said, within};

/// A client with the rights of a kubeconfig.
pub(crate) async fn client_of(kubeconfig: &Path) -> Client {
    let read = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

impl Server {
    /// A client with the administrator's rights.
    pub(crate) async fn client(&self) -> Client {
        client_of(&self.kubeconfig()).await
    }

    /// The Pods of namespace `default`.
    pub(crate) async fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client().await, "default")
    }
}

/// Runs it; it must work. What it printed.
pub(crate) fn kubectl_ok(program: &Path, server: &Server, args: &[&str]) -> String {
    let output: Output = kubectl(program, server, args).output().unwrap();
    assert!(
        output.status.success(),
        "kubectl {args:?}: {}",
        said(&output)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A Pod with one container named `main` that runs a shell script and is not started again.
pub(crate) fn shell_pod(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "busybox", "command": ["sh", "-c", script]}],
        },
    })
}

/// Creates an object from JSON.
pub(crate) async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: Resource + Clone + Debug + DeserializeOwned + serde::Serialize,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

/// Waits, by a watch, until an object fits; a watch that ends begins anew.
pub(crate) async fn when<K>(api: &Api<K>, name: &str, what: &str, fits: impl Fn(&K) -> bool) -> K
where
    K: Resource + Clone + Debug + DeserializeOwned + 'static,
{
    let mut last = None;
    let wait = async {
        loop {
            let Ok(list) = api.list(&by_name(name)).await else {
                continue;
            };
            for object in list.items {
                if fits(&object) {
                    return object;
                }
                last = Some(object);
            }
            let version = list.metadata.resource_version.unwrap_or_default();
            let params = WatchParams::default().fields(&format!("metadata.name={name}"));
            let Ok(stream) = api.watch(&params, &version).await else {
                continue;
            };
            let mut stream = stream.boxed();
            while let Some(Ok(event)) = stream.next().await {
                if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event {
                    if fits(&object) {
                        return object;
                    }
                    last = Some(object);
                }
            }
        }
    };
    let found = tokio::time::timeout(super::PATIENCE, wait).await;
    found.unwrap_or_else(|_| panic!("waited in vain for {name}: {what}; it is {last:#?}"))
}

fn by_name(name: &str) -> ListParams {
    ListParams::default().fields(&format!("metadata.name={name}"))
}

/// Waits until a Pod is in a phase.
pub(crate) async fn phase(pods: &Api<Pod>, name: &str, wanted: &str) -> Pod {
    when(pods, name, &format!("phase {wanted}"), |pod: &Pod| {
        pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(wanted)
    })
    .await
}

/// Waits until a Pod has ended, either way.
pub(crate) async fn finished(pods: &Api<Pod>, name: &str) -> Pod {
    when(pods, name, "its end", |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    })
    .await
}

/// Waits until an object is gone.
pub(crate) async fn gone<K>(api: &Api<K>, name: &str)
where
    K: Resource + Clone + Debug + DeserializeOwned + 'static,
{
    within(&format!("{name} is gone"), async {
        loop {
            let Ok(list) = api.list(&by_name(name)).await else {
                continue;
            };
            if list.items.is_empty() {
                return;
            }
            let version = list.metadata.resource_version.unwrap_or_default();
            let params = WatchParams::default().fields(&format!("metadata.name={name}"));
            let Ok(stream) = api.watch(&params, &version).await else {
                continue;
            };
            let mut stream = stream.boxed();
            while let Some(Ok(event)) = stream.next().await {
                if matches!(event, WatchEvent::Deleted(_)) {
                    return;
                }
            }
        }
    })
    .await;
}

/// Deletes an object at once.
pub(crate) async fn delete_now<K>(api: &Api<K>, name: &str)
where
    K: Resource + Clone + Debug + DeserializeOwned + 'static,
{
    api.delete(name, &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    gone(api, name).await;
}

/// Waits for an Event about an object with this reason; its message.
pub(crate) async fn event(
    client: &Client,
    namespace: &str,
    about: &str,
    fits: impl Fn(&str, &str) -> bool,
) -> String {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let message = |event: &Event| {
        let (reason, message) = (event.reason.as_deref()?, event.message.as_deref()?);
        let ours = event.involved_object.name.as_deref() == Some(about);
        (ours && fits(reason, message)).then(|| format!("{reason}: {message}"))
    };
    within(&format!("an Event about {about}"), async {
        loop {
            let list = events.list(&ListParams::default()).await.unwrap();
            if let Some(found) = list.items.iter().find_map(message) {
                return found;
            }
            let version = list.metadata.resource_version.unwrap_or_default();
            let stream = events
                .watch(&WatchParams::default(), &version)
                .await
                .unwrap();
            let mut stream = stream.boxed();
            while let Some(Ok(event)) = stream.next().await {
                if let WatchEvent::Added(event) | WatchEvent::Modified(event) = event {
                    if let Some(found) = message(&event) {
                        return found;
                    }
                }
            }
        }
    })
    .await
}

/// What a container wrote.
pub(crate) async fn log(pods: &Api<Pod>, name: &str) -> String {
    pods.logs(name, &LogParams::default()).await.unwrap()
}

/// Waits, following the log, until a line fits; gives the lines up to it.
pub(crate) async fn log_until(pods: &Api<Pod>, name: &str, fits: impl Fn(&str) -> bool) -> String {
    within(&format!("a line in the log of {name}"), async {
        let params = LogParams {
            follow: true,
            ..LogParams::default()
        };
        let mut stream = Box::pin(pods.log_stream(name, &params).await.unwrap());
        let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let read = stream.read(&mut chunk).await.unwrap();
            text.extend_from_slice(&chunk[..read]);
            let lines = String::from_utf8_lossy(&text).into_owned();
            if lines.lines().any(&fits) {
                return lines;
            }
            assert_ne!(read, 0, "the log of {name} ended without it: {lines}");
        }
    })
    .await
}

/// The state of a Pod's container as JSON.
pub(crate) fn container(pod: &Pod, name: &str) -> Value {
    let status = serde_json::to_value(&pod.status).unwrap();
    let lists = ["containerStatuses", "initContainerStatuses"];
    let all = lists
        .iter()
        .flat_map(|l| status[*l].as_array().cloned().unwrap_or_default());
    all.into_iter()
        .find(|c| c["name"] == name)
        .unwrap_or_default()
}

/// The exit code of a Pod's container `main`.
pub(crate) fn exit_code(pod: &Pod) -> Option<i64> {
    container(pod, "main")["state"]["terminated"]["exitCode"].as_i64()
}
