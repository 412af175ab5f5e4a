//! Attempts: starting one, hearing of it, and trying again.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Run;
use super::scope::Inside;
use super::turn::Turn;
use crate::effect::{Effect, StartWork, WantedArtifact, WantedParameter};
use crate::event::{Outcome, Timer};
use crate::plan::{Body, OutputSource};
use crate::task::{Attempt, Kind, Phase, TaskId, TaskPath, WorkState};

impl Turn<'_> {
    /// Starts an attempt, or lets it wait for the run's parallelism.
    pub(super) fn request_attempt(&mut self, id: TaskId) {
        let at = self.at;
        let limit = self.run.plan().parallelism.filter(|&limit| limit > 0);
        let full = limit.is_some_and(|limit| self.run.active >= limit);
        let task = self.task(id);
        task.started_at = task.started_at.or(Some(at));
        if full {
            self.run.queue.push_back(id);
        } else {
            self.start_attempt(id);
        }
    }

    fn start_attempt(&mut self, id: TaskId) {
        let timeout = match &self.run.template(id).timeout_seconds {
            None => None,
            Some(text) => match self.run.seconds(id, text) {
                Ok(seconds) => Some(seconds),
                Err(message) => return self.then_finish(id, Phase::Error, Some(message)),
            },
        };
        self.run.active += 1;
        let at = self.at;
        let task = self.task(id);
        task.phase = Phase::Pending;
        task.message = None;
        let path = task.path.clone();
        let Kind::Work(work) = &mut task.kind else {
            return;
        };
        work.holds_run_slot = true;
        work.attempts.push(Attempt {
            phase: Phase::Pending,
            message: None,
            started_at: at,
            finished_at: None,
            host: None,
            exit_code: None,
            stop: false,
            lost: false,
        });
        let number = work.number(work.attempts.len() - 1);
        let effect = self.run.start_effect(id, number);
        self.effects.push(effect);
        if let Some(seconds) = timeout {
            self.start_timer(Timer::Task(path, number), seconds);
        }
    }

    /// An attempt is over; news of one that no longer counts changes nothing.
    pub(super) fn attempt_finished(&mut self, id: TaskId, number: u32, outcome: &Outcome) {
        let stop = matches!(outcome, Outcome::Error { stop: true, .. });
        self.end_attempt(id, number, outcome, stop);
    }

    fn end_attempt(&mut self, id: TaskId, number: u32, outcome: &Outcome, stop: bool) {
        let path = self.run.tasks[id.index()].path.clone();
        if self.run.live_attempt(&path, number).is_none() {
            return;
        }
        self.run.timers.remove(&Timer::Task(path, number));
        let at = self.at;
        let (phase, message, exit_code) = match outcome {
            Outcome::Succeeded(outputs) => (Phase::Succeeded, None, outputs.exit_code),
            Outcome::Failed { exit_code, message } => {
                (Phase::Failed, Some(message.clone()), *exit_code)
            }
            Outcome::Error { message, .. } | Outcome::Lost { message } => {
                (Phase::Error, Some(message.clone()), None)
            }
        };
        if let Some(attempt) = self.latest(id) {
            attempt.phase = phase;
            attempt.message.clone_from(&message);
            attempt.finished_at = Some(at);
            attempt.exit_code = exit_code;
            attempt.stop = stop;
            attempt.lost = matches!(outcome, Outcome::Lost { .. });
        }
        if stop {
            let task = self.run.tasks[id.index()].path.clone();
            self.effects.push(Effect::StopWork {
                task,
                attempt: number,
            });
        }
        self.release_run_slot(id);
        match outcome {
            Outcome::Succeeded(outputs) => {
                let task = self.task(id);
                task.outputs = outputs.parameters.clone();
                task.output_artifacts = outputs.artifacts.clone();
                task.cached_from.clone_from(&outputs.cached_from);
                self.then_finish(id, Phase::Succeeded, None);
            }
            Outcome::Failed { .. } | Outcome::Error { .. } => {
                self.try_again(id, outcome, phase, message);
            }
            Outcome::Lost { .. } if self.run.is_stopped(id) => {
                self.then_finish(id, phase, message);
            }
            Outcome::Lost { .. } => {
                let task = self.task(id);
                task.phase = Phase::Running;
                task.message = message;
                self.request_attempt(id);
            }
        }
    }

    fn try_again(&mut self, id: TaskId, outcome: &Outcome, phase: Phase, message: Option<String>) {
        let (pause, retry) = match self.run.retry(id, outcome, self.at) {
            Ok(Some(retry)) => retry,
            Ok(None) => return self.then_finish(id, phase, message),
            Err(reason) => {
                let message = match message {
                    Some(message) => format!("{message} ({reason})"),
                    None => reason,
                };
                return self.then_finish(id, phase, Some(message));
            }
        };
        let task = self.task(id);
        task.phase = Phase::Running;
        task.message = message;
        if pause.is_zero() {
            return self.request_attempt(id);
        }
        let path = task.path.clone();
        if let Ok(at) = self.at.checked_add(pause) {
            let timer = Timer::Retry(path, retry);
            self.run.timers.insert(timer.clone(), at);
            self.effects.push(Effect::StartTimer { timer, at });
        }
    }

    /// A timer has run out; one that no longer counts changes nothing.
    pub(super) fn timer_fired(&mut self, timer: &Timer) {
        let Some(due) = self.run.timers.get(timer).copied() else {
            return;
        };
        if self.at < due {
            self.effects.push(Effect::StartTimer {
                timer: timer.clone(),
                at: due,
            });
            return;
        }
        self.run.timers.remove(timer);
        match timer {
            Timer::Run => {
                let message = match self.run.plan().deadline_seconds {
                    Some(seconds) => format!("the run exceeded its deadline of {seconds} s"),
                    None => "the run exceeded its deadline".into(),
                };
                self.stop(TaskId(0), &message);
            }
            Timer::Retry(path, _) => {
                if let Some(&id) = self.run.by_path.get(path) {
                    self.request_attempt(id);
                }
            }
            Timer::Task(path, number) => {
                let Some(&id) = self.run.by_path.get(path) else {
                    return;
                };
                let message = "the step exceeded its deadline";
                if matches!(self.run.tasks[id.index()].kind, Kind::Dag(_)) {
                    return self.stop(id, message);
                }
                let outcome = Outcome::Failed {
                    exit_code: None,
                    message: message.into(),
                };
                self.end_attempt(id, *number, &outcome, true);
            }
        }
    }

    pub(super) fn latest(&mut self, id: TaskId) -> Option<&mut Attempt> {
        match &mut self.task(id).kind {
            Kind::Work(work) => work.attempts.last_mut(),
            Kind::Dag(_) | Kind::Loop(_) => None,
        }
    }

    pub(super) fn release_run_slot(&mut self, id: TaskId) {
        let Kind::Work(work) = &mut self.task(id).kind else {
            return;
        };
        if !core::mem::take(&mut work.holds_run_slot) {
            return;
        }
        self.run.active = self.run.active.saturating_sub(1);
        while let Some(next) = self.run.queue.pop_front() {
            if !self.run.tasks[next.index()].phase.finished() {
                self.start_attempt(next);
                break;
            }
        }
    }
}

