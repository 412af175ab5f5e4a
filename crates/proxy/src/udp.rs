//! One UDP socket: every client's datagrams go to one endpoint, from a socket of their own, through
//! which the answers come back.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use stdx::SharedClock;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::balance::Balancer;
use crate::plan::Route;

/// A client that is silent this long, and is not answered, is forgotten.
const IDLE: Duration = Duration::from_secs(60);

/// Most clients at a time.
const CROWD: usize = 4096;

struct Session {
    endpoint: SocketAddr,
    socket: Arc<UdpSocket>,
    last: watch::Sender<Duration>,
}

pub(crate) async fn serve(
    socket: UdpSocket,
    routes: watch::Receiver<Arc<Route>>,
    balancer: Arc<Balancer>,
    clock: SharedClock,
) -> Result<(), Infallible> {
    let socket = Arc::new(socket);
    let mut sessions: BTreeMap<SocketAddr, Session> = BTreeMap::new();
    // Ends with this function, and every session with it.
    let mut answers: JoinSet<(SocketAddr, SocketAddr)> = JoinSet::new();
    let mut buffer = vec![0; 65_535];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                let Ok((length, client)) = received else { continue };
                let route = routes.borrow().clone();
                // Datagrams of an endpoint that is gone go to another one.
                sessions.retain(|other, session| {
                    *other != client || route.endpoints.contains(&session.endpoint)
                });
                if !sessions.contains_key(&client) {
                    if sessions.len() >= CROWD {
                        continue;
                    }
                    match open(client, &route, &balancer, &clock).await {
                        Ok(Some(session)) => {
                            let (to, clock) = (socket.clone(), clock.clone());
                            let (from, last) = (session.socket.clone(), session.last.clone());
                            let endpoint = session.endpoint;
                            answers.spawn(async move {
                                answer(to, client, from, last, clock).await;
                                (client, endpoint)
                            });
                            sessions.insert(client, session);
                        }
                        // No endpoint: UDP promises nothing.
                        Ok(None) => continue,
                        Err(error) => {
                            tracing::debug!(%client, "session: {error}");
                            continue;
                        }
                    }
                }
                if let Some(session) = sessions.get(&client) {
                    session.last.send_replace(clock.monotonic());
                    if let Err(error) = session.socket.send(&buffer[..length]).await {
                        tracing::trace!(%client, "datagram lost: {error}");
                    }
                }
            }
            Some(Ok((client, endpoint))) = answers.join_next(), if !answers.is_empty() => {
                // The client may be with another endpoint by now.
                if sessions.get(&client).is_some_and(|session| session.endpoint == endpoint) {
                    sessions.remove(&client);
                }
            }
        }
    }
}

async fn open(
    client: SocketAddr,
    route: &Route,
    balancer: &Balancer,
    clock: &SharedClock,
) -> io::Result<Option<Session>> {
    let Some(endpoint) = balancer.order(route, client.ip()).into_iter().next() else {
        return Ok(None);
    };
    let any = match endpoint.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(endpoint).await?;
    balancer.remember(route, client.ip(), endpoint);
    let last = watch::Sender::new(clock.monotonic());
    Ok(Some(Session {
        endpoint,
        socket: Arc::new(socket),
        last,
    }))
}

/// Sends the endpoint's answers to the client until both are silent.
async fn answer(
    to: Arc<UdpSocket>,
    client: SocketAddr,
    from: Arc<UdpSocket>,
    last: watch::Sender<Duration>,
    clock: SharedClock,
) {
    let mut buffer = vec![0; 65_535];
    loop {
        let quiet = IDLE.saturating_sub(clock.monotonic().saturating_sub(*last.borrow()));
        tokio::select! {
            received = from.recv(&mut buffer) => match received {
                Ok(length) => {
                    last.send_replace(clock.monotonic());
                    if let Err(error) = to.send_to(&buffer[..length], client).await {
                        tracing::trace!(%client, "datagram lost: {error}");
                    }
                }
                // Nobody listens at the endpoint; the next datagram may find another one.
                Err(_) => return,
            },
            () = clock.sleep(quiet) => {
                if clock.monotonic().saturating_sub(*last.borrow()) >= IDLE {
                    return;
                }
            }
        }
    }
}
