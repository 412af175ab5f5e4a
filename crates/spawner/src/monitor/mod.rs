//! The monitor: one small process per container, forked from the spawner, that starts the container's
//! program, keeps its log and writes down how it ended. It depends on nobody: the death of server and
//! spawner loses neither an exit code nor a line.
//!
//! Where a pid namespace can be had, the monitor is its first process. So the container's program is
//! number 2, and a `SIGTERM` ends it as it would anywhere (the kernel shields a first process that
//! handles no signals, and a shell that runs as one must be killed after the grace period), orphans are
//! reaped, and the end of the monitor, however it comes, ends everything inside. Elsewhere the
//! monitor is the *subreaper* of its descendants and hunts them down one by one.

mod io;
mod tables;

pub(crate) use io::{ATTACH_SOCKET, Attached};

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, Mode};
use stdx::Clock;

use crate::identity::{self, Power};
use crate::isolation::Isolation;
use crate::process::{self, Command, Target};
use crate::root::{self, Prepared, describe};
use crate::spec::{ContainerSpec, Exit, ExitProblem, StartError, StartStep, Started};
use crate::sys::{self, Forked, Reaped};
use crate::wire::{self, Incoming, Reply};
use crate::{spec::Usage, state};

/// What the spawner gives a monitor.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) spec: &'a ContainerSpec,
    /// Where to answer.
    pub(crate) caller: BorrowedFd<'a>,
    /// The state folder, locked until the container has started.
    pub(crate) state: BorrowedFd<'a>,
    /// The program for [`crate::Program::SelfExe`].
    pub(crate) exe: BorrowedFd<'a>,
    /// Leases to keep open.
    pub(crate) held: &'a [RawFd],
    pub(crate) isolation: &'a Isolation,
    /// Where roots are put together.
    pub(crate) anchor: &'a Path,
}

/// A container whose program runs.
struct Running {
    started: Started,
    /// The program's pid as this process sees it.
    pid: i32,
    streams: io::Streams,
}

/// Runs one container from start to end; the process exists for nothing else.
pub(crate) fn run(launch: &Launch<'_>) -> ! {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut keep = launch.held.to_vec();
        keep.extend([&launch.caller, &launch.exe, &launch.state].map(AsRawFd::as_raw_fd));
        become_monitor(&keep);
        supervise(launch, None);
    }));
    sys::exit_now(i32::from(result.is_err()))
}

/// What a monitor is given that is made before its container is asked for.
#[derive(Debug)]
pub(crate) struct Reserve<'a> {
    /// Where it hears of its container; it ends when the other side does.
    pub(crate) orders: OwnedFd,
    /// The ids that its container is going to have.
    pub(crate) ids: (u32, u32),
    pub(crate) exe: BorrowedFd<'a>,
    pub(crate) held: &'a [RawFd],
    pub(crate) isolation: &'a Isolation,
    pub(crate) anchor: &'a Path,
}

/// Puts a root together, waits for the container it is for, and runs that from start to end.
pub(crate) fn wait_and_run(reserve: &Reserve<'_>) -> ! {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut keep = reserve.held.to_vec();
        keep.extend([reserve.orders.as_raw_fd(), reserve.exe.as_raw_fd()]);
        become_monitor(&keep);
        let prepared = || -> Option<Prepared> {
            let proc = state::open_proc().ok()?;
            let (uid, gid) = reserve.ids;
            reserve.isolation.map_ids(proc.as_fd(), uid, gid).ok()?;
            let own_proc = reserve.isolation.pid_namespace(&ContainerSpec::default());
            root::prepare(reserve.anchor, false, own_proc).ok()
        };
        // What does not work now fails again when there is somebody to be told.
        let prepared = prepared();
        let Ok(Some((frame, fds))) = Incoming::default().receive(&reserve.orders) else {
            return;
        };
        let (Ok(spec), [caller, state]) = (serde_json::from_slice(&frame), fds.as_slice()) else {
            return;
        };
        sys::close(reserve.orders.as_fd());
        let launch = Launch {
            spec: &spec,
            caller: caller.as_fd(),
            state: state.as_fd(),
            exe: reserve.exe,
            held: reserve.held,
            isolation: reserve.isolation,
            anchor: reserve.anchor,
        };
        supervise(&launch, prepared);
    }));
    sys::exit_now(i32::from(result.is_err()))
}

