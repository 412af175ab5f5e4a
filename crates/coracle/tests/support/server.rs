//! A server of the built program: started in the background, killed, started again, and ended with
//! everything it runs when the test is over, also when the test failed.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use super::{PATIENCE, coracle, said};

/// A server and its data directory.
#[derive(Debug)]
pub(crate) struct Server {
    dir: tempfile::TempDir,
    data: PathBuf,
    pub(crate) http_port: u16,
    pub(crate) kube_port: u16,
    flags: Vec<String>,
}

impl Server {
    /// A server that is ready, on ports nobody else uses.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further flags of `coracle up`.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let server = Self::prepare(flags);
        server.up();
        server
    }

    /// Everything but the start.
    pub(crate) fn prepare(flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Pods of other users must get through to their volumes.
        open_to_all(dir.path());
        let data = dir.path().join("data");
        Self::prepare_at(dir, data, flags)
    }

    /// Everything but the start, for a data directory of the test's choice; `dir` goes away with it.
    pub(crate) fn prepare_at(dir: tempfile::TempDir, data: PathBuf, flags: &[&str]) -> Self {
        let (http_port, kube_port) = (free_port(), free_port());
        let flags = flags.iter().map(ToString::to_string).collect();
        Self {
            dir,
            data,
            http_port,
            kube_port,
            flags,
        }
    }

    /// `coracle up -d`, which must work.
    pub(crate) fn up(&self) {
        let done = self.up_command(true).output().unwrap();
        assert!(
            done.status.success(),
            "coracle up: {}\n{}",
            said(&done),
            self.log_tail()
        );
    }

    /// `coracle up` with this server's flags.
    pub(crate) fn up_command(&self, detach: bool) -> Command {
        let mut command = coracle();
        command.arg("up");
        if detach {
            command.arg("-d");
        }
        command.arg("--data-dir").arg(&self.data);
        command.args(["--listen", &format!("127.0.0.1:{}", self.http_port)]);
        command.args(["--kube-listen", &format!("127.0.0.1:{}", self.kube_port)]);
        command.args(&self.flags);
        command
    }

    /// A command of the program about this server.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = coracle();
        command.args(args).arg("--data-dir").arg(&self.data);
        command
    }

    /// The same, run.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// A folder that goes away with the server.
    pub(crate) fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.data.join("kubeconfig")
    }

    /// Where the Pipelines API answers.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http_port)
    }

    /// The server's process, as it says itself.
    pub(crate) fn pid(&self) -> u32 {
        let text = std::fs::read(self.data.join("server.json")).expect("the server runs");
        let state: Value = serde_json::from_slice(&text).unwrap();
        u32::try_from(state["pid"].as_u64().unwrap()).unwrap()
    }

    /// Kills the server process and waits until it is gone; its Pods go on.
    pub(crate) fn kill(&self) {
        signal_and_wait(self.pid(), Signal::KILL);
    }

    /// Asks the server to stop, as Ctrl-C does, and waits until it is gone.
    pub(crate) fn stop(&self) {
        signal_and_wait(self.pid(), Signal::TERM);
    }

    /// The spawner's process, if it lives. The containers' monitors are forked from it and look
    /// like it until they have taken a name of their own.
    pub(crate) fn spawner_pid(&self) -> Option<u32> {
        let ours = self.data.as_os_str().as_encoded_bytes().to_vec();
        let like_it: Vec<u32> = processes()
            .into_iter()
            .filter(|(_, words)| {
                words.get(1).is_some_and(|word| word == b"__spawner") && words.contains(&ours)
            })
            .map(|(pid, _)| pid)
            .collect();
        let forked = |pid: u32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim() == "coracle-monitor"
                || parent(pid).is_none_or(|parent| like_it.contains(&parent))
        };
        like_it.iter().copied().find(|pid| !forked(*pid))
    }

    /// What the server said last.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.data.join("coracle.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data.join("coracle.log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(
                std::io::stderr(),
                "the server's log ends so:\n{}",
                self.log_tail()
            );
        }
        // Not asked politely: a stop waits for the grace periods of Pods, `down` does not wait.
        if let Ok(state) = std::fs::read(self.data.join("server.json")) {
            let pid = serde_json::from_slice::<Value>(&state).ok();
            if let Some(pid) = pid.and_then(|state| state["pid"].as_u64()) {
                if is_coracle(pid as u32) {
                    signal_and_wait(pid as u32, Signal::KILL);
                }
            }
        }
        let down = self.run(&["down"]);
        let text = format!("coracle down: {}", said(&down));
        // Seen by what they keep open: everything that a server starts has its folder there.
        // The last of them may just be ending.
        let still = |pid: u32| pidfd(pid).is_some_and(|process| !ended(&process));
        let mut left = holders(&self.data);
        left.retain(|(pid, _)| still(*pid));
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "{text}");
        } else {
            assert!(down.status.success(), "{text}");
            assert!(left.is_empty(), "{text}these processes are left: {left:?}");
        }
    }
}