impl Run {
    /// The attempt with this number, if it is the latest and goes on.
    pub(super) fn live_attempt(&self, path: &TaskPath, number: u32) -> Option<&Attempt> {
        let id = self.by_path.get(path)?;
        let (latest, attempt) = self.tasks[id.index()].work()?.latest()?;
        (latest == number && !attempt.phase.finished()).then_some(attempt)
    }

    pub(super) fn progress(
        &mut self,
        id: TaskId,
        number: u32,
        running: bool,
        host: Option<&String>,
        message: Option<&String>,
    ) {
        let task = &mut self.tasks[id.index()];
        let Kind::Work(work) = &mut task.kind else {
            return;
        };
        if work
            .latest()
            .is_none_or(|(latest, a)| latest != number || a.phase.finished())
        {
            return;
        }
        let Some(attempt) = work.attempts.last_mut() else {
            return;
        };
        if running {
            attempt.phase = Phase::Running;
            attempt.message = None;
            task.phase = Phase::Running;
            task.message = None;
        } else if attempt.phase == Phase::Pending {
            attempt.message = message.cloned();
            task.message = message.cloned();
        }
        if let Some(host) = host {
            attempt.host = Some(host.clone());
        }
    }

    /// Whether nothing more is started where the task belongs.
    fn is_stopped(&self, id: TaskId) -> bool {
        self.tasks[id.index()]
            .frame
            .and_then(|frame| self.tasks[frame.index()].frame_state())
            .is_some_and(|frame| frame.stopped)
    }

