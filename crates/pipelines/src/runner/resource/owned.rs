//! Objects that go with their run: those of templates with `setOwnerReference`.
//!
//! Upstream the Workflow object owns them. Here a run is no object of the cluster, so they carry an
//! annotation, and deleting the run deletes them.

use std::collections::BTreeSet;

use engine::{Body, Plan, Shape, WorkKind};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use super::{OWNER_ANNOTATION, Problem, api};
use crate::journal::Record;
use crate::runner::Shared;
use crate::runner::pod::WORKFLOW_LABEL;

/// Deletes the objects that a run owns. What does not work is logged: the run goes all the same.
pub(crate) async fn delete_owned(shared: &Shared, record: &Record, plan: &Plan) {
    for (kind, account) in owned_kinds(plan) {
        let account = account.unwrap_or_else(|| record.service_account.clone());
        if let Err(Problem::Failed(message) | Problem::Unreachable(message)) =
            delete_kind(shared, record, &kind, &account).await
        {
            tracing::warn!(run_id = record.run, "delete what the run owns: {message}");
        }
    }
}

/// `(apiVersion, kind, namespace)`.
type KindOf = (String, String, Option<String>);

/// What the plan's templates make for the run to own, and as which account.
fn owned_kinds(plan: &Plan) -> BTreeSet<(KindOf, Option<String>)> {
    let mut kinds = BTreeSet::new();
    for template in plan.templates.values() {
        let Body::Work(work) = &template.body else {
            continue;
        };
        let text = |name| text_at(&work.spec, &["resource", name]);
        let owns = text("setOwnerReference").as_deref() == Some("true");
        if work.kind != WorkKind::Resource || !owns {
            continue;
        }
        let manifest = text("manifest").unwrap_or_default();
        let Ok(object) = serde_saphyr::from_str::<Value>(&manifest) else {
            tracing::warn!(
                "the kind of what template {:?} makes is not known",
                template.name
            );
            continue;
        };
        let known = |pointer: &str| {
            let text = object.pointer(pointer).and_then(Value::as_str)?;
            (!text.is_empty() && !text.contains("{{")).then(|| text.to_owned())
        };
        if let (Some(version), Some(kind)) = (known("/apiVersion"), known("/kind")) {
            let account = text_at(&work.spec, &["serviceAccountName"]);
            kinds.insert(((version, kind, known("/metadata/namespace")), account));
        }
    }
    kinds
}

/// A text of a tree as it was written.
fn text_at(shape: &Shape, path: &[&str]) -> Option<String> {
    let Some((name, rest)) = path.split_first() else {
        return match shape {
            Shape::Plain(value) => Some(engine::render(value)),
            Shape::Text(text) => Some(text.source()),
            _ => None,
        };
    };
    match shape {
        Shape::Map(entries) => text_at(entries.get(*name)?, rest),
        Shape::Plain(value) => text_at(&Shape::Plain(value.get(*name)?.clone()), rest),
        _ => None,
    }
}

async fn delete_kind(
    shared: &Shared,
    record: &Record,
    (version, kind, namespace): &KindOf,
    account: &str,
) -> Result<(), Problem> {
    let client = api::act_as(shared, account)?;
    let object = json!({"apiVersion": version, "kind": kind, "metadata": {"namespace": namespace}});
    let found = api::of_object(&client, &object, &shared.options.namespace).await?;
    let what = format!("delete {kind}");
    let of_run = ListParams::default().labels(&format!("{WORKFLOW_LABEL}={}", record.workflow));
    let objects = found.api.list_metadata(&of_run).await;
    for object in objects.map_err(|error| Problem::of(&what, &error))? {
        if object.annotations().get(OWNER_ANNOTATION) != Some(&record.run) {
            continue;
        }
        let params = DeleteParams::background();
        match found.api.delete(&object.name_any(), &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(Problem::of(&what, &error)),
        }
    }
    Ok(())
}
