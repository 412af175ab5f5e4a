//! Templates: what they take and produce, and what they do.

use std::time::Duration;

use engine::{
    Body, InputArtifact, InputParameter, OutputArtifact, OutputParameter, OutputSource, RetryOn,
    RetryPolicy, Shape, Template, Text, Work, WorkKind, parse_duration,
};
use serde_json::{Map, Value};

use super::text::{self, Paths};
use super::{container, dag, resource, script, steps};
use crate::field::{Field, Invalid};

type Result<T> = core::result::Result<T, Invalid>;

/// Fields of a template that become part of the work's opaque specification.
const WORK: [&str; 17] = [
    "affinity",
    "automountServiceAccountToken",
    "container",
    "hostAliases",
    "initContainers",
    "metadata",
    "nodeSelector",
    "podSpecPatch",
    "priority",
    "priorityClassName",
    "resource",
    "schedulerName",
    "securityContext",
    "serviceAccountName",
    "sidecars",
    "tolerations",
    "volumes",
];

const OTHER: [&str; 14] = [
    "activeDeadlineSeconds",
    "archiveLocation",
    "dag",
    "executor",
    "failFast",
    "inputs",
    "metrics",
    "name",
    "outputs",
    "parallelism",
    "retryStrategy",
    "script",
    "steps",
    "timeout",
];

/// What a template does: one of these.
const BODIES: [&str; 5] = ["container", "dag", "resource", "script", "steps"];

const OTHER_BODY: &str = "a template is one of container, dag, resource, script, steps";

const UNSUPPORTED: [(&str, &str); 9] = [
    ("containerSet", OTHER_BODY),
    (
        "daemon",
        "kfp compiles no daemons; use a sidecar or a Deployment",
    ),
    ("data", OTHER_BODY),
    ("http", OTHER_BODY),
    ("inline", "name a template"),
    ("memoize", "kfp caches by itself"),
    ("plugin", OTHER_BODY),
    (
        "suspend",
        "a run does not wait for people; let a step wait for what they do",
    ),
    ("synchronization", "there are no workflow locks"),
];

pub(super) fn compile(field: &Field<'_>) -> Result<Template> {
    let mut known = WORK.to_vec();
    known.extend(OTHER);
    known.sort_unstable();
    field.only(&known, &UNSUPPORTED)?;
    let name = field.need("name")?.str()?.to_owned();
    let mut paths = Paths::new();
    let mut artifacts = input_artifacts(field, &mut paths)?;
    let parameters = input_parameters(field)?;
    let is_dag = field.get("dag")?.is_some() || field.get("steps")?.is_some();
    let output_parameters = output_parameters(field, is_dag, &mut paths)?;
    let output_artifacts = output_artifacts(field, is_dag, &mut paths)?;
    let given: Vec<_> = BODIES
        .into_iter()
        .filter(|b| field.value.get(b).is_some_and(|v| !v.is_null()))
        .collect();
    let body = match given.as_slice() {
        ["dag"] => Body::Dag(dag::compile(&field.need("dag")?)?),
        ["steps"] => Body::Dag(steps::compile(&field.need("steps")?)?),
        ["container"] => {
            container::check(&field.need("container")?)?;
            work(field, WorkKind::Container, None, &paths)?
        }
        ["script"] => {
            let source = field.need("script")?;
            let (container, script) = script::compile(&source, &paths)?;
            artifacts.push(script);
            let container = source.with(&container);
            work(field, WorkKind::Container, Some(container), &paths)?
        }
        ["resource"] => {
            resource::check(&field.need("resource")?)?;
            work(field, WorkKind::Resource, None, &paths)?
        }
        [] => return field.invalid(format!("a template needs one of {}", BODIES.join(", "))),
        several => {
            return field.invalid(format!("a template has only one of {}", several.join(", ")));
        }
    };
    let timeout_seconds = match (field.get("activeDeadlineSeconds")?, field.get("timeout")?) {
        (Some(seconds), _) => Some(text::scalar(&seconds, &paths)?),
        (None, Some(timeout)) => {
            let duration = duration(&timeout)?;
            Some(Text::literal(&duration.as_secs().to_string()))
        }
        (None, None) => None,
    };
    let retry = field
        .get("retryStrategy")?
        .map(|f| retry(&f, &paths))
        .transpose()?;
    if is_dag && retry.is_some() {
        return field
            .need("retryStrategy")?
            .invalid("templates that only call others do not retry; set it on those");
    }
    let parallelism = field
        .get("parallelism")?
        .map(|f| f.small_number())
        .transpose()?;
    Ok(Template {
        name,
        parameters,
        artifacts,
        output_parameters,
        output_artifacts,
        body,
        retry,
        timeout_seconds,
        parallelism,
    })
}

