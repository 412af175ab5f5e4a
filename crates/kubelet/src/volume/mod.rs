//! A Pod's volumes: making them on the host, keeping their files up to date, taking them down.
//!
//! [`Volumes::mount`] makes all of them or says which one cannot be made and why;
//! [`refresh::run`] rewrites what comes from ConfigMaps, Secrets and tokens. Where a volume appears
//! in a container is decided in `pod::container`.

pub(crate) mod files;
pub(crate) mod host_path;
mod image;
mod projected;
pub(crate) mod refresh;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, PodSpec, Volume,
};
use kube::{Api, Client, ResourceExt as _};
use stdx::SharedClock;

use crate::changes::{Key, Kind};
use crate::pod::downward::Facts;
use crate::pod::paths;
use crate::runtime::ImageService;
use files::Owner;

/// A volume on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) path: PathBuf,
    /// Every mount of it is read-only.
    pub(crate) read_only: bool,
}

/// The Pod's volumes by name.
pub(crate) type MountedVolumes = BTreeMap<String, Mounted>;

/// A volume that cannot be made (yet).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountError {
    /// The text of the `FailedMount` Event.
    pub(crate) message: String,
    /// The object whose change may help, and its version.
    pub(crate) waits_for: Option<(Key, Option<String>)>,
}

/// Makes volumes.
#[derive(Clone)]
pub(crate) struct Volumes {
    pub(crate) client: Client,
    pub(crate) clock: SharedClock,
    /// Knows the images of image volumes.
    pub(crate) images: Arc<dyn ImageService>,
    /// The folder with the files of built-in images.
    pub(crate) programs: PathBuf,
}

impl fmt::Debug for Volumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volumes").finish_non_exhaustive()
    }
}

/// What a volume's files are made from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins {
    /// The objects read, with their versions; `None` where an optional one does not exist.
    pub(crate) objects: BTreeMap<Key, Option<String>>,
    /// When a token has to be replaced.
    pub(crate) renew_at: Option<Timestamp>,
}

/// A problem while making one volume: its text, and what may help.
pub(crate) struct Problem {
    pub(crate) text: String,
    pub(crate) waits_for: Option<(Key, Option<String>)>,
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self {
            text,
            waits_for: None,
        }
    }
}

impl Volumes {
    /// Makes all volumes of a Pod below its directory. Making them again changes nothing.
    pub(crate) async fn mount(
        &self,
        pod: &Pod,
        pod_dir: &Path,
        facts: &Facts,
    ) -> Result<(MountedVolumes, Origins), MountError> {
        let mut mounted = MountedVolumes::new();
        let mut origins = Origins::default();
        let spec = pod.spec.clone().unwrap_or_default();
        for volume in spec.volumes.iter().flatten() {
            match self
                .mount_one(pod, &spec, volume, pod_dir, facts, &mut origins)
                .await
            {
                Ok(one) => {
                    mounted.insert(volume.name.clone(), one);
                }
                Err(problem) => {
                    return Err(MountError {
                        message: format!(
                            "MountVolume.SetUp failed for volume {:?} : {}",
                            volume.name, problem.text
                        ),
                        waits_for: problem.waits_for,
                    });
                }
            }
        }
        Ok((mounted, origins))
    }

