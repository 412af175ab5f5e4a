//! Rows of budgets, autoscalers, classes, certificates, API services, webhooks, flow control and
//! device kinds.

use serde_json::{Value, json};

use crate::ctx::Ctx;
use crate::table::{age, count, human_duration, name, text_or};
use crate::tree;

/// A number or a percentage as text.
fn int_or_text(object: &Value, path: &str, fallback: &str) -> String {
    match tree::get(object, path) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => fallback.to_owned(),
    }
}

pub(crate) fn disruption_budget(ctx: &Ctx, object: &Value) -> Vec<Value> {
    vec![
        name(object),
        json!(int_or_text(object, "spec.minAvailable", "N/A")),
        json!(int_or_text(object, "spec.maxUnavailable", "N/A")),
        count(object, "status.disruptionsAllowed"),
        age(ctx, object),
    ]
}

pub(crate) fn autoscaler(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let reference = format!(
        "{}/{}",
        tree::text(object, "spec.scaleTargetRef.kind"),
        tree::text(object, "spec.scaleTargetRef.name")
    );
    vec![
        name(object),
        json!(reference),
        json!(targets(object)),
        json!(int_or_text(object, "spec.minReplicas", "<unset>")),
        count(object, "spec.maxReplicas"),
        count(object, "status.currentReplicas"),
        age(ctx, object),
    ]
}

/// `cpu: 20%/80%` for each of the first two metrics.
fn targets(object: &Value) -> String {
    let metrics = tree::list(object, "spec.metrics");
    if metrics.is_empty() {
        return "<none>".to_owned();
    }
    let current = tree::list(object, "status.currentMetrics");
    let shown: Vec<String> = metrics
        .iter()
        .enumerate()
        .map(|(i, metric)| {
            let now = current.get(i).unwrap_or(&Value::Null);
            let kind = tree::text(metric, "type");
            let member = match kind {
                "ContainerResource" => "containerResource",
                "Pods" => "pods",
                "Object" => "object",
                "External" => "external",
                _ => "resource",
            };
            let value = |tree_: &Value, side: &str| {
                let at = tree::get(tree_, &format!("{member}.{side}"))?;
                if let Some(percent) = tree::int(at, "averageUtilization") {
                    return Some(format!("{percent}%"));
                }
                let average = tree::text(at, "averageValue");
                let text = if average.is_empty() {
                    tree::text(at, "value")
                } else {
                    average
                };
                (!text.is_empty()).then(|| text.to_owned())
            };
            let target = value(metric, "target").unwrap_or_else(|| "<auto>".to_owned());
            let now = value(now, "current").unwrap_or_else(|| "<unknown>".to_owned());
            let label = tree::text(metric, &format!("{member}.name"));
            if label.is_empty() {
                return format!("{now}/{target}");
            }
            format!("{label}: {now}/{target}")
        })
        .collect();
    if shown.len() > 2 {
        return format!("{} + {} more...", shown[..2].join(", "), shown.len() - 2);
    }
    shown.join(", ")
}

pub(crate) fn priority_class(ctx: &Ctx, object: &Value) -> Vec<Value> {
    vec![
        name(object),
        count(object, "value"),
        json!(tree::truthy(object, "globalDefault")),
        age(ctx, object),
        json!(text_or(object, "preemptionPolicy", "PreemptLowerPriority")),
    ]
}

pub(crate) fn runtime_class(ctx: &Ctx, object: &Value) -> Vec<Value> {
    vec![
        name(object),
        json!(tree::text(object, "handler")),
        age(ctx, object),
    ]
}

pub(crate) fn api_service(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let service = tree::get(object, "spec.service").map_or_else(
        || "Local".to_owned(),
        |service| {
            format!(
                "{}/{}",
                tree::text(service, "namespace"),
                tree::text(service, "name")
            )
        },
    );
    let condition = tree::list(object, "status.conditions")
        .iter()
        .find(|condition| tree::text(condition, "type") == "Available");
    let available = match condition {
        None => "Unknown".to_owned(),
        Some(condition) if tree::text(condition, "status") == "True" => "True".to_owned(),
        Some(condition) => {
            format!(
                "{} ({})",
                tree::text(condition, "status"),
                tree::text(condition, "reason")
            )
        }
    };
    vec![
        name(object),
        json!(service),
        json!(available),
        age(ctx, object),
    ]
}

