//! Which namespaces containers get on this machine, found by trying them.
//!
//! Distributions differ in ways no setting reveals: some let an ordinary user make a user namespace
//! and then refuse the mounts in it, some refuse a fresh `/proc`. So a child process tries the whole
//! of what a container's start does, and the richest way that works is taken.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::identity::Power;
use crate::root::{self, describe};
use crate::spec::{Capabilities, ContainerSpec, Support};
use crate::sys::{self, Forked};

/// The namespaces of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Isolation {
    /// A user namespace, which an ordinary user needs for all others.
    user: bool,
    /// A mount namespace with a root filesystem of our own (and a UTS namespace).
    pub(crate) mounts: bool,
    /// A pid namespace with its own `/proc`.
    pids: bool,
    root: bool,
    own_uid: u32,
    own_gid: u32,
}

impl Isolation {
    /// No namespaces at all.
    pub(crate) fn none() -> Self {
        let uid = rustix::process::geteuid();
        Self {
            user: false,
            mounts: false,
            pids: false,
            root: uid.is_root(),
            own_uid: uid.as_raw(),
            own_gid: rustix::process::getegid().as_raw(),
        }
    }

    /// How ids come about.
    pub(crate) fn power(&self) -> Power {
        match (self.user, self.root) {
            (true, _) => Power::Mapped,
            (false, true) => Power::Root,
            (false, false) => Power::None,
        }
    }

    /// Whether this container has a pid namespace.
    pub(crate) fn pid_namespace(&self, spec: &ContainerSpec) -> bool {
        self.pids && !spec.host_pid
    }

    /// The `CLONE_NEW*` flags of this container.
    pub(crate) fn flags(&self, spec: &ContainerSpec) -> i32 {
        let mut flags = 0;
        for (wanted, flag) in [
            (self.user, libc::CLONE_NEWUSER),
            (self.mounts, libc::CLONE_NEWNS | libc::CLONE_NEWUTS),
            (self.pid_namespace(spec), libc::CLONE_NEWPID),
        ] {
            flags |= if wanted { flag } else { 0 };
        }
        flags
    }

    /// In a new user namespace: shows our own user as `uid` and `gid`.
    pub(crate) fn map_ids(&self, proc: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
        if !self.user {
            return Ok(());
        }
        let write = |name: &str, text: &str| -> io::Result<()> {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(proc, format!("self/{name}"), flags, Mode::empty())?;
            rustix::io::write(&file, text.as_bytes())?;
            Ok(())
        };
        write("setgroups", "deny")?;
        write("uid_map", &format!("{uid} {} 1", self.own_uid))?;
        write("gid_map", &format!("{gid} {} 1", self.own_gid))
    }
}

/// Tries what works, in the folder `dir`, where another is made and removed again.
pub(crate) fn probe(dir: &Path) -> (Isolation, Capabilities) {
    let none = Isolation::none();
    let with = |user, pids| Isolation {
        user,
        mounts: true,
        pids,
        ..none
    };
    let mut candidates = Vec::new();
    if none.root {
        candidates.extend([with(false, true), with(false, false)]);
    }
    candidates.extend([with(true, true), with(true, false)]);

    let mut refused = Vec::new();
    for candidate in candidates {
        match try_out(&candidate, dir) {
            Ok(()) => {
                let user = if candidate.user {
                    Support::Ok
                } else {
                    Support::Untried
                };
                let pids = match refused.pop() {
                    _ if candidate.pids => Support::Ok,
                    Some(reason) => Support::Refused(reason),
                    None => Support::Untried,
                };
                let found = Capabilities {
                    root: none.root,
                    mount_namespace: Support::Ok,
                    user_namespace: user,
                    pid_namespace: pids,
                };
                return (candidate, found);
            }
            Err(reason) => refused.push(reason),
        }
    }
    // The last candidate asked for the least.
    let reason = refused.pop().unwrap_or_default();
    let found = Capabilities {
        root: none.root,
        mount_namespace: Support::Refused(reason.clone()),
        user_namespace: match reason.strip_prefix(NAMESPACES) {
            Some(_) => Support::Refused(reason.clone()),
            None => Support::Ok,
        },
        pid_namespace: Support::Untried,
    };
    (none, found)
}

const NAMESPACES: &str = "make namespaces: ";

fn try_out(isolation: &Isolation, dir: &Path) -> Result<(), String> {
    let folder = dir.join("probe");
    match std::fs::create_dir(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(format!("make {}: {}", folder.display(), describe(&error)));
        }
        _ => {}
    }
    let spec = ContainerSpec {
        state_dir: folder.join("state"),
        ..ContainerSpec::default()
    };
    let anchor = folder.join("root");
    for folder in [&spec.state_dir, &anchor] {
        // One that stayed behind will do.
        drop(std::fs::create_dir(folder));
    }
    let result = try_with(isolation, &spec, &anchor);
    // What stays behind is used by the next probe.
    drop(std::fs::remove_dir_all(folder));
    result
}

fn try_with(isolation: &Isolation, spec: &ContainerSpec, anchor: &Path) -> Result<(), String> {
    let words = |what: &str, error: io::Error| format!("{what}{}", describe(&error));
    let (mut near, mut far) = std::os::unix::net::UnixStream::pair()
        .map_err(|error| words("make a socket pair: ", error))?;
    let forked = sys::clone(isolation.flags(spec)).map_err(|error| words(NAMESPACES, error))?;
    let Forked::Parent(_) = forked else {
        drop(near);
        let tried = catch_unwind(AssertUnwindSafe(|| -> Result<(), String> {
            let proc = crate::state::open_proc().map_err(|error| words("open /proc: ", error))?;
            isolation
                .map_ids(proc.as_fd(), 0, 0)
                .map_err(|error| words("map user and group: ", error))?;
            root::enter(spec, isolation.pids, anchor).map_err(|error| error.message)
        }));
        let answer = match tried {
            Ok(Ok(())) => "ok".to_owned(),
            Ok(Err(reason)) => reason,
            Err(_) => "the probe panicked".to_owned(),
        };
        drop(far.write_all(answer.as_bytes()));
        sys::exit_now(0)
    };
    drop(far);
    let mut answer = String::new();
    let heard = near.read_to_string(&mut answer);
    drop(sys::reap(true));
    match (heard, answer.as_str()) {
        (Ok(_), "ok") => Ok(()),
        (Ok(_), "") => Err("the probe died".to_owned()),
        (Ok(_), _) => Err(answer),
        (Err(error), _) => Err(words("hear from the probe: ", error)),
    }
}
