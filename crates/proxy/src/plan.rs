//! Which addresses must be listened on, for which Service port, and where their connections go.
//! Pure.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::{Resource as _, ResourceExt as _};

/// The label of a slice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// How long a client stays with its endpoint unless the Service says otherwise.
const DEFAULT_AFFINITY: Duration = Duration::from_secs(10_800);

/// The node this proxy runs on.
pub(crate) struct Here {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) node_port_addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listen {
    pub(crate) address: SocketAddr,
    pub(crate) protocol: Protocol,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Tcp => write!(f, "{}", self.address),
            Protocol::Udp => write!(f, "{}/udp", self.address),
        }
    }
}

/// One port of one Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: i32,
    pub(crate) protocol: Protocol,
}

/// Where the connections of a listener go.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Route {
    pub(crate) owner: Owner,
    pub(crate) endpoints: Vec<SocketAddr>,
    /// A client stays with its endpoint this long after its last connection.
    pub(crate) affinity: Option<Duration>,
    /// For Events about the Service.
    pub(crate) service: ObjectReference,
    /// Nobody asked for this very address, so nobody is told when it cannot be had.
    pub(crate) quiet: bool,
}

/// An address that a Service wants and another one has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Taken {
    pub(crate) listen: Listen,
    pub(crate) service: ObjectReference,
    pub(crate) by: String,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) routes: BTreeMap<Listen, Route>,
    pub(crate) taken: Vec<Taken>,
}

/// The endpoints of one Service port, for each way in.
struct Targets {
    inside: Vec<SocketAddr>,
    outside: Vec<SocketAddr>,
}

pub(crate) fn plan<'a>(
    services: impl Iterator<Item = &'a Arc<Service>>,
    slices: impl Iterator<Item = &'a Arc<EndpointSlice>>,
    here: &Here,
) -> Plan {
    let mut by_service: BTreeMap<(String, String), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        if let Some(service) = slice.labels().get(SERVICE_NAME) {
            let key = (slice.namespace().unwrap_or_default(), service.clone());
            by_service.entry(key).or_default().push(slice);
        }
    }
    // The oldest Service keeps an address that two ask for.
    let mut services: Vec<&Arc<Service>> = services.filter(|service| is_proxied(service)).collect();
    services.sort_by_key(|service| {
        (
            service.creation_timestamp(),
            service.namespace(),
            service.name_any(),
        )
    });
    let balancers: Vec<IpAddr> = services
        .iter()
        .flat_map(|s| balancer_addresses(s))
        .collect();
    let mut plan = Plan::default();
    let mut rest = Vec::new();
    for service in services {
        let key = (service.namespace().unwrap_or_default(), service.name_any());
        let slices = by_service.get(&key).map(Vec::as_slice).unwrap_or_default();
        for port in service
            .spec
            .iter()
            .flat_map(|spec| spec.ports.iter().flatten())
        {
            let Some(protocol) = protocol_of(port) else {
                continue;
            };
            let targets = targets(service, port, slices, here);
            plan_port(
                &mut plan, &mut rest, service, port, protocol, &targets, here, &balancers,
            );
        }
    }
    // Addresses that nobody named come last, so that they take nothing from those that are named.
    for (listen, route) in rest {
        plan.routes.entry(listen).or_insert(route);
    }
    plan
}

fn is_proxied(service: &Service) -> bool {
    let Some(spec) = &service.spec else {
        return false;
    };
    let address = spec.cluster_ip.as_deref().unwrap_or("");
    spec.type_.as_deref() != Some("ExternalName") && !address.is_empty() && address != "None"
}

fn protocol_of(port: &ServicePort) -> Option<Protocol> {
    match port.protocol.as_deref().unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

fn parsed<'a>(addresses: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
    addresses
        .filter_map(|address| address.parse().ok())
        .collect()
}

fn cluster_addresses(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    match &spec.cluster_ips {
        Some(all) if !all.is_empty() => parsed(all.iter()),
        _ => parsed(spec.cluster_ip.iter()),
    }
}

/// The load-balancer addresses whose packets would arrive here.
fn balancer_addresses(service: &Service) -> Vec<IpAddr> {
    let status = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let ingress = status
        .and_then(|balancer| balancer.ingress.as_ref())
        .into_iter()
        .flatten();
    parsed(
        ingress
            .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
            .filter_map(|ingress| ingress.ip.as_ref()),
    )
}

