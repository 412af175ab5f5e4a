//! The boundary between the node agent and whatever runs processes: two traits, [`Runtime`] and
//! [`ImageService`], and the plain values that cross it.
//!
//! The split follows the container runtime interface: the kubelet decides what shall run, with
//! which mounts, variables and user, and when it shall stop; a runtime starts processes, reports
//! their ends and finds them again after a restart. No process is started in here. Everything that
//! a runtime must remember about a container lies in that container's state directory, so that the
//! next start of the server can ask about it.

pub mod catalogue;
pub mod fake;
pub mod process;
pub mod python;

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

/// What a runtime says about itself in the Node object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// The scheme of container ids, `coracle` in `coracle://…`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether containers get their own mount namespace; without it they resolve their paths
    /// through the tables handed to them.
    pub mounts: bool,
}

/// Tells a program from an image volume, which is run in place of the container's image's own, what
/// that is: a JSON object with `program` (of a built-in image), `entrypoint` and `cmd`.
pub const IMAGE_VARIABLE: &str = "CORACLE_IMAGE";

/// How the program of an image is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", content = "program")]
pub enum ImageKind {
    /// One of this binary's own programs, by its name.
    BuiltIn(String),
    /// Programs of the host, in a private mount namespace.
    Host,
    /// The same, with a Python of this version in front: `3.11`, or empty for any.
    Python(String),
}

/// An image that can run here, with what its configuration would say in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// The reference as the Pod wrote it.
    pub reference: String,
    /// The normalised reference, for `status.containerStatuses[].imageID`.
    pub id: String,
    /// How to start it.
    pub kind: ImageKind,
    /// The default command; a container's `command` replaces it.
    pub entrypoint: Vec<String>,
    /// The default arguments; a container's `args` (or `command`) replaces them.
    pub cmd: Vec<String>,
    /// Variables that the container's own override.
    pub env: Vec<(String, String)>,
    /// The default working directory.
    pub working_dir: Option<String>,
    /// The numeric user of the image; `None` means root where the server is root, else the user
    /// that runs the server.
    pub user: Option<u32>,
    /// Size for `status.images` and Events; 0 where it has no meaning.
    pub size_bytes: u64,
}

/// Why an image cannot be used. The text goes into Events and container statuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The reference cannot be parsed.
    #[error("couldn't parse image name {reference:?}: {problem}")]
    InvalidName {
        /// What the Pod says.
        reference: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing here can run it.
    #[error("{0}")]
    NotFound(String),
    /// It would run, but could not be fetched just now.
    #[error("{0}")]
    Unavailable(String),
}

/// Where images come from.
pub trait ImageService: Send + Sync + fmt::Debug {
    /// Makes the image of a reference ready to start. Never slower than a look-up for built-in and
    /// host images.
    fn pull(&self, reference: &str) -> BoxFuture<'_, Result<Image, ImageError>>;

    /// The image, if it can be started without fetching anything.
    fn present(&self, reference: &str) -> Result<Option<Image>, ImageError>;
}

/// Names a container towards a runtime. Cheap to clone; it is all a runtime needs to find a
/// container again after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRef {
    /// 64 hexadecimal digits, new for every attempt.
    pub id: String,
    /// A directory of this attempt alone. It exists before [`Runtime::start`]; pid and exit files
    /// are put there.
    pub state_dir: PathBuf,
}

/// A path of the host that appears in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Absolute path on the host; it exists. A file or a directory.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: PathBuf,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// Where a container's output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogSpec {
    /// The file, in the CRI log format: `TIME stdout|stderr F|P TEXT` a line. It is appended to.
    pub path: PathBuf,
    /// Rotate when the file is longer than this: `path` becomes `path.1`, `path.1` becomes
    /// `path.2`, ….
    pub max_bytes: u64,
    /// How many files to keep, the current one counted.
    pub max_files: u32,
}

