//! Writing a Pod's status: one patch per change, one at a time, tried again until it is taken.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Map, Value, json};

use super::machine::Machine;
use super::status::{self, NodeFacts};

/// Conditions that this crate writes; all others belong to somebody else.
const OWN_CONDITIONS: [&str; 4] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
];

/// What was written, and what should be.
#[derive(Debug)]
pub(crate) struct Report {
    /// The last status that the API has taken from us.
    written: Option<PodStatus>,
    /// A status that the API will never take; it is not offered again.
    refused: Option<PodStatus>,
    /// A patch is on its way.
    pub(crate) in_flight: bool,
}

/// What became of a patch.
#[derive(Debug)]
pub(crate) enum Written {
    Taken(Box<PodStatus>),
    /// The Pod is gone, or another one has its name, or the status is not valid.
    Refused(Box<PodStatus>),
    Failed,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self {
            written: None,
            refused: None,
            in_flight: false,
        }
    }

    /// The status to write now, if it differs from the last one taken.
    pub(crate) fn due(
        &self,
        machine: &Machine,
        node: &NodeFacts,
        now: Timestamp,
    ) -> Option<PodStatus> {
        let previous = self.previous(&machine.pod);
        let next = status::compute(machine, &previous, node, now);
        let known = self.written.as_ref().unwrap_or(&previous);
        let refused = self
            .refused
            .as_ref()
            .is_some_and(|refused| same(&next, refused));
        (!refused && !same(&next, known)).then_some(next)
    }

    /// Conditions of others from the object, our own and the phase from what was last written.
    fn previous(&self, pod: &Pod) -> PodStatus {
        let mut previous = status::of(pod);
        let Some(written) = &self.written else {
            return previous;
        };
        let mut conditions: Vec<_> = previous
            .conditions
            .unwrap_or_default()
            .into_iter()
            .filter(|c| !OWN_CONDITIONS.contains(&c.type_.as_str()))
            .collect();
        let own = written.conditions.iter().flatten();
        conditions.extend(
            own.filter(|c| OWN_CONDITIONS.contains(&c.type_.as_str()))
                .cloned(),
        );
        previous.conditions = Some(conditions);
        previous.phase.clone_from(&written.phase);
        previous
    }

    /// Notes the end of a patch.
    pub(crate) fn finished(&mut self, written: Written) -> bool {
        self.in_flight = false;
        match written {
            Written::Taken(status) => self.written = Some(*status),
            Written::Refused(status) => self.refused = Some(*status),
            Written::Failed => return false,
        }
        true
    }
}

/// Whether two statuses say the same, as far as we write it.
fn same(a: &PodStatus, b: &PodStatus) -> bool {
    let strip = |status: &PodStatus| {
        let mut status = status.clone();
        status.observed_generation = None;
        status.resize = None;
        for condition in status.conditions.iter_mut().flatten() {
            condition.observed_generation = None;
        }
        if let Some(conditions) = &mut status.conditions {
            conditions.retain(|c| {
                OWN_CONDITIONS.contains(&c.type_.as_str()) || c.type_ == "PodScheduled"
            });
            conditions.sort_by(|x, y| x.type_.cmp(&y.type_));
        }
        status
    };
    strip(a) == strip(b)
}

/// The patch that brings the object's status to `status`.
fn patch(pod: &Pod, status: &PodStatus) -> Value {
    let mut body = match serde_json::to_value(status) {
        Ok(Value::Object(body)) => body,
        _ => Map::new(),
    };
    let scheduled = status::of(pod)
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "PodScheduled");
    if let Some(Value::Array(conditions)) = body.get_mut("conditions") {
        conditions.retain(|c| {
            let kind = c["type"].as_str().unwrap_or_default();
            OWN_CONDITIONS.contains(&kind) || (kind == "PodScheduled" && !scheduled)
        });
        for condition in conditions {
            if let Value::Object(condition) = condition {
                // Lists of conditions are merged: what no longer holds must be taken out.
                for field in ["reason", "message"] {
                    condition.entry(field).or_insert(Value::Null);
                }
            }
        }
    }
    body.insert(
        "observedGeneration".to_owned(),
        json!(pod.metadata.generation),
    );
    json!({"metadata": {"uid": pod.metadata.uid}, "status": body})
}

/// Writes a status.
pub(crate) async fn write(client: Client, pod: Arc<Pod>, status: PodStatus) -> Written {
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let body = patch(&pod, &status);
    let name = pod.name_any();
    match api
        .patch_status(&name, &PatchParams::default(), &Patch::Strategic(&body))
        .await
    {
        Ok(_) => Written::Taken(Box::new(status)),
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409 | 422) => {
            if answer.code == 422 {
                tracing::warn!(pod = name, "status refused: {}", answer.message);
            }
            Written::Refused(Box::new(status))
        }
        Err(error) => {
            tracing::warn!(pod = name, "write status: {}", stdx::error::chain(&error));
            Written::Failed
        }
    }
}
