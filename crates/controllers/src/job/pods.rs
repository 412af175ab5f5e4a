//! The Pods that a Job makes, and how long it waits before it makes the next. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::ResourceExt as _;

use crate::meta;

/// Kept on a Job's Pods until they are counted.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// The pause after a Pod has failed, doubled with every further one.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

pub(super) fn index_of(pod: &Pod) -> Option<i32> {
    pod.annotations().get(INDEX)?.parse().ok()
}

/// How long to wait because Pods failed one after the other, with no success in between.
pub(super) fn pause_after_failures(pods: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let ended = |pod: &Arc<Pod>| {
        let statuses = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_ref());
        let latest = statuses
            .into_iter()
            .flatten()
            .filter_map(|status| {
                status
                    .state
                    .as_ref()?
                    .terminated
                    .as_ref()?
                    .finished_at
                    .clone()
            })
            .max();
        latest
            .or_else(|| pod.creation_timestamp())
            .map(|time| time.0)
    };
    let last_success = pods
        .iter()
        .filter(|pod| meta::phase(pod) == "Succeeded")
        .filter_map(ended)
        .max();
    let failures: Vec<Timestamp> = pods
        .iter()
        .filter(|pod| meta::phase(pod) == "Failed")
        .filter_map(ended)
        .filter(|at| last_success.is_none_or(|success| *at > success))
        .collect();
    let last = *failures.iter().max()?;
    let doublings = u32::try_from(failures.len() - 1)
        .unwrap_or(u32::MAX)
        .min(16);
    let pause = FIRST_PAUSE
        .saturating_mul(1 << doublings)
        .min(LONGEST_PAUSE);
    let passed = Duration::try_from(now.duration_since(last)).unwrap_or(Duration::ZERO);
    Some(pause.saturating_sub(passed)).filter(|left| !left.is_zero())
}

pub(super) fn pod_for(job: &Job, spec: &JobSpec) -> Pod {
    let mut pod = meta::pod_of_template(&spec.template, job);
    pod.metadata
        .finalizers
        .get_or_insert_default()
        .push(FINALIZER.to_owned());
    pod
}

pub(super) fn indexed_pod(job: &Job, spec: &JobSpec, index: i32) -> Pod {
    let mut pod = pod_for(job, spec);
    let name = format!("{}-{index}", job.name_any());
    pod.metadata.generate_name = Some(format!("{name}-"));
    pod.annotations_mut()
        .insert(INDEX.to_owned(), index.to_string());
    pod.labels_mut().insert(INDEX.to_owned(), index.to_string());
    if let Some(spec) = &mut pod.spec {
        spec.hostname.get_or_insert(name);
        let variable = EnvVar {
            name: "JOB_COMPLETION_INDEX".to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: None,
                    field_path: format!("metadata.labels['{INDEX}']"),
                }),
                ..EnvVarSource::default()
            }),
        };
        let all = spec
            .init_containers
            .iter_mut()
            .flatten()
            .chain(&mut spec.containers);
        for container in all {
            let environment = container.env.get_or_insert_default();
            if environment.iter().all(|known| known.name != variable.name) {
                environment.push(variable.clone());
            }
        }
    }
    pod
}
