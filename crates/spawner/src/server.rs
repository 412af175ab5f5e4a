//! The spawner process: accepts requests, forks a monitor or an exec for each, holds leases, and ends
//! when nobody needs it any more.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::net::sockopt::Timeout;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::enter::{self, Enter};
use crate::identity::{self, Power};
use crate::isolation::{self, Isolation};
use crate::monitor::{self, Launch, Reserve};
use crate::root::describe;
use crate::spec::{Capabilities, ContainerSpec, ExecSpec, StartError, StartStep, Started};
use crate::sys::{self, Forked};
use crate::wire::{self, Body, ExeId, Incoming, Outgoing, PROTOCOL, Reply, Request};
use crate::{process, state};

/// The socket in the data directory.
pub(crate) const SOCKET: &str = "spawner.sock";
/// The lock in the data directory that makes the spawner the only one.
const LOCK: &str = "spawner.lock";
/// The flag that turns namespaces off.
pub(crate) const NO_MOUNTS: &str = "--no-mounts";
/// The folder in the data directory on which roots are put together, each in a namespace of its own.
const ANCHOR: &str = "root";
/// How many monitors are made before their containers are asked for.
const RESERVE: usize = 2;
/// How long they wait: what they have seen of the host gets old.
const RESERVE_SECONDS: i64 = 10;
/// How long a spawner without children waits for a server to come back.
const LONELY_SECONDS: i64 = 30;
/// How long a predecessor may take to let go of the lock.
const LOCK_SECONDS: u32 = 10;
/// How long a client may take to say its request.
const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// The entry of the helper process: `[--no-mounts] DATA_DIR`. It must be called before the process
/// has a second thread. Says `ready` or an error on standard output.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut mounts = true;
    let mut data_dir = None;
    for arg in args {
        if arg == NO_MOUNTS {
            mounts = false;
        } else {
            data_dir = Some(PathBuf::from(arg));
        }
    }
    let outcome = match data_dir {
        Some(dir) => Spawner::start(&dir, mounts),
        None => Err("no data directory given".to_owned()),
    };
    match outcome {
        Ok(mut spawner) => {
            say("ready\n");
            spawner.serve();
            ExitCode::SUCCESS
        }
        Err(reason) => {
            say(&format!("{reason}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Answers whoever started us. It may not listen; then it knows already.
fn say(text: &str) {
    drop(
        io::stdout()
            .write_all(text.as_bytes())
            .and_then(|()| io::stdout().flush()),
    );
    if let Ok(null) = process::null_device() {
        drop(sys::duplicate_to(null.as_fd(), 1));
    }
}

struct Spawner {
    dir: OwnedFd,
    lock: OwnedFd,
    listener: OwnedFd,
    socket_inode: u64,
    signals: OwnedFd,
    exe: OwnedFd,
    isolation: Isolation,
    capabilities: Capabilities,
    /// The connection of each server that has said hello; usually one.
    servers: Vec<OwnedFd>,
    held: Vec<OwnedFd>,
    children: BTreeSet<i32>,
    /// Where roots are put together.
    anchor: PathBuf,
    /// Monitors that wait for their containers.
    reserve: Vec<Waiting>,
    /// Containers are being started, so that a reserve is worth its while.
    busy: bool,
    ending: bool,
}

/// A monitor in reserve.
struct Waiting {
    pid: i32,
    orders: OwnedFd,
    ids: (u32, u32),
}

impl Spawner {
    fn start(data_dir: &Path, mounts: bool) -> Result<Self, String> {
        let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count);
        if !matches!(threads, Ok(1)) {
            return Err("the spawner must start before any other thread".to_owned());
        }
        sys::close_all_except(&[]);
        // Fails only for one who leads a session already.
        let _ = rustix::process::setsid();
        rustix::process::umask(Mode::from_raw_mode(0o077));
        let fail = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| format!("{what}: {}", describe(&error))
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let what = format!("open data directory {}", data_dir.display());
        let dir = rustix::fs::open(data_dir, flags, Mode::empty())
            .map_err(|error| fail(&what)(error.into()))?;
        let lock = take_lock(dir.as_fd()).map_err(fail("lock the data directory's spawner"))?;
        let signals = sys::signals_as_fd(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT])
            .map_err(fail("watch signals"))?;
        let exe = rustix::fs::open(
            "/proc/self/exe",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| fail("open own executable")(error.into()))?;
        let data_dir = std::fs::canonicalize(data_dir).map_err(fail(&what))?;
        rustix::process::chdir("/")
            .map_err(|error| fail("leave the caller's folder")(error.into()))?;
        let (isolation, capabilities) = isolation::probe(&data_dir);
        let anchor = data_dir.join(ANCHOR);
        match std::fs::create_dir(&anchor) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(fail("make the folder for roots")(error));
            }
            _ => {}
        }
        let isolation = if mounts { isolation } else { Isolation::none() };
        let (listener, socket_inode) =
            listen(dir.as_fd()).map_err(fail("listen in the data directory"))?;
        Ok(Self {
            dir,
            lock,
            listener,
            socket_inode,
            signals,
            exe,
            isolation,
            capabilities,
            servers: Vec::new(),
            held: Vec::new(),
            children: BTreeSet::new(),
            anchor,
            reserve: Vec::new(),
            busy: false,
            ending: false,
        })
    }

    fn serve(&mut self) {
        while !self.ending {
            let (timed_out, accept, gone) = self.wait();
            for index in gone.into_iter().rev() {
                self.servers.remove(index);
            }
            for signal in sys::drain_signals(self.signals.as_fd()) {
                self.ending |= signal != libc::SIGCHLD;
            }
            while let Ok(Some(reaped)) = sys::reap(false) {
                self.children.remove(&reaped.pid);
                self.reserve.retain(|waiting| waiting.pid != reaped.pid);
            }
            if accept {
                self.accept();
            } else if timed_out && !self.reserve.is_empty() {
                // They end when they see that.
                self.reserve.clear();
                self.busy = false;
            } else if self.busy && self.reserve.len() < RESERVE {
                // Nobody asks for anything just now.
                self.busy = self.add_to_reserve();
            }
            let needed = !self.servers.is_empty() || !self.children.is_empty();
            // A socket that is not ours (any more) cannot bring a server back.
            let alone = timed_out && self.reserve.is_empty();
            if !needed && (alone || !self.reachable()) {
                self.ending = true;
            }
        }
        self.leave();
    }

    /// Waits for news: whether the time without a server is over, whether someone connects, and
    /// which servers have gone.
    fn wait(&self) -> (bool, bool, Vec<usize>) {
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        // A server says nothing after its hello: all that can come is the end.
        fds.extend(
            self.servers
                .iter()
                .map(|server| PollFd::new(server, PollFlags::IN)),
        );
        let lonely = self.servers.is_empty() && self.children.is_empty();
        let seconds = if self.busy && self.reserve.len() < RESERVE {
            Some(0)
        } else if !self.reserve.is_empty() {
            Some(RESERVE_SECONDS)
        } else {
            lonely.then_some(LONELY_SECONDS)
        };
        let limit = seconds.map(|tv_sec| Timespec { tv_sec, tv_nsec: 0 });
        let ready = rustix::event::poll(&mut fds, limit.as_ref());
        let news = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let gone = (0..self.servers.len())
            .filter(|index| news(&fds[index + 2]))
            .collect();
        let timed_out = matches!(ready, Ok(0)) && seconds != Some(0);
        (timed_out, news(&fds[1]), gone)
    }

    fn reachable(&self) -> bool {
        rustix::fs::statat(&self.dir, SOCKET, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| stat.st_ino == self.socket_inode)
    }

    fn accept(&mut self) {
        let Ok(socket) = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) else {
            return;
        };
        // Only our own user (and root) may ask; the folder's permissions say so too.
        let own = rustix::process::geteuid();
        let trusted = rustix::net::sockopt::socket_peercred(&socket)
            .is_ok_and(|peer| peer.uid == own || peer.uid.is_root());
        if !trusted {
            return;
        }
        let patience = Some(REQUEST_TIMEOUT);
        let _ = rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Recv, patience);
        let _ = rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Send, patience);
        if let Ok(Some((frame, fds))) = Incoming::default().receive(&socket) {
            self.answer(socket, &frame, fds);
        }
    }

    fn answer(&mut self, socket: OwnedFd, frame: &[u8], fds: Vec<OwnedFd>) {
        let body = serde_json::from_slice::<Request>(frame).and_then(|request| {
            let is_shutdown = request.body.as_str() == Some("shutdown");
            if request.protocol != PROTOCOL && !is_shutdown {
                return Ok(Err(request.protocol));
            }
            serde_json::from_value::<Body>(request.body).map(Ok::<_, u32>)
        });
        let reason = match body {
            Ok(Ok(Body::Hello)) => return self.hello(socket, fds),
            Ok(Ok(Body::Launch(spec))) => return self.launch(&socket, &spec),
            Ok(Ok(Body::Exec {
                target,
                spec,
                stdio,
            })) => {
                return self.exec(&socket, &target, &spec, stdio, &fds);
            }
            Ok(Ok(Body::Shutdown)) => {
                self.ending = true;
                self.leave();
                return;
            }
            Ok(Err(protocol)) => format!("protocol {protocol} is not spoken here"),
            Err(error) => error.to_string(),
        };
        wire::reply(
            &socket,
            &Reply::Refused {
                protocol: PROTOCOL,
                reason,
            },
            &[],
        );
    }

    fn hello(&mut self, socket: OwnedFd, fds: Vec<OwnedFd>) {
        if !fds.is_empty() {
            self.held = fds;
            // Those in reserve hold what was held before.
            self.reserve.clear();
        }
        let Ok(exe) = ExeId::of(self.exe.as_fd()) else {
            return;
        };
        let reply = Reply::Hello {
            pid: rustix::process::getpid().as_raw_pid(),
            exe,
            capabilities: self.capabilities.clone(),
            mounts: self.isolation.mounts,
        };
        let held: Vec<BorrowedFd<'_>> = self.held.iter().map(AsFd::as_fd).collect();
        wire::reply(&socket, &reply, &held);
        self.servers.push(socket);
    }

    fn launch(&mut self, caller: &OwnedFd, spec: &ContainerSpec) {
        let state = match claim(&spec.state_dir) {
            Ok(state) => state,
            Err(error) => {
                let what = format!("take state folder {}", spec.state_dir.display());
                return not_forked(caller, StartStep::Files, &what, &error);
            }
        };
        if self.launch_from_reserve(caller, spec, &state) {
            return;
        }
        match sys::clone(self.isolation.flags(spec)) {
            Ok(Forked::Parent(pid)) => {
                self.children.insert(pid);
            }
            Ok(Forked::Child) => {
                let held: Vec<RawFd> = self.held.iter().map(AsRawFd::as_raw_fd).collect();
                monitor::run(&Launch {
                    spec,
                    caller: caller.as_fd(),
                    state: state.as_fd(),
                    exe: self.exe.as_fd(),
                    held: &held,
                    isolation: &self.isolation,
                    anchor: &self.anchor,
                })
            }
            Err(error) => not_forked(
                caller,
                StartStep::Isolate,
                "make the container's namespaces",
                &error,
            ),
        }
    }

    /// Gives the container to a monitor that waits for one, if there is one for its like.
    fn launch_from_reserve(
        &mut self,
        caller: &OwnedFd,
        spec: &ContainerSpec,
        state: &OwnedFd,
    ) -> bool {
        let usual = ContainerSpec::default();
        let unusual = self.isolation.flags(spec) != self.isolation.flags(&usual);
        if !self.isolation.mounts || unusual || spec.read_only_root {
            return false;
        }
        self.busy = true;
        let ids = self.ids(spec);
        while let Some(waiting) = self.reserve.pop() {
            if self.isolation.power() == Power::Mapped && waiting.ids != ids {
                continue;
            }
            let sent = Outgoing::new(spec).and_then(|mut frame| {
                frame.send(&waiting.orders, &[caller.as_fd(), state.as_fd()])
            });
            if sent.is_ok() {
                self.children.insert(waiting.pid);
                return true;
            }
        }
        false
    }

    /// The ids that a container's root is put together with.
    fn ids(&self, spec: &ContainerSpec) -> (u32, u32) {
        if self.isolation.power() == Power::Mapped {
            let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
            identity::ids(&spec.user, &passwd)
        } else {
            (0, 0)
        }
    }

    /// Makes a monitor that waits for its container. Whether that worked.
    fn add_to_reserve(&mut self) -> bool {
        let ids = self.ids(&ContainerSpec::default());
        let flags = SocketFlags::CLOEXEC;
        let Ok((near, far)) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        else {
            return false;
        };
        match sys::clone(self.isolation.flags(&ContainerSpec::default())) {
            Ok(Forked::Parent(pid)) => {
                self.reserve.push(Waiting {
                    pid,
                    orders: near,
                    ids,
                });
                true
            }
            Ok(Forked::Child) => {
                let held: Vec<RawFd> = self.held.iter().map(AsRawFd::as_raw_fd).collect();
                monitor::wait_and_run(&Reserve {
                    orders: far,
                    ids,
                    exe: self.exe.as_fd(),
                    held: &held,
                    isolation: &self.isolation,
                    anchor: &self.anchor,
                })
            }
            Err(_) => false,
        }
    }

    fn exec(
        &mut self,
        caller: &OwnedFd,
        target: &Started,
        spec: &ExecSpec,
        stdio: [bool; 3],
        fds: &[OwnedFd],
    ) {
        match sys::fork() {
            Ok(Forked::Parent(pid)) => {
                self.children.insert(pid);
            }
            Ok(Forked::Child) => enter::run(&Enter {
                target,
                spec,
                caller: caller.as_fd(),
                stdio,
                fds,
                isolation: &self.isolation,
            }),
            Err(error) => not_forked(caller, StartStep::Isolate, "fork", &error),
        }
    }

    /// Makes room for a successor; the end of the process closes the rest.
    fn leave(&mut self) {
        if self.reachable() {
            let _ = rustix::fs::unlinkat(&self.dir, SOCKET, AtFlags::empty());
        }
        let _ = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
    }
}

