//! The files through which a container is found again: `pid` while it runs, `exit` when it has ended.
//!
//! The monitor writes them through a descriptor of the state folder (after `pivot_root` no host path
//! is left to it) and by rename, so a reader sees a whole file or none. Anyone may read them, in
//! particular the next start of the server.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::spec::{Exit, Started};

/// The file that says who runs: a [`Started`].
pub(crate) const PID_FILE: &str = "pid";
/// The file that says how it ended: an [`Exit`].
pub(crate) const EXIT_FILE: &str = "exit";

/// Writes a state file by rename.
pub(crate) fn write(dir: BorrowedFd<'_>, name: &str, content: &impl Serialize) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, &temporary, flags, Mode::RUSR | Mode::WUSR)?;
    std::fs::File::from(file).write_all(&serde_json::to_vec(content)?)?;
    rustix::fs::renameat(dir, &temporary, dir, name)?;
    Ok(())
}

/// Reads a state file. None: it is not there, or its power-cut remains are unreadable.
fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> io::Result<Option<T>> {
    match std::fs::read(dir.join(name)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the pid file says.
pub(crate) fn read_started(dir: &Path) -> io::Result<Option<Started>> {
    read(dir, PID_FILE)
}

/// What the exit file says.
pub(crate) fn read_exit(dir: &Path) -> io::Result<Option<Exit>> {
    read(dir, EXIT_FILE)
}

/// The id of this boot, in which a pid and its start time are unique.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim_end().to_owned())
        .unwrap_or_default()
}

/// The start time of a process: field 22 of its `stat`, in clock ticks since boot. `proc` is a
/// descriptor of `/proc`.
pub(crate) fn start_time(proc: BorrowedFd<'_>, pid: i32) -> io::Result<u64> {
    stat_field(proc, pid, 22)?
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "start time in /proc/PID/stat"))
}

fn stat_field(proc: BorrowedFd<'_>, pid: i32, field: usize) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(proc, format!("{pid}/stat"), flags, Mode::empty())?;
    let mut stat = Vec::new();
    std::fs::File::from(file).read_to_end(&mut stat)?;
    let stat = String::from_utf8_lossy(&stat);
    // The second field, the command, may hold anything; the last parenthesis ends it.
    let (_, rest) = stat.rsplit_once(')').unwrap_or_default();
    rest.split_ascii_whitespace()
        .nth(field - 3)
        .map(str::to_owned)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "short /proc/PID/stat"))
}

/// A descriptor of `/proc` for the functions here.
pub(crate) fn open_proc() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/proc", flags, Mode::empty())?)
}

/// Whether the process `pid` that started at `start_time` still is.
pub(crate) fn lives(pid: i32, start_time: u64) -> bool {
    let found = open_proc().and_then(|proc| self::start_time(proc.as_fd(), pid));
    found.is_ok_and(|found| found == start_time)
}

/// Every descendant of `pid`, nearest first.
pub(crate) fn descendants(proc: BorrowedFd<'_>, pid: i32) -> Vec<i32> {
    let mut all = children(proc, pid);
    let mut next = 0;
    while next < all.len() {
        let more = children(proc, all[next]);
        all.extend(more);
        next += 1;
    }
    all
}

fn children(proc: BorrowedFd<'_>, pid: i32) -> Vec<i32> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let name = format!("{pid}/task/{pid}/children");
    match rustix::fs::openat(proc, name, flags, Mode::empty()) {
        Ok(file) => {
            let mut text = String::new();
            drop(std::fs::File::from(file).read_to_string(&mut text));
            let mut found: Vec<i32> = text
                .split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect();
            found.extend(children_of_threads(proc, pid));
            found
        }
        // Kernels may lack that file: ask every process for its parent.
        Err(_) if stat_field(proc, pid, 3).is_ok() => children_by_parent(proc, pid),
        Err(_) => Vec::new(),
    }
}

/// Children that threads other than the first have made.
fn children_of_threads(proc: BorrowedFd<'_>, pid: i32) -> Vec<i32> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut found = Vec::new();
    for thread in numbers(proc, &format!("{pid}/task")) {
        if thread == pid {
            continue;
        }
        let name = format!("{pid}/task/{thread}/children");
        if let Ok(file) = rustix::fs::openat(proc, name, flags, Mode::empty()) {
            let mut text = String::new();
            drop(std::fs::File::from(file).read_to_string(&mut text));
            found.extend(
                text.split_ascii_whitespace()
                    .filter_map(|pid| pid.parse::<i32>().ok()),
            );
        }
    }
    found
}

fn children_by_parent(proc: BorrowedFd<'_>, parent: i32) -> Vec<i32> {
    let parent = parent.to_string();
    numbers(proc, ".")
        .into_iter()
        .filter(|pid| stat_field(proc, *pid, 4).is_ok_and(|found| found == parent))
        .collect()
}

/// The numeric names in a folder of `/proc`.
fn numbers(proc: BorrowedFd<'_>, folder: &str) -> Vec<i32> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(folder) = rustix::fs::openat(proc, folder, flags, Mode::empty()) else {
        return Vec::new();
    };
    let Ok(entries) = rustix::fs::Dir::new(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str().ok()?.parse().ok())
        .collect()
}

/// Processor time and resident memory of a process: microseconds and bytes.
pub(crate) fn usage(proc: BorrowedFd<'_>, pid: i32) -> Option<(u64, u64)> {
    let number = |field| stat_field(proc, pid, field).ok()?.parse::<u64>().ok();
    let ticks = number(14)? + number(15)? + number(16)? + number(17)?;
    let per_second = crate::sys::system_value(libc::_SC_CLK_TCK);
    let memory = number(24)? * crate::sys::system_value(libc::_SC_PAGESIZE);
    Some((ticks * 1_000_000 / per_second.max(1), memory))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_process_is_known_by_pid_and_start_time() {
        let proc = open_proc().unwrap();
        let pid = std::process::id() as i32;
        let started = start_time(proc.as_fd(), pid).unwrap();
        assert!(lives(pid, started) && !lives(pid, started + 1));
        let (_, memory) = usage(proc.as_fd(), pid).unwrap();
        assert!(memory > 1 << 20, "a test program of {memory} bytes");
        assert_eq!(usage(proc.as_fd(), 0), None);
    }

    #[test]
    fn a_half_written_state_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(PID_FILE), "{\"id\":").unwrap();
        assert_eq!(read_started(dir.path()).unwrap(), None);
        assert_eq!(read_exit(dir.path()).unwrap(), None);
    }

    #[test]
    fn children_of_any_thread_are_found() {
        let mut child = std::thread::spawn(|| {
            std::process::Command::new("sleep")
                .arg("1000")
                .spawn()
                .unwrap()
        })
        .join()
        .unwrap();
        let proc = open_proc().unwrap();
        let (own, pid) = (std::process::id() as i32, child.id() as i32);
        let listed = descendants(proc.as_fd(), own).contains(&pid);
        let by_parent = children_by_parent(proc.as_fd(), own).contains(&pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(listed && by_parent);
    }
}
