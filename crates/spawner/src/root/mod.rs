//! The container's root filesystem: a tmpfs with the host's top-level folders bound in, the Pod's
//! mounts on top, and `pivot_root` into it.
//!
//! Nothing is ever created in a folder of the host. Where a mount point is missing in one, that
//! folder is *shadowed* first: a tmpfs is laid over it, its entries are bound back, and the mount
//! point is made in the tmpfs. `/etc` and `/dev` are always the container's own, and with links instead
//! of binds, since they have many entries and nobody walks them: `/etc/passwd` is a link to
//! `/.etc/passwd`, where the host's folder is bound (at the same depth, so that relative links inside
//! still hit).
//!
//! All sources are cloned as detached trees (`open_tree`) before the first change, so neither the
//! tmpfs nor an earlier mount can hide or leak into a later one. What every container has is put
//! together before one is asked for ([`prepare`]); only the rest is in the way of a start
//! ([`finish`]).

mod points;

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use crate::spec::{ContainerSpec, MountKind, StartError, StartStep};
use points::{Kind, Points};

/// Entries of `/dev` that are bound rather than linked: programs look at what they are.
const DEVICES: [&str; 7] = ["full", "null", "pts", "random", "tty", "urandom", "zero"];
/// Where the Pod's `hosts` file is found inside.
const POD_ETC: &str = ".coracle";
/// And the host's.
const HOST_ETC: &str = ".etc";

/// A mount tree that is not attached anywhere yet.
struct Detached {
    tree: OwnedFd,
    is_dir: bool,
}

pub(crate) fn mount_error(what: &str, error: &io::Error) -> StartError {
    StartError {
        step: StartStep::Mount,
        message: format!("{what}: {}", describe(error)),
        errno: error.raw_os_error(),
    }
}

/// The system's words for an error, in lower case and without its number.
pub(crate) fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_lowercase().chain(chars).collect())
        .unwrap_or_default()
}

/// A root filesystem that has everything but what a container brings along.
#[derive(Debug)]
pub(crate) struct Prepared {
    points: Points,
    /// The `/etc` in it.
    etc: OwnedFd,
    /// The host's file, if it has one.
    has_host_name: bool,
}

/// Builds the root filesystem of `spec` and makes it this process's. With `own_proc`, `/proc` shows
/// this process's own pid namespace. `anchor` is a folder of no other use, see [`prepare`].
pub(crate) fn enter(spec: &ContainerSpec, own_proc: bool, anchor: &Path) -> Result<(), StartError> {
    finish(prepare(anchor, spec.read_only_root, own_proc)?, spec)
}

/// Builds all that is the same for every container. It can be done before a container is asked for.
/// The new root lies on the folder `anchor` until it becomes the root; that mount cannot be bound,
/// so that it is in no volume, whatever folder a volume is.
pub(crate) fn prepare(
    anchor: &Path,
    read_only: bool,
    own_proc: bool,
) -> Result<Prepared, StartError> {
    with_open_mask(|| build(anchor, read_only, own_proc))
}

/// Adds what is the container's own, and makes it this process's root.
pub(crate) fn finish(prepared: Prepared, spec: &ContainerSpec) -> Result<(), StartError> {
    with_open_mask(|| complete(prepared, spec))
}

/// Whoever the container runs as must get through the folders made here; the state files that are
/// made later are nobody else's business.
fn with_open_mask<T>(work: impl FnOnce() -> T) -> T {
    let before = rustix::process::umask(Mode::from_raw_mode(0o022));
    let done = work();
    rustix::process::umask(before);
    done
}

fn failing(what: &str) -> impl FnOnce(io::Error) -> StartError {
    let what = what.to_owned();
    move |error: io::Error| mount_error(&what, &error)
}

