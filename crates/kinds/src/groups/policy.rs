//! Kinds of policy, autoscaling, scheduling.k8s.io, coordination.k8s.io, node.k8s.io and
//! resource.k8s.io.

use serde_json::{Value, json};

use crate::apps;
use crate::content;
use crate::core::pod::validate::one_of;
use crate::field::{Error, ErrorList, Path};
use crate::kind::{Generation, Strategy};
use crate::selector::label;
use crate::tree::{self, set_default};
use crate::{meta, quantity, table};

pub(crate) const DISRUPTION_BUDGET: Strategy = Strategy {
    default: |budget| {
        tree::child(budget, "spec");
        if let Some(status) = tree::get_mut(budget, "status") {
            for key in [
                "disruptionsAllowed",
                "currentHealthy",
                "desiredHealthy",
                "expectedPods",
            ] {
                set_default(status, key, 0);
            }
        }
    },
    validate: |_, object| disruption_budget(object),
    validate_update: |_, new, _| disruption_budget(new),
    row: Some(table::policy::disruption_budget),
    empty_status: r#"{"disruptionsAllowed":0,"currentHealthy":0,"desiredHealthy":0,"expectedPods":0}"#,
    has_status: true,
    generation: Generation::Spec,
    unconditional_update: false,
    ..Strategy::GENERIC
};

pub(crate) const AUTOSCALER: Strategy = Strategy {
    default: autoscaler_defaults,
    validate: |_, object| autoscaler(object),
    validate_update: |_, new, _| autoscaler(new),
    row: Some(table::policy::autoscaler),
    empty_status: r#"{"desiredReplicas":0,"currentMetrics":null}"#,
    has_status: true,
    ..Strategy::GENERIC
};

pub(crate) const PRIORITY_CLASS: Strategy = Strategy {
    default: |class| {
        set_default(class, "preemptionPolicy", "PreemptLowerPriority");
        set_default(class, "value", 0);
        if class.get("globalDefault") == Some(&json!(false)) {
            tree::remove(class, "globalDefault");
        }
    },
    validate: |_, class| priority_class(class),
    validate_update: |_, new, old| {
        let mut errors = ErrorList::new();
        if !tree::same(new, old, "value") {
            let detail = "may not be changed in an update.";
            errors.push(Error::forbidden(&Path::new("Value"), detail));
        }
        errors.extend(meta::immutable(new, old, "preemptionPolicy"));
        errors
    },
    row: Some(table::policy::priority_class),
    generation: Generation::Content,
    ..Strategy::GENERIC
};

pub(crate) const LEASE: Strategy = Strategy {
    default: |lease| {
        tree::child(lease, "spec");
    },
    validate: |_, object| lease(object),
    validate_update: |_, new, _| lease(new),
    row: Some(table::config::lease),
    create_on_update: true,
    unconditional_update: false,
    ..Strategy::GENERIC
};

pub(crate) const RUNTIME_CLASS: Strategy = Strategy {
    validate: |_, class| {
        let handler = tree::text(class, "handler");
        let mut errors = ErrorList::new();
        for message in content::dns1123_label(handler) {
            errors.push(Error::invalid(&Path::new("handler"), handler, message));
        }
        errors
    },
    validate_update: |_, new, old| meta::immutable(new, old, "handler"),
    row: Some(table::policy::runtime_class),
    unconditional_update: false,
    ..Strategy::GENERIC
};

pub(crate) const DEVICE_CLASS: Strategy = Strategy {
    row: Some(table::policy::name_and_age),
    generation: Generation::Spec,
    ..Strategy::GENERIC
};

pub(crate) const RESOURCE_CLAIM: Strategy = Strategy {
    validate_update: |_, new, old| meta::immutable(new, old, "spec"),
    row: Some(table::policy::resource_claim),
    empty_status: "{}",
    has_status: true,
    ..Strategy::GENERIC
};

pub(crate) const RESOURCE_CLAIM_TEMPLATE: Strategy = Strategy {
    validate_update: |_, new, old| meta::immutable(new, old, "spec"),
    row: Some(table::policy::name_and_age),
    ..Strategy::GENERIC
};

pub(crate) const RESOURCE_SLICE: Strategy = Strategy {
    row: Some(table::policy::resource_slice),
    generation: Generation::Spec,
    ..Strategy::GENERIC
};

