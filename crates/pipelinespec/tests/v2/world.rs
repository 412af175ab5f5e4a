//! Short pipelines, and a world in which their work does what a script says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use engine::{
    Effect, Event, Outcome, Outputs, Phase, Run, RunCreated, RunPhase, StartWork, Task, TaskPath,
    Timer, WantedParameter,
};
use jiff::Timestamp;
use pipelinespec::{Package, bind};
use serde_json::{Map, Value, json};

/// `{"a": "STRING", "b?": "NUMBER_INTEGER"}` as input definitions; `?` makes optional.
fn parameters(short: &Value) -> Value {
    let entries = short.as_object().unwrap().iter().map(|(name, kind)| {
        let definition = match (name.strip_suffix('?'), kind) {
            (Some(_), kind) => json!({"parameterType": kind, "isOptional": true}),
            (None, Value::Object(_)) => kind.clone(),
            (None, kind) => json!({"parameterType": kind}),
        };
        (name.trim_end_matches('?').to_owned(), definition)
    });
    Value::Object(entries.collect())
}

fn artifacts(short: &Value) -> Value {
    let kind = json!({"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"});
    let entries = short.as_array().into_iter().flatten().map(|name| {
        let name = name.as_str().unwrap();
        let optional = name.ends_with('?');
        let definition = json!({"artifactType": kind, "isOptional": optional});
        (name.trim_end_matches('?').to_owned(), definition)
    });
    Value::Object(entries.collect())
}

/// A component that runs a container: `{"in": {…}, "out": {…}, "in-artifacts": […], …}`.
pub(crate) fn step(name: &str, short: &Value) -> Value {
    component(
        name,
        short,
        &json!({"executorLabel": format!("exec-{name}")}),
    )
}

pub(crate) fn component(_: &str, short: &Value, body: &Value) -> Value {
    let mut component = body.clone();
    let empty = json!({});
    component["inputDefinitions"] = json!({
        "parameters": parameters(short.get("in").unwrap_or(&empty)),
        "artifacts": artifacts(&short["in-artifacts"]),
    });
    component["outputDefinitions"] = json!({
        "parameters": parameters(short.get("out").unwrap_or(&empty)),
        "artifacts": artifacts(&short["out-artifacts"]),
    });
    component
}

/// A task: `{"call": "comp-x", "with": {"a": …}, "after": […], …}` and whatever IR has besides.
/// Values with a `$` are references: `$in.x`, `$task.output`.
pub(crate) fn task(short: &Value) -> Value {
    let mut task = json!({"componentRef": {"name": short["call"]}});
    let given = |which: &str, own: &str, other: [&str; 3], fallback: fn(&Value) -> Value| {
        let entries = short[which].as_object().into_iter().flatten();
        let entries = entries.map(|(name, value)| {
            let text = value.as_str().and_then(|text| text.strip_prefix('$'));
            let spec = match text.and_then(|text| text.split_once('.')) {
                Some(("in", input)) => json!({own: input}),
                Some((task, output)) => {
                    json!({other[0]: {"producerTask": task, other[1]: output}})
                }
                None => fallback(value),
            };
            (name.clone(), spec)
        });
        Value::Object(entries.collect())
    };
    let constant = |value: &Value| match value.get("spec") {
        Some(spec) => spec.clone(),
        None => json!({"runtimeValue": {"constant": value}}),
    };
    task["inputs"] = json!({
        "parameters": given(
            "with",
            "componentInputParameter",
            ["taskOutputParameter", "outputParameterKey", ""],
            constant,
        ),
        "artifacts": given(
            "artifacts",
            "componentInputArtifact",
            ["taskOutputArtifact", "outputArtifactKey", ""],
            Value::clone,
        ),
    });
    for (key, value) in short.as_object().unwrap() {
        match key.as_str() {
            "call" | "with" | "artifacts" => {}
            "after" => task["dependentTasks"] = value.clone(),
            "when" => task["triggerPolicy"] = json!({"condition": value}),
            "always" => {
                task["triggerPolicy"] = json!({"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"});
            }
            key => task[key] = value.clone(),
        }
    }
    task
}

pub(crate) fn tasks(short: &Value) -> Value {
    let entries = short.as_object().unwrap().iter();
    let entries: Map<String, Value> = entries.map(|(n, t)| (n.clone(), task(t))).collect();
    json!({"tasks": entries})
}

/// A pipeline: its input parameters, its components, and the tasks of its root.
pub(crate) fn pipeline(inputs: &Value, components: &Value, root: &Value) -> Value {
    let labels = components.as_object().unwrap().values();
    let executors = labels
        .filter_map(|c| c["executorLabel"].as_str())
        .map(|label| {
            let container = json!({"image": "alpine", "command": ["run"]});
            (label.to_owned(), json!({"container": container}))
        });
    let executors: Map<String, Value> = executors.collect();
    json!({
        "pipelineInfo": {"name": "p"},
        "schemaVersion": "2.1.0",
        "components": components,
        "deploymentSpec": {"executors": executors},
        "root": {"inputDefinitions": {"parameters": parameters(inputs)}, "dag": tasks(root)},
    })
}

/// What work does: its outcome, by its task.
pub(crate) type Script<'a> = dyn FnMut(&StartWork) -> Outcome + 'a;

pub(crate) struct World {
    pub(crate) run: Run,
    /// Paths and inputs of the work that was started, in order.
    pub(crate) started: Vec<StartWork>,
    /// The most work that went on at once.
    pub(crate) widest: usize,
    open: VecDeque<StartWork>,
    created: RunCreated,
    events: Vec<Event>,
}

