//! What is kept of a Pod on disk, so that the next start of the kubelet can go on with it.
//!
//! The record is replaced by rename, without a sync: after a crash of the machine no container
//! lives, and a Pod without a readable record starts afresh.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::backoff::RestartBackoff;
use super::machine::{Failure, Terminated};
use crate::runtime::{ContainerRef, Image};

/// A Pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) seed: String,
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) start_time: Timestamp,
    pub(crate) initialized: bool,
    pub(crate) finished: bool,
    pub(crate) failure: Option<Failure>,
    pub(crate) containers: BTreeMap<String, ContainerRecord>,
}

/// One of its containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerRecord {
    pub(crate) attempt: u32,
    pub(crate) live: Option<ContainerRef>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) exited: Option<Terminated>,
    pub(crate) last: Option<Terminated>,
    pub(crate) image: Option<Image>,
    pub(crate) restart_backoff: RestartBackoff,
}

impl Record {
    /// Writes the record into the Pod's directory.
    pub(crate) fn save(&self, pod_dir: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        replace(&super::paths::record(pod_dir), &bytes, 0o600)
    }

    /// Reads the record of a Pod's directory; `None` if there is none that can be read.
    pub(crate) fn load(pod_dir: &Path) -> Option<Self> {
        let bytes = std::fs::read(super::paths::record(pod_dir)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// Replaces a file by rename, without waiting for the disk.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use std::io::Write as _;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(bytes)?;
    std::fs::rename(&temporary, path)
}
