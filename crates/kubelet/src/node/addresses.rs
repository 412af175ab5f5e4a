//! Pod addresses: which ones of the node's slice are taken, and by whom.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use crate::Error;

/// Gives out addresses. They are persisted in the Pods' records, not here.
#[derive(Debug)]
pub(crate) struct Addresses {
    first: u32,
    last: u32,
    reserved: Ipv4Addr,
    state: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    by_uid: HashMap<String, Ipv4Addr>,
    by_address: HashMap<Ipv4Addr, String>,
    next: u32,
}

impl Addresses {
    /// Addresses of `network`/`prefix`, without its first and last and without `reserved`.
    pub(crate) fn new(network: Ipv4Addr, prefix: u8, reserved: Ipv4Addr) -> Result<Self, Error> {
        if !(8..=29).contains(&prefix) {
            return Err(Error::PodRange { network, prefix });
        }
        let size = 1_u32 << (32 - u32::from(prefix));
        let base = u32::from(network) & !(size - 1);
        let state = Taken {
            next: base + 1,
            ..Taken::default()
        };
        Ok(Self {
            first: base + 1,
            last: base + size - 2,
            reserved,
            state: Mutex::new(state),
        })
    }

    /// The Pod's address: the one it has, the `wanted` one if it is free, else the next free one.
    /// An address that was given back is given out again as late as possible.
    pub(crate) fn assign(&self, uid: &str, wanted: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let mut taken = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = taken.by_uid.get(uid) {
            return Some(*address);
        }
        let in_range = |a: Ipv4Addr| (self.first..=self.last).contains(&u32::from(a));
        let wanted = wanted
            .filter(|a| in_range(*a) && *a != self.reserved && !taken.by_address.contains_key(a));
        let address = if let Some(address) = wanted {
            address
        } else {
            let count = self.last - self.first + 1;
            let start = taken.next - self.first;
            let free = (0..count)
                .map(|step| Ipv4Addr::from(self.first + (start + step) % count))
                .find(|a| *a != self.reserved && !taken.by_address.contains_key(a))?;
            taken.next = self.first + (u32::from(free) - self.first + 1) % count;
            free
        };
        taken.by_uid.insert(uid.to_owned(), address);
        taken.by_address.insert(address, uid.to_owned());
        Some(address)
    }

    /// Takes a Pod's address back.
    pub(crate) fn release(&self, uid: &str) {
        let mut taken = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = taken.by_uid.remove(uid) {
            taken.by_address.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(prefix: u8) -> Addresses {
        Addresses::new(
            Ipv4Addr::new(127, 97, 16, 0),
            prefix,
            Ipv4Addr::new(127, 97, 16, 1),
        )
        .unwrap()
    }

    #[test]
    fn every_pod_has_its_own_address_and_keeps_it() {
        let addresses = addresses(20);
        let a = addresses.assign("a", None).unwrap();
        assert_eq!(a, Ipv4Addr::new(127, 97, 16, 2));
        assert_eq!(addresses.assign("a", None), Some(a));
        assert_ne!(addresses.assign("b", Some(a)), Some(a));
        let wanted = Ipv4Addr::new(127, 97, 20, 7);
        assert_eq!(addresses.assign("c", Some(wanted)), Some(wanted));
        assert_ne!(
            addresses
                .assign("d", Some(Ipv4Addr::new(10, 0, 0, 1)))
                .unwrap()
                .octets()[0],
            10
        );
    }

    #[test]
    fn a_full_range_gives_nothing_until_an_address_comes_back() {
        let addresses = addresses(29);
        let all: std::collections::BTreeSet<_> = (0..5)
            .map(|i| addresses.assign(&i.to_string(), None).unwrap())
            .collect();
        assert_eq!(all.len(), 5);
        assert_eq!(addresses.assign("x", None), None);
        addresses.release("3");
        assert!(all.contains(&addresses.assign("x", None).unwrap()));
    }

    #[test]
    fn a_senseless_range_is_refused() {
        let error = Addresses::new(Ipv4Addr::LOCALHOST, 31, Ipv4Addr::LOCALHOST).unwrap_err();
        assert!(error.to_string().contains("127.0.0.1/31"));
    }
}
