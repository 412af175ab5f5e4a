//! The listeners and the poller: a server from its options.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::serve::ListenerExt as _;
use stdx::{SharedClock, Supervisor};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;

use crate::grpc::Services;
use crate::manager::{Manager, Memory};
use crate::options::Options;
use crate::proto::model_service_server::ModelServiceServer;
use crate::proto::prediction_service_server::PredictionServiceServer;
use crate::rest;

/// The largest gRPC message that is read or written.
const MOST_BYTES: usize = 256 << 20;

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process lacks what a server stands on.
    #[error("start the runtime")]
    Runtime {
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// An address cannot be listened on.
    #[error("listen for {protocol} on {address}")]
    Bind {
        /// gRPC or REST.
        protocol: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A listener broke down.
    #[error("serve {protocol}")]
    Serve {
        /// gRPC or REST.
        protocol: &'static str,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A running server. It stops with its supervisor.
#[derive(Debug)]
pub struct Server {
    grpc: SocketAddr,
    rest: Option<SocketAddr>,
    failure: Arc<Mutex<Option<Error>>>,
}

impl Server {
    /// Listens, loads the newest version if there is one, and then answers. Its tasks belong to the
    /// supervisor; a listener that breaks down cancels it.
    pub async fn start(
        options: Options,
        clock: SharedClock,
        supervisor: &Supervisor,
    ) -> Result<Self, Error> {
        let (grpc_listener, grpc) = listen("gRPC", &options, options.port).await?;
        let rest_listener = match options.rest_api_port {
            Some(port) => Some(listen("REST", &options, port).await?),
            None => None,
        };
        let rest = rest_listener.as_ref().map(|(_, address)| *address);
        tracing::info!(
            model = options.model_name,
            "serving gRPC at {grpc}{}",
            rest.map(|address| format!(", REST at http://{address}"))
                .unwrap_or_default()
        );

        let wait = options.poll_wait;
        let manager = Arc::new(Manager::new(options, Arc::clone(&clock)));
        // Whoever connects while the first version loads waits for it in the listener's queue.
        let mut memory = look(&manager, Memory::default()).await;
        if let Some(wait) = wait {
            let poller = Arc::clone(&manager);
            let poll = async move {
                loop {
                    clock.sleep(wait).await;
                    memory = look(&poller, memory).await;
                }
            };
            supervisor.spawn::<String>("model versions", stdx::OnError::Shutdown, poll);
        }

        let failure = Arc::new(Mutex::new(None));
        let services = Services {
            manager: Arc::clone(&manager),
        };
        let token = supervisor.token().clone();
        let guard = Guard {
            supervisor: supervisor.clone(),
            failure: Arc::clone(&failure),
        };
        supervisor.spawn_graceful("grpc", async move {
            let incoming = TcpIncoming::from(grpc_listener).with_nodelay(Some(true));
            let prediction = PredictionServiceServer::new(services.clone())
                .max_decoding_message_size(MOST_BYTES)
                .max_encoding_message_size(MOST_BYTES);
            let outcome = tonic::transport::Server::builder()
                .add_service(prediction)
                .add_service(ModelServiceServer::new(services))
                .serve_with_incoming_shutdown(incoming, token.cancelled())
                .await;
            guard.end("gRPC", outcome.map_err(Into::into));
        });
        if let Some((listener, _)) = rest_listener {
            let token = supervisor.token().clone();
            let guard = Guard {
                supervisor: supervisor.clone(),
                failure: Arc::clone(&failure),
            };
            supervisor.spawn_graceful("rest", async move {
                let listener = listener.tap_io(|stream| {
                    // A connection without it is slower, not broken.
                    drop(stream.set_nodelay(true));
                });
                let outcome = axum::serve(listener, rest::router(manager))
                    .with_graceful_shutdown(async move { token.cancelled().await })
                    .await;
                guard.end("REST", outcome.map_err(Into::into));
            });
        }
        Ok(Self {
            grpc,
            rest,
            failure,
        })
    }

    /// Where gRPC is served.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc
    }

    /// Where REST is served, if it is.
    pub fn rest_address(&self) -> Option<SocketAddr> {
        self.rest
    }

    /// How it ended: whether a listener broke down.
    pub fn outcome(self) -> Result<(), Error> {
        match self
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Tells the process when a listener has broken down.
struct Guard {
    supervisor: Supervisor,
    failure: Arc<Mutex<Option<Error>>>,
}

impl Guard {
    fn end(
        self,
        protocol: &'static str,
        outcome: Result<(), Box<dyn std::error::Error + Send + Sync>>,
    ) {
        if let Err(source) = outcome {
            let error = Error::Serve { protocol, source };
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            self.supervisor.token().cancel();
        }
    }
}

async fn listen(
    protocol: &'static str,
    options: &Options,
    port: u16,
) -> Result<(TcpListener, SocketAddr), Error> {
    let address = SocketAddr::new(options.bind, port);
    let bind = |source| Error::Bind {
        protocol,
        address,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    Ok((listener, address))
}

/// Polls on a thread where reading files holds nobody up.
async fn look(manager: &Arc<Manager>, mut memory: Memory) -> Memory {
    let manager = Arc::clone(manager);
    let look = tokio::task::spawn_blocking(move || {
        manager.poll(&mut memory);
        memory
    });
    match look.await {
        Ok(memory) => memory,
        Err(error) => {
            tracing::error!("looking for versions broke down: {error}");
            Memory::default()
        }
    }
}
