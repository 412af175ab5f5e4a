//! Where things lie below the data directory: `pods/UID/…`.

use std::path::{Path, PathBuf};

/// The directory of a Pod.
pub(crate) fn pod_dir(data_dir: &Path, uid: &str) -> PathBuf {
    data_dir.join("pods").join(uid)
}

/// The Pod's record.
pub(crate) fn record(pod_dir: &Path) -> PathBuf {
    pod_dir.join("pod.json")
}

/// The directory that holds the Pod's hosts file.
pub(crate) fn hosts_dir(pod_dir: &Path) -> PathBuf {
    pod_dir.join("etc")
}

/// A volume of the Pod.
pub(crate) fn volume(pod_dir: &Path, name: &str) -> PathBuf {
    pod_dir.join("volumes").join(name)
}

/// State of one attempt of a container.
pub(crate) fn state_dir(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir
        .join("containers")
        .join(container)
        .join(attempt.to_string())
}

/// The file that a container writes its last words into.
pub(crate) fn termination_log(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    state_dir(pod_dir, container, attempt).join("termination-log")
}

/// The log of one attempt of a container.
pub(crate) fn log(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir
        .join("logs")
        .join(container)
        .join(format!("{attempt}.log"))
}
