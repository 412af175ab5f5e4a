//! Which Service has which address. Pure: the controller tells it what it sees and asks for
//! addresses; nothing here talks to the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::config::{Config, Pool};

/// What matters of a Service when it wants an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Claim {
    /// `namespace/name`.
    pub(super) service: String,
    /// The address it insists on (`spec.loadBalancerIP`).
    pub(super) wanted: Option<Ipv4Addr>,
    /// The pool it insists on (annotation `metallb.universe.tf/address-pool`).
    pub(super) pool: Option<String>,
    /// Services with the same key may share an address (annotation
    /// `metallb.universe.tf/allow-shared-ip`), unless their ports clash.
    pub(super) sharing_key: String,
    /// Which Pods stand behind it, when traffic stays on their node: such Services share only
    /// with Services of the same Pods.
    pub(super) backend_key: String,
    /// Protocol and port of each of its ports.
    pub(super) ports: BTreeSet<(String, i32)>,
}

#[derive(Debug, Clone)]
struct Allocation {
    address: Ipv4Addr,
    claim: Claim,
}

/// The addresses given out.
#[derive(Debug, Default)]
pub(super) struct Allocator {
    config: Config,
    given: BTreeMap<String, Allocation>,
    /// The same by address.
    owners: BTreeMap<Ipv4Addr, BTreeSet<String>>,
}

impl Allocator {
    /// Takes a new configuration, unless a Service has an address that it no longer contains.
    pub(super) fn configure(&mut self, config: Config) -> Result<(), String> {
        for (service, allocation) in &self.given {
            if config.pool_of(allocation.address).is_none() {
                return Err(format!(
                    "new config not compatible with assigned IPs: service {service:?} cannot own \
                     {:?} under new config",
                    allocation.address.to_string()
                ));
            }
        }
        self.config = config;
        Ok(())
    }

    /// Takes a Service's address back; true if it had one.
    pub(super) fn release(&mut self, service: &str) -> bool {
        let Some(before) = self.given.remove(service) else {
            return false;
        };
        if let Some(owners) = self.owners.get_mut(&before.address) {
            owners.remove(service);
            if owners.is_empty() {
                self.owners.remove(&before.address);
            }
        }
        true
    }

    /// Gives this very address to the Service, which may have it already.
    pub(super) fn assign(&mut self, claim: &Claim, address: Ipv4Addr) -> Result<(), String> {
        let Some(pool) = self.config.pool_of(address) else {
            return Err(format!(
                "{:?} is not allowed in config",
                address.to_string()
            ));
        };
        if let Some(wanted) = claim.pool.as_ref().filter(|wanted| **wanted != pool.name) {
            return Err(format!(
                "{:?} is not in pool {wanted:?}",
                address.to_string()
            ));
        }
        self.check_sharing(claim, address)?;
        let allocation = Allocation {
            address,
            claim: claim.clone(),
        };
        self.release(&claim.service);
        self.given.insert(claim.service.clone(), allocation);
        let owners = self.owners.entry(address).or_default();
        owners.insert(claim.service.clone());
        Ok(())
    }

    /// Gives the Service an address that suits it.
    pub(super) fn allocate(&mut self, claim: &Claim) -> Result<Ipv4Addr, String> {
        if let Some(address) = claim.wanted {
            self.assign(claim, address)?;
            return Ok(address);
        }
        let (pools, exhausted): (Vec<&Pool>, String) = if let Some(name) = &claim.pool {
            let pool = self.config.pool(name);
            let pool = pool.ok_or_else(|| format!("unknown pool {name:?}"))?;
            (vec![pool], format!("no available IPs in pool {name:?}"))
        } else {
            let pools = self.config.pools.iter().filter(|pool| pool.auto_assign);
            (pools.collect(), "no available IPs".to_owned())
        };
        let address = pools
            .iter()
            .flat_map(|pool| pool.addresses())
            .find(|address| self.check_sharing(claim, *address).is_ok())
            .ok_or(exhausted)?;
        self.assign(claim, address)?;
        Ok(address)
    }

