//! A Job's conditions. Pure.

use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The condition, if it holds.
pub(super) fn condition<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == type_ && c.status == "True")
}

/// Adds a condition that holds from now on, unless it does already.
pub(super) fn set_condition(
    status: &mut JobStatus,
    type_: &str,
    reason: &str,
    message: &str,
    now: &Time,
) {
    if condition(status, type_).is_some() {
        return;
    }
    status
        .conditions
        .get_or_insert_default()
        .push(JobCondition {
            type_: type_.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(now.clone()),
            last_transition_time: Some(now.clone()),
        });
}

pub(super) fn clear_condition(status: &mut JobStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != type_);
    }
}

/// Starts the clock of a Job that was suspended.
pub(super) fn resume(status: &mut JobStatus, now: &Time) {
    status.start_time = Some(now.clone());
    for condition in status
        .conditions
        .iter_mut()
        .flatten()
        .filter(|c| c.type_ == "Suspended")
    {
        "False".clone_into(&mut condition.status);
        condition.reason = Some("JobResumed".to_owned());
        condition.message = Some("Job resumed".to_owned());
        condition.last_transition_time = Some(now.clone());
    }
}
