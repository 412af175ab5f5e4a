//! The server's side: finds or starts the spawner process and sends it requests.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio as ProcessStdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stdx::{Backoff, OnError, Supervisor};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::server::{NO_MOUNTS, SOCKET};
use crate::spec::{Capabilities, ContainerSpec, ExecExit, ExecSpec, Exit, Started};
use crate::wire::{Body, ExeId, Incoming, MAX_FDS, Outgoing, PROTOCOL, Reply, Request};

/// Times a request is sent again after the spawner died under it.
const TRIES: u32 = 3;
/// How long a request waits for a new spawner.
const PATIENCE: Duration = Duration::from_secs(15);
/// What the spawner process says when it can be spoken to.
const READY: &str = "ready\n";
/// Where panics of spawner and monitors go, in the data directory.
const LOG: &str = "spawner.log";

/// How to reach or start the spawner of a data directory.
#[derive(Debug)]
pub struct Options {
    /// The data directory; it must exist and be locked by this server.
    pub data_dir: PathBuf,
    /// The program that has [`crate::main`] behind `args`. The default `/proc/self/exe` is the
    /// running program, even when its file has been replaced.
    pub exe: PathBuf,
    /// The arguments that lead to [`crate::main`]; the data directory is added.
    pub args: Vec<OsString>,
    /// Further environment of the spawner process (containers inherit none).
    pub env: Vec<(OsString, OsString)>,
    /// Descriptors of locks that spawner and monitors hold open for as long as they live.
    pub held: Vec<OwnedFd>,
    /// Whether to use namespaces.
    pub mode: Mode,
}

impl Options {
    /// The usual options: the running program, called as `__spawner DATA_DIR`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            exe: "/proc/self/exe".into(),
            args: vec!["__spawner".into()],
            env: Vec::new(),
            held: Vec::new(),
            mode: Mode::Auto,
        }
    }
}

/// Whether containers get namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// If this machine lets us.
    #[default]
    Auto,
    /// Never: programs resolve paths and names through tables.
    NoMounts,
}

/// A handle on the spawner process. Clones share it.
///
/// The process is started again when it dies; containers do not depend on it.
#[derive(Debug, Clone)]
pub struct Spawner {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    dir: File,
    exe: ExeId,
    held: Mutex<Vec<OwnedFd>>,
    known: Mutex<Known>,
    /// Counts the spawner processes that this handle has known.
    generation: watch::Sender<u64>,
    stopping: AtomicBool,
    /// The connections on which monitors of containers that this handle has started will tell of
    /// their ends, by state folder.
    ends: Mutex<HashMap<PathBuf, (UnixStream, Incoming)>>,
}

/// What the spawner said about itself.
#[derive(Debug, Clone)]
struct Known {
    pid: i32,
    capabilities: Capabilities,
    mounts: bool,
}

/// A spawner that listens: the open connection, and the process if it is our child.
struct Link {
    hello: UnixStream,
    process: Option<Child>,
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { what, source }
}

impl Spawner {
    /// Attaches to the living spawner of the data directory, or starts one. `supervisor` owns the
    /// task that starts another when it dies.
    pub async fn start_or_attach(mut options: Options, supervisor: &Supervisor) -> Result<Self> {
        let data_dir = |source| Error::DataDir {
            path: options.data_dir.clone(),
            source,
        };
        let dir = File::open(&options.data_dir).map_err(data_dir)?;
        let exe = File::open(&options.exe)
            .and_then(|file| ExeId::of(file.as_fd()))
            .map_err(io_error("look at the program to start"))?;
        let held = std::mem::take(&mut options.held);
        if held.len() > MAX_FDS {
            return Err(Error::Protocol(format!(
                "at most {MAX_FDS} descriptors can be held"
            )));
        }
        let unknown = Known {
            pid: 0,
            capabilities: Capabilities {
                root: false,
                mount_namespace: crate::Support::Untried,
                user_namespace: crate::Support::Untried,
                pid_namespace: crate::Support::Untried,
            },
            mounts: false,
        };
        let inner = Arc::new(Inner {
            options,
            dir,
            exe,
            held: Mutex::new(held),
            known: Mutex::new(unknown),
            generation: watch::channel(0).0,
            stopping: AtomicBool::new(false),
            ends: Mutex::default(),
        });
        let link = inner.link().await?;
        inner.generation.send_replace(1);
        let watched = Arc::clone(&inner);
        supervisor.spawn("spawner link", OnError::Log, async move {
            watched.keep(link).await;
            Ok::<(), Error>(())
        });
        Ok(Self { inner })
    }

