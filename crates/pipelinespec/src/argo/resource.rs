//! Resource templates: what can be told about them before a run.
//!
//! A text with references in it is looked at again when the run has put the values in.

use crate::field::{Field, Invalid};
use crate::resource::{condition, flags, json_path};

type Result<T> = core::result::Result<T, Invalid>;

const ACTIONS: [&str; 6] = ["get", "create", "apply", "delete", "replace", "patch"];
const STRATEGIES: [&str; 3] = ["json", "merge", "strategic"];

/// Whether a value is only known in a run.
fn open(text: &str) -> bool {
    text.contains("{{")
}

pub(super) fn check(field: &Field<'_>) -> Result<()> {
    field.only(
        &[
            "action",
            "failureCondition",
            "flags",
            "manifest",
            "mergeStrategy",
            "setOwnerReference",
            "successCondition",
        ],
        &[("manifestFrom", "give the manifest")],
    )?;
    let action = field.need("action")?;
    one_of(&action, &ACTIONS)?;
    let action = action.str()?;
    if let Some(strategy) = field.get("mergeStrategy")? {
        one_of(&strategy, &STRATEGIES)?;
    }
    if let Some(owner) = field.get("setOwnerReference")? {
        owner.bool()?;
    }
    for name in ["successCondition", "failureCondition"] {
        if let Some(condition) = field.get(name)? {
            let text = condition.str()?;
            if !text.is_empty()
                && !open(text)
                && let Err(problem) = condition::parse(text)
            {
                return condition.invalid(problem);
            }
        }
    }
    let target = check_flags(field)?;
    check_manifest(field, action, target)
}

fn one_of(field: &Field<'_>, allowed: &[&str]) -> Result<()> {
    let value = field.str()?;
    if allowed.contains(&value) || open(value) {
        return Ok(());
    }
    field.invalid(format!("{value:?} is none of {}", allowed.join(", ")))
}

/// Whether the flags say which object is meant.
fn check_flags(field: &Field<'_>) -> Result<bool> {
    let fields = field.list("flags")?;
    let texts = fields
        .iter()
        .map(Field::scalar)
        .collect::<Result<Vec<_>>>()?;
    if texts.iter().any(|text| open(text)) {
        return Ok(true);
    }
    match flags::parse(&texts) {
        Ok(flags) => Ok(flags.target.is_some() || flags.selector.is_some()),
        Err(problem) => field.need("flags")?.invalid(problem),
    }
}

fn check_manifest(field: &Field<'_>, action: &str, target: bool) -> Result<()> {
    let manifest = match field.get("manifest")? {
        Some(manifest) if !manifest.str()?.trim().is_empty() => manifest,
        _ if target && matches!(action, "get" | "delete") => return Ok(()),
        Some(manifest) => return manifest.invalid("the manifest is empty"),
        None => return field.invalid(format!("{action} needs a manifest")),
    };
    let text = manifest.str()?;
    if open(text) {
        return Ok(());
    }
    let object: serde_json::Value = match serde_saphyr::from_str(text) {
        Ok(object) => object,
        Err(error) => return manifest.invalid(format!("the manifest is not YAML: {error}")),
    };
    // What a patch is for may be said by the flags.
    if action == "patch" && target {
        return Ok(());
    }
    for name in ["apiVersion", "kind"] {
        if object
            .get(name)
            .and_then(serde_json::Value::as_str)
            .is_none()
        {
            return manifest.invalid(format!("the manifest has no {name}"));
        }
    }
    let named = |name: &str| {
        let name = object.pointer(name).and_then(serde_json::Value::as_str);
        name.is_some_and(|name| !name.is_empty())
    };
    let drawn = action == "create" && named("/metadata/generateName");
    if !named("/metadata/name") && !drawn {
        return manifest.invalid("the manifest has no metadata.name");
    }
    Ok(())
}

/// A `jsonPath` of an output.
pub(super) fn check_path(field: &Field<'_>) -> Result<()> {
    let text = field.str()?;
    // A path has braces of its own; a reference has two of them and a dot inside.
    if ["{{inputs.", "{{workflow.", "{{pod."]
        .iter()
        .any(|tag| text.contains(tag))
    {
        return Ok(());
    }
    match json_path::Template::parse(text) {
        Ok(_) => Ok(()),
        Err(problem) => field.invalid(problem),
    }
}
