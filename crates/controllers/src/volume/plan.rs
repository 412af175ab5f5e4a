//! The next step of one claim and of one volume. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus,
    PersistentVolumeStatus,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt as _;

use super::matching::{self, refers_to};
use super::{
    BETA_STORAGE_PROVISIONER, BIND_COMPLETED, BOUND_BY_CONTROLLER, PROVISIONED_BY, SELECTED_NODE,
    STORAGE_PROVISIONER,
};
use crate::meta;

/// What the cluster has of volumes.
pub(super) struct Observed {
    pub(super) volumes: Vec<Arc<PersistentVolume>>,
    pub(super) classes: Vec<Arc<StorageClass>>,
    pub(super) nodes: Vec<Arc<Node>>,
    pub(super) now: Timestamp,
    /// Whether volumes of [`crate::PROVISIONER`] are made and removed here.
    pub(super) provisions: bool,
}

#[derive(Debug, PartialEq)]
pub(super) enum Change {
    /// Writes a claim; its status is written apart.
    Claim(Box<PersistentVolumeClaim>),
    ClaimStatus(Box<PersistentVolumeClaim>),
    Volume(Box<PersistentVolume>),
    VolumeStatus(Box<PersistentVolume>),
    /// Makes a volume of this class for the claim.
    Provision(Arc<StorageClass>),
    /// Removes the volume's folder, then the volume.
    DeleteVolume,
    Normal {
        reason: &'static str,
        message: String,
    },
    Warning {
        reason: &'static str,
        message: String,
    },
    /// The other side has something to do.
    LookAtClaim(ObjectReference),
}

fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.as_deref())
        .unwrap_or("")
}

fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

fn phase_of(claim: &PersistentVolumeClaim) -> &str {
    claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("")
}

/// The next step of a claim.
pub(super) fn claim(claim: &Arc<PersistentVolumeClaim>, observed: &Observed) -> Vec<Change> {
    if claim.metadata.deletion_timestamp.is_some()
        && !claim.annotations().contains_key(BIND_COMPLETED)
    {
        return Vec::new();
    }
    let named = observed
        .volumes
        .iter()
        .find(|v| v.name_any() == volume_name(claim));
    if claim.annotations().contains_key(BIND_COMPLETED) {
        return bound_claim(claim, named);
    }
    if volume_name(claim).is_empty() {
        return free_claim(claim, observed);
    }
    // A user asks for one volume by name.
    let Some(volume) = named else {
        return pending(claim);
    };
    match claim_ref(volume) {
        None => match matching::objection(volume, claim) {
            None => bind(volume, claim),
            Some(problem) => {
                let message = format!(
                    "Cannot bind to requested volume {:?}: {problem}",
                    volume.name_any()
                );
                with_event(
                    pending(claim),
                    Change::Warning {
                        reason: "VolumeMismatch",
                        message,
                    },
                )
            }
        },
        Some(reference) if refers_to(reference, claim) => bind(volume, claim),
        Some(reference) => {
            let message = format!(
                "volume {:?} already bound to a different claim {}/{}.",
                volume.name_any(),
                reference.namespace.as_deref().unwrap_or_default(),
                reference.name.as_deref().unwrap_or_default(),
            );
            with_event(
                pending(claim),
                Change::Warning {
                    reason: "FailedBinding",
                    message,
                },
            )
        }
    }
}

fn with_event(mut changes: Vec<Change>, event: Change) -> Vec<Change> {
    changes.push(event);
    changes
}

fn free_claim(claim: &Arc<PersistentVolumeClaim>, observed: &Observed) -> Vec<Change> {
    let Some(class_name) = matching::class_of_claim(claim) else {
        // Made before there was a default class: it gets the one there is now.
        if let Some(default) = matching::default_class(&observed.classes) {
            let mut updated = claim.as_ref().clone();
            updated.spec.get_or_insert_default().storage_class_name = Some(default.name_any());
            return vec![Change::Claim(Box::new(updated))];
        }
        return match matching::best(claim, &observed.volumes, None) {
            Some(volume) => bind(volume, claim),
            None => no_volume(claim, ""),
        };
    };
    let class = observed
        .classes
        .iter()
        .find(|class| class.name_any() == class_name);
    let node = claim
        .annotations()
        .get(SELECTED_NODE)
        .and_then(|name| observed.nodes.iter().find(|node| node.name_any() == *name));
    let delayed = matching::delays_binding(claim, class.map(Arc::as_ref));
    let reserved_only = |volume: &&Arc<PersistentVolume>| !delayed || claim_ref(volume).is_some();
    if let Some(volume) =
        matching::best(claim, &observed.volumes, node.map(Arc::as_ref)).filter(reserved_only)
    {
        return bind(volume, claim);
    }
    if delayed {
        let message = "waiting for first consumer to be created before binding".to_owned();
        return with_event(
            pending(claim),
            Change::Normal {
                reason: "WaitForFirstConsumer",
                message,
            },
        );
    }
    if class_name.is_empty() {
        return no_volume(claim, class_name);
    }
    let Some(class) = class else {
        let message = format!("storageclass.storage.k8s.io {class_name:?} not found");
        return with_event(
            pending(claim),
            Change::Warning {
                reason: "ProvisioningFailed",
                message,
            },
        );
    };
    provision(claim, class, observed)
}

