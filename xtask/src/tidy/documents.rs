//! Documents: links and the paths they name lead somewhere.

use std::path::Path;

use anyhow::Result;

use super::SourceFile;
use crate::workspace::Workspace;

/// Documents a reader starts from.
const EXPECTED: [&str; 5] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "examples/mnist/README.md",
];
/// In code spans, what begins like this is a path of the repository.
const OURS: [&str; 5] = ["crates/", "examples/", "xtask/", "docs/", ".ci/"];

pub(crate) fn check(workspace: &Workspace, files: &[SourceFile]) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for path in EXPECTED {
        if !workspace.root.join(path).is_file() {
            complaints.push(format!("{path} is missing"));
        }
    }
    let documents = files.iter().filter(|file| {
        Path::new(&file.path)
            .extension()
            .is_some_and(|extension| extension == "md")
    });
    for file in documents {
        let Some(text) = &file.text else { continue };
        let folder = Path::new(&file.path)
            .parent()
            .unwrap_or_else(|| Path::new(""));
        let links = links(text).map(|link| folder.join(link));
        let paths = code_paths(text).map(|path| Path::new(path).to_owned());
        for target in links.chain(paths) {
            if !workspace.root.join(&target).exists() {
                complaints.push(format!(
                    "{} points at {}, which is not there",
                    file.path,
                    target.display()
                ));
            }
        }
    }
    Ok(complaints)
}

/// Targets of `[text](target)` inside the repository, without their fragments.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://"))
}

/// Paths of the repository in code spans; patterns are not followed.
fn code_paths(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|span| OURS.iter().any(|prefix| span.starts_with(prefix)))
        .filter(|span| !span.contains(['*', '{', '<', ' ', '…']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_found() {
        let text =
            "[a](b/c.md#d) and [e](https://f.example) and [g](#h) in `crates/x/y.rs`, `crates/*`";
        assert_eq!(links(text).collect::<Vec<_>>(), ["b/c.md"]);
        assert_eq!(code_paths(text).collect::<Vec<_>>(), ["crates/x/y.rs"]);
    }
}
