//! Manifests: every crate takes its version, edition and lints from the workspace.

use anyhow::{Context as _, Result};

use super::SourceFile;
use crate::workspace::Workspace;

/// Lines that each of our manifests has.
const INHERITED: [&str; 5] = [
    "version.workspace = true",
    "edition.workspace = true",
    "license.workspace = true",
    "publish.workspace = true",
    "[lints]\nworkspace = true",
];

pub(crate) fn check(workspace: &Workspace, _: &[SourceFile]) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for package in workspace.metadata(&["--no-deps"])?.packages {
        let path = &package.manifest_path;
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        for line in INHERITED.iter().filter(|line| !text.contains(*line)) {
            let line = line.replace('\n', " ");
            complaints.push(format!("crate {} does not say `{line}`", package.name));
        }
        // The folder is how people find a crate.
        let folder = path.parent().and_then(|folder| folder.file_name());
        if folder.is_none_or(|folder| folder != package.name.as_str()) {
            complaints.push(format!(
                "crate {} lies in a folder of another name",
                package.name
            ));
        }
    }
    Ok(complaints)
}
