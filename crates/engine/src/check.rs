//! What must hold for a plan to be executed, found before a run begins.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use crate::plan::{Body, Dag, Each, Plan, TaskSpec, Template};
use crate::text::{Part, Ref};

/// Why a plan cannot be executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Problem {
    /// The template, and the task in it, that has the problem.
    pub place: String,
    /// The problem.
    pub message: String,
}

fn problem(place: &str, message: String) -> Problem {
    Problem {
        place: place.to_string(),
        message,
    }
}

impl Plan {
    /// Whether every name in the plan means something. Templates that nothing calls are not looked
    /// at.
    pub fn check(&self) -> Result<(), Problem> {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut todo = Vec::new();
        for (what, name) in [
            ("entrypoint", Some(&self.entrypoint)),
            ("exit handler", self.on_exit.as_ref()),
        ] {
            let Some(name) = name else { continue };
            let template = self
                .templates
                .get(name)
                .ok_or_else(|| problem(what, format!("there is no template {name:?}")))?;
            let given = self.parameters.iter().map(|p| p.name.as_str());
            required(template, &given.collect(), &BTreeSet::new(), what)?;
            todo.push(template);
        }
        while let Some(template) = todo.pop() {
            if !seen.insert(&template.name) {
                continue;
            }
            match &template.body {
                Body::Work(_) => self.check_work(template)?,
                Body::Dag(dag) => {
                    self.check_dag(template, dag)?;
                    todo.extend(
                        dag.tasks
                            .iter()
                            .filter_map(|t| self.templates.get(&t.template)),
                    );
                }
            }
        }
        Ok(())
    }

    fn check_work(&self, template: &Template) -> Result<(), Problem> {
        let place = format!("template {:?}", template.name);
        let mut found = Ok(());
        each_part(template, &mut |part| {
            part.visit_refs(&mut |to| {
                let result = match to {
                    Ref::Output { .. }
                    | Ref::OutputArtifact { .. }
                    | Ref::TaskStatus(_)
                    | Ref::TaskState(_)
                    | Ref::TaskError(_) => {
                        Err("only a DAG can name the outputs of tasks".to_string())
                    }
                    Ref::Item(_) => Err("only the arguments of a loop can name its item".into()),
                    other => self.check_ref(template, other),
                };
                if found.is_ok()
                    && let Err(message) = result
                {
                    found = Err(problem(&place, format!("{}: {message}", part.source())));
                }
            });
        });
        found
    }

    fn check_ref(&self, template: &Template, to: &Ref) -> Result<(), String> {
        match to {
            Ref::Input(name) if !template.parameters.iter().any(|p| p.name == *name) => {
                Err(format!("the template has no input parameter {name:?}"))
            }
            Ref::InputArtifact(name) if !template.artifacts.iter().any(|a| a.name == *name) => {
                Err(format!("the template has no input artifact {name:?}"))
            }
            Ref::RunParameter(name) if !self.parameters.iter().any(|p| p.name == *name) => {
                Err(format!("the workflow has no parameter {name:?}"))
            }
            _ => Ok(()),
        }
    }

    fn check_dag(&self, template: &Template, dag: &Dag) -> Result<(), Problem> {
        let mut positions = BTreeMap::new();
        for (position, task) in dag.tasks.iter().enumerate() {
            if positions.insert(task.name.as_str(), position).is_some() {
                let place = format!("template {:?}", template.name);
                return Err(problem(
                    &place,
                    format!("two tasks are called {:?}", task.name),
                ));
            }
        }
        let ancestors = ancestors(template, dag, &positions)?;
        for (position, task) in dag.tasks.iter().enumerate() {
            let place = format!("template {:?}, task {:?}", template.name, task.name);
            let before = |name: &str| {
                positions
                    .get(name)
                    .is_some_and(|&p| ancestors[position].contains(p))
            };
            self.check_task(template, dag, task, &positions, &before)
                .map_err(|message| problem(&place, message))?;
            let called = self.templates.get(&task.template).ok_or_else(|| {
                problem(&place, format!("there is no template {:?}", task.template))
            })?;
            let given = task.arguments.iter().map(|a| a.name.as_str()).collect();
            let artifacts = task.artifacts.iter().map(|a| a.name.as_str()).collect();
            required(called, &given, &artifacts, &place)?;
        }
        let place = format!("template {:?}", template.name);
        let inside = |name: &str| positions.contains_key(name);
        let mut found = Ok(());
        each_part(template, &mut |part| {
            part.visit_refs(&mut |to| {
                let result = self.check_dag_ref(template, dag, to, &positions, &inside, false);
                if found.is_ok()
                    && let Err(message) = result
                {
                    found = Err(problem(&place, format!("{}: {message}", part.source())));
                }
            });
        });
        found
    }

