//! Python environments below the target folder, one for each list of pinned packages in
//! `xtask/python/*.txt`, made once and found again by the hash of list and interpreter.
//!
//! The lists name every package with its version, dependencies too, and are installed without
//! looking for more: the same environment everywhere, and nothing that a package drags in unasked.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::process;
use crate::workspace::Workspace;

/// A list of packages and the interpreters it is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Environment {
    name: &'static str,
    /// Minor versions of Python 3: oldest and newest.
    versions: (u32, u32),
}

/// The kfp SDK that compiled the tutorial.
pub(crate) const KFP_1_8: Environment = Environment {
    name: "kfp-1.8",
    versions: (11, 12),
};
/// The kfp SDK of today.
pub(crate) const KFP_2: Environment = Environment {
    name: "kfp-2",
    versions: (11, 13),
};
/// TensorFlow for CPUs and the client of TensorFlow Serving.
pub(crate) const TENSORFLOW: Environment = Environment {
    name: "tensorflow",
    versions: (11, 13),
};

impl Environment {
    /// The environment's interpreter; the environment is made if it is not there.
    pub(crate) fn python(self, workspace: &Workspace) -> Result<PathBuf> {
        let list = workspace
            .root
            .join(format!("xtask/python/{}.txt", self.name));
        let pins = std::fs::read(&list).with_context(|| format!("read {}", list.display()))?;
        let (base, version) = self.interpreter()?;
        let hash = Sha256::new()
            .chain_update(&pins)
            .chain_update(&version)
            .finalize();
        let mut id = String::new();
        for byte in &hash[..6] {
            write!(id, "{byte:02x}").context("invariant: a string takes text")?;
        }
        let folder = workspace
            .cache("python")?
            .join(format!("{}-{id}", self.name));
        let python = folder.join("bin/python");
        let complete = folder.join("complete");
        if complete.is_file() {
            return Ok(python);
        }
        println!(
            "making Python environment {} with Python {version}",
            self.name
        );
        if folder.exists() {
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("remove the half-made {}", folder.display()))?;
        }
        process::run(Command::new(&base).args(["-m", "venv"]).arg(&folder))?;
        let mut install = Command::new(&python);
        install
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
            ])
            .arg("--requirement")
            .arg(&list);
        process::run(&mut install)?;
        std::fs::write(&complete, version).context("mark the environment as complete")?;
        Ok(python)
    }

    /// An interpreter of a fitting version, and that version.
    fn interpreter(self) -> Result<(PathBuf, String)> {
        let (oldest, newest) = self.versions;
        let named = (oldest..=newest)
            .rev()
            .map(|minor| format!("python3.{minor}"));
        let mut seen = Vec::new();
        for name in std::iter::once("python3".to_owned()).chain(named) {
            let Some(path) = super::which(&name) else {
                continue;
            };
            let Ok(version) = version_of(&path) else {
                continue;
            };
            let minor = version
                .split('.')
                .nth(1)
                .and_then(|minor| minor.parse().ok());
            if minor.is_some_and(|minor: u32| (oldest..=newest).contains(&minor)) {
                return Ok((path, version));
            }
            seen.push(version);
        }
        let found = if seen.is_empty() {
            "none".to_owned()
        } else {
            seen.join(", ")
        };
        bail!(
            "{} needs Python 3.{oldest} to 3.{newest}, found: {found}",
            self.name
        )
    }
}

fn version_of(python: &Path) -> Result<String> {
    let code = "import sys, venv, ensurepip; print('.'.join(map(str, sys.version_info[:3])))";
    Ok(process::capture(Command::new(python).args(["-c", code]))?
        .trim()
        .to_owned())
}
