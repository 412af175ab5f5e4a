//! Cluster IPs and node ports: drawn at random, unique among the Services there are and the ones
//! that are being written. Nothing is stored but the Services themselves.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use kinds::tree;
use serde_json::{Value, json};

use super::Writing;
use crate::Options;
use crate::server::State;
use crate::status::{Cause, Result};

/// Random draws before the range is searched in order.
const DRAWS: usize = 32;

#[derive(Debug)]
pub(crate) struct Allocator {
    /// The first and last address that may be given out.
    first: u32,
    last: u32,
    cidr: String,
    ports: (u16, u16),
    in_flight: Arc<Mutex<InFlight>>,
}

#[derive(Debug, Default)]
struct InFlight {
    ips: HashSet<u32>,
    ports: HashSet<u16>,
}

/// Keeps what was drawn until the Service is stored.
#[derive(Debug)]
pub(crate) struct Reservation {
    in_flight: Arc<Mutex<InFlight>>,
    ips: Vec<u32>,
    ports: Vec<u16>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut in_flight = self
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for ip in &self.ips {
            in_flight.ips.remove(ip);
        }
        for port in &self.ports {
            in_flight.ports.remove(port);
        }
    }
}

impl Allocator {
    pub(crate) fn new(options: &Options) -> Result<Self, String> {
        let (base, prefix) = options.service_cidr;
        if !(8..=30).contains(&prefix) {
            return Err(format!(
                "{base}/{prefix}: the prefix must be between 8 and 30"
            ));
        }
        let mask = u32::MAX << (32 - u32::from(prefix));
        let network = u32::from(base) & mask;
        let kubernetes = u32::from(options.kubernetes_service_ip);
        if kubernetes & mask != network {
            return Err(format!(
                "{base}/{prefix} does not contain the address of Service default/kubernetes, {}",
                options.kubernetes_service_ip
            ));
        }
        let (low, high) = options.node_port_range;
        if low == 0 || low > high {
            return Err(format!("the node port range {low}-{high} is empty"));
        }
        Ok(Self {
            first: network + 1,
            last: (network | !mask) - 1,
            cidr: format!("{}/{prefix}", Ipv4Addr::from(network)),
            ports: options.node_port_range,
            in_flight: Arc::default(),
        })
    }

    /// Gives a Service the addresses and ports it lacks and checks those it asks for. `old` is the
    /// Service before a change.
    pub(crate) fn allocate(
        &self,
        writing: &Writing<'_>,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<Reservation> {
        let name = tree::text(service, "metadata.name").to_owned();
        let mut in_flight = self
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (used_ips, used_ports) = used(writing.state, writing.namespace, &name);
        let mut reservation = Reservation {
            in_flight: Arc::clone(&self.in_flight),
            ips: Vec::new(),
            ports: Vec::new(),
        };
        let mut causes = Vec::new();
        if let Some(old) = old {
            keep_allocated(service, old);
        }
        self.cluster_ip(
            writing.state,
            service,
            &used_ips,
            &in_flight,
            &mut reservation,
            &mut causes,
        );
        self.node_ports(
            writing.state,
            service,
            &used_ports,
            &in_flight,
            &mut reservation,
            &mut causes,
        );
        if !causes.is_empty() {
            // Nothing of the reservation is in flight, so there is nothing to give back.
            reservation.ips.clear();
            reservation.ports.clear();
            drop(in_flight);
            return Err(writing.invalid(&name, &causes));
        }
        in_flight.ips.extend(&reservation.ips);
        in_flight.ports.extend(&reservation.ports);
        drop(in_flight);
        Ok(reservation)
    }

