//! The open listeners, which follow the plan. What cannot be opened is reported and tried again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use stdx::{Backoff, OnError, SharedClock, SharedRng, Supervisor};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::balance::Balancer;
use crate::events::Events;
use crate::plan::{Listen, Owner, Plan, Protocol, Route};
use crate::{tcp, udp};

pub(crate) struct Listeners {
    clock: SharedClock,
    rng: SharedRng,
    events: Events,
    supervisor: Supervisor,
    open: BTreeMap<Listen, Open>,
    failed: BTreeMap<Listen, Failed>,
    balancers: BTreeMap<Owner, Arc<Balancer>>,
    /// Conflicts between Services that were reported, so that they are told once.
    told: BTreeSet<(Listen, Option<String>)>,
}

/// A socket that is held. It stays bound for as long as the Service wants the address, and listens
/// only while there are endpoints: otherwise connections are refused, and nobody else gets it.
struct Open {
    socket: Socket,
    serving: Option<Serving>,
}

struct Serving {
    routes: watch::Sender<Arc<Route>>,
    task: JoinHandle<()>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A socket that could not be had.
struct Failed {
    backoff: Backoff,
    next: Duration,
    uid: String,
}

impl Listeners {
    pub(crate) fn new(
        clock: SharedClock,
        rng: SharedRng,
        events: Events,
        supervisor: Supervisor,
    ) -> Self {
        Self {
            clock,
            rng,
            events,
            supervisor,
            open: BTreeMap::new(),
            failed: BTreeMap::new(),
            balancers: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }

    /// Completes when a failed listener is due for another try; never when there is none.
    pub(crate) fn retry_due(&self) -> impl Future<Output = ()> + Send + use<> {
        let next = self.failed.values().map(|failed| failed.next).min();
        let sleep = next.map(|next| {
            self.clock
                .sleep(next.saturating_sub(self.clock.monotonic()))
        });
        async move {
            match sleep {
                Some(sleep) => sleep.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Makes the listeners what the plan says.
    pub(crate) fn follow(&mut self, plan: Plan) {
        self.open
            .retain(|listen, _| plan.routes.contains_key(listen));
        self.failed.retain(|listen, failed| {
            plan.routes
                .get(listen)
                .is_some_and(|route| route.owner.uid == failed.uid)
        });
        let owners: BTreeSet<&Owner> = plan.routes.values().map(|route| &route.owner).collect();
        self.balancers.retain(|owner, _| owners.contains(owner));
        let mut told = BTreeSet::new();
        for taken in &plan.taken {
            let identity = (taken.listen, taken.service.uid.clone());
            if !self.told.contains(&identity) {
                let message = format!(
                    "cannot listen on {}: service {} has it",
                    taken.listen, taken.by
                );
                self.events.failed_to_listen(&taken.service, message);
            }
            told.insert(identity);
        }
        self.told = told;
        for (listen, route) in plan.routes {
            self.follow_one(listen, route);
        }
    }

    fn follow_one(&mut self, listen: Listen, route: Route) {
        let now = self.clock.monotonic();
        if self
            .failed
            .get(&listen)
            .is_some_and(|failed| now < failed.next)
        {
            return;
        }
        let service = route.service.clone();
        let (uid, quiet) = (route.owner.uid.clone(), route.quiet);
        match self.serve(listen, route) {
            Ok(()) => {
                if self.failed.remove(&listen).is_some() && !quiet {
                    tracing::info!(%listen, "listening at last");
                }
            }
            Err(error) => {
                self.open.remove(&listen);
                let failed = self.failed.entry(listen).or_insert_with(|| Failed {
                    backoff: Backoff::new(Duration::from_secs(1), 2.0, Duration::from_secs(60)),
                    next: Duration::ZERO,
                    uid,
                });
                failed.next = now + failed.backoff.next_delay();
                let message = format!("cannot listen on {listen}: {}", described(&error));
                if quiet {
                    tracing::debug!("{message}");
                } else {
                    self.events.failed_to_listen(&service, message);
                }
            }
        }
    }

    fn serve(&mut self, listen: Listen, route: Route) -> io::Result<()> {
        let owner = route.owner.clone();
        let balancer = self
            .balancers
            .entry(owner)
            .or_insert_with(|| Arc::new(Balancer::new(self.clock.clone(), self.rng.clone())))
            .clone();
        let open = match self.open.entry(listen) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Open {
                socket: bind(listen)?,
                serving: None,
            }),
        };
        if route.endpoints.is_empty() && listen.protocol == Protocol::Tcp {
            if open.serving.take().is_some() {
                // Back to bound without listening.
                open.socket.shutdown(Shutdown::Read)?;
                open.socket.set_reuse_address(false)?;
            }
            return Ok(());
        }
        if let Some(serving) = open
            .serving
            .as_ref()
            .filter(|serving| !serving.task.is_finished())
        {
            serving.routes.send_if_modified(|current| {
                let changed = **current != route;
                if changed {
                    *current = Arc::new(route);
                }
                changed
            });
            return Ok(());
        }
        let routes = watch::Sender::new(Arc::new(route));
        let (receiver, clock) = (routes.subscribe(), self.clock.clone());
        let task = match listen.protocol {
            Protocol::Tcp => {
                // Connections inherit it, and must not bar the address once they are all that is left.
                open.socket.set_reuse_address(true)?;
                open.socket.listen(1024)?;
                let listener = TcpListener::from_std(open.socket.try_clone()?.into())?;
                let serve =
                    tcp::serve(listener, receiver, balancer, clock, self.supervisor.clone());
                self.supervisor
                    .spawn("service listener", OnError::Log, serve)
            }
            Protocol::Udp => {
                let socket = UdpSocket::from_std(open.socket.try_clone()?.into())?;
                let serve = udp::serve(socket, receiver, balancer, clock);
                self.supervisor
                    .spawn("service listener", OnError::Log, serve)
            }
        };
        open.serving = Some(Serving { routes, task });
        Ok(())
    }
}

/// Binds for us alone: a socket that allows reuse and does not listen would share the address. Only
/// where connections of an earlier listener are still closing is reuse needed.
fn bind(listen: Listen) -> io::Result<Socket> {
    match bind_with(listen, false) {
        Err(error)
            if error.kind() == io::ErrorKind::AddrInUse && listen.protocol == Protocol::Tcp =>
        {
            let socket = bind_with(listen, true)?;
            socket.set_reuse_address(false)?;
            Ok(socket)
        }
        other => other,
    }
}

fn bind_with(listen: Listen, reuse: bool) -> io::Result<Socket> {
    let (kind, protocol) = match listen.protocol {
        Protocol::Tcp => (Type::STREAM, socket2::Protocol::TCP),
        Protocol::Udp => (Type::DGRAM, socket2::Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(listen.address), kind, Some(protocol))?;
    socket.set_reuse_address(reuse)?;
    socket.set_nonblocking(true)?;
    socket.bind(&listen.address.into())?;
    Ok(socket)
}

/// What the system said, in its words and without its numbers.
fn described(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "address not available on this machine".to_owned(),
        _ => error.to_string(),
    }
}
