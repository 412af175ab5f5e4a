//! Running a command inside a container that runs.
//!
//! A process forked from the spawner joins the namespaces of the container's monitor, forks the
//! command and waits for it. It ends the command when its caller goes away or the container ends.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::Mode;
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::ThreadNameSpaceType;

use crate::identity;
use crate::isolation::Isolation;
use crate::process::{self, Command, Target};
use crate::root::describe;
use crate::spec::{ExecExit, ExecSpec, StartError, StartStep, Started};
use crate::state;
use crate::sys::{self, Forked, Reaped};
use crate::wire::{self, Reply};

/// What the spawner gives an exec.
#[derive(Debug)]
pub(crate) struct Enter<'a> {
    pub(crate) target: &'a Started,
    pub(crate) spec: &'a ExecSpec,
    pub(crate) caller: BorrowedFd<'a>,
    /// Which of stdin, stdout and stderr come in `fds`.
    pub(crate) stdio: [bool; 3],
    pub(crate) fds: &'a [OwnedFd],
    pub(crate) isolation: &'a Isolation,
}

/// Runs one command; the process exists for nothing else.
pub(crate) fn run(enter: &Enter<'_>) -> ! {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| supervise(enter)));
    sys::exit_now(i32::from(outcome.is_err()))
}

fn isolate(what: &str) -> impl FnOnce(io::Error) -> StartError + use<> {
    let what = what.to_owned();
    move |error| StartError {
        step: StartStep::Isolate,
        message: format!("{what}: {}", describe(&error)),
        errno: error.raw_os_error(),
    }
}

fn supervise(enter: &Enter<'_>) {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"coracle-exec");
    let mut keep: Vec<RawFd> = enter.fds.iter().map(AsRawFd::as_raw_fd).collect();
    keep.push(enter.caller.as_raw_fd());
    sys::close_all_except(&keep);
    match start(enter) {
        Ok((pid, monitor, signals)) => {
            wire::reply(enter.caller, &Reply::Running { pid }, &[]);
            let ended = wait(enter.caller, monitor.as_fd(), signals.as_fd(), pid);
            let exit = ExecExit {
                exit_code: ended.code,
                signal: ended.signal,
            };
            wire::reply(enter.caller, &Reply::Ended(exit), &[]);
        }
        Err(error) => wire::reply(enter.caller, &Reply::NotStarted(error), &[]),
    }
}

fn start(enter: &Enter<'_>) -> Result<(i32, OwnedFd, OwnedFd), StartError> {
    let (target, spec) = (enter.target, enter.spec);
    let signals = sys::signals_as_fd(&[libc::SIGCHLD]).map_err(isolate("watch signals"))?;
    let proc = state::open_proc().map_err(isolate("open /proc"))?;
    let monitor = open_monitor(target).map_err(isolate("find the container"))?;
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = identity::ids(&spec.user, &passwd);
    let power = enter.isolation.power();
    join(target.monitor_pid, monitor.as_fd(), proc.as_fd())
        .map_err(isolate("join the container's namespaces"))?;
    rustix::process::umask(Mode::from_raw_mode(0o077));

    let null = process::null_device().map_err(isolate("open /dev/null"))?;
    let mut given = enter.fds.iter();
    let mut stdio = [null.as_raw_fd(); 3];
    for (number, wanted) in enter.stdio.iter().enumerate() {
        if *wanted && let Some(fd) = given.next() {
            stdio[number] = fd.as_raw_fd();
        }
    }
    let (mut near, far) = UnixStream::pair().map_err(isolate("make a socket pair"))?;
    let forked = sys::fork().map_err(isolate("fork"))?;
    let Forked::Parent(pid) = forked else {
        drop(near);
        let command = Command {
            program: Target::of_exec(spec),
            env: process::environment(&spec.env, ids.0, &passwd),
            cwd: spec.cwd.as_deref().unwrap_or("/"),
            user: &spec.user,
            ids,
            power,
            tty: spec.tty,
            stdio,
        };
        let error = process::become_command(&command, far.as_fd(), true);
        process::report_and_exit(far, &error)
    };
    drop(far);
    // What was given belongs to the command alone: the other side waits for its end.
    for fd in enter.fds {
        sys::close(fd.as_fd());
    }
    let mut report = Vec::new();
    near.read_to_end(&mut report)
        .map_err(isolate("wait for exec"))?;
    if report.is_empty() {
        return Ok((pid, monitor, signals));
    }
    drop(sys::reap(true));
    Err(
        serde_json::from_slice(&report).unwrap_or_else(|_| StartError {
            step: StartStep::Exec,
            message: "the command's process died before exec".to_owned(),
            errno: None,
        }),
    )
}

/// A pidfd of the container's monitor, if that is still the same process.
fn open_monitor(target: &Started) -> io::Result<OwnedFd> {
    let gone = || io::Error::from_raw_os_error(libc::ESRCH);
    let pid = Pid::from_raw(target.monitor_pid).ok_or_else(gone)?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    // Asked after the pidfd was had, which then cannot be another process's.
    // The monitor outlives its container for as long as it takes to clear up.
    let over = state::read_exit(&target.state_dir)?.is_some();
    if !over && state::lives(target.monitor_pid, target.monitor_start_time) {
        Ok(pidfd)
    } else {
        Err(gone())
    }
}

/// Joins those namespaces of the monitor that are not our own.
fn join(pid: i32, monitor: BorrowedFd<'_>, proc: BorrowedFd<'_>) -> io::Result<()> {
    let mut wanted = ThreadNameSpaceType::empty();
    for (name, kind) in [
        ("user", ThreadNameSpaceType::USER),
        ("mnt", ThreadNameSpaceType::MOUNT),
        ("uts", ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
        ("pid", ThreadNameSpaceType::PROCESS_ID),
    ] {
        let theirs = rustix::fs::readlinkat(proc, format!("{pid}/ns/{name}"), Vec::new())?;
        let ours = rustix::fs::readlinkat(proc, format!("self/ns/{name}"), Vec::new())?;
        if theirs != ours {
            wanted |= kind;
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    // One call for all: their order matters, and the kernel knows it.
    Ok(rustix::thread::move_into_thread_name_spaces(
        monitor, wanted,
    )?)
}

/// Waits for the command; kills it when nobody waits for it or its container has ended.
fn wait(
    caller: BorrowedFd<'_>,
    monitor: BorrowedFd<'_>,
    signals: BorrowedFd<'_>,
    pid: i32,
) -> Reaped {
    let mut watched = true;
    loop {
        sys::drain_signals(signals);
        while let Ok(Some(reaped)) = sys::reap(false) {
            if reaped.pid == pid {
                return reaped;
            }
        }
        let mut fds = vec![PollFd::from_borrowed_fd(signals, PollFlags::IN)];
        if watched {
            fds.push(PollFd::from_borrowed_fd(caller, PollFlags::IN));
            fds.push(PollFd::from_borrowed_fd(monitor, PollFlags::IN));
        }
        let _ = rustix::event::poll(&mut fds, None);
        if fds.iter().skip(1).any(|fd| !fd.revents().is_empty()) {
            watched = false;
            // The command leads its own group; it may have gone a moment ago.
            drop(sys::kill(-pid, libc::SIGKILL));
        }
    }
}
