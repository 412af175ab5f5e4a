//! The finalizers that keep a claim while a Pod uses it and a volume while it is bound.

use std::collections::BTreeSet;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, ResourceExt as _};

use crate::meta;
use crate::runtime::{self, Handle, Informers, Key, Queue, Starter};

pub(super) const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
pub(super) const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

pub(crate) fn start(
    claims_client: &Client,
    volumes_client: &Client,
    informers: &Informers,
    starter: &Starter,
) {
    start_claims(claims_client, informers, starter);
    start_volumes(volumes_client, informers, starter);
}

fn start_claims(client: &Client, informers: &Informers, starter: &Starter) {
    let queue = Queue::new();
    let keys = queue.clone();
    informers.persistent_volume_claims.on_change(move |change| {
        if let Some(claim) = change.new {
            keys.add(Key::of(claim.as_ref()));
        }
    });
    let keys = queue.clone();
    informers.pods.on_change(move |change| {
        // Only an end can set a claim free.
        let Some(pod) = change.latest() else { return };
        if change.new.is_none() || meta::is_terminal(pod) {
            for claim in claims_of(pod) {
                keys.add(Key::new(pod.namespace().unwrap_or_default(), claim));
            }
        }
    });
    let claims = Handle::new(client, &informers.persistent_volume_claims);
    let pods: Handle<Pod> = Handle::new(client, &informers.pods);
    let synced = vec![
        informers.persistent_volume_claims.synced().boxed(),
        informers.pods.synced().boxed(),
    ];
    starter.run("pvc protection", queue, synced, move |key| {
        let (claims, pods) = (claims.clone(), pods.clone());
        async move { claim(&key, &claims, &pods).await }
    });
}

async fn claim(
    key: &Key,
    claims: &Handle<PersistentVolumeClaim>,
    pods: &Handle<Pod>,
) -> runtime::Outcome {
    let Some(claim) = claims.get(key) else {
        return Ok(None);
    };
    let used = pods
        .list(&key.namespace)
        .iter()
        .any(|pod| uses(pod, &key.name));
    if let Some(metadata) = protect(&claim.metadata, CLAIM_FINALIZER, used) {
        let mut updated = claim.as_ref().clone();
        updated.metadata = metadata;
        finish(claims.replace(&updated).await)?;
    }
    Ok(None)
}

/// Whether a Pod holds the claim: it is placed on a node and has not finished. A finished Pod's
/// volumes are unmounted; were it counted, a claim could not go before the Pods of old runs do.
pub(super) fn uses(pod: &Pod, claim: &str) -> bool {
    meta::node_name(pod).is_some()
        && !meta::is_terminal(pod)
        && claims_of(pod).iter().any(|name| name == claim)
}

/// The names of the claims in a Pod's volumes, those of ephemeral volumes included.
pub(crate) fn claims_of(pod: &Pod) -> BTreeSet<String> {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(
            |volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
                (Some(claim), _) => Some(claim.claim_name.clone()),
                (None, Some(_)) => Some(format!("{}-{}", pod.name_any(), volume.name)),
                (None, None) => None,
            },
        )
        .collect()
}

fn start_volumes(client: &Client, informers: &Informers, starter: &Starter) {
    let queue = Queue::new();
    let keys = queue.clone();
    informers.persistent_volumes.on_change(move |change| {
        if let Some(volume) = change.new {
            keys.add(Key::of(volume.as_ref()));
        }
    });
    let volumes = Handle::new(client, &informers.persistent_volumes);
    let synced = vec![informers.persistent_volumes.synced().boxed()];
    starter.run("pv protection", queue, synced, move |key| {
        let volumes = volumes.clone();
        async move { volume(&key, &volumes).await }
    });
}

async fn volume(key: &Key, volumes: &Handle<PersistentVolume>) -> runtime::Outcome {
    let Some(volume) = volumes.get(key) else {
        return Ok(None);
    };
    let bound = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    if let Some(metadata) = protect(&volume.metadata, VOLUME_FINALIZER, bound) {
        let mut updated = volume.as_ref().clone();
        updated.metadata = metadata;
        finish(volumes.replace(&updated).await)?;
    }
    Ok(None)
}

fn finish<K>(result: Result<K, crate::Error>) -> Result<(), crate::Error> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

/// The metadata as it should be, if it is not: with the finalizer while the object lives, without
/// once it is to go and nobody uses it.
pub(super) fn protect(metadata: &ObjectMeta, finalizer: &str, used: bool) -> Option<ObjectMeta> {
    let has = metadata
        .finalizers
        .iter()
        .flatten()
        .any(|name| name == finalizer);
    let leaving = metadata.deletion_timestamp.is_some();
    let mut changed = metadata.clone();
    let finalizers = changed.finalizers.get_or_insert_default();
    match (leaving, has) {
        (true, true) if !used => finalizers.retain(|name| name != finalizer),
        (false, false) => finalizers.push(finalizer.to_owned()),
        _ => return None,
    }
    Some(changed)
}
