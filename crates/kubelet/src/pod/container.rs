//! From a container in a Pod to what a runtime shall start: command, mounts, user and rights.
//!
//! Pure apart from directories that a `subPath` names, which are made here.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{self as k8s, Pod};

use super::environment::{self, Environment};
use super::machine::StartFailure;
use super::paths;
use crate::network::hosts;
use crate::quantity::{millis, units};
use crate::runtime::{
    ContainerRef, ContainerSpec, IMAGE_VARIABLE, Image, ImageKind, LogSpec, Mount, SecuritySpec,
};
use crate::volume::MountedVolumes;
use crate::volume::files;

/// The kubelet's defaults for container logs.
const LOG_BYTES: u64 = 10 << 20;
const LOG_FILES: u32 = 5;

/// What is known when a container is started.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a k8s::Container,
    pub(crate) id: &'a ContainerRef,
    pub(crate) attempt: u32,
    pub(crate) image: &'a Image,
    pub(crate) environment: Environment,
    pub(crate) volumes: &'a MountedVolumes,
    pub(crate) pod_dir: &'a Path,
    pub(crate) pod_ip: Ipv4Addr,
    /// Whether the server may change users.
    pub(crate) own_uid: u32,
}

/// What to start, or why it cannot be.
pub(crate) fn spec(inputs: Inputs<'_>) -> Result<ContainerSpec, StartFailure> {
    let Inputs {
        pod,
        container,
        id,
        attempt,
        image,
        mut environment,
        volumes,
        ..
    } = inputs;
    let pod_spec = pod.spec.clone().unwrap_or_default();
    let security = security(pod, container, image, inputs.own_uid)?;
    let user = security.user.unwrap_or(inputs.own_uid);
    environment.set_default("HOME", if user == 0 { "/root" } else { "/" });
    environment.set_default("CORACLE_POD_IP", &inputs.pod_ip.to_string());
    let expand = |list: Option<&Vec<String>>| -> Vec<String> {
        list.into_iter()
            .flatten()
            .map(|text| environment::expand(text, |name| environment.get(name)))
            .collect()
    };
    let command = expand(container.command.as_ref());
    let args = expand(container.args.as_ref());
    environment.remove(IMAGE_VARIABLE);
    if command
        .first()
        .is_some_and(|program| in_image_volume(&pod_spec, container, program))
    {
        environment.set(IMAGE_VARIABLE, image_facts(image));
    }
    let mut mounts = mounts(volumes, container, &environment)?;
    let termination = container
        .termination_message_path
        .as_deref()
        .unwrap_or("/dev/termination-log");
    if !termination.is_empty() {
        mounts.push(Mount {
            source: paths::termination_log(inputs.pod_dir, &container.name, attempt),
            target: PathBuf::from(termination),
            read_only: false,
        });
    }
    let host_network = pod_spec.host_network == Some(true);
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
    let limit = |name: &str| limits.and_then(|l| l.get(name));
    Ok(ContainerSpec {
        container: id.clone(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        pod: pod.metadata.name.clone().unwrap_or_default(),
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
        name: container.name.clone(),
        image: image.clone(),
        command,
        args,
        env: environment.into_entries(),
        working_dir: container
            .working_dir
            .clone()
            .filter(|d| !d.is_empty())
            .or_else(|| image.working_dir.clone())
            .map(PathBuf::from),
        mounts,
        hosts_dir: Some(paths::hosts_dir(inputs.pod_dir)),
        hostname: (!host_network).then(|| hosts::hostname(pod)),
        pod_ip: inputs.pod_ip,
        host_network,
        security,
        memory_limit: limit("memory")
            .and_then(units)
            .and_then(|v| u64::try_from(v).ok()),
        cpu_limit: limit("cpu")
            .and_then(millis)
            .and_then(|v| u64::try_from(v).ok()),
        log: LogSpec {
            path: paths::log(inputs.pod_dir, &container.name, attempt),
            max_bytes: LOG_BYTES,
            max_files: LOG_FILES,
        },
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
    })
}

/// Whether a program is one of an image volume's.
fn in_image_volume(pod: &k8s::PodSpec, container: &k8s::Container, program: &str) -> bool {
    let is_image = |name: &str| {
        let mut volumes = pod.volumes.iter().flatten();
        volumes.any(|volume| volume.name == name && volume.image.is_some())
    };
    let mut mounts = container.volume_mounts.iter().flatten();
    mounts.any(|mount| Path::new(program).starts_with(&mount.mount_path) && is_image(&mount.name))
}

/// What a program from outside the image has to know to run the image's own.
fn image_facts(image: &Image) -> String {
    let program = match &image.kind {
        ImageKind::BuiltIn(program) => Some(program),
        ImageKind::Host | ImageKind::Python(_) => None,
    };
    let facts =
        serde_json::json!({"program": program, "entrypoint": image.entrypoint, "cmd": image.cmd});
    facts.to_string()
}

fn mounts(
    volumes: &MountedVolumes,
    container: &k8s::Container,
    environment: &Environment,
) -> Result<Vec<Mount>, StartFailure> {
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let Some(volume) = volumes.get(&mount.name) else {
            return Err(StartFailure::Config(format!(
                "cannot find volume {:?} to mount into container {:?}",
                mount.name, container.name
            )));
        };
        let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
            (_, Some(expression)) if !expression.is_empty() => {
                let text = environment::expand(expression, |name| environment.get(name));
                if text.contains("$(") {
                    return Err(StartFailure::Config(format!(
                        "failed to expand subPath expression {expression:?}: missing value"
                    )));
                }
                text
            }
            (Some(path), _) => path.clone(),
            _ => String::new(),
        };
        let source = if sub_path.is_empty() {
            volume.path.clone()
        } else {
            sub_path_of(&volume.path, &sub_path).map_err(|reason| {
                StartFailure::Config(format!(
                    "failed to prepare subPath for volumeMount {:?} of container {:?}: {reason}",
                    mount.name, container.name
                ))
            })?
        };
        mounts.push(Mount {
            source,
            target: PathBuf::from(&mount.mount_path),
            read_only: volume.read_only || mount.read_only == Some(true),
        });
    }
    Ok(mounts)
}