/// Work, with its container if that is not the template's own.
fn work(
    field: &Field<'_>,
    kind: WorkKind,
    container: Option<Field<'_>>,
    paths: &Paths,
) -> Result<Body> {
    container::check_others(field)?;
    container::check_pod(field)?;
    let mut shapes = std::collections::BTreeMap::new();
    for name in WORK {
        if let Some(part) = field.get(name)? {
            shapes.insert(name.to_owned(), text::shape(&part, paths)?);
        }
    }
    if let Some(container) = container {
        shapes.insert("container".to_owned(), text::shape(&container, paths)?);
    }
    Ok(Body::Work(Work {
        kind,
        spec: Shape::Map(shapes),
    }))
}

fn input_parameters(field: &Field<'_>) -> Result<Vec<InputParameter>> {
    let Some(inputs) = field.get("inputs")? else {
        return Ok(Vec::new());
    };
    inputs.only(&["artifacts", "parameters"], &[])?;
    let mut parameters = Vec::new();
    for field in inputs.list("parameters")? {
        field.only(
            &["default", "description", "enum", "name", "value"],
            &[
                ("valueFrom", "pass the value as an argument"),
                ("globalName", "it has no use here"),
            ],
        )?;
        let default = match field.get("value")? {
            Some(value) => Some(value),
            None => field.get("default")?,
        };
        parameters.push(InputParameter {
            name: field.need("name")?.str()?.to_owned(),
            default: default
                .map(|f| text::scalar(&f, &Paths::new()).map(Shape::Text))
                .transpose()?,
            kind: None,
            optional: false,
        });
    }
    Ok(parameters)
}

/// Where an artifact may come from besides a task.
const SOURCES: [&str; 10] = [
    "artifactory",
    "azure",
    "gcs",
    "git",
    "hdfs",
    "http",
    "oss",
    "raw",
    "s3",
    "plugin",
];

fn input_artifacts(field: &Field<'_>, paths: &mut Paths) -> Result<Vec<InputArtifact>> {
    let Some(inputs) = field.get("inputs")? else {
        return Ok(Vec::new());
    };
    let mut artifacts = Vec::new();
    for field in inputs.list("artifacts")? {
        let mut known = vec![
            "archive",
            "from",
            "mode",
            "name",
            "optional",
            "path",
            "recurseMode",
        ];
        known.extend(SOURCES);
        field.only(
            &known,
            &[
                ("fromExpression", "use from"),
                ("subPath", "name the whole artifact"),
            ],
        )?;
        let name = field.need("name")?.str()?.to_owned();
        let path = field
            .get("path")?
            .map(|f| text::scalar(&f, &Paths::new()))
            .transpose()?;
        if let Some(path) = &path {
            paths.insert(format!("inputs.artifacts.{name}.path"), path.clone());
        }
        let mut default = None;
        for source in SOURCES {
            if let Some(source_field) = field.get(source)? {
                let shape = text::shape(&source_field, &Paths::new())?;
                default = Some(Shape::Map([(source.to_owned(), shape)].into()));
            }
        }
        if let Some(from) = field.get("from")? {
            default = Some(Shape::Text(text::reference(&from, &Paths::new())?));
        }
        let optional = field.get("optional")?.map_or(Ok(false), |f| f.bool())?;
        artifacts.push(InputArtifact {
            name,
            path,
            optional,
            default,
        });
    }
    Ok(artifacts)
}

fn output_parameters(
    field: &Field<'_>,
    is_dag: bool,
    paths: &mut Paths,
) -> Result<Vec<OutputParameter>> {
    let Some(outputs) = field.get("outputs")? else {
        return Ok(Vec::new());
    };
    outputs.only(
        &["artifacts", "parameters"],
        &[
            ("result", "write a parameter"),
            ("exitCode", "write a parameter"),
        ],
    )?;
    let mut parameters = Vec::new();
    for field in outputs.list("parameters")? {
        field.only(
            &[
                "default",
                "description",
                "enum",
                "name",
                "value",
                "valueFrom",
            ],
            &[("globalName", "pass the value to the tasks that need it")],
        )?;
        let name = field.need("name")?.str()?.to_owned();
        let mut default = field.get("default")?;
        let source = match (field.get("value")?, field.get("valueFrom")?) {
            (Some(value), None) => OutputSource::Text(text::scalar(&value, &Paths::new())?),
            (None, Some(from)) => {
                if let Some(given) = from.get("default")? {
                    default = Some(given);
                }
                value_from(&from, is_dag, &name, paths)?
            }
            _ => return field.invalid("an output parameter needs one of value, valueFrom"),
        };
        let default = default
            .map(|f| text::scalar(&f, &Paths::new()))
            .transpose()?;
        parameters.push(OutputParameter {
            name,
            source,
            default,
        });
    }
    Ok(parameters)
}

