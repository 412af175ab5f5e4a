//! Volumes that are folders of this machine, one per claim under one root.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use kube::api::DeleteParams;

use super::PROVISIONED_BY;
use crate::Error;
use crate::runtime::Handle;

pub(super) struct Provisioner {
    root: PathBuf,
    volumes: Handle<PersistentVolume>,
}

impl Provisioner {
    pub(super) fn new(root: PathBuf, volumes: Handle<PersistentVolume>) -> Self {
        Self { root, volumes }
    }

    /// Makes the folder and the volume for a claim, and returns the volume's name. Doing it again
    /// changes nothing.
    pub(super) async fn make(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
    ) -> Result<String, Error> {
        let volume = volume(&self.root, claim, class).map_err(|problem| Error::Object {
            kind: "PersistentVolumeClaim".to_owned(),
            object: crate::runtime::Key::of(claim).to_string(),
            problem,
        })?;
        let name = volume.name_any();
        let folder = self.root.join(&name);
        let path = folder.clone();
        blocking(move || make_folder(&path))
            .await
            .map_err(|source| Error::Folder {
                verb: "make",
                path: folder.display().to_string(),
                source,
            })?;
        match self.volumes.create(&volume).await {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(name),
        }
    }

    /// Removes the folder of a volume that this provisioner made, then the volume.
    pub(super) async fn remove(&self, volume: &PersistentVolume) -> Result<(), Error> {
        let name = volume.name_any();
        let folder = self.root.join(&name);
        let spec = volume.spec.as_ref();
        let path = spec
            .and_then(|spec| spec.host_path.as_ref())
            .map(|h| PathBuf::from(&h.path));
        // Somebody may have edited the volume: only the folder it was made with is removed.
        if path.as_deref() != Some(folder.as_path()) || !name.starts_with("pvc-") {
            return Err(Error::Object {
                kind: "PersistentVolume".to_owned(),
                object: name,
                problem: format!(
                    "its path is not {}, so nothing is removed",
                    folder.display()
                ),
            });
        }
        let path = folder.clone();
        blocking(move || remove_folder(&path))
            .await
            .map_err(|source| Error::Folder {
                verb: "remove",
                path: folder.display().to_string(),
                source,
            })?;
        self.volumes.delete(volume, DeleteParams::default()).await
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn make_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(path)?;
    // Pods run as whoever they like and must be able to write.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))
}

fn remove_folder(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        // The standard library's removal follows no symbolic link inside.
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            "it is not a folder",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn volume(
    root: &Path,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
) -> Result<PersistentVolume, String> {
    let uid = claim.uid().ok_or("it has no uid")?;
    let name = format!("pvc-{uid}");
    let wants = claim.spec.clone().unwrap_or_default();
    if wants.volume_mode.as_deref() == Some("Block") {
        return Err("volumeMode Block is not offered by this provisioner".to_owned());
    }
    if wants.selector.is_some() {
        return Err("claim.spec.selector is not supported for dynamic provisioning".to_owned());
    }
    let path = root
        .join(&name)
        .to_str()
        .ok_or("the volumes' folder is not UTF-8")?
        .to_owned();
    let requests = wants
        .resources
        .and_then(|resources| resources.requests)
        .unwrap_or_default();
    let capacity = requests
        .into_iter()
        .filter(|(resource, _)| resource == "storage")
        .collect();
    Ok(PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name),
            annotations: Some([(PROVISIONED_BY.to_owned(), crate::PROVISIONER.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: wants.access_modes,
            capacity: Some(capacity),
            claim_ref: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("PersistentVolumeClaim".to_owned()),
                namespace: claim.namespace(),
                name: claim.metadata.name.clone(),
                uid: claim.uid(),
                resource_version: claim.resource_version(),
                ..ObjectReference::default()
            }),
            host_path: Some(HostPathVolumeSource {
                path,
                type_: Some("DirectoryOrCreate".to_owned()),
            }),
            mount_options: class.mount_options.clone(),
            persistent_volume_reclaim_policy: Some(
                class
                    .reclaim_policy
                    .clone()
                    .unwrap_or_else(|| "Delete".to_owned()),
            ),
            storage_class_name: Some(class.name_any()),
            volume_mode: wants.volume_mode,
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_place_of_the_folder_is_not_followed() {
        let dir = std::env::temp_dir().join(format!("provisioner-{}", std::process::id()));
        let precious = dir.join("precious");
        std::fs::create_dir_all(&precious).unwrap();
        std::fs::write(precious.join("file"), "kept").unwrap();
        let link = dir.join("pvc-1");
        std::os::unix::fs::symlink(&precious, &link).unwrap();
        assert!(remove_folder(&link).is_err());
        let made = dir.join("pvc-2");
        make_folder(&made).unwrap();
        std::os::unix::fs::symlink(&precious, made.join("inside")).unwrap();
        remove_folder(&made).unwrap();
        remove_folder(&made).unwrap();
        assert!(!made.exists() && precious.join("file").exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
