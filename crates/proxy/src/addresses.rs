//! Makes Service addresses local, as kube-proxy does in IPVS mode: an address that a Service has
//! and this machine has not is added to the interface whose network holds it, or to loopback.
//!
//! What is ours carries a label that names this instance, so that nothing has to be remembered: what
//! a killed predecessor left is found by it, and an address without it is never touched. All of
//! 127/8 is local already. Where the process may not add addresses, listening on them fails and the
//! listeners report that.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use crate::netlink::{Address, Netlink};

/// The kernel's limit for labels, without the zero at the end.
const LONGEST_LABEL: usize = 15;

/// The addresses this instance added.
#[derive(Debug)]
pub(crate) struct Addresses {
    mark: String,
    /// Whether there may be addresses of ours: after the start it is not known yet.
    any: bool,
    /// Addresses whose trouble was logged.
    told: BTreeSet<Ipv4Addr>,
}

/// What has to be done about addresses.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    add: Vec<Address>,
    remove: Vec<Address>,
    /// Wanted, and no interface can hold them.
    homeless: Vec<Ipv4Addr>,
}

impl Addresses {
    /// For the instance with this node address.
    pub(crate) fn new(node_ip: IpAddr) -> Self {
        Self {
            mark: mark(node_ip),
            any: true,
            told: BTreeSet::new(),
        }
    }

    /// Makes these addresses local, and removes those of ours that are not among them.
    pub(crate) fn follow(&mut self, wanted: impl Iterator<Item = IpAddr>) {
        let wanted: BTreeSet<Ipv4Addr> = wanted.filter_map(needed).collect();
        self.told.retain(|address| wanted.contains(address));
        if wanted.is_empty() && !self.any {
            return;
        }
        match self.change(&wanted) {
            Ok(()) => self.any = !wanted.is_empty(),
            Err(error) => tracing::warn!("cannot read this machine's addresses: {error}"),
        }
    }

    fn change(&mut self, wanted: &BTreeSet<Ipv4Addr>) -> io::Result<()> {
        let mut netlink = Netlink::open()?;
        let changes = changes(&netlink.addresses()?, wanted, &self.mark);
        for gone in &changes.remove {
            match netlink.remove(gone) {
                Ok(()) => {
                    tracing::info!(address = %gone.ip, label = gone.label, "address removed");
                }
                Err(error) => {
                    tracing::warn!(address = %gone.ip, "address stays behind: {error}");
                }
            }
        }
        for new in &changes.add {
            match netlink.add(new) {
                Ok(()) => {
                    self.told.remove(&new.ip);
                    tracing::info!(address = %new.ip, label = new.label, "address added");
                }
                Err(error) => self.tell(new.ip, &error.to_string()),
            }
        }
        for address in changes.homeless {
            self.tell(address, "no interface for it is up");
        }
        Ok(())
    }

    fn tell(&mut self, address: Ipv4Addr, problem: &str) {
        if self.told.insert(address) {
            tracing::warn!(%address, "cannot add address: {problem}");
        }
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        self.follow(std::iter::empty());
    }
}

/// The addresses that are not local by themselves and that an interface can have.
fn needed(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V4(address) = address else {
        return None;
    };
    let odd = address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_broadcast();
    (!odd).then_some(address)
}

/// What our labels end in. The node's address is unique among the instances of a machine.
fn mark(node_ip: IpAddr) -> String {
    let low = match node_ip {
        IpAddr::V4(address) => {
            let [_, _, high, low] = address.octets();
            [high, low]
        }
        IpAddr::V6(address) => {
            let octets = address.octets();
            [octets[14], octets[15]]
        }
    };
    format!(":c{:04x}", u16::from_be_bytes(low))
}

fn changes(present: &[Address], wanted: &BTreeSet<Ipv4Addr>, mark: &str) -> Changes {
    let is_ours = |address: &Address| address.label.ends_with(mark);
    let mut changes = Changes::default();
    changes.remove.extend(
        present
            .iter()
            .filter(|address| is_ours(address) && !wanted.contains(&address.ip))
            .cloned(),
    );
    for &address in wanted {
        if present.iter().any(|other| other.ip == address) {
            continue;
        }
        match home(present, address) {
            Some(home) => changes.add.push(Address {
                index: home.index,
                ip: address,
                prefix: 32,
                label: label(&home.label, mark),
            }),
            None => changes.homeless.push(address),
        }
    }
    changes
}

