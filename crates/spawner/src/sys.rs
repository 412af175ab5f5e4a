//! The system calls that the safe wrappers in `rustix` do not cover: making processes, replacing
//! them, signal dispositions. The only unsafe code of the crate.
//!
//! [`fork`] and [`clone`] continue in a copy of the calling process. They are called only by the
//! spawner process and its descendants, which never have a second thread, so the copy may allocate
//! and lock like any other program; `main` refuses to run with more than one thread.
#![expect(
    unsafe_code,
    reason = "process creation and execution have no safe interface"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Which side of a fork this is.
#[derive(Debug)]
pub(crate) enum Forked {
    /// The old process; the child's pid.
    Parent(i32),
    /// The new process.
    Child,
}

/// How a child ended, and what it used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reaped {
    pub(crate) pid: i32,
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) usage: crate::spec::Usage,
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A plain fork.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: the process has one thread (see the module's note), so no lock can be held by a
    // thread that the child lacks.
    let pid = unsafe { libc::fork() };
    Ok(if check(pid.into())? == 0 {
        Forked::Child
    } else {
        Forked::Parent(pid)
    })
}

/// A fork into new namespaces (`CLONE_NEW*`).
pub(crate) fn clone(namespaces: i32) -> io::Result<Forked> {
    let flags = namespaces | libc::SIGCHLD;
    let null = ptr::null_mut::<libc::c_void>();
    // SAFETY: without CLONE_VM the child gets a copy of the address space and, with a null stack,
    // goes on on the copied one; this is fork with namespaces. Single-threaded as above. The
    // last three arguments are unused without the flags that need them.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(flags),
            null,
            null,
            null,
            0,
        )
    };
    Ok(if check(pid)? == 0 {
        Forked::Child
    } else {
        Forked::Parent(pid as i32)
    })
}

/// Pointers for exec; they borrow from the strings, which the caller keeps.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// Becomes the program at `path`. Returns only on failure.
pub(crate) fn execve(path: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: path and every element are NUL-terminated and outlive the call; the arrays end
    // with a null pointer.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Becomes the program behind `fd`. Returns only on failure.
pub(crate) fn exec_fd(fd: BorrowedFd<'_>, argv: &[CString], env: &[CString]) -> io::Error {
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: as in `execve`; the path is the empty string and AT_EMPTY_PATH selects `fd`.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Ends the process at once, without running anything registered by the program it is a copy of.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

fn signal_set(signals: Option<&[i32]>) -> libc::sigset_t {
    // SAFETY: sigset_t is plain data that the calls below initialise.
    unsafe {
        let mut set = std::mem::zeroed();
        match signals {
            None => {
                libc::sigfillset(&raw mut set);
            }
            Some(signals) => {
                libc::sigemptyset(&raw mut set);
                for &signal in signals {
                    libc::sigaddset(&raw mut set, signal);
                }
            }
        }
        set
    }
}

/// Blocks every signal of this thread and gives a descriptor that becomes readable when one of
/// `signals` arrives.
pub(crate) fn signals_as_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    let all = signal_set(None);
    let wanted = signal_set(Some(signals));
    // SAFETY: both sets are initialised; a null old set is allowed; signalfd makes a new
    // descriptor, which nobody else owns.
    unsafe {
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut()).into())?;
        let fd = libc::signalfd(
            -1,
            &raw const wanted,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        );
        check(fd.into())?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Empties a descriptor of [`signals_as_fd`] and returns the signals it held.
pub(crate) fn drain_signals(fd: BorrowedFd<'_>) -> Vec<i32> {
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let mut signals = Vec::new();
    let mut buffer = [0u8; SIZE];
    while let Ok(SIZE) = rustix::io::read(fd, &mut buffer) {
        // The signal's number is the first field of the structure.
        signals.push(i32::from_ne_bytes([
            buffer[0], buffer[1], buffer[2], buffer[3],
        ]));
    }
    signals
}

/// Undoes what a caller may have set: every disposition becomes the default, nothing is blocked.
pub(crate) fn reset_signals() {
    let none = signal_set(Some(&[]));
    // The kernel's structure, whose zero is the default disposition. The library's call would
    // refuse the two signals that it uses itself.
    let default = [0u64; 4];
    for signal in 1..=libc::SIGRTMAX() {
        let null = ptr::null_mut::<u64>();
        // SAFETY: the structure has at most four words, and the signal set in it eight bytes;
        // signals that cannot be changed are refused.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), null, 8) };
    }
    // SAFETY: the set is initialised and a null old set is allowed.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) };
}

/// Takes the status of a child that has ended. None: none has ended yet (with `block` false).
/// `ECHILD` when there is no child.
pub(crate) fn reap(block: bool) -> io::Result<Option<Reaped>> {
    let mut status = 0;
    // SAFETY: rusage is plain data, filled by the call.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let flags = if block { 0 } else { libc::WNOHANG };
    // SAFETY: both pointers are to live locals.
    let pid = unsafe { libc::wait4(-1, &raw mut status, flags, &raw mut usage) };
    if check(pid.into())? == 0 {
        return Ok(None);
    }
    let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
    let code = signal.map_or_else(|| libc::WEXITSTATUS(status), |signal| 128 + signal);
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    let usage = crate::spec::Usage {
        user_micros: micros(usage.ru_utime),
        system_micros: micros(usage.ru_stime),
        max_rss_kib: usage.ru_maxrss as u64,
    };
    Ok(Some(Reaped {
        pid,
        code,
        signal,
        usage,
    }))
}

/// Sends `signal` to every other process of a pid namespace, by its first process.
pub(crate) fn kill_all(signal: i32) {
    // SAFETY: kill has no memory preconditions; -1 as process 1 of a namespace reaches only it.
    unsafe { libc::kill(-1, signal) };
}

/// Sends `signal` to a process, or with a negative number to a process group.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill has no memory preconditions.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// Sends `signal` to the process behind a pidfd.
pub(crate) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info = ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            info,
            0,
        )
    })
    .map(drop)
}