fn disruption_budget(object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let (min, max) = (
        tree::get(object, "spec.minAvailable"),
        tree::get(object, "spec.maxUnavailable"),
    );
    if let (Some(_), Some(_)) = (min, max) {
        let value = tree::get(object, "spec").cloned().unwrap_or(Value::Null);
        let detail = "minAvailable and maxUnavailable cannot be both set";
        errors.push(Error::invalid(&path, value, detail));
    }
    errors.extend(apps::int_or_percent(min, &path.child("minAvailable")));
    errors.extend(apps::int_or_percent(max, &path.child("maxUnavailable")));
    if let Some(selector) = tree::get(object, "spec.selector") {
        errors.extend(label::validate_object(selector, &path.child("selector")));
    }
    let empty = json!({});
    let spec = tree::get(object, "spec").unwrap_or(&empty);
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    errors.extend(one_of(spec, "unhealthyPodEvictionPolicy", &path, &policies));
    errors
}

fn autoscaler_defaults(object: &mut Value) {
    let spec = tree::child(object, "spec");
    set_default(spec, "minReplicas", 1);
    if tree::list(spec, "metrics").is_empty() {
        spec["metrics"] = json!([{
            "type": "Resource",
            "resource": {
                "name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80},
            },
        }]);
    }
    for metric in tree::list_mut(spec, "metrics") {
        for source in [
            "resource",
            "containerResource",
            "pods",
            "object",
            "external",
        ] {
            for key in ["averageValue", "value"] {
                if let Some(value) = tree::get_mut(metric, &format!("{source}.target.{key}")) {
                    quantity::canonicalise(value);
                }
            }
        }
    }
    if let Some(status) = tree::get_mut(object, "status") {
        set_default(status, "desiredReplicas", 0);
        tree::object(status)
            .entry("currentMetrics")
            .or_insert(Value::Null);
    }
}

fn autoscaler(object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let (min, max) = (
        tree::int(object, "spec.minReplicas").unwrap_or(1),
        tree::int(object, "spec.maxReplicas").unwrap_or(0),
    );
    if min < 1 {
        let detail = "must be greater than or equal to 1";
        errors.push(Error::invalid(&path.child("minReplicas"), min, detail));
    }
    let at = path.child("maxReplicas");
    if max < 1 {
        errors.push(Error::invalid(&at, max, "must be greater than 0"));
    }
    if max < min {
        errors.push(Error::invalid(
            &at,
            max,
            "must be greater than or equal to `minReplicas`",
        ));
    }
    for key in ["kind", "name"] {
        if tree::text(object, &format!("spec.scaleTargetRef.{key}")).is_empty() {
            errors.push(Error::required(
                &path.child("scaleTargetRef").child(key),
                "",
            ));
        }
    }
    errors
}

fn priority_class(class: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let name = tree::text(class, "metadata.name");
    if name.starts_with("system-") {
        let known = crate::core::pod::admission::SYSTEM_PRIORITIES
            .iter()
            .any(|(system, value)| *system == name && tree::int(class, "value") == Some(*value));
        if !known {
            let detail = "priority class names with 'system-' prefix are reserved for system use \
                 only. error: "
                .to_owned()
                + &format!("{name} is not a known system priority class");
            errors.push(Error::forbidden(&Path::new("metadata.name"), detail));
        }
    } else if tree::int(class, "value").unwrap_or(0) > 1_000_000_000 {
        let detail = "maximum allowed value of a user defined priority is 1000000000";
        errors.push(Error::forbidden(&Path::new("value"), detail));
    }
    let policies = ["PreemptLowerPriority", "Never"];
    errors.extend(one_of(class, "preemptionPolicy", &Path::new(""), &policies));
    errors
}

fn lease(object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    if let Some(seconds) = tree::int(object, "spec.leaseDurationSeconds") {
        if seconds <= 0 {
            let at = path.child("leaseDurationSeconds");
            errors.push(Error::invalid(&at, seconds, "must be greater than 0"));
        }
    }
    if let Some(transitions) = tree::int(object, "spec.leaseTransitions") {
        if transitions < 0 {
            let at = path.child("leaseTransitions");
            let detail = "must be greater than or equal to 0";
            errors.push(Error::invalid(&at, transitions, detail));
        }
    }
    if tree::get(object, "spec.holderIdentity").and_then(Value::as_str) == Some("") {
        let at = path.child("holderIdentity");
        errors.push(Error::invalid(&at, "", "must not be empty"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_one_sided() {
        let both = json!({"spec": {"minAvailable": 1, "maxUnavailable": "10%"}});
        assert!(
            disruption_budget(&both)
                .message()
                .contains("cannot be both set")
        );
        let wrong = json!({"spec": {"minAvailable": "10"}});
        assert!(
            disruption_budget(&wrong)
                .message()
                .starts_with("spec.minAvailable: Invalid value")
        );
    }
}
