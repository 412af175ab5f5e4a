//! Containers, volumes and the other pieces of a Pod that a template or Workflow may have: fields
//! that Kubernetes does not know are refused here, where their line can be named.

use crate::field::{Field, Invalid};

type Result<T> = core::result::Result<T, Invalid>;

const CONTAINER: [&str; 24] = [
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "restartPolicy",
    "securityContext",
    "startupProbe",
    "stdin",
    "stdinOnce",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];

/// Every field of a volume but its name says where it comes from.
const VOLUME: [&str; 31] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "hostPath",
    "image",
    "iscsi",
    "name",
    "nfs",
    "persistentVolumeClaim",
    "photonPersistentDisk",
    "portworxVolume",
    "projected",
    "quobyte",
    "rbd",
    "scaleIO",
    "secret",
    "storageos",
    "vsphereVolume",
];

/// The container that does a template's work.
pub(super) fn check(field: &Field<'_>) -> Result<()> {
    field.only(&CONTAINER, &[])?;
    if field.need("image")?.scalar()?.trim().is_empty() {
        return field.need("image")?.invalid("the image has no name");
    }
    for name in ["command", "args"] {
        for item in field.list(name)? {
            item.str()?;
        }
    }
    for variable in field.list("env")? {
        variable.only(&["name", "value", "valueFrom"], &[])?;
        variable.need("name")?.str()?;
        if let Some(value) = variable.get("value")? {
            value.str()?;
        }
    }
    for source in field.list("envFrom")? {
        source.only(&["configMapRef", "prefix", "secretRef"], &[])?;
    }
    if let Some(resources) = field.get("resources")? {
        resources.only(&["claims", "limits", "requests"], &[])?;
        for kind in ["limits", "requests"] {
            if let Some(amounts) = resources.get(kind)? {
                for (_, amount) in amounts.entries()? {
                    amount.scalar()?;
                }
            }
        }
    }
    for mount in field.list("volumeMounts")? {
        mount.only(
            &[
                "mountPath",
                "mountPropagation",
                "name",
                "readOnly",
                "recursiveReadOnly",
                "subPath",
                "subPathExpr",
            ],
            &[],
        )?;
        mount.need("name")?.str()?;
        mount.need("mountPath")?.str()?;
    }
    Ok(())
}

/// Sidecars and init containers, which have an extra of Argo's own.
pub(super) fn check_others(field: &Field<'_>) -> Result<()> {
    for name in ["initContainers", "sidecars"] {
        let mut seen = Vec::new();
        for container in field.list(name)? {
            let own = container.need("name")?;
            let text = own.str()?;
            if text == "main" || seen.contains(&text) {
                return own.invalid(format!("there is another container called {text:?}"));
            }
            seen.push(text);
            let mut plain = container.value.clone();
            if let Some(fields) = plain.as_object_mut() {
                fields.remove("mirrorVolumeMounts");
            }
            check(&container.with(&plain))?;
        }
    }
    Ok(())
}

/// The pieces of a Pod that templates and Workflows share.
pub(super) fn check_pod(field: &Field<'_>) -> Result<()> {
    let mut seen = Vec::new();
    for volume in field.list("volumes")? {
        volume.only(&VOLUME, &[])?;
        let name = volume.need("name")?;
        if seen.contains(&name.str()?) {
            return name.invalid(format!("there are two volumes called {:?}", name.str()?));
        }
        seen.push(name.str()?);
        if let Some(claim) = volume.get("persistentVolumeClaim")? {
            claim.only(&["claimName", "readOnly"], &[])?;
            claim.need("claimName")?.str()?;
        }
    }
    for toleration in field.list("tolerations")? {
        toleration.only(
            &["effect", "key", "operator", "tolerationSeconds", "value"],
            &[],
        )?;
    }
    if let Some(affinity) = field.get("affinity")? {
        affinity.only(&["nodeAffinity", "podAffinity", "podAntiAffinity"], &[])?;
    }
    if let Some(selector) = field.get("nodeSelector")? {
        for (_, value) in selector.entries()? {
            value.str()?;
        }
    }
    for secret in field.list("imagePullSecrets")? {
        secret.only(&["name"], &[])?;
    }
    if let Some(patch) = field.get("podSpecPatch")? {
        let text = patch.str()?;
        if !text.contains("{{") {
            match serde_saphyr::from_str::<serde_json::Value>(text) {
                Ok(value) if value.is_object() => {}
                Ok(_) => {
                    return patch.invalid("the patch is no object with fields of a Pod's spec");
                }
                Err(error) => return patch.invalid(format!("the patch is not YAML: {error}")),
            }
        }
    }
    Ok(())
}