/// The directory or file below a volume that a `subPath` names, made as a directory if missing. No
/// symbolic link may lead out of the volume.
fn sub_path_of(volume: &Path, sub_path: &str) -> Result<PathBuf, String> {
    let relative = files::relative(sub_path)?;
    let full = volume.join(relative);
    if !full.exists() {
        // Whoever may write to the volume may write there.
        let made = std::fs::metadata(volume)
            .and_then(|of| std::fs::create_dir_all(&full).map(|()| of.permissions()))
            .and_then(|permissions| std::fs::set_permissions(&full, permissions));
        made.map_err(|e| format!("mkdir {}: {e}", full.display()))?;
    }
    let real = |path: &Path| {
        std::fs::canonicalize(path).map_err(|e| format!("resolve {}: {e}", path.display()))
    };
    let (root, resolved) = (real(volume)?, real(&full)?);
    if resolved.starts_with(&root) {
        Ok(resolved)
    } else {
        Err(format!("{sub_path:?} leads out of the volume"))
    }
}

/// User, groups and rights: the container's own settings before the Pod's before the image's.
fn security(
    pod: &Pod,
    container: &k8s::Container,
    image: &Image,
    own_uid: u32,
) -> Result<SecuritySpec, StartFailure> {
    let of_pod = pod
        .spec
        .as_ref()
        .and_then(|s| s.security_context.clone())
        .unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let id = |value: Option<i64>| value.and_then(|v| u32::try_from(v).ok());
    let user = id(own.run_as_user.or(of_pod.run_as_user)).or(image.user);
    let must_not_be_root = own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true);
    if must_not_be_root && user.unwrap_or(own_uid) == 0 {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let asked = own.run_as_user.or(of_pod.run_as_user) == Some(0);
        let what = if asked {
            "container's runAsUser breaks non-root policy"
        } else {
            "container has runAsNonRoot and image will run as root"
        };
        return Err(StartFailure::Config(format!(
            "{what} (pod: \"{name}_{namespace}({uid})\", container: {})",
            container.name
        )));
    }
    let mut groups: Vec<u32> = of_pod
        .supplemental_groups
        .iter()
        .flatten()
        .filter_map(|g| id(Some(*g)))
        .collect();
    groups.extend(id(of_pod.fs_group));
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let names = |list: Option<Vec<String>>| -> Vec<String> {
        list.into_iter()
            .flatten()
            .map(|name| name.to_uppercase().trim_start_matches("CAP_").to_owned())
            .collect()
    };
    let privileged = own.privileged == Some(true);
    Ok(SecuritySpec {
        user,
        group: id(own.run_as_group.or(of_pod.run_as_group)),
        supplemental_groups: groups,
        privileged,
        no_new_privileges: own.allow_privilege_escalation == Some(false) && !privileged,
        read_only_root: own.read_only_root_filesystem == Some(true),
        add_capabilities: names(capabilities.add),
        drop_capabilities: names(capabilities.drop),
    })
}

#[cfg(test)]
mod tests;
