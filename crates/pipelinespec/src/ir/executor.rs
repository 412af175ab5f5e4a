//! What a task that runs an executor does: a container, an import, or a claim made or deleted.

use std::collections::BTreeMap;

use engine::{
    Body, Expression, InputParameter, OutputArtifact, OutputParameter, OutputSource, Piece, Ref,
    RetryOn, RetryPolicy, Shape, Template, Text, Work, WorkKind, parse_duration,
};
use serde_json::{Value, json};

use super::call::Call;
use super::component::{Component, flag};
use super::pipeline::Pipeline;
use super::text::{self, Macros};
use crate::field::{Field, Invalid};

type Result<T> = core::result::Result<T, Invalid>;

/// Where the program of a task writes its output parameters.
const OUTPUTS: &str = "/tmp/kfp/outputs";
/// Images of containers that no container is run for.
const CREATE_CLAIM: &str = "argostub/createpvc";
const DELETE_CLAIM: &str = "argostub/deletepvc";
/// The longest pause between attempts, unless the task says otherwise.
const LONGEST_PAUSE: &str = "3600s";

/// A task that runs an executor.
pub(super) struct Task<'a, 'p> {
    pub(super) name: &'a str,
    pub(super) shown: &'a str,
    pub(super) reference: &'a str,
    pub(super) component: &'p Component<'a>,
    pub(super) field: &'p Field<'a>,
    pub(super) call: &'p Call,
    /// What the platform spec says about its executor.
    pub(super) config: Option<&'p Field<'a>>,
}

/// Compiles the template of a task; it still needs a name.
pub(super) fn compile(known: &Pipeline<'_>, task: &Task<'_, '_>) -> Result<Template> {
    let component = task.component;
    let label = component.field.need("executorLabel")?;
    let Some(executor) = known.executors.get(label.str()?) else {
        return label.invalid(format!("there is no executor {:?}", label.str()?));
    };
    executor.only(
        &["container", "importer"],
        &[
            ("customJob", "custom jobs need Vertex AI; use a container"),
            ("resolver", "name the artifact with an importer"),
        ],
    )?;
    let mut parameters = component.input_parameters();
    // Placeholders may name what a task passes although its component does not declare it.
    for argument in &task.call.arguments {
        if !component.parameters.contains_key(argument.name.as_str()) {
            parameters.push(InputParameter {
                name: argument.name.clone(),
                default: None,
                kind: None,
                optional: true,
            });
        }
    }
    let (body, output_parameters) = match (executor.get("container")?, executor.get("importer")?) {
        (Some(container), None) => match container.need("image")?.str()? {
            CREATE_CLAIM => (create_claim(component)?, made_name(component)),
            DELETE_CLAIM => (delete_claim(component)?, Vec::new()),
            _ => (self::container(task, &container)?, file_outputs(component)),
        },
        (None, Some(importer)) => (import(task, &importer)?, Vec::new()),
        _ => return executor.invalid("an executor needs one of container, importer"),
    };
    let timeout_seconds = match task.config {
        Some(config) => match config.get("activeDeadlineSeconds")? {
            Some(field) => Some(Text::literal(&field.whole_number()?.to_string())),
            None => None,
        },
        None => None,
    };
    Ok(Template {
        name: String::new(),
        parameters,
        artifacts: component.input_artifacts(),
        output_parameters,
        output_artifacts: component
            .output_artifacts
            .iter()
            .map(|(name, definition)| OutputArtifact {
                name: (*name).to_owned(),
                source: Text::default(),
                optional: true,
                settings: definition.value.clone(),
            })
            .collect(),
        body,
        retry: retry(task.field)?,
        timeout_seconds,
        parallelism: None,
    })
}

fn file_outputs(component: &Component<'_>) -> Vec<OutputParameter> {
    component
        .output_parameters
        .keys()
        .map(|name| OutputParameter {
            name: (*name).to_owned(),
            source: OutputSource::File(Text::literal(&format!("{OUTPUTS}/{name}"))),
            default: None,
        })
        .collect()
}

