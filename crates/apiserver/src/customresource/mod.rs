//! CustomResourceDefinitions: accepted in the write that makes them, served from the next request.

mod structural;

use kinds::table::custom::CustomTable;
use kinds::{CustomNames, Kind, tree};
use schema::{Gvk, Schemas};
use serde_json::{Value, json};

use crate::registry::{Custom, Resource, ScalePaths};
use crate::server::State;
use crate::status::Cause;
use crate::storage::{Expect, Write, resource_key};

pub(crate) const GROUP: &str = "apiextensions.k8s.io";
pub(crate) const PLURAL: &str = "customresourcedefinitions";

/// A group that only schemas on trial are in.
const TRIAL: &str = "trial.invalid";

/// Completes a definition that is about to be stored and settles its status; the causes say why
/// it cannot be.
pub(crate) fn accept(state: &State, definition: &mut Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    check(state, definition, &mut causes);
    if causes.is_empty() {
        settle(state, definition, old);
    }
    causes
}

/// Schemas must be structural; the rest of a definition is `kinds`' business.
fn check(state: &State, definition: &Value, causes: &mut Vec<Cause>) {
    if tree::text(definition, "spec.conversion.strategy") == "Webhook" {
        let message = "Invalid value: \"Webhook\": only None is supported by this server";
        causes.push(Cause::new(
            "FieldValueInvalid",
            "spec.conversion.strategy",
            message,
        ));
    }
    let versions = tree::list(definition, "spec.versions");
    let trial = format!("v{}", state.rng().next_u64());
    for (i, version) in versions.iter().enumerate() {
        let field = format!("spec.versions[{i}].schema.openAPIV3Schema");
        let Some(schema) = tree::get(version, "schema.openAPIV3Schema") else {
            continue;
        };
        causes.extend(structural::check(schema, &field));
        let gvk = Gvk::new(TRIAL, trial.as_str(), "Trial");
        if let Err(errors) = state.schemas.install(gvk.clone(), schema) {
            causes.extend(errors.into_iter().map(|error| {
                let below = format!("spec.versions[{i}].schema.{}", error.field);
                Cause::new(error.reason, &below, error.message)
            }));
        }
        state.schemas.remove(&gvk);
    }
}

/// Names are accepted and the definition is established in the same write.
fn settle(state: &State, definition: &mut Value, old: Option<&Value>) {
    let now = state.ctx().now_text();
    let names = definition["spec"]["names"].clone();
    let storage = tree::list(definition, "spec.versions")
        .iter()
        .find(|v| tree::truthy(v, "storage"))
        .map(|v| tree::text(v, "name").to_owned())
        .unwrap_or_default();
    let old_status = old
        .and_then(|old| old.get("status"))
        .cloned()
        .unwrap_or_default();
    let mut stored: Vec<String> = tree::words(&old_status, "storedVersions")
        .into_iter()
        .map(ToOwned::to_owned)
        .collect();
    if !stored.contains(&storage) {
        stored.push(storage);
    }
    let known = tree::list(&old_status, "conditions");
    let condition = |kind: &str, reason: &str, message: &str| {
        let before = known
            .iter()
            .find(|c| c["type"] == kind && c["status"] == "True");
        before.cloned().unwrap_or_else(|| {
            json!({
                "type": kind, "status": "True", "lastTransitionTime": now, "reason": reason,
                "message": message,
            })
        })
    };
    definition["status"] = json!({
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "acceptedNames": names,
        "storedVersions": stored,
    });
}