/// Closes every descriptor from 3 up, except `keep`.
pub(crate) fn close_all_except(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter(|fd| **fd > 2)
        .map(|fd| *fd as u32)
        .collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > first {
            // SAFETY: only called right after a fork or at the start of `main`, where no object
            // that owns one of these descriptors is used again.
            unsafe { libc::syscall(libc::SYS_close_range, first, fd.saturating_sub(1), 0) };
        }
        first = fd.saturating_add(1);
    }
}

/// Closes a descriptor that this process got by a fork and whose owner is never used again.
pub(crate) fn close(fd: BorrowedFd<'_>) {
    // SAFETY: see above; the process ends by `exit_now`, which drops nothing.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// Copies a descriptor to a number not below `minimum`; closed on exec.
pub(crate) fn duplicate(fd: RawFd, minimum: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl has no memory preconditions here, and the new descriptor is nobody else's.
    unsafe {
        let copy = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, minimum);
        check(copy.into())?;
        Ok(OwnedFd::from_raw_fd(copy))
    }
}

/// Makes `number` a copy of `fd` that survives exec, closing what had that number.
pub(crate) fn duplicate_to(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: only used for the numbers 0 to 2, which no object owns.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into()).map(drop)
}

/// Makes a mount (with `recursive`, and all below it) read-only.
pub(crate) fn mount_read_only(mount: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let recursion = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is the empty string, the structure lives through the call and its true
    // size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursion,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Lets the async runtime watch a descriptor for readability.
pub(crate) fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` keeps its one descriptor open until it is dropped.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
        .map_err(|error| error.into_parts().1)
}

/// A constant of the running system (`_SC_*`).
pub(crate) fn system_value(name: i32) -> u64 {
    // SAFETY: sysconf has no preconditions.
    unsafe { libc::sysconf(name) }.try_into().unwrap_or(0)
}

/// Has the kernel end this process after `seconds`; 0 takes it back.
pub(crate) fn alarm(seconds: u32) {
    // SAFETY: alarm has no preconditions.
    unsafe { libc::alarm(seconds) };
}