fn container(task: &Task<'_, '_>, container: &Field<'_>) -> Result<Body> {
    container.only(
        &["args", "command", "env", "image", "lifecycle", "resources"],
        &[],
    )?;
    for name in ["command", "args"] {
        for part in container.list(name)? {
            if !matches!(part.value, Value::String(_) | Value::Object(_)) {
                return part.invalid("expected a string or a placeholder object");
            }
        }
    }
    for variable in container.list("env")? {
        variable.only(&["name", "value"], &[])?;
        variable.need("name")?.str()?;
    }
    let component = task.component;
    let definitions = |name: &str, below: &str| -> Result<Value> {
        let field = component.field.get(name)?;
        let below = field.map(|f| f.get(below)).transpose()?.flatten();
        Ok(below.map_or_else(|| json!({}), |field| field.value.clone()))
    };
    let parameters: serde_json::Map<String, Value> = component
        .parameters
        .iter()
        .map(|(name, input)| {
            let about = json!({
                "parameterType": input.kind.as_str(),
                "isOptional": input.optional || input.default.is_some(),
            });
            ((*name).to_owned(), about)
        })
        .collect();
    let inputs = json!({
        "parameters": parameters,
        "artifacts": definitions("inputDefinitions", "artifacts")?,
    });
    let outputs = json!({
        "parameters": definitions("outputDefinitions", "parameters")?,
        "artifacts": definitions("outputDefinitions", "artifacts")?,
    });
    let passthroughs = component.field.get("taskConfigPassthroughs")?;
    let passthroughs = passthroughs.map_or_else(|| json!([]), |field| field.value.clone());
    let kubernetes = match task.config {
        Some(_) => Shape::reference(Ref::Settings),
        None => Shape::Plain(Value::Null),
    };
    let plain = |value: Value| Shape::Plain(value);
    let v2 = BTreeMap::from([
        ("component".to_owned(), plain(json!(task.reference))),
        ("task".to_owned(), plain(json!(task.name))),
        ("displayName".to_owned(), plain(json!(task.shown))),
        ("inputs".to_owned(), plain(inputs)),
        ("outputs".to_owned(), plain(outputs)),
        ("container".to_owned(), program(task, container)),
        ("kubernetes".to_owned(), kubernetes),
        ("taskConfigPassthroughs".to_owned(), plain(passthroughs)),
        ("cache".to_owned(), plain(caching(task.field)?)),
    ]);
    Ok(Body::Work(Work {
        kind: WorkKind::Container,
        spec: Shape::Map(BTreeMap::from([("v2".to_owned(), Shape::Map(v2))])),
    }))
}

/// The container as it is written, but for placeholders about the run and the task. Those about
/// inputs and outputs stay: they are known only where the program runs.
fn program(task: &Task<'_, '_>, container: &Field<'_>) -> Shape {
    text::constant(container.value, &Macros::of_container(task.shown))
}

fn caching(field: &Field<'_>) -> Result<Value> {
    let Some(options) = field.get("cachingOptions")? else {
        return Ok(json!({"enable": false}));
    };
    options.only(&["cacheKey", "enableCache"], &[])?;
    let mut caching = json!({"enable": flag(&options, "enableCache")?});
    if let Some(key) = options.get("cacheKey")? {
        let key = key.str()?;
        if !key.is_empty() {
            caching["key"] = json!(key);
        }
    }
    Ok(caching)
}

fn retry(field: &Field<'_>) -> Result<Option<RetryPolicy>> {
    let Some(policy) = field.get("retryPolicy")? else {
        return Ok(None);
    };
    policy.only(
        &[
            "backoffDuration",
            "backoffFactor",
            "backoffMaxDuration",
            "maxRetryCount",
        ],
        &[],
    )?;
    let duration = |name: &str| match policy.get(name)? {
        None => Ok(None),
        Some(field) => match parse_duration(field.str()?) {
            Some(duration) => Ok(Some(duration)),
            None => field.invalid(format!("{:?} is no duration such as 30s", field.str()?)),
        },
    };
    let limit = match policy.get("maxRetryCount")? {
        Some(field) => field.small_number()?,
        None => 0,
    };
    let factor = match policy.get("backoffFactor")? {
        None => 2.0,
        Some(field) => match field.value.as_f64() {
            Some(factor) if factor > 0.0 => factor,
            Some(factor) if factor >= 0.0 => 2.0,
            _ => return field.invalid("expected a number that is not negative"),
        },
    };
    Ok(Some(RetryPolicy {
        limit: Some(Text::literal(&limit.to_string())),
        on: RetryOn::Failure,
        delay: duration("backoffDuration")?,
        factor,
        longest_delay: duration("backoffMaxDuration")?.or_else(|| parse_duration(LONGEST_PAUSE)),
        give_up_after: None,
    }))
}

fn import(task: &Task<'_, '_>, importer: &Field<'_>) -> Result<Body> {
    importer.only(
        &[
            "artifactUri",
            "downloadToWorkspace",
            "metadata",
            "reimport",
            "typeSchema",
        ],
        &[
            ("properties", "use metadata"),
            ("customProperties", "use metadata"),
        ],
    )?;
    let macros = Macros::of_executor(task.shown);
    let uri = importer.need("artifactUri")?;
    uri.only(&["constant", "constantValue", "runtimeParameter"], &[])?;
    let artifact_uri = if let Some(name) = uri.get("runtimeParameter")? {
        let known = task.component.parameters.contains_key(name.str()?);
        if !known {
            return name.invalid("the component has no such input parameter");
        }
        Shape::reference(Ref::Input(name.str()?.to_owned()))
    } else {
        let constant = match uri.get("constantValue")? {
            Some(old) => old.need("stringValue")?,
            None => uri.need("constant")?,
        };
        Shape::Text(text::parse(constant.str()?, &macros))
    };
    let metadata = importer.get("metadata")?;
    let metadata = metadata.map_or_else(
        || Shape::Plain(json!({})),
        |field| text::constant(field.value, &macros),
    );
    let plain = |value: Value| Shape::Plain(value);
    let schema = importer.need("typeSchema")?.value.clone();
    let spec = BTreeMap::from([
        ("component".to_owned(), plain(json!(task.reference))),
        ("task".to_owned(), plain(json!(task.name))),
        ("artifactUri".to_owned(), artifact_uri),
        ("typeSchema".to_owned(), plain(schema)),
        ("metadata".to_owned(), metadata),
        (
            "reimport".to_owned(),
            plain(json!(flag(importer, "reimport")?)),
        ),
        (
            "downloadToWorkspace".to_owned(),
            plain(json!(flag(importer, "downloadToWorkspace")?)),
        ),
    ]);
    Ok(Body::Work(Work {
        kind: WorkKind::Import,
        spec: Shape::Map(spec),
    }))
}