fn become_monitor(keep: &[RawFd]) {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"coracle-monitor");
    rustix::process::umask(Mode::from_raw_mode(0o077));
    sys::close_all_except(keep);
}

fn now() -> Timestamp {
    stdx::SystemClock::new().now()
}

fn files_error(what: &str, error: &std::io::Error) -> StartError {
    StartError {
        step: StartStep::Files,
        message: format!("{what}: {}", describe(error)),
        errno: error.raw_os_error(),
    }
}

fn supervise(launch: &Launch<'_>, prepared: Option<Prepared>) {
    let state = launch.state;
    let signals = sys::signals_as_fd(&[libc::SIGCHLD]);
    let started = signals
        .map_err(|error| files_error("watch signals", &error))
        .and_then(|signals| Ok((start(launch, state, prepared)?, signals)));
    match started {
        Ok((mut running, signals)) => {
            let reply = Reply::Started(Box::new(running.started.clone()));
            wire::reply(launch.caller, &reply, &[]);
            let ended = running.streams.copy_until_end(running.pid, signals.as_fd());
            let own_pid_namespace = launch.isolation.pid_namespace(launch.spec);
            end_descendants(running.started.monitor_pid, own_pid_namespace);
            running.streams.drain();
            let exit = record(state, &running, ended);
            // The end of this process would say the same, but the kernel takes its time to take the
            // namespaces down before it tells. A caller that is gone finds the file.
            wire::reply(launch.caller, &Reply::Exited(Box::new(exit)), &[]);
            sys::close(launch.caller);
            running.streams.flush_clients();
        }
        Err(error) => {
            let exit = Exit {
                id: launch.spec.id.clone(),
                exit_code: error.exit_code(),
                signal: None,
                problem: Some(ExitProblem::Start(error.clone())),
                started_at: None,
                finished_at: now(),
                pid: 0,
                start_time: 0,
                usage: Usage::default(),
            };
            // The caller hears the error itself; the file is for a server that has just died.
            drop(state::write(state, state::EXIT_FILE, &exit));
            wire::reply(launch.caller, &Reply::NotStarted(error), &[]);
        }
    }
}

fn start(
    launch: &Launch<'_>,
    state: BorrowedFd<'_>,
    prepared: Option<Prepared>,
) -> Result<Running, StartError> {
    let (spec, isolation) = (launch.spec, launch.isolation);
    let fail = |step: StartStep, what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| StartError {
            step,
            message: format!("{what}: {}", describe(&error)),
            errno: error.raw_os_error(),
        }
    };
    let files = |what: &str| fail(StartStep::Files, what);
    let isolate = |what: &str| fail(StartStep::Isolate, what);

    let proc = state::open_proc().map_err(files("open /proc"))?;
    let monitor_pid = host_pid(proc.as_fd()).map_err(files("read /proc/self"))?;
    let monitor_start_time =
        state::start_time(proc.as_fd(), monitor_pid).map_err(files("read /proc/self/stat"))?;
    let boot_id = state::boot_id();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let (uid, gid) = identity::ids(&spec.user, &passwd);
    let power = isolation.power();

    let mut streams = io::Streams::open(spec, state, (power == Power::Root).then_some((uid, gid)))?;
    let mut warnings = identity::warnings(&spec.user, power);
    let mut env = process::environment(&spec.env, uid, &passwd);
    let mut cwd = spec.cwd.clone().unwrap_or_else(|| "/".to_owned());

    if prepared.is_none() {
        isolation
            .map_ids(proc.as_fd(), uid, gid)
            .map_err(isolate("map user and group"))?;
    }
    let own_proc = isolation.pid_namespace(spec);
    if !own_proc {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| isolate("adopt orphans")(error.into()))?;
    }
    if isolation.mounts {
        match prepared {
            Some(prepared) => root::finish(prepared, spec)?,
            None => root::enter(spec, own_proc, launch.anchor)?,
        }
        if let Some(hostname) = &spec.hostname {
            rustix::system::sethostname(hostname.as_bytes())
                .map_err(|error| isolate("set host name")(error.into()))?;
        }
    } else {
        let tables = tables::write(spec, state).map_err(files("write mount tables"))?;
        env.extend(tables.env);
        warnings.extend(tables.warnings);
        cwd = tables.cwd;
    }
    rustix::process::umask(Mode::from_raw_mode(0o077));

    let (mut near, far) = UnixStream::pair().map_err(isolate("make a socket pair"))?;
    let child = sys::fork().map_err(isolate("fork"))?;
    let Forked::Parent(pid) = child else {
        drop(near);
        let command = Command {
            program: Target::of_container(spec, launch.exe),
            env,
            cwd: &cwd,
            user: &spec.user,
            ids: (uid, gid),
            power,
            tty: spec.tty,
            stdio: streams.far_ends(),
        };
        child_main(&command, spec, own_proc, proc.as_fd(), far)
    };
    drop(far);
    streams.close_far_ends();
    let mut number = [0; 4];
    near.read_exact(&mut number)
        .map_err(isolate("hear from the container's process"))?;
    let started = Started {
        id: spec.id.clone(),
        state_dir: spec.state_dir.clone(),
        pid: i32::from_ne_bytes(number),
        start_time: state::start_time(proc.as_fd(), i32::from_ne_bytes(number))
            .map_err(isolate("read the container's start time"))?,
        monitor_pid,
        monitor_start_time,
        boot_id,
        started_at: now(),
        warnings,
    };
    state::write(state, state::PID_FILE, &started).map_err(files("write pid file"))?;
    rustix::fs::flock(state, FlockOperation::Unlock)
        .map_err(|error| files("unlock state folder")(error.into()))?;
    near.write_all(&[1])
        .map_err(isolate("release the container's process"))?;
    let mut report = Vec::new();
    near.read_to_end(&mut report)
        .map_err(isolate("wait for exec"))?;
    if report.is_empty() {
        return Ok(Running {
            started,
            pid,
            streams,
        });
    }
    // The process ends by itself after its report.
    drop(sys::reap(true));
    Err(
        serde_json::from_slice(&report).unwrap_or_else(|_| StartError {
            step: StartStep::Exec,
            message: "the container's process died before exec".to_owned(),
            errno: None,
        }),
    )
}