fn no_volume(claim: &Arc<PersistentVolumeClaim>, _class: &str) -> Vec<Change> {
    let message =
        "no persistent volumes available for this claim and no storage class is set".to_owned();
    with_event(
        pending(claim),
        Change::Normal {
            reason: "FailedBinding",
            message,
        },
    )
}

fn provision(
    claim: &Arc<PersistentVolumeClaim>,
    class: &Arc<StorageClass>,
    observed: &Observed,
) -> Vec<Change> {
    let provisioner = &class.provisioner;
    if provisioner == "kubernetes.io/no-provisioner" {
        let message = format!(
            "no volume plugin matched name: {provisioner}; a volume of class {:?} has to be made \
             by hand",
            class.name_any()
        );
        return with_event(
            pending(claim),
            Change::Warning {
                reason: "ProvisioningFailed",
                message,
            },
        );
    }
    if claim.annotations().get(STORAGE_PROVISIONER) != Some(provisioner) {
        let mut updated = claim.as_ref().clone();
        for annotation in [STORAGE_PROVISIONER, BETA_STORAGE_PROVISIONER] {
            updated
                .annotations_mut()
                .insert(annotation.to_owned(), provisioner.clone());
        }
        return vec![Change::Claim(Box::new(updated))];
    }
    if provisioner == crate::PROVISIONER && observed.provisions {
        return with_event(pending(claim), Change::Provision(class.clone()));
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or \
         manually by the system administrator. If volume creation is delayed, please verify that \
         the provisioner is running and correctly registered."
    );
    with_event(
        pending(claim),
        Change::Normal {
            reason: "ExternalProvisioning",
            message,
        },
    )
}

fn pending(claim: &Arc<PersistentVolumeClaim>) -> Vec<Change> {
    set_phase(claim, "Pending")
}

fn set_phase(claim: &Arc<PersistentVolumeClaim>, phase: &str) -> Vec<Change> {
    if phase_of(claim) == phase {
        return Vec::new();
    }
    let mut updated = claim.as_ref().clone();
    updated.status.get_or_insert_default().phase = Some(phase.to_owned());
    vec![Change::ClaimStatus(Box::new(updated))]
}

fn bound_claim(
    claim: &Arc<PersistentVolumeClaim>,
    volume: Option<&Arc<PersistentVolume>>,
) -> Vec<Change> {
    let lost = |reason, message: &str| {
        let mut changes = set_phase(claim, "Lost");
        if !changes.is_empty() {
            changes.push(Change::Warning {
                reason,
                message: message.to_owned(),
            });
        }
        changes
    };
    let Some(volume) = volume else {
        return lost(
            "ClaimLost",
            "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
        );
    };
    match claim_ref(volume) {
        None => bind(volume, claim),
        Some(reference) if reference.uid == claim.metadata.uid => bind(volume, claim),
        Some(_) => lost(
            "ClaimMisbound",
            "Two claims are bound to the same volume, this one is bound incorrectly",
        ),
    }
}

