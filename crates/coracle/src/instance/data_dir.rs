//! The data directory: where everything of an instance lies, and the lock that makes one server
//! its owner.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::failure::{Failure, Result};

/// A data directory by its absolute path.
#[derive(Debug, Clone)]
pub(crate) struct DataDir {
    root: PathBuf,
}

/// Held by the server that owns a data directory; released by its death.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl DataDir {
    /// The directory at `root`, made absolute but not touched.
    pub(crate) fn new(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root)
            .map_err(|e| Failure::environment(format!("data directory {}: {e}", root.display())))?;
        Ok(Self { root })
    }

    /// Makes the directory if it is missing, readable by its owner alone.
    pub(crate) fn create(&self) -> Result<()> {
        for dir in [
            &self.root,
            &self.pki(),
            &self.volumes(),
            &self.kubelet(),
            &self.artifacts(),
        ] {
            DirBuilder::new()
                .recursive(true)
                // Pods of other users pass through to their volumes, but cannot list anything.
                .mode(0o711)
                .create(dir)
                .map_err(|e| {
                    Failure::environment(format!("make data directory {}: {e}", dir.display()))
                        .hint("choose another place with --data-dir")
                })?;
        }
        Ok(())
    }

    /// Takes the lock, or says that a server has it.
    pub(crate) fn lock(&self) -> Result<Option<Lock>> {
        let path = self.root.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Failure::environment(format!("open {}: {e}", path.display())))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(Failure::environment(format!(
                "lock {}: {e}",
                path.display()
            ))),
        }
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What the user has set, if anything.
    pub(crate) fn config(&self) -> PathBuf {
        self.root.join("config.yaml")
    }

    /// Python environments for steps.
    pub(crate) fn python(&self) -> PathBuf {
        self.root.join("cache/python")
    }

    /// Objects of the Kubernetes API.
    pub(crate) fn kube_db(&self) -> PathBuf {
        self.root.join("kube.db")
    }

    /// Pipelines, experiments, runs and their journal.
    pub(crate) fn pipelines_db(&self) -> PathBuf {
        self.root.join("pipelines.db")
    }

    /// Keys and certificates.
    pub(crate) fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// Folders of dynamically provisioned volumes.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// The node agent's: Pods, their logs and state.
    pub(crate) fn kubelet(&self) -> PathBuf {
        self.root.join("kubelet")
    }

    /// What runs leave behind.
    pub(crate) fn artifacts(&self) -> PathBuf {
        self.root.join("artifacts")
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// The server's log.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("coracle.log")
    }

    /// Where a running server says how to reach it.
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("server.json")
    }

    /// The ports this directory was served on last.
    pub(crate) fn ports(&self) -> PathBuf {
        self.root.join("ports.json")
    }

    /// The number of the address slice this directory had last.
    pub(crate) fn slice(&self) -> PathBuf {
        self.root.join("slice")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_at_a_time_owns_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path()).unwrap();
        data.create().unwrap();
        let first = data.lock().unwrap();
        assert!(first.is_some());
        assert!(data.lock().unwrap().is_none());
        drop(first);
        assert!(data.lock().unwrap().is_some());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let data = DataDir::new(Path::new("/proc/nowhere")).unwrap();
        let failure = data.create().unwrap_err();
        assert!(failure.to_string().contains("/proc/nowhere"), "{failure}");
    }
}
