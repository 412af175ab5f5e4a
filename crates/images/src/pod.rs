//! What a built-in program knows of the Pod it runs in.
//!
//! Usually that is little: its paths are mounted and its names resolve. On a machine that refuses
//! mounts the node hands over two tables instead, and the program looks paths and names up itself:
//! `CORACLE_MOUNTS` names a JSON file of `[{"target", "source"}]`, `CORACLE_HOSTS` a hosts file.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The Pod around this process.
#[derive(Debug, Clone, Default)]
pub struct Pod {
    mounts: Vec<Mount>,
    hosts: Option<PathBuf>,
    address: Option<Ipv4Addr>,
}

#[derive(Debug, Clone, Deserialize)]
struct Mount {
    target: PathBuf,
    source: PathBuf,
}

/// Why the Pod's tables cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The mount table cannot be read.
    #[error("read the mount table {path}: {source}")]
    Mounts {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// `CORACLE_POD_IP` is no address.
    #[error("CORACLE_POD_IP is {0:?}, expected an IPv4 address")]
    Address(String),
}

impl Pod {
    /// What the node said in the environment.
    pub fn from_environment() -> Result<Self, Error> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let mut mounts: Vec<Mount> = match variable("CORACLE_MOUNTS").map(PathBuf::from) {
            None => Vec::new(),
            Some(path) => std::fs::read(&path)
                .and_then(|text| serde_json::from_slice(&text).map_err(io::Error::other))
                .map_err(|source| Error::Mounts { path, source })?,
        };
        // The deepest mount that covers a path is the one that counts.
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.target.components().count()));
        let address = match variable("CORACLE_POD_IP") {
            None => None,
            Some(text) => {
                let text = text.to_string_lossy().into_owned();
                Some(text.parse().map_err(|_| Error::Address(text))?)
            }
        };
        Ok(Self {
            mounts,
            hosts: variable("CORACLE_HOSTS").map(PathBuf::from),
            address,
        })
    }

    /// Where a path of the Pod really is.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.mounts
            .iter()
            .find_map(|mount| {
                let below = path.strip_prefix(&mount.target).ok()?;
                // Joining an empty rest would add a slash, and a file has none.
                let whole = below.as_os_str().is_empty();
                Some(if whole {
                    mount.source.clone()
                } else {
                    mount.source.join(below)
                })
            })
            .unwrap_or_else(|| path.to_owned())
    }

    /// The address a server of this Pod binds: the Pod's own, outside a Pod loopback.
    pub fn bind_address(&self) -> IpAddr {
        IpAddr::V4(self.address.unwrap_or(Ipv4Addr::LOCALHOST))
    }

    /// The addresses of a host: by the Pod's table first, then as the system resolves it.
    pub async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Some(hosts) = &self.hosts {
            let table = tokio::fs::read_to_string(hosts).await?;
            let found: Vec<SocketAddr> = table_addresses(&table, host)
                .map(|address| SocketAddr::new(address, port))
                .collect();
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let host = host.to_owned();
        let looked_up = tokio::task::spawn_blocking(move || {
            (host.as_str(), port)
                .to_socket_addrs()
                .map(Iterator::collect)
        });
        looked_up.await.map_err(io::Error::other)?
    }
}

/// The addresses a hosts file gives a name.
fn table_addresses<'a>(table: &'a str, host: &'a str) -> impl Iterator<Item = IpAddr> + 'a {
    table.lines().filter_map(move |line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|name| name.eq_ignore_ascii_case(host))
            .then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_that_covers_a_path_counts() {
        let mount = |target: &str, source: &str| Mount {
            target: PathBuf::from(target),
            source: PathBuf::from(source),
        };
        let pod = Pod {
            mounts: vec![
                mount("/mnt/deep", "/b"),
                mount("/mnt", "/a"),
                mount("/etc/x", "/file"),
            ],
            ..Pod::default()
        };
        for (path, real) in [
            ("/mnt/export/1", "/a/export/1"),
            ("/mnt/deep/x", "/b/x"),
            ("/mnt", "/a"),
            ("/mntx", "/mntx"),
            ("/etc/x", "/file"),
            ("/tmp/y", "/tmp/y"),
        ] {
            assert_eq!(pod.path(Path::new(path)).as_os_str(), real, "{path}");
        }
    }

    #[test]
    fn a_hosts_table_is_read_as_the_system_reads_it() {
        let table =
            "127.0.0.1 localhost # here\n127.96.0.9\tmnist-service mnist-service.kubeflow\n";
        let of = |name| table_addresses(table, name).collect::<Vec<_>>();
        assert_eq!(
            of("MNIST-service"),
            ["127.96.0.9".parse::<IpAddr>().unwrap()]
        );
        assert!(of("here").is_empty());
    }
}
