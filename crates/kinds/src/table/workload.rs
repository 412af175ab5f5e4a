//! Rows of apps and batch kinds.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::ctx::Ctx;
use crate::selector::label::format_object;
use crate::table::{age, count, format_labels, human_duration, name, since, text_or, yes_no};
use crate::tree;

/// The container names and images of a Pod template as two cells.
pub(crate) fn containers(object: &Value, template: &str) -> [Value; 2] {
    let list = tree::list(object, &format!("{template}.spec.containers"));
    ["name", "image"].map(|key| {
        let texts: Vec<&str> = list
            .iter()
            .map(|container| tree::text(container, key))
            .collect();
        json!(texts.join(","))
    })
}

fn ratio(object: &Value, part: &str, whole: &str) -> Value {
    let number = |path| tree::int(object, path).unwrap_or(0);
    json!(format!("{}/{}", number(part), number(whole)))
}

fn selector(object: &Value) -> Value {
    json!(format_object(tree::get(object, "spec.selector")))
}

pub(crate) fn deployment(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let [names, images] = containers(object, "spec.template");
    vec![
        name(object),
        ratio(object, "status.readyReplicas", "spec.replicas"),
        count(object, "status.updatedReplicas"),
        count(object, "status.availableReplicas"),
        age(ctx, object),
        names,
        images,
        selector(object),
    ]
}

pub(crate) fn replica_set(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let [names, images] = containers(object, "spec.template");
    vec![
        name(object),
        count(object, "spec.replicas"),
        count(object, "status.replicas"),
        count(object, "status.readyReplicas"),
        age(ctx, object),
        names,
        images,
        selector(object),
    ]
}

pub(crate) fn replication_controller(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let mut row = replica_set(ctx, object);
    row[7] = json!(format_labels(tree::map(object, "spec.selector")));
    row
}

pub(crate) fn stateful_set(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let [names, images] = containers(object, "spec.template");
    let ready = ratio(object, "status.readyReplicas", "spec.replicas");
    vec![name(object), ready, age(ctx, object), names, images]
}

pub(crate) fn daemon_set(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let [names, images] = containers(object, "spec.template");
    vec![
        name(object),
        count(object, "status.desiredNumberScheduled"),
        count(object, "status.currentNumberScheduled"),
        count(object, "status.numberReady"),
        count(object, "status.updatedNumberScheduled"),
        count(object, "status.numberAvailable"),
        json!(format_labels(tree::map(
            object,
            "spec.template.spec.nodeSelector"
        ))),
        age(ctx, object),
        names,
        images,
        selector(object),
    ]
}

pub(crate) fn controller_revision(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let owner = tree::list(object, "metadata.ownerReferences")
        .iter()
        .find(|reference| tree::truthy(reference, "controller"));
    let controller = owner.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let group = tree::text(owner, "apiVersion")
                .split_once('/')
                .map_or("", |(g, _)| g);
            let kind = tree::text(owner, "kind").to_lowercase();
            let dot = if group.is_empty() { "" } else { "." };
            format!("{kind}{dot}{group}/{}", tree::text(owner, "name"))
        },
    );
    vec![
        name(object),
        json!(controller),
        count(object, "revision"),
        age(ctx, object),
    ]
}

pub(crate) fn pod_template(_: &Ctx, object: &Value) -> Vec<Value> {
    let [names, images] = containers(object, "template");
    let labels = format_labels(tree::map(object, "template.metadata.labels"));
    vec![name(object), names, images, json!(labels)]
}

pub(crate) fn job(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let succeeded = tree::int(object, "status.succeeded").unwrap_or(0);
    let completions = match (
        tree::int(object, "spec.completions"),
        tree::int(object, "spec.parallelism"),
    ) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, Some(parallelism)) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        _ => format!("{succeeded}/1"),
    };
    let time = |path| tree::text(object, path).parse::<Timestamp>().ok();
    let duration = time("status.startTime").map_or_else(String::new, |start| {
        let end = time("status.completionTime").unwrap_or(ctx.now);
        human_duration(end.duration_since(start))
    });
    let [names, images] = containers(object, "spec.template");
    vec![
        name(object),
        json!(job_status(object)),
        json!(completions),
        json!(duration),
        age(ctx, object),
        names,
        images,
        selector(object),
    ]
}

fn job_status(object: &Value) -> &'static str {
    let has = |kind: &str| {
        tree::list(object, "status.conditions")
            .iter()
            .any(|condition| {
                tree::text(condition, "type") == kind && tree::text(condition, "status") == "True"
            })
    };
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if tree::get(object, "metadata.deletionTimestamp").is_some() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

pub(crate) fn cron_job(ctx: &Ctx, object: &Value) -> Vec<Value> {
    let last = tree::text(object, "status.lastScheduleTime");
    let last = if last.is_empty() {
        "<none>".to_owned()
    } else {
        since(ctx, last)
    };
    let [names, images] = containers(object, "spec.jobTemplate.spec.template");
    vec![
        name(object),
        json!(tree::text(object, "spec.schedule")),
        json!(text_or(object, "spec.timeZone", "<none>")),
        json!(yes_no(
            tree::get(object, "spec.suspend").and_then(Value::as_bool)
        )),
        json!(tree::list(object, "status.active").len()),
        json!(last),
        age(ctx, object),
        names,
        images,
        json!(format_object(tree::get(
            object,
            "spec.jobTemplate.spec.selector"
        ))),
    ]
}
