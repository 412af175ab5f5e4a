//! Pods: the strategy, and the parts that every kind with a Pod template shares ([`defaults`],
//! [`validate`]).

pub mod admission;
pub mod affinity;
pub mod container;
pub mod defaults;
pub mod probe;
pub mod qos;
pub mod resources;
pub mod update;
pub mod validate;
pub mod volumes;
pub(crate) mod warnings;

use serde_json::{Value, json};

use crate::ctx::Ctx;
use crate::field::{Error, ErrorList, Path};
use crate::kind::{Generation, Strategy};
use crate::selector::Fields;
use crate::{table, tree};

/// The fields by which Pods can be selected.
pub const FIELDS: Fields = Fields {
    alias: &[("spec.host", "spec.nodeName")],
    zero: &[("spec.hostNetwork", "false")],
    ..Fields::with(&[
        "metadata.name",
        "metadata.namespace",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ])
};

pub(crate) const STRATEGY: Strategy = Strategy {
    default: defaults::pod,
    prepare_create,
    prepare_status,
    validate: validate_create,
    validate_update: update::validate,
    validate_status: validate_status_update,
    row: Some(table::pod::row),
    fields: &FIELDS,
    generation: Generation::Spec,
    has_status: true,
    graceful: true,
    warnings: |object, old| {
        if old.is_some() {
            Vec::new()
        } else {
            warnings::of(object, "")
        }
    },
    ..Strategy::GENERIC
};

fn prepare_create(_: &Ctx, pod: &mut Value) {
    let qos = qos::class(pod);
    pod["status"] = json!({"phase": "Pending", "qosClass": qos});
    if !tree::list(pod, "spec.schedulingGates").is_empty() {
        pod["status"]["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
}

fn prepare_status(_: &Ctx, new: &mut Value, old: &Value) {
    if tree::text(new, "status.qosClass").is_empty() {
        let class = tree::get(old, "status.qosClass").cloned();
        tree::put(tree::child(new, "status"), "qosClass", class);
    }
    defaults::pod_ips(new);
}

fn validate_create(_: &Ctx, pod: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec_path = Path::new("spec");
    let empty = json!({});
    let spec = tree::get(pod, "spec").unwrap_or(&empty);
    errors.extend(validate::pod_spec(spec, &spec_path, validate::Place::Pod));
    if !tree::list(spec, "ephemeralContainers").is_empty() {
        let detail = "cannot be set on create";
        errors.push(Error::forbidden(
            &spec_path.child("ephemeralContainers"),
            detail,
        ));
    }
    errors
}

fn validate_status_update(_: &Ctx, new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let status = Path::new("status");
    let node = tree::text(new, "status.nominatedNodeName");
    if !node.is_empty() {
        for message in crate::content::dns1123_subdomain(node) {
            errors.push(Error::invalid(
                &status.child("nominatedNodeName"),
                node,
                message,
            ));
        }
    }
    for (i, ip) in tree::list(new, "status.podIPs").iter().enumerate() {
        let ip = tree::text(ip, "ip");
        for message in crate::content::ip_address(ip) {
            errors.push(Error::invalid(
                &status.child("podIPs").index(i).child("ip"),
                ip,
                message,
            ));
        }
    }
    // A container that is done for good must not run again.
    let policy = tree::text(new, "spec.restartPolicy");
    if policy == "Always" {
        return errors;
    }
    let done = |container: &Value| {
        tree::get(container, "state.terminated").is_some_and(|terminated| {
            policy == "Never" || tree::int(terminated, "exitCode").unwrap_or(0) == 0
        })
    };
    let new_statuses = tree::list(new, "status.containerStatuses");
    for before in tree::list(old, "status.containerStatuses")
        .iter()
        .filter(|c| done(c))
    {
        let name = tree::text(before, "name");
        let after = new_statuses
            .iter()
            .enumerate()
            .find(|(_, c)| tree::text(c, "name") == name);
        if let Some((i, after)) = after {
            if tree::get(after, "state.terminated").is_none() {
                let at = status.child("containerStatuses").index(i).child("state");
                errors.push(Error::forbidden(
                    &at,
                    "may not be transitioned to non-terminated state",
                ));
            }
        }
    }
    errors
}
