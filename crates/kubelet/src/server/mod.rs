//! The kubelet's HTTPS server: logs, exec, attach, port-forward, and what monitoring asks for.
//!
//! Clients are let in by the TLS configuration handed in (a client certificate is required there);
//! whether a user may read a log is for the API server to judge, who is the only client.

mod logs;
mod portforward;
mod session;
mod stats;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, close_code};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{any, get};
use http::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use stdx::{OnError, Supervisor};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::pod::Context;

/// An error as the kubelet answers it: a `metav1.Status`, which the API server can hand on as it is.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let reason = match self.0 {
            StatusCode::BAD_REQUEST => "BadRequest",
            StatusCode::NOT_FOUND => "NotFound",
            _ => "InternalError",
        };
        let status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.1,
            "reason": reason,
            "code": self.0.as_u16(),
        });
        (self.0, Json(status)).into_response()
    }
}

impl Refusal {
    fn bad_request(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }

    fn not_found(text: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, text.into())
    }
}

/// All paths of the server.
pub(crate) fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(pods))
        .route("/stats/summary", get(stats::summary))
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(logs::container_logs),
        )
        .route("/exec/{namespace}/{pod}/{container}", any(session::exec))
        .route(
            "/exec/{namespace}/{pod}/{uid}/{container}",
            any(session::exec_by_uid),
        )
        .route(
            "/attach/{namespace}/{pod}/{container}",
            any(session::attach),
        )
        .route(
            "/attach/{namespace}/{pod}/{uid}/{container}",
            any(session::attach_by_uid),
        )
        .route(
            "/portForward/{namespace}/{pod}",
            any(portforward::port_forward),
        )
        .route(
            "/portForward/{namespace}/{pod}/{uid}",
            any(portforward::port_forward_by_uid),
        )
        .with_state(context)
}

async fn pods(State(context): State<Arc<Context>>) -> Response {
    let items: Vec<_> = context
        .registry
        .all()
        .into_iter()
        .map(|view| view.pod)
        .collect();
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    Json(list).into_response()
}

/// Serves until the supervisor stops.
pub(crate) fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    context: Arc<Context>,
    supervisor: &Supervisor,
) {
    let router = router(context);
    let acceptor = TlsAcceptor::from(tls);
    let connections = supervisor.clone();
    supervisor.spawn("kubelet-server", OnError::Shutdown, async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(format!("accept on the kubelet's port: {error}")),
            };
            let (acceptor, router) = (acceptor.clone(), router.clone());
            connections.spawn("kubelet-connection", OnError::Log, async move {
                drop(stream.set_nodelay(true));
                let stream = match acceptor.accept(stream).await {
                    Ok(stream) => stream,
                    Err(error) => {
                        tracing::debug!("a client was not let in: {error}");
                        return Ok(());
                    }
                };
                let service = TowerToHyperService::new(router);
                let served = auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
                if let Err(error) = served {
                    tracing::debug!("a connection ended early: {error}");
                }
                Ok::<(), std::convert::Infallible>(())
            });
        }
    });
}

/// Errors of one connection that say nothing about the listener.
fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}

/// The end of a WebSocket on which everything was said.
fn good_bye() -> Message {
    Message::Close(Some(CloseFrame {
        code: close_code::NORMAL,
        reason: "".into(),
    }))
}

/// The parameters of a query, in order; one may be given several times.
#[derive(Debug)]
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn of(uri: &http::Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        // A query is decoded by the rules of HTML forms.
        Self(serde_urlencoded::from_str(query).unwrap_or_default())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| v.clone())
            .collect()
    }

    /// A flag: `true` or `1`, or named without a value.
    fn flag(&self, names: &[&str]) -> bool {
        names
            .iter()
            .filter_map(|n| self.get(n))
            .any(|v| matches!(v, "" | "1" | "true" | "True"))
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.get(name).filter(|t| !t.is_empty()) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            Refusal::bad_request(format!(
                "invalid value {text:?} of {name}: must be a whole number from 0"
            ))
        })
    }
}

/// Names of containers by Pod, for messages.
fn known<V>(containers: &BTreeMap<String, V>) -> String {
    containers
        .keys()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}