    /// Whether the task is tried again: the pause and the number of the next attempt. The error
    /// says why not although the policy covers this end.
    fn retry(
        &self,
        id: TaskId,
        outcome: &Outcome,
        at: jiff::Timestamp,
    ) -> Result<Option<(core::time::Duration, u32)>, String> {
        let Some(policy) = &self.template(id).retry else {
            return Ok(None);
        };
        if !policy.covers(outcome) || self.is_stopped(id) {
            return Ok(None);
        }
        let Some(work) = self.tasks[id.index()].work() else {
            return Ok(None);
        };
        let tried = work.attempts[work.first..]
            .iter()
            .filter(|attempt| !attempt.lost)
            .count();
        if let Some(limit) = &policy.limit {
            let scope = Inside::of(self, Some(id));
            let text = limit.resolve_string(&scope);
            let limit: usize = text
                .trim()
                .parse()
                .map_err(|_| format!("retryStrategy.limit is {text:?}, not a whole number"))?;
            if tried > limit {
                return match limit {
                    0 => Ok(None),
                    _ => Err("no more retries left".into()),
                };
            }
        }
        let pause = policy.pause(tried as u32 - 1);
        let first = work.attempts[work.first].started_at;
        if policy.too_late(first, at.checked_add(pause).unwrap_or(jiff::Timestamp::MAX)) {
            return Err("max duration limit exceeded".into());
        }
        Ok(Some((pause, work.number(work.attempts.len()))))
    }

    pub(super) fn start_effect(&self, id: TaskId, number: u32) -> Effect {
        let task = &self.tasks[id.index()];
        let template = self.template(id);
        let Body::Work(work) = &template.body else {
            return Effect::StopWork {
                task: task.path.clone(),
                attempt: number,
            };
        };
        let scope = Inside::of(self, Some(id));
        let text = |t: &crate::text::Text| t.resolve_string(&scope);
        let output_parameters = template.output_parameters.iter().map(|output| {
            let name = output.name.clone();
            let default = output.default.as_ref().map(text);
            match &output.source {
                OutputSource::File(path) => WantedParameter::File {
                    name,
                    path: text(path),
                    default,
                },
                OutputSource::JsonPath(path) => WantedParameter::JsonPath {
                    name,
                    path: text(path),
                    default,
                },
                OutputSource::Text(value) => WantedParameter::Text {
                    name,
                    value: text(value),
                },
            }
        });
        let output_artifacts = template
            .output_artifacts
            .iter()
            .map(|output| WantedArtifact {
                name: output.name.clone(),
                path: text(&output.source),
                optional: output.optional,
                settings: output.settings.clone(),
            });
        let artifacts = template.artifacts.iter().filter_map(|artifact| {
            let value = task.input_artifacts.get(&artifact.name)?.clone();
            Some((
                artifact.name.clone(),
                artifact.path.as_ref().map(text),
                value,
            ))
        });
        let timeout = template.timeout_seconds.as_ref();
        Effect::StartWork(Box::new(StartWork {
            task: task.path.clone(),
            attempt: number,
            template: task.template.clone(),
            display_name: task.display_name.clone(),
            kind: work.kind,
            spec: work.spec.resolve(&scope),
            inputs: task.inputs.clone(),
            artifacts: artifacts.collect(),
            output_parameters: output_parameters.collect(),
            output_artifacts: output_artifacts.collect(),
            timeout_seconds: timeout.and_then(|t| self.seconds(id, t).ok()),
        }))
    }

    /// The number of the attempt after the latest.
    pub(super) fn next_number(work: &WorkState) -> u32 {
        work.number(work.attempts.len())
    }

    pub(super) fn unfinished(&self) -> Vec<TaskId> {
        (0..self.tasks.len() as u32)
            .map(TaskId)
            .filter(|id| !self.tasks[id.index()].phase.finished())
            .collect()
    }
}