/// Opens a state folder and locks it until its container has started, so that whoever looks for the
/// container meanwhile waits.
fn claim(state_dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let state = rustix::fs::open(state_dir, flags, Mode::empty())?;
    rustix::fs::flock(&state, FlockOperation::NonBlockingLockExclusive)?;
    for name in [state::PID_FILE, state::EXIT_FILE] {
        if rustix::fs::statat(&state, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            let problem = "a container was already started in it";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, problem));
        }
    }
    Ok(state)
}

fn not_forked(caller: &OwnedFd, step: StartStep, what: &str, error: &io::Error) {
    let error = StartError {
        step,
        message: format!("{what}: {}", describe(error)),
        errno: error.raw_os_error(),
    };
    wire::reply(caller, &Reply::NotStarted(error), &[]);
}

/// Becomes the only spawner of the data directory. A predecessor may be on its way out.
fn take_lock(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let lock = rustix::fs::openat(dir, LOCK, flags, Mode::RUSR | Mode::WUSR)?;
    sys::alarm(LOCK_SECONDS);
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    sys::alarm(0);
    Ok(lock)
}

/// Listens in the data directory, whose own path may be too long for a socket address.
fn listen(dir: BorrowedFd<'_>) -> io::Result<(OwnedFd, u64)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::fs::unlinkat(dir, SOCKET, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let path = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 128)?;
    let stat = rustix::fs::statat(dir, SOCKET, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((socket, stat.st_ino))
}