    fn cluster_ip(
        &self,
        state: &State,
        service: &mut Value,
        used: &HashSet<u32>,
        in_flight: &InFlight,
        reservation: &mut Reservation,
        causes: &mut Vec<Cause>,
    ) {
        let spec = tree::child(service, "spec");
        if tree::text(spec, "type") == "ExternalName" {
            for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                tree::remove(spec, key);
            }
            return;
        }
        tree::set_default(spec, "ipFamilies", json!(["IPv4"]));
        tree::set_default(spec, "ipFamilyPolicy", "SingleStack");
        let asked = tree::text(spec, "clusterIP").to_owned();
        let asked = match tree::list(spec, "clusterIPs")
            .first()
            .and_then(Value::as_str)
        {
            Some(first) if asked.is_empty() => first.to_owned(),
            _ => asked,
        };
        if asked == "None" {
            spec["clusterIP"] = "None".into();
            spec["clusterIPs"] = json!(["None"]);
            return;
        }
        let free = |ip: u32| !used.contains(&ip) && !in_flight.ips.contains(&ip);
        let chosen = if asked.is_empty() {
            self.draw_ip(state, &free)
                .ok_or_else(|| "failed to allocate a serviceIP: range is full".to_owned())
        } else {
            match asked.parse::<Ipv4Addr>() {
                // Validation says so better.
                Err(_) => {
                    spec["clusterIP"] = asked.as_str().into();
                    spec["clusterIPs"] = json!([asked]);
                    return;
                }
                Ok(ip) if !(self.first..=self.last).contains(&u32::from(ip)) => Err(format!(
                    "failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. \
                     The range of valid IPs is {}",
                    self.cidr
                )),
                Ok(ip) if !free(u32::from(ip)) => Err(format!(
                    "failed to allocate IP {ip}: provided IP is already allocated"
                )),
                Ok(ip) => Ok(u32::from(ip)),
            }
        };
        match chosen {
            Ok(ip) => {
                reservation.ips.push(ip);
                let text = Ipv4Addr::from(ip).to_string();
                spec["clusterIPs"] = json!([text]);
                spec["clusterIP"] = text.into();
            }
            Err(problem) => causes.push(Cause::new(
                "FieldValueInvalid",
                "spec.clusterIPs",
                format!("Invalid value: {}: {problem}", json!([asked])),
            )),
        }
    }

    fn draw_ip(&self, state: &State, free: &dyn Fn(u32) -> bool) -> Option<u32> {
        let count = u64::from(self.last - self.first) + 1;
        for _ in 0..DRAWS {
            let ip = self.first + state.rng().below(count) as u32;
            if free(ip) {
                return Some(ip);
            }
        }
        (self.first..=self.last).find(|&ip| free(ip))
    }

    fn node_ports(
        &self,
        state: &State,
        service: &mut Value,
        used: &HashSet<u16>,
        in_flight: &InFlight,
        reservation: &mut Reservation,
        causes: &mut Vec<Cause>,
    ) {
        let spec = tree::child(service, "spec");
        let wanted = match tree::text(spec, "type") {
            "NodePort" => true,
            "LoadBalancer" => {
                tree::get(spec, "allocateLoadBalancerNodePorts") != Some(&Value::Bool(false))
            }
            _ => false,
        };
        let (low, high) = self.ports;
        // One port may serve TCP and UDP of the same Service.
        let mut mine: HashSet<(String, u16)> = HashSet::new();
        let needs_health = tree::text(spec, "externalTrafficPolicy") == "Local"
            && tree::text(spec, "type") == "LoadBalancer";
        let free = |port: u16, taken: &[u16]| {
            !used.contains(&port) && !in_flight.ports.contains(&port) && !taken.contains(&port)
        };
        let draw = |taken: &[u16]| {
            let count = u64::from(high - low) + 1;
            (0..DRAWS)
                .map(|_| low + state.rng().below(count) as u16)
                .find(|&port| free(port, taken))
                .or_else(|| (low..=high).find(|&port| free(port, taken)))
        };
        let mut health = None;
        for (i, port) in tree::list_mut(spec, "ports").iter_mut().enumerate() {
            let asked = tree::int(port, "nodePort").unwrap_or(0);
            let protocol = tree::text(port, "protocol").to_owned();
            let field = format!("spec.ports[{i}].nodePort");
            let mut wrong = |problem: String| {
                causes.push(Cause::new(
                    "FieldValueInvalid",
                    &field,
                    format!("Invalid value: {asked}: {problem}"),
                ));
            };
            if asked != 0 {
                let in_range = u16::try_from(asked)
                    .ok()
                    .filter(|p| (low..=high).contains(p));
                match in_range {
                    None => wrong(format!(
                        "provided port is not in the valid range. The range of valid ports is {low}-{high}"
                    )),
                    Some(number) => {
                        let shared = mine
                            .iter()
                            .any(|(other, p)| *p == number && *other != protocol);
                        if !shared && !free(number, &reservation.ports) {
                            wrong("provided port is already allocated".to_owned());
                        } else {
                            mine.insert((protocol, number));
                            if !shared {
                                reservation.ports.push(number);
                            }
                        }
                    }
                }
            } else if wanted {
                match draw(&reservation.ports) {
                    Some(number) => {
                        port["nodePort"] = number.into();
                        mine.insert((protocol, number));
                        reservation.ports.push(number);
                    }
                    None => wrong("failed to allocate a nodePort: range is full".to_owned()),
                }
            }
        }
        if needs_health && tree::int(spec, "healthCheckNodePort").unwrap_or(0) == 0 {
            health = draw(&reservation.ports);
        }
        if let Some(port) = health {
            reservation.ports.push(port);
            spec["healthCheckNodePort"] = port.into();
        }
    }
}

