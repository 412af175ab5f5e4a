//! MetalLB 0.7 in layer 2 mode: a controller that gives Services addresses from configured pools,
//! and a speaker per node that announces them on the network.
//!
//! Both read ConfigMap `config` of their own namespace, live; both do only what MetalLB's manifest
//! grants their accounts. Receiving traffic for an address is the service proxy's work, as it is
//! kube-proxy's elsewhere. Announcing over BGP is not in here.

mod allocator;
mod announcer;
mod config;
mod controller;
mod events;
mod metrics;
mod speaker;

use clap::Parser;
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};
use stdx::{Clock as _, SharedClock, SystemClock};

use crate::pod::Pod;
use crate::{Failure, cluster, say};

/// The flags of controller and speaker alike.
#[derive(Debug, Parser)]
#[command(name = "metallb", no_binary_name = true)]
struct Args {
    /// The port of the metrics endpoint.
    #[arg(long, default_value_t = 7472)]
    port: u16,
    /// The name of the ConfigMap with the configuration.
    #[arg(long, default_value = "config")]
    config: String,
    /// The namespace of that ConfigMap; the Pod's own if not given.
    #[arg(long, default_value = "")]
    config_ns: String,
    /// Accepted and ignored, as older manifests give it.
    #[arg(long, default_value = "")]
    kubeconfig: String,
}

/// What both programs start from.
struct Setup {
    client: Client,
    namespace: String,
    config_map: String,
    metrics: metrics::Metrics,
    clock: SharedClock,
}

async fn set_up(args: Vec<String>, pod: &Pod) -> Result<Setup, Failure> {
    let args = Args::try_parse_from(args).map_err(|e| Failure::usage(e.to_string()))?;
    let namespace = if args.config_ns.is_empty() {
        cluster::namespace(pod)?
    } else {
        args.config_ns
    };
    let metrics = metrics::Metrics::default();
    let address = std::net::SocketAddr::new(pod.bind_address(), args.port);
    metrics::listen(address, metrics.clone()).await?;
    Ok(Setup {
        client: cluster::client(pod)?,
        namespace,
        config_map: args.config,
        metrics,
        clock: SystemClock::shared(),
    })
}

/// `metallb/controller`.
pub(crate) async fn controller(args: Vec<String>, pod: Pod) -> Result<(), Failure> {
    let setup = set_up(args, &pod).await?;
    log("startup", "MetalLB controller starting", json!({}));
    until_told_to_stop(Box::pin(controller::run(setup))).await
}

/// `metallb/speaker`.
pub(crate) async fn speaker(args: Vec<String>, pod: Pod) -> Result<(), Failure> {
    let setup = set_up(args, &pod).await?;
    let node = std::env::var_os("METALLB_NODE_NAME")
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Failure::usage("METALLB_NODE_NAME must name the node this Pod runs on"))?;
    log("startup", "MetalLB speaker starting", json!({"node": node}));
    until_told_to_stop(Box::pin(speaker::run(setup, node))).await
}

async fn until_told_to_stop(
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|e| Failure::work(format!("listen for signals: {e}")))?;
    tokio::select! {
        outcome = work => outcome,
        _ = terminate.recv() => {
            log("shutdown", "stopping", json!({}));
            Ok(())
        }
    }
}

/// A log line: one JSON object, as MetalLB writes them.
fn log(event: &str, message: &str, mut fields: Value) {
    fields["event"] = json!(event);
    fields["msg"] = json!(message);
    fields["ts"] = json!(SystemClock::new().now().to_string());
    say(&fields.to_string());
}

/// News of the configuration: its text whenever it changes, `None` when it is gone.
fn config_texts(setup: &Setup) -> impl Stream<Item = Option<Box<(ConfigMap, String)>>> + use<> {
    let api: Api<ConfigMap> = Api::namespaced(setup.client.clone(), &setup.namespace);
    let only = watcher::Config::default().fields(&format!("metadata.name={}", setup.config_map));
    watcher(api, only)
        .default_backoff()
        .filter_map(|event| async move {
            match event {
                Ok(watcher::Event::Apply(map) | watcher::Event::InitApply(map)) => {
                    let text = map
                        .data
                        .as_ref()
                        .and_then(|data| data.get("config"))
                        .cloned();
                    Some(Some(Box::new((map, text.unwrap_or_default()))))
                }
                Ok(watcher::Event::Delete(_)) => Some(None),
                Ok(watcher::Event::Init | watcher::Event::InitDone) => None,
                Err(error) => {
                    log(
                        "watchFailed",
                        &format!("watch the configuration: {error}"),
                        json!({}),
                    );
                    None
                }
            }
        })
}

/// The name of an object with its namespace.
fn key(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
}
