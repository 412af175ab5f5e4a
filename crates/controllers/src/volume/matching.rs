//! Which volume suits which claim. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt as _;
use kube::core::Selector;

use super::{BIND_COMPLETED, IS_DEFAULT_CLASS, SELECTED_NODE};
use crate::{meta, quantity, scheduler};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The class a claim names; `None` when it leaves the choice to the default class.
pub(crate) fn class_of_claim(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim
        .annotations()
        .get(CLASS_ANNOTATION)
        .map(String::as_str)
        .or_else(|| {
            claim
                .spec
                .as_ref()
                .and_then(|spec| spec.storage_class_name.as_deref())
        })
}

pub(super) fn class_of_volume(volume: &PersistentVolume) -> &str {
    volume
        .annotations()
        .get(CLASS_ANNOTATION)
        .map(String::as_str)
        .unwrap_or_else(|| {
            volume
                .spec
                .as_ref()
                .and_then(|spec| spec.storage_class_name.as_deref())
                .unwrap_or("")
        })
}

/// The newest class marked as default.
pub(super) fn default_class(classes: &[Arc<StorageClass>]) -> Option<&StorageClass> {
    classes
        .iter()
        .filter(|class| {
            class
                .annotations()
                .get(IS_DEFAULT_CLASS)
                .is_some_and(|v| v == "true")
        })
        .max_by_key(|class| {
            (
                class.creation_timestamp(),
                std::cmp::Reverse(class.name_any()),
            )
        })
        .map(Arc::as_ref)
}

/// Whether a claim of this class waits until the scheduler has placed its first consumer.
pub(crate) fn delays_binding(claim: &PersistentVolumeClaim, class: Option<&StorageClass>) -> bool {
    class.and_then(|class| class.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer")
        && !claim.annotations().contains_key(SELECTED_NODE)
}

/// Whether the claim is bound, both sides written.
pub(crate) fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.annotations().contains_key(BIND_COMPLETED)
        && claim
            .spec
            .as_ref()
            .and_then(|s| s.volume_name.as_deref())
            .is_some_and(|n| !n.is_empty())
}

/// Whether a volume may be used on the node at all.
pub(crate) fn volume_fits_node(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|required| scheduler::node_selector_matches(required, node))
}

/// Whether the reference names this claim: the very one, or by name only.
pub(super) fn refers_to(reference: &ObjectReference, claim: &PersistentVolumeClaim) -> bool {
    let uid = reference.uid.as_deref().unwrap_or_default();
    reference.name == claim.metadata.name
        && reference.namespace == claim.metadata.namespace
        && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
}

fn mode(mode: Option<&String>) -> &str {
    mode.map_or("Filesystem", String::as_str)
}

fn requested(claim: &PersistentVolumeClaim) -> i128 {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let storage = resources.and_then(|r| r.requests.as_ref()?.get("storage"));
    storage.and_then(quantity::milli).unwrap_or(0)
}

fn capacity(volume: &PersistentVolume) -> i128 {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    capacity
        .and_then(|c| c.get("storage"))
        .and_then(quantity::milli)
        .unwrap_or(0)
}

/// Why a volume that a claim asks for by name cannot serve it; `None` when it can.
pub(super) fn objection(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> Option<&'static str> {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else {
        return Some("no spec");
    };
    if mode(has.volume_mode.as_ref()) != mode(wants.volume_mode.as_ref()) {
        Some("incompatible volumeMode")
    } else if capacity(volume) < requested(claim) {
        Some("requested PV is too small")
    } else if class_of_volume(volume) != class_of_claim(claim).unwrap_or("") {
        Some("storageClassName does not match")
    } else if !offers_modes(volume, claim) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

fn offers_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let offered = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.access_modes.as_ref());
    let wanted = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.access_modes.as_ref());
    wanted.is_none_or(|wanted| {
        wanted
            .iter()
            .all(|mode| offered.is_some_and(|offered| offered.contains(mode)))
    })
}

/// The volume for a claim: one that a user reserved for it, else the smallest that fits among
/// those with the fewest access modes. `node` is where the first consumer will run, if known.
pub(super) fn best<'a>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [Arc<PersistentVolume>],
    node: Option<&Node>,
) -> Option<&'a Arc<PersistentVolume>> {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.clone());
    let selector = match selector.map(Selector::try_from) {
        Some(Ok(selector)) => Some(selector),
        Some(Err(_)) => return None,
        None => None,
    };
    let fits = |volume: &&Arc<PersistentVolume>| {
        volume.metadata.deletion_timestamp.is_none() && objection(volume, claim).is_none()
    };
    let reserved = volumes.iter().filter(fits).find(|volume| {
        volume
            .spec
            .as_ref()
            .and_then(|spec| spec.claim_ref.as_ref())
            .is_some_and(|reference| refers_to(reference, claim))
    });
    reserved.or_else(|| {
        volumes
            .iter()
            .filter(fits)
            .filter(|volume| {
                let free = volume
                    .spec
                    .as_ref()
                    .is_some_and(|spec| spec.claim_ref.is_none());
                let phase = volume
                    .status
                    .as_ref()
                    .and_then(|status| status.phase.as_deref());
                free && !matches!(phase, Some("Failed" | "Released"))
            })
            .filter(|volume| {
                selector
                    .as_ref()
                    .is_none_or(|s| meta::selects(s, &volume.metadata))
            })
            .filter(|volume| node.is_none_or(|node| volume_fits_node(volume, node)))
            .min_by_key(|volume| {
                let modes = volume
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.access_modes.as_ref());
                (
                    modes.map_or(0, Vec::len),
                    capacity(volume),
                    volume.name_any(),
                )
            })
    })
}
