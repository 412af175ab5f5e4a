//! Which numbered Pod comes, goes or is replaced next, and the status. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use kube::ResourceExt as _;

use crate::meta::{self, Claim};
use crate::revision::{self, HASH_LABEL};

const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

pub(super) struct Observed {
    pub(super) set: Arc<StatefulSet>,
    /// The Pods of the namespace.
    pub(super) pods: Vec<Arc<Pod>>,
    /// The claims of the namespace.
    pub(super) claims: Vec<Arc<PersistentVolumeClaim>>,
    /// The ControllerRevisions of the namespace.
    pub(super) revisions: Vec<Arc<ControllerRevision>>,
    pub(super) now: Timestamp,
}

#[derive(Debug)]
pub(super) enum Change {
    Adopt(Arc<Pod>),
    Release(Arc<Pod>),
    CreateClaim(Box<PersistentVolumeClaim>),
    Create(Box<Pod>),
    Delete(Arc<Pod>),
}

pub(super) struct Plan {
    /// The name of the revision of the current template.
    pub(super) update_revision: String,
    pub(super) history: Vec<revision::Change>,
    pub(super) changes: Vec<Change>,
}

/// Whether the Pod is named like a member of the set.
pub(super) fn is_member(set: &str, pod: &Pod) -> bool {
    ordinal(set, pod).is_some()
}

fn ordinal(set: &str, pod: &Pod) -> Option<i32> {
    pod.name_any()
        .strip_prefix(set)?
        .strip_prefix('-')?
        .parse()
        .ok()
}

fn claimed(observed: &Observed) -> Option<Claim<Pod>> {
    let set = observed.set.as_ref();
    let selector = meta::workload_selector(&set.spec.as_ref()?.selector)?;
    let name = set.name_any();
    let members = observed
        .pods
        .iter()
        .filter(|pod| is_member(&name, pod))
        .cloned();
    Some(meta::claim(&set.metadata, &selector, members))
}

fn revision_of(pod: &Pod) -> &str {
    pod.labels().get(HASH_LABEL).map_or("", String::as_str)
}

/// The step to take; `None` when the selector is empty.
pub(super) fn plan(observed: &Observed) -> Option<Plan> {
    let set = observed.set.as_ref();
    let spec = set.spec.as_ref()?;
    let claim = claimed(observed)?;
    let name = set.name_any();
    let status = set.status.clone().unwrap_or_default();
    let history = revision::history(
        set,
        &spec.template,
        status.collision_count,
        spec.revision_history_limit,
        &observed.revisions,
        |hash| {
            let revision = format!("{name}-{hash}");
            status.current_revision.as_ref() == Some(&revision)
                || claim.owned.iter().any(|pod| revision_of(pod) == revision)
        },
    );
    let mut plan = Plan {
        update_revision: history.name.clone(),
        history: Vec::new(),
        changes: Vec::new(),
    };
    if set.metadata.deletion_timestamp.is_some() {
        return Some(plan);
    }
    plan.history = history.changes;
    if !claim.adopt.is_empty() || !claim.release.is_empty() {
        plan.changes
            .extend(claim.adopt.into_iter().map(Change::Adopt));
        plan.changes
            .extend(claim.release.into_iter().map(Change::Release));
        return Some(plan);
    }
    let steps = Steps {
        observed,
        spec,
        update: &plan.update_revision,
        status: &status,
    };
    plan.changes = steps.plan(&claim.owned);
    Some(plan)
}

struct Steps<'a> {
    observed: &'a Observed,
    spec: &'a StatefulSetSpec,
    update: &'a str,
    status: &'a StatefulSetStatus,
}

