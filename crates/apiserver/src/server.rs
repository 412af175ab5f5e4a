//! The server: what [`crate::Options`] become, and the ways in.

use std::sync::Arc;

use rustls::ServerConfig;
use serde_json::Value;
use stdx::Supervisor;
use tokio::net::TcpListener;

use crate::Options;
use crate::auth::UserInfo;

/// A running API server. Clones share it.
#[derive(Debug, Clone)]
pub struct Server {
    // fields follow
}

/// Why a server could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store could not be read or brought up to date.
    #[error("open the object store")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// One of the options makes no sense.
    #[error("option {name}: {problem}")]
    Option {
        /// Which option.
        name: &'static str,
        /// What is wrong with it and what is allowed.
        problem: String,
    },
    /// An object to be made at the first start was refused.
    #[error("make {object} at the first start: {problem}")]
    Bootstrap {
        /// Kind, namespace and name.
        object: String,
        /// The server's own answer.
        problem: String,
    },
}

impl Server {
    /// Opens the store, loads it, and makes the first start's objects if there are none.
    pub async fn open(options: Options) -> Result<Self, Error>;

    /// The API as a tower service over `http::Request<B>`; requests carry an identity as a
    /// [`UserInfo`] extension, a bearer token, or a [`crate::auth::PeerCertificate`] extension.
    pub fn service(&self) -> crate::Service;

    /// A client inside this process that acts as `user`; `user_agent` names the field manager.
    pub fn client_for(&self, user: UserInfo, user_agent: &str) -> kube::Client;

    /// Serves HTTP/1.1 and HTTP/2 over TLS until the supervisor stops; watches end then.
    pub async fn serve_tls(
        &self,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        supervisor: Supervisor,
    ) -> std::io::Result<()>;

    /// A token for a service account, by way of its TokenRequest subresource.
    pub async fn issue_token(
        &self,
        namespace: &str,
        service_account: &str,
        bound_pod: Option<(&str, &str)>,
        audiences: &[&str],
        ttl: std::time::Duration,
    ) -> Result<String, Value>;
}
