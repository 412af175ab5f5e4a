//! Steps templates: groups of tasks, one group after the other. They become a DAG in which every
//! task waits for the whole group before it.

use engine::{Dag, TaskSpec};

use super::dag;
use crate::field::{Field, Invalid};

type Result<T> = core::result::Result<T, Invalid>;

pub(super) fn compile(field: &Field<'_>) -> Result<Dag> {
    let mut tasks: Vec<TaskSpec> = Vec::new();
    let mut before: Vec<String> = Vec::new();
    for group in field.items()? {
        // kubectl users also write a group of one without its list.
        let members = match group.value {
            serde_json::Value::Object(_) => vec![group.clone()],
            _ => group.items()?,
        };
        let mut names = Vec::new();
        for member in members {
            if let Some(dependencies) = member.get("dependencies")? {
                return dependencies.invalid("a step waits for the steps above it");
            }
            let mut task = dag::task(&member)?;
            task.dependencies.clone_from(&before);
            names.push(task.name.clone());
            tasks.push(task);
        }
        // An empty group holds nothing up.
        if !names.is_empty() {
            before = names;
        }
    }
    Ok(Dag {
        tasks,
        fail_fast: true,
    })
}
