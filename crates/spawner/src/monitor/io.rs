//! The container's streams: from its pipes (or terminal) into the log, and to whoever is attached.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use super::{files_error, now};
use crate::log::{Lines, LogFile, Stream};
use crate::spec::{ContainerSpec, StartError};
use crate::sys::{self, Reaped};
use crate::wire::Outgoing;
use crate::{process, pty};

/// The socket in the state folder on which clients attach.
pub(crate) const ATTACH_SOCKET: &str = "attach";
/// How much an attached client may lag behind before it is let go.
const MAX_LAG: usize = 1 << 20;
/// How long the last output may take to reach attached clients.
const FLUSH_SECONDS: i64 = 1;

/// Something the container writes to.
#[derive(Debug)]
struct Source {
    fd: OwnedFd,
    stream: Stream,
    lines: Lines,
    open: bool,
}

/// One stream of an attached client.
#[derive(Debug)]
struct Client {
    fd: OwnedFd,
    stream: Stream,
    pending: Vec<u8>,
}

/// All streams of one container.
#[derive(Debug)]
pub(super) struct Streams {
    sources: Vec<Source>,
    log: Option<LogFile>,
    listener: Option<OwnedFd>,
    clients: Vec<Client>,
    /// The container's standard input or terminal, for those who attach.
    stdin: Option<OwnedFd>,
    stdin_once: bool,
    tty: bool,
    far: Vec<OwnedFd>,
    buffer: Vec<u8>,
}

/// What an attaching client is told; descriptors of stdout, stderr (not with a terminal) and stdin
/// (if it is open) come along.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Attached {
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
}

impl Streams {
    /// Makes the streams; `owner` shall own the terminal.
    pub(super) fn open(
        spec: &ContainerSpec,
        state: BorrowedFd<'_>,
        owner: Option<(u32, u32)>,
    ) -> Result<Self, StartError> {
        let log = match &spec.log {
            Some(log) => Some(LogFile::open(log).map_err(|error| {
                files_error(&format!("open log file {}", log.path.display()), &error)
            })?),
            None => None,
        };
        let mut streams = Self {
            sources: Vec::new(),
            log,
            listener: None,
            clients: Vec::new(),
            stdin: None,
            stdin_once: spec.stdin_once,
            tty: spec.tty,
            far: Vec::new(),
            buffer: vec![0; 64 << 10],
        };
        let ends = if spec.tty {
            streams.terminal(owner)
        } else {
            streams.pipes(spec.stdin)
        };
        ends.map_err(|error| files_error("make standard streams", &error))?;
        streams.listener =
            Some(listen(state).map_err(|error| files_error("make attach socket", &error))?);
        Ok(streams)
    }

    fn terminal(&mut self, owner: Option<(u32, u32)>) -> io::Result<()> {
        let pty = pty::open()?;
        if let Some((uid, gid)) = owner {
            let (uid, gid) = (
                rustix::process::Uid::from_raw(uid),
                rustix::process::Gid::from_raw(gid),
            );
            rustix::fs::fchown(&pty.slave, Some(uid), Some(gid))?;
        }
        self.stdin = Some(sys::duplicate(pty.master.as_raw_fd(), 3)?);
        self.source(pty.master, Stream::Stdout)?;
        for _ in 0..2 {
            self.far.push(sys::duplicate(pty.slave.as_raw_fd(), 3)?);
        }
        self.far.push(pty.slave);
        Ok(())
    }

    fn pipes(&mut self, with_stdin: bool) -> io::Result<()> {
        if with_stdin {
            let (far, near) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            self.stdin = Some(near);
            self.far.push(far);
        } else {
            self.far.push(process::null_device()?);
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let (near, far) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            self.source(near, stream)?;
            self.far.push(far);
        }
        Ok(())
    }