    fn check_task(
        &self,
        template: &Template,
        dag: &Dag,
        task: &TaskSpec,
        positions: &BTreeMap<&str, usize>,
        before: &dyn Fn(&str) -> bool,
    ) -> Result<(), String> {
        let looped = task.each.is_some();
        let mut found = Ok(());
        let mut look = |part: Part<'_>, item: bool| {
            part.visit_refs(&mut |to| {
                let result = self.check_dag_ref(template, dag, to, positions, before, item);
                if found.is_ok()
                    && let Err(message) = result
                {
                    found = Err(format!("{}: {message}", part.source()));
                }
            });
        };
        for argument in &task.arguments {
            argument.value.visit(&mut |part| look(part, looped));
        }
        for artifact in &task.artifacts {
            artifact.value.visit(&mut |part| look(part, looped));
        }
        if let Some(settings) = &task.settings {
            settings.visit(&mut |part| look(part, looped));
        }
        if let Some(condition) = &task.condition {
            condition.visit(&mut |part| look(part, looped));
        }
        match &task.each {
            Some(Each::From(shape)) => shape.visit(&mut |part| look(part, false)),
            Some(Each::Items(items)) => {
                for item in items {
                    item.visit(&mut |part| look(part, false));
                }
            }
            None => {}
        }
        found?;
        let Some(called) = self.templates.get(&task.template) else {
            return Ok(());
        };
        let arguments = task.condition.iter().flat_map(|c| c.arguments());
        for name in arguments {
            if !called.parameters.iter().any(|p| p.name == name) {
                return Err(format!(
                    "the condition names {name:?}, which is no input of the task"
                ));
            }
        }
        Ok(())
    }

    fn check_dag_ref(
        &self,
        template: &Template,
        dag: &Dag,
        to: &Ref,
        positions: &BTreeMap<&str, usize>,
        before: &dyn Fn(&str) -> bool,
        item: bool,
    ) -> Result<(), String> {
        let (task, name, is_artifact) = match to {
            Ref::Output { task, name } => (task, Some(name), false),
            Ref::OutputArtifact { task, name } => (task, Some(name), true),
            Ref::TaskStatus(task) | Ref::TaskState(task) | Ref::TaskError(task) => {
                (task, None, false)
            }
            Ref::Item(_) if !item => return Err("there is no loop here".to_string()),
            other => return self.check_ref(template, other),
        };
        let Some(&position) = positions.get(task.as_str()) else {
            return Err(format!("there is no task {task:?}"));
        };
        if !before(task) {
            return Err(format!("task {task:?} is not among the dependencies"));
        }
        let called = &dag.tasks[position].template;
        let (Some(called), Some(name)) = (self.templates.get(called), name) else {
            return Ok(());
        };
        let exists = if is_artifact {
            called.output_artifacts.iter().any(|a| a.name == *name)
        } else {
            called.output_parameters.iter().any(|p| p.name == *name)
        };
        if exists {
            return Ok(());
        }
        let sort = if is_artifact { "artifact" } else { "parameter" };
        Err(format!(
            "template {:?} has no output {sort} {name:?}",
            called.name
        ))
    }
}

