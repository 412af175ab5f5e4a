//! The three rtnetlink messages the proxy needs: list, add and remove IPv4 addresses.
//!
//! Which addresses those are is decided in [`crate::addresses`].

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

/// The kernel answers at once; this only keeps a surprise from blocking the proxy.
const PATIENCE: Duration = Duration::from_secs(1);

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;

const AF_INET: u8 = 2;
/// Length of `nlmsghdr`, of `ifaddrmsg`, and of both.
const HEADER: usize = 16;
const ADDRESS: usize = 8;

/// An IPv4 address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// The interface.
    pub(crate) index: u32,
    pub(crate) ip: Ipv4Addr,
    pub(crate) prefix: u8,
    /// The interface's name, or that and a mark of whoever added the address.
    pub(crate) label: String,
}

/// A connection to the kernel.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // The default protocol of this family is NETLINK_ROUTE.
            None,
        )?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// The IPv4 addresses of all interfaces.
    pub(crate) fn addresses(&mut self) -> io::Result<Vec<Address>> {
        self.ask(RTM_GETADDR, DUMP, &[AF_INET, 0, 0, 0, 0, 0, 0, 0])?;
        let mut found = Vec::new();
        self.answers(|kind, body| {
            if kind == RTM_NEWADDR {
                found.extend(read_address(body));
            }
        })?;
        Ok(found)
    }

    /// Adds an address to its interface; one that is there already is an error.
    pub(crate) fn add(&mut self, address: &Address) -> io::Result<()> {
        self.ask(RTM_NEWADDR, ACK | CREATE | EXCLUSIVE, &write(address))?;
        self.answers(|_, _| {})
    }

    /// Removes an address, if it is on that interface under that label.
    pub(crate) fn remove(&mut self, address: &Address) -> io::Result<()> {
        self.ask(RTM_DELADDR, ACK, &write(address))?;
        self.answers(|_, _| {})
    }

    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(body);
        send(&self.socket, &message, SendFlags::empty())?;
        Ok(())
    }

    /// Reads what the kernel says to the last request, until it is done.
    fn answers(&mut self, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let (length, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = &buffer[..length];
            while let Some((message, after)) = split(rest) {
                rest = after;
                // What belongs to an earlier request that ran out of patience.
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = message
                            .body
                            .first_chunk()
                            .map(|code| i32::from_ne_bytes(*code));
                        return match code {
                            Some(0) => Ok(()),
                            Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
                            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                        };
                    }
                    kind => each(kind, message.body),
                }
            }
        }
    }
}

struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

/// The first message of a datagram, and the rest of it.
fn split(datagram: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let header: &[u8; HEADER] = datagram.first_chunk()?;
    let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let body = datagram.get(HEADER..length)?;
    let message = Message {
        kind: u16::from_ne_bytes([header[4], header[5]]),
        sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
        body,
    };
    Some((message, datagram.get(aligned(length)..).unwrap_or_default()))
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn read_address(body: &[u8]) -> Option<Address> {
    let fixed: &[u8; ADDRESS] = body.first_chunk()?;
    let index = u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let (mut ip, mut label) = (None, String::new());
    let mut rest = &body[ADDRESS..];
    while let Some(head) = rest.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let Some(value) = rest.get(4..length) else {
            break;
        };
        match u16::from_ne_bytes([head[2], head[3]]) {
            IFA_LOCAL => ip = value.first_chunk().map(|octets| Ipv4Addr::from(*octets)),
            IFA_LABEL => {
                let text = String::from_utf8_lossy(value);
                text.trim_end_matches('\0').clone_into(&mut label);
            }
            _ => {}
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    Some(Address {
        index,
        ip: ip?,
        prefix: fixed[1],
        label,
    })
}

fn write(address: &Address) -> Vec<u8> {
    let mut body = vec![AF_INET, address.prefix, 0, 0];
    body.extend(address.index.to_ne_bytes());
    let mut attribute = |kind: u16, value: &[u8]| {
        body.extend(((4 + value.len()) as u16).to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
        body.resize(aligned(body.len()), 0);
    };
    attribute(IFA_LOCAL, &address.ip.octets());
    attribute(IFA_ADDRESS, &address.ip.octets());
    let mut label = address.label.clone().into_bytes();
    label.push(0);
    attribute(IFA_LABEL, &label);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_is_read() {
        let address = Address {
            index: 7,
            ip: Ipv4Addr::new(10, 1, 2, 3),
            prefix: 32,
            label: "eth0:c1001".to_owned(),
        };
        assert_eq!(read_address(&write(&address)), Some(address));
    }

    #[test]
    fn cut_messages_are_passed_over() {
        let whole = write(&Address {
            index: 1,
            ip: Ipv4Addr::LOCALHOST,
            prefix: 8,
            label: "lo".to_owned(),
        });
        for length in 0..whole.len() {
            // Must not panic.
            read_address(&whole[..length]);
            assert!(split(&whole[..length.min(HEADER - 1)]).is_none());
        }
    }

    #[test]
    fn the_kernel_lists_the_loopback_address() {
        let addresses = Netlink::open().unwrap().addresses().unwrap();
        let loopback = addresses
            .iter()
            .find(|a| a.ip == Ipv4Addr::LOCALHOST)
            .expect("this machine has a loopback interface");
        assert_eq!((loopback.prefix, loopback.label.as_str()), (8, "lo"));
    }

    #[test]
    fn a_refusal_is_an_error() {
        // No interface has this index, whoever asks.
        let address = Address {
            index: 0x7fff_0000,
            ip: Ipv4Addr::new(192, 0, 2, 1),
            prefix: 32,
            label: "lo:x".to_owned(),
        };
        Netlink::open().unwrap().add(&address).unwrap_err();
    }
}
