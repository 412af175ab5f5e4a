//! Carrying a request to another server and its answer back: kubelets for logs and exec, Pods and
//! Services for proxies. Upgraded connections become a tunnel of bytes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use stdx::OnError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::serve::background;
use crate::server::State;
use crate::status::{Result, Status};

/// A server that does not accept the connection by then is taken for dead.
const CONNECT: Duration = Duration::from_secs(10);

/// Where a request goes.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    pub(super) host: String,
    pub(super) port: u16,
    /// How to speak TLS, if it is spoken.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Path and query.
    pub(super) target: String,
}

impl Destination {
    fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:{}{}", self.host, self.port, self.target)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Sends the request there. Headers of the hop, and who asked, stay here.
pub(super) async fn forward(
    state: &Arc<State>,
    mut request: Request<Body>,
    destination: Destination,
) -> Result<Response<Body>> {
    let failed = |error: &dyn std::fmt::Display| {
        Status::internal(format!(
            "error dialing backend: {}: {error}",
            destination.url()
        ))
    };
    let stream = tokio::select! {
        stream = Box::pin(dial(&destination)) => stream.map_err(|e| failed(&e))?,
        () = state.clock().sleep(CONNECT) => return Err(failed(&"timed out")),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failed(&e))?;
    state
        .supervisor
        .spawn("proxied connection", OnError::Log, async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!("proxied connection: {error}");
            }
            Ok::<(), std::convert::Infallible>(())
        });
    let upgrading = request.headers().contains_key(UPGRADE);
    let inbound = upgrading.then(|| hyper::upgrade::on(&mut request));
    let outbound = outgoing(request, &destination)?;
    let mut answer = sender
        .send_request(outbound)
        .await
        .map_err(|e| failed(&e))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(inbound) = inbound else {
            return Err(failed(
                &"the backend switched protocols without being asked",
            ));
        };
        let outbound = hyper::upgrade::on(&mut answer);
        background(&state.supervisor, "tunnel", async move {
            let (near, far) = match tokio::try_join!(inbound, outbound) {
                Ok(both) => both,
                Err(error) => {
                    tracing::debug!("tunnel: {error}");
                    return Ok(());
                }
            };
            let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
            // How a tunnel ends is the business of its two ends.
            if let Err(error) = tokio::io::copy_bidirectional(&mut near, &mut far).await {
                tracing::debug!("tunnel: {error}");
            }
            Ok(())
        });
        let (parts, _) = answer.into_parts();
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    let (mut parts, body) = answer.into_parts();
    parts.headers.remove(CONNECTION);
    parts.headers.remove(http::header::TRANSFER_ENCODING);
    Ok(Response::from_parts(parts, Body::new(body)))
}

async fn dial(destination: &Destination) -> std::io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect((destination.host.as_str(), destination.port)).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = &destination.tls else {
        return Ok(Box::new(stream));
    };
    let name = ServerName::try_from(destination.host.clone()).map_err(std::io::Error::other)?;
    let stream = TlsConnector::from(Arc::clone(tls))
        .connect(name, stream)
        .await?;
    Ok(Box::new(stream))
}

fn outgoing(request: Request<Body>, destination: &Destination) -> Result<Request<Body>> {
    let (mut parts, body) = request.into_parts();
    parts.uri = destination
        .target
        .parse::<Uri>()
        .map_err(|error| Status::bad_request(format!("{}: {error}", destination.target)))?;
    parts.version = http::Version::HTTP_11;
    parts.extensions = http::Extensions::new();
    let upgrade = parts.headers.get(UPGRADE).cloned();
    let hop = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let remove: Vec<HeaderName> = parts
        .headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            hop.contains(&name) || name == "authorization" || name.starts_with("impersonate-")
        })
        .cloned()
        .collect();
    for name in remove {
        parts.headers.remove(name);
    }
    if let Some(upgrade) = upgrade {
        parts.headers.insert(UPGRADE, upgrade);
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    let host = format!("{}:{}", destination.host, destination.port);
    if let Ok(host) = HeaderValue::from_str(&host) {
        parts.headers.insert(HOST, host);
    }
    Ok(Request::from_parts(parts, body))
}
