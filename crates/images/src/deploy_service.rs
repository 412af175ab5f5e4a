//! `gcr.io/kubeflow-examples/mnist/deploy-service`: deploys an image behind a Service and waits until
//! the Service has an address.

use std::time::Duration;

use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stdx::{Backoff, Clock, SystemClock};

use crate::pod::Pod;
use crate::{Failure, cluster, print, say};

/// How long the original waited for an address.
const PATIENCE: Duration = Duration::from_secs(1000);

/// The arguments of the original; an unknown one is an error.
#[derive(Debug, Parser)]
#[command(name = "deploy-service", no_binary_name = true)]
struct Args {
    /// The image to run.
    #[arg(long)]
    image: String,
    /// The name of Deployment and Service.
    #[arg(long)]
    name: String,
    /// The port the container listens on.
    #[arg(long)]
    container_port: u16,
    /// The port of the Service.
    #[arg(long)]
    service_port: u16,
    /// ClusterIP, NodePort or LoadBalancer.
    #[arg(long, default_value = "ClusterIP")]
    service_type: String,
    /// The cluster's name; only printed.
    #[arg(long, default_value = "")]
    cluster_name: String,
    /// Where to deploy.
    #[arg(long, default_value = "kubeflow")]
    namespace: String,
}

pub(crate) async fn run(args: Vec<String>, pod: Pod) -> Result<(), Failure> {
    let args = Args::try_parse_from(args).map_err(|e| Failure::usage(e.to_string()))?;
    let client = cluster::client(&pod)?;
    let address = deploy(&client, &args, &SystemClock::new()).await?;
    print(&address);
    Ok(())
}

/// Deploys, and gives the Service's address with its port.
async fn deploy(client: &Client, args: &Args, clock: &dyn Clock) -> Result<String, Failure> {
    if !args.cluster_name.is_empty() {
        say(&format!("cluster name: {}", args.cluster_name));
    }
    put::<Deployment>(client, &args.namespace, deployment(args), clock).await?;
    let service: Service = put(client, &args.namespace, service(args), clock).await?;
    let address = match &*args.service_type {
        "LoadBalancer" => wait_for_address(client, args, clock).await?,
        _ => service
            .spec
            .and_then(|spec| spec.cluster_ip)
            .unwrap_or_default(),
    };
    Ok(format!("{address}:{}", args.service_port))
}

/// Creates the object, or replaces the spec of one with this name: a step that is tried again must
/// not fail on what its first try made. An API server that is away for a while is waited for.
pub(crate) async fn put<K>(
    client: &Client,
    namespace: &str,
    object: Value,
    clock: &dyn Clock,
) -> Result<K, Failure>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + serde::Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let what = format!("{} {namespace}/{name}", K::kind(&()));
    let parsed = serde_json::from_value(object.clone())
        .map_err(|e| Failure::work(format!("describe {what}: {e}")))?;
    let deadline = clock.monotonic() + PATIENCE;
    let mut pause = Backoff::new(Duration::from_millis(100), 2.0, Duration::from_secs(5));
    loop {
        let (attempt, error) = match api.create(&PostParams::default(), &parsed).await {
            Ok(made) => {
                say(&format!("{what} created"));
                return Ok(made);
            }
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let patch = kube::api::Patch::Merge(&object);
                let params = kube::api::PatchParams::default();
                match api.patch(name, &params, &patch).await {
                    Ok(patched) => {
                        say(&format!("{what} was there and is brought up to date"));
                        return Ok(patched);
                    }
                    Err(error) => ("update", error),
                }
            }
            Err(error) => ("create", error),
        };
        if !passing(&error) || clock.monotonic() >= deadline {
            return Err(Failure::work(format!("{attempt} {what}: {error}")));
        }
        say(&format!("{attempt} {what}, will try again: {error}"));
        clock.sleep(pause.next_delay()).await;
    }
}

/// Whether asking again may help: the server was away, or has too much to do.
fn passing(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 429 | 503 | 504),
        kube::Error::Service(_) | kube::Error::HyperError(_) => true,
        _ => false,
    }
}

fn deployment(args: &Args) -> Value {
    let labels = json!({"app": args.name});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": args.name, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{
                    "name": args.name, "image": args.image,
                    "ports": [{"containerPort": args.container_port}],
                }]},
            },
        },
    })
}

fn service(args: &Args) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": args.name, "labels": {"app": args.name}},
        "spec": {
            "type": args.service_type,
            "selector": {"app": args.name},
            "ports": [{"name": "http", "protocol": "TCP", "port": args.service_port,
                "targetPort": args.container_port}],
        },
    })
}

/// Watches the Service until its load balancer has an address.
async fn wait_for_address(
    client: &Client,
    args: &Args,
    clock: &dyn Clock,
) -> Result<String, Failure> {
    let api: Api<Service> = Api::namespaced(client.clone(), &args.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", args.name));
    let addresses = watcher(api, config)
        .default_backoff()
        .applied_objects()
        .try_filter_map(|s| {
            let ingress = s
                .status
                .and_then(|s| s.load_balancer)
                .and_then(|lb| lb.ingress);
            let first = ingress
                .into_iter()
                .flatten()
                .find_map(|i| i.ip.or(i.hostname));
            std::future::ready(Ok(first))
        });
    // The watcher reports trouble and goes on; only an address ends the wait.
    let mut addresses = std::pin::pin!(addresses.filter_map(|news| async move {
        news.inspect_err(|e| say(&format!("watch service: {e}")))
            .ok()
    }));
    say(&format!(
        "waiting for an address of service {}/{}",
        args.namespace, args.name
    ));
    tokio::select! {
        address = addresses.next() => address.ok_or_else(|| Failure::work("the watch ended")),
        () = clock.sleep(PATIENCE) => Err(Failure::work(format!(
            "service {}/{} got no address within {} s; is there a load balancer with a free address?",
            args.namespace, args.name, PATIENCE.as_secs()
        ))),
    }
}

#[cfg(test)]
mod tests;