    async fn mount_one(
        &self,
        pod: &Pod,
        spec: &PodSpec,
        volume: &Volume,
        pod_dir: &Path,
        facts: &Facts,
        origins: &mut Origins,
    ) -> Result<Mounted, Problem> {
        let dir = if projected::is_made_of_files(volume) {
            files_dir(pod_dir, &volume.name)
        } else {
            paths::volume(pod_dir, &volume.name)
        };
        let writable = |path| Mounted {
            path,
            read_only: false,
        };
        if let Some(source) = &volume.host_path {
            return Ok(writable(host_path::prepare(
                &source.path,
                source.type_.as_deref(),
            )?));
        }
        if let Some(source) = &volume.empty_dir {
            return Ok(writable(empty_dir(source, pod, spec, &dir, &volume.name)?));
        }
        if let Some(source) = &volume.persistent_volume_claim {
            let path = self.claim(pod, &source.claim_name).await?;
            let read_only = source.read_only == Some(true) || path.1;
            return Ok(Mounted {
                path: path.0,
                read_only,
            });
        }
        if let Some(source) = &volume.ephemeral {
            let _ = source;
            let claim = format!("{}-{}", pod.name_any(), volume.name);
            let (path, read_only) = self.claim(pod, &claim).await?;
            return Ok(Mounted { path, read_only });
        }
        if let Some(source) = &volume.image {
            let path = image::prepare(source, self.images.as_ref(), &self.programs).await?;
            return Ok(Mounted {
                path,
                read_only: true,
            });
        }
        if projected::is_made_of_files(volume) {
            self.write_files(pod, volume, &dir, facts, origins).await?;
            return Ok(Mounted {
                path: dir,
                read_only: true,
            });
        }
        let kind = serde_json::to_value(volume)
            .ok()
            .and_then(|v| v.as_object()?.keys().find(|k| *k != "name").cloned())
            .unwrap_or_else(|| "unknown".to_owned());
        Err(format!("no volume plugin for {kind:?} on this node (allowed: configMap, downwardAPI, emptyDir, ephemeral, hostPath, image, persistentVolumeClaim, projected, secret)").into())
    }

    /// Writes the files of one volume if they have changed.
    pub(crate) async fn write_files(
        &self,
        pod: &Pod,
        volume: &Volume,
        dir: &Path,
        facts: &Facts,
        origins: &mut Origins,
    ) -> Result<(), Problem> {
        let payload = self.payload(pod, volume, facts, origins).await?;
        let security = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
        let group = security
            .and_then(|s| s.fs_group)
            .and_then(|g| u32::try_from(g).ok());
        files::write(
            dir,
            &payload.files,
            Owner {
                user: payload.user,
                group,
            },
            self.clock.now(),
        )
        .map_err(|e| format!("write {}: {e}", dir.display()))?;
        Ok(())
    }

    /// The host path behind a claim, once it is bound, and whether it may not be written.
    async fn claim(&self, pod: &Pod, name: &str) -> Result<(PathBuf, bool), Problem> {
        let namespace = pod.namespace().unwrap_or_default();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
        let key = Key {
            kind: Kind::Claim,
            namespace,
            name: name.to_owned(),
        };
        let api_problem = |e: kube::Error| Problem::from(stdx::error::chain(&e));
        let Some(claim) = claims.get_opt(name).await.map_err(api_problem)? else {
            return Err(Problem {
                text: format!("persistentvolumeclaim {name:?} not found"),
                waits_for: Some((key, None)),
            });
        };
        let phase = claim
            .status
            .as_ref()
            .and_then(|s| s.phase.as_deref())
            .unwrap_or("Pending");
        let volume_name = claim.spec.as_ref().and_then(|s| s.volume_name.clone());
        let (Some(volume_name), "Bound") = (volume_name.filter(|n| !n.is_empty()), phase) else {
            let version = claim.resource_version();
            return Err(Problem {
                text: format!("PVC {}/{name} is not bound (phase {phase})", key.namespace),
                waits_for: Some((key, version)),
            });
        };
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let volume = volumes
            .get_opt(&volume_name)
            .await
            .map_err(api_problem)?
            .ok_or_else(|| format!("persistentvolume {volume_name:?} not found"))?;
        let spec = volume.spec.unwrap_or_default();
        let only_read = spec
            .access_modes
            .as_ref()
            .is_some_and(|modes| !modes.is_empty() && modes.iter().all(|m| m == "ReadOnlyMany"));
        if let Some(source) = &spec.host_path {
            let path = host_path::prepare(&source.path, source.type_.as_deref())
                .map_err(|e| format!("{e} (persistentvolume {volume_name})"))?;
            return Ok((path, only_read));
        }
        if let Some(source) = &spec.local {
            let path = PathBuf::from(&source.path);
            host_path::readable(&path)
                .map_err(|e| format!("{e} (persistentvolume {volume_name})"))?;
            return Ok((path, only_read));
        }
        Err(format!(
            "persistentvolume {volume_name:?} has no volume plugin on this node (allowed: hostPath, local)"
        )
        .into())
    }
}

