//! Listening: a port given by a flag must be free; a port of our own choosing gives way to the next
//! free one, which the data directory then keeps.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::instance::DataDir;

/// The Kubernetes API's usual port.
pub(crate) const KUBE_PORT: u16 = 6443;
/// The Pipelines API's usual port.
pub(crate) const HTTP_PORT: u16 = 8080;
/// How many ports after the usual one are tried.
const TRIES: u16 = 100;

/// The ports a data directory was served on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Ports {
    pub(crate) kube: Option<u16>,
    pub(crate) http: Option<u16>,
}

impl Ports {
    /// What the data directory remembers; nothing if it remembers nothing.
    pub(crate) fn load(data: &DataDir) -> Self {
        let text = fs::read(data.ports()).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Remembers these ports.
    pub(crate) fn save(&self, data: &DataDir) -> Result<()> {
        let text = serde_json::to_vec(self).expect("invariant: two numbers are JSON");
        stdx::fs::write_atomic(&data.ports(), &text, 0o600)
            .map_err(|e| Failure::environment(format!("write {}: {e}", data.ports().display())))
    }
}

/// A listener, and whether its port differs from the usual one because that was taken.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
    /// The port that was wanted, and who holds it.
    pub(crate) moved_from: Option<(u16, String)>,
}

/// Opens a listener: at the address a flag gave, else at the remembered port, else at the usual
/// one or the next free.
pub(crate) fn bind(
    flag: &str,
    given: Option<SocketAddr>,
    remembered: Option<u16>,
    usual: u16,
) -> Result<Bound> {
    if let Some(address) = given {
        return match TcpListener::bind(address) {
            Ok(listener) => bound(listener, None),
            Err(e) if e.kind() == ErrorKind::AddrInUse => Err(Failure::environment(format!(
                "{flag} {address}: the port is in use by {}",
                holder(address)
            ))
            .hint("choose another port, or leave the flag away to get a free one")),
            Err(e) => Err(Failure::environment(format!("{flag} {address}: {e}"))),
        };
    }
    let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let first = remembered.unwrap_or(usual);
    let candidates = std::iter::once(first).chain((usual..usual + TRIES).filter(|p| *p != first));
    for port in candidates {
        match TcpListener::bind(local(port)) {
            Ok(listener) => {
                let moved = (port != first).then(|| (first, holder(local(first))));
                return bound(listener, moved);
            }
            Err(e) if e.kind() == ErrorKind::AddrInUse => {}
            Err(e) => {
                return Err(Failure::environment(format!(
                    "listen on {}: {e}",
                    local(port)
                )));
            }
        }
    }
    Err(Failure::environment(format!(
        "no free port between {usual} and {}",
        usual + TRIES - 1
    ))
    .hint(format!("give one with {flag} ADDRESS:PORT")))
}

fn bound(listener: TcpListener, moved_from: Option<(u16, String)>) -> Result<Bound> {
    let address = listener
        .local_addr()
        .map_err(|e| Failure::environment(format!("ask for the listener's address: {e}")))?;
    Ok(Bound {
        listener,
        address,
        moved_from,
    })
}

/// Names the process that listens at `address`, as far as this user may know.
pub(crate) fn holder(address: SocketAddr) -> String {
    let Some(inode) = listening_inode(address) else {
        return "another process".to_owned();
    };
    let target = format!("socket:[{inode}]");
    let Ok(processes) = fs::read_dir("/proc") else {
        return "another process".to_owned();
    };
    // Not `/proc/self`, which is a process by another name.
    let named = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    for process in processes
        .flatten()
        .filter(|entry| named(&entry.file_name()))
    {
        let Ok(fds) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = fds
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == &*target));
        if holds {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let pid = process.file_name().to_string_lossy().into_owned();
            return format!("{} (pid {pid})", command.trim());
        }
    }
    "a process of another user".to_owned()
}

/// The inode of the socket listening at `address` (or at all addresses on its port).
fn listening_inode(address: SocketAddr) -> Option<u64> {
    const LISTEN: &str = "0A";
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let port = format!("{:04X}", address.port());
    let ip = match address.ip() {
        IpAddr::V4(ip) => format!("{:08X}", u32::from_le_bytes(ip.octets())),
        IpAddr::V6(_) => return None,
    };
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local_ip, local_port) = fields.get(1)?.split_once(':')?;
        let here = local_port == port && (local_ip == ip || local_ip == "00000000");
        (here && fields.get(3) == Some(&LISTEN))
            .then(|| fields.get(9)?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_port_that_is_taken_names_its_holder() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let failure = bind("--listen", Some(address), None, HTTP_PORT).unwrap_err();
        let text = failure.to_string();
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(
            text.contains(&format!("(pid {})", std::process::id())),
            "{text}"
        );
    }

    #[test]
    fn an_own_port_gives_way_to_the_next_free_one() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let bound = bind("--listen", None, None, port).unwrap();
        assert_ne!(bound.address.port(), port);
        let (from, holder) = bound.moved_from.unwrap();
        assert_eq!(from, port);
        assert!(holder.contains("pid"), "{holder}");
    }

    #[test]
    fn ports_are_kept_for_their_directory() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path()).unwrap();
        assert_eq!(Ports::load(&data), Ports::default());
        let ports = Ports {
            kube: Some(7000),
            http: Some(7001),
        };
        ports.save(&data).unwrap();
        assert_eq!(Ports::load(&data), ports);
    }
}
