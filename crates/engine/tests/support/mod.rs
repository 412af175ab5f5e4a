//! Small plans, written shortly.

#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "each test binary uses a part of it"
)]

pub(crate) mod random;

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{
    Argument, Body, Condition, Dag, Each, Effect, Event, InputParameter, Operand, Outcome,
    OutputParameter, OutputSource, Outputs, Piece, Plan, Ref, RetryPolicy, Run, RunCreated,
    RunParameter, Shape, TaskPath, TaskSpec, Template, Text, Trigger, Work, WorkKind,
};
use jiff::Timestamp;
use serde_json::{Value, json};

/// `in:x`, `out:task:x`, `param:x`, `item`, `item:x`, `status` become references between `<` and `>`.
pub(crate) fn text(source: &str) -> Text {
    let mut pieces = Vec::new();
    let mut rest = source;
    while let Some((before, after)) = rest.split_once('<') {
        let (tag, after) = after.split_once('>').unwrap();
        if !before.is_empty() {
            pieces.push(Piece::Literal(before.to_owned()));
        }
        let parts: Vec<_> = tag.split(':').map(str::to_owned).collect();
        let to = match parts[0].as_str() {
            "in" => Ref::Input(parts[1].clone()),
            "out" => Ref::Output {
                task: parts[1].clone(),
                name: parts[2].clone(),
            },
            "param" => Ref::RunParameter(parts[1].clone()),
            "item" => Ref::Item(parts[1..].to_vec()),
            "run" => Ref::Run(parts[1].clone()),
            other => panic!("unknown reference {other}"),
        };
        pieces.push(Piece::Ref {
            to,
            source: format!("<{tag}>"),
        });
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest.to_owned()));
    }
    Text(pieces)
}

/// A template of work that takes `inputs` and produces `out`.
pub(crate) fn work(name: &str, inputs: &[&str]) -> Template {
    let args = inputs
        .iter()
        .map(|i| Shape::Text(text(&format!("<in:{i}>"))))
        .collect();
    Template {
        name: name.to_owned(),
        parameters: inputs
            .iter()
            .map(|i| InputParameter {
                name: (*i).to_owned(),
                default: None,
                kind: None,
                optional: false,
            })
            .collect(),
        artifacts: Vec::new(),
        output_parameters: vec![OutputParameter {
            name: "out".to_owned(),
            source: OutputSource::File(text("/out")),
            default: None,
        }],
        output_artifacts: Vec::new(),
        body: Body::Work(Work {
            kind: WorkKind::Container,
            spec: Shape::Map(BTreeMap::from([("args".to_owned(), Shape::List(args))])),
        }),
        retry: None,
        timeout_seconds: None,
        parallelism: None,
    }
}

pub(crate) fn dag(name: &str, inputs: &[&str], tasks: Vec<TaskSpec>) -> Template {
    Template {
        output_parameters: Vec::new(),
        body: Body::Dag(Dag {
            tasks,
            fail_fast: true,
        }),
        ..work(name, inputs)
    }
}

pub(crate) fn task(name: &str, template: &str, dependencies: &[&str]) -> TaskSpec {
    TaskSpec {
        name: name.to_owned(),
        template: template.to_owned(),
        dependencies: dependencies.iter().map(|d| (*d).to_owned()).collect(),
        trigger: Trigger::default(),
        condition: None,
        each: None,
        arguments: Vec::new(),
        artifacts: Vec::new(),
        parallelism: None,
        settings: None,
        display_name: None,
    }
}

pub(crate) trait TaskExt: Sized {
    fn with(self, name: &str, value: &str) -> Self;
    fn when(self, left: &str, right: &str) -> Self;
    /// Only when the output of a task is this, as an expression.
    fn holds(self, task: &str, value: &str) -> Self;
    /// Passes the output of a task, which may be absent.
    fn given(self, name: &str, task: &str) -> Self;
    /// Unless what is passed is this.
    fn unless_given(self, name: &str, value: &str) -> Self;
    fn each(self, items: Value) -> Self;
    fn each_of(self, source: &str) -> Self;
}

impl TaskExt for TaskSpec {
    fn with(mut self, name: &str, value: &str) -> Self {
        self.arguments.push(Argument {
            name: name.to_owned(),
            value: Shape::Text(text(value)),
        });
        self
    }
    fn when(mut self, left: &str, right: &str) -> Self {
        let operand = |source| Operand {
            text: text(source),
            quoted: true,
        };
        self.condition = Some(Condition::Compare {
            left: operand(left),
            by: engine::Comparison::Equal,
            right: operand(right),
        });
        self
    }
    fn holds(mut self, task: &str, value: &str) -> Self {
        self.condition = Some(Condition::Holds(compared(
            output(task),
            engine::Comparison::Equal,
            value,
        )));
        self
    }
    fn given(mut self, name: &str, task: &str) -> Self {
        self.arguments.push(Argument {
            name: name.to_owned(),
            value: Shape::reference(output(task)),
        });
        self
    }
    fn unless_given(mut self, name: &str, value: &str) -> Self {
        self.condition = Some(Condition::Holds(compared(
            Ref::Argument(name.to_owned()),
            engine::Comparison::NotEqual,
            value,
        )));
        self
    }
    fn each(mut self, items: Value) -> Self {
        let items = items
            .as_array()
            .unwrap()
            .iter()
            .cloned()
            .map(Shape::Plain)
            .collect();
        self.each = Some(Each::Items(items));
        self
    }
    fn each_of(mut self, source: &str) -> Self {
        self.each = Some(Each::From(Shape::Text(text(source))));
        self
    }
}

