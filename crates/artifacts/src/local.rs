//! The default store: plain files below a folder.

use std::fs;
use std::io;
use std::path::Path;

use crate::{Error, Result};

/// Copies a file or a folder; links are followed. Whatever was at `to` is replaced.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    if same(from, to) {
        return Ok(());
    }
    remove(to)?;
    if let Some(parent) = to.parent() {
        make(parent)?;
    }
    copy_into(from, to)
}

fn copy_into(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        make(to)?;
        let reading = || format!("list {}", from.display());
        for entry in fs::read_dir(from).map_err(Error::io(reading()))? {
            let entry = entry.map_err(Error::io(reading()))?;
            copy_into(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    let attempt = format!("copy {} to {}", from.display(), to.display());
    fs::copy(from, to).map(drop).map_err(Error::io(attempt))
}

fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

pub(crate) fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io(format!("make folder {}", folder.display())))
}

/// Removes a file or folder; that nothing is there is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io(format!("remove {}", path.display()))),
    }
}

/// Writes a whole file by rename, so that nobody reads half of it.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        make(parent)?;
    }
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    fs::write(part, bytes)
        .and_then(|()| fs::rename(part, path))
        .map_err(Error::io(format!("write {}", path.display())))
}