/// What a definition serves. Its schemas are installed on the way.
pub(crate) fn resources(schemas: &Schemas, definition: &Value) -> Vec<Resource> {
    let spec = definition.get("spec").unwrap_or(&Value::Null);
    let text = |path| tree::text(spec, path).to_owned();
    let words = |path| {
        tree::words(spec, path)
            .into_iter()
            .map(ToOwned::to_owned)
            .collect()
    };
    let versions = tree::list(spec, "versions");
    let group = text("group");
    let stored_version = versions
        .iter()
        .find(|v| tree::truthy(v, "storage"))
        .map(|v| format!("{group}/{}", tree::text(v, "name")))
        .unwrap_or_default();
    let mut served: Vec<&Value> = versions
        .iter()
        .filter(|v| tree::truthy(v, "served"))
        .collect();
    served.sort_by_key(|v| std::cmp::Reverse(rank(tree::text(v, "name"))));
    let mut resources = Vec::new();
    for version in served {
        let name = tree::text(version, "name");
        let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let schema = tree::get(version, "schema.openAPIV3Schema").unwrap_or(&anything);
        let gvk = Gvk::new(group.as_str(), name, text("names.kind"));
        if let Err(errors) = schemas.install(gvk.clone(), schema) {
            tracing::error!(
                ?gvk,
                "stored definition has a schema that cannot be used: {errors:?}"
            );
            continue;
        }
        let scale = tree::get(version, "subresources.scale").map(|scale| ScalePaths {
            spec_replicas: tree::text(scale, "specReplicasPath").to_owned(),
            status_replicas: tree::text(scale, "statusReplicasPath").to_owned(),
            label_selector: tree::text(scale, "labelSelectorPath").to_owned(),
        });
        let kind = Kind::custom(CustomNames {
            group: group.clone(),
            version: name.to_owned(),
            kind: text("names.kind"),
            plural: text("names.plural"),
            singular: text("names.singular"),
            namespaced: tree::text(spec, "scope") == "Namespaced",
            short_names: words("names.shortNames"),
            categories: words("names.categories"),
            status: tree::get(version, "subresources.status").is_some(),
            scale: scale.is_some(),
        });
        let deprecation = tree::truthy(version, "deprecated").then(|| {
            let own = tree::text(version, "deprecationWarning");
            if own.is_empty() {
                format!("{group}/{name} {} is deprecated", text("names.kind"))
            } else {
                own.to_owned()
            }
        });
        resources.push(Resource {
            key: resource_key(&group, &text("names.plural")).into(),
            api_version: kind.api_version(),
            list_kind: text("names.listKind"),
            gvk,
            stored_version: stored_version.clone(),
            converted: false,
            custom: Some(Custom {
                table: CustomTable::new(tree::list(version, "additionalPrinterColumns")),
                scale,
                deprecation,
            }),
            kind,
        });
    }
    resources
}

/// Kubernetes' order of versions: v2, v1, v1beta2, v1beta1, v1alpha1, others.
fn rank(version: &str) -> (u8, u32, u32) {
    let number = |text: &str| text.parse::<u32>().ok();
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    for (mark, class) in [("beta", 2), ("alpha", 1)] {
        if let Some((major, minor)) = rest.split_once(mark) {
            return match (number(major), number(minor)) {
                (Some(major), Some(minor)) => (class, major, minor),
                _ => (0, 0, 0),
            };
        }
    }
    number(rest).map_or((0, 0, 0), |major| (3, major, 0))
}

/// The writes that take all objects of a definition away; it goes itself after them.
pub(crate) fn removals(state: &State, definition: &Value) -> Vec<Write> {
    let group = tree::text(definition, "spec.group");
    let key = resource_key(group, tree::text(definition, "spec.names.plural"));
    let cache = state.store.cache(&key);
    let objects = cache.snapshot("", state.store.position()).objects;
    objects
        .iter()
        .map(|object| Write {
            resource: key.as_str().into(),
            namespace: object.namespace.to_string(),
            name: object.name.to_string(),
            expect: Expect::Version(object.rv),
            object: None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_maturity_then_number() {
        let mut versions = ["v1alpha1", "v1", "foo", "v1beta2", "v2", "v1beta1"];
        versions.sort_by_key(|v| std::cmp::Reverse(rank(v)));
        assert_eq!(
            versions,
            ["v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]
        );
    }
}
