//! The pipeline itself: what the documents say about all of it, and which components it reaches.

use std::collections::{BTreeMap, BTreeSet};

use engine::{Plan, RunParameter, Shape, Template};
use serde_json::Value;

use super::component::{Component, Input};
use super::dag;
use crate::field::{Field, Invalid};

type Result<T> = core::result::Result<T, Invalid>;

const SCHEMA: &str = "2.1.0";
const MAX_NAME: usize = 128;
const ROOT: &str = "root";

/// Everything that names can refer to.
pub(super) struct Pipeline<'a> {
    pub(super) components: BTreeMap<&'a str, Component<'a>>,
    pub(super) executors: BTreeMap<&'a str, Field<'a>>,
    /// What the platform spec says about executors.
    pub(super) platform: BTreeMap<&'a str, Field<'a>>,
}

/// Compiles a pipeline spec, and the platform spec that came with it.
pub(crate) fn compile(pipeline: &Value, platform: Option<&Value>) -> Result<Plan> {
    let spec = Field::root(pipeline);
    spec.only(
        &[
            "components",
            "defaultPipelineRoot",
            "deploymentSpec",
            "pipelineInfo",
            "root",
            "schemaVersion",
            "sdkVersion",
        ],
        &[],
    )?;
    check_identity(&spec)?;
    let root = spec.need("root")?;
    let kubernetes = match platform {
        Some(platform) => kubernetes(&Field::root(platform))?,
        None => None,
    };
    let config = kubernetes.as_ref().map(|k| k.get("pipelineConfig"));
    let config = config.transpose()?.flatten();
    let known = Pipeline {
        components: components(&spec)?,
        executors: executors(&spec)?,
        platform: match &kubernetes {
            Some(kubernetes) => executors(kubernetes)?,
            None => BTreeMap::new(),
        },
    };
    let root = Component::read(&root)?;
    if root.executor.is_some() {
        return root
            .field
            .invalid("the root must have a dag, not an executorLabel");
    }
    let templates = templates(&known, &root)?;
    let deadline_seconds = match &config {
        Some(config) => match config.get("activeDeadlineSeconds")? {
            Some(field) => Some(field.whole_number()?),
            None => None,
        },
        None => None,
    };
    let plan = Plan {
        entrypoint: ROOT.to_owned(),
        on_exit: None,
        templates,
        parameters: run_parameters(&root),
        parallelism: None,
        deadline_seconds,
        settings: settings(&spec, config.as_ref())?,
        typed: true,
    };
    plan.check().map_err(Invalid::Plan)?;
    Ok(plan)
}

/// The parameters of a run: the inputs of the root.
fn run_parameters(root: &Component<'_>) -> Vec<RunParameter> {
    let parameter = |(name, input): (&&str, &Input)| RunParameter {
        name: (*name).to_owned(),
        default: input.default.clone(),
        kind: Some(input.kind),
        optional: input.optional,
        literals: input.literals.clone(),
        description: input.description.clone(),
    };
    root.parameters.iter().map(parameter).collect()
}

fn check_identity(spec: &Field<'_>) -> Result<()> {
    let info = spec.need("pipelineInfo")?;
    info.only(&["description", "displayName", "name"], &[])?;
    let name = info.need("name")?;
    let text = name.str()?;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.starts_with('-') || !text.chars().all(fits) {
        return name.invalid(format!(
            "pipeline name {text:?} must start with a lowercase letter or a digit and consist of \
             lowercase letters, digits and '-'"
        ));
    }
    if text.len() > MAX_NAME {
        return name.invalid(format!(
            "the pipeline name has {} characters; at most {MAX_NAME} are allowed",
            text.len()
        ));
    }
    let version = spec.need("schemaVersion")?;
    match version.str()? {
        SCHEMA => Ok(()),
        other => version.invalid(format!(
            "schemaVersion {other:?} is not supported; allowed is {SCHEMA:?}"
        )),
    }
}

fn components<'a>(spec: &Field<'a>) -> Result<BTreeMap<&'a str, Component<'a>>> {
    let Some(field) = spec.get("components")? else {
        return Ok(BTreeMap::new());
    };
    let read = |(name, field): (&'a str, Field<'a>)| Ok((name, Component::read(&field)?));
    field.entries()?.into_iter().map(read).collect()
}

fn executors<'a>(document: &Field<'a>) -> Result<BTreeMap<&'a str, Field<'a>>> {
    let Some(deployment) = document.get("deploymentSpec")? else {
        return Ok(BTreeMap::new());
    };
    deployment.only(&["executors"], &[])?;
    match deployment.get("executors")? {
        Some(executors) => Ok(executors.entries()?.into_iter().collect()),
        None => Ok(BTreeMap::new()),
    }
}

fn kubernetes<'a>(platform: &Field<'a>) -> Result<Option<Field<'a>>> {
    platform.only(&["platforms"], &[])?;
    let platforms = platform.need("platforms")?;
    platforms.only(&["kubernetes"], &[])?;
    let Some(kubernetes) = platforms.get("kubernetes")? else {
        return Ok(None);
    };
    kubernetes.only(
        &[
            "config",
            "deploymentSpec",
            "pipelineConfig",
            "platform",
            "version",
        ],
        &[],
    )?;
    Ok(Some(kubernetes))
}

fn settings(spec: &Field<'_>, config: Option<&Field<'_>>) -> Result<Shape> {
    let mut settings = BTreeMap::new();
    let mut add = |name: &str, value: &Value| {
        settings.insert(name.to_owned(), Shape::Plain(value.clone()));
    };
    add(
        "pipelineName",
        spec.need("pipelineInfo")?.need("name")?.value,
    );
    if let Some(root) = spec.get("defaultPipelineRoot")? {
        root.str()?;
        add("defaultPipelineRoot", root.value);
    }
    if let Some(config) = config {
        add("pipelineConfig", config.value);
    }
    Ok(Shape::Map(settings))
}

/// The templates of everything that the root reaches.
fn templates(known: &Pipeline<'_>, root: &Component<'_>) -> Result<BTreeMap<String, Template>> {
    let mut templates = BTreeMap::new();
    let mut calls: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    if let Some(component) = known.components.get(ROOT) {
        return component
            .field
            .invalid("no component can be called root: the pipeline itself is");
    }
    let mut todo = vec![(ROOT, root)];
    while let Some((name, component)) = todo.pop() {
        if templates.contains_key(name) {
            continue;
        }
        let called = dag::compile(known, name, component, &mut templates)?;
        for &name in &called {
            todo.push((name, &known.components[name]));
        }
        calls.insert(name, called);
    }
    refuse_circles(known, &calls)?;
    Ok(templates)
}

/// A component that calls itself, at whatever distance, would never end: there is no value that
/// could differ from call to call.
fn refuse_circles(known: &Pipeline<'_>, calls: &BTreeMap<&str, BTreeSet<&str>>) -> Result<()> {
    let mut left: BTreeMap<&str, BTreeSet<&str>> = calls.clone();
    loop {
        let done: Vec<&str> = left
            .iter()
            .filter(|(_, called)| called.iter().all(|name| !left.contains_key(name)))
            .map(|(name, _)| *name)
            .collect();
        if done.is_empty() {
            break;
        }
        left.retain(|name, _| !done.contains(name));
    }
    let mut names = left
        .keys()
        .filter(|name| known.components.contains_key(*name));
    match names.next() {
        None => Ok(()),
        Some(name) => {
            let all: Vec<&str> = left.keys().copied().collect();
            known.components[name].field.invalid(format!(
                "these components call each other in a circle: {}",
                all.join(", ")
            ))
        }
    }
}
