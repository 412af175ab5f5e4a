//! What a strategy may know besides the object: the time of the request and the server's settings.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use jiff::Timestamp;

/// The context of one request. Cheap to make; it is handed to every strategy function.
#[derive(Clone, Debug)]
pub struct Ctx {
    /// When the request arrived.
    pub now: Timestamp,
    /// Loopback ranges that Endpoints, EndpointSlices and external IPs may name after all: this
    /// instance's own Pods and node.
    pub loopback_exempt: Vec<Cidr>,
    /// Node ports that may be asked for.
    pub node_ports: std::ops::RangeInclusive<u16>,
}

impl Ctx {
    /// A context at `now` with Kubernetes' own settings: no exemption, node ports 30000-32767.
    pub fn new(now: Timestamp) -> Self {
        Self {
            now,
            loopback_exempt: Vec::new(),
            node_ports: 30000..=32767,
        }
    }

    /// Whether `ip` is a loopback address that no exemption covers.
    pub fn is_forbidden_loopback(&self, ip: IpAddr) -> bool {
        ip.is_loopback() && !self.loopback_exempt.iter().any(|range| range.contains(ip))
    }

    /// `now` as metadata timestamps are written: whole seconds, UTC.
    pub fn now_text(&self) -> String {
        self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

/// An IPv4 range in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub base: Ipv4Addr,
    pub prefix: u8,
}

impl Cidr {
    pub fn contains(self, ip: IpAddr) -> bool {
        let IpAddr::V4(ip) = ip else { return false };
        let mask = u32::MAX
            .checked_shl(32 - u32::from(self.prefix))
            .unwrap_or(0);
        (u32::from(ip) & mask) == (u32::from(self.base) & mask)
    }
}

/// A range could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an IPv4 range such as 127.97.16.0/20")]
pub struct CidrError(String);

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let parse = || {
            let (base, prefix) = text.split_once('/')?;
            let prefix: u8 = prefix.parse().ok().filter(|bits| *bits <= 32)?;
            Some(Self {
                base: base.parse().ok()?,
                prefix,
            })
        };
        parse().ok_or_else(|| CidrError(text.to_owned()))
    }
}
