//! The protocol between client and spawner: one request per connection, JSON in frames of a
//! four-byte length, file descriptors beside the first byte.
//!
//! A connection outlives its request: `Hello` stays open for as long as the server lives, the replies
//! to `Launch` come from the container's monitor, and an `Exec` lasts as long as its command. So
//! nothing is multiplexed, and the end of a connection without a reply means that nothing was done.

use std::io;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};

use crate::spec::{Capabilities, ContainerSpec, ExecExit, ExecSpec, Exit, StartError, Started};

/// Raised whenever a message changes its meaning. `Shutdown` is understood in every version, so
/// that a newer server can replace an older spawner.
pub(crate) const PROTOCOL: u32 = 2;

/// Largest frame accepted: environments may be big, but not this big.
const MAX_FRAME: usize = 16 << 20;
/// Descriptors that may come with a frame.
pub(crate) const MAX_FDS: usize = 16;

/// What the client asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) protocol: u32,
    pub(crate) body: serde_json::Value,
}

/// The body of a request of our own version.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Body {
    /// A server presents itself; descriptors are leases to hold.
    Hello,
    /// Start a container.
    Launch(Box<ContainerSpec>),
    /// Run a command in one; descriptors are those of `stdio`, in order.
    Exec {
        target: Box<Started>,
        spec: ExecSpec,
        stdio: [bool; 3],
    },
    /// End the spawner process; containers go on.
    Shutdown,
}

/// What the client hears.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Reply {
    /// To `Hello`; held leases come along.
    Hello {
        pid: i32,
        exe: ExeId,
        capabilities: Capabilities,
        mounts: bool,
    },
    /// To `Launch`.
    Started(Box<Started>),
    /// To `Launch`, later: the container has ended, and its exit file is there.
    Exited(Box<Exit>),
    /// To `Exec`: the command runs.
    Running { pid: i32 },
    /// To `Exec`: the command has ended.
    Ended(ExecExit),
    /// To `Launch` and `Exec`.
    NotStarted(StartError),
    /// The request was not understood.
    Refused { protocol: u32, reason: String },
}

/// Which build of the program a spawner runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExeId {
    dev: u64,
    ino: u64,
    mtime: i64,
    mtime_nsec: i64,
}

impl ExeId {
    pub(crate) fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let stat = rustix::fs::fstat(fd)?;
        Ok(Self {
            dev: stat.st_dev as u64,
            ino: stat.st_ino,
            mtime: stat.st_mtime as i64,
            mtime_nsec: stat.st_mtime_nsec as i64,
        })
    }
}

/// A frame on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    pub(crate) fn new(message: &impl Serialize) -> io::Result<Self> {
        let json = serde_json::to_vec(message)?;
        let mut bytes = Vec::with_capacity(json.len() + 4);
        let length = u32::try_from(json.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&json);
        Ok(Self { bytes, sent: 0 })
    }

    /// Sends until all is gone or the socket would block. `fds` go with the first byte.
    pub(crate) fn send(&mut self, socket: impl AsFd, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if self.sent == 0
                && !fds.is_empty()
                && !control.push(SendAncillaryMessage::ScmRights(fds))
            {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "too many descriptors",
                ));
            }
            let part = [IoSlice::new(&self.bytes[self.sent..])];
            match rustix::net::sendmsg(&socket, &part, &mut control, SendFlags::NOSIGNAL) {
                Ok(sent) => self.sent += sent,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// A frame on its way in.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Incoming {
    /// Reads until one frame is whole or the socket would block. None: the other side is gone.
    pub(crate) fn receive(
        &mut self,
        socket: impl AsFd,
    ) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        loop {
            let wanted = match self.bytes.first_chunk::<4>() {
                None => 4,
                Some(header) => 4 + u32::from_be_bytes(*header) as usize,
            };
            if wanted > MAX_FRAME {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
            }
            if wanted > 4 && self.bytes.len() == wanted {
                let body = self.bytes.split_off(4);
                self.bytes.clear();
                return Ok(Some((body, std::mem::take(&mut self.fds))));
            }
            let have = self.bytes.len();
            self.bytes.resize(wanted, 0);
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let result = rustix::net::recvmsg(
                &socket,
                &mut [IoSliceMut::new(&mut self.bytes[have..])],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            );
            let got = result.as_ref().map_or(0, |message| message.bytes);
            self.bytes.truncate(have + got);
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    self.fds.extend(fds);
                }
            }
            match result {
                Ok(message) if message.flags.contains(ReturnFlags::CTRUNC) => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "descriptors lost",
                    ));
                }
                Ok(_) if got == 0 => return Ok(None),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Sends one reply over a blocking socket. The other side may be gone; nobody else needs to know.
pub(crate) fn reply(socket: impl AsFd, reply: &Reply, fds: &[BorrowedFd<'_>]) {
    if let Ok(mut frame) = Outgoing::new(reply) {
        drop(frame.send(socket, fds));
    }
}