fn required(
    called: &Template,
    parameters: &BTreeSet<&str>,
    artifacts: &BTreeSet<&str>,
    place: &str,
) -> Result<(), Problem> {
    let missing = |sort: &str, name: &str| {
        let message = format!("template {:?} needs the {sort} {name:?}", called.name);
        Err(problem(place, message))
    };
    for parameter in &called.parameters {
        let given = parameter.default.is_some() || parameters.contains(parameter.name.as_str());
        if !given && !parameter.optional {
            return missing("parameter", &parameter.name);
        }
    }
    for artifact in &called.artifacts {
        let given = artifact.default.is_some() || artifacts.contains(artifact.name.as_str());
        if !given && !artifact.optional {
            return missing("artifact", &artifact.name);
        }
    }
    Ok(())
}

/// Everything with references in a template outside its tasks.
fn each_part<'a>(template: &'a Template, visit: &mut dyn FnMut(Part<'a>)) {
    use crate::plan::OutputSource::{File, JsonPath, Text};
    for output in &template.output_parameters {
        match &output.source {
            File(text) | JsonPath(text) | Text(text) => visit(Part::Text(text)),
        }
        output
            .default
            .iter()
            .for_each(|text| visit(Part::Text(text)));
    }
    for artifact in &template.output_artifacts {
        visit(Part::Text(&artifact.source));
    }
    let limit = template.retry.iter().filter_map(|r| r.limit.as_ref());
    let paths = template.artifacts.iter().filter_map(|a| a.path.as_ref());
    let texts = template.timeout_seconds.iter().chain(limit).chain(paths);
    texts.for_each(|text| visit(Part::Text(text)));
    if let Body::Work(work) = &template.body {
        work.spec.visit(visit);
    }
}

/// A set of positions in a DAG.
#[derive(Clone)]
struct Set(Vec<u64>);

impl Set {
    fn contains(&self, position: usize) -> bool {
        self.0[position / 64] & (1 << (position % 64)) != 0
    }

    fn insert(&mut self, position: usize) {
        self.0[position / 64] |= 1 << (position % 64);
    }

    fn extend(&mut self, other: &Self) {
        self.0
            .iter_mut()
            .zip(&other.0)
            .for_each(|(mine, theirs)| *mine |= theirs);
    }
}

/// What has ended before each task; an error if a dependency does not exist or they go in a circle.
fn ancestors(
    template: &Template,
    dag: &Dag,
    positions: &BTreeMap<&str, usize>,
) -> Result<Vec<Set>, Problem> {
    let count = dag.tasks.len();
    let mut sets = vec![Set(vec![0; count.div_ceil(64)]); count];
    let mut dependents = vec![Vec::new(); count];
    let mut blocked = vec![0usize; count];
    for (position, task) in dag.tasks.iter().enumerate() {
        for name in &task.dependencies {
            let Some(&dependency) = positions.get(name.as_str()) else {
                let place = format!("template {:?}, task {:?}", template.name, task.name);
                return Err(problem(
                    &place,
                    format!("it depends on {name:?}, which is no task"),
                ));
            };
            dependents[dependency].push(position);
            blocked[position] += 1;
        }
    }
    let mut free: Vec<usize> = (0..count).filter(|&p| blocked[p] == 0).collect();
    let mut done = 0;
    while let Some(position) = free.pop() {
        done += 1;
        let mut after = sets[position].clone();
        after.insert(position);
        for &dependent in &dependents[position] {
            sets[dependent].extend(&after);
            blocked[dependent] -= 1;
            if blocked[dependent] == 0 {
                free.push(dependent);
            }
        }
    }
    if done == count {
        return Ok(sets);
    }
    let circle = dag
        .tasks
        .iter()
        .zip(&blocked)
        .filter(|(_, left)| **left > 0);
    let names: Vec<_> = circle.map(|(task, _)| task.name.as_str()).collect();
    let place = format!("template {:?}", template.name);
    Err(problem(
        &place,
        format!("these tasks wait for each other: {}", names.join(", ")),
    ))
}
