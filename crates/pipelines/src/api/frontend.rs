//! What the original's dashboard asks its own server for, beside the API: a step's Pod with its
//! events and log, and a few questions about the installation.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;

use super::route::{Route, get};
use super::wire::{self, Failure, Result};
use super::{Api, logs};

pub(super) fn routes() -> Vec<Route> {
    let pod: &[&str] = &["podname", "podnamespace"];
    vec![
        get(
            "/k8s/pod",
            "The Pod of a step, as Kubernetes has it",
            one_pod,
        )
        .query(pod),
        get("/k8s/pod/events", "The events of a Pod", events).query(pod),
        get("/k8s/pod/logs", "The log of a step's Pod", log)
            .query(pod)
            .query(&["runid", "createdat"])
            .answers_text(),
        get(
            "/system/cluster-name",
            "The cluster's name on Google Cloud",
            nowhere,
        ),
        get("/system/project-id", "The project on Google Cloud", nowhere),
        get(
            "/visualizations/allowed",
            "Whether custom visualizations can be made",
            async || Json(false),
        ),
    ]
}

/// Neither is there outside Google Cloud; the dashboard takes a 404 for that.
async fn nowhere() -> Response {
    wire::text(StatusCode::NOT_FOUND, "this is no cluster of Google Cloud").into_response()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    podname: String,
    podnamespace: String,
    runid: String,
    follow: bool,
}

impl Wanted {
    /// The namespace and the name, as parts of a path.
    fn place(&self, api: &Api) -> Result<(String, String)> {
        if self.podname.is_empty() {
            return Err(Failure::invalid("podname: name a Pod"));
        }
        let namespace = if self.podnamespace.is_empty() {
            &api.namespace
        } else {
            &self.podnamespace
        };
        let part = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        Ok((part(namespace), part(&self.podname)))
    }
}

/// A GET of the Kubernetes API, with its refusals passed on.
async fn kubernetes(api: &Api, path: String) -> Result<Json<Value>> {
    let request = http::Request::get(path)
        .body(Vec::new())
        .map_err(|error| Failure::internal(&error))?;
    match api.client.request::<Value>(request).await {
        Ok(object) => Ok(Json(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            Err(Failure::not_found(status.message.clone()))
        }
        Err(kube::Error::Api(status)) => Err(Failure::invalid(status.message.clone())),
        Err(other) => Err(Failure::internal(&other)),
    }
}

async fn one_pod(State(api): State<Api>, Query(wanted): Query<Wanted>) -> Result<Json<Value>> {
    let (namespace, pod) = wanted.place(&api)?;
    kubernetes(&api, format!("/api/v1/namespaces/{namespace}/pods/{pod}")).await
}

async fn events(State(api): State<Api>, Query(wanted): Query<Wanted>) -> Result<Json<Value>> {
    let (namespace, pod) = wanted.place(&api)?;
    let path = format!(
        "/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.namespace%3D{namespace}%2CinvolvedObject.name%3D{pod}%2CinvolvedObject.kind%3DPod"
    );
    kubernetes(&api, path).await
}

/// From the run, if it is named, so that the log outlives the Pod; else from the Pod alone.
async fn log(State(api): State<Api>, Query(wanted): Query<Wanted>) -> Result<Response> {
    wanted.place(&api)?;
    if wanted.runid.is_empty() {
        let namespace = if wanted.podnamespace.is_empty() {
            &api.namespace
        } else {
            &wanted.podnamespace
        };
        return logs::of_pod(&api, namespace, &wanted.podname, None, wanted.follow).await;
    }
    logs::of_node(&api, &wanted.runid, &wanted.podname, wanted.follow).await
}
