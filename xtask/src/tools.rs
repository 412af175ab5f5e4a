//! Getting the programs that tests talk to: found on this machine, or made below the target folder
//! from what package registries hold. What cannot be had is an error that says why; the caller
//! decides whether that is a skipped suite.

pub(crate) mod kubectl;
pub(crate) mod python;

use std::path::{Path, PathBuf};

/// A program on the search path.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The search path with a folder before all others.
pub(crate) fn path_with(folder: &Path) -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    // A folder with a colon in its name cannot be on any path.
    std::env::join_paths(folders).unwrap_or(path)
}
