//! Jobs and CronJobs.

pub mod cron;
mod job;

use serde_json::{Value, json};

use crate::content;
use crate::core::pod;
use crate::field::{Error, ErrorList, Path};
use crate::kind::{Generation, Strategy};
use crate::selector::Fields;
use crate::tree::{self, set_default, set_default_text};
use crate::{meta, table};

pub(crate) const JOB: Strategy = Strategy {
    default: job::defaults,
    prepare_create: job::prepare_create,
    validate: |_, job| job::validate(job),
    validate_update: job::validate_update,
    row: Some(table::workload::job),
    fields: &Fields {
        unknown: |label| {
            format!(
                "field label {} not supported for Job",
                crate::field::quote(label)
            )
        },
        alias: &[("status.successful", "status.succeeded")],
        zero: &[("status.successful", "0")],
        ..Fields::with(&["metadata.name", "metadata.namespace", "status.successful"])
    },
    empty_status: "{}",
    generation: Generation::Spec,
    has_status: true,
    warnings: |object, old| crate::apps::template_warnings(object, old, "spec.template"),
    ..Strategy::GENERIC
};

pub(crate) const CRON_JOB: Strategy = Strategy {
    default: cron_job_defaults,
    validate: |_, object| validate_cron_job(object),
    validate_update: |_, new, _| validate_cron_job(new),
    name: cron_job_name,
    warnings: |object, old| {
        crate::apps::template_warnings(object, old, "spec.jobTemplate.spec.template")
    },
    row: Some(table::workload::cron_job),
    empty_status: "{}",
    generation: Generation::Spec,
    has_status: true,
    ..Strategy::GENERIC
};

fn cron_job_defaults(object: &mut Value) {
    let spec = tree::child(object, "spec");
    set_default_text(spec, "concurrencyPolicy", "Allow");
    set_default(spec, "suspend", false);
    set_default(spec, "successfulJobsHistoryLimit", 3);
    set_default(spec, "failedJobsHistoryLimit", 1);
    let template = tree::child(spec, "jobTemplate");
    tree::child(template, "metadata");
    pod::defaults::template(tree::child(tree::child(template, "spec"), "template"));
}

/// A Job's name is the CronJob's and eleven characters more.
fn cron_job_name(name: &str, prefix: bool) -> Vec<String> {
    let mut errors = content::name_is_dns_subdomain(name, prefix);
    if !prefix && name.len() > 52 {
        errors.push("must be no more than 52 characters".to_owned());
    }
    errors
}

fn validate_cron_job(object: &Value) -> ErrorList {
    let path = Path::new("spec");
    let spec = tree::get(object, "spec")
        .cloned()
        .unwrap_or_else(|| json!({}));
    let mut errors = ErrorList::new();
    let schedule = tree::text(&spec, "schedule");
    let at = path.child("schedule");
    if schedule.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(Error::invalid(&at, schedule, detail));
    } else if let Err(error) = schedule.parse::<cron::Schedule>() {
        errors.push(Error::invalid(&at, schedule, error.0));
    }
    if let Some(zone) = tree::get(&spec, "timeZone").and_then(Value::as_str) {
        let at = path.child("timeZone");
        if zone.is_empty() {
            errors.push(Error::invalid(
                &at,
                zone,
                "timeZone must be nil or non-empty string",
            ));
        } else if zone.eq_ignore_ascii_case("local") {
            let detail = "timeZone must be an explicit time zone as defined in \
                 https://www.iana.org/time-zones";
            errors.push(Error::invalid(&at, zone, detail));
        } else if jiff::tz::TimeZone::get(zone).is_err() {
            let detail = format!("unknown time zone {zone}");
            errors.push(Error::invalid(&at, zone, detail));
        }
    }
    errors.extend(meta::non_negative(&spec, "startingDeadlineSeconds", &path));
    let policies = ["Allow", "Forbid", "Replace"];
    errors.extend(pod::validate::one_of(
        &spec,
        "concurrencyPolicy",
        &path,
        &policies,
    ));
    let job_path = path.child("jobTemplate");
    let labels = tree::get(&spec, "jobTemplate.metadata.labels");
    errors.extend(meta::labels(
        labels,
        &job_path.child("metadata").child("labels"),
    ));
    if tree::get(&spec, "jobTemplate.spec.selector").is_some() {
        let at = job_path.child("spec").child("selector");
        let value = tree::get(&spec, "jobTemplate.spec.selector")
            .cloned()
            .unwrap_or(Value::Null);
        errors.push(Error::invalid(
            &at,
            value,
            "`selector` will be auto-generated",
        ));
    }
    let empty = json!({});
    let job = tree::get(&spec, "jobTemplate.spec").unwrap_or(&empty);
    errors.extend(job::validate_spec(job, &job_path.child("spec")));
    errors.extend(meta::non_negative(
        &spec,
        "successfulJobsHistoryLimit",
        &path,
    ));
    errors.extend(meta::non_negative(&spec, "failedJobsHistoryLimit", &path));
    errors
}
