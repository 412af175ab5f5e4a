//! The runtime of this machine: containers are processes that the spawner starts, in a mount
//! namespace where that can be had.
//!
//! Built-in images are this binary again; host images are the host's own programs. How a process is
//! isolated, watched and found again is the spawner's; here the kubelet's words become the spawner's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use spawner::{MountSpec, Program, Spawner, Stdio, UserSpec, pty};
use stdx::SharedClock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

use super::python::{self, Python, Seated};
use super::{
    ContainerRef, ContainerSpec, Error, ExecSpec, Exit, IMAGE_VARIABLE, ImageKind, Recovered,
    Runtime, RuntimeInfo, SPEC_FILE, SecuritySpec, Started, Stats, Streams, TerminalSize,
};

/// Programs that, named as the command of a built-in image, mean the host's shell: such an image has
/// no files of its own, and scripts around its program are common.
const SHELLS: [&str; 4] = ["ash", "bash", "dash", "sh"];

/// Starts containers through a [`Spawner`].
#[derive(Debug, Clone)]
pub struct ProcessRuntime {
    spawner: Spawner,
    clock: SharedClock,
    version: String,
    python: Option<Arc<Python>>,
}

impl ProcessRuntime {
    /// A runtime over a spawner that runs; `version` is shown in the Node object.
    pub fn new(spawner: Spawner, clock: SharedClock, version: impl Into<String>) -> Self {
        Self {
            spawner,
            clock,
            version: version.into(),
            python: None,
        }
    }

    /// The same with a choice of Pythons; without it, Python images run what stands in `PATH`.
    #[must_use]
    pub fn with_python(mut self, python: Python) -> Self {
        self.python = Some(Arc::new(python));
        self
    }

    fn seat(&self, spec: &ContainerSpec) -> Result<Option<Seated>, Error> {
        const CANNOT_START: i32 = 128;
        let seated = self
            .python
            .as_ref()
            .map(|python| python.seat(spec, self.spawner.mounts()));
        seated
            .unwrap_or(Ok(None))
            .map_err(|message| Error::CannotRun {
                exit_code: CANNOT_START,
                message,
            })
    }

    async fn run(&self, container: &ContainerRef, command: ExecSpec) -> Result<Streams, Error> {
        let target = running(container).await?;
        let spec = read_spec(container).await?;
        let seated = self.seat(&spec)?;
        let request = spawner::ExecSpec {
            argv: command.argv.clone(),
            env: seated.map_or_else(|| spec.env.clone(), |seated| seated.env),
            cwd: working_dir(&spec),
            user: user(&spec.security),
            tty: command.tty,
        };
        let (near, far) = if command.tty {
            terminal()
        } else {
            pipes(&command)
        }
        .map_err(|error| Error::Unavailable(format!("make standard streams: {error}")))?;
        let exec = self
            .spawner
            .exec(&target, &request, far)
            .await
            .map_err(|error| failure(container, error))?;
        let (clock, id) = (Arc::clone(&self.clock), container.clone());
        let exit = async move {
            let exit = exec.wait().await.map_err(|error| failure(&id, error))?;
            Ok(Exit {
                code: exit.exit_code,
                signal: exit.signal,
                oom_killed: false,
                message: None,
                at: clock.now(),
            })
        };
        Ok(Streams {
            stdin: near.stdin,
            stdout: near.stdout,
            stderr: near.stderr,
            resize: near.resize,
            exit: exit.boxed(),
        })
    }

    async fn connect(&self, container: &ContainerRef, wanted: ExecSpec) -> Result<Streams, Error> {
        drop(running(container).await?);
        let streams = spawner::attach(&container.state_dir)
            .await
            .map_err(|error| failure(container, error))?;
        let stream_error = |error: io::Error| Error::Unavailable(format!("use stream: {error}"));
        let resize = match (&streams.stdin, streams.tty) {
            (Some(terminal), true) => resizer(terminal.try_clone().map_err(stream_error)?),
            _ => Box::new(|_| {}),
        };
        Ok(Streams {
            stdin: streams
                .stdin
                .filter(|_| wanted.stdin)
                .map(writer)
                .transpose()
                .map_err(stream_error)?,
            stdout: Some(streams.stdout)
                .filter(|_| wanted.stdout)
                .map(reader)
                .transpose()
                .map_err(stream_error)?,
            stderr: streams
                .stderr
                .filter(|_| wanted.stderr)
                .map(reader)
                .transpose()
                .map_err(stream_error)?,
            resize,
            exit: self.wait(container),
        })
    }
}

