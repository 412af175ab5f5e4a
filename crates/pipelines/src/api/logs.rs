//! Step logs: `/apis/VERSION/runs/{run}/nodes/{node}/log`, streamed from the step's Pod.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures::{AsyncReadExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use serde::Deserialize;

use super::Api;
use super::route::{Route, get};
use super::wire::{self, Code, Failure, Result};

pub(super) fn routes() -> Vec<Route> {
    // The original serves v1alpha1 only, while its own dashboard asks for the others.
    [
        "/apis/v1alpha1/runs/{run_id}/nodes/{node_id}/log",
        "/apis/v1beta1/runs/{run_id}/nodes/{node_id}/log",
        "/apis/v2beta1/runs/{run_id}/nodes/{node_id}/log",
    ]
    .into_iter()
    .map(|path| {
        get(path, "Read or follow the log of a step", log)
            .query(&["follow"])
            .answers_text()
    })
    .collect()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    follow: bool,
}

async fn log(
    State(api): State<Api>,
    Path((run, node)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Result<Response> {
    of_node(&api, &run, &node, wanted.follow).await
}

/// The log of a run's node, which may also be named by its Pod.
pub(super) async fn of_node(api: &Api, run: &str, node: &str, follow: bool) -> Result<Response> {
    let Some(pod) = api.runner.pod_of(run, node).await? else {
        return Err(Failure::not_found(format!(
            "run {run} has no step {node:?} with a Pod"
        )));
    };
    match of_pod(api, &pod.namespace, &pod.name, Some(pod.container), follow).await {
        // The log outlives its Pod.
        Err(gone) if gone.code == Code::NotFound => {
            let kept = api.runner.read_step_log(run, node).await?;
            kept.map(|log| wire::text(StatusCode::OK, log)).ok_or(gone)
        }
        other => other,
    }
}

/// The log of a Pod that is there.
pub(super) async fn of_pod(
    api: &Api,
    namespace: &str,
    pod: &str,
    container: Option<String>,
    follow: bool,
) -> Result<Response> {
    let pods: kube::Api<Pod> = kube::Api::namespaced(api.client.clone(), namespace);
    let params = LogParams {
        container,
        follow,
        ..LogParams::default()
    };
    let stream = pods
        .log_stream(pod, &params)
        .await
        .map_err(|error| match error {
            kube::Error::Api(status) if status.code == 404 => {
                Failure::not_found(format!("the Pod {pod} is gone, and its log with it"))
            }
            kube::Error::Api(status) => Failure::invalid(status.message.clone()),
            other => Failure::new(Code::Unavailable, format!("read the log: {other}")),
        })?;
    let chunks = futures::stream::try_unfold(stream, |mut stream| async move {
        let mut chunk = vec![0; 16 << 10];
        let read = stream.read(&mut chunk).await?;
        chunk.truncate(read);
        Ok::<_, std::io::Error>((read > 0).then_some((chunk, stream)))
    });
    Ok(wire::text(
        StatusCode::OK,
        Body::from_stream(Box::pin(chunks).into_stream()),
    ))
}
