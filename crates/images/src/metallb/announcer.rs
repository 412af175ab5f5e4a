//! Layer 2 announcements: gratuitous ARP for an address on the interface whose network holds it.
//!
//! Answering ARP requests is the kernel's work once the address is local; the service proxy makes it
//! so. Loopback addresses need no announcement at all: every address of 127/8 is local.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, sendto, socket,
};

/// How often each announcement is repeated: a single frame may be lost.
const REPEATS: usize = 3;

const ETHERTYPE_ARP: u16 = 0x0806;

/// An interface that can carry an announcement.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link: LinkAddr,
    mac: [u8; 6],
}

/// Tells the network that this node has the address.
pub(super) fn announce(address: Ipv4Addr) -> Result<(), String> {
    if address.is_loopback() {
        return Ok(());
    }
    let interface = interface_of(address)?.ok_or_else(|| {
        format!(
            "no interface of this node is in the network of {address}; nobody else learns of it"
        )
    })?;
    for _ in 0..REPEATS {
        for operation in [1, 2] {
            let frame = gratuitous(address, interface.mac, operation);
            send(&interface.link, &frame).map_err(|why| format!("announce {address}: {why}"))?;
        }
    }
    Ok(())
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
    Ok(listing()?.find_map(|entry| {
        let link = *entry.address?.as_link_addr()?;
        let mac = link.addr()?;
        (entry.interface_name == name).then_some(Interface { link, mac })
    }))
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

/// Sends a frame out of the interface that `link` names.
fn send(link: &LinkAddr, frame: &[u8]) -> Result<(), String> {
    let raw = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        // Nothing is received.
        None::<SockProtocol>,
    )
    .map_err(|e| format!("open a raw socket: {e}"))?;
    sendto(raw.as_raw_fd(), frame, link, MsgFlags::empty())
        .map(drop)
        .map_err(|e| format!("send: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_claims_the_address_for_the_mac() {
        let frame = gratuitous(Ipv4Addr::new(10, 0, 0, 7), [2, 0, 0, 0, 0, 1], 2);
        assert_eq!(frame.len(), 42);
        assert_eq!(&frame[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        assert_eq!(
            (&frame[28..32], &frame[38..42]),
            (&[10, 0, 0, 7][..], &[10, 0, 0, 7][..])
        );
    }

    #[test]
    fn loopback_needs_no_frame_and_a_foreign_network_is_named() {
        announce(Ipv4Addr::new(127, 77, 0, 10)).unwrap();
        let error = announce(Ipv4Addr::new(203, 0, 113, 9)).unwrap_err();
        assert!(error.contains("203.0.113.9"), "{error}");
    }
}
