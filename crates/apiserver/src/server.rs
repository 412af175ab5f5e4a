//! The server: what [`crate::Options`] become, and the ways in.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::HeaderValue;
use http::{Request, Response};
use kinds::Ctx;
use rustls::ServerConfig;
use serde_json::{Value, json};
use stdx::{SharedClock, SharedRng, Supervisor};
use tokio::net::TcpListener;

use crate::Options;
use crate::auth::{Authenticator, Authorizer, Judge, UserInfo, token::Signer};
use crate::client::InProcess;
use crate::metrics::Metrics;
use crate::registry::Resources;
use crate::storage::Store;

/// A running API server. Clones share it.
#[derive(Clone)]
pub struct Server {
    state: Arc<State>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("resource_version", &self.state.store.rv())
            .finish_non_exhaustive()
    }
}

/// Everything a request may need.
pub(crate) struct State {
    pub(crate) options: Options,
    pub(crate) store: Arc<Store>,
    pub(crate) schemas: Arc<schema::Schemas>,
    pub(crate) resources: Resources,
    pub(crate) authenticator: Authenticator,
    pub(crate) authorizer: Authorizer,
    pub(crate) metrics: Arc<Metrics>,
    /// Ends watches and background work.
    pub(crate) supervisor: Supervisor,
    pub(crate) allocator: crate::registry::service::Allocator,
    pub(crate) documents: crate::discovery::Documents,
}

impl State {
    pub(crate) fn clock(&self) -> &SharedClock {
        &self.options.clock
    }

    pub(crate) fn rng(&self) -> &SharedRng {
        &self.options.rng
    }

    /// What the strategies of kinds may know.
    pub(crate) fn ctx(&self) -> Ctx {
        let (first, last) = self.options.node_port_range;
        Ctx {
            now: self.options.clock.now(),
            loopback_exempt: self
                .options
                .exempt_cidrs
                .iter()
                .map(|&(base, prefix)| kinds::Cidr { base, prefix })
                .collect(),
            node_ports: first..=last,
        }
    }
}

/// Why a server could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store could not be read or brought up to date.
    #[error("open the object store")]
    Store(#[source] db::Error),
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
    pub async fn open(options: Options) -> Result<Self, Error> {
        let invalid = |name: &'static str| move |problem: String| Error::Option { name, problem };
        let signer = Signer::new(&options.service_account_key, &options.issuer)
            .map_err(invalid("service_account_key"))?;
        let judge = Judge::new(options.client_ca.as_deref()).map_err(invalid("client_ca"))?;
        let allocator =
            crate::registry::service::Allocator::new(&options).map_err(invalid("service_cidr"))?;
        let store = Store::open(options.db.clone())
            .await
            .map_err(Error::Store)?;
        let schemas = Arc::new(schema::Schemas::builtin());
        let state = State {
            authenticator: Authenticator {
                judge,
                signer,
                static_tokens: options.static_tokens.clone(),
                store: Arc::clone(&store),
                clock: Arc::clone(&options.clock),
            },
            authorizer: Authorizer::new(Arc::clone(&store)),
            resources: Resources::new(Arc::clone(&store), Arc::clone(&schemas)),
            schemas,
            store,
            metrics: Arc::default(),
            supervisor: Supervisor::new(),
            allocator,
            documents: crate::discovery::Documents::default(),
            options,
        };
        let server = Self {
            state: Arc::new(state),
        };
        Box::pin(crate::bootstrap::first_start(&server.state)).await?;
        crate::expiry::start(&server.state);
        Ok(server)
    }

    /// The API as a tower service over `http::Request<B>`; requests carry an identity as a
    /// [`UserInfo`] extension, a bearer token, or a [`crate::auth::PeerCertificate`] extension.
    pub fn service(&self) -> Service {
        Service {
            state: Arc::clone(&self.state),
        }
    }

    /// A client inside this process that acts as `user`; `user_agent` names the field manager.
    /// It must be called within a tokio runtime.
    ///
    /// What it writes about Pods, Nodes, Leases and Events is answered before it is on disk (see
    /// [`crate::storage`]): whoever is in this process ends with it, and looks again when it starts.
    pub fn client_for(&self, user: UserInfo, user_agent: &str) -> kube::Client {
        let user = UserInfo {
            in_process: true,
            ..user
        };
        let user_agent = HeaderValue::from_str(user_agent)
            .unwrap_or_else(|_| HeaderValue::from_static("coracle"));
        let supervisor = self.state.supervisor.clone();
        let service = InProcess {
            service: self.service(),
            user,
            user_agent,
            supervisor,
        };
        kube::Client::new(service, "default")
    }

    /// Serves HTTP/1.1 and HTTP/2 over TLS until the supervisor stops; watches end then.
    pub async fn serve_tls(
        &self,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        supervisor: Supervisor,
    ) -> std::io::Result<()> {
        crate::serve::tls(self.service(), listener, tls, supervisor).await
    }

    /// Ends watches and whatever runs in the background; the store stays readable.
    pub async fn shutdown(&self) {
        self.state.supervisor.shutdown().await;
    }

    /// A token for a service account, by way of its TokenRequest subresource. `bound_pod` is a
    /// Pod's name and uid. The error is the server's Status.
    pub fn issue_token(
        &self,
        namespace: &str,
        service_account: &str,
        bound_pod: Option<(&str, &str)>,
        audiences: &[&str],
        ttl: Duration,
    ) -> Result<String, Value> {
        let mut spec = json!({"audiences": audiences, "expirationSeconds": ttl.as_secs()});
        if let Some((name, uid)) = bound_pod {
            spec["boundObjectRef"] =
                json!({"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid});
        }
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec,
        });
        crate::subresource::token::issue(&self.state, namespace, service_account, request)
            .map(|answer| kinds::tree::text(&answer, "status.token").to_owned())
            .map_err(|status| status.to_value())
    }
}

/// The API as a tower service. It is always ready and never fails: errors are answers.
#[derive(Clone)]
pub struct Service {
    state: Arc<State>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("apiserver::Service")
    }
}

impl Service {
    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }
}

impl<B> tower::Service<Request<B>> for Service
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let state = Arc::clone(&self.state);
        crate::endpoints::handle(state, request.map(Body::new))
            .map(Ok)
            .boxed()
    }
}
