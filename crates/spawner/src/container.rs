//! What can be done to a container through its state folder alone, with or without a spawner.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::process::{Pid, PidfdFlags};
use stdx::Clock;
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::error::{Error, Result};
use crate::monitor::{ATTACH_SOCKET, Attached};
use crate::spec::{Exit, ExitProblem, Started, Usage};
use crate::wire::Incoming;
use crate::{state, sys};

/// What became of a container.
#[derive(Debug, Clone, PartialEq)]
pub enum Recovered {
    /// It runs.
    Running(Started),
    /// It has ended, or never started.
    Exited(Exit),
    /// It was never launched.
    Unknown,
}

/// What a container uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time of its living processes and their reaped children, microseconds.
    pub cpu_micros: u64,
    /// Resident memory in bytes.
    pub memory: u64,
    /// Processes.
    pub processes: u32,
}

/// The near ends of a container's own streams.
#[derive(Debug)]
pub struct Streams {
    /// Standard output, or the terminal's output.
    pub stdout: OwnedFd,
    /// Standard error; None with a terminal.
    pub stderr: Option<OwnedFd>,
    /// Standard input if it is open; with a terminal, the terminal (see [`crate::pty::resize`]).
    pub stdin: Option<OwnedFd>,
    /// Whether the container has a terminal.
    pub tty: bool,
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { what, source }
}

/// Finds out what became of the container of a state folder. Call it after
/// [`crate::Spawner::start_or_attach`]: then a launch that a former server had sent is either
/// carried out or will never be.
pub async fn recover(state_dir: &Path) -> Result<Recovered> {
    if let Some(found) = look(state_dir)? {
        return Ok(found);
    }
    // It may be about to start: the folder is locked until it has, or has failed.
    let dir = match std::fs::File::open(state_dir) {
        // The crash came before anything was prepared.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Recovered::Unknown),
        opened => opened.map_err(io_error("open state folder"))?,
    };
    let locked =
        tokio::task::spawn_blocking(move || rustix::fs::flock(&dir, FlockOperation::LockExclusive));
    match locked.await {
        Ok(outcome) => outcome.map_err(|error| io_error("lock state folder")(error.into()))?,
        Err(error) => return Err(Error::Protocol(error.to_string())),
    }
    Ok(look(state_dir)?.unwrap_or(Recovered::Unknown))
}

fn look(state_dir: &Path) -> Result<Option<Recovered>> {
    if let Some(exit) = state::read_exit(state_dir).map_err(io_error("read exit file"))? {
        return Ok(Some(Recovered::Exited(exit)));
    }
    let Some(started) = state::read_started(state_dir).map_err(io_error("read pid file"))? else {
        return Ok(None);
    };
    if monitor_lives(&started) {
        return Ok(Some(Recovered::Running(started)));
    }
    // The exit file comes before the monitor's end.
    ended(state_dir, &started).map(|exit| Some(Recovered::Exited(exit)))
}

fn monitor_lives(started: &Started) -> bool {
    started.boot_id == state::boot_id()
        && state::lives(started.monitor_pid, started.monitor_start_time)
}

/// Waits for the end of a container. It may be asked again and again, and by any process, as long as
/// the state folder is there.
pub async fn wait(state_dir: &Path) -> Result<Exit> {
    let started = match recover(state_dir).await? {
        Recovered::Exited(exit) => return Ok(exit),
        Recovered::Unknown => return Err(Error::NotRunning(state_dir.display().to_string())),
        Recovered::Running(started) => started,
    };
    let monitor = Pid::from_raw(started.monitor_pid)
        .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).ok());
    if let Some(monitor) = monitor
        && monitor_lives(&started)
    {
        let monitor = sys::watch_readable(monitor).map_err(io_error("watch monitor"))?;
        drop(
            monitor
                .readable()
                .await
                .map_err(io_error("watch monitor"))?,
        );
    }
    ended(state_dir, &started)
}

