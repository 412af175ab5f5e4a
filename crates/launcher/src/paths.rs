//! Where a path of the Pod really is.
//!
//! Usually there. On a machine that refuses mounts the node hands over a table instead
//! (`CORACLE_MOUNTS` names a JSON file of `[{"target", "source"}]`).

use std::path::{Path, PathBuf};

use serde::Deserialize;

#[derive(Debug, Default)]
pub(crate) struct Paths {
    mounts: Vec<Mount>,
}

#[derive(Debug, Deserialize)]
struct Mount {
    target: PathBuf,
    source: PathBuf,
}

impl Paths {
    pub(crate) fn from_environment() -> Result<Self, String> {
        let Some(table) = std::env::var_os("CORACLE_MOUNTS").filter(|value| !value.is_empty())
        else {
            return Ok(Self::default());
        };
        let describe =
            |problem: String| format!("read the mount table {}: {problem}", table.display());
        let text = std::fs::read(&table).map_err(|error| describe(error.to_string()))?;
        let mut mounts: Vec<Mount> =
            serde_json::from_slice(&text).map_err(|error| describe(error.to_string()))?;
        // The deepest mount that covers a path is the one that counts.
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.target.components().count()));
        Ok(Self { mounts })
    }

    pub(crate) fn real(&self, path: &Path) -> PathBuf {
        let covered = self.mounts.iter().find_map(|mount| {
            let below = path.strip_prefix(&mount.target).ok()?;
            Some(if below.as_os_str().is_empty() {
                mount.source.clone()
            } else {
                mount.source.join(below)
            })
        });
        covered.unwrap_or_else(|| path.to_owned())
    }
}
