//! Finding and making mount points inside the new root.
//!
//! Paths are walked from the new root's descriptor, one component at a time, links resolved by hand
//! inside it, so `/var/run/…` on a host where that is a link to `/run` ends in the container's `/run`
//! and nothing can lead out of the tree.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};

use super::{Detached, attach, clone, entries, open_dir, tmpfs};

/// As many links as the kernel follows in one path.
const MAX_LINKS: u32 = 40;

/// Whose a folder is, and so whether a mount point may be made in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Made by us for this container alone.
    Own,
    /// Bound from the host: never written.
    Host,
    /// A volume of the Pod: mount points inside are made in the volume, as container runtimes do.
    Volume,
}

/// The tree under construction: what is mounted where.
#[derive(Debug)]
pub(super) struct Points {
    root: OwnedFd,
    read_only: bool,
    kinds: BTreeMap<PathBuf, Kind>,
    /// The tmpfs mounts laid over host folders.
    shadows: Vec<OwnedFd>,
}

/// Where a walk ended.
enum Place {
    /// Something that exists.
    Found { at: OwnedFd, path: PathBuf },
    /// The last existing folder, and the names missing below it.
    Missing {
        parent: PathBuf,
        names: VecDeque<OsString>,
    },
}

impl Points {
    pub(super) fn new(root: OwnedFd, read_only: bool) -> Self {
        Self {
            root,
            read_only,
            kinds: BTreeMap::new(),
            shadows: Vec::new(),
        }
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Mounts a tree on a new top-level folder.
    pub(super) fn add(&mut self, name: &CStr, tree: &Detached, kind: Kind) -> io::Result<()> {
        rustix::fs::mkdirat(&self.root, name, Mode::from_raw_mode(0o755))?;
        attach(&tree.tree, &open_path(&self.root, name)?)?;
        self.kinds.insert(
            PathBuf::from(OsString::from_vec(name.to_bytes().to_vec())),
            kind,
        );
        Ok(())
    }

    /// Mounts a tree at `target`, making the mount point if there is none.
    pub(super) fn mount(
        &mut self,
        target: &str,
        tree: Detached,
        read_only: bool,
    ) -> io::Result<()> {
        let (at, path) = self.ensure(target, tree.is_dir)?;
        if path.as_os_str().is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "cannot mount over the root",
            ));
        }
        if read_only {
            crate::sys::mount_read_only(tree.tree.as_fd(), true)?;
        }
        attach(&tree.tree, &at)?;
        self.kinds.insert(path, Kind::Volume);
        Ok(())
    }

    /// Lays a cover over the folder at `path` in which mount points can be made, if it is the host's.
    pub(super) fn cover(&mut self, path: &str) -> io::Result<()> {
        match self.walk(path)? {
            Place::Found { path, .. } if self.kind(&path) == Kind::Host => self.shadow(&path),
            _ => Ok(()),
        }
    }

    /// Makes sure that there is a folder at `path`.
    pub(super) fn dir(&mut self, path: &str) -> io::Result<()> {
        self.ensure(path, true).map(drop)
    }

    /// Makes our own parts read-only, if the root filesystem shall be.
    pub(super) fn seal(&self) -> io::Result<()> {
        if self.read_only {
            for mount in self.shadows.iter().chain([&self.root]) {
                crate::sys::mount_read_only(mount.as_fd(), false)?;
            }
        }
        Ok(())
    }

    /// Finds or makes the folder (or file) at `target`.
    fn ensure(&mut self, target: &str, is_dir: bool) -> io::Result<(OwnedFd, PathBuf)> {
        if !target.starts_with('/') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not an absolute path",
            ));
        }
        let (mut parent, mut names) = match self.walk(target)? {
            Place::Found { at, path } => {
                let stat = rustix::fs::fstat(&at)?;
                if (FileType::from_raw_mode(stat.st_mode) == FileType::Directory) != is_dir {
                    let code = if is_dir { libc::ENOTDIR } else { libc::EISDIR };
                    return Err(io::Error::from_raw_os_error(code));
                }
                return Ok((at, path));
            }
            Place::Missing { parent, names } => (parent, names),
        };
        if self.kind(&parent) == Kind::Host {
            self.shadow(&parent)?;
        }
        while let Some(name) = names.pop_front() {
            let dir = self.open(&parent)?;
            if is_dir || !names.is_empty() {
                rustix::fs::mkdirat(&dir, &name, Mode::from_raw_mode(0o755))?;
            } else {
                make_file(&dir, &name)?;
            }
            parent.push(name);
        }
        Ok((self.open(&parent)?, parent))
    }

    /// Whose the folder at `path` (inside, without links) is.
    fn kind(&self, path: &std::path::Path) -> Kind {
        path.ancestors()
            .find_map(|path| self.kinds.get(path).copied())
            .unwrap_or(Kind::Own)
    }

    /// Opens a path without links, relative to the root.
    fn open(&self, path: &std::path::Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            std::path::Path::new(".")
        } else {
            path
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Ok(rustix::fs::openat2(
            &self.root,
            path,
            flags,
            Mode::empty(),
            resolve,
        )?)
    }

    fn walk(&self, target: &str) -> io::Result<Place> {
        let mut names: VecDeque<OsString> = parts(target.as_bytes());
        let mut path = PathBuf::new();
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            if name == ".." {
                path.pop();
                continue;
            }
            let dir = self.open(&path)?;
            let stat = match rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(rustix::io::Errno::NOENT) => {
                    if names.iter().any(|name| name == "..") {
                        return Err(io::Error::from_raw_os_error(libc::ENOENT));
                    }
                    names.push_front(name);
                    return Ok(Place::Missing {
                        parent: path,
                        names,
                    });
                }
                Err(error) => return Err(error.into()),
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                let link = rustix::fs::readlinkat(&dir, &name, Vec::new())?;
                if link.to_bytes().starts_with(b"/") {
                    path = PathBuf::new();
                }
                for part in parts(link.to_bytes()).into_iter().rev() {
                    names.push_front(part);
                }
            } else {
                path.push(name);
            }
        }
        Ok(Place::Found {
            at: self.open(&path)?,
            path,
        })
    }

    /// Lays a tmpfs over a host folder and binds the folder's entries back into it.
    fn shadow(&mut self, path: &std::path::Path) -> io::Result<()> {
        let place = self.open(path)?;
        let dir = open_dir(&place, ".")?;
        let mut back: Vec<(CString, Option<Detached>, Option<CString>)> = Vec::new();
        for (name, kind) in entries(&dir)? {
            // An entry may vanish while we look; then it is not there.
            if kind == FileType::Symlink {
                if let Ok(link) = rustix::fs::readlinkat(&dir, name.as_c_str(), Vec::new()) {
                    back.push((name, None, Some(link)));
                }
            } else if let Ok(tree) = clone(&dir, name.as_c_str(), false) {
                back.push((name, Some(tree), None));
            }
        }
        let stat = rustix::fs::fstat(&dir)?;
        let mode = format!("{:o}", stat.st_mode & 0o7777);
        let cover = tmpfs(&[("mode", &mode)])?;
        // In a user namespace the owner may have no number; the folder is then ours.
        let owner = rustix::process::Uid::from_raw(stat.st_uid);
        let group = rustix::process::Gid::from_raw(stat.st_gid);
        let _ = rustix::fs::chownat(&cover, c"", Some(owner), Some(group), AtFlags::EMPTY_PATH);
        attach(&cover, &place)?;
        for (name, tree, link) in back {
            if let Some(link) = link {
                rustix::fs::symlinkat(link, &cover, name)?;
            } else if let Some(tree) = tree {
                if tree.is_dir {
                    rustix::fs::mkdirat(&cover, name.as_c_str(), Mode::from_raw_mode(0o755))?;
                } else {
                    make_file(&cover, name.as_c_str())?;
                }
                attach(&tree.tree, &open_path(&cover, name.as_c_str())?)?;
                let inside = path.join(OsString::from_vec(name.into_bytes()));
                self.kinds.entry(inside).or_insert(Kind::Host);
            }
        }
        self.kinds.insert(path.to_owned(), Kind::Own);
        self.shadows.push(cover);
        Ok(())
    }
}

fn parts(path: &[u8]) -> VecDeque<OsString> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| std::ffi::OsStr::from_bytes(part).to_owned())
        .collect()
}

fn open_path(at: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

fn make_file(at: impl AsFd, name: impl rustix::path::Arg) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::from_raw_mode(0o644))?;
    Ok(())
}
