//! Starting servers and asking them things.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use apiserver::auth::client_verifier;
use apiserver::{MIGRATIONS, Options, Server, UserInfo};
use axum::body::Body;
use db::Db;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use stdx::{Supervisor, SystemClock, SystemRng};
use tokio::net::TcpListener;
use tower::ServiceExt as _;

pub(crate) const TOKEN: &str = "a-token-of-the-tests";

/// A server in memory, and what keeps it going.
pub(crate) struct Fixture {
    pub(crate) server: Server,
    pub(crate) supervisor: Supervisor,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
    pub(crate) body: Value,
}

pub(crate) fn options(database: Db) -> Options {
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let mut options = Options::new(
        database,
        SystemClock::shared(),
        SystemRng::shared(),
        key.as_ref().to_vec(),
    );
    options
        .static_tokens
        .insert(TOKEN.to_owned(), UserInfo::admin("admin"));
    options
}

pub(crate) async fn memory(supervisor: &Supervisor) -> Db {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("apiserver-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    Db::open(db::Options::memory(name), MIGRATIONS, supervisor)
        .await
        .unwrap()
}

pub(crate) async fn start() -> Fixture {
    start_with(|_| {}).await
}

pub(crate) async fn start_with(change: impl FnOnce(&mut Options)) -> Fixture {
    let supervisor = Supervisor::new();
    let mut options = options(memory(&supervisor).await);
    change(&mut options);
    let server = Server::open(options).await.unwrap();
    Fixture { server, supervisor }
}

impl Fixture {
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.server.service().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_str(&text).unwrap_or_default();
        Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            text,
            body,
        }
    }

    pub(crate) async fn as_user(
        &self,
        user: UserInfo,
        method: Method,
        path: &str,
        media_type: &str,
        body: &Value,
    ) -> Answer {
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media_type)
            .body(body)
            .unwrap();
        request.extensions_mut().insert(user);
        self.send(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let user = UserInfo::admin("admin");
        self.as_user(user, Method::GET, path, "application/json", &Value::Null)
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let user = UserInfo::admin("admin");
        self.as_user(user, Method::POST, path, "application/json", body)
            .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        let user = UserInfo::admin("admin");
        self.as_user(user, Method::PUT, path, "application/json", body)
            .await
    }

    pub(crate) async fn patch(&self, path: &str, kind: &str, body: &Value) -> Answer {
        let user = UserInfo::admin("admin");
        let media_type = format!("application/{kind}");
        self.as_user(user, Method::PATCH, path, &media_type, body)
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        let user = UserInfo::admin("admin");
        self.as_user(user, Method::DELETE, path, "application/json", &Value::Null)
            .await
    }

    /// The namespace's account, which a controller would make.
    pub(crate) async fn with_account(self) -> Self {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"},
        });
        let answer = self
            .post("/api/v1/namespaces/default/serviceaccounts", &account)
            .await;
        assert_eq!(answer.code, 201, "{}", answer.text);
        self
    }
}

pub(crate) fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "i"}]},
    })
}

/// A certificate authority, and leaves it signs.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    /// A client's certificate and key.
    pub(crate) fn client(
        &self,
        user: &str,
        group: &str,
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let der = CertificateDer::from(certificate.der().to_vec());
        (der, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    pub(crate) fn server_config(&self) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &self.0)
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(client_verifier())
            .with_single_cert(
                vec![CertificateDer::from(certificate.der().to_vec())],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}

/// Serves over TLS on a port of its own.
pub(crate) async fn serve(fixture: &Fixture, authority: &Authority) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = fixture.server.clone();
    let tls = Arc::new(authority.server_config());
    let supervisor = fixture.supervisor.clone();
    fixture.supervisor.spawn_graceful("serve", async move {
        server.serve_tls(listener, tls, supervisor).await.unwrap();
    });
    port
}
