//! How other commands find the server of a data directory: a file with its process and addresses.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::instance::DataDir;

/// What a running server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServerState {
    pub(crate) pid: u32,
    /// Field 22 of `/proc/PID/stat`: with it a pid means one process for ever.
    pub(crate) start_time: u64,
    pub(crate) version: String,
    pub(crate) kube: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) node_name: String,
    /// The directory goes away with the server.
    pub(crate) ephemeral: bool,
}

impl ServerState {
    /// What the data directory says; `None` if no server wrote anything.
    pub(crate) fn load(data: &DataDir) -> Option<Self> {
        serde_json::from_slice(&fs::read(data.state()).ok()?).ok()
    }

    /// Tells everyone.
    pub(crate) fn save(&self, data: &DataDir) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).expect("invariant: plain data is JSON");
        stdx::fs::write_atomic(&data.state(), &text, 0o600)
            .map_err(|e| Failure::environment(format!("write {}: {e}", data.state().display())))
    }

    /// The state of a server that lives, or why there is none.
    pub(crate) fn running(data: &DataDir) -> Result<Self> {
        let start = "start one with `coracle up`";
        match Self::load(data) {
            Some(state) if state.alive() => Ok(state),
            Some(state) => Err(Failure::unreachable(format!(
                "the server of {} (pid {}) is gone",
                data.root().display(),
                state.pid
            ))
            .hint(start)),
            None => Err(Failure::unreachable(format!(
                "no server runs on {}",
                data.root().display()
            ))
            .hint(start)),
        }
    }

    /// Whether that very process still lives.
    pub(crate) fn alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }

    /// Where browsers and SDKs go.
    pub(crate) fn http_url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Where kubectl goes.
    pub(crate) fn kube_url(&self) -> String {
        format!("https://{}", self.kube)
    }
}

/// The start time of a process in clock ticks since boot; `None` if it is gone or a zombie.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The command may hold spaces and parentheses; the fields after it may not.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (state != "Z" && state != "X")
        .then(|| fields.nth(18)?.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_start_time_and_a_dead_one_has_none() {
        assert!(start_time(std::process::id()).is_some());
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(start_time(child.id()), None);
    }
}