impl Runtime for ProcessRuntime {
    fn info(&self) -> RuntimeInfo {
        RuntimeInfo {
            name: "coracle".to_owned(),
            version: self.version.clone(),
            mounts: self.spawner.mounts(),
        }
    }

    fn start(&self, spec: ContainerSpec) -> BoxFuture<'_, Result<Started, Error>> {
        async move {
            let container = spec.container.clone();
            let seated = self.seat(&spec)?;
            let started = self
                .spawner
                .launch(&launch_spec(&spec, seated, self.spawner.mounts()))
                .await
                .map_err(|error| failure(&container, error))?;
            Ok(started_of(started))
        }
        .boxed()
    }

    fn wait(&self, container: &ContainerRef) -> BoxFuture<'static, Result<Exit, Error>> {
        let (container, spawner) = (container.clone(), self.spawner.clone());
        async move {
            spawner
                .wait(&container.state_dir)
                .await
                .map(exit_of)
                .map_err(|error| failure(&container, error))
        }
        .boxed()
    }

    fn recover(&self, container: &ContainerRef) -> BoxFuture<'_, Result<Recovered, Error>> {
        let container = container.clone();
        async move {
            let found = spawner::recover(&container.state_dir)
                .await
                .map_err(|error| failure(&container, error))?;
            Ok(match found {
                spawner::Recovered::Running(started) => Recovered::Running(started_of(started)),
                spawner::Recovered::Exited(exit)
                    if exit.problem == Some(spawner::ExitProblem::Lost) =>
                {
                    Recovered::Lost
                }
                spawner::Recovered::Exited(exit) => Recovered::Exited(exit_of(exit)),
                spawner::Recovered::Unknown => Recovered::NotStarted,
            })
        }
        .boxed()
    }

    fn signal(&self, container: &ContainerRef, signal: i32) -> BoxFuture<'_, Result<(), Error>> {
        let container = container.clone();
        async move {
            let target = running(&container).await?;
            spawner::signal(&target, signal).map_err(|error| failure(&container, error))
        }
        .boxed()
    }

    fn exec(
        &self,
        container: &ContainerRef,
        spec: ExecSpec,
    ) -> BoxFuture<'_, Result<Streams, Error>> {
        let container = container.clone();
        async move { self.run(&container, spec).await }.boxed()
    }

    fn attach(
        &self,
        container: &ContainerRef,
        spec: ExecSpec,
    ) -> BoxFuture<'_, Result<Streams, Error>> {
        let container = container.clone();
        async move { self.connect(&container, spec).await }.boxed()
    }

    fn stats(&self, container: &ContainerRef) -> BoxFuture<'_, Result<Stats, Error>> {
        let container = container.clone();
        async move {
            let target = running(&container).await?;
            let stats = spawner::stats(&target).map_err(|error| failure(&container, error))?;
            Ok(Stats {
                cpu: Duration::from_micros(stats.cpu_micros),
                memory: stats.memory,
                processes: stats.processes,
            })
        }
        .boxed()
    }

    fn remove(&self, _container: &ContainerRef) -> BoxFuture<'_, Result<(), Error>> {
        // Nothing outlives a container but the files in its state directory, which the caller removes.
        std::future::ready(Ok(())).boxed()
    }
}

/// The running process of a container.
async fn running(container: &ContainerRef) -> Result<spawner::Started, Error> {
    let found = spawner::recover(&container.state_dir)
        .await
        .map_err(|error| failure(container, error))?;
    match found {
        spawner::Recovered::Running(started) => Ok(started),
        _ => Err(Error::NotRunning(container.id.clone())),
    }
}

