//! One TCP listener: every connection is spliced to an endpoint.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use stdx::{Backoff, OnError, SharedClock, Supervisor};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::balance::Balancer;
use crate::plan::Route;

/// How long an endpoint may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Accepts connections until the listener is dropped. Connections outlive it: those that are
/// established when an endpoint or the Service goes may finish.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: watch::Receiver<Arc<Route>>,
    balancer: Arc<Balancer>,
    clock: SharedClock,
    supervisor: Supervisor,
) -> Result<(), Infallible> {
    let mut backoff = Backoff::new(Duration::from_millis(5), 2.0, Duration::from_secs(1));
    loop {
        match listener.accept().await {
            Ok((client, from)) => {
                backoff.reset();
                let route = routes.borrow().clone();
                let (balancer, clock) = (balancer.clone(), clock.clone());
                supervisor.spawn("service connection", OnError::Log, async move {
                    splice(client, from, &route, &balancer, &clock).await;
                    Ok::<(), Infallible>(())
                });
            }
            Err(error) => {
                // Out of descriptors, or the client left first: neither ends the listener.
                tracing::debug!("accept: {error}");
                clock.sleep(backoff.next_delay()).await;
            }
        }
    }
}

async fn splice(
    mut client: TcpStream,
    from: SocketAddr,
    route: &Route,
    balancer: &Balancer,
    clock: &SharedClock,
) {
    for endpoint in balancer.order(route, from.ip()) {
        match connect(endpoint, clock).await {
            Ok(mut server) => {
                balancer.remember(route, from.ip(), endpoint);
                // Small writes must not wait for each other's acknowledgement.
                if client
                    .set_nodelay(true)
                    .and_then(|()| server.set_nodelay(true))
                    .is_err()
                {
                    return;
                }
                // Either side may end as it likes; the bytes that came are delivered.
                if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
                    tracing::trace!(%from, %endpoint, "connection ended: {error}");
                }
                return;
            }
            Err(error) => {
                let service = &route.owner.name;
                tracing::debug!(%service, %endpoint, "endpoint not reached: {error}");
            }
        }
    }
    // Nobody is there: the client hears it at once, by a reset.
    if let Err(error) = client.set_zero_linger() {
        tracing::trace!(%from, "reset: {error}");
    }
}

async fn connect(endpoint: SocketAddr, clock: &SharedClock) -> io::Result<TcpStream> {
    tokio::select! {
        connected = TcpStream::connect(endpoint) => connected,
        () = clock.sleep(CONNECT_TIMEOUT) => Err(io::ErrorKind::TimedOut.into()),
    }
}