fn output(task: &str) -> Ref {
    Ref::Output {
        task: task.to_owned(),
        name: "out".to_owned(),
    }
}

fn compared(left: Ref, by: engine::Comparison, right: &str) -> engine::Expression {
    engine::Expression::Compare {
        left: Box::new(engine::Expression::Ref(left)),
        by,
        right: Box::new(engine::Expression::Constant(json!(right))),
    }
}

pub(crate) fn retry(limit: u32, delay: Option<u64>) -> RetryPolicy {
    RetryPolicy {
        limit: Some(Text::literal(&limit.to_string())),
        on: engine::RetryOn::Always,
        delay: delay.map(std::time::Duration::from_secs),
        factor: 2.0,
        longest_delay: None,
        give_up_after: None,
    }
}

pub(crate) fn plan(templates: Vec<Template>) -> Plan {
    Plan {
        entrypoint: templates[0].name.clone(),
        on_exit: None,
        templates: templates.into_iter().map(|t| (t.name.clone(), t)).collect(),
        parameters: Vec::new(),
        parallelism: None,
        deadline_seconds: None,
        settings: Shape::Plain(json!({})),
        typed: false,
    }
}

pub(crate) fn parameter(name: &str, default: &str) -> RunParameter {
    RunParameter {
        name: name.to_owned(),
        default: Some(json!(default)),
        ..RunParameter::default()
    }
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

pub(crate) fn created(plan: Plan) -> RunCreated {
    RunCreated {
        run: "r".to_owned(),
        at: at(0),
        plan: Arc::new(plan),
        parameters: BTreeMap::new(),
        facts: BTreeMap::from([("name".to_owned(), json!("w"))]),
    }
}

pub(crate) fn succeeded(out: &str) -> Outcome {
    let parameters = BTreeMap::from([("out".to_owned(), json!(out))]);
    Outcome::Succeeded(Outputs {
        parameters,
        ..Outputs::default()
    })
}

pub(crate) fn failed() -> Outcome {
    Outcome::Failed {
        exit_code: Some(1),
        message: "exit 1".to_owned(),
    }
}

pub(crate) fn finish(path: &str, attempt: u32, seconds: i64, outcome: Outcome) -> Event {
    Event::TaskFinished {
        task: TaskPath::from(path),
        attempt,
        at: at(seconds),
        outcome,
    }
}

/// What effects ask for, as short lines: `start .a#0`, `stop .a#0`, `timer 5`, `finished Failed`.
pub(crate) fn lines(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::StartWork(start) => {
                let args = start.spec["args"].as_array().unwrap();
                let args: Vec<_> = args.iter().map(engine::render).collect();
                format!("start {}#{} {}", start.task, start.attempt, args.join(" "))
                    .trim()
                    .to_owned()
            }
            Effect::StopWork { task, attempt } => format!("stop {task}#{attempt}"),
            Effect::StartTimer { at, .. } => format!("timer {}", at.as_second()),
            Effect::RunFinished { phase } => format!("finished {}", phase.as_str()),
        })
        .collect()
}

/// A run that is driven by hand, checked against a replay at each step.
pub(crate) struct Driver {
    pub(crate) run: Run,
    created: RunCreated,
    events: Vec<Event>,
}

impl Driver {
    pub(crate) fn new(plan: Plan) -> (Self, Vec<String>) {
        let created = created(plan);
        let (run, effects) = Run::new(created.clone()).unwrap();
        (
            Self {
                run,
                created,
                events: Vec::new(),
            },
            lines(&effects),
        )
    }

    pub(crate) fn apply(&mut self, event: Event) -> Vec<String> {
        let effects = self.run.apply(&event).unwrap();
        self.events.push(event);
        let replayed = Run::replay(self.created.clone(), &self.events).unwrap();
        assert_eq!(
            lines(&replayed.outstanding()),
            lines(&self.run.outstanding())
        );
        lines(&effects)
    }

    pub(crate) fn succeed(&mut self, path: &str, out: &str) -> Vec<String> {
        let attempt = self
            .run
            .task(&TaskPath::from(path))
            .unwrap()
            .work()
            .unwrap()
            .latest()
            .unwrap()
            .0;
        self.apply(finish(path, attempt, 1, succeeded(out)))
    }

    pub(crate) fn fail(&mut self, path: &str) -> Vec<String> {
        let attempt = self
            .run
            .task(&TaskPath::from(path))
            .unwrap()
            .work()
            .unwrap()
            .latest()
            .unwrap()
            .0;
        self.apply(finish(path, attempt, 1, failed()))
    }

    pub(crate) fn phase(&self, path: &str) -> &'static str {
        self.run
            .task(&TaskPath::from(path))
            .map_or("absent", |t| t.phase.as_str())
    }
}