impl Steps<'_> {
    fn plan(&self, owned: &[Arc<Pod>]) -> Vec<Change> {
        let name = self.observed.set.name_any();
        let first = self
            .spec
            .ordinals
            .as_ref()
            .and_then(|o| o.start)
            .unwrap_or(0);
        let wanted = first..first + self.spec.replicas.unwrap_or(1);
        let in_order = self.spec.pod_management_policy.as_deref() != Some("Parallel");
        let by_ordinal: BTreeMap<i32, &Arc<Pod>> = owned
            .iter()
            .filter_map(|pod| Some((ordinal(&name, pod)?, pod)))
            .collect();
        let mut changes = Vec::new();
        for number in wanted.clone() {
            let step = match by_ordinal.get(&number) {
                None => {
                    changes.extend(self.create(number));
                    true
                }
                Some(pod) if pod.metadata.deletion_timestamp.is_some() => true,
                Some(pod) if meta::is_terminal(pod) => {
                    changes.push(Change::Delete((*pod).clone()));
                    true
                }
                Some(pod) => {
                    changes.extend(self.missing_claims(number));
                    !self.is_available(pod)
                }
            };
            // In order, nothing happens above one that is not well.
            if step && in_order {
                return changes;
            }
        }
        let mut surplus = by_ordinal
            .iter()
            .rev()
            .filter(|(number, _)| !wanted.contains(number));
        if in_order {
            if let Some((_, pod)) = surplus.next() {
                if pod.metadata.deletion_timestamp.is_none() {
                    changes.push(Change::Delete((*pod).clone()));
                }
                return changes;
            }
        } else {
            let lives = surplus.filter(|(_, pod)| pod.metadata.deletion_timestamp.is_none());
            changes.extend(lives.map(|(_, pod)| Change::Delete((*pod).clone())));
        }
        let strategy = self.spec.update_strategy.as_ref();
        if changes.is_empty() && strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete") {
            changes.extend(self.roll(&by_ordinal, first));
        }
        changes
    }

    fn partition(&self) -> i32 {
        let strategy = self.spec.update_strategy.as_ref();
        strategy
            .and_then(|s| s.rolling_update.as_ref()?.partition)
            .unwrap_or(0)
    }

    /// Replaces the highest Pod of an old template, one at a time and only while all are well.
    fn roll(&self, pods: &BTreeMap<i32, &Arc<Pod>>, first: i32) -> Option<Change> {
        for (number, pod) in pods.iter().rev() {
            if *number < first + self.partition() {
                return None;
            }
            if revision_of(pod) != self.update {
                let lives = pod.metadata.deletion_timestamp.is_none();
                return lives.then(|| Change::Delete((*pod).clone()));
            }
            if !self.is_available(pod) {
                return None;
            }
        }
        None
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        meta::phase(pod) == "Running"
            && pod.metadata.deletion_timestamp.is_none()
            && meta::until_available(pod, min_ready, self.observed.now)
                .is_some_and(|left| left.is_zero())
    }

    /// The template and revision for a Pod: below the partition those from before the update.
    fn template(&self, number: i32) -> (PodTemplateSpec, String) {
        let first = self
            .spec
            .ordinals
            .as_ref()
            .and_then(|o| o.start)
            .unwrap_or(0);
        let new = (self.spec.template.clone(), self.update.to_owned());
        if number >= first + self.partition() {
            return new;
        }
        let current = self
            .status
            .current_revision
            .as_deref()
            .unwrap_or(self.update);
        let revision = self
            .observed
            .revisions
            .iter()
            .find(|r| r.name_any() == current);
        let template = revision
            .and_then(|revision| revision.data.as_ref()?.0.pointer("/spec/template"))
            .and_then(|template| serde_json::from_value(template.clone()).ok());
        template.map_or(new, |template| (template, current.to_owned()))
    }

    fn create(&self, number: i32) -> Vec<Change> {
        let mut changes = self.missing_claims(number);
        let set = self.observed.set.as_ref();
        let (template, revision) = self.template(number);
        let mut pod = meta::pod_of_template(&template, set);
        let name = format!("{}-{number}", set.name_any());
        pod.metadata.generate_name = None;
        pod.metadata.name = Some(name.clone());
        let labels = pod.labels_mut();
        labels.insert(POD_NAME_LABEL.to_owned(), name.clone());
        labels.insert(INDEX_LABEL.to_owned(), number.to_string());
        labels.insert(HASH_LABEL.to_owned(), revision);
        if let Some(spec) = &mut pod.spec {
            spec.hostname = Some(name);
            spec.subdomain = self
                .spec
                .service_name
                .clone()
                .filter(|name| !name.is_empty());
            let volumes = spec.volumes.get_or_insert_default();
            for claim in self.claims(number) {
                let template = claim.0;
                volumes.retain(|volume| volume.name != template);
                volumes.push(Volume {
                    name: template,
                    persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                        claim_name: claim.1.name_any(),
                        read_only: None,
                    }),
                    ..Volume::default()
                });
            }
        }
        changes.push(Change::Create(Box::new(pod)));
        changes
    }

    /// The claims of one Pod, each with the name of its template.
    fn claims(&self, number: i32) -> Vec<(String, PersistentVolumeClaim)> {
        let set = self.observed.set.as_ref();
        let templates = self.spec.volume_claim_templates.iter().flatten();
        templates
            .map(|template| {
                let mut claim = template.clone();
                let name = template.name_any();
                claim.metadata.name = Some(format!("{name}-{}-{number}", set.name_any()));
                claim.metadata.namespace = set.namespace();
                let labels = self.spec.selector.match_labels.clone().unwrap_or_default();
                claim.metadata.labels.get_or_insert_default().extend(labels);
                claim.status = None;
                (name, claim)
            })
            .collect()
    }

    fn missing_claims(&self, number: i32) -> Vec<Change> {
        let exists = |claim: &PersistentVolumeClaim| {
            self.observed
                .claims
                .iter()
                .any(|known| known.metadata.name == claim.metadata.name)
        };
        let claims = self.claims(number).into_iter().map(|(_, claim)| claim);
        claims
            .filter(|claim| !exists(claim))
            .map(|claim| Change::CreateClaim(Box::new(claim)))
            .collect()
    }
}

