//! Containers without mounts: the tables through which built-in programs find their paths and names.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use serde::Serialize;

use crate::spec::{ContainerSpec, MountKind, Program};
use crate::state;

/// The variable that holds the path of the mount table.
const MOUNTS_VARIABLE: &str = "CORACLE_MOUNTS";
/// The variable that holds the path of the hosts file.
const HOSTS_VARIABLE: &str = "CORACLE_HOSTS";
/// The mount table in the state folder.
const MOUNTS_FILE: &str = "mounts.json";

/// One row of the mount table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    target: &'a str,
    source: PathBuf,
    read_only: bool,
}

/// What the tables change about a start.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) env: Vec<(String, String)>,
    pub(super) warnings: Vec<String>,
    pub(super) cwd: String,
}

/// Writes the tables into the state folder.
pub(super) fn write(spec: &ContainerSpec, dir: BorrowedFd<'_>) -> io::Result<Tables> {
    let mut rows = Vec::with_capacity(spec.mounts.len());
    for (number, mount) in spec.mounts.iter().enumerate() {
        let source = match &mount.kind {
            MountKind::Bind { source } => source.clone(),
            MountKind::Tmpfs { .. } => {
                let name = format!("memory-{number}");
                match rustix::fs::mkdirat(dir, &name, Mode::RWXU) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => spec.state_dir.join(name),
                    Err(error) => return Err(error.into()),
                }
            }
        };
        rows.push(Row {
            target: &mount.target,
            source,
            read_only: mount.read_only,
        });
    }
    state::write(dir, MOUNTS_FILE, &rows)?;
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    let mut env = vec![(
        MOUNTS_VARIABLE.to_owned(),
        path(spec.state_dir.join(MOUNTS_FILE)),
    )];
    if let Some(etc) = &spec.etc_dir {
        env.push((HOSTS_VARIABLE.to_owned(), path(etc.join("hosts"))));
    }

    let mut warnings = Vec::new();
    if matches!(spec.program, Program::Path(_)) && !spec.mounts.is_empty() {
        let targets: Vec<&str> = spec
            .mounts
            .iter()
            .map(|mount| mount.target.as_str())
            .collect();
        warnings.push(format!(
            "volumes {} need a mount namespace, which this machine does not allow",
            targets.join(", ")
        ));
    }
    let wanted = spec.cwd.as_deref().unwrap_or("/");
    let mut cwd = path(translate(&rows, wanted));
    if !Path::new(&cwd).is_dir() {
        warnings.push(format!(
            "working directory {wanted} does not exist on this machine: / is used"
        ));
        "/".clone_into(&mut cwd);
    }
    Ok(Tables { env, warnings, cwd })
}

/// Where a path of the container lies on the host.
fn translate(rows: &[Row<'_>], path: &str) -> PathBuf {
    let path = Path::new(path);
    rows.iter()
        .filter_map(|row| Some((row, path.strip_prefix(row.target).ok()?)))
        .max_by_key(|(row, _)| Path::new(row.target).components().count())
        .map_or_else(|| path.to_owned(), |(row, rest)| row.source.join(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_decides_where_a_path_lies() {
        let row = |target, source: &str| Row {
            target,
            source: source.into(),
            read_only: false,
        };
        let rows = [row("/mnt", "/data"), row("/mnt/in", "/input")];
        let lies = |path| translate(&rows, path).to_str().unwrap().to_owned();
        assert_eq!(lies("/mnt/x"), "/data/x");
        assert_eq!(lies("/mnt/in/y"), "/input/y");
        assert_eq!(lies("/mntx"), "/mntx");
        assert_eq!(lies("/"), "/");
    }
}