/// How a container whose monitor is gone has ended.
fn ended(state_dir: &Path, started: &Started) -> Result<Exit> {
    if let Some(exit) = state::read_exit(state_dir).map_err(io_error("read exit file"))? {
        return Ok(exit);
    }
    // The monitor was killed, or the machine restarted. What the kernel has not ended with it,
    // we end; then the loss is written down, so that everyone hears the same.
    if started.boot_id == state::boot_id() && state::lives(started.pid, started.start_time) {
        drop(sys::kill(-started.pid, libc::SIGKILL));
    }
    let exit = Exit {
        id: started.id.clone(),
        exit_code: 128 + libc::SIGKILL,
        signal: None,
        problem: Some(ExitProblem::Lost),
        started_at: Some(started.started_at),
        finished_at: stdx::SystemClock::new().now(),
        pid: started.pid,
        start_time: started.start_time,
        usage: Usage::default(),
    };
    let dir = std::fs::File::open(state_dir).map_err(io_error("open state folder"))?;
    state::write(dir.as_fd(), state::EXIT_FILE, &exit).map_err(io_error("write exit file"))?;
    Ok(exit)
}

/// Sends a signal to the container's process group; `SIGKILL` ends everything in it.
pub fn signal(started: &Started, signal: i32) -> Result<()> {
    let not_running = || Error::NotRunning(started.id.clone());
    let pid = Pid::from_raw(started.pid).ok_or_else(not_running)?;
    if started.boot_id != state::boot_id() {
        return Err(not_running());
    }
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|_| not_running())?;
    // Asked after the pidfd was had, which then cannot be another process's.
    if !state::lives(started.pid, started.start_time) {
        return Err(not_running());
    }
    let failed = |source| Error::Signal {
        id: started.id.clone(),
        source,
    };
    // The monitor ends the rest once the first process is dead; the group hears of it sooner. Nothing
    // is asked afterwards: the signal may have ended it, and the monitor reaped it, by then.
    match sys::pidfd_signal(pidfd.as_fd(), 0).and_then(|()| sys::kill(-started.pid, signal)) {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(not_running()),
        Err(error) => Err(failed(error)),
    }
}

/// What a container uses now; all zero when it has ended.
pub fn stats(started: &Started) -> Result<Stats> {
    let mut stats = Stats::default();
    if !monitor_lives(started) {
        return Ok(stats);
    }
    let proc = state::open_proc().map_err(io_error("open /proc"))?;
    for pid in state::descendants(proc.as_fd(), started.monitor_pid) {
        if let Some((cpu_micros, memory)) = state::usage(proc.as_fd(), pid) {
            stats.cpu_micros += cpu_micros;
            stats.memory += memory;
            stats.processes += 1;
        }
    }
    Ok(stats)
}

/// Connects to a running container's own streams. Output from now on is delivered.
pub async fn attach(state_dir: &Path) -> Result<Streams> {
    let dir = std::fs::File::open(state_dir).map_err(io_error("open state folder"))?;
    // The folder's own path may be too long for a socket address.
    let path = format!("/proc/self/fd/{}/{ATTACH_SOCKET}", dir.as_raw_fd());
    let socket = UnixStream::connect(path)
        .await
        .map_err(io_error("connect to the container"))?;
    let mut incoming = Incoming::default();
    let answer = socket
        .async_io(Interest::READABLE, || incoming.receive(socket.as_fd()))
        .await
        .map_err(io_error("hear from the container"))?;
    let Some((frame, fds)) = answer else {
        return Err(Error::NotRunning(state_dir.display().to_string()));
    };
    let attached: Attached =
        serde_json::from_slice(&frame).map_err(|error| Error::Protocol(error.to_string()))?;
    let mut fds = fds.into_iter();
    let mut next = || {
        fds.next()
            .ok_or_else(|| Error::Protocol("a stream is missing".to_owned()))
    };
    Ok(Streams {
        stdout: next()?,
        stderr: if attached.tty { None } else { Some(next()?) },
        stdin: if attached.stdin { Some(next()?) } else { None },
        tty: attached.tty,
    })
}
