//! Jobs: defaults, the generated selector, validation.

use serde_json::{Value, json};

use crate::apps;
use crate::core::pod;
use crate::ctx::Ctx;
use crate::field::{Error, ErrorList, Path};
use crate::selector::{LabelSelector, label};
use crate::tree::{self, set_default, set_default_text};
use crate::{content, meta};

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const OLD_CONTROLLER_UID: &str = "controller-uid";
const OLD_JOB_NAME: &str = "job-name";

pub(super) fn defaults(job: &mut Value) {
    let spec = tree::child(job, "spec");
    pod::defaults::template(tree::child(spec, "template"));
    let (completions, parallelism) = (
        tree::get(spec, "completions").is_some(),
        tree::get(spec, "parallelism").is_some(),
    );
    if !completions && !parallelism {
        spec["completions"] = json!(1);
    }
    set_default(spec, "parallelism", 1);
    let per_index = tree::get(spec, "backoffLimitPerIndex").is_some();
    set_default(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    set_default_text(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    set_default(spec, "manualSelector", false);
    let policy = if tree::get(spec, "podFailurePolicy").is_some() {
        "Failed"
    } else {
        "TerminatingOrFailed"
    };
    set_default_text(spec, "podReplacementPolicy", policy);
    labels_from_template(job);
}

/// A Job without labels shows those of its template.
fn labels_from_template(job: &mut Value) {
    let labels = tree::get(job, "spec.template.metadata.labels").cloned();
    if let Some(labels) = labels {
        set_default(tree::child(job, "metadata"), "labels", labels);
    }
}

/// Gives the Pods labels of this very Job and selects by them, unless the client selects itself.
pub(super) fn prepare_create(_: &Ctx, job: &mut Value) {
    if tree::truthy(job, "spec.manualSelector") {
        return;
    }
    let uid = tree::text(job, "metadata.uid").to_owned();
    let name = tree::text(job, "metadata.name").to_owned();
    let spec = tree::child(job, "spec");
    let labels = tree::child(
        tree::child(tree::child(spec, "template"), "metadata"),
        "labels",
    );
    for (key, value) in [
        (JOB_NAME, &name),
        (OLD_JOB_NAME, &name),
        (CONTROLLER_UID, &uid),
        (OLD_CONTROLLER_UID, &uid),
    ] {
        set_default(labels, key, value.as_str());
    }
    let selector = tree::child(tree::child(spec, "selector"), "matchLabels");
    set_default(selector, CONTROLLER_UID, uid);
    labels_from_template(job);
}

fn generated_selector(job: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    if tree::truthy(job, "spec.manualSelector") {
        return errors;
    }
    let uid = tree::text(job, "metadata.uid");
    let name = tree::text(job, "metadata.name");
    let labels = tree::map(job, "spec.template.metadata.labels");
    let at = Path::new("spec.template.metadata.labels");
    for (key, expected) in [
        (CONTROLLER_UID, uid),
        (OLD_CONTROLLER_UID, uid),
        (JOB_NAME, name),
        (OLD_JOB_NAME, name),
    ] {
        let value = labels
            .and_then(|labels| labels.get(key))
            .and_then(Value::as_str);
        if value.is_some_and(|value| value != expected) {
            let shown = tree::get(job, "spec.template.metadata.labels").cloned();
            let detail = format!("must be '{expected}'");
            errors.push(Error::invalid(
                &at.key(key),
                shown.unwrap_or(Value::Null),
                detail,
            ));
        }
    }
    let wanted = json!({ CONTROLLER_UID: uid });
    let selected = tree::get(job, "spec.selector.matchLabels");
    if selected != Some(&wanted) {
        let value = tree::get(job, "spec.selector")
            .cloned()
            .unwrap_or(Value::Null);
        let detail = "`selector` not auto-generated";
        errors.push(Error::invalid(&Path::new("spec.selector"), value, detail));
    }
    errors
}

pub(super) fn validate(job: &Value) -> ErrorList {
    let mut errors = generated_selector(job);
    let empty = json!({});
    let spec = tree::get(job, "spec").unwrap_or(&empty);
    let path = Path::new("spec");
    errors.extend(validate_spec(spec, &path));
    match tree::get(spec, "selector") {
        None => errors.push(Error::required(&path.child("selector"), "")),
        Some(selector) => {
            errors.extend(label::validate_object(selector, &path.child("selector")));
            if let Ok(selector) = LabelSelector::from_object(Some(selector)) {
                let template = tree::get(spec, "template").unwrap_or(&empty);
                errors.extend(apps::selected(&selector, template, &path.child("template")));
            }
        }
    }
    let indexed = tree::text(spec, "completionMode") == "Indexed";
    if indexed {
        let name = tree::text(job, "metadata.name");
        let completions = tree::int(spec, "completions").unwrap_or(1);
        let longest = format!("{name}-{}", (completions - 1).max(0));
        for message in content::dns1123_label(&longest) {
            let detail =
                format!("will not able to create pod with invalid DNS label: {longest}: {message}");
            errors.push(Error::invalid(&Path::new("metadata.name"), name, detail));
        }
    }
    errors
}

/// The errors of a Job's spec but for its selector: what a CronJob's template has too.
pub(super) fn validate_spec(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
    ] {
        errors.extend(meta::non_negative(spec, key, path));
    }
    let modes = ["NonIndexed", "Indexed"];
    errors.extend(pod::validate::one_of(spec, "completionMode", path, &modes));
    if tree::text(spec, "completionMode") == "Indexed" {
        if tree::int(spec, "completions").is_none() {
            let detail = "when completion mode is Indexed";
            errors.push(Error::required(&path.child("completions"), detail));
        }
        if let Some(parallelism) = tree::int(spec, "parallelism") {
            if parallelism > 100_000 {
                let detail = "must be less than or equal to 100000 when completion mode is Indexed";
                errors.push(Error::invalid(
                    &path.child("parallelism"),
                    parallelism,
                    detail,
                ));
            }
        }
    } else if tree::get(spec, "backoffLimitPerIndex").is_some() {
        let value = tree::int(spec, "backoffLimitPerIndex").unwrap_or(0);
        let detail = "requires indexed completion mode";
        errors.push(Error::invalid(
            &path.child("backoffLimitPerIndex"),
            value,
            detail,
        ));
    }
    let empty = json!({});
    let template = tree::get(spec, "template").unwrap_or(&empty);
    errors.extend(pod::validate::template(template, &path.child("template")));
    let policy = tree::text(template, "spec.restartPolicy");
    if !matches!(policy, "OnFailure" | "Never") {
        let at = path.child("template").child("spec").child("restartPolicy");
        errors.push(Error::required(
            &at,
            "valid values: \"OnFailure\", \"Never\"",
        ));
    }
    if tree::get(spec, "podFailurePolicy").is_some() && policy != "Never" {
        let at = path.child("template").child("spec").child("restartPolicy");
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.push(Error::invalid(&at, policy, detail));
    }
    errors
}

pub(super) fn validate_update(_: &Ctx, new: &Value, old: &Value) -> ErrorList {
    let mut errors = validate(new);
    let elastic = tree::text(new, "spec.completionMode") == "Indexed"
        && tree::int(new, "spec.completions") == tree::int(new, "spec.parallelism");
    if !elastic {
        errors.extend(meta::immutable(new, old, "spec.completions"));
    }
    for key in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
    ] {
        errors.extend(meta::immutable(new, old, &format!("spec.{key}")));
    }
    // A suspended Job that never started may still change where its Pods go.
    let waiting = tree::truthy(old, "spec.suspend") && tree::get(old, "status.startTime").is_none();
    let template = |object: &Value| {
        let mut template = tree::get(object, "spec.template")
            .cloned()
            .unwrap_or_else(|| json!({}));
        if waiting {
            for key in ["nodeSelector", "affinity", "tolerations", "schedulingGates"] {
                tree::remove(tree::child(&mut template, "spec"), key);
            }
            for key in ["annotations", "labels"] {
                tree::remove(tree::child(&mut template, "metadata"), key);
            }
        }
        template
    };
    let after = template(new);
    if !tree::alike(Some(&after), Some(&template(old))) {
        let at = Path::new("spec.template");
        errors.push(Error::invalid(&at, after, "field is immutable"));
    }
    errors
}