    /// What this machine lets us do.
    pub fn capabilities(&self) -> Capabilities {
        self.inner.known().capabilities
    }

    /// Whether containers get their mounts. False where that is refused or was not wanted.
    pub fn mounts(&self) -> bool {
        self.inner.known().mounts
    }

    /// The pid of the spawner process.
    pub fn pid(&self) -> i32 {
        self.inner.known().pid
    }

    /// The held descriptors: those given, or, after a crash of the server, those the spawner kept.
    pub fn held(&self) -> io::Result<Vec<OwnedFd>> {
        self.inner.held().iter().map(OwnedFd::try_clone).collect()
    }

    /// Starts a container; when this answers, its program has been executed.
    pub async fn launch(&self, spec: &ContainerSpec) -> Result<Started> {
        let body = Body::Launch(Box::new(spec.clone()));
        match self.request(&body, &[]).await? {
            (Reply::Started(started), socket, incoming) => {
                let end = (socket, incoming);
                self.inner.ends().insert(spec.state_dir.clone(), end);
                Ok(*started)
            }
            (reply, ..) => Err(unexpected(reply)),
        }
    }

    /// Waits for the end of a container, as [`crate::wait`] does, but hears of it from the monitor
    /// if this handle has started the container.
    pub async fn wait(&self, state_dir: &Path) -> Result<Exit> {
        let end = self.inner.ends().remove(state_dir);
        if let Some((socket, mut incoming)) = end
            && let Ok(Some((Reply::Exited(exit), _))) = hear(&socket, &mut incoming).await
        {
            return Ok(*exit);
        }
        crate::wait(state_dir).await
    }

    /// Runs a command in a running container; when this answers, it has been executed.
    pub async fn exec(&self, target: &Started, spec: &ExecSpec, stdio: Stdio) -> Result<Exec> {
        let all = [stdio.stdin, stdio.stdout, stdio.stderr];
        let body = Body::Exec {
            target: Box::new(target.clone()),
            spec: spec.clone(),
            stdio: [all[0].is_some(), all[1].is_some(), all[2].is_some()],
        };
        let fds: Vec<BorrowedFd<'_>> = all.iter().flatten().map(AsFd::as_fd).collect();
        match self.request(&body, &fds).await? {
            (Reply::Running { .. }, socket, incoming) => Ok(Exec { socket, incoming }),
            (reply, ..) => Err(unexpected(reply)),
        }
    }

    /// Ends the spawner process. Containers go on; a later start finds them.
    pub async fn shutdown(&self) -> Result<()> {
        self.inner.stopping.store(true, Ordering::Release);
        match self.inner.connect() {
            Ok(socket) => shut_down(&socket).await,
            Err(error) if nobody_listens(&error) => Ok(()),
            Err(error) => Err(io_error("connect")(error)),
        }
    }

    /// Sends a request and hears the answer; tries again when the spawner died before it acted.
    async fn request(
        &self,
        body: &Body,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Reply, UnixStream, Incoming)> {
        let mut generations = self.inner.generation.subscribe();
        for _ in 0..TRIES {
            let before = *generations.borrow_and_update();
            match self.inner.connect() {
                Ok(socket) => {
                    let mut incoming = Incoming::default();
                    // A connection that ends without an answer was never acted upon.
                    if let Some((reply, _)) = ask(&socket, body, fds, &mut incoming).await? {
                        return Ok((reply, socket, incoming));
                    }
                }
                Err(error) if nobody_listens(&error) => {}
                Err(error) => return Err(io_error("connect")(error)),
            }
            if self.inner.stopping.load(Ordering::Acquire) {
                break;
            }
            let next = generations.wait_for(|generation| *generation > before);
            if tokio::time::timeout(PATIENCE, next).await.is_err() {
                break;
            }
        }
        Err(Error::Start {
            reason: "it ended again and again, or does not come up".to_owned(),
        })
    }
}