/// A change that does not speak of addresses and ports keeps the ones there are.
fn keep_allocated(service: &mut Value, old: &Value) {
    let external = |service: &Value| tree::text(service, "spec.type") == "ExternalName";
    if external(service) || external(old) {
        return;
    }
    let with_ports = |service: &Value| {
        matches!(
            tree::text(service, "spec.type"),
            "NodePort" | "LoadBalancer"
        )
    };
    let keep_ports = with_ports(service) && with_ports(old);
    let spec = tree::child(service, "spec");
    if tree::text(spec, "clusterIP").is_empty() && tree::list(spec, "clusterIPs").is_empty() {
        for key in ["clusterIP", "clusterIPs"] {
            tree::put(spec, key, old["spec"].get(key).cloned());
        }
    }
    if keep_ports {
        for port in tree::list_mut(spec, "ports") {
            if tree::int(port, "nodePort").unwrap_or(0) != 0 {
                continue;
            }
            let same = tree::list(old, "spec.ports")
                .iter()
                .find(|o| o["port"] == port["port"] && o["protocol"] == port["protocol"]);
            if let Some(number) = same.and_then(|o| o.get("nodePort")) {
                port["nodePort"] = number.clone();
            }
        }
        if tree::int(spec, "healthCheckNodePort").unwrap_or(0) == 0
            && tree::text(spec, "externalTrafficPolicy") == "Local"
        {
            tree::put(
                spec,
                "healthCheckNodePort",
                old["spec"].get("healthCheckNodePort").cloned(),
            );
        }
    }
}

/// What all other Services hold.
fn used(state: &State, namespace: &str, name: &str) -> (HashSet<u32>, HashSet<u16>) {
    let cache = state.store.cache("services");
    let (mut ips, mut ports) = (HashSet::new(), HashSet::new());
    ips.insert(u32::from(state.options.kubernetes_service_ip));
    for object in cache.snapshot("", state.store.position()).objects {
        let value = object.value();
        if *object.namespace == *namespace && *object.name == *name {
            continue;
        }
        for ip in tree::words(value, "spec.clusterIPs") {
            if let Ok(ip) = ip.parse::<Ipv4Addr>() {
                ips.insert(u32::from(ip));
            }
        }
        for port in tree::list(value, "spec.ports") {
            ports.extend(tree::int(port, "nodePort").and_then(|p| u16::try_from(p).ok()));
        }
        let health = tree::int(value, "spec.healthCheckNodePort");
        ports.extend(health.and_then(|p| u16::try_from(p).ok()));
    }
    if namespace == "default" && name == "kubernetes" {
        ips.remove(&u32::from(state.options.kubernetes_service_ip));
    }
    (ips, ports)
}
