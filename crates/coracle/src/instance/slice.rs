//! The address slice of an instance: a /20 of the service range and the same /20 of the Pod range.
//!
//! A slice is leased by binding an abstract Unix socket of its number: the kernel knows one holder
//! per network namespace and forgets it when the last descriptor of it closes. The server hands the
//! descriptor to the spawner too, so a slice stays taken while Pods of a dead server still use it.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd};

use crate::failure::{Failure, Result};
use crate::instance::DataDir;

const SLICES: u8 = 16;
const PREFIX: u8 = 20;

/// A leased slice; the lease ends when every copy of its descriptor is closed.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    number: u8,
    lease: Arc<OwnedFd>,
}

impl Slice {
    /// Leases the slice this directory had before, else a free one, and remembers it. A slice that
    /// this directory's own spawner or Pods still hold is ours as well.
    pub(crate) fn lease(data: &DataDir) -> Result<Self> {
        let path = data.slice();
        if let Some(number) = remembered(data) {
            if let Some(slice) = Self::take(number)? {
                return Ok(slice);
            }
            if let Some(slice) = Self::inherit(number, data.root()) {
                return Ok(slice);
            }
        }
        for number in 0..SLICES {
            if let Some(slice) = Self::take(number)? {
                stdx::fs::write_atomic(&path, format!("{number}\n").as_bytes(), 0o600)
                    .map_err(|e| Failure::environment(format!("write {}: {e}", path.display())))?;
                return Ok(slice);
            }
        }
        Err(Failure::environment(format!(
            "all {SLICES} address slices of this machine are taken by other coracle servers"
        ))
        .hint("stop one with `coracle down --data-dir …`"))
    }

    /// Binds the slice's name; `None` if somebody has it.
    fn take(number: u8) -> Result<Option<Self>> {
        let socket =
            unix_socket().map_err(|e| Failure::environment(format!("make a Unix socket: {e}")))?;
        let address = SocketAddrUnix::new_abstract_name(name(number).as_bytes())
            .map_err(|e| Failure::environment(format!("name a Unix socket: {e}")))?;
        match rustix::net::bind(&socket, &address) {
            Ok(()) => Ok(Some(Self {
                number,
                lease: Arc::new(socket),
            })),
            Err(rustix::io::Errno::ADDRINUSE) => Ok(None),
            Err(e) => Err(Failure::environment(format!(
                "lease address slice {number}: {e}"
            ))),
        }
    }

    /// Takes over the lease of a spawner or monitor of the same data directory that outlived its
    /// server; their command lines name the directory.
    fn inherit(number: u8, root: &Path) -> Option<Self> {
        let (pid, fd) = holder(number, root)?;
        let copied = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .and_then(|process| pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()));
        // Where copying another process's descriptor is forbidden, the slice is still ours for as
        // long as that process lives; an unbound socket stands in.
        let lease = copied.or_else(|_| unix_socket()).ok()?;
        Some(Self {
            number,
            lease: Arc::new(lease),
        })
    }

    /// The descriptor that holds the lease.
    pub(crate) fn lease_fd(&self) -> &Arc<OwnedFd> {
        &self.lease
    }

    /// Cluster IPs come from here.
    pub(crate) fn services(&self) -> (Ipv4Addr, u8) {
        (Ipv4Addr::new(127, 96, self.number << 4, 0), PREFIX)
    }

    /// Pod addresses come from here.
    pub(crate) fn pods(&self) -> (Ipv4Addr, u8) {
        (Ipv4Addr::new(127, 97, self.number << 4, 0), PREFIX)
    }

    /// The address of Service `default/kubernetes`.
    pub(crate) fn kubernetes_service(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, 96, self.number << 4, 1)
    }

    /// The node's address.
    pub(crate) fn node(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, 97, self.number << 4, 1)
    }
}

/// The number of the slice this directory had last.
fn remembered(data: &DataDir) -> Option<u8> {
    let text = fs::read_to_string(data.slice()).ok()?;
    text.trim().parse().ok().filter(|number| *number < SLICES)
}

/// The node's address in the slice this directory had last, whether or not it has it now.
pub(crate) fn last_node(data: &DataDir) -> Option<Ipv4Addr> {
    remembered(data).map(|number| Ipv4Addr::new(127, 97, number << 4, 1))
}

fn name(number: u8) -> String {
    format!("coracle-slice-{number}")
}

fn unix_socket() -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// The process (and its descriptor) that holds a slice for this data directory.
fn holder(number: u8, root: &Path) -> Option<(Pid, RawFd)> {
    let wanted = format!("@{}", name(number));
    let table = fs::read_to_string("/proc/net/unix").ok()?;
    let inode = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(7) == Some(&wanted.as_str())).then(|| fields.get(6).map(ToString::to_string))?
    })?;
    let socket = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let command = fs::read(process.path().join("cmdline")).ok()?;
        let ours = command
            .split(|b| *b == 0)
            .any(|word| word == root.as_os_str().as_bytes());
        if !ours {
            return None;
        }
        let fd = fs::read_dir(process.path().join("fd"))
            .ok()?
            .flatten()
            .find_map(|fd| {
                let target = fs::read_link(fd.path()).ok()?;
                (target.as_os_str() == &*socket).then(|| fd.file_name().to_str()?.parse().ok())?
            })?;
        Some((
            Pid::from_raw(process.file_name().to_str()?.parse().ok()?)?,
            fd,
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_instances_never_share_a_slice_and_each_keeps_its_own() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (a, b) = (
            DataDir::new(a.path()).unwrap(),
            DataDir::new(b.path()).unwrap(),
        );
        fs::create_dir_all(a.root()).unwrap();
        fs::create_dir_all(b.root()).unwrap();
        let first = Slice::lease(&a).unwrap();
        let second = Slice::lease(&b).unwrap();
        assert_ne!(first.pods(), second.pods());
        let (number, node) = (first.number, first.node());
        drop(first);
        let again = Slice::lease(&a).unwrap();
        assert_eq!((again.number, again.node()), (number, node));
        fs::remove_dir_all(a.root()).unwrap();
        fs::remove_dir_all(b.root()).unwrap();
    }
}