    fn source(&mut self, fd: OwnedFd, stream: Stream) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        self.sources.push(Source {
            fd,
            stream,
            lines: Lines::new(stream),
            open: true,
        });
        Ok(())
    }

    /// The container's ends: stdin, stdout, stderr.
    pub(super) fn far_ends(&self) -> [RawFd; 3] {
        [
            self.far[0].as_raw_fd(),
            self.far[1].as_raw_fd(),
            self.far[2].as_raw_fd(),
        ]
    }

    pub(super) fn close_far_ends(&mut self) {
        self.far.clear();
    }

    /// Copies output until the process `pid` has ended.
    pub(super) fn copy_until_end(&mut self, pid: i32, signals: BorrowedFd<'_>) -> Reaped {
        loop {
            sys::drain_signals(signals);
            while let Ok(Some(reaped)) = sys::reap(false) {
                if reaped.pid == pid {
                    return reaped;
                }
            }
            let (readable, attaching) = self.poll(signals);
            for index in readable {
                self.read(index);
            }
            if attaching {
                self.attach();
            }
            self.push_pending();
        }
    }

    /// Waits for something to do: which sources are readable, and whether someone attaches.
    fn poll(&self, signals: BorrowedFd<'_>) -> (Vec<usize>, bool) {
        let mut fds = vec![PollFd::from_borrowed_fd(signals, PollFlags::IN)];
        if let Some(listener) = &self.listener {
            fds.push(PollFd::new(listener, PollFlags::IN));
        }
        let open: Vec<usize> = (0..self.sources.len())
            .filter(|index| self.sources[*index].open)
            .collect();
        let first_source = fds.len();
        fds.extend(
            open.iter()
                .map(|index| PollFd::new(&self.sources[*index].fd, PollFlags::IN)),
        );
        let first_client = fds.len();
        // Also asks for nothing but the client's going away, which poll always reports.
        fds.extend(self.clients.iter().map(|client| {
            let wanted = if client.pending.is_empty() {
                PollFlags::empty()
            } else {
                PollFlags::OUT
            };
            PollFd::new(&client.fd, wanted)
        }));
        // A failing poll (no memory) is tried again with the next round.
        let _ = rustix::event::poll(&mut fds, None);
        let readable = open
            .iter()
            .zip(&fds[first_source..first_client])
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(index, _)| *index)
            .collect();
        (
            readable,
            self.listener.is_some() && !fds[1].revents().is_empty(),
        )
    }

    /// Copies what one source has; false when it has no more for now.
    fn read(&mut self, index: usize) -> bool {
        let source = &mut self.sources[index];
        let mut lines = Vec::new();
        let got = match rustix::io::read(&source.fd, &mut self.buffer[..]) {
            Ok(0) => None,
            Ok(got) => Some(got),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return false,
            // A terminal that nobody holds any more.
            Err(_) => None,
        };
        let Some(got) = got else {
            source.open = false;
            source.lines.finish(now(), &mut lines);
            self.append(&lines);
            return false;
        };
        let bytes = &self.buffer[..got];
        source.lines.push(bytes, now(), &mut lines);
        let stream = source.stream;
        for client in self
            .clients
            .iter_mut()
            .filter(|client| client.stream == stream)
        {
            client.pending.extend_from_slice(bytes);
        }
        self.append(&lines);
        true
    }

    fn append(&mut self, lines: &[u8]) {
        if let Some(log) = &mut self.log
            && !lines.is_empty()
        {
            log.append(lines);
        }
    }

    /// Gives attached clients what they can take; forgets those who went or lag too far behind.
    fn push_pending(&mut self) {
        self.clients.retain_mut(|client| {
            while !client.pending.is_empty() {
                match rustix::io::write(&client.fd, &client.pending) {
                    Ok(sent) => drop(client.pending.drain(..sent)),
                    Err(rustix::io::Errno::AGAIN) => return client.pending.len() <= MAX_LAG,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return false,
                }
            }
            let mut fd = [PollFd::new(&client.fd, PollFlags::empty())];
            let gone = rustix::event::poll(
                &mut fd,
                Some(&Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                }),
            );
            gone.is_ok_and(|count| count == 0)
        });
    }

    fn attach(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        if let Ok(socket) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            // A client that is refused sees the end of its socket.
            drop(self.serve(&socket));
        }
    }

    fn serve(&mut self, socket: &OwnedFd) -> io::Result<()> {
        let mut handed = Vec::new();
        let mut clients = Vec::new();
        for source in &self.sources {
            let (far, near) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            rustix::fs::fcntl_setfl(&near, OFlags::WRONLY | OFlags::NONBLOCK)?;
            handed.push(far);
            clients.push(Client {
                fd: near,
                stream: source.stream,
                pending: Vec::new(),
            });
        }
        let mut fds: Vec<BorrowedFd<'_>> = handed.iter().map(AsFd::as_fd).collect();
        fds.extend(self.stdin.as_ref().map(AsFd::as_fd));
        let told = Attached {
            tty: self.tty,
            stdin: self.stdin.is_some(),
        };
        Outgoing::new(&told)?.send(socket, &fds)?;
        self.clients.extend(clients);
        if self.stdin_once && !self.tty {
            self.stdin = None;
        }
        Ok(())
    }

    /// Takes in what the ended container has left in its pipes.
    pub(super) fn drain(&mut self) {
        for index in 0..self.sources.len() {
            while self.sources[index].open && self.read(index) {
                self.push_pending();
            }
        }
        let (mut lines, end): (Vec<u8>, Timestamp) = (Vec::new(), now());
        for source in &mut self.sources {
            source.lines.finish(end, &mut lines);
        }
        self.append(&lines);
    }

    /// Gives attached clients a moment to take the last output.
    pub(super) fn flush_clients(&mut self) {
        loop {
            self.push_pending();
            self.clients.retain(|client| !client.pending.is_empty());
            if self.clients.is_empty() {
                return;
            }
            let mut fds: Vec<PollFd<'_>> = self
                .clients
                .iter()
                .map(|client| PollFd::new(&client.fd, PollFlags::OUT))
                .collect();
            let limit = Timespec {
                tv_sec: FLUSH_SECONDS,
                tv_nsec: 0,
            };
            if !rustix::event::poll(&mut fds, Some(&limit)).is_ok_and(|ready| ready > 0) {
                return;
            }
        }
    }
}

/// Listens in the state folder, whose own path may be too long for a socket address.
fn listen(state: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    let path = format!("/proc/self/fd/{}/{ATTACH_SOCKET}", state.as_raw_fd());
    let dropped = rustix::fs::unlinkat(state, ATTACH_SOCKET, rustix::fs::AtFlags::empty());
    debug_assert!(
        matches!(dropped, Ok(()) | Err(rustix::io::Errno::NOENT)),
        "own folder"
    );
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 8)?;
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::chmodat(state, ATTACH_SOCKET, mode, rustix::fs::AtFlags::empty())?;
    Ok(socket)
}