fn build(anchor: &Path, read_only: bool, own_proc: bool) -> Result<Prepared, StartError> {
    let fail = failing;
    let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", downstream)
        .map_err(|error| fail("make mounts private")(error.into()))?;
    let host = clone_host(read_only, own_proc).map_err(fail("bind the host's folders"))?;
    let etc = clone(rustix::fs::CWD, "/etc", read_only).ok();
    let dev = clone(rustix::fs::CWD, "/dev", false).map_err(fail("bind /dev"))?;
    let device = |name| {
        Some((
            name,
            clone(rustix::fs::CWD, format!("/dev/{name}"), false).ok()?,
        ))
    };
    let devices: Vec<(&str, Detached)> = DEVICES.into_iter().filter_map(device).collect();

    let root = tmpfs(&[("mode", "755")]).map_err(fail("make root filesystem"))?;
    // By its path: a descriptor from outside belongs to the mounts of the namespace outside.
    open_dir(rustix::fs::CWD, anchor)
        .and_then(|place| attach(&root, &place))
        .map_err(fail("attach root filesystem"))?;
    rustix::mount::mount_change(anchor, MountPropagationFlags::UNBINDABLE)
        .map_err(|error| fail("hide root filesystem")(error.into()))?;
    let mut points = Points::new(root, read_only);
    assemble(&mut points, host, own_proc).map_err(fail("assemble root filesystem"))?;
    own_dev(&mut points, &dev, devices).map_err(fail("assemble /dev"))?;
    let etc = own_etc(&mut points, etc.as_ref()).map_err(fail("assemble /etc"))?;
    // Tokens are mounted below it, so nearly every container needs it covered.
    points
        .cover("/var/run")
        .map_err(fail("cover the host's /run"))?;
    Ok(Prepared {
        points,
        etc,
        has_host_name: Path::new("/etc/hostname").exists(),
    })
}

fn complete(prepared: Prepared, spec: &ContainerSpec) -> Result<(), StartError> {
    let fail = failing;
    let Prepared {
        mut points,
        etc,
        has_host_name,
    } = prepared;
    let what = format!("open state folder {}", spec.state_dir.display());
    let state = open_dir(rustix::fs::CWD, &spec.state_dir).map_err(fail(&what))?;
    let volumes = clone_volumes(spec)?;
    let tmp = private_tmp(state.as_fd()).map_err(fail("make /tmp"))?;
    let pod_etc = match &spec.etc_dir {
        Some(dir) => {
            let what = format!("mount {}", dir.display());
            let tree = clone(rustix::fs::CWD, dir, false).map_err(fail(&what))?;
            Some((tree, dir.join("hostname").exists()))
        }
        None => None,
    };
    points
        .add(c"tmp", &tmp, Kind::Volume)
        .map_err(fail("assemble root filesystem"))?;
    pod_files(&mut points, &etc, pod_etc, has_host_name).map_err(fail("assemble /etc"))?;
    for (target, read_only, source) in volumes {
        let what = format!("mount {target}");
        points
            .mount(&target, source, read_only)
            .map_err(fail(&what))?;
    }
    if let Some(cwd) = &spec.cwd {
        let what = format!("make working directory {cwd}");
        points.dir(cwd).map_err(fail(&what))?;
    }
    points
        .seal()
        .map_err(fail("make root filesystem read-only"))?;
    pivot(points.root()).map_err(fail("change root filesystem"))?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE)
        .map_err(|error| fail("make mounts private")(error.into()))
}

/// Clones what lies at `path` with all mounts below it.
fn clone(dir: impl AsFd, path: impl rustix::path::Arg, read_only: bool) -> io::Result<Detached> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_NO_AUTOMOUNT;
    let tree = rustix::mount::open_tree(dir, path, flags)?;
    let is_dir = FileType::from_raw_mode(rustix::fs::fstat(&tree)?.st_mode) == FileType::Directory;
    if read_only {
        crate::sys::mount_read_only(tree.as_fd(), true)?;
    }
    Ok(Detached { tree, is_dir })
}

/// Puts a detached tree onto the file or folder behind `target`.
fn attach(tree: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, c"", target, c"", flags)?)
}

