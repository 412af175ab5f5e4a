//! `cargo xtask tidy`: what a compiler does not check. Each check is a function that returns
//! complaints; a complaint names the file and what to do.

mod documents;
mod files;
mod layers;
mod licenses;
mod manifests;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::suites::Session;
use crate::tally::Outcome;
use crate::workspace::Workspace;

/// A check and what it stands for.
type Check = (
    &'static str,
    fn(&Workspace, &[SourceFile]) -> Result<Vec<String>>,
);

const CHECKS: &[Check] = &[
    (
        "crates depend on each other as the table says",
        layers::check,
    ),
    (
        "manifests inherit what the workspace says",
        manifests::check,
    ),
    (
        "every dependency's licence is one we accept",
        licenses::check,
    ),
    (
        "source files introduce themselves and stay short",
        files::check,
    ),
    ("documents point at things that exist", documents::check),
];

/// A file of the repository: tracked by git, or new and not ignored.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// Relative to the repository.
    pub(crate) path: String,
    /// `None` for files that are not text.
    pub(crate) text: Option<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    if let Some(arg) = args.first() {
        bail!("tidy: unknown argument {arg:?}, it takes none");
    }
    let outcome = check_all(workspace)?;
    for note in &outcome.notes {
        println!("{note}");
    }
    println!("{}", outcome.count);
    Ok(if outcome.count.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

pub(crate) fn suite(session: &mut Session) -> Result<Outcome> {
    check_all(&session.workspace)
}

fn check_all(workspace: &Workspace) -> Result<Outcome> {
    let files = source_files(&workspace.root)?;
    let mut outcome = Outcome::default();
    for (what, check) in CHECKS {
        let complaints = check(workspace, &files).with_context(|| format!("check that {what}"))?;
        if complaints.is_empty() {
            outcome.count += crate::tally::Count::one(true);
        } else {
            outcome.add(
                false,
                format!("not so: {what}\n    {}", complaints.join("\n    ")),
            );
        }
    }
    Ok(outcome)
}

fn source_files(root: &Path) -> Result<Vec<SourceFile>> {
    let mut git = Command::new("git");
    git.args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
    ])
    .current_dir(root);
    let list = process::capture(&mut git)?;
    let mut files = Vec::new();
    for path in list.split('\0').filter(|path| !path.is_empty()) {
        let full: PathBuf = root.join(path);
        // Deleted and not yet committed.
        if !full.is_file() {
            continue;
        }
        let bytes = std::fs::read(&full).with_context(|| format!("read {}", full.display()))?;
        files.push(SourceFile {
            path: path.to_owned(),
            text: String::from_utf8(bytes).ok(),
        });
    }
    Ok(files)
}