    /// Whether the Service may have an address beside those who have it already.
    fn check_sharing(&self, claim: &Claim, address: Ipv4Addr) -> Result<(), String> {
        let others: Vec<&Claim> = self
            .owners
            .get(&address)
            .into_iter()
            .flatten()
            .filter(|service| **service != claim.service)
            .filter_map(|service| self.given.get(service))
            .map(|given| &given.claim)
            .collect();
        let shares = |other: &&Claim| {
            !claim.sharing_key.is_empty()
                && claim.sharing_key == other.sharing_key
                && claim.backend_key == other.backend_key
        };
        if !others.iter().all(shares) {
            let names: Vec<&str> = others.iter().map(|other| &*other.service).collect();
            return Err(format!(
                "can't change sharing key for {:?}, address also in use by {}",
                claim.service,
                names.join(",")
            ));
        }
        for other in others {
            if let Some((protocol, port)) = claim.ports.intersection(&other.ports).next() {
                return Err(format!(
                    "port {protocol}/{port} is already in use on {:?}",
                    address.to_string()
                ));
            }
        }
        Ok(())
    }

    /// Per pool: its name, how many addresses it has, how many of them are given out.
    pub(super) fn usage(&self) -> Vec<(String, u64, usize)> {
        let used = |pool: &Pool| {
            self.owners
                .keys()
                .filter(|address| pool.contains(**address))
                .count()
        };
        self.config
            .pools
            .iter()
            .map(|pool| (pool.name.clone(), pool.size(), used(pool)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metallb::config;

    fn allocator() -> Allocator {
        let mut allocator = Allocator::default();
        let text = "address-pools:
                    - {name: main, protocol: layer2, addresses: [10.0.0.1-10.0.0.2]}
                    - {name: spare, protocol: layer2, addresses: [10.0.1.0/31], auto-assign: false}";
        allocator.configure(config::parse(text).unwrap()).unwrap();
        allocator
    }

    fn claim(service: &str, ports: &[i32]) -> Claim {
        Claim {
            service: service.to_owned(),
            ports: ports.iter().map(|port| ("TCP".to_owned(), *port)).collect(),
            ..Claim::default()
        }
    }

    #[test]
    fn addresses_run_out_and_come_back() {
        let mut allocator = allocator();
        let first = allocator.allocate(&claim("n/a", &[80])).unwrap();
        allocator.allocate(&claim("n/b", &[80])).unwrap();
        assert_eq!(
            allocator.allocate(&claim("n/c", &[80])).unwrap_err(),
            "no available IPs"
        );
        assert!(allocator.release("n/a"));
        assert_eq!(allocator.allocate(&claim("n/c", &[80])).unwrap(), first);
    }

    #[test]
    fn a_pool_that_does_not_assign_by_itself_must_be_named() {
        let mut allocator = allocator();
        let named = Claim {
            pool: Some("spare".to_owned()),
            ..claim("n/a", &[80])
        };
        assert_eq!(
            allocator.allocate(&named).unwrap(),
            Ipv4Addr::new(10, 0, 1, 0)
        );
        let unknown = Claim {
            pool: Some("nope".to_owned()),
            ..claim("n/b", &[80])
        };
        assert_eq!(
            allocator.allocate(&unknown).unwrap_err(),
            "unknown pool \"nope\""
        );
    }

    #[test]
    fn an_address_is_shared_only_by_agreement_and_on_other_ports() {
        let mut allocator = allocator();
        let address = Ipv4Addr::new(10, 0, 0, 1);
        let shared = |service: &str, port: i32| Claim {
            sharing_key: "k".to_owned(),
            wanted: Some(address),
            ..claim(service, &[port])
        };
        allocator.allocate(&shared("n/a", 80)).unwrap();
        allocator.allocate(&shared("n/b", 81)).unwrap();
        assert!(
            allocator
                .allocate(&shared("n/c", 80))
                .unwrap_err()
                .contains("port TCP/80")
        );
        let stranger = Claim {
            wanted: Some(address),
            ..claim("n/d", &[82])
        };
        assert!(
            allocator
                .allocate(&stranger)
                .unwrap_err()
                .contains("also in use by n/a")
        );
    }

    #[test]
    fn a_configuration_that_would_take_an_address_away_is_refused() {
        let mut allocator = allocator();
        allocator.allocate(&claim("n/a", &[80])).unwrap();
        let refused = allocator.configure(Config::default()).unwrap_err();
        assert!(
            refused.contains("\"n/a\" cannot own \"10.0.0.1\""),
            "{refused}"
        );
        assert_eq!(allocator.config.pools.len(), 2);
    }
}
