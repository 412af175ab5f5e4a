//! Binding a Pod to a node, and evicting it from there.

use axum::body::Body;
use http::{Response, StatusCode};
use kinds::selector::LabelSelector;
use kinds::tree;
use serde_json::{Value, json};

use crate::endpoints::query::{DeleteOptions, Query, WriteOptions};
use crate::endpoints::{Call, Place, body, respond};
use crate::registry::Writing;
use crate::registry::delete::delete;
use crate::registry::update::{Part, Proposal, update};
use crate::status::{Cause, Result, Status, success};

const KIND: &str = "pods/binding";

pub(super) async fn bind(mut call: Call, place: Place) -> Result<Response<Body>> {
    let form = call.form(false)?;
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let bytes = call.bytes().await?;
    let binding = body::options(&call.parts.headers, &bytes, "Binding")?;
    let binding = Value::Object(binding.unwrap_or_default());
    let name = place.path.name.clone();
    let node = target(&binding, &name)?;
    let now = call.state.ctx().now_text();
    let mut writing = call.writing(&place.resource, &place, options);
    let mut propose = |_: &mut Writing<'_>, live: Option<&Value>| {
        let mut pod = live.cloned().unwrap_or_default();
        if tree::get(&pod, "metadata.deletionTimestamp").is_some() {
            let why = format!("pod {name} is being deleted, cannot be assigned to a host");
            return Err(Status::conflict("", KIND, &name, &why));
        }
        let assigned = tree::text(&pod, "spec.nodeName");
        if !assigned.is_empty() {
            let why = format!("pod {name} is already assigned to node \"{assigned}\"");
            return Err(Status::conflict("", KIND, &name, &why));
        }
        if !tree::list(&pod, "spec.schedulingGates").is_empty() {
            let why = format!("pod {name} has non-empty .spec.schedulingGates");
            return Err(Status::conflict("", KIND, &name, &why));
        }
        pod["spec"]["nodeName"] = node.as_str().into();
        for (key, value) in tree::strings(&binding, "metadata.annotations") {
            let annotations = tree::child(tree::child(&mut pod, "metadata"), "annotations");
            annotations[key] = value.into();
        }
        scheduled(&mut pod, &now);
        Ok(Proposal {
            object: pod,
            fields_settled: false,
        })
    };
    let updated = update(
        &mut writing,
        &place.path.name,
        Part::Raw,
        false,
        &mut propose,
    );
    Box::pin(updated).await?;
    Ok(respond::value(
        StatusCode::CREATED,
        form,
        &success(StatusCode::CREATED),
    ))
}

fn target(binding: &Value, name: &str) -> Result<String> {
    let mut causes = Vec::new();
    let kind = tree::text(binding, "target.kind");
    if !matches!(kind, "" | "Node") {
        let message = format!("Unsupported value: \"{kind}\": supported values: \"Node\", \"\"");
        causes.push(Cause::new("FieldValueNotSupported", "target.kind", message));
    }
    let node = tree::text(binding, "target.name");
    if node.is_empty() {
        causes.push(Cause::new(
            "FieldValueRequired",
            "target.name",
            "Required value",
        ));
    }
    let own = tree::text(binding, "metadata.name");
    if !own.is_empty() && own != name {
        return Err(Status::bad_request(
            "name in URL does not match name in Binding object",
        ));
    }
    if causes.is_empty() {
        Ok(node.to_owned())
    } else {
        Err(Status::invalid("", "Binding", own, &causes))
    }
}

fn scheduled(pod: &mut Value, now: &str) {
    let status = tree::child(pod, "status");
    let mut conditions = tree::list(status, "conditions").to_vec();
    conditions.retain(|c| c["type"] != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
    }));
    status["conditions"] = conditions.into();
}

pub(super) async fn evict(mut call: Call, place: Place) -> Result<Response<Body>> {
    let form = call.form(false)?;
    let mut options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let bytes = call.bytes().await?;
    let eviction = body::options(&call.parts.headers, &bytes, "Eviction")?;
    let eviction = Value::Object(eviction.unwrap_or_default());
    let name = place.path.name.clone();
    let own = tree::text(&eviction, "metadata.name");
    if !own.is_empty() && own != name {
        return Err(Status::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let pod = place.resource.get(&call.state, &place.namespace, &name)?;
    let delete_options = eviction.get("deleteOptions").and_then(Value::as_object);
    let delete_options = DeleteOptions::parse(&Query::default(), delete_options)?;
    options.dry_run |= delete_options.dry_run;
    let running = !matches!(
        tree::text(pod.value(), "status.phase"),
        "Succeeded" | "Failed" | "Pending"
    );
    if running {
        let budgets =
            call.state
                .store
                .list_values("policy", "poddisruptionbudgets", &place.namespace);
        for budget in budgets {
            let selector = LabelSelector::from_object(tree::get(&budget, "spec.selector"));
            let selected = selector.is_ok_and(|s| s.matches_object(pod.value()));
            if selected && tree::int(&budget, "status.disruptionsAllowed").unwrap_or(0) <= 0 {
                let message = "Cannot evict pod as it would violate the pod's disruption budget.";
                let cause = Cause::new(
                    "DisruptionBudget",
                    "",
                    format!(
                        "The disruption budget {} does not allow it",
                        tree::text(&budget, "metadata.name")
                    ),
                );
                return Err(
                    Status::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
                        .with_cause(cause),
                );
            }
        }
    }
    let mut writing = call.writing(&place.resource, &place, options);
    Box::pin(delete(&mut writing, &name, &delete_options)).await?;
    Ok(respond::value(
        StatusCode::CREATED,
        form,
        &success(StatusCode::CREATED),
    ))
}