pub(crate) fn webhooks(ctx: &Ctx, object: &Value) -> Vec<Value> {
    vec![
        name(object),
        json!(tree::list(object, "webhooks").len()),
        age(ctx, object),
    ]
}

pub(crate) fn admission_policy(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let parameters = tree::get(object, "spec.paramKind").map_or_else(
        || "<unset>".to_owned(),
        |kind| {
            format!(
                "{}/{}",
                tree::text(kind, "apiVersion"),
                tree::text(kind, "kind")
            )
        },
    );
    let validations = tree::list(object, "spec.validations").len();
    vec![
        name(object),
        json!(validations),
        json!(parameters),
        age(ctx, object),
    ]
}

pub(crate) fn admission_binding(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let reference = tree::get(object, "spec.paramRef").map_or_else(
        || "<unset>".to_owned(),
        |reference| match (
            tree::text(reference, "namespace"),
            tree::text(reference, "name"),
        ) {
            ("", name) => format!("*/{name}"),
            (namespace, name) => format!("{namespace}/{name}"),
        },
    );
    let policy = json!(tree::text(object, "spec.policyName"));
    vec![name(object), policy, json!(reference), age(ctx, object)]
}

pub(crate) fn certificate_request(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let mut words = Vec::new();
    for kind in ["Denied", "Approved", "Failed"] {
        let conditions = tree::list(object, "status.conditions");
        if conditions
            .iter()
            .any(|condition| tree::text(condition, "type") == kind)
        {
            words.push(kind);
        }
    }
    if !tree::text(object, "status.certificate").is_empty() {
        words.push("Issued");
    }
    let condition = if words.is_empty() {
        "Pending".to_owned()
    } else {
        words.join(",")
    };
    let duration = tree::int(object, "spec.expirationSeconds").map_or_else(
        || "<none>".to_owned(),
        |seconds| human_duration(jiff::SignedDuration::from_secs(seconds)),
    );
    vec![
        name(object),
        age(ctx, object),
        json!(text_or(object, "spec.signerName", "<none>")),
        json!(tree::text(object, "spec.username")),
        json!(duration),
        json!(condition),
    ]
}

pub(crate) fn flow_schema(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let dangling = tree::list(object, "status.conditions")
        .iter()
        .find(|condition| tree::text(condition, "type") == "Dangling")
        .map_or("?", |condition| tree::text(condition, "status"));
    vec![
        name(object),
        json!(text_or(
            object,
            "spec.priorityLevelConfiguration.name",
            "<none>"
        )),
        count(object, "spec.matchingPrecedence"),
        json!(text_or(object, "spec.distinguisherMethod.type", "<none>")),
        age(ctx, object),
        json!(dangling),
    ]
}

pub(crate) fn priority_level(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let (limited, queuing) = ("spec.limited", "spec.limited.limitResponse.queuing");
    let number = |path: String| json!(int_or_text(object, &path, "<none>"));
    vec![
        name(object),
        json!(tree::text(object, "spec.type")),
        number(format!("{limited}.nominalConcurrencyShares")),
        number(format!("{queuing}.queues")),
        number(format!("{queuing}.handSize")),
        number(format!("{queuing}.queueLengthLimit")),
        age(ctx, object),
    ]
}

pub(crate) fn name_and_age(ctx: &Ctx, object: &Value) -> Vec<Value> {
    vec![name(object), age(ctx, object)]
}

pub(crate) fn resource_claim(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let mut states = Vec::new();
    if tree::get(object, "metadata.deletionTimestamp").is_some() {
        states.push("deleted");
    }
    if tree::get(object, "status.allocation").is_none() {
        states.push("pending");
    } else {
        states.push("allocated");
        if !tree::list(object, "status.reservedFor").is_empty() {
            states.push("reserved");
        }
    }
    vec![name(object), json!(states.join(",")), age(ctx, object)]
}

pub(crate) fn resource_slice(ctx: &Ctx, object: &Value) -> Vec<Value> {
    vec![
        name(object),
        json!(tree::text(object, "spec.nodeName")),
        json!(tree::text(object, "spec.driver")),
        json!(tree::text(object, "spec.pool.name")),
        age(ctx, object),
    ]
}