/// The number the host knows this process by, through the host's `/proc`.
pub(crate) fn host_pid(proc: BorrowedFd<'_>) -> std::io::Result<i32> {
    let link = rustix::fs::readlinkat(proc, "self", Vec::new())?;
    link.to_str()
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "/proc/self"))
}

/// The container's process until exec.
fn child_main(
    command: &Command<'_>,
    spec: &ContainerSpec,
    own_pid_namespace: bool,
    proc: BorrowedFd<'_>,
    mut monitor: UnixStream,
) -> ! {
    let pid = host_pid(proc).unwrap_or(0);
    let mut go = [0];
    if monitor.write_all(&pid.to_ne_bytes()).is_err() || monitor.read_exact(&mut go).is_err() {
        sys::exit_now(1);
    }
    if let Some(adjustment) = spec.oom_score_adj {
        identity::oom_score(proc, adjustment);
    }
    let error = match identity::limit(&spec.rlimits) {
        Ok(()) => process::become_command(command, monitor.as_fd(), !own_pid_namespace),
        Err(error) => StartError {
            step: StartStep::Isolate,
            message: format!("set resource limits: {}", describe(&error)),
            errno: error.raw_os_error(),
        },
    };
    process::report_and_exit(monitor, &error)
}

/// Ends whatever the program left behind.
fn end_descendants(monitor: i32, own_pid_namespace: bool) {
    loop {
        if own_pid_namespace {
            sys::kill_all(libc::SIGKILL);
        } else if let Ok(proc) = state::open_proc() {
            for pid in state::descendants(proc.as_fd(), monitor) {
                drop(sys::kill(pid, libc::SIGKILL));
            }
        }
        // Each one that ends may hand us its children; no more children means that all are gone.
        if sys::reap(true).is_err() {
            return;
        }
    }
}

fn record(state: BorrowedFd<'_>, running: &Running, ended: Reaped) -> Exit {
    let exit = Exit {
        id: running.started.id.clone(),
        exit_code: ended.code,
        signal: ended.signal,
        problem: None,
        started_at: Some(running.started.started_at),
        finished_at: now(),
        pid: running.started.pid,
        start_time: running.started.start_time,
        usage: ended.usage,
    };
    // A full disk cannot be told to anyone from here; the container then counts as lost.
    drop(state::write(state, state::EXIT_FILE, &exit));
    exit
}
