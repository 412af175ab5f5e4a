//! The service proxy (kube-proxy's work) without packet filters: listeners on cluster IPs, node
//! ports and load-balancer addresses that splice each connection to a ready endpoint.
//!
//! Entry: [`start`] with [`Options`]. It watches Services and EndpointSlices, a pure plan says which
//! (address, port) must listen for whom, and the set of listeners follows. A port that may not be
//! opened becomes a Warning Event on the Service and is tried again. Addresses outside 127/8 are put
//! on an interface first, where the process may, and taken off it again.
//!
//! Invariant: two Services never disturb each other: every listener belongs to one Service port,
//! and a change of one Service touches only its own listeners. Absent: SCTP, IPv6 node ports,
//! source-address preservation.

mod addresses;
mod balance;
mod events;
mod listeners;
mod netlink;
mod plan;
mod tcp;
mod udp;
mod watch;

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;

use stdx::{OnError, SharedClock, SharedRng, Supervisor};
use tokio::sync::mpsc;

/// What the proxy needs from the program that runs it.
#[derive(Clone)]
pub struct Options {
    /// The client of user `system:kube-proxy` (lists and watches Services and EndpointSlices,
    /// creates Events).
    pub client: kube::Client,
    /// Where time comes from.
    pub clock: SharedClock,
    /// Where randomness comes from.
    pub rng: SharedRng,
    /// The name of the node this proxy runs on: the host of its Events, and what `Local` traffic
    /// policies compare endpoints with.
    pub node_name: String,
    /// The node's address; node ports listen there.
    pub node_ip: IpAddr,
    /// Further addresses for node ports, usually 127.0.0.1. Load-balancer addresses of a Service
    /// are added by themselves.
    pub node_port_addresses: Vec<IpAddr>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("node_name", &self.node_name)
            .field("node_ip", &self.node_ip)
            .field("node_port_addresses", &self.node_port_addresses)
            .finish_non_exhaustive()
    }
}

/// Starts the proxy as tasks of `supervisor` and returns at once; listeners open as Services come
/// and close with the supervisor.
pub fn start(options: Options, supervisor: &Supervisor) {
    let events = events::Events::start(
        options.client.clone(),
        options.node_name.clone(),
        options.clock.clone(),
        supervisor,
    );
    let news = watch::start(&options.client, &options.clock, supervisor);
    let listeners = listeners::Listeners::new(
        options.clock.clone(),
        options.rng.clone(),
        events,
        supervisor.clone(),
    );
    let addresses = addresses::Addresses::new(options.node_ip);
    let here = plan::Here {
        name: options.node_name,
        address: options.node_ip,
        node_port_addresses: options.node_port_addresses,
    };
    supervisor.spawn(
        "service proxy",
        OnError::Log,
        run(news, listeners, addresses, here),
    );
}

/// Takes off this machine's interfaces what a proxy with this node address put there and did not
/// live to take off. Not for while one runs.
pub fn remove_addresses(node_ip: IpAddr) {
    drop(addresses::Addresses::new(node_ip));
}

async fn run(
    mut news: mpsc::UnboundedReceiver<watch::News>,
    mut listeners: listeners::Listeners,
    mut addresses: addresses::Addresses,
    here: plan::Here,
) -> Result<(), Infallible> {
    let mut cluster = watch::Cluster::default();
    loop {
        tokio::select! {
            Some(item) = news.recv() => {
                cluster.apply(item);
                // What came in the meantime is one change.
                while let Ok(item) = news.try_recv() {
                    cluster.apply(item);
                }
            }
            () = listeners.retry_due() => {}
        }
        if cluster.is_known() {
            let plan = plan::plan(cluster.services(), cluster.slices(), &here);
            addresses.follow(plan.routes.keys().map(|listen| listen.address.ip()));
            listeners.follow(plan);
        }
    }
}
