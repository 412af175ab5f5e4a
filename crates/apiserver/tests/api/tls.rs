//! Over the wire: TLS, certificates, tokens, both versions of HTTP.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{Authority, Fixture, TOKEN, serve, start_with};

type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

async fn get(
    port: u16,
    authority: &Authority,
    identity: Option<Identity>,
    token: Option<&str>,
    http2: bool,
) -> (StatusCode, Value) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.der())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((certificate, key)) => builder
            .with_client_auth_cert(vec![certificate], key)
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![if http2 {
        b"h2".to_vec()
    } else {
        b"http/1.1".to_vec()
    }];
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    let mut request = Request::get("https://127.0.0.1/apis/authorization.k8s.io/v1");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut request = request.body(Empty::<Bytes>::new()).unwrap();
    let (status, body) = if http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        beside(connection, read(sender.send_request(request))).await
    } else {
        *request.uri_mut() = "/apis/authorization.k8s.io/v1".parse().unwrap();
        request
            .headers_mut()
            .insert("host", "127.0.0.1".parse().unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        beside(connection, read(sender.send_request(request))).await
    };
    (status, serde_json::from_slice(&body).unwrap())
}

async fn read(
    response: impl Future<Output = hyper::Result<Response<Incoming>>>,
) -> (StatusCode, Bytes) {
    let response = response.await.unwrap();
    let status = response.status();
    (
        status,
        response.into_body().collect().await.unwrap().to_bytes(),
    )
}

/// Drives a connection while the request on it is under way.
async fn beside<T>(
    connection: impl Future<Output = hyper::Result<()>>,
    answer: impl Future<Output = T>,
) -> T {
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => {
            ended.unwrap();
            answer.await
        }
    }
}

async fn fixture(users: &Authority) -> Fixture {
    start_with(|options| options.client_ca = Some(users.der())).await
}

#[tokio::test]
async fn certificates_and_tokens_are_judged_by_the_server_not_the_handshake() {
    let (servers, users, others) = (
        Authority::new("servers"),
        Authority::new("users"),
        Authority::new("others"),
    );
    let fixture = fixture(&users).await;
    let port = serve(&fixture, &servers).await;
    let ask = |identity, token| get(port, &servers, identity, token, false);
    let (anonymous, _) = ask(None, None).await;
    assert_eq!(anonymous, StatusCode::FORBIDDEN);
    let (known, body) = ask(Some(users.client("alice", "system:masters")), None).await;
    assert_eq!(
        (known, body["kind"].as_str()),
        (StatusCode::OK, Some("APIResourceList"))
    );
    let (stranger, body) = ask(Some(others.client("alice", "system:masters")), None).await;
    assert_eq!(
        (stranger, body["reason"].as_str()),
        (StatusCode::UNAUTHORIZED, Some("Unauthorized"))
    );
    let (with_token, _) = ask(None, Some(TOKEN)).await;
    assert_eq!(with_token, StatusCode::OK);
    let (over_http2, _) = get(port, &servers, None, Some(TOKEN), true).await;
    assert_eq!(over_http2, StatusCode::OK);
    let (wrong_token, _) = ask(None, Some("wrong")).await;
    assert_eq!(wrong_token, StatusCode::UNAUTHORIZED);
}