fn input(name: &str) -> Expression {
    Expression::Ref(Ref::Input(name.to_owned()))
}

fn needs_input(component: &Component<'_>, name: &str) -> Result<()> {
    if component.parameters.contains_key(name) {
        Ok(())
    } else {
        component
            .field
            .invalid(format!("the input parameter {name:?} is missing"))
    }
}

/// An object of the cluster, and what is done with it.
fn claim(action: &str, metadata: BTreeMap<String, Shape>, spec: Option<Shape>) -> Body {
    let plain = |value: Value| Shape::Plain(value);
    let mut manifest = BTreeMap::from([
        ("apiVersion".to_owned(), plain(json!("v1"))),
        ("kind".to_owned(), plain(json!("PersistentVolumeClaim"))),
        ("metadata".to_owned(), Shape::Map(metadata)),
    ]);
    manifest.extend(spec.map(|spec| ("spec".to_owned(), spec)));
    let resource = BTreeMap::from([
        ("action".to_owned(), plain(json!(action))),
        ("manifest".to_owned(), Shape::Map(manifest)),
        // Deleting what is not there is a failure, and what is still in use may go later.
        ("mustExist".to_owned(), plain(json!(true))),
        ("flags".to_owned(), plain(json!(["--wait=false"]))),
    ]);
    Body::Work(Work {
        kind: WorkKind::Resource,
        spec: Shape::Map(BTreeMap::from([(
            "resource".to_owned(),
            Shape::Map(resource),
        )])),
    })
}

fn create_claim(component: &Component<'_>) -> Result<Body> {
    needs_input(component, "access_modes")?;
    needs_input(component, "size")?;
    let value = |expression: Expression| Shape::Value(Box::new(expression));
    let optional = |name: &str| {
        if component.parameters.contains_key(name) {
            value(input(name))
        } else {
            value(Expression::First(Vec::new()))
        }
    };
    let reference = |to: Ref| Piece::Ref {
        to,
        source: String::new(),
    };
    let mut generated = vec![reference(Ref::TaskUid)];
    let mut names = Vec::new();
    if component.parameters.contains_key("pvc_name") {
        names.push(input("pvc_name"));
    }
    if component.parameters.contains_key("pvc_name_suffix") {
        generated.push(reference(Ref::Input("pvc_name_suffix".to_owned())));
    }
    names.push(Expression::Format(Text(generated)));
    let metadata = BTreeMap::from([
        ("name".to_owned(), value(Expression::First(names))),
        ("annotations".to_owned(), optional("annotations")),
    ]);
    let mut class = Vec::new();
    if component.parameters.contains_key("storage_class_name") {
        class.push(input("storage_class_name"));
    }
    class.push(Expression::Constant(json!("standard")));
    let requests = BTreeMap::from([("storage".to_owned(), value(input("size")))]);
    let resources = BTreeMap::from([("requests".to_owned(), Shape::Map(requests))]);
    let spec = BTreeMap::from([
        ("accessModes".to_owned(), value(input("access_modes"))),
        ("resources".to_owned(), Shape::Map(resources)),
        (
            "storageClassName".to_owned(),
            value(Expression::First(class)),
        ),
        ("volumeName".to_owned(), optional("volume_name")),
        ("dataSource".to_owned(), optional("data_source")),
    ]);
    Ok(claim("create", metadata, Some(Shape::Map(spec))))
}

fn made_name(component: &Component<'_>) -> Vec<OutputParameter> {
    let outputs = component.output_parameters.keys();
    outputs
        .filter(|name| **name == "name")
        .map(|name| OutputParameter {
            name: (*name).to_owned(),
            source: OutputSource::JsonPath(Text::literal("{.metadata.name}")),
            default: None,
        })
        .collect()
}

fn delete_claim(component: &Component<'_>) -> Result<Body> {
    needs_input(component, "pvc_name")?;
    let name = Shape::Value(Box::new(input("pvc_name")));
    let metadata = BTreeMap::from([("name".to_owned(), name)]);
    Ok(claim("delete", metadata, None))
}
