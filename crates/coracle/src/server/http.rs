//! The HTTP listener for browsers, SDKs and Pods: landing page and Pipelines API behind the guard.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use stdx::{OnError, Supervisor};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use super::guard::{self, Guard, Peer};

/// The whole router behind the guard.
pub(crate) fn guarded(router: Router, guard: Guard) -> Router {
    router.layer(middleware::from_fn_with_state(
        Arc::new(guard),
        guard::check,
    ))
}

/// Accepts until the supervisor stops; each connection is a task of its own.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    supervisor: Supervisor,
) -> std::io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let connection = connection(stream, peer, router.clone(), supervisor.clone());
                supervisor.spawn_graceful("http connection", connection);
            }
            // One broken connection is its client's affair; a full descriptor table passes.
            Err(error) => {
                tracing::warn!("accept a connection: {error}");
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Starts [`serve`] as a task the server cannot do without.
pub(crate) fn spawn(listener: TcpListener, router: Router, supervisor: &Supervisor) {
    let serving = serve(listener, router, supervisor.clone());
    supervisor.spawn("http listener", OnError::Shutdown, serving);
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, supervisor: Supervisor) {
    let local = stream.local_addr().unwrap_or(peer);
    let peer = Peer::of(peer, local);
    // Small answers must not wait for the other side's acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("switch off Nagle's algorithm: {error}");
    }
    let service = hyper::service::service_fn(move |mut request: hyper::Request<_>| {
        request.extensions_mut().insert(peer);
        let request: Request = request.map(Body::new);
        router.clone().oneshot(request)
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = supervisor.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!("http connection: {error}");
    }
}
