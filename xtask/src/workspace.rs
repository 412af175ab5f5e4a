//! Where this repository's things lie, and the `cargo` that builds them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::process;

/// The repository and its build folder.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    /// The repository.
    pub(crate) root: PathBuf,
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
}

/// A build profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

/// What `cargo metadata` says, as far as it is used here.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    target_directory: PathBuf,
}

/// A package of `cargo metadata`.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// `None` for packages of this repository.
    pub(crate) source: Option<String>,
    pub(crate) license: Option<String>,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A dependency of a package.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `dev`, `build`, or nothing for an ordinary one.
    pub(crate) kind: Option<String>,
    /// Set for packages of this repository.
    pub(crate) path: Option<PathBuf>,
}

impl Workspace {
    /// The repository that this program was built from.
    pub(crate) fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest
            .parent()
            .context("xtask lies in a repository")?
            .to_owned();
        let mut workspace = Self {
            root,
            target: PathBuf::new(),
        };
        workspace.target = workspace.metadata(&["--no-deps"])?.target_directory;
        Ok(workspace)
    }

    /// `cargo metadata`; with `--no-deps` only of our own packages.
    pub(crate) fn metadata(&self, args: &[&str]) -> Result<Metadata> {
        let mut cargo = self.cargo(&["metadata", "--format-version", "1", "--locked"]);
        cargo.args(args);
        let text = process::capture(&mut cargo)?;
        serde_json::from_str(&text).context("read cargo's metadata")
    }

    /// A cargo command that runs in the repository as if it had been typed there: without the
    /// variables of the `cargo run` above us, which would make it build some crates twice.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        const OF_THE_RUN: [&str; 5] = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
            "CARGO_PRIMARY_",
        ];
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(args).current_dir(&self.root);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if OF_THE_RUN.iter().any(|prefix| text.starts_with(prefix)) {
                cargo.env_remove(&name);
            }
        }
        cargo
    }

    /// The product, built.
    pub(crate) fn build(&self, profile: Profile) -> Result<PathBuf> {
        let mut cargo = self.cargo(&["build", "--locked", "--package", "coracle"]);
        let folder = match profile {
            Profile::Dev => "debug",
            Profile::Release => {
                cargo.arg("--release");
                "release"
            }
        };
        process::run(&mut cargo)?;
        Ok(self.target.join(folder).join("coracle"))
    }

    /// A folder of our own below the target folder, made.
    pub(crate) fn cache(&self, name: &str) -> Result<PathBuf> {
        let path = self.target.join("xtask").join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    /// Material that lies beside the repository (`../shared`) and is not part of it; `None` where
    /// it is absent.
    pub(crate) fn shared(&self, path: &str) -> Option<PathBuf> {
        let path = self.root.parent()?.join("shared").join(path);
        path.exists().then_some(path)
    }
}
