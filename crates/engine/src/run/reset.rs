//! Ending a run (or a part of it) before its time, and trying a failed run again.

use alloc::borrow::ToOwned;
use alloc::vec::Vec;

use super::turn::Turn;
use super::{Run, RunPhase};
use crate::effect::Effect;
use crate::event::Timer;
use crate::task::{Kind, Phase, TaskId};

impl Turn<'_> {
    /// Somebody wants the run to end. The exit handler still runs; asking again ends that, too.
    pub(super) fn terminate(&mut self) {
        self.run.terminating = true;
        let root = self.run.exit.unwrap_or(TaskId(0));
        self.stop(root, "the run was terminated");
    }

    /// Ends everything at and below a task.
    pub(super) fn stop(&mut self, root: TaskId, message: &str) {
        for id in self.run.unfinished() {
            if !self.run.is_below(id, root) {
                continue;
            }
            let path = self.run.tasks[id.index()].path.clone();
            let task = self.task(id);
            match &mut task.kind {
                Kind::Dag(frame) if frame.open => {
                    frame.stopped = true;
                    task.message = Some(message.to_owned());
                }
                Kind::Dag(_) | Kind::Loop(_) => {}
                Kind::Work(work) => {
                    let live = work
                        .latest()
                        .filter(|(_, a)| !a.phase.finished())
                        .map(|(n, _)| n);
                    let waits_for_retry = task.phase == Phase::Running && live.is_none();
                    let waits_for_slot = task.started_at.is_some() && live.is_none();
                    if let Some(number) = live {
                        let at = self.at;
                        if let Some(attempt) = self.latest(id) {
                            attempt.phase = Phase::Failed;
                            attempt.message = Some(message.to_owned());
                            attempt.finished_at = Some(at);
                            attempt.stop = true;
                        }
                        self.run.timers.remove(&Timer::Task(path.clone(), number));
                        self.effects.push(Effect::StopWork {
                            task: path,
                            attempt: number,
                        });
                        self.drop_run_slot(id);
                        self.then_finish(id, Phase::Failed, Some(message.to_owned()));
                    } else if waits_for_retry {
                        let next = Run::next_number(work);
                        self.run.timers.remove(&Timer::Retry(path, next));
                        self.then_finish(id, Phase::Failed, Some(message.to_owned()));
                    } else if waits_for_slot || id == root {
                        self.then_finish(id, Phase::Omitted, Some(message.to_owned()));
                    }
                }
            }
        }
        self.wake_queue();
    }

    /// Gives a slot back without starting what waits for it: that may be about to be stopped, too.
    fn drop_run_slot(&mut self, id: TaskId) {
        if let Kind::Work(work) = &mut self.task(id).kind
            && core::mem::take(&mut work.holds_run_slot)
        {
            self.run.active = self.run.active.saturating_sub(1);
        }
    }

    /// Starts what waits for the run's parallelism and was not stopped.
    fn wake_queue(&mut self) {
        let limit = self.run.plan().parallelism.unwrap_or(0);
        while self.run.active < limit {
            let Some(next) = self.run.queue.pop_front() else {
                return;
            };
            let stopped = |f: TaskId| {
                self.run.tasks[f.index()]
                    .frame_state()
                    .is_some_and(|frame| frame.stopped)
            };
            let task = &self.run.tasks[next.index()];
            if !task.phase.finished() && !task.frame.is_some_and(stopped) {
                self.request_attempt(next);
            }
        }
    }

    /// Somebody wants what failed to be tried again: what succeeded or was skipped stays, the rest
    /// and the exit handler start over. Attempts are numbered on, so no effect is mistaken for an
    /// earlier one.
    pub(super) fn retry_run(&mut self) {
        self.take_exit_away();
        let run = &mut *self.run;
        run.phase = RunPhase::Running;
        run.message = None;
        run.finished_at = None;
        run.terminating = false;
        run.active = 0;
        run.queue.clear();
        // What is below something that stays, stays as well, even what was omitted there.
        let mut kept = Vec::with_capacity(run.tasks.len());
        for task in &mut run.tasks {
            let stays = matches!(task.phase, Phase::Succeeded | Phase::Skipped)
                || task.parent.is_some_and(|parent| kept[parent.index()]);
            kept.push(stays);
            if stays {
                continue;
            }
            task.message = None;
            task.finished_at = None;
            task.holds_slot = false;
            task.holds_loop_slot = false;
            task.phase = Phase::Waiting;
            match &mut task.kind {
                Kind::Dag(frame) if frame.open => {
                    frame.failed = None;
                    frame.stopped = false;
                    frame.queue.clear();
                    frame.active = 0;
                }
                Kind::Dag(_) => task.started_at = None,
                Kind::Loop(state) => {
                    state.failed = None;
                    state.queue.clear();
                    state.active = 0;
                }
                Kind::Work(work) => {
                    task.started_at = None;
                    work.first = work.attempts.len();
                    work.holds_run_slot = false;
                }
            }
        }
        self.recount();
        self.start_run_deadline();
        if self.run.tasks[0].phase.finished() {
            // Only the exit handler had failed.
            self.root_finished(TaskId(0));
        } else {
            self.then_ready(TaskId(0));
        }
    }

    fn take_exit_away(&mut self) {
        let run = &mut *self.run;
        let Some(exit) = run.exit.take() else { return };
        // The exit handler is reached last, so it and all below it are at the end.
        for task in run.tasks.drain(exit.index()..) {
            run.by_path.remove(&task.path);
            if let Kind::Work(work) = &task.kind {
                run.burned.insert(task.path, Run::next_number(work));
            }
        }
    }

    /// Counts again what is left in each DAG and loop and what each task waits for.
    fn recount(&mut self) {
        for index in 0..self.run.tasks.len() {
            let id = TaskId::at(index);
            let left = |ids: &[TaskId]| {
                ids.iter()
                    .filter(|id| !self.run.tasks[id.index()].phase.finished())
                    .count()
            };
            let count = match &self.run.tasks[index].kind {
                Kind::Dag(frame) => left(&frame.tasks),
                Kind::Loop(state) => left(&state.items),
                Kind::Work(_) => 0,
            };
            let blocked = match self.run.tasks[index].item {
                // An item waits for nothing but its loop.
                Some(_) => 0,
                None => left(&self.run.dependencies(id)),
            };
            let task = self.task(id);
            task.blocked = blocked as u32;
            match &mut task.kind {
                Kind::Dag(frame) => frame.remaining = count,
                Kind::Loop(state) => state.remaining = count,
                Kind::Work(_) => {}
            }
        }
    }
}

impl Run {
    fn is_below(&self, mut id: TaskId, root: TaskId) -> bool {
        loop {
            if id == root {
                return true;
            }
            match self.tasks[id.index()].parent {
                Some(parent) => id = parent,
                None => return false,
            }
        }
    }
}
