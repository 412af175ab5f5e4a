//! What is kept of a Pod on disk, so that the next start of the kubelet can go on with it.
//!
//! Each state is a line of its own at the end of one file, since making and removing files is slow
//! where a filesystem keeps removed ones apart for a while. Nothing is synced: after a crash of the
//! machine no container lives, and a Pod without a readable record starts afresh.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
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

/// A file that has become longer is written anew, with the last state alone.
const LONG: u64 = 64 << 10;

impl Record {
    /// Writes the record into the Pod's directory.
    pub(crate) fn save(&self, pod_dir: &Path) -> io::Result<()> {
        let path = super::paths::record(pod_dir);
        // The line break before it ends a line that a crash has cut off.
        let mut line = vec![b'\n'];
        serde_json::to_writer(&mut line, self).map_err(io::Error::other)?;
        line.push(b'\n');
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)?;
        if file.metadata()?.len() > LONG {
            return replace(&path, &line, 0o600);
        }
        file.write_all(&line)
    }

    /// Reads the record of a Pod's directory; `None` if there is none that can be read.
    pub(crate) fn load(pod_dir: &Path) -> Option<Self> {
        let bytes = std::fs::read(super::paths::record(pod_dir)).ok()?;
        bytes
            .rsplit(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .find_map(|line| serde_json::from_slice(line).ok())
    }
}

/// Replaces a file by rename, without waiting for the disk.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seed: &str) -> Record {
        Record {
            namespace: "n".to_owned(),
            name: "p".to_owned(),
            uid: "u".to_owned(),
            seed: seed.to_owned(),
            ip: None,
            start_time: Timestamp::UNIX_EPOCH,
            initialized: false,
            finished: false,
            failure: None,
            containers: BTreeMap::new(),
        }
    }

    #[test]
    fn the_last_whole_line_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::load(dir.path()), None);
        for seed in ["one", "two"] {
            record(seed).save(dir.path()).unwrap();
        }
        assert_eq!(Record::load(dir.path()), Some(record("two")));
        let path = super::super::paths::record(dir.path());
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap();
        file.write_all(b"\n{\"namespace\":\"n").unwrap();
        assert_eq!(Record::load(dir.path()), Some(record("two")), "cut off");
        record("three").save(dir.path()).unwrap();
        assert_eq!(Record::load(dir.path()), Some(record("three")));
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let long = record(&"x".repeat(1000));
        for _ in 0..200 {
            long.save(dir.path()).unwrap();
        }
        let length = std::fs::metadata(super::super::paths::record(dir.path()))
            .unwrap()
            .len();
        assert!(length < LONG + 2000, "{length}");
        assert_eq!(Record::load(dir.path()), Some(long));
    }
}