impl Inner {
    fn known(&self) -> Known {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn ends(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, (UnixStream, Incoming)>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Vec<OwnedFd>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects through the directory's descriptor: its own path may be too long for an address.
    fn connect(&self) -> io::Result<UnixStream> {
        let path = format!("/proc/self/fd/{}/{SOCKET}", self.dir.as_raw_fd());
        let socket = std::os::unix::net::UnixStream::connect(path)?;
        socket.set_nonblocking(true)?;
        UnixStream::from_std(socket)
    }

    /// Says hello to a spawner of our own build; anything else is asked to end.
    async fn hello(&self) -> Result<Option<UnixStream>> {
        let socket = match self.connect() {
            Ok(socket) => socket,
            Err(error) if nobody_listens(&error) => return Ok(None),
            Err(error) => return Err(io_error("connect")(error)),
        };
        let given: Vec<OwnedFd> = self
            .held()
            .iter()
            .map(OwnedFd::try_clone)
            .collect::<io::Result<_>>()
            .map_err(io_error("copy held descriptors"))?;
        let fds: Vec<BorrowedFd<'_>> = given.iter().map(AsFd::as_fd).collect();
        match ask(&socket, &Body::Hello, &fds, &mut Incoming::default()).await? {
            Some((
                Reply::Hello {
                    pid,
                    exe,
                    capabilities,
                    mounts,
                },
                kept,
            )) => {
                if given.is_empty() {
                    *self.held() = kept;
                }
                let wanted = self.options.mode == Mode::Auto && capabilities.mounts();
                if exe == self.exe && mounts == wanted {
                    let known = Known {
                        pid,
                        capabilities,
                        mounts,
                    };
                    *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
                    return Ok(Some(socket));
                }
                tracing::info!(pid, "replacing the spawner of another build or mode");
                drop(socket);
            }
            Some((Reply::Refused { protocol, .. }, _)) => {
                tracing::info!(protocol, "replacing the spawner of another version");
            }
            Some((reply, _)) => return Err(unexpected(reply)),
            None => return Ok(None),
        }
        match self.connect() {
            Ok(socket) => shut_down(&socket).await?,
            Err(error) if nobody_listens(&error) => {}
            Err(error) => return Err(io_error("connect")(error)),
        }
        Ok(None)
    }

    async fn link(&self) -> Result<Link> {
        if let Some(hello) = self.hello().await? {
            return Ok(Link {
                hello,
                process: None,
            });
        }
        let process = self.start_process().await?;
        match self.hello().await? {
            Some(hello) => Ok(Link {
                hello,
                process: Some(process),
            }),
            None => Err(Error::Start {
                reason: "it does not answer".to_owned(),
            }),
        }
    }

    async fn start_process(&self) -> Result<Child> {
        let log = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.options.data_dir.join(LOG))
            .map_err(io_error("open spawner log"))?;
        let mut command = Command::new(&self.options.exe);
        command.arg0("coracle").args(&self.options.args);
        if self.options.mode == Mode::NoMounts {
            command.arg(NO_MOUNTS);
        }
        let mut process = command
            .arg(&self.options.data_dir)
            .envs(self.options.env.iter().map(|(name, value)| (name, value)))
            .stdin(ProcessStdio::null())
            .stdout(ProcessStdio::piped())
            .stderr(ProcessStdio::from(log))
            .spawn()
            .map_err(|error| Error::Start {
                reason: error.to_string(),
            })?;
        let mut said = String::new();
        if let Some(mut stdout) = process.stdout.take() {
            stdout
                .read_to_string(&mut said)
                .await
                .map_err(io_error("hear from spawner"))?;
        }
        if said == READY {
            return Ok(process);
        }
        let ended = process.wait().await.map_err(io_error("wait for spawner"))?;
        let reason = if said.is_empty() {
            ended.to_string()
        } else {
            said.trim_end().to_owned()
        };
        Err(Error::Start { reason })
    }

    /// Watches the spawner and starts another when it dies.
    async fn keep(&self, mut link: Link) {
        loop {
            // Nothing is ever said on this connection; it ends with the process.
            let mut nothing = [0];
            drop(link.hello.read(&mut nothing).await);
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            if let Some(mut process) = link.process.take() {
                drop(process.wait().await);
            }
            tracing::warn!("the spawner process ended, starting another");
            let mut backoff = Backoff::new(Duration::from_millis(10), 3.0, Duration::from_secs(10));
            link = loop {
                match self.link().await {
                    Ok(link) => break link,
                    Err(error) => {
                        let cause = stdx::error::chain(&error);
                        tracing::error!(%cause, "the spawner process cannot be started");
                    }
                }
                tokio::time::sleep(backoff.next_delay()).await;
            };
            self.generation.send_modify(|generation| *generation += 1);
        }
    }
}

/// Whether nobody listens on the socket: it is not there, or its owner is dead.
fn nobody_listens(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn unexpected(reply: Reply) -> Error {
    match reply {
        Reply::NotStarted(error) => Error::NotStarted(error),
        Reply::Refused { reason, .. } => Error::Protocol(reason),
        other => Error::Protocol(format!("{other:?}")),
    }
}

/// Asks the spawner behind `socket` to end, and waits until it has let go of everything.
async fn shut_down(socket: &UnixStream) -> Result<()> {
    ask(socket, &Body::Shutdown, &[], &mut Incoming::default())
        .await
        .map(drop)
}

/// Sends a request and waits for the answer. None: the connection ended without one.
async fn ask(
    socket: &UnixStream,
    body: &Body,
    fds: &[BorrowedFd<'_>],
    incoming: &mut Incoming,
) -> Result<Option<(Reply, Vec<OwnedFd>)>> {
    let encode = |error: serde_json::Error| Error::Protocol(error.to_string());
    let request = Request {
        protocol: PROTOCOL,
        body: serde_json::to_value(body).map_err(encode)?,
    };
    let mut frame = Outgoing::new(&request).map_err(io_error("encode request"))?;
    let sent = socket
        .async_io(Interest::WRITABLE, || frame.send(socket.as_fd(), fds))
        .await;
    match sent {
        Ok(()) => {}
        Err(error) if connection_ended(&error) => return Ok(None),
        Err(error) => return Err(io_error("send request")(error)),
    }
    hear(socket, incoming).await
}

fn connection_ended(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

async fn hear(
    socket: &UnixStream,
    incoming: &mut Incoming,
) -> Result<Option<(Reply, Vec<OwnedFd>)>> {
    match socket
        .async_io(Interest::READABLE, || incoming.receive(socket.as_fd()))
        .await
    {
        Ok(Some((frame, fds))) => serde_json::from_slice(&frame)
            .map(|reply| Some((reply, fds)))
            .map_err(|error| Error::Protocol(error.to_string())),
        Ok(None) => Ok(None),
        Err(error) if connection_ended(&error) => Ok(None),
        Err(error) => Err(io_error("receive answer")(error)),
    }
}

/// The standard streams of an exec; None is `/dev/null`. For a terminal, give three copies of its far
/// end.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// A command that runs in a container. Dropping it kills the command.
#[derive(Debug)]
pub struct Exec {
    socket: UnixStream,
    incoming: Incoming,
}

impl Exec {
    /// Waits for the command's end.
    pub async fn wait(mut self) -> Result<ExecExit> {
        match hear(&self.socket, &mut self.incoming).await? {
            Some((Reply::Ended(exit), _)) => Ok(exit),
            Some((reply, _)) => Err(unexpected(reply)),
            None => Err(Error::Protocol("the command's keeper is gone".to_owned())),
        }
    }
}
