//! Who may use the HTTP listener: protection against DNS rebinding, and a token for everyone who is
//! not this very user on this very machine.
//!
//! A request from a loopback socket that belongs to the server's own user (or to root) needs
//! nothing. Any other needs a bearer token that the Kubernetes API knows: the administrator's, or a
//! service account's (this is how Pods come in).

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::{Api, PostParams};
use serde_json::json;

/// What the guard knows.
pub(crate) struct Guard {
    /// Names and addresses (without port) that a Host header may carry.
    pub(crate) hosts: Vec<String>,
    /// Asks the Kubernetes API who a token belongs to.
    pub(crate) client: kube::Client,
    /// The listener is open to all addresses of this machine, whose names are not ours to know; a
    /// token is required there in any case.
    pub(crate) any_host: bool,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

/// Whether the other end of a connection is trusted without a token; set per connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) trusted: bool,
}

impl Peer {
    /// Looks at a connection once, when it is accepted.
    pub(crate) fn of(peer: SocketAddr, local: SocketAddr) -> Self {
        let own = rustix::process::getuid().as_raw();
        let trusted = peer.ip().is_loopback()
            && socket_owner(peer, local).is_some_and(|uid| uid == own || uid == 0);
        Self { trusted }
    }
}

/// The middleware.
pub(crate) async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    // HTTP/2 carries the host in the request's authority.
    let authority = request.uri().authority().map(ToString::to_string);
    let host = host.or(authority.as_deref()).unwrap_or_default();
    if !guard.knows(host) {
        return refuse(
            StatusCode::MISDIRECTED_REQUEST,
            &format!(
                "host {host:?} is not served here (allowed: {})",
                guard.hosts.join(", ")
            ),
        );
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let from = origin.split_once("://").map_or("", |(_, rest)| rest);
        if from != host {
            return refuse(
                StatusCode::FORBIDDEN,
                &format!("requests from pages of {origin:?} are refused"),
            );
        }
    }
    let trusted = request
        .extensions()
        .get::<Peer>()
        .is_some_and(|peer| peer.trusted);
    if !trusted && !guard.token_is_good(headers).await {
        let mut response = refuse(
            StatusCode::UNAUTHORIZED,
            "a bearer token is required for this connection; `coracle token` prints one",
        );
        let challenge = header::HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
        return response;
    }
    next.run(request).await
}

impl Guard {
    fn knows(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            Some(_) | None => host,
        };
        self.any_host
            || self
                .hosts
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name))
    }

    async fn token_is_good(&self, headers: &HeaderMap) -> bool {
        let header = headers
            .get(header::AUTHORIZATION)
            .and_then(|h| h.to_str().ok());
        let Some(token) = header.and_then(|h| h.strip_prefix("Bearer ")) else {
            return false;
        };
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: None,
            },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &review).await {
            Ok(answer) => answer.status.and_then(|s| s.authenticated).unwrap_or(false),
            Err(error) => {
                tracing::warn!("review a token: {error}");
                false
            }
        }
    }
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (
        status,
        Json(json!({"error": message, "message": message, "code": 16})),
    )
        .into_response()
}

/// The user whose socket is the peer's end of this loopback connection.
fn socket_owner(peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    let (IpAddr::V4(peer_ip), IpAddr::V4(local_ip)) = (peer.ip(), local.ip()) else {
        return None;
    };
    let entry = |ip: std::net::Ipv4Addr, port: u16| {
        format!("{:08X}:{port:04X}", u32::from_le_bytes(ip.octets()))
    };
    let (from, to) = (entry(peer_ip, peer.port()), entry(local_ip, local.port()));
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let found = fields.next() == Some(&from) && fields.next() == Some(&to);
        found.then(|| fields.nth(4)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_loopback_connection_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        let owner = socket_owner(peer, accepted.local_addr().unwrap());
        assert_eq!(owner, Some(rustix::process::getuid().as_raw()));
        assert!(Peer::of(peer, accepted.local_addr().unwrap()).trusted);
        drop(client);
    }
}