#[expect(clippy::too_many_arguments, reason = "a helper of one caller")]
fn plan_port(
    plan: &mut Plan,
    rest: &mut Vec<(Listen, Route)>,
    service: &Service,
    port: &ServicePort,
    protocol: Protocol,
    targets: &Targets,
    here: &Here,
    balancers: &[IpAddr],
) {
    let Some(spec) = &service.spec else { return };
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref();
        let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
        seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(DEFAULT_AFFINITY, Duration::from_secs)
    });
    let mut reference = service.object_ref(&());
    reference.resource_version = None;
    let route = |endpoints: &[SocketAddr], quiet| Route {
        owner: Owner {
            uid: service.uid().unwrap_or_default(),
            namespace: service.namespace().unwrap_or_default(),
            name: service.name_any(),
            port: port.port,
            protocol,
        },
        endpoints: endpoints.to_vec(),
        affinity,
        service: reference.clone(),
        quiet,
    };
    let listen = |address: IpAddr, number: i32| {
        let number = u16::try_from(number).ok().filter(|number| *number != 0)?;
        Some(Listen {
            address: SocketAddr::new(address, number),
            protocol,
        })
    };
    let mut claim = |address: IpAddr, number: i32, endpoints: &[SocketAddr]| {
        let Some(listen) = listen(address, number) else {
            return;
        };
        match plan.routes.entry(listen) {
            Entry::Vacant(entry) => {
                entry.insert(route(endpoints, false));
            }
            Entry::Occupied(entry) => {
                let owner = &entry.get().owner;
                if owner.uid != service.uid().unwrap_or_default() {
                    plan.taken.push(Taken {
                        listen,
                        service: reference.clone(),
                        by: format!("{}/{}", owner.namespace, owner.name),
                    });
                }
            }
        }
    };
    for address in cluster_addresses(service) {
        claim(address, port.port, &targets.inside);
    }
    for address in parsed(spec.external_ips.iter().flatten()) {
        claim(address, port.port, &targets.outside);
    }
    let own_balancers = balancer_addresses(service);
    for address in &own_balancers {
        claim(*address, port.port, &targets.outside);
    }
    if let Some(node_port) = port.node_port.filter(|number| *number != 0) {
        claim(here.address, node_port, &targets.outside);
        for address in here.node_port_addresses.iter().chain(&own_balancers) {
            claim(*address, node_port, &targets.outside);
        }
        for address in balancers {
            if let Some(listen) = listen(*address, node_port) {
                rest.push((listen, route(&targets.outside, true)));
            }
        }
    }
}

fn targets(
    service: &Service,
    port: &ServicePort,
    slices: &[&EndpointSlice],
    here: &Here,
) -> Targets {
    let spec = service.spec.as_ref();
    let is_local = |policy: Option<&str>| policy == Some("Local");
    let inside_local = is_local(spec.and_then(|spec| spec.internal_traffic_policy.as_deref()));
    let outside_local = is_local(spec.and_then(|spec| spec.external_traffic_policy.as_deref()));
    Targets {
        inside: endpoints(port, slices, inside_local.then_some(here)),
        outside: endpoints(port, slices, outside_local.then_some(here)),
    }
}

/// The addresses behind a Service port: the ready ones; if there are none, those that still serve
/// while they are being ended. With `only_here`, those of this node.
fn endpoints(
    port: &ServicePort,
    slices: &[&EndpointSlice],
    only_here: Option<&Here>,
) -> Vec<SocketAddr> {
    let mut ready = Vec::new();
    let mut ending = Vec::new();
    for slice in slices {
        let Some(number) = number_in(slice, port) else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let here =
                only_here.is_none_or(|here| endpoint.node_name.as_deref() == Some(&here.name));
            let address = endpoint
                .addresses
                .first()
                .and_then(|address| address.parse().ok());
            let (true, Some(address)) = (here, address) else {
                continue;
            };
            let target = SocketAddr::new(address, number);
            if is_ready(endpoint) {
                ready.push(target);
            } else if is_ending(endpoint) {
                ending.push(target);
            }
        }
    }
    let mut chosen = if ready.is_empty() { ending } else { ready };
    chosen.sort();
    chosen.dedup();
    chosen
}

fn number_in(slice: &EndpointSlice, port: &ServicePort) -> Option<u16> {
    let wanted = port.name.as_deref().unwrap_or("");
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let found = slice.ports.iter().flatten().find(|candidate| {
        candidate.name.as_deref().unwrap_or("") == wanted
            && candidate.protocol.as_deref().unwrap_or("TCP") == protocol
    });
    found?.port.and_then(|number| u16::try_from(number).ok())
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .and_then(|conditions| conditions.ready)
        != Some(false)
}

fn is_ending(endpoint: &Endpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .is_some_and(|c| c.serving == Some(true) && c.terminating == Some(true))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