async fn read_spec(container: &ContainerRef) -> Result<ContainerSpec, Error> {
    let path = container.state_dir.join(SPEC_FILE);
    let bytes = tokio::fs::read(&path)
        .await
        .map_err(|error| Error::Unavailable(format!("read {}: {error}", path.display())))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::Unavailable(format!("read {}: {error}", path.display())))
}

/// What went wrong, in the kubelet's words.
fn failure(container: &ContainerRef, error: spawner::Error) -> Error {
    use spawner::StartStep;
    const NO_SUCH_PROCESS: i32 = rustix::io::Errno::SRCH.raw_os_error();
    match error {
        spawner::Error::NotStarted(error) => match error.step {
            StartStep::Isolate if error.errno == Some(NO_SUCH_PROCESS) => {
                Error::NotRunning(container.id.clone())
            }
            StartStep::Exec | StartStep::WorkingDir => Error::CannotRun {
                exit_code: error.exit_code(),
                message: error.message,
            },
            _ => Error::Setup(error.message),
        },
        spawner::Error::NotRunning(_) => Error::NotRunning(container.id.clone()),
        other => Error::Unavailable(stdx::error::chain(&other)),
    }
}

fn started_of(started: spawner::Started) -> Started {
    Started {
        pid: started.pid.unsigned_abs(),
        at: started.started_at,
        warnings: started.warnings,
    }
}

fn exit_of(exit: spawner::Exit) -> Exit {
    let message = exit.problem.as_ref().map(|problem| match problem {
        spawner::ExitProblem::Start(error) => error.message.clone(),
        spawner::ExitProblem::Lost => {
            "the container's monitor was killed, and how the container ended is not known"
                .to_owned()
        }
    });
    Exit {
        code: exit.exit_code,
        signal: exit.signal,
        // Without a control group nobody tells us why a process was killed.
        oom_killed: false,
        message,
        at: exit.finished_at,
    }
}

fn working_dir(spec: &ContainerSpec) -> Option<String> {
    spec.working_dir
        .as_ref()
        .map(|dir| dir.to_string_lossy().into_owned())
}

fn user(security: &SecuritySpec) -> UserSpec {
    UserSpec {
        uid: security.user,
        gid: security.group,
        groups: security.supplemental_groups.clone(),
        no_new_privs: security.no_new_privileges,
        privileged: security.privileged,
        cap_add: security.add_capabilities.clone(),
        cap_drop: security.drop_capabilities.clone(),
    }
}

/// What is executed: the program and its arguments.
fn program(spec: &ContainerSpec) -> (Program, Vec<String>) {
    let mut argv = spec.argv();
    let shell = spec
        .command
        .first()
        .map(|command| Path::new(command).file_name());
    let is_shell =
        shell.is_some_and(|name| SHELLS.iter().any(|shell| name == Some(shell.as_ref())));
    match &spec.image.kind {
        ImageKind::BuiltIn(program) if !is_shell && !from_elsewhere(spec) => {
            // The first word of a command names the original's executable, which this program replaces.
            let rest = argv.split_off(usize::from(!spec.command.is_empty()).min(argv.len()));
            let args = ["image".to_owned(), program.clone()]
                .into_iter()
                .chain(rest);
            (Program::SelfExe, args.collect())
        }
        _ if argv.is_empty() => (Program::Path(String::new()), Vec::new()),
        _ => {
            let args = argv.split_off(1);
            (Program::Path(argv.remove(0)), args)
        }
    }
}

/// Whether the command is a program of an image volume.
fn from_elsewhere(spec: &ContainerSpec) -> bool {
    spec.env.iter().any(|(name, _)| name == IMAGE_VARIABLE)
}

/// Where nothing is mounted, a program that a mount would have brought is found at the mount's source.
fn without_mounts(program: Program, spec: &ContainerSpec) -> Program {
    let Program::Path(path) = &program else {
        return program;
    };
    let found = spec.mounts.iter().find_map(|mount| {
        let below = Path::new(path).strip_prefix(&mount.target).ok()?;
        (!below.as_os_str().is_empty()).then(|| mount.source.join(below))
    });
    found.map_or(program, |path| {
        Program::Path(path.to_string_lossy().into_owned())
    })
}

