//! The suites of `cargo xtask test`, in the order they run: first what is quick to tell, then the
//! Rust tests, then the built program against its real peers.

mod conformance;
mod deny;
mod kfp;
mod kfp_conformance;
mod rust;
mod tensorflow;
mod tutorial;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};

use crate::tally::Outcome;
use crate::test::Options;
use crate::tools;
use crate::workspace::{Profile, Workspace};
use crate::{process, tidy};

pub(crate) use tensorflow::ModelServer;

/// A suite.
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&mut Session) -> Result<Outcome>,
}

/// All of them.
pub(crate) const SUITES: &[Suite] = &[
    Suite {
        name: "tidy",
        about: "dependencies, files, documents, licences",
        run: tidy::suite,
    },
    Suite {
        name: "fmt",
        about: "formatting",
        run: rust::fmt,
    },
    Suite {
        name: "clippy",
        about: "lints of every crate and test",
        run: rust::clippy,
    },
    Suite {
        name: "build",
        about: "the program",
        run: rust::build,
    },
    Suite {
        name: "rust",
        about: "the tests of every crate",
        run: rust::test,
    },
    Suite {
        name: "doc",
        about: "links in the code's documentation (--full)",
        run: rust::doc,
    },
    Suite {
        name: "conformance",
        about: "answers as a real kube-apiserver's",
        run: conformance::run,
    },
    Suite {
        name: "kfp",
        about: "the kfp SDK 1.8 compiles and runs pipelines",
        run: kfp::run,
    },
    Suite {
        name: "kfp-conformance",
        about: "packages of Kubeflow Pipelines' own tests (--full runs all of them)",
        run: kfp_conformance::run,
    },
    Suite {
        name: "tensorflow",
        about: "TensorFlow loads our models and asks our server",
        run: tensorflow::run,
    },
    Suite {
        name: "tutorial",
        about: "the tutorial with kubectl",
        run: tutorial::as_ourselves,
    },
    Suite {
        name: "tutorial-user",
        about: "the tutorial as an ordinary user",
        run: tutorial::as_ordinary_user,
    },
    Suite {
        name: "deny",
        about: "licences and sources of dependencies",
        run: deny::run,
    },
];

/// What the suites of a run share.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) workspace: Workspace,
    pub(crate) options: Options,
    /// For files of this run; removed in the end.
    scratch: PathBuf,
    binary: Option<std::result::Result<PathBuf, String>>,
    kubectl: Option<std::result::Result<PathBuf, String>>,
}

impl Session {
    pub(crate) fn new(workspace: &Workspace, options: Options) -> Result<Self> {
        clear_away_scratch();
        let scratch = std::env::temp_dir().join(format!("{SCRATCH}{}", std::process::id()));
        std::fs::create_dir_all(&scratch).with_context(|| format!("make {}", scratch.display()))?;
        let workspace = workspace.clone();
        Ok(Self {
            workspace,
            options,
            scratch,
            binary: None,
            kubectl: None,
        })
    }

    /// A folder for one suite's files, made.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.scratch.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    /// The program, built once a run.
    pub(crate) fn binary(&mut self) -> Result<PathBuf> {
        let workspace = &self.workspace;
        let built = self.binary.get_or_insert_with(|| {
            workspace
                .build(Profile::Dev)
                .map_err(|error| format!("{error:#}"))
        });
        built
            .clone()
            .map_err(|error| anyhow!("the program does not build: {error}"))
    }

    /// kubectl, looked for (or built) once a run.
    pub(crate) fn kubectl(&mut self) -> Result<PathBuf> {
        let workspace = &self.workspace;
        let found = self.kubectl.get_or_insert_with(|| {
            tools::kubectl::find(workspace).map_err(|error| format!("{error:#}"))
        });
        found.clone().map_err(|error| anyhow!(error))
    }

    /// A path beside the repository that a suite stands on, or the outcome if it is absent.
    pub(crate) fn shared(&self, path: &str) -> std::result::Result<PathBuf, Outcome> {
        self.workspace.shared(path).ok_or_else(|| {
            Outcome::skipped(format!(
                "../shared/{path} is not here (it is not part of this repository)"
            ))
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.scratch) {
            eprintln!("warning: {} stays behind: {error}", self.scratch.display());
        }
    }
}

/// How folders of runs begin; their process's number follows.
const SCRATCH: &str = "coracle-xtask-";

/// Removes what runs that were killed have left.
fn clear_away_scratch() {
    let entries = std::fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten();
    for entry in entries {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(SCRATCH)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another user's, or in use after all: not ours to insist.
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

/// `python3` of this machine, for scripts that need only its standard library.
fn python3() -> Result<PathBuf> {
    tools::which("python3").context("python3 is not installed")
}

/// The version folder that an export made.
pub(crate) fn exported_version(export_dir: &Path) -> Result<PathBuf> {
    let entries =
        std::fs::read_dir(export_dir).with_context(|| format!("list {}", export_dir.display()))?;
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| version(path).is_some())
        .max_by_key(version)
        .with_context(|| format!("no exported version in {}", export_dir.display()))
}

/// Trains a small model with the program itself and returns its version folder.
fn train(binary: &Path, export_dir: &Path, steps: u32) -> Result<PathBuf> {
    let mut train = std::process::Command::new(binary);
    train
        .args([
            "image",
            "mnist-model",
            "/opt/model.py",
            "--seed",
            "1",
            "--tf-train-steps",
        ])
        .arg(steps.to_string())
        .arg("--tf-export-dir")
        .arg(export_dir);
    process::run(&mut train)?;
    exported_version(export_dir)
}