impl World {
    pub(crate) fn new(package: &Value, parameters: &Value) -> Self {
        let package = Package::from_json(package.clone()).unwrap();
        Self::of(&package, parameters)
    }

    pub(crate) fn of(package: &Package, parameters: &Value) -> Self {
        let given: Vec<_> = parameters
            .as_object()
            .unwrap()
            .clone()
            .into_iter()
            .collect();
        let fact = |name: &str, value: &str| (name.to_owned(), json!(value));
        let created = RunCreated {
            run: "2f6c".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            plan: Arc::clone(&package.plan),
            parameters: bind(&package.plan, &given).unwrap(),
            facts: BTreeMap::from([
                fact("name", "p-abcde"),
                fact("display_name", "My run"),
                fact("uid", "2f6c"),
                fact("created_at", "1970-01-01T00:00:00Z"),
                fact("scheduled_at", "1970-01-01T00:00:00Z"),
            ]),
        };
        let (run, effects) = Run::new(created.clone()).unwrap();
        let mut world = Self {
            run,
            started: Vec::new(),
            widest: 0,
            open: VecDeque::new(),
            created,
            events: Vec::new(),
        };
        world.take(effects);
        world
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::StartWork(start) => {
                    self.started.push((*start).clone());
                    self.open.push_back(*start);
                }
                // Pauses take no time here, and deadlines are never met.
                Effect::StartTimer {
                    timer: timer @ Timer::Retry(..),
                    at,
                } => {
                    let effects = self.apply(Event::TimerFired { timer, at });
                    self.take(effects);
                }
                Effect::StartTimer { .. }
                | Effect::StopWork { .. }
                | Effect::RunFinished { .. } => {}
            }
        }
        self.widest = self.widest.max(self.open.len());
    }

    fn apply(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.run.apply(&event).unwrap();
        self.events.push(event);
        let replayed = Run::replay(self.created.clone(), &self.events).unwrap();
        assert_eq!(replayed.outstanding(), self.run.outstanding());
        effects
    }

    /// Lets the run go on to its end.
    pub(crate) fn run(&mut self, script: &mut Script<'_>) -> RunPhase {
        while let Some(start) = self.open.pop_front() {
            let outcome = script(&start);
            let effects = self.apply(Event::TaskFinished {
                task: start.task.clone(),
                attempt: start.attempt,
                at: Timestamp::UNIX_EPOCH,
                outcome,
            });
            self.take(effects);
        }
        assert!(self.run.phase().finished(), "the run hangs");
        self.run.phase()
    }

    /// Lets everything succeed.
    pub(crate) fn succeed(&mut self) -> RunPhase {
        self.run(&mut |start| done(start, &json!({})))
    }

    pub(crate) fn task(&self, path: &str) -> &Task {
        let found = self.run.task(&TaskPath::from(path));
        found.unwrap_or_else(|| panic!("there is no task {path}"))
    }

    pub(crate) fn phase(&self, path: &str) -> Phase {
        self.task(path).phase
    }

    /// The message of a task.
    pub(crate) fn message(&self, path: &str) -> &str {
        self.task(path).message.as_deref().unwrap_or_default()
    }

    /// The inputs of the only work at a path.
    pub(crate) fn inputs(&self, path: &str) -> Value {
        let mut started = self.started.iter().filter(|s| s.task.as_str() == path);
        json!(
            started
                .next()
                .unwrap_or_else(|| panic!("{path} did not start"))
                .inputs
        )
    }

    pub(crate) fn paths(&self) -> Vec<&str> {
        self.started.iter().map(|s| s.task.as_str()).collect()
    }

    /// The events so far, for a run that goes on by itself.
    pub(crate) fn retry(&mut self) {
        let at = Timestamp::UNIX_EPOCH;
        let effects = self.apply(Event::RetryRequested { at });
        self.take(effects);
    }
}

/// Success with these output parameters; those that are wanted besides get a value of their type,
/// and artifacts a place named after the task.
pub(crate) fn done(start: &StartWork, outputs: &Value) -> Outcome {
    let types = &start.spec["v2"]["outputs"]["parameters"];
    let mut parameters = BTreeMap::new();
    for wanted in &start.output_parameters {
        let (WantedParameter::File { name, .. }
        | WantedParameter::JsonPath { name, .. }
        | WantedParameter::Text { name, .. }) = wanted;
        let any = match types[name]["parameterType"].as_str() {
            Some("NUMBER_INTEGER") => json!(1),
            Some("NUMBER_DOUBLE") => json!(0.5),
            Some("BOOLEAN") => json!(true),
            Some("LIST") => json!([]),
            Some("STRUCT") => json!({}),
            _ => json!(format!("{}:{name}", start.task)),
        };
        parameters.insert(name.clone(), outputs.get(name).cloned().unwrap_or(any));
    }
    let artifact = |name: &String| {
        let uri = format!("minio://{}/{name}", start.task);
        json!([{"name": name, "uri": uri, "metadata": {}}])
    };
    Outcome::Succeeded(Outputs {
        parameters,
        artifacts: start
            .output_artifacts
            .iter()
            .map(|wanted| (wanted.name.clone(), artifact(&wanted.name)))
            .collect(),
        exit_code: Some(0),
        cached_from: None,
    })
}

pub(crate) fn failed(message: &str) -> Outcome {
    Outcome::Failed {
        exit_code: Some(1),
        message: message.to_owned(),
    }
}
