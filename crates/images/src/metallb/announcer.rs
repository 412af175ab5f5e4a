//! Layer 2 announcements: gratuitous ARP for an address on the interface whose network holds it.
//!
//! Answering ARP requests is the kernel's work once the address is local; the service proxy makes it
//! so. Loopback addresses need no announcement at all: every address of 127/8 is local.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike as _, sendto,
    socket,
};

/// How often each announcement is repeated: a single frame may be lost.
const REPEATS: usize = 3;

const ETHERTYPE_ARP: u16 = 0x0806;

#[derive(Debug)]
pub(super) struct Announcer {
    announced: BTreeSet<Ipv4Addr>,
}

/// An interface that can carry an announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Interface {
    name: String,
    mac: [u8; 6],
}

impl Announcer {
    pub(super) fn new() -> Self {
        Self { announced: BTreeSet::new() }
    }

    /// Tells the network that this node has the address.
    pub(super) fn announce(&mut self, address: Ipv4Addr) -> Result<(), String> {
        self.announced.insert(address);
        if address.is_loopback() {
            return Ok(());
        }
        let interface = interface_of(address)?.ok_or_else(|| {
            format!("no interface of this node is in the network of {address}; nobody else learns of it")
        })?;
        for _ in 0..REPEATS {
            for frame in [gratuitous(address, interface.mac, 1), gratuitous(address, interface.mac, 2)] {
                send(&interface, &frame)
                    .map_err(|e| format!("announce {address} on {}: {e}", interface.name))?;
            }
        }
        Ok(())
    }

    /// Stops announcing. Neighbours forget by themselves, or hear from the next announcer.
    pub(super) fn withdraw(&mut self, address: Ipv4Addr) {
        self.announced.remove(&address);
    }
}

/// The interface whose IPv4 network holds the address.
fn interface_of(address: Ipv4Addr) -> Result<Option<Interface>, String> {
    let listing = || getifaddrs().map_err(|e| format!("list network interfaces: {e}"));
    let name = listing()?.find_map(|entry| {
        let own = entry.address?.as_sockaddr_in()?.ip();
        let mask = u32::from(entry.netmask?.as_sockaddr_in()?.ip());
        let same = u32::from(own) & mask == u32::from(address) & mask;
        (same && mask != u32::MAX && !own.is_loopback()).then_some(entry.interface_name)
    });
    let Some(name) = name else { return Ok(None) };
    let mac = listing()?.find_map(|entry| {
        (entry.interface_name == name).then(|| entry.address?.as_link_addr()?.addr())?
    });
    Ok(mac.map(|mac| Interface { name, mac }))
}

/// An ARP frame (RFC 826) that claims `address` for `mac`, to everyone: operation 1 is a request for
/// the own address, 2 a reply nobody asked for. Systems differ in which of them they heed.
fn gratuitous(address: Ipv4Addr, mac: [u8; 6], operation: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend(ETHERTYPE_ARP.to_be_bytes());
    // Ethernet, IPv4, and the lengths of their addresses.
    frame.extend([0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend([0xff; 6]);
    frame.extend(address.octets());
    frame
}

fn send(interface: &Interface, frame: &[u8]) -> Result<(), String> {
    let denied = |what: &str, e: nix::Error| format!("{what}: {e}");
    let raw = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .map_err(|e| denied("open a raw socket", e))?;
    let index = if_nametoindex(interface.name.as_str())
        .map_err(|e| denied("find the interface", e))?;
    let target = link_address(index, interface.mac)
        .ok_or_else(|| "make a link-layer address".to_owned())?;
    sendto(raw.as_raw_fd(), frame, &target, MsgFlags::empty())
        .map(drop)
        .map_err(|e| denied("send", e))
}

/// `sockaddr_ll` for frames to everyone on an interface.
fn link_address(index: u32, mac: [u8; 6]) -> Option<LinkAddr> {
    let raw = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ETHERTYPE_ARP.to_be(),
        sll_ifindex: i32::try_from(index).ok()?,
        sll_hatype: 1,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    #[expect(unsafe_code, reason = "nix offers no safe constructor for link-layer addresses")]
    // SAFETY: `raw` is a whole, initialised sockaddr_ll that outlives the call, its family is
    // AF_PACKET, and `length` is its size; from_raw copies it.
    unsafe {
        LinkAddr::from_raw((&raw const raw).cast(), Some(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_claims_the_address_for_the_mac() {
        let frame = gratuitous(Ipv4Addr::new(10, 0, 0, 7), [2, 0, 0, 0, 0, 1], 2);
        assert_eq!(frame.len(), 42);
        assert_eq!(&frame[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        assert_eq!((&frame[28..32], &frame[38..42]), (&[10, 0, 0, 7][..], &[10, 0, 0, 7][..]));
    }

    #[test]
    fn loopback_needs_no_frame_and_a_foreign_network_is_named() {
        let mut announcer = Announcer::new();
        announcer.announce(Ipv4Addr::new(127, 77, 0, 10)).unwrap();
        let error = announcer.announce(Ipv4Addr::new(203, 0, 113, 9)).unwrap_err();
        assert!(error.contains("203.0.113.9"), "{error}");
    }
}
