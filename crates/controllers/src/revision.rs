//! ControllerRevisions: the templates that a DaemonSet or StatefulSet has had. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt as _};
use serde_json::{Value, json};

use crate::{deployment, meta};

/// The label with which Pods and revisions name their template.
pub(crate) const HASH_LABEL: &str = "controller-revision-hash";

/// What must happen to the revisions of an owner.
#[derive(Debug)]
pub(crate) enum Change {
    Create(Box<ControllerRevision>),
    Replace(Box<ControllerRevision>),
    Delete(Arc<ControllerRevision>),
}

/// The revisions of an owner, sorted out.
#[derive(Debug)]
pub(crate) struct History {
    /// What Pods of the current template carry in [`HASH_LABEL`].
    pub(crate) hash: String,
    /// The name of the revision that stands for the current template.
    pub(crate) name: String,
    pub(crate) changes: Vec<Change>,
}

fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// Finds or makes the revision of the current template, gives it the highest number, and drops old
/// ones beyond `limit` that no Pod of `used` (by hash) needs.
pub(crate) fn history<K: Resource<DynamicType = ()>>(
    owner: &K,
    template: &PodTemplateSpec,
    collisions: Option<i32>,
    limit: Option<i32>,
    revisions: &[Arc<ControllerRevision>],
    used: impl Fn(&str) -> bool,
) -> History {
    let mut owned: Vec<_> = revisions
        .iter()
        .filter(|revision| meta::is_controlled_by(&revision.metadata, owner.meta().uid.as_deref()))
        .cloned()
        .collect();
    owned.sort_by_key(|revision| (revision.revision, revision.name_any()));
    let wanted = data(template);
    let newest = owned.last().map_or(0, |revision| revision.revision);
    let current = owned
        .iter()
        .rfind(|r| r.data.as_ref().is_some_and(|data| data.0 == wanted));
    let mut changes = Vec::new();
    let (hash, name) = if let Some(current) = current {
        if current.revision < newest {
            let mut updated = current.as_ref().clone();
            updated.revision = newest + 1;
            changes.push(Change::Replace(Box::new(updated)));
        }
        let hash = current
            .labels()
            .get(HASH_LABEL)
            .cloned()
            .unwrap_or_default();
        (hash, current.name_any())
    } else {
        let hash = deployment::hash(template, collisions);
        let name = format!("{}-{hash}", owner.name_any());
        let from = template.metadata.clone().unwrap_or_default();
        let mut labels = from.labels.unwrap_or_default();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        changes.push(Change::Create(Box::new(ControllerRevision {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: owner.namespace(),
                labels: Some(labels),
                annotations: Some(kept(owner.meta().annotations.as_ref())),
                owner_references: Some(vec![meta::controller_ref(owner)]),
                ..ObjectMeta::default()
            },
            data: Some(k8s_openapi::apimachinery::pkg::runtime::RawExtension(
                wanted,
            )),
            revision: newest + 1,
        })));
        (hash, name)
    };
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    let mut old: Vec<_> = owned
        .into_iter()
        .filter(|revision| revision.name_any() != name)
        .filter(|revision| {
            !revision
                .labels()
                .get(HASH_LABEL)
                .is_some_and(|hash| used(hash))
        })
        .collect();
    let surplus = old.len().saturating_sub(limit);
    changes.extend(old.drain(..surplus).map(Change::Delete));
    History {
        hash,
        name,
        changes,
    }
}

fn kept(annotations: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let mut kept = annotations.cloned().unwrap_or_default();
    kept.remove("kubectl.kubernetes.io/last-applied-configuration");
    kept
}