/// Writes what is missing on either side, the volume first.
fn bind(volume: &Arc<PersistentVolume>, claim: &Arc<PersistentVolumeClaim>) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut bound = volume.as_ref().clone();
    let spec = bound.spec.get_or_insert_default();
    let reserved = spec.claim_ref.is_some();
    if spec.claim_ref.as_ref().and_then(|r| r.uid.as_deref()) != claim.metadata.uid.as_deref() {
        spec.claim_ref = Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("PersistentVolumeClaim".to_owned()),
            namespace: claim.namespace(),
            name: claim.metadata.name.clone(),
            uid: claim.uid(),
            resource_version: claim.resource_version(),
            ..ObjectReference::default()
        });
        if !reserved {
            bound
                .annotations_mut()
                .insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        }
        changes.push(Change::Volume(Box::new(bound.clone())));
    }
    if volume
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        != Some("Bound")
    {
        bound.status.get_or_insert_default().phase = Some("Bound".to_owned());
        changes.push(Change::VolumeStatus(Box::new(bound)));
    }

    let mut holder = claim.as_ref().clone();
    if volume_name(claim).is_empty() {
        holder
            .spec
            .get_or_insert_default()
            .volume_name
            .clone_from(&volume.metadata.name);
        holder
            .annotations_mut()
            .insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    if !holder.annotations().contains_key(BIND_COMPLETED) {
        holder
            .annotations_mut()
            .insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
    }
    if holder != **claim {
        changes.push(Change::Claim(Box::new(holder.clone())));
    }
    let spec = volume.spec.clone().unwrap_or_default();
    let old = claim.status.clone().unwrap_or_default();
    let status = PersistentVolumeClaimStatus {
        phase: Some("Bound".to_owned()),
        access_modes: spec.access_modes,
        capacity: spec.capacity,
        ..old.clone()
    };
    if status != old {
        holder.status = Some(status);
        changes.push(Change::ClaimStatus(Box::new(holder)));
    }
    changes
}

/// The next step of a volume; `claim` is the claim its reference names, if it still exists.
pub(super) fn volume(
    volume: &Arc<PersistentVolume>,
    claim: Option<&PersistentVolumeClaim>,
    observed: &Observed,
) -> Vec<Change> {
    let Some(reference) = claim_ref(volume) else {
        return phase(volume, "Available", None, observed.now);
    };
    if reference.uid.as_deref().is_none_or(str::is_empty) {
        // A user reserved it; the claim binds it when it comes.
        let mut changes = phase(volume, "Available", None, observed.now);
        changes.push(Change::LookAtClaim(reference.clone()));
        return changes;
    }
    let Some(claim) = claim.filter(|claim| claim.metadata.uid == reference.uid) else {
        return released(volume, observed);
    };
    if volume_name(claim).is_empty() {
        return vec![Change::LookAtClaim(reference.clone())];
    }
    if volume_name(claim) == volume.name_any() {
        return phase(volume, "Bound", None, observed.now);
    }
    // The claim went to another volume.
    let policy = policy(volume);
    if volume.annotations().contains_key(PROVISIONED_BY) && policy == "Delete" {
        return released(volume, observed);
    }
    let mut freed = volume.as_ref().clone();
    if let Some(spec) = &mut freed.spec {
        if volume.annotations().contains_key(BOUND_BY_CONTROLLER) {
            spec.claim_ref = None;
            freed.annotations_mut().remove(BOUND_BY_CONTROLLER);
        } else if let Some(reference) = &mut spec.claim_ref {
            reference.uid = None;
            reference.resource_version = None;
        }
    }
    vec![Change::Volume(Box::new(freed))]
}

fn policy(volume: &PersistentVolume) -> &str {
    volume
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref())
        .unwrap_or("Retain")
}

fn released(volume: &Arc<PersistentVolume>, observed: &Observed) -> Vec<Change> {
    let current = volume
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let mut changes = if current == Some("Failed") {
        Vec::new()
    } else {
        phase(volume, "Released", None, observed.now)
    };
    let provisioner = volume.annotations().get(PROVISIONED_BY).map(String::as_str);
    match (policy(volume), provisioner) {
        ("Retain", _) => {}
        ("Delete", Some(crate::PROVISIONER)) => {
            if observed.provisions && changes.is_empty() {
                changes.push(Change::DeleteVolume);
            }
        }
        // Its own provisioner removes it.
        ("Delete", Some(_)) => {}
        (policy, _) => {
            let (reason, verb) = match policy {
                "Recycle" => ("VolumeFailedRecycle", "recycler"),
                _ => ("VolumeFailedDelete", "deleter"),
            };
            let message = format!(
                "Error getting {verb} volume plugin for volume {:?}: no volume plugin matched",
                volume.name_any()
            );
            let failed = phase(volume, "Failed", Some(&message), observed.now);
            if !failed.is_empty() {
                changes = failed;
                changes.push(Change::Warning { reason, message });
            }
        }
    }
    changes
}

fn phase(
    volume: &Arc<PersistentVolume>,
    phase: &str,
    message: Option<&str>,
    now: Timestamp,
) -> Vec<Change> {
    let old = volume.status.clone().unwrap_or_default();
    if old.phase.as_deref() == Some(phase) {
        return Vec::new();
    }
    let mut updated = volume.as_ref().clone();
    updated.status = Some(PersistentVolumeStatus {
        phase: Some(phase.to_owned()),
        message: message.map(str::to_owned),
        reason: None,
        last_phase_transition_time: Some(meta::whole_seconds(now)),
    });
    vec![Change::VolumeStatus(Box::new(updated))]
}