/// Who a process runs as and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecuritySpec {
    /// Numeric user; `None` leaves the server's own.
    pub user: Option<u32>,
    /// Numeric primary group; `None` leaves the user's own (0 for an unknown user).
    pub group: Option<u32>,
    /// Further groups (`supplementalGroups` and `fsGroup`).
    pub supplemental_groups: Vec<u32>,
    /// All that the host's root may do.
    pub privileged: bool,
    /// Whether `no_new_privs` is set.
    pub no_new_privileges: bool,
    /// The root file system refuses writes, mounts excepted.
    pub read_only_root: bool,
    /// Capabilities to add to the default set, upper case without `CAP_`; `ALL` for all.
    pub add_capabilities: Vec<String>,
    /// Capabilities to drop, likewise.
    pub drop_capabilities: Vec<String>,
}

/// The file in a state directory that holds the [`ContainerSpec`] as JSON; only its owner may read
/// it.
pub const SPEC_FILE: &str = "spec.json";

/// One container to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSpec {
    /// Who it is towards the runtime.
    pub container: ContainerRef,
    /// Namespace of its Pod.
    pub namespace: String,
    /// Name of its Pod.
    pub pod: String,
    /// UID of its Pod.
    pub pod_uid: String,
    /// Its name in the Pod.
    pub name: String,
    /// The image to start.
    pub image: Image,
    /// The Pod's `command`, variables expanded; empty means the image's entrypoint.
    pub command: Vec<String>,
    /// The Pod's `args`, likewise; empty means the image's `cmd`, unless `command` is given.
    pub args: Vec<String>,
    /// The whole environment, the image's own included, in order.
    pub env: Vec<(String, String)>,
    /// Where it starts; `None` means the image's, else `/`.
    pub working_dir: Option<PathBuf>,
    /// Volumes, token, termination log: in the order of `volumeMounts`.
    pub mounts: Vec<Mount>,
    /// A directory that holds `hosts`, the Pod's hosts file, which is replaced by rename when names
    /// change: bind the directory, link `/etc/hosts` into it. `None` leaves the host's file.
    pub hosts_dir: Option<PathBuf>,
    /// What `gethostname` says; `None` leaves the host's name (host network).
    pub hostname: Option<String>,
    /// The Pod's address: where its servers listen.
    pub pod_ip: Ipv4Addr,
    /// The address is the node's own, and so are its ports.
    pub host_network: bool,
    /// User, groups and rights.
    pub security: SecuritySpec,
    /// Memory limit in bytes.
    pub memory_limit: Option<u64>,
    /// CPU limit in thousandths of a core.
    pub cpu_limit: Option<u64>,
    /// Where output goes.
    pub log: LogSpec,
    /// Keep standard input open for [`Runtime::attach`].
    pub stdin: bool,
    /// Close it after the first attach ends.
    pub stdin_once: bool,
    /// Give it a terminal.
    pub tty: bool,
}

impl ContainerSpec {
    /// The command line before any wrapping by the runtime, by the rules of Kubernetes for
    /// `command` and `args` against the image's entrypoint and cmd.
    pub fn argv(&self) -> Vec<String> {
        let (head, tail): (&[String], &[String]) =
            match (self.command.is_empty(), self.args.is_empty()) {
                (true, true) => (&self.image.entrypoint, &self.image.cmd),
                (true, false) => (&self.image.entrypoint, &self.args),
                (false, _) => (&self.command, &self.args),
            };
        head.iter().chain(tail).cloned().collect()
    }
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The process id of its first process, as the host sees it.
    pub pid: u32,
    /// When it started.
    pub at: Timestamp,
    /// What the Pod asks for and could not be given, one sentence each, for an Event.
    pub warnings: Vec<String>,
}

