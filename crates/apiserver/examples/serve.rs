//! An API server by itself, to try clients against: no controllers, no kubelet.
//!
//! `cargo run -p apiserver --example serve -- [DIRECTORY [PORT]]` prints an admin token and the
//! path of a kubeconfig. Without a directory everything is in memory and gone at the end.
#![expect(
    clippy::print_stdout,
    reason = "an example talks to the person who runs it"
)]

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use apiserver::auth::client_verifier;
use apiserver::{MIGRATIONS, Options, Server, UserInfo};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use stdx::{Rng as _, Supervisor, SystemClock, SystemRng};
use tokio::net::TcpListener;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().map(PathBuf::from);
    let port: u16 = arguments.next().map_or(Ok(0), |port| port.parse())?;
    let supervisor = Supervisor::new();
    let location = match &directory {
        Some(directory) => db::Options::file(directory.join("kube.db")),
        None => db::Options::memory("example"),
    };
    let database = db::Db::open(location, MIGRATIONS, &supervisor).await?;

    let authority = authority()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let port = listener.local_addr()?.port();
    let token = SystemRng.suffix(32);
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| "the system has no randomness")?;
    let mut options = Options::new(
        database.clone(),
        SystemClock::shared(),
        SystemRng::shared(),
        key.as_ref().to_vec(),
    );
    options.static_tokens = HashMap::from([(token.clone(), UserInfo::admin("admin"))]);
    options.client_ca = Some(authority.der().to_vec());
    options.kubernetes_endpoint = Some((Ipv4Addr::LOCALHOST, port));
    let server = Server::open(options).await?;

    let folder = directory.unwrap_or_else(std::env::temp_dir);
    let kubeconfig = folder.join(format!("kubeconfig-{port}"));
    std::fs::write(&kubeconfig, config(&authority.pem(), port, &token))?;
    println!("server     https://127.0.0.1:{port}");
    println!("token      {token}");
    println!("kubeconfig {}", kubeconfig.display());

    let tls = tls(&authority)?;
    let serving = server.serve_tls(listener, Arc::new(tls), supervisor.child());
    tokio::select! {
        served = serving => served?,
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    server.shutdown().await;
    database.close().await;
    Ok(())
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "example authority");
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn tls(authority: &CertifiedIssuer<'static, KeyPair>) -> Result<ServerConfig> {
    let key = KeyPair::generate()?;
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)?.signed_by(&key, authority)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(client_verifier())
        .with_single_cert(
            vec![CertificateDer::from(certificate.der().to_vec())],
            PrivateKeyDer::try_from(key.serialize_der())?,
        )?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn config(authority: &str, port: u16, token: &str) -> String {
    let authority = BASE64_STANDARD.encode(authority);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: example\n\
         clusters:\n- name: example\n  cluster:\n    server: https://127.0.0.1:{port}\n    \
         certificate-authority-data: {authority}\n\
         users:\n- name: admin\n  user:\n    token: {token}\n\
         contexts:\n- name: example\n  context:\n    cluster: example\n    user: admin\n"
    )
}