/// Sends a signal and waits until the process has ended.
pub(crate) fn signal_and_wait(pid: u32, signal: Signal) {
    let Some(process) = pidfd(pid) else { return };
    let _ = pidfd_send_signal(&process, signal);
    assert!(
        ended(&process),
        "process {pid} did not end after {signal:?}"
    );
}

/// A handle of a process; `None` if it is gone.
pub(crate) fn pidfd(pid: u32) -> Option<OwnedFd> {
    pidfd_open(
        Pid::from_raw(i32::try_from(pid).ok()?)?,
        PidfdFlags::empty(),
    )
    .ok()
}

/// Waits until the process has ended.
pub(crate) fn ended(process: &OwnedFd) -> bool {
    let timeout = rustix::time::Timespec {
        tv_sec: PATIENCE.as_secs() as i64,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)).is_ok_and(|n| n > 0)
}

/// Every process with the words of its command line.
pub(crate) fn processes() -> Vec<(u32, Vec<Vec<u8>>)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let words = line
                .split(|b| *b == 0)
                .filter(|w| !w.is_empty())
                .map(<[u8]>::to_vec);
            Some((pid, words.collect()))
        })
        .collect()
}

/// The processes that hold a file below a folder open, with their names.
fn holders(folder: &Path) -> Vec<(u32, String)> {
    let holds = |pid: &u32| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        fds.filter_map(|fd| std::fs::read_link(fd.path()).ok())
            .any(|link| link.starts_with(folder))
    };
    let all = processes().into_iter().map(|(pid, _)| pid).filter(holds);
    all.map(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        (pid, name.trim().to_owned())
    })
    .collect()
}

/// The processes whose command line, with a space between its words, holds this text.
pub(crate) fn processes_with(text: &str) -> Vec<u32> {
    let holds = |words: &[Vec<u8>]| String::from_utf8_lossy(&words.join(&b' ')).contains(text);
    processes()
        .into_iter()
        .filter(|(_, words)| holds(words))
        .map(|(pid, _)| pid)
        .collect()
}

/// The parent of a process; `None` if the process is gone.
fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

fn is_coracle(pid: u32) -> bool {
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    // A program that was built anew meanwhile is shown as "(deleted)".
    exe.to_string_lossy()
        .starts_with(env!("CARGO_BIN_EXE_coracle"))
}

/// A port that nobody uses. From below the range that the kernel gives to outgoing connections, so
/// that it stays free between two starts of a server.
pub(crate) fn free_port() -> u16 {
    let mut bytes = [0; 8];
    let random = std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    random.unwrap();
    let mut dice = super::Dice(u64::from_ne_bytes(bytes));
    loop {
        let port = 10_000 + dice.below(19_000) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Lets other users look into a folder of the test's.
pub(crate) fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
