//! What a caller says about a container and hears back: plain data, the same on the wire, in the
//! state files and in the client. No behaviour lives here beyond small accessors.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Everything needed to start one container.
///
/// Paths are the host's unless they say "inside". `state_dir` must exist and belong to this
/// container attempt alone: `pid`, `exit` and (in mounted mode) `tmp/` appear in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerSpec {
    /// The caller's name for this container attempt, unique in the data directory.
    pub id: String,
    /// The folder for the state files of this attempt (absolute).
    pub state_dir: PathBuf,
    /// The CRI log file (absolute); its folder must exist. None: output is thrown away.
    pub log: Option<LogSpec>,
    /// What is run.
    pub program: Program,
    /// Arguments after the program's own name; for [`Program::Path`] that name is `argv[0]`.
    pub args: Vec<String>,
    /// The whole environment, later entries win. `PATH` and `HOME` get defaults, nothing else is
    /// inherited.
    pub env: Vec<(String, String)>,
    /// Working directory inside; made (in a shadow, never on the host) when it is missing. None: `/`.
    pub cwd: Option<String>,
    /// The name the container's `hostname` prints, where a UTS namespace can be had.
    pub hostname: Option<String>,
    /// Volumes, tokens, files: mounted in the order of their targets' depth.
    pub mounts: Vec<MountSpec>,
    /// A per-Pod folder holding `hosts` (and optionally `hostname`, `resolv.conf`); `/etc/hosts`
    /// inside links into it, so a replacement by rename is seen at once.
    pub etc_dir: Option<PathBuf>,
    /// `readOnlyRootFilesystem`: everything but the mounts above, `/tmp`, `/dev`, `/proc` is read-only.
    pub read_only_root: bool,
    /// Identity and privileges.
    pub user: UserSpec,
    /// `oom_score_adj`, best effort.
    pub oom_score_adj: Option<i32>,
    /// Resource limits by their `setrlimit` names in lower case (`nofile`, `as`, `cpu`, `core`,
    /// `nproc`, `fsize`, `stack`, `memlock`); only lowered.
    pub rlimits: BTreeMap<String, u64>,
    /// Share the host's process ids (`hostPID`).
    pub host_pid: bool,
    /// Keep standard input open for [`crate::attach`]; otherwise it is empty.
    pub stdin: bool,
    /// Close standard input when the first attached client has gone or closed it.
    pub stdin_once: bool,
    /// Give the container a terminal; its output is then all `stdout`.
    pub tty: bool,
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Program {
    /// The spawner's own executable (a built-in image): `coracle ARGS…`, run by file descriptor, so
    /// it need not be reachable by the container's user.
    SelfExe,
    /// A program inside: a path, or a name looked up in the container's `PATH`.
    Path(String),
}

impl Default for Program {
    fn default() -> Self {
        Self::Path(String::new())
    }
}

/// Where output goes, in the format of the CRI: `2026-11-24T08:00:00.000000000Z stdout F text`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogSpec {
    /// The live file. Rotated ones stand beside it: `PATH.1` is the newest, `PATH.N` the oldest.
    pub path: PathBuf,
    /// Rotate when the file would grow beyond this many bytes.
    pub max_bytes: u64,
    /// Files kept, the live one included.
    pub max_files: u32,
}

impl LogSpec {
    /// The kubelet's defaults: 10 MiB a file, 5 files.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_bytes: 10 << 20,
            max_files: 5,
        }
    }
}

/// One mount inside the container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountSpec {
    /// Absolute path inside.
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
    /// Refuse writes through this mount.
    #[serde(default)]
    pub read_only: bool,
}

impl MountSpec {
    /// A bind mount of a host file or folder.
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<String>, read_only: bool) -> Self {
        Self {
            target: target.into(),
            kind: MountKind::Bind {
                source: source.into(),
            },
            read_only,
        }
    }
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MountKind {
    /// A host file or folder, with whatever is mounted below it.
    Bind {
        /// Absolute path on the host; must exist.
        source: PathBuf,
    },
    /// Memory (`emptyDir.medium: Memory` of one container).
    Tmpfs {
        /// `sizeLimit` in bytes.
        size: Option<u64>,
    },
}