/// A new filesystem, detached.
fn filesystem(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    Ok(rustix::mount::fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

fn tmpfs(options: &[(&str, &str)]) -> io::Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    filesystem("tmpfs", options, attributes)
}

/// What stands at the top of the host's filesystem.
enum TopLevel {
    Folder(Detached),
    Link(CString),
}

/// The host's top-level folders and links, but for those every container has of its own.
fn clone_host(read_only: bool, own_proc: bool) -> io::Result<Vec<(CString, TopLevel)>> {
    let slash = open_dir(rustix::fs::CWD, "/")?;
    let mut found = Vec::new();
    for (name, kind) in entries(&slash)? {
        let own = matches!(name.to_bytes(), b"tmp" | b"etc" | b"dev")
            || (own_proc && name.to_bytes() == b"proc");
        if own {
            continue;
        }
        match kind {
            FileType::Directory => {
                let live = matches!(name.to_bytes(), b"proc" | b"sys");
                let tree = clone(&slash, name.as_c_str(), read_only && !live)?;
                found.push((name, TopLevel::Folder(tree)));
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&slash, name.as_c_str(), Vec::new())?;
                found.push((name, TopLevel::Link(target)));
            }
            _ => {}
        }
    }
    Ok(found)
}

fn open_dir(at: impl AsFd, path: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, path, flags, Mode::empty())?)
}

/// Names and types in a folder, `.` and `..` left out.
fn entries(dir: &OwnedFd) -> io::Result<Vec<(CString, FileType)>> {
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        found.push((entry.file_name().to_owned(), kind));
    }
    Ok(found)
}

type Volume = (String, bool, Detached);

/// The sources of the mounts, in the order in which they must be mounted.
fn clone_volumes(spec: &ContainerSpec) -> Result<Vec<Volume>, StartError> {
    let mut volumes = Vec::with_capacity(spec.mounts.len());
    for mount in &spec.mounts {
        let source = match &mount.kind {
            MountKind::Bind { source } => clone(rustix::fs::CWD, source, mount.read_only)
                .map_err(|error| mount_error(&format!("mount {}", source.display()), &error))?,
            MountKind::Tmpfs { size } => {
                let size = size.map(|size| size.to_string());
                let mut options = vec![("mode", "1777")];
                options.extend(size.as_deref().map(|size| ("size", size)));
                let tree = tmpfs(&options)
                    .map_err(|error| mount_error(&format!("make {}", mount.target), &error))?;
                Detached { tree, is_dir: true }
            }
        };
        volumes.push((mount.target.clone(), mount.read_only, source));
    }
    let depth = |target: &str| target.split('/').filter(|part| !part.is_empty()).count();
    volumes.sort_by_key(|(target, ..)| depth(target));
    Ok(volumes)
}