/// How a container's first process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// The exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// The signal, if one ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The kernel ended it for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// What is known beyond the code, when the process did not end by itself: its monitor was lost,
    /// it could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// What became of a container while nobody looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// It still runs and is ours again: [`Runtime::wait`] works.
    Running(Started),
    /// It ended.
    Exited(Exit),
    /// Its program was never executed, and never will be: the order to start it did not arrive.
    NotStarted,
    /// It ran, and how it ended cannot be known: the machine was restarted, its files are gone.
    Lost,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A command to run inside a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSpec {
    /// The command line; never empty.
    pub argv: Vec<String>,
    /// Connect standard input.
    pub stdin: bool,
    /// Connect standard output.
    pub stdout: bool,
    /// Connect standard error (not with a terminal).
    pub stderr: bool,
    /// Run it on a terminal.
    pub tty: bool,
}

/// The near end of a command's or container's streams.
pub struct Streams {
    /// Writes to standard input; dropping it closes the input.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Standard output, or the terminal's output.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Standard error.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Changes the terminal's size; does nothing without a terminal.
    pub resize: Box<dyn Fn(TerminalSize) + Send + Sync>,
    /// Completes when the command (for attach: the container) has ended. Dropping it kills an
    /// exec'd command and leaves an attached container alone.
    pub exit: BoxFuture<'static, Result<Exit, Error>>,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").finish_non_exhaustive()
    }
}

/// What a container uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Processor time of its processes since it started.
    pub cpu: Duration,
    /// Resident memory of its processes in bytes.
    pub memory: u64,
    /// How many processes it has.
    pub processes: u32,
}

/// Why a runtime could not do what it was asked. The text goes into Events and container statuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The program could not be executed: exit code 127 (not found), 126 (not executable) or 128.
    #[error("{message}")]
    CannotRun {
        /// What the shell convention says.
        exit_code: i32,
        /// Which file, and why.
        message: String,
    },
    /// The surroundings could not be made; trying again may help.
    #[error("{0}")]
    Setup(String),
    /// The container is not there (any more).
    #[error("container {0} is not running")]
    NotRunning(String),
    /// The runtime itself is gone or confused; trying again may help.
    #[error("{0}")]
    Unavailable(String),
}

/// Starts processes and tells of their ends.
///
/// Calls for different containers may overlap; the calls for one container are made in order.
pub trait Runtime: Send + Sync + fmt::Debug {
    /// What it is.
    fn info(&self) -> RuntimeInfo;

    /// Starts a container. When this answers, the program has been executed. The caller has put
    /// `spec` into the state directory as `spec.json` ([`SPEC_FILE`]), where [`Runtime::exec`] finds
    /// environment and user again after a restart.
    fn start(&self, spec: ContainerSpec) -> BoxFuture<'_, Result<Started, Error>>;

    /// Completes when the container's first process has ended. It may be asked again afterwards,
    /// also by a later start of the server, as long as the state directory exists.
    fn wait(&self, container: &ContainerRef) -> BoxFuture<'static, Result<Exit, Error>>;

    /// Finds out what became of a container that an earlier start of the server started.
    fn recover(&self, container: &ContainerRef) -> BoxFuture<'_, Result<Recovered, Error>>;

    /// Sends a signal to the container's first process; `SIGKILL` goes to all of its processes.
    fn signal(&self, container: &ContainerRef, signal: i32) -> BoxFuture<'_, Result<(), Error>>;

    /// Runs a command inside, with the container's mounts, environment and user.
    fn exec(
        &self,
        container: &ContainerRef,
        spec: ExecSpec,
    ) -> BoxFuture<'_, Result<Streams, Error>>;

    /// Connects to the streams of the container's first process.
    fn attach(
        &self,
        container: &ContainerRef,
        spec: ExecSpec,
    ) -> BoxFuture<'_, Result<Streams, Error>>;

    /// What the container uses now.
    fn stats(&self, container: &ContainerRef) -> BoxFuture<'_, Result<Stats, Error>>;

    /// Forgets a container that has ended and undoes what was set up for it. The caller removes
    /// the state directory afterwards.
    fn remove(&self, container: &ContainerRef) -> BoxFuture<'_, Result<(), Error>>;
}
