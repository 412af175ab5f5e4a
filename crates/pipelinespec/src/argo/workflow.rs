//! The Workflow itself: its specification, arguments and the pieces that apply to every Pod.

use std::collections::BTreeMap;

use engine::{Plan, RunParameter, Shape};
use serde_json::Value;

use super::{container, template, text};
use crate::field::{Field, Invalid};

type Result<T> = core::result::Result<T, Invalid>;

/// Fields of the specification that the runner applies to every Pod or object it makes.
const SETTINGS: [&str; 18] = [
    "affinity",
    "automountServiceAccountToken",
    "dnsConfig",
    "dnsPolicy",
    "hostAliases",
    "hostNetwork",
    "imagePullSecrets",
    "nodeSelector",
    "podGC",
    "podMetadata",
    "podPriority",
    "podPriorityClassName",
    "podSpecPatch",
    "schedulerName",
    "securityContext",
    "serviceAccountName",
    "tolerations",
    "volumes",
];

/// Fields that are understood elsewhere, or steer parts of Argo that this server does not have and
/// that change no result. (Nothing evicts a run's Pods, so there is no disruption to budget.)
const HARMLESS: [&str; 13] = [
    "archiveLogs",
    "arguments",
    "artifactGC",
    "artifactRepositoryRef",
    "executor",
    "metrics",
    "podDisruptionBudget",
    "priority",
    "shutdown",
    "templates",
    "ttlSecondsAfterFinished",
    "ttlStrategy",
    "volumeClaimGC",
];

const UNSUPPORTED: [(&str, &str); 8] = [
    ("hooks", "kfp compiles exit handlers to onExit"),
    ("retryStrategy", "set it on the templates"),
    ("suspend", "runs cannot be created suspended"),
    ("synchronization", "there are no workflow locks"),
    ("templateDefaults", "set the fields on the templates"),
    (
        "volumeClaimTemplates",
        "use a VolumeOp or an existing claim",
    ),
    ("workflowMetadata", "set metadata on the workflow"),
    (
        "workflowTemplateRef",
        "there are no WorkflowTemplates; inline the templates",
    ),
];

/// Compiles a Workflow.
pub(crate) fn compile(workflow: &Value) -> Result<Plan> {
    let spec = Field::root(workflow).need("spec")?;
    let mut known = vec![
        "activeDeadlineSeconds",
        "entrypoint",
        "onExit",
        "parallelism",
    ];
    known.extend(HARMLESS);
    known.extend(SETTINGS);
    known.sort_unstable();
    spec.only(&known, &UNSUPPORTED)?;
    container::check_pod(&spec)?;

    let mut templates = BTreeMap::new();
    for field in spec.need("templates")?.items()? {
        let template = template::compile(&field)?;
        if templates.contains_key(&template.name) {
            return field.invalid(format!(
                "there are two templates called {:?}",
                template.name
            ));
        }
        templates.insert(template.name.clone(), template);
    }
    let number = |name: &str| {
        spec.get(name)?
            .map(|field| field.whole_number())
            .transpose()
    };
    let plan = Plan {
        entrypoint: spec.need("entrypoint")?.str()?.to_owned(),
        on_exit: spec
            .get("onExit")?
            .map(|f| f.str().map(str::to_owned))
            .transpose()?,
        templates,
        parameters: parameters(&spec)?,
        parallelism: spec
            .get("parallelism")?
            .map(|f| f.small_number())
            .transpose()?,
        deadline_seconds: number("activeDeadlineSeconds")?,
        settings: settings(&spec)?,
        typed: false,
    };
    plan.check().map_err(Invalid::Plan)?;
    Ok(plan)
}

fn settings(spec: &Field<'_>) -> Result<Shape> {
    let mut settings = BTreeMap::new();
    for name in SETTINGS {
        if let Some(field) = spec.get(name)? {
            settings.insert(name.to_owned(), text::shape(&field, &text::Paths::new())?);
        }
    }
    if let Some(ttl) = ttl(spec)? {
        settings.insert("ttlStrategy".to_owned(), Shape::Plain(ttl));
    }
    Ok(Shape::Map(settings))
}

/// How long a finished run is kept; Argo had another field for it before kfp 1.0.
fn ttl(spec: &Field<'_>) -> Result<Option<Value>> {
    let fields = [
        "secondsAfterCompletion",
        "secondsAfterFailure",
        "secondsAfterSuccess",
    ];
    let mut seconds = serde_json::Map::new();
    if let Some(old) = spec.get("ttlSecondsAfterFinished")? {
        seconds.insert(fields[0].to_owned(), old.whole_number()?.into());
    }
    if let Some(strategy) = spec.get("ttlStrategy")? {
        strategy.only(&fields, &[])?;
        for (name, field) in strategy.entries()? {
            if !field.value.is_null() {
                seconds.insert(name.to_owned(), field.whole_number()?.into());
            }
        }
    }
    Ok((!seconds.is_empty()).then_some(Value::Object(seconds)))
}

fn parameters(spec: &Field<'_>) -> Result<Vec<RunParameter>> {
    let Some(arguments) = spec.get("arguments")? else {
        return Ok(Vec::new());
    };
    arguments.only(&["artifacts", "parameters"], &[])?;
    if let Some(artifact) = arguments.list("artifacts")?.first() {
        return artifact.invalid("artifacts as arguments of a workflow are not supported");
    }
    let mut parameters: Vec<RunParameter> = Vec::new();
    for field in arguments.list("parameters")? {
        field.only(
            &["default", "description", "enum", "name", "value"],
            &[
                ("valueFrom", "give a value"),
                ("globalName", "it has no use here"),
            ],
        )?;
        let name = field.need("name")?.str()?.to_owned();
        if parameters.iter().any(|p| p.name == name) {
            return field.invalid(format!("there are two parameters called {name:?}"));
        }
        let default = match field.get("value")? {
            Some(value) => Some(value),
            None => field.get("default")?,
        };
        let default = default.map(|f| f.scalar().map(Value::String)).transpose()?;
        parameters.push(RunParameter {
            name,
            default,
            ..RunParameter::default()
        });
    }
    Ok(parameters)
}