/// The container's own `/tmp`: a folder beside its state files, on disk like an image's would be.
fn private_tmp(state: BorrowedFd<'_>) -> io::Result<Detached> {
    match rustix::fs::mkdirat(state, "tmp", Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let dir = open_dir(state, "tmp")?;
    rustix::fs::fchmod(&dir, Mode::from_raw_mode(0o1777))?;
    clone(state, "tmp", false)
}

fn assemble(points: &mut Points, host: Vec<(CString, TopLevel)>, own_proc: bool) -> io::Result<()> {
    for (name, entry) in host {
        match entry {
            TopLevel::Folder(tree) => points.add(&name, &tree, Kind::Host)?,
            TopLevel::Link(target) => rustix::fs::symlinkat(target, points.root(), name)?,
        }
    }
    if own_proc {
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let tree = filesystem("proc", &[], attributes)?;
        points.add(c"proc", &Detached { tree, is_dir: true }, Kind::Host)?;
    }
    Ok(())
}

/// A top-level folder of the container's own, with links to the host's entries, which are bound at
/// `/.NAME`. The names in `own` are left out.
fn link_folder(
    points: &mut Points,
    name: &str,
    host: &Detached,
    own: &[&str],
) -> io::Result<OwnedFd> {
    let hidden = format!(".{name}");
    points.add(&CString::new(hidden.as_str())?, host, Kind::Host)?;
    rustix::fs::mkdirat(points.root(), name, Mode::from_raw_mode(0o755))?;
    let folder = open_dir(points.root(), name)?;
    let behind = open_dir(points.root(), hidden.as_str())?;
    for (name, kind) in entries(&behind)? {
        if own.iter().any(|own| own.as_bytes() == name.to_bytes()) || is_console(&name) {
            continue;
        }
        let target = if kind == FileType::Symlink {
            rustix::fs::readlinkat(&behind, name.as_c_str(), Vec::new())?
        } else {
            let mut target = format!("../{hidden}/").into_bytes();
            target.extend_from_slice(name.to_bytes());
            CString::new(target)?
        };
        rustix::fs::symlinkat(target, &folder, name)?;
    }
    Ok(folder)
}

/// The host's consoles and serial lines: a machine has dozens of them, and no container uses one.
fn is_console(name: &CStr) -> bool {
    let name = name.to_bytes();
    let numbered = |rest: &[u8]| rest.first().is_some_and(u8::is_ascii_digit);
    name.strip_prefix(b"tty").is_some_and(numbered)
        || name.starts_with(b"ttyS")
        || name.starts_with(b"vcs")
}

/// `/etc`: the host's, except for the names that are or may be the Pod's.
fn own_etc(points: &mut Points, host: Option<&Detached>) -> io::Result<OwnedFd> {
    let own = ["nsswitch.conf", "hosts", "hostname"];
    let etc = if let Some(host) = host {
        link_folder(points, "etc", host, &own)?
    } else {
        rustix::fs::mkdirat(points.root(), "etc", Mode::from_raw_mode(0o755))?;
        open_dir(points.root(), "etc")?
    };
    let nsswitch = nsswitch(&std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&etc, "nsswitch.conf", flags, Mode::from_raw_mode(0o644))?;
    rustix::io::write(&file, nsswitch.as_bytes())?;
    Ok(etc)
}

/// The files in `/etc` that a Pod may have of its own; the host's where it has none.
fn pod_files(
    points: &mut Points,
    etc: &OwnedFd,
    pod: Option<(Detached, bool)>,
    has_host_name: bool,
) -> io::Result<()> {
    let (hosts, name) = match &pod {
        Some((tree, has_name)) => {
            points.add(&CString::new(POD_ETC)?, tree, Kind::Volume)?;
            (POD_ETC, if *has_name { POD_ETC } else { HOST_ETC })
        }
        None => (HOST_ETC, HOST_ETC),
    };
    rustix::fs::symlinkat(format!("../{hosts}/hosts"), etc, "hosts")?;
    if name == POD_ETC || has_host_name {
        rustix::fs::symlinkat(format!("../{name}/hostname"), etc, "hostname")?;
    }
    Ok(())
}

/// `/dev`: the host's devices, and a `/dev/shm` of its own. `bound` are those of [`DEVICES`] that
/// there are.
fn own_dev(points: &mut Points, host: &Detached, bound: Vec<(&str, Detached)>) -> io::Result<()> {
    let own: Vec<&str> = bound.iter().map(|(name, _)| *name).chain(["shm"]).collect();
    drop(link_folder(points, "dev", host, &own)?);
    for (name, device) in bound {
        points.mount(&format!("/dev/{name}"), device, false)?;
    }
    let shm = Detached {
        tree: tmpfs(&[("mode", "1777")])?,
        is_dir: true,
    };
    points.mount("/dev/shm", shm, false)
}

/// The host's name service configuration, with names looked up in the hosts file first.
fn nsswitch(host: &str) -> String {
    let is_hosts = |line: &&str| line.trim_start().starts_with("hosts:");
    let mut text: String = host
        .lines()
        .filter(|line| !is_hosts(line))
        .flat_map(|l| [l, "\n"])
        .collect();
    text.push_str("hosts: files dns\n");
    text
}

fn pivot(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    // The old root now lies on top of the new one.
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir(Path::new("/"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_in_the_hosts_file_first() {
        let host = "passwd: files\nhosts: mymachines resolve [!UNAVAIL=return] dns\ngroup: files\n";
        assert_eq!(
            nsswitch(host),
            "passwd: files\ngroup: files\nhosts: files dns\n"
        );
        assert_eq!(nsswitch(""), "hosts: files dns\n");
    }

    #[test]
    fn system_errors_read_like_sentences() {
        let error = io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(describe(&error), "no such file or directory");
    }
}
