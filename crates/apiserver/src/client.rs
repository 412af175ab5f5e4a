//! The client inside the process: requests go straight into the service, with the identity attached.
//! A request that upgrades (exec, attach, port-forward) goes through HTTP over a pipe in memory,
//! since an upgrade cannot be made up.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::body::Body;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{HeaderValue, UPGRADE, USER_AGENT};
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use stdx::{OnError, Supervisor};
use tower::Service as _;

use crate::Service;
use crate::auth::UserInfo;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A tower service that acts as one user.
#[derive(Debug, Clone)]
pub(crate) struct InProcess {
    pub(crate) service: Service,
    pub(crate) user: UserInfo,
    pub(crate) user_agent: HeaderValue,
    pub(crate) supervisor: Supervisor,
}

impl tower::Service<Request<kube::client::Body>> for InProcess {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<kube::client::Body>) -> Self::Future {
        request
            .headers_mut()
            .insert(USER_AGENT, self.user_agent.clone());
        if request.headers().contains_key(UPGRADE) {
            return upgrade(self.clone(), request).boxed();
        }
        request.extensions_mut().insert(self.user.clone());
        let answer = self.service.call(request);
        async move { answer.await.map_err(|never: Infallible| match never {}) }.boxed()
    }
}

async fn upgrade(
    client: InProcess,
    request: Request<kube::client::Body>,
) -> Result<Response<Body>, BoxError> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let InProcess {
        service,
        user,
        supervisor,
        ..
    } = client;
    let serve = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(user.clone());
        service.clone().call(request)
    });
    supervisor.spawn("in-process connection", OnError::Log, async move {
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(far), serve)
            .with_upgrades()
            .await
    });
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(near)).await?;
    supervisor.spawn(
        "in-process connection",
        OnError::Log,
        connection.with_upgrades(),
    );
    let mut request = request;
    if !request.headers().contains_key(http::header::HOST) {
        let host = HeaderValue::from_static("kubernetes.default.svc");
        request.headers_mut().insert(http::header::HOST, host);
    }
    Ok(sender.send_request(request).await?.map(Body::new))
}
