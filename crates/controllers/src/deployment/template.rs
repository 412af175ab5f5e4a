//! Which ReplicaSet stands for which template: hash, names, revisions and annotations. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use crate::meta;

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
pub(super) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
pub(super) const HASH_LABEL: &str = "pod-template-hash";

/// Annotations of the Deployment that say something about itself alone.
const NOT_INHERITED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// A short name for a template, in the alphabet of generated names. `collisions` makes another one.
pub(crate) fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let json = serde_json::to_vec(template).unwrap_or_default();
    let mut hash: u32 = 0x811c_9dc5;
    let salt = collisions.map(i32::to_le_bytes);
    for byte in json.iter().chain(salt.iter().flatten()) {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string()
        .bytes()
        .map(|digit| ALPHABET[usize::from(digit) % ALPHABET.len()] as char)
        .collect()
}

/// Whether the set runs the Deployment's current template.
pub(super) fn is_same(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().map(|spec| &spec.template);
    let (Some(wanted), Some(has)) = (wanted, set.spec.as_ref().and_then(|s| s.template.as_ref()))
    else {
        return false;
    };
    meta::is_controlled_by(&set.metadata, deployment.metadata.uid.as_deref())
        && without_hash(has) == without_hash(wanted)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let metadata = template.metadata.get_or_insert_default();
    if let Some(labels) = &mut metadata.labels {
        labels.remove(HASH_LABEL);
    }
    metadata.labels = metadata.labels.take().filter(|labels| !labels.is_empty());
    metadata.creation_timestamp = None;
    template
}

pub(super) fn revision(set: &ReplicaSet) -> i64 {
    set.annotations()
        .get(REVISION)
        .and_then(|r| r.parse().ok())
        .unwrap_or(0)
}

/// The revision for the newest template: one more than any other set has.
pub(super) fn next_revision(sets: &[Arc<ReplicaSet>], newest: Option<&ReplicaSet>) -> i64 {
    let others = sets
        .iter()
        .filter(|set| newest.is_none_or(|newest| newest.uid() != set.uid()));
    let next = others.map(|set| revision(set)).max().unwrap_or(0) + 1;
    newest.map_or(next, |newest| next.max(revision(newest)))
}

/// The annotations a set gets from its Deployment, over those it has.
pub(super) fn annotations(
    deployment: &Deployment,
    set: Option<&ReplicaSet>,
    next: i64,
) -> BTreeMap<String, String> {
    let mut annotations = set.map(|set| set.annotations().clone()).unwrap_or_default();
    for (key, value) in deployment.annotations() {
        if !NOT_INHERITED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let had = annotations
        .get(REVISION)
        .and_then(|r| r.parse::<i64>().ok());
    if had.is_none_or(|had| had < next) {
        // A template that comes back remembers the revisions it was before.
        if let Some(had) = had {
            let history = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(&had.to_string());
        }
        annotations.insert(REVISION.to_owned(), next.to_string());
    }
    annotations
}

/// The ReplicaSet for the Deployment's current template.
pub(super) fn new_set(deployment: &Deployment, replicas: i32, max: i32, next: i64) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment
        .status
        .as_ref()
        .and_then(|status| status.collision_count);
    let hash = hash(&spec.template, collisions);
    let mut template = spec.template;
    let labels = template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector
        .match_labels
        .get_or_insert_default()
        .insert(HASH_LABEL.to_owned(), hash.clone());
    let mut annotations = annotations(deployment, None, next);
    annotations.insert(DESIRED.to_owned(), spec.replicas.unwrap_or(1).to_string());
    annotations.insert(MAX.to_owned(), max.to_string());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![meta::controller_ref(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}
