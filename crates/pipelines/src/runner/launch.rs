//! Puts the launcher around a container: its volume, the parts of the default store that the step may
//! see, and its command before the step's own.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use artifacts::{Scheme, Stores, Uri};
use launcher::Job;
use serde_json::{Value, json};

/// The file with an attempt's outputs, in its folder.
pub(super) const DOCUMENT: &str = ".outputs.json";
/// The volume with the launcher.
const PROGRAM_VOLUME: &str = "kfp-launcher";
/// The volume with the default store.
const STORE_VOLUME: &str = "kfp-store";
/// The volume that artifacts of other stores are brought to.
const FETCHED_VOLUME: &str = "kfp-fetched";

/// What stands around a step.
pub(super) struct Launch {
    pub(super) job: Job,
    /// The attempt's own folder in its store.
    pub(super) folder: Uri,
    /// What it reads from stores.
    pub(super) reads: Vec<Uri>,
    pub(super) stores: Stores,
}

impl Launch {
    /// Changes a container and its Pod's volumes.
    pub(super) fn apply(
        mut self,
        main: &mut Value,
        volumes: &mut Vec<Value>,
    ) -> Result<(), String> {
        let mut mounts = list(main, "volumeMounts");
        // A step with nothing to bring or collect runs its command directly.
        let needed = self.job != Job::default();
        self.local_mounts(needed, &mut mounts, volumes)?;
        self.fetched_mounts(&mut mounts, volumes);
        if needed {
            volumes.push(json!({"name": PROGRAM_VOLUME,
                "image": {"reference": launcher::IMAGE, "pullPolicy": "IfNotPresent"}}));
            mounts.push(
                json!({"name": PROGRAM_VOLUME, "mountPath": launcher::MOUNT, "readOnly": true}),
            );
        }
        if !mounts.is_empty() {
            main["volumeMounts"] = Value::Array(mounts);
        }
        if !needed {
            return Ok(());
        }

        let message = main.get("terminationMessagePath").and_then(Value::as_str);
        message
            .filter(|path| !path.is_empty())
            .unwrap_or("/dev/termination-log")
            .clone_into(&mut self.job.message);
        let own = list(main, "command");
        self.job.has_command = !own.is_empty();
        self.job.providers = self.stores.providers().clone();
        let job = serde_json::to_string(&self.job).map_err(|error| error.to_string())?;
        // Kubernetes replaces $(NAME) in commands.
        let job = job.replace('$', "\\u0024");
        let words = [launcher::PROGRAM, "launch", "--job", &job, "--"];
        let command: Vec<Value> = words.into_iter().map(Value::from).chain(own).collect();
        main["command"] = Value::Array(command);
        Ok(())
    }

    fn local_mounts(
        &mut self,
        writes: bool,
        mounts: &mut Vec<Value>,
        volumes: &mut Vec<Value>,
    ) -> Result<(), String> {
        let Some(root) = self.stores.root() else {
            return Ok(());
        };
        let mut seen: Vec<PathBuf> = Vec::new();
        if writes
            && self.stores.is_local(&self.folder)
            && let Some(path) = self.stores.local_path(&self.folder)
        {
            make_writable(&path)
                .map_err(|error| format!("make the step's folder {}: {error}", path.display()))?;
            mounts.push(mount(&self.folder, false));
            seen.push(path);
        }
        for uri in &self.reads {
            let Some(path) = self
                .stores
                .local_path(uri)
                .filter(|_| self.stores.is_local(uri))
            else {
                continue;
            };
            // What is missing would be made as a folder; the step says better that it is missing.
            if seen.iter().any(|seen| path.starts_with(seen)) || !path.exists() {
                continue;
            }
            mounts.push(mount(uri, true));
            seen.push(path);
        }
        if !seen.is_empty() {
            self.job.local_store = writes;
            volumes.push(json!({"name": STORE_VOLUME,
                "hostPath": {"path": root.display().to_string(), "type": "Directory"}}));
        }
        Ok(())
    }

    /// Folders for what is brought from and for other stores.
    fn fetched_mounts(&self, mounts: &mut Vec<Value>, volumes: &mut Vec<Value>) {
        let roots = [
            (Scheme::Minio, "/minio"),
            (Scheme::S3, "/s3"),
            (Scheme::Gs, "/gcs"),
            (Scheme::Azure, "/azure"),
        ];
        let needed = self.job != Job::default();
        let uris = || self.reads.iter().chain(needed.then_some(&self.folder));
        let mut any = false;
        for (scheme, root) in roots {
            if uris().any(|uri| uri.scheme() == scheme && !self.stores.is_local(uri)) {
                any = true;
                mounts.push(json!({"name": FETCHED_VOLUME, "mountPath": root,
                    "subPath": root.trim_start_matches('/')}));
            }
        }
        if any {
            volumes.push(json!({"name": FETCHED_VOLUME, "emptyDir": {}}));
        }
    }
}

fn mount(uri: &Uri, read_only: bool) -> Value {
    let below = format!("{}/{}", uri.bucket(), uri.key());
    json!({"name": STORE_VOLUME, "mountPath": format!("{}/{below}", launcher::STORE),
        "subPath": below, "readOnly": read_only})
}

/// Steps may run as any user; the store's own folder keeps others out.
fn make_writable(folder: &Path) -> std::io::Result<()> {
    // Who does not know a folder's name does not find it.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777))
}

fn list(value: &Value, key: &str) -> Vec<Value> {
    let items = value.get(key).and_then(Value::as_array);
    items.cloned().unwrap_or_default()
}