fn value_from(
    field: &Field<'_>,
    is_dag: bool,
    name: &str,
    paths: &mut Paths,
) -> Result<OutputSource> {
    field.only(
        &["default", "jsonPath", "parameter", "path"],
        &[
            ("configMapKeyRef", "read the ConfigMap in the step"),
            ("event", "there are no events"),
            ("expression", "use parameter"),
            ("jqFilter", "use jsonPath"),
            ("supplied", "there are no suspend templates"),
        ],
    )?;
    let parse = |f: Field<'_>| text::scalar(&f, &Paths::new());
    match (
        field.get("parameter")?,
        field.get("path")?,
        field.get("jsonPath")?,
    ) {
        (Some(parameter), None, None) => Ok(OutputSource::Text(parse(parameter)?)),
        (None, Some(path), None) if !is_dag => {
            let path = parse(path)?;
            paths.insert(format!("outputs.parameters.{name}.path"), path.clone());
            Ok(OutputSource::File(path))
        }
        (None, None, Some(path)) if !is_dag => {
            resource::check_path(&path)?;
            Ok(OutputSource::JsonPath(parse(path)?))
        }
        (None, Some(_), None) | (None, None, Some(_)) => {
            field.invalid("an output of a dag comes from a parameter of one of its tasks")
        }
        _ => field.invalid("expected exactly one of parameter, path, jsonPath"),
    }
}

fn output_artifacts(
    field: &Field<'_>,
    is_dag: bool,
    paths: &mut Paths,
) -> Result<Vec<OutputArtifact>> {
    let Some(outputs) = field.get("outputs")? else {
        return Ok(Vec::new());
    };
    let mut artifacts = Vec::new();
    for field in outputs.list("artifacts")? {
        let mut known = vec!["archive", "from", "mode", "name", "optional", "path"];
        known.extend(SOURCES);
        field.only(
            &known,
            &[
                ("fromExpression", "use from"),
                ("globalName", "pass it to the tasks"),
            ],
        )?;
        let name = field.need("name")?.str()?.to_owned();
        let source = field.need(if is_dag { "from" } else { "path" })?;
        let source = text::reference(&source, &Paths::new())?;
        if !is_dag {
            paths.insert(format!("outputs.artifacts.{name}.path"), source.clone());
        }
        let mut settings = Map::new();
        for (key, value) in field.entries()? {
            if key == "archive" || SOURCES.contains(&key) {
                settings.insert(key.to_owned(), value.value.clone());
            }
        }
        let optional = field.get("optional")?.map_or(Ok(false), |f| f.bool())?;
        artifacts.push(OutputArtifact {
            name,
            source,
            optional,
            settings: Value::Object(settings),
        });
    }
    Ok(artifacts)
}

fn duration(field: &Field<'_>) -> Result<Duration> {
    let source = field.scalar()?;
    match parse_duration(&source) {
        Some(duration) => Ok(duration),
        None => field.invalid(format!(
            "{source:?} is not a duration such as 90, 30s, 5m or 1h30m"
        )),
    }
}

fn retry(field: &Field<'_>, paths: &Paths) -> Result<RetryPolicy> {
    field.only(
        &["backoff", "limit", "retryPolicy"],
        &[
            ("affinity", "set the affinity on the template"),
            ("expression", "use retryPolicy"),
        ],
    )?;
    let on = match field.get("retryPolicy")? {
        None => RetryOn::default(),
        Some(policy) => match policy.str()? {
            "Always" => RetryOn::Always,
            "OnError" => RetryOn::Error,
            "OnFailure" => RetryOn::Failure,
            "OnTransientError" => RetryOn::TransientError,
            other => {
                return policy.invalid(format!(
                    "{other:?} is none of Always, OnError, OnFailure, OnTransientError"
                ));
            }
        },
    };
    let mut policy = RetryPolicy {
        limit: field
            .get("limit")?
            .map(|f| text::scalar(&f, paths))
            .transpose()?,
        on,
        delay: None,
        factor: 1.0,
        longest_delay: None,
        give_up_after: None,
    };
    if let Some(backoff) = field.get("backoff")? {
        backoff.only(
            &["duration", "factor", "maxDuration"],
            &[("cap", "use maxDuration")],
        )?;
        policy.delay = backoff.get("duration")?.map(|f| duration(&f)).transpose()?;
        policy.give_up_after = backoff
            .get("maxDuration")?
            .map(|f| duration(&f))
            .transpose()?;
        if let Some(factor) = backoff.get("factor")? {
            policy.factor = match factor.scalar()?.trim().parse::<f64>() {
                Ok(number) if number.is_finite() && number >= 0.0 => number,
                _ => return factor.invalid("expected a number that is not negative"),
            };
        }
    }
    Ok(policy)
}
