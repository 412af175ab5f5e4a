//! Connections from outside: TLS, HTTP/1.1 and HTTP/2, upgrades.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use stdx::{OnError, Supervisor};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

use crate::Service;
use crate::auth::PeerCertificate;

/// Who has not finished the handshake by then has gone.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long open requests may go on after the server was told to stop.
const DRAIN: Duration = Duration::from_secs(2);

pub(crate) async fn tls(
    service: Service,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    supervisor: Supervisor,
) -> std::io::Result<()> {
    let acceptor = TlsAcceptor::from(tls);
    // Watches end when this server stops being served, so that connections can drain.
    let watches = service.state().supervisor.token().clone();
    let clock = Arc::clone(service.state().clock());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = supervisor.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // Of one connection, or of too many: the next may work.
            Err(error) => {
                tracing::warn!("accept a connection: {error}");
                clock.sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (service, acceptor) = (service.clone(), acceptor.clone());
        let (stop, clock) = (supervisor.token().clone(), Arc::clone(&clock));
        let handshake_over = clock.sleep(HANDSHAKE);
        supervisor.spawn_graceful("api connection", async move {
            let accepted = tokio::select! {
                accepted = Box::pin(connect(stream, &acceptor)) => accepted,
                () = handshake_over => return,
            };
            let Ok(stream) = accepted else { return };
            let peer = stream.get_ref().1.peer_certificates().map(|chain| {
                PeerCertificate(chain.iter().map(|c| c.clone().into_owned()).collect())
            });
            let serve = hyper::service::service_fn(move |mut request: Request<Incoming>| {
                if let Some(peer) = &peer {
                    request.extensions_mut().insert(peer.clone());
                }
                service.clone().call(request)
            });
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new());
            builder.http2().timer(TokioTimer::new());
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), serve);
            let mut connection = std::pin::pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        served = connection => served,
                        () = clock.sleep(DRAIN) => Ok(()),
                    }
                }
            };
            if let Err(error) = served {
                tracing::debug!("api connection: {error}");
            }
        });
    }
    watches.cancel();
    Ok(())
}

async fn connect(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
) -> std::io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    acceptor.accept(stream).await
}

/// Spawns a task of a connection that outlives its request.
pub(crate) fn background<F>(supervisor: &Supervisor, name: &'static str, task: F)
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    supervisor.spawn(name, OnError::Log, task);
}
