//! DAG templates: tasks, what they wait for, and what they pass.

use engine::{Argument, ArtifactArgument, Dag, Each, Shape, TaskSpec, Trigger};

use super::text::{self, Paths};
use super::when;
use crate::field::{Field, Invalid};

type Result<T> = core::result::Result<T, Invalid>;

pub(super) fn compile(field: &Field<'_>) -> Result<Dag> {
    field.only(&["failFast", "tasks"], &[("target", "every task runs")])?;
    let tasks = field
        .list("tasks")?
        .iter()
        .map(task)
        .collect::<Result<_>>()?;
    let fail_fast = field.get("failFast")?.map_or(Ok(true), |f| f.bool())?;
    Ok(Dag { tasks, fail_fast })
}

pub(super) fn task(field: &Field<'_>) -> Result<TaskSpec> {
    field.only(
        &[
            "arguments",
            "dependencies",
            "name",
            "template",
            "when",
            "withItems",
            "withParam",
        ],
        &[
            ("continueOn", "a task that fails fails its pipeline"),
            ("depends", "use dependencies"),
            (
                "hooks",
                "kfp compiles exit handlers to onExit of the workflow",
            ),
            ("inline", "name a template"),
            ("onExit", "only the workflow has an exit handler"),
            ("templateRef", "there are no WorkflowTemplates"),
            ("withSequence", "use withItems or withParam"),
        ],
    )?;
    let mut dependencies: Vec<String> = Vec::new();
    for dependency in field.list("dependencies")? {
        let name = dependency.str()?;
        if !dependencies.iter().any(|known| known == name) {
            dependencies.push(name.to_owned());
        }
    }
    let condition = match field.get("when")? {
        None => None,
        Some(when) if when.scalar()?.trim().is_empty() => None,
        Some(when) => match when::parse(&when.scalar()?) {
            Ok(condition) => Some(condition),
            Err(reason) => return when.invalid(reason),
        },
    };
    let each = match (field.get("withItems")?, field.get("withParam")?) {
        (None, None) => None,
        (Some(items), None) => {
            let items = items.items()?;
            Some(Each::Items(
                items
                    .iter()
                    .map(|item| text::shape(item, &Paths::new()))
                    .collect::<Result<_>>()?,
            ))
        }
        (None, Some(param)) => Some(Each::From(Shape::Text(text::reference(
            &param,
            &Paths::new(),
        )?))),
        (Some(_), Some(param)) => {
            return param.invalid("a task has withItems or withParam, not both");
        }
    };
    let (arguments, artifacts) = arguments(field)?;
    Ok(TaskSpec {
        name: field.need("name")?.str()?.to_owned(),
        template: field.need("template")?.str()?.to_owned(),
        dependencies,
        trigger: Trigger::SucceededOrSkipped,
        condition,
        each,
        arguments,
        artifacts,
        parallelism: None,
        settings: None,
        display_name: None,
    })
}

fn arguments(field: &Field<'_>) -> Result<(Vec<Argument>, Vec<ArtifactArgument>)> {
    let Some(field) = field.get("arguments")? else {
        return Ok((Vec::new(), Vec::new()));
    };
    field.only(&["artifacts", "parameters"], &[])?;
    let mut arguments = Vec::new();
    for field in field.list("parameters")? {
        field.only(&["name", "value"], &[("valueFrom", "use value")])?;
        let name = field.need("name")?.str()?.to_owned();
        arguments.push(Argument {
            name,
            value: Shape::Text(text::scalar(&field.need("value")?, &Paths::new())?),
        });
    }
    let mut artifacts = Vec::new();
    for field in field.list("artifacts")? {
        field.only(
            &["from", "name", "raw", "s3", "gcs", "http", "optional"],
            &[
                ("fromExpression", "use from"),
                ("subPath", "name the whole artifact"),
            ],
        )?;
        let name = field.need("name")?.str()?.to_owned();
        let value = if let Some(from) = field.get("from")? {
            Shape::Text(text::reference(&from, &Paths::new())?)
        } else {
            let mut source = std::collections::BTreeMap::new();
            for (key, value) in field.entries()? {
                if !matches!(key, "name" | "optional") {
                    source.insert(key.to_owned(), text::shape(&value, &Paths::new())?);
                }
            }
            Shape::Map(source)
        };
        artifacts.push(ArtifactArgument { name, value });
    }
    Ok((arguments, artifacts))
}