/// An empty directory that lives as long as the Pod. In memory where it asks for that and the host
/// has a place for it that programs of any namespace can see.
fn empty_dir(
    source: &EmptyDirVolumeSource,
    pod: &Pod,
    spec: &PodSpec,
    dir: &Path,
    name: &str,
) -> Result<PathBuf, String> {
    let failed = |what: &str, e: std::io::Error| format!("{what}: {e}");
    let memory = Path::new("/dev/shm");
    let group = spec
        .security_context
        .as_ref()
        .and_then(|s| s.fs_group)
        .and_then(|g| u32::try_from(g).ok());
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    let make = |path: &Path| -> Result<(), String> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
            .map_err(|e| failed(&format!("mkdir {}", path.display()), e))?;
        if group.is_some() {
            files::chown(path, Owner { user: None, group })
                .map_err(|e| failed(&format!("chown {}", path.display()), e))?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(|e| failed(&format!("chmod {}", path.display()), e))
    };
    if source.medium.as_deref() == Some("Memory") && memory.is_dir() {
        let target = memory.join(format!("pod-{}-{name}", pod.uid().unwrap_or_default()));
        make(&target)?;
        if std::fs::symlink_metadata(dir).is_err() {
            if let Some(parent) = dir.parent() {
                std::fs::create_dir_all(parent)
                    .map_err(|e| failed(&format!("mkdir {}", parent.display()), e))?;
            }
            symlink(&target, dir).map_err(|e| failed(&format!("link {}", dir.display()), e))?;
        }
        return Ok(target);
    }
    if !dir.exists() {
        make(dir)?;
    }
    Ok(dir.to_owned())
}

/// Where the files of a volume lie that are written from objects: in memory where that can be had,
/// as secrets should, else in the Pod's directory.
pub(crate) fn files_dir(pod_dir: &Path, name: &str) -> PathBuf {
    match memory_of(pod_dir) {
        Some(memory) => memory.join(name),
        None => paths::volume(pod_dir, name),
    }
}

/// A Pod's place in memory, named by that of its directory: several data directories may hold Pods
/// of one uid, if one is a copy of another.
fn memory_of(pod_dir: &Path) -> Option<PathBuf> {
    let hash = pod_dir
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
    let uid = pod_dir.file_name()?.to_str()?;
    Some(own_memory()?.join(format!("{uid}.{hash:016x}")))
}

/// A folder in memory that nobody else can look into; made if it is missing.
fn own_memory() -> Option<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let folder = Path::new("/dev/shm").join(format!("coracle-{user}"));
    // Anybody may have made something of this name before us.
    let ours = |folder: &Path| {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::symlink_metadata(folder)
            .is_ok_and(|is| is.is_dir() && is.uid() == user && is.mode() & 0o777 == 0o700)
    };
    if !ours(&folder) {
        // The look after it says whether that worked.
        let _ = std::fs::DirBuilder::new().mode(0o700).create(&folder);
    }
    ours(&folder).then_some(folder)
}

/// Removes everything that [`Volumes::mount`] made below the Pod's directory. Host paths and claims
/// are not touched: nothing of them lies there.
pub(crate) fn unmount(pod_dir: &Path) -> std::io::Result<()> {
    if let Some(memory) = memory_of(pod_dir) {
        remove_tree(&memory)?;
    }
    let volumes = pod_dir.join("volumes");
    let entries = match std::fs::read_dir(&volumes) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if let Ok(target) = std::fs::read_link(&path)
            && target.starts_with("/dev/shm")
        {
            remove_tree(&target)?;
        }
    }
    remove_tree(&volumes)
}

/// Removes a directory and what is in it; one that is gone is fine.
pub(crate) fn remove_tree(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The users that a Pod's containers run as, where all of them say so and agree.
pub(crate) fn common_user(spec: &PodSpec) -> Option<u32> {
    let pod = spec.security_context.as_ref().and_then(|s| s.run_as_user);
    let users: BTreeSet<Option<i64>> = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .map(|c| {
            c.security_context
                .as_ref()
                .and_then(|s| s.run_as_user)
                .or(pod)
        })
        .collect();
    match users.into_iter().collect::<Vec<_>>()[..] {
        [Some(user)] => u32::try_from(user).ok(),
        _ => None,
    }
}