fn launch_spec(
    spec: &ContainerSpec,
    seated: Option<Seated>,
    has_mounts: bool,
) -> spawner::ContainerSpec {
    let (mut program, mut args) = program(spec);
    if !has_mounts && from_elsewhere(spec) {
        program = without_mounts(program, spec);
    }
    let (env, mounts) = match seated {
        Some(seated) => {
            if seated.helped {
                program = Program::SelfExe;
                args = spec.argv();
                args.insert(0, python::PROGRAM.to_owned());
            }
            (seated.env, seated.mounts)
        }
        None => (spec.env.clone(), Vec::new()),
    };
    spawner::ContainerSpec {
        id: spec.container.id.clone(),
        state_dir: spec.container.state_dir.clone(),
        log: Some(spawner::LogSpec {
            path: spec.log.path.clone(),
            max_bytes: spec.log.max_bytes,
            max_files: spec.log.max_files,
        }),
        program,
        args,
        env,
        cwd: working_dir(spec),
        hostname: spec.hostname.clone(),
        mounts: mounts
            .iter()
            .chain(&spec.mounts)
            .map(|mount| {
                MountSpec::bind(
                    &mount.source,
                    mount.target.to_string_lossy(),
                    mount.read_only,
                )
            })
            .collect(),
        etc_dir: spec.hosts_dir.clone(),
        read_only_root: spec.security.read_only_root,
        user: user(&spec.security),
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
        ..spawner::ContainerSpec::default()
    }
}

/// The near ends of a command's streams.
struct Near {
    stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    resize: Box<dyn Fn(TerminalSize) + Send + Sync>,
}

fn pipes(wanted: &ExecSpec) -> io::Result<(Near, Stdio)> {
    let mut near = Near {
        stdin: None,
        stdout: None,
        stderr: None,
        resize: Box::new(|_| {}),
    };
    let mut far = Stdio::default();
    if wanted.stdin {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        far.stdin = Some(read);
        near.stdin = Some(writer(write)?);
    }
    if wanted.stdout {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        far.stdout = Some(write);
        near.stdout = Some(reader(read)?);
    }
    if wanted.stderr {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        far.stderr = Some(write);
        near.stderr = Some(reader(read)?);
    }
    Ok((near, far))
}

fn terminal() -> io::Result<(Near, Stdio)> {
    let pty = pty::open()?;
    let far = Stdio {
        stdin: Some(pty.slave.try_clone()?),
        stdout: Some(pty.slave.try_clone()?),
        stderr: Some(pty.slave),
    };
    let near = Near {
        stdin: Some(writer(pty.master.try_clone()?)?),
        stdout: Some(reader(pty.master.try_clone()?)?),
        stderr: None,
        resize: resizer(pty.master),
    };
    Ok((near, far))
}

fn resizer(terminal: OwnedFd) -> Box<dyn Fn(TerminalSize) + Send + Sync> {
    Box::new(move |size: TerminalSize| {
        if let Err(error) = pty::resize(terminal.as_fd(), size.width, size.height) {
            tracing::debug!(%error, "a terminal could not be resized");
        }
    })
}

fn no_waiting(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

fn writer(fd: OwnedFd) -> io::Result<Box<dyn AsyncWrite + Send + Unpin>> {
    no_waiting(&fd)?;
    // A terminal is no pipe, but can be waited for like one.
    Ok(Box::new(pipe::Sender::from_owned_fd_unchecked(fd)?))
}

fn reader(fd: OwnedFd) -> io::Result<Box<dyn AsyncRead + Send + Unpin>> {
    no_waiting(&fd)?;
    Ok(Box::new(Output(pipe::Receiver::from_owned_fd_unchecked(
        fd,
    )?)))
}

/// Reads a pipe or a terminal. A terminal whose far end is closed answers with an error, where a
/// pipe just ends.
struct Output(pipe::Receiver);

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        const HUNG_UP: i32 = rustix::io::Errno::IO.raw_os_error();
        match Pin::new(&mut self.0).poll_read(context, buffer) {
            Poll::Ready(Err(error)) if error.raw_os_error() == Some(HUNG_UP) => Poll::Ready(Ok(())),
            other => other,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