/// Identity and privileges. As an ordinary user the ids are shown inside through a user namespace but
/// remain the caller's on the host; what cannot be honoured is named in [`Started::warnings`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UserSpec {
    /// `runAsUser`; None: 0, as images without a USER.
    pub uid: Option<u32>,
    /// `runAsGroup`; None: the user's group in `/etc/passwd`, else 0.
    pub gid: Option<u32>,
    /// `supplementalGroups` and `fsGroup`.
    pub groups: Vec<u32>,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privs: bool,
    /// `privileged`: keep every capability.
    pub privileged: bool,
    /// `capabilities.add`, with or without `CAP_`; `ALL` is known.
    pub cap_add: Vec<String>,
    /// `capabilities.drop`, likewise.
    pub cap_drop: Vec<String>,
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// The caller's name for it.
    pub id: String,
    /// Its state folder.
    pub state_dir: PathBuf,
    /// The container's main process, as the host numbers it.
    pub pid: i32,
    /// Its start time (field 22 of `/proc/PID/stat`), which with `boot_id` makes the pid unique.
    pub start_time: u64,
    /// The monitor: its parent, which writes the log and the exit file.
    pub monitor_pid: i32,
    /// The monitor's start time.
    pub monitor_start_time: u64,
    /// The boot these pids belong to.
    pub boot_id: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// What of the spec could not be honoured, in words for an Event.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// How a container ended: the content of the exit file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// The caller's name for it.
    pub id: String,
    /// Exit code; 128 + N after signal N; 137 when lost; when it could not be started, 127 (no such
    /// program), 126 (not allowed to run it) or 128.
    pub exit_code: i32,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why it ended, when not by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ExitProblem>,
    /// When it was started; None when it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// The main process's pid; 0 when it never started.
    pub pid: i32,
    /// The main process's start time.
    pub start_time: u64,
    /// What it and its children used.
    #[serde(default)]
    pub usage: Usage,
}

/// Why a container did not end by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExitProblem {
    /// It never started.
    Start(StartError),
    /// Its monitor was killed, and with it the container: the real exit code is unknown.
    Lost,
}

/// Resources a container used until it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// CPU time in user mode, microseconds.
    pub user_micros: u64,
    /// CPU time in the kernel, microseconds.
    pub system_micros: u64,
    /// Largest resident set of one process, KiB.
    pub max_rss_kib: u64,
}

/// Why a container (or an exec) did not start; its Display is the message for the Pod's status, in the
/// words users know from container runtimes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct StartError {
    /// What failed.
    pub step: StartStep,
    /// The whole sentence.
    pub message: String,
    /// The system's error number, if one was behind it.
    #[serde(default)]
    pub errno: Option<i32>,
}

impl StartError {
    /// The exit code shells would give: 127 for a missing program, 126 for one that may not be
    /// run, 128 for all else.
    pub fn exit_code(&self) -> i32 {
        match (self.step, self.errno) {
            (StartStep::Exec, Some(libc::ENOENT)) => 127,
            (StartStep::Exec, Some(libc::EACCES | libc::ENOEXEC | libc::EPERM)) => 126,
            _ => 128,
        }
    }
}

/// The step of a start that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StartStep {
    /// Namespaces, users, privileges.
    Isolate,
    /// Building the root filesystem and mounting volumes.
    Mount,
    /// Log or state files.
    Files,
    /// The working directory.
    WorkingDir,
    /// Finding or running the program.
    Exec,
}

/// A command to run inside a running container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExecSpec {
    /// The command; `argv[0]` is looked up in the container's `PATH`.
    pub argv: Vec<String>,
    /// The whole environment, as in [`ContainerSpec::env`].
    pub env: Vec<(String, String)>,
    /// Working directory inside; None: `/`.
    pub cwd: Option<String>,
    /// Identity, usually the container's.
    pub user: UserSpec,
    /// The stdio is one terminal: make it the controlling one.
    pub tty: bool,
}

/// How an exec ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecExit {
    /// Exit code; 128 + N after signal N.
    pub exit_code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// What this machine lets us do, found by trying.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// Whether the spawner runs as root.
    pub root: bool,
    /// A private mount namespace with a root filesystem of our making.
    pub mount_namespace: Support,
    /// A user namespace (only tried as an ordinary user, or as a root that may not mount).
    pub user_namespace: Support,
    /// A process namespace with its own `/proc`.
    pub pid_namespace: Support,
}

impl Capabilities {
    /// Whether containers get their mounts; otherwise programs resolve paths through
    /// `CORACLE_MOUNTS` and `CORACLE_HOSTS`.
    pub fn mounts(&self) -> bool {
        self.mount_namespace == Support::Ok
    }
}

/// The outcome of trying something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Support {
    /// It works.
    Ok,
    /// Not needed or not tried.
    Untried,
    /// It was refused, with the reason for `doctor`.
    Refused(String),
}
