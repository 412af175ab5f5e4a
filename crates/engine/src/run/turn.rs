//! One event's way through the tasks: a list of steps, worked off until nothing follows.
//!
//! A list and not recursion, because a pipeline may call itself to any depth.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use jiff::Timestamp;
use serde_json::Value;

use super::collect::number_suffix;
use super::decide::Decision;
use super::scope::item_suffix;
use super::{Run, RunPhase};
use crate::effect::Effect;
use crate::event::Timer;
use crate::plan::Body;
use crate::task::{Frame, Kind, Loop, Phase, Task, TaskId, TaskPath, WorkState};
use crate::text::render;

/// A pipeline that calls itself this often without doing any work does so for ever.
const MAX_IDLE_DEPTH: u32 = 10_000;

/// What follows.
enum Step {
    /// Its dependencies have ended.
    Ready(TaskId),
    /// Its inputs are bound; it may go on when there is a slot.
    Admit(TaskId),
    /// It is over.
    Finish(TaskId, Phase, Option<String>),
}

pub(super) struct Turn<'a> {
    pub(super) run: &'a mut Run,
    pub(super) at: Timestamp,
    pub(super) effects: Vec<Effect>,
    steps: VecDeque<Step>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(run: &'a mut Run, at: Timestamp) -> Self {
        Self {
            run,
            at,
            effects: Vec::new(),
            steps: VecDeque::new(),
        }
    }

    /// Works off every step and answers the effects.
    pub(super) fn settle(mut self) -> Vec<Effect> {
        while let Some(step) = self.steps.pop_front() {
            match step {
                Step::Ready(id) => self.ready(id),
                Step::Admit(id) => self.admit(id),
                Step::Finish(id, phase, message) => self.finished(id, phase, message),
            }
        }
        self.effects
    }

    pub(super) fn then_ready(&mut self, id: TaskId) {
        self.steps.push_back(Step::Ready(id));
    }

    pub(super) fn then_finish(&mut self, id: TaskId, phase: Phase, message: Option<String>) {
        self.steps.push_back(Step::Finish(id, phase, message));
    }

    pub(super) fn task(&mut self, id: TaskId) -> &mut Task {
        &mut self.run.tasks[id.index()]
    }

    pub(super) fn start_run_deadline(&mut self) {
        if let Some(seconds) = self.run.plan().deadline_seconds {
            self.start_timer(Timer::Run, seconds);
        }
    }

    pub(super) fn start_timer(&mut self, timer: Timer, seconds: u64) {
        let duration = core::time::Duration::from_secs(seconds);
        // A deadline beyond the end of time never comes.
        if let Ok(at) = self.at.checked_add(duration) {
            self.run.timers.insert(timer.clone(), at);
            self.effects.push(Effect::StartTimer { timer, at });
        }
    }

    pub(super) fn open_entrypoint(&mut self) {
        let template = self.run.plan().entrypoint.clone();
        self.open_root("", &template);
    }

    fn open_root(&mut self, path: &str, template: &str) -> TaskId {
        let name = match self.run.created.facts.get("name") {
            Some(run) => format!("{}{path}", render(run)),
            None => format!("{}{path}", self.run.created.run),
        };
        let id = self.add_task(
            TaskPath::from(path),
            name,
            template.to_owned(),
            None,
            None,
            0,
        );
        self.then_ready(id);
        id
    }

    fn add_task(
        &mut self,
        path: TaskPath,
        display_name: String,
        template: String,
        parent: Option<TaskId>,
        frame: Option<TaskId>,
        position: usize,
    ) -> TaskId {
        let id = TaskId(self.run.tasks.len() as u32);
        let kind = match &self.run.plan().templates[&template].body {
            Body::Dag(_) => Kind::Dag(Frame::default()),
            Body::Work(_) => {
                let offset = self.run.burned.get(&path).copied().unwrap_or(0);
                Kind::Work(WorkState {
                    offset,
                    ..WorkState::default()
                })
            }
        };
        self.run.by_path.insert(path.clone(), id);
        self.run.tasks.push(Task {
            path,
            display_name,
            template,
            parent,
            frame,
            position,
            item: None,
            phase: Phase::Waiting,
            message: None,
            started_at: None,
            finished_at: None,
            inputs: BTreeMap::new(),
            input_artifacts: BTreeMap::new(),
            outputs: BTreeMap::new(),
            output_artifacts: BTreeMap::new(),
            cached_from: None,
            settings: None,
            kind,
            blocked: 0,
            holds_slot: false,
            holds_loop_slot: false,
        });
        id
    }

    /// The dependencies of a task have ended: omit it, skip it, expand its loop, or bind its inputs.
    fn ready(&mut self, id: TaskId) {
        if self.run.tasks[id.index()].phase != Phase::Waiting {
            return;
        }
        let decision = match self.run.call_of(id) {
            Some((frame, spec)) => self.run.decide(id, frame, spec),
            None => self.run.decide_root(id),
        };
        match decision {
            Decision::End(phase, message) => self.then_finish(id, phase, Some(message)),
            Decision::Iterate(items) => self.iterate(id, items),
            Decision::Call(bound) => {
                let task = self.task(id);
                task.inputs = bound.parameters;
                task.input_artifacts = bound.artifacts;
                task.settings = bound.settings;
                self.steps.push_back(Step::Admit(id));
            }
        }
    }

    fn iterate(&mut self, id: TaskId, items: Vec<Value>) {
        if let Kind::Loop(state) = &self.run.tasks[id.index()].kind {
            // A retry of the run: the items that are left start over.
            let items = state.items.clone();
            self.task(id).phase = Phase::Running;
            for item in items {
                self.then_ready(item);
            }
            return;
        }
        let typed = self.run.plan().typed;
        if items.is_empty() && !typed {
            return self.then_finish(id, Phase::Skipped, Some("skipped, no items".to_owned()));
        }
        let (base, name, template, frame, position) = {
            let at = self.at;
            let task = self.task(id);
            task.phase = Phase::Running;
            task.started_at = Some(at);
            let position = task.position;
            (
                task.path.clone(),
                task.display_name.clone(),
                task.template.clone(),
                task.frame,
                position,
            )
        };
        let mut ids = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let suffix = if typed {
                number_suffix(index)
            } else {
                item_suffix(index, &item)
            };
            let path = TaskPath::from(format!("{base}{suffix}").as_str());
            let name = format!("{name}{suffix}");
            let child = self.add_task(path, name, template.clone(), Some(id), frame, position);
            self.task(child).item = Some(item);
            ids.push(child);
            self.then_ready(child);
        }
        let remaining = ids.len();
        self.task(id).kind = Kind::Loop(Loop {
            items: ids,
            remaining,
            ..Loop::default()
        });
        if remaining == 0 {
            self.then_finish(id, Phase::Succeeded, None);
        }
    }

    /// Gives a task a slot of its loop and its DAG, or lets it wait for them.
    fn admit(&mut self, id: TaskId) {
        let Some(frame) = self.run.tasks[id.index()].frame else {
            return self.begin(id);
        };
        if let Some(message) = self.run.refusal(id, frame) {
            // It came to its turn and does not use it.
            if let Kind::Dag(state) = &mut self.task(frame).kind
                && let Some(next) = state.queue.pop_front()
            {
                self.steps.push_back(Step::Admit(next));
            }
            if !self.run.tasks[id.index()].holds_loop_slot {
                self.admit_next_item(id);
            }
            return self.then_finish(id, Phase::Omitted, Some(message));
        }
        if !self.take_loop_slot(id) {
            return;
        }
        let limit = self
            .run
            .template(frame)
            .parallelism
            .filter(|&limit| limit > 0);
        let Kind::Dag(state) = &mut self.task(frame).kind else {
            return;
        };
        if limit.is_some_and(|limit| state.active >= limit) {
            state.queue.push_back(id);
            return;
        }
        state.active += 1;
        self.task(id).holds_slot = true;
        self.begin(id);
    }

    /// Whether the loop of a task lets it go on; otherwise it waits.
    fn take_loop_slot(&mut self, id: TaskId) -> bool {
        let task = &self.run.tasks[id.index()];
        let limit = self
            .run
            .call_of(id)
            .and_then(|(_, spec)| spec.parallelism)
            .filter(|&limit| limit > 0);
        let (Some(limit), Some(parent), false) = (limit, task.parent, task.holds_loop_slot) else {
            return true;
        };
        let Kind::Loop(state) = &mut self.task(parent).kind else {
            return true;
        };
        if state.active >= limit {
            state.queue.push_back(id);
            return false;
        }
        state.active += 1;
        self.task(id).holds_loop_slot = true;
        true
    }

    /// The next iteration that waits for its loop's parallelism comes to its turn.
    fn admit_next_item(&mut self, id: TaskId) {
        if let Some(parent) = self.run.tasks[id.index()].parent
            && let Kind::Loop(state) = &mut self.task(parent).kind
            && let Some(next) = state.queue.pop_front()
        {
            self.steps.push_back(Step::Admit(next));
        }
    }

    fn begin(&mut self, id: TaskId) {
        if matches!(self.run.tasks[id.index()].kind, Kind::Work(_)) {
            self.request_attempt(id);
        } else {
            self.open(id);
        }
    }

    /// Opens a DAG: makes its tasks, unless a retry of the run opens it again, and starts those that
    /// wait for nothing.
    fn open(&mut self, id: TaskId) {
        let depth = self.run.idle_depth(id);
        let template = self.run.template(id);
        if depth > MAX_IDLE_DEPTH {
            let message = format!(
                "template {:?} calls itself {MAX_IDLE_DEPTH} times without any work in between",
                template.name
            );
            return self.then_finish(id, Phase::Error, Some(message));
        }
        let timeout = template.timeout_seconds.clone();
        let (at, version) = (self.at, self.run.version);
        let again = self.run.tasks[id.index()]
            .frame_state()
            .is_some_and(|frame| frame.open);
        if !again {
            self.make_tasks(id);
        }
        let task = self.task(id);
        task.phase = Phase::Running;
        task.started_at = task.started_at.or(Some(at));
        let path = task.path.clone();
        let Kind::Dag(frame) = &mut task.kind else {
            return;
        };
        (frame.open, frame.depth, frame.opened_by) = (true, depth, version);
        let tasks = frame.tasks.clone();
        if let Some(text) = timeout {
            match self.run.seconds(id, &text) {
                Ok(seconds) => self.start_timer(Timer::Task(path, 0), seconds),
                Err(message) => self.stop(id, &message),
            }
        }
        for &child in &tasks {
            if self.run.tasks[child.index()].blocked == 0 {
                self.then_ready(child);
            }
        }
        if tasks.is_empty() {
            self.then_finish(id, Phase::Succeeded, None);
        }
    }

    fn make_tasks(&mut self, id: TaskId) {
        let Body::Dag(dag) = &self.run.template(id).body else {
            return;
        };
        let specs = dag.tasks.iter();
        let specs: Vec<_> = specs
            .map(|t| {
                let shown = t.display_name.as_ref().unwrap_or(&t.name).clone();
                let blocked = t.dependencies.len();
                (t.name.clone(), shown, t.template.clone(), blocked)
            })
            .collect();
        let base = self.run.tasks[id.index()].path.clone();
        let mut tasks = Vec::with_capacity(specs.len());
        for (position, (name, shown, template, blocked)) in specs.into_iter().enumerate() {
            let path = TaskPath::from(format!("{base}.{name}").as_str());
            let child = self.add_task(path, shown, template, Some(id), Some(id), position);
            self.task(child).blocked = blocked as u32;
            tasks.push(child);
        }
        let remaining = tasks.len();
        self.task(id).kind = Kind::Dag(Frame {
            tasks,
            remaining,
            ..Frame::default()
        });
    }

    /// A task is over: note it, give its slots back, and tell whoever waits for it.
    fn finished(&mut self, id: TaskId, mut phase: Phase, mut message: Option<String>) {
        if self.run.tasks[id.index()].phase.finished() {
            return;
        }
        if phase == Phase::Succeeded && matches!(self.run.tasks[id.index()].kind, Kind::Dag(_)) {
            let (parameters, artifacts) = self.run.dag_outputs(id);
            let task = self.task(id);
            task.outputs = parameters;
            task.output_artifacts = artifacts;
        }
        let at = self.at;
        let task = self.task(id);
        if task.started_at.is_none() {
            task.started_at = Some(at);
        }
        if let Kind::Dag(frame) = &task.kind
            && frame.stopped
            && phase == Phase::Succeeded
        {
            // It was told to stop and nothing in it had failed yet.
            phase = Phase::Failed;
            message = task.message.take();
        }
        task.phase = phase;
        task.finished_at = Some(at);
        if message.is_some() {
            task.message = message;
        }
        let below: Vec<TaskId> = match &task.kind {
            Kind::Dag(frame) => frame.tasks.clone(),
            Kind::Loop(state) => state.items.clone(),
            Kind::Work(_) => Vec::new(),
        };
        let held = core::mem::take(&mut task.holds_slot);
        let held_in_loop = core::mem::take(&mut task.holds_loop_slot);
        let (parent, frame, position, path) =
            (task.parent, task.frame, task.position, task.path.clone());
        self.run.timers.remove(&Timer::Task(path, 0));
        if held && let Some(frame) = frame {
            self.release(frame);
        }
        if held_in_loop
            && let Some(parent) = parent
            && let Kind::Loop(state) = &mut self.task(parent).kind
        {
            state.active = state.active.saturating_sub(1);
            self.admit_next_item(id);
        }
        for child in below {
            // Left over from before a retry of the run, which now does not get here.
            if !self.run.tasks[child.index()].phase.finished() {
                self.then_finish(child, Phase::Omitted, Some("omitted".to_owned()));
            }
        }
        match parent {
            None => self.root_finished(id),
            Some(parent) => self.child_finished(parent, id, position, phase),
        }
    }

    fn release(&mut self, frame: TaskId) {
        let Kind::Dag(state) = &mut self.task(frame).kind else {
            return;
        };
        state.active = state.active.saturating_sub(1);
        if let Some(next) = state.queue.pop_front() {
            self.steps.push_back(Step::Admit(next));
        }
    }

    fn child_finished(&mut self, parent: TaskId, child: TaskId, position: usize, phase: Phase) {
        let frame_of_parent = self.run.tasks[parent.index()].frame;
        match &mut self.task(parent).kind {
            Kind::Loop(state) => {
                state.remaining -= 1;
                let done = state.remaining == 0;
                if phase.unsuccessful() {
                    state.failed = state.failed.or(Some(child));
                    if let Some(frame) = frame_of_parent
                        && let Kind::Dag(frame) = &mut self.task(frame).kind
                    {
                        frame.failed = frame.failed.or(Some(parent));
                    }
                }
                if done {
                    self.group_done(parent);
                }
            }
            Kind::Dag(state) => {
                state.remaining -= 1;
                let done = state.remaining == 0;
                if phase.unsuccessful() {
                    state.failed = state.failed.or(Some(child));
                }
                let run = &*self.run;
                let parent_task = &run.tasks[parent.index()];
                let Kind::Dag(state) = &parent_task.kind else {
                    return;
                };
                let dependents = &run.dags[&parent_task.template].dependents[position];
                let dependents: Vec<_> = dependents.iter().map(|&d| state.tasks[d]).collect();
                for dependent in dependents {
                    let waiting = self.task(dependent);
                    waiting.blocked = waiting.blocked.saturating_sub(1);
                    if waiting.blocked == 0 {
                        self.then_ready(dependent);
                    }
                }
                if done {
                    self.group_done(parent);
                }
            }
            Kind::Work(_) => {}
        }
    }

    /// Everything inside a DAG or loop is over.
    fn group_done(&mut self, id: TaskId) {
        let failed = match &self.run.tasks[id.index()].kind {
            Kind::Loop(state) => state.failed,
            Kind::Dag(frame) => frame.failed,
            Kind::Work(_) => None,
        };
        let (phase, message) = match failed {
            // Iterations that did not begin, because something beside the loop failed.
            None if self.run.has_omitted_items(id) => (
                Phase::Omitted,
                Some("omitted: not every iteration ran".to_owned()),
            ),
            None => (Phase::Succeeded, None),
            Some(child) => {
                let child = &self.run.tasks[child.index()];
                let reason = child.message.as_deref().unwrap_or(child.phase.as_str());
                let stopped = self.run.tasks[id.index()].message.clone();
                let message = stopped.unwrap_or_else(|| match &child.kind {
                    Kind::Work(_) => format!("{}: {reason}", child.display_name),
                    Kind::Dag(_) | Kind::Loop(_) => reason.to_owned(),
                });
                (child.phase, Some(message))
            }
        };
        self.then_finish(id, phase, message);
    }

    pub(super) fn root_finished(&mut self, id: TaskId) {
        let is_main = self.run.exit != Some(id);
        if is_main {
            self.run.timers.remove(&Timer::Run);
            if let Some(handler) = self.run.plan().on_exit.clone() {
                self.run.exit = Some(self.open_root(".onExit", &handler));
                return;
            }
        }
        let main = &self.run.tasks[0];
        let exit = self.run.exit.map(|exit| &self.run.tasks[exit.index()]);
        let decisive = match exit {
            Some(exit) if !main.phase.unsuccessful() => exit,
            _ => main,
        };
        let phase = RunPhase::of(decisive.phase);
        let message = decisive.message.clone();
        self.run.phase = phase;
        self.run.message = if phase == RunPhase::Succeeded {
            None
        } else {
            message
        };
        self.run.finished_at = Some(self.at);
        self.run.timers.clear();
        self.effects.push(Effect::RunFinished { phase });
    }
}