/// The status, and when it will change by the mere passing of time.
pub(super) fn status(observed: &Observed, update: &str) -> (StatefulSetStatus, Option<Duration>) {
    let set = observed.set.as_ref();
    let old = set.status.clone().unwrap_or_default();
    let (Some(spec), Some(claim)) = (&set.spec, claimed(observed)) else {
        return (old, None);
    };
    let current = old
        .current_revision
        .clone()
        .unwrap_or_else(|| update.to_owned());
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let (mut ready, mut available, mut of_current, mut of_update) = (0, 0, 0, 0);
    let mut again = None;
    for pod in &claim.owned {
        if pod.metadata.deletion_timestamp.is_none() {
            of_current += i32::from(revision_of(pod) == current);
            of_update += i32::from(revision_of(pod) == update);
        }
        if meta::phase(pod) != "Running" {
            continue;
        }
        if let Some(left) = meta::until_available(pod, min_ready, observed.now) {
            ready += 1;
            if left.is_zero() {
                available += 1;
            } else {
                again = meta::sooner(again, Some(left));
            }
        }
    }
    let replicas = i32::try_from(claim.owned.len()).unwrap_or(i32::MAX);
    let some = |count: i32| (count != 0).then_some(count);
    let mut status = StatefulSetStatus {
        available_replicas: Some(available),
        collision_count: Some(old.collision_count.unwrap_or(0)),
        conditions: old.conditions,
        current_replicas: some(of_current),
        current_revision: Some(current),
        observed_generation: set.metadata.generation,
        ready_replicas: some(ready),
        replicas,
        update_revision: Some(update.to_owned()),
        updated_replicas: some(of_update),
    };
    // The update is over: what was new is current.
    if of_update == replicas && ready == replicas && replicas == spec.replicas.unwrap_or(1) {
        status.current_revision = Some(update.to_owned());
        status.current_replicas = some(of_update);
    }
    (status, again)
}