/// An address of the interface that a new one belongs to: of the smallest network that holds it,
/// else of loopback.
fn home(present: &[Address], address: Ipv4Addr) -> Option<&Address> {
    let in_network = |other: &&Address| {
        let host_bits = u32::MAX.checked_shr(other.prefix.into()).unwrap_or(0);
        other.prefix < 32 && (u32::from(other.ip) ^ u32::from(address)) & !host_bits == 0
    };
    let network = present
        .iter()
        .filter(|other| !other.ip.is_loopback())
        .filter(in_network)
        .max_by_key(|other| other.prefix);
    network.or_else(|| present.iter().find(|other| other.ip.is_loopback()))
}

/// The label of an address of ours beside an address with this label.
fn label(neighbour: &str, mark: &str) -> String {
    let interface = neighbour.split(':').next().unwrap_or_default();
    let room = LONGEST_LABEL - mark.len();
    let end = interface.floor_char_boundary(room);
    format!("{}{mark}", &interface[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = ":c1001";

    fn address(index: u32, text: &str, prefix: u8, label: &str) -> Address {
        Address {
            index,
            ip: text.parse().unwrap(),
            prefix,
            label: label.to_owned(),
        }
    }

    fn machine() -> Vec<Address> {
        vec![
            address(1, "127.0.0.1", 8, "lo"),
            address(2, "10.0.0.5", 8, "eth0"),
            address(3, "10.1.0.5", 24, "enp0s31f6long"),
        ]
    }

    fn wanted(texts: &[&str]) -> BTreeSet<Ipv4Addr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn an_address_joins_the_smallest_network_that_holds_it_else_loopback() {
        let plan = changes(
            &machine(),
            &wanted(&["10.1.0.9", "10.2.0.9", "203.0.113.1"]),
            MARK,
        );
        assert_eq!(
            plan.add,
            [
                address(3, "10.1.0.9", 32, "enp0s31f6:c1001"),
                address(2, "10.2.0.9", 32, "eth0:c1001"),
                address(1, "203.0.113.1", 32, "lo:c1001"),
            ]
        );
        assert!(plan.remove.is_empty() && plan.homeless.is_empty());
    }

    #[test]
    fn only_what_carries_our_mark_is_removed() {
        let mut present = machine();
        present.push(address(2, "10.0.0.77", 32, "eth0:c1001"));
        present.push(address(2, "10.0.0.78", 32, "eth0:c2001"));
        present.push(address(2, "10.0.0.79", 32, "eth0:c1001"));
        let plan = changes(&present, &wanted(&["10.0.0.79"]), MARK);
        assert_eq!(plan.remove, [address(2, "10.0.0.77", 32, "eth0:c1001")]);
        assert!(plan.add.is_empty());
    }

    #[test]
    fn an_address_that_is_there_is_left_alone() {
        assert_eq!(
            changes(&machine(), &wanted(&["10.0.0.5"]), MARK),
            Changes::default()
        );
    }

    #[test]
    fn without_any_interface_it_is_said() {
        let plan = changes(&[], &wanted(&["10.0.0.5"]), MARK);
        assert_eq!(plan.homeless, [Ipv4Addr::new(10, 0, 0, 5)]);
    }

    #[test]
    fn only_addresses_that_are_not_local_by_themselves_are_needed() {
        for (text, needs) in [
            ("127.77.0.10", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("10.0.0.1", true),
        ] {
            assert_eq!(needed(text.parse().unwrap()).is_some(), needs, "{text}");
        }
    }

    #[test]
    fn instances_of_one_machine_have_marks_of_their_own() {
        let of = |text: &str| mark(text.parse().unwrap());
        assert_eq!(of("127.97.16.1"), ":c1001");
        assert_ne!(of("127.97.0.1"), of("127.97.16.1"));
    }
}
