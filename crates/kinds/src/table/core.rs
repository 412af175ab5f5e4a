//! Rows of Nodes, Events, component statuses and quotas.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::ctx::Ctx;
use crate::table::{age, name, since, text_or};
use crate::tree;

pub(crate) fn node(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let ready = tree::list(object, "status.conditions")
        .iter()
        .find(|condition| tree::text(condition, "type") == "Ready");
    let mut status = match ready {
        Some(condition) if tree::text(condition, "status") == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if tree::truthy(object, "spec.unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let info = |key: &str| {
        let path = format!("status.nodeInfo.{key}");
        json!(text_or(object, &path, "<unknown>"))
    };
    vec![
        name(object),
        json!(status),
        json!(roles(object)),
        age(ctx, object),
        json!(tree::text(object, "status.nodeInfo.kubeletVersion")),
        json!(address(object, "InternalIP")),
        json!(address(object, "ExternalIP")),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn roles(node: &Value) -> String {
    let roles: BTreeSet<&str> = tree::strings(node, "metadata.labels")
        .filter_map(|(key, value)| {
            let role = key.strip_prefix("node-role.kubernetes.io/");
            role.or_else(|| (key == "kubernetes.io/role").then_some(value))
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() {
        return "<none>".to_owned();
    }
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address<'a>(node: &'a Value, kind: &str) -> &'a str {
    tree::list(node, "status.addresses")
        .iter()
        .find(|address| tree::text(address, "type") == kind)
        .map_or("<none>", |address| tree::text(address, "address"))
}

pub(crate) fn event(ctx: &Ctx, object: &Value) -> Vec<Value> {
    // events.k8s.io/v1 names the same things otherwise.
    let either = |old: &'static str, new: &'static str| {
        Some(tree::text(object, old))
            .filter(|t| !t.is_empty())
            .unwrap_or_else(|| tree::text(object, new))
    };
    let time = |path: &str| since(ctx, tree::text(object, path));
    let first = match either("firstTimestamp", "deprecatedFirstTimestamp") {
        "" => time("eventTime"),
        first => since(ctx, first),
    };
    let mut last = match either("lastTimestamp", "deprecatedLastTimestamp") {
        "" => first.clone(),
        last => since(ctx, last),
    };
    let mut count = tree::int(object, "count")
        .or_else(|| tree::int(object, "deprecatedCount"))
        .filter(|count| *count != 0)
        .unwrap_or(1);
    if tree::get(object, "series").is_some() {
        last = time("series.lastObservedTime");
        count = tree::int(object, "series.count").unwrap_or(0);
    }
    let kind = either("involvedObject.kind", "regarding.kind").to_lowercase();
    let target = match either("involvedObject.name", "regarding.name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let (mut component, mut host) = (
        either("source.component", "deprecatedSource.component"),
        either("source.host", "deprecatedSource.host"),
    );
    if component.is_empty() && host.is_empty() {
        component = either("reportingComponent", "reportingController");
        host = tree::text(object, "reportingInstance");
    }
    let source = if host.is_empty() {
        component.to_owned()
    } else {
        format!("{component}, {host}")
    };
    vec![
        json!(last),
        json!(tree::text(object, "type")),
        json!(tree::text(object, "reason")),
        json!(target),
        json!(either("involvedObject.fieldPath", "regarding.fieldPath")),
        json!(source),
        json!(either("message", "note").trim()),
        json!(first),
        json!(count),
        name(object),
    ]
}

pub(crate) fn component_status(_: &Ctx, object: &Value) -> Vec<Value> {
    let healthy = tree::list(object, "conditions")
        .iter()
        .find(|condition| tree::text(condition, "type") == "Healthy");
    let (status, message, error) = healthy.map_or(("Unknown", "", ""), |condition| {
        let status = match tree::text(condition, "status") {
            "True" => "Healthy",
            "False" => "Unhealthy",
            _ => "Unknown",
        };
        (
            status,
            tree::text(condition, "message"),
            tree::text(condition, "error"),
        )
    });
    vec![name(object), json!(status), json!(message), json!(error)]
}

pub(crate) fn resource_quota(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let used = tree::map(object, "status.used");
    for (resource, hard) in tree::strings(object, "status.hard") {
        let used = used
            .and_then(|used| used.get(resource))
            .and_then(Value::as_str)
            .unwrap_or("0");
        let text = format!("{resource}: {used}/{hard}");
        if resource.starts_with("limits.") {
            limits.push(text);
        } else {
            requests.push(text);
        }
    }
    vec![
        name(object),
        json!(requests.join(", ")),
        json!(limits.join(", ")),
        age(ctx, object),
    ]
}
