//! Small questions about object metadata, Pods and selectors that several controllers ask.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, ObjectMeta, OwnerReference, Time,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Selector, SelectorExt as _};
use kube::{Resource, ResourceExt as _};

/// The wall clock as the wire carries it: whole seconds.
pub(crate) fn whole_seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// The owner reference that makes `owner` the controller of an object.
pub(crate) fn controller_ref<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The owner that controls the object, if any.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .as_ref()?
        .iter()
        .find(|owner| owner.controller == Some(true))
}

pub(crate) fn is_controlled_by(meta: &ObjectMeta, uid: Option<&str>) -> bool {
    uid.is_some() && controller_of(meta).map(|owner| owner.uid.as_str()) == uid
}

/// A selector that matches labels; `None` when it cannot be parsed or selects everything.
pub(crate) fn workload_selector(selector: &LabelSelector) -> Option<Selector> {
    Selector::try_from(selector.clone())
        .ok()
        .filter(|selector| !selector.selects_all())
}

pub(crate) fn selects(selector: &Selector, meta: &ObjectMeta) -> bool {
    match &meta.labels {
        Some(labels) => selector.matches(labels),
        None => selector.matches(&BTreeMap::new()),
    }
}

/// What a controller does about the objects that its selector and owner references name.
#[derive(Debug)]
pub(crate) struct Claim<K> {
    /// Controlled by the owner and selected.
    pub(crate) owned: Vec<Arc<K>>,
    /// Selected and nobody's: to be taken over.
    pub(crate) adopt: Vec<Arc<K>>,
    /// Controlled by the owner but no longer selected: to be let go.
    pub(crate) release: Vec<Arc<K>>,
}

/// Sorts `objects` by what `owner` has to do with them. An owner on its way out adopts nothing.
pub(crate) fn claim<K: Resource>(
    owner: &ObjectMeta,
    selector: &Selector,
    objects: impl IntoIterator<Item = Arc<K>>,
) -> Claim<K> {
    let mut claim = Claim {
        owned: Vec::new(),
        adopt: Vec::new(),
        release: Vec::new(),
    };
    let leaving = owner.deletion_timestamp.is_some();
    for object in objects {
        let meta = object.meta();
        let selected = selects(selector, meta);
        if let Some(controller) = controller_of(meta) {
            if Some(controller.uid.as_str()) != owner.uid.as_deref() {
                continue;
            }
            if selected {
                claim.owned.push(object);
            } else if !leaving {
                claim.release.push(object);
            }
        } else if selected && !leaving && meta.deletion_timestamp.is_none() {
            claim.adopt.push(object);
        }
    }
    claim
}

/// A Pod of a template, controlled by `owner`.
pub(crate) fn pod_of_template<K: Resource<DynamicType = ()>>(
    template: &PodTemplateSpec,
    owner: &K,
) -> Pod {
    let from = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: owner.namespace(),
            generate_name: Some(format!("{}-", owner.name_any())),
            labels: from.labels,
            annotations: from.annotations,
            finalizers: from.finalizers,
            owner_references: Some(vec![controller_ref(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending")
}

pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither finished nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some()
}

/// When the Pod became ready, for ordering.
pub(crate) fn ready_time(pod: &Pod) -> Option<Timestamp> {
    ready_condition(pod)?
        .last_transition_time
        .as_ref()
        .map(|time| time.0)
}

/// How long a ready Pod still has to stay ready to be available: zero when it is, `None` when it
/// is not ready.
pub(crate) fn until_available(
    pod: &Pod,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Option<Duration> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready_seconds <= 0 {
        return Some(Duration::ZERO);
    }
    let ready_for = now.duration_since(ready_time(pod)?);
    let wanted = jiff::SignedDuration::from_secs(i64::from(min_ready_seconds));
    Some((wanted - ready_for).try_into().unwrap_or(Duration::ZERO))
}

/// How often the most restarted container of a Pod was restarted.
pub(crate) fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    statuses.map_or(0, |all| {
        all.iter()
            .map(|status| status.restart_count)
            .max()
            .unwrap_or(0)
    })
}

pub(crate) fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

/// A count or a percentage of `total`.
pub(crate) fn scaled(value: Option<&IntOrString>, default: &str, total: i32, up: bool) -> i32 {
    let percent = |text: &str| {
        let share: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
        let product = share * i64::from(total);
        let scaled = if up {
            (product + 99).div_euclid(100)
        } else {
            product.div_euclid(100)
        };
        i32::try_from(scaled).unwrap_or(i32::MAX)
    };
    match value {
        Some(IntOrString::Int(count)) => *count,
        Some(IntOrString::String(text)) => percent(text),
        None if default.ends_with('%') => percent(default),
        None => default.parse().unwrap_or(0),
    }
}

/// The smaller of two pauses.
pub(crate) fn sooner(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
