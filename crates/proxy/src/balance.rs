//! Which endpoint a client gets.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use stdx::{SharedClock, SharedRng};

use crate::plan::Route;

/// How many clients of a port are remembered before those whose time is over are forgotten.
const CROWD: usize = 10_000;

/// The memory of one Service port, shared by all its listeners.
#[derive(Debug)]
pub(crate) struct Balancer {
    clock: SharedClock,
    rng: SharedRng,
    clients: Mutex<BTreeMap<IpAddr, Seat>>,
}

#[derive(Debug, Clone, Copy)]
struct Seat {
    endpoint: SocketAddr,
    last: Duration,
}

impl Balancer {
    pub(crate) fn new(clock: SharedClock, rng: SharedRng) -> Self {
        Self {
            clock,
            rng,
            clients: Mutex::default(),
        }
    }

    /// The endpoints to try for a client, best first: the one it was with, the others by chance.
    pub(crate) fn order(&self, route: &Route, client: IpAddr) -> Vec<SocketAddr> {
        let mut endpoints = route.endpoints.clone();
        for last in (1..endpoints.len()).rev() {
            let other = self.rng.below(last as u64 + 1);
            endpoints.swap(last, usize::try_from(other).unwrap_or(last));
        }
        if let Some(seat) = self.seat(route, client) {
            if let Some(place) = endpoints.iter().position(|endpoint| *endpoint == seat) {
                endpoints.swap(0, place);
            }
        }
        endpoints
    }

    fn seat(&self, route: &Route, client: IpAddr) -> Option<SocketAddr> {
        let limit = route.affinity?;
        let now = self.clock.monotonic();
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let seat = clients.get(&client)?;
        (now.saturating_sub(seat.last) < limit).then_some(seat.endpoint)
    }

    /// Remembers where a client went.
    pub(crate) fn remember(&self, route: &Route, client: IpAddr, endpoint: SocketAddr) {
        let Some(limit) = route.affinity else { return };
        let now = self.clock.monotonic();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CROWD {
            clients.retain(|_, seat| now.saturating_sub(seat.last) < limit);
        }
        clients.insert(
            client,
            Seat {
                endpoint,
                last: now,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::ObjectReference;
    use stdx::{ManualClock, SeededRng};

    use super::*;
    use crate::plan::{Owner, Protocol};

    fn route(affinity: Option<Duration>) -> Route {
        Route {
            owner: Owner {
                uid: "u".to_owned(),
                namespace: "n".to_owned(),
                name: "s".to_owned(),
                port: 80,
                protocol: Protocol::Tcp,
            },
            endpoints: (1..=4)
                .map(|i| SocketAddr::from(([127, 0, 0, i], 80)))
                .collect(),
            affinity,
            service: ObjectReference::default(),
            quiet: false,
        }
    }

    fn balancer() -> (Arc<ManualClock>, Balancer) {
        let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        (
            clock.clone(),
            Balancer::new(clock, Arc::new(SeededRng::new(1))),
        )
    }

    #[test]
    fn every_endpoint_gets_its_turn() {
        let (_, balancer) = balancer();
        let client = IpAddr::from([127, 0, 0, 1]);
        let firsts: BTreeSet<SocketAddr> = (0..100)
            .map(|_| balancer.order(&route(None), client)[0])
            .collect();
        assert_eq!(firsts.len(), 4);
    }

    #[test]
    fn a_client_stays_until_its_time_is_over_or_its_endpoint_gone() {
        let (clock, balancer) = balancer();
        let client = IpAddr::from([127, 0, 0, 1]);
        let mut route = route(Some(Duration::from_secs(60)));
        let endpoint = balancer.order(&route, client)[0];
        balancer.remember(&route, client, endpoint);
        clock.advance(Duration::from_secs(59));
        assert!((0..50).all(|_| balancer.order(&route, client)[0] == endpoint));
        route.endpoints.retain(|other| *other != endpoint);
        assert!(!balancer.order(&route, client).contains(&endpoint));
        route.endpoints.push(endpoint);
        clock.advance(Duration::from_secs(1));
        assert!((0..50).any(|_| balancer.order(&route, client)[0] != endpoint));
    }
}
