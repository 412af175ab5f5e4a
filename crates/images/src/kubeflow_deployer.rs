//! `gcr.io/ml-pipeline/ml-pipeline-kubeflow-deployer`: waits for an exported model, deploys
//! TensorFlow Serving for it, and waits until that is ready.

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};
use stdx::{Clock, SystemClock};

use crate::deploy_service::put;
use crate::pod::Pod;
use crate::{Failure, cluster, say};

/// How long a model may take to appear, and the server to become ready.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often the export folder is looked at; it may lie on a file system without notifications.
const LOOK: Duration = Duration::from_millis(200);
/// Kubernetes allows Service names of this length.
const LONGEST_NAME: usize = 63;

/// The arguments of the original.
#[derive(Debug, Parser)]
#[command(name = "kubeflow-deployer", no_binary_name = true)]
struct Args {
    /// The folder that holds (or will hold) numbered versions of a SavedModel.
    #[arg(long)]
    model_export_path: String,
    /// The name of Deployment and Service.
    #[arg(long)]
    server_name: String,
    /// The cluster's name; only printed.
    #[arg(long, default_value = "")]
    cluster_name: String,
    /// Where to deploy.
    #[arg(long, default_value = "kubeflow")]
    namespace: String,
    /// The claim that holds the model, mounted at /mnt.
    #[arg(long, default_value = "")]
    pvc_name: String,
    /// ClusterIP, NodePort or LoadBalancer.
    #[arg(long, default_value = "ClusterIP")]
    service_type: String,
    /// How many servers.
    #[arg(long, default_value_t = 1)]
    replicas: u16,
}

pub(crate) async fn run(args: Vec<String>, pod: Pod) -> Result<(), Failure> {
    let args = Args::try_parse_from(args).map_err(|e| Failure::usage(e.to_string()))?;
    let name = service_name(&args.server_name)?;
    let clock = SystemClock::new();
    if !args.cluster_name.is_empty() {
        say(&format!("cluster name: {}", args.cluster_name));
    }
    let export = pod.path(Path::new(&args.model_export_path));
    say(&format!(
        "waiting for a model in {}",
        args.model_export_path
    ));
    wait_for_model(&export, &args.model_export_path, &clock).await?;
    deploy(&cluster::client(&pod)?, &args, name, &clock).await
}

/// Deploys the server and waits for it.
async fn deploy(
    client: &Client,
    args: &Args,
    name: &str,
    clock: &dyn Clock,
) -> Result<(), Failure> {
    put::<Service>(client, &args.namespace, service(args, name), clock).await?;
    put::<Deployment>(client, &args.namespace, deployment(args, name), clock).await?;
    wait_until_ready(client, args, name, clock).await?;
    say(&format!(
        "{name} serves the model of {}",
        args.model_export_path
    ));
    Ok(())
}

/// The server's name as a Service may have it: at most 63 characters, no hyphen at the end.
fn service_name(name: &str) -> Result<&str, Failure> {
    let end = name
        .char_indices()
        .nth(LONGEST_NAME)
        .map_or(name.len(), |(at, _)| at);
    let trimmed = name[..end].trim_end_matches('-');
    if trimmed.is_empty() {
        return Err(Failure::usage(format!(
            "--server-name {name:?} is no name for a Service"
        )));
    }
    Ok(trimmed)
}

/// Whether the folder holds a complete SavedModel of some version.
fn has_model(export: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(export) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let numbered = name
            .to_str()
            .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        numbered && entry.path().join("saved_model.pb").is_file()
    })
}

async fn wait_for_model(export: &Path, shown: &str, clock: &dyn Clock) -> Result<(), Failure> {
    let deadline = clock.monotonic() + PATIENCE;
    while !has_model(export) {
        if clock.monotonic() >= deadline {
            return Err(Failure::work(format!(
                "no model in {shown} after {} s: expected a folder like {shown}/1 with a \
                 saved_model.pb",
                PATIENCE.as_secs()
            )));
        }
        clock.sleep(LOOK).await;
    }
    Ok(())
}

fn deployment(args: &Args, name: &str) -> Value {
    let labels = json!({"app": name});
    let mut spec = json!({"containers": [{
        "name": name,
        "image": "tensorflow/serving",
        "args": ["--port=9000", "--rest_api_port=8500", format!("--model_name={name}"),
            format!("--model_base_path={}", args.model_export_path)],
        "ports": [{"containerPort": 9000, "name": "grpc"}, {"containerPort": 8500, "name": "http"}],
        // Pages and clients of the tutorial call the model by its plain name.
        "env": [{"name": "CORACLE_MODEL_ALIASES", "value": alias(name)}],
        // Ready means that a version of the model answers.
        "readinessProbe": {"httpGet": {"path": format!("/v1/models/{name}"), "port": 8500},
            "periodSeconds": 1, "failureThreshold": 60},
    }]});
    if !args.pvc_name.is_empty() {
        spec["containers"][0]["volumeMounts"] = json!([{"name": "model", "mountPath": "/mnt"}]);
        spec["volumes"] =
            json!([{"name": "model", "persistentVolumeClaim": {"claimName": args.pvc_name}}]);
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": args.replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    })
}

/// The server's name without `-service`.
fn alias(name: &str) -> &str {
    name.strip_suffix("-service")
        .filter(|rest| !rest.is_empty())
        .unwrap_or(name)
}

fn service(args: &Args, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "type": args.service_type,
            "selector": {"app": name},
            "ports": [
                {"name": "grpc-tf-serving", "port": 9000, "targetPort": 9000, "protocol": "TCP"},
                {"name": "http-tf-serving-proxy", "port": 8500, "targetPort": 8500,
                    "protocol": "TCP"},
            ],
        },
    })
}

/// Watches the Deployment until all its replicas are available.
async fn wait_until_ready(
    client: &Client,
    args: &Args,
    name: &str,
    clock: &dyn Clock,
) -> Result<(), Failure> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), &args.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let wanted = i32::from(args.replicas);
    let ready = watcher(api, config)
        .default_backoff()
        .applied_objects()
        .try_filter(move |d| {
            let current = d.metadata.generation;
            let available = d.status.as_ref().is_some_and(|s| {
                s.observed_generation >= current
                    && s.updated_replicas.unwrap_or(0) >= wanted
                    && s.available_replicas.unwrap_or(0) >= wanted
            });
            std::future::ready(available)
        });
    let mut ready = std::pin::pin!(ready.filter_map(|news| async move {
        news.inspect_err(|e| say(&format!("watch deployment: {e}")))
            .ok()
    }));
    tokio::select! {
        found = ready.next() => found.map(drop).ok_or_else(|| Failure::work("the watch ended")),
        () = clock.sleep(PATIENCE) => Err(Failure::work(format!(
            "deployment {}/{name} was not ready within {} s; `kubectl -n {} describe pod -l app={name}` \
             says why",
            args.namespace, PATIENCE.as_secs(), args.namespace
        ))),
    }
}

#[cfg(test)]
mod tests;
