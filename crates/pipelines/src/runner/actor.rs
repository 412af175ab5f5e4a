//! The task of one unfinished run: news in, journal, effects out, in this order and no other.
//!
//! Whatever arrives together is one append. Effects are futures of the task itself and end in news
//! for it, so nothing of a run goes on without its task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use engine::{Effect, Event, Outcome, Outputs, Run, StartWork, TaskPath};
use futures::future::{AbortHandle, BoxFuture, OptionFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use stdx::{Backoff, OnError};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{
    Error, Shared, cache, import, news, outputs, patience, pod, resource, run_status, step_log,
};
use crate::journal::{self, Record, Status};

/// A look at a run, by somebody who keeps what he saw.
pub(crate) type Look = Box<dyn FnOnce(&Run, &Record, &Value) + Send>;

/// What a run's task is told.
pub(crate) enum Message {
    /// A Pod of the run is there or has changed.
    Pod(Arc<Pod>),
    /// A Pod of the run is gone.
    PodGone(Arc<Pod>),
    /// The watch has started over, and these Pods are all there are.
    PodsAre(Arc<BTreeSet<String>>),
    /// Somebody asks for something.
    Command(Command, oneshot::Sender<Result<(), Error>>),
    /// Somebody wants to look.
    Inspect(Look),
    /// Stop at once, without another journal entry.
    Forget(oneshot::Sender<()>),
}

/// What somebody may ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Command {
    Terminate,
    Retry,
}

/// At most this many messages share an append.
const BATCH: usize = 256;

/// News of progress alone waits this long for something to be written down with. The Pods tell it
/// again after a crash.
const PROGRESS_WAITS: Duration = Duration::from_millis(200);

pub(crate) struct Actor {
    shared: Arc<Shared>,
    record: Arc<Record>,
    manifest: Arc<Value>,
    run: Run,
    inbox: mpsc::UnboundedReceiver<Message>,
    /// Requests to the cluster; each may end in news.
    work: FuturesUnordered<BoxFuture<'static, Option<Event>>>,
    timers: FuturesUnordered<BoxFuture<'static, Event>>,
    /// Attempts whose Pod the watch has shown. Only these can be missed.
    seen: BTreeSet<(TaskPath, u32)>,
    /// Ends a part of `work` that waits for something, when its attempt is no longer wanted.
    waits: BTreeMap<(TaskPath, u32), AbortHandle>,
    /// Attempts whose Pod no node can take.
    unplaced: BTreeSet<(TaskPath, u32)>,
    /// What the attempts that have a Pod or wait for one hold, or will.
    slots: BTreeMap<(TaskPath, u32), Arc<OnceLock<OwnedSemaphorePermit>>>,
    /// How many events the journal has.
    recorded: u64,
    /// Events that are in the run and not yet in the journal: all of them progress.
    held: Vec<Event>,
    /// When they are written down at the latest.
    held_until: OptionFuture<BoxFuture<'static, ()>>,
    /// Attempts whose Pod was seen to have ended.
    ended: BTreeSet<(TaskPath, u32)>,
    /// Of these, the ones whose outputs are on their way.
    fetching: BTreeSet<(TaskPath, u32)>,
}

/// Whether the task goes on.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    Stop,
}

impl Actor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        record: Arc<Record>,
        manifest: Arc<Value>,
        run: Run,
        inbox: mpsc::UnboundedReceiver<Message>,
    ) -> Self {
        Self {
            recorded: run.version(),
            held: Vec::new(),
            held_until: None.into(),
            shared,
            record,
            manifest,
            run,
            inbox,
            work: FuturesUnordered::new(),
            timers: FuturesUnordered::new(),
            seen: BTreeSet::new(),
            waits: BTreeMap::new(),
            unplaced: BTreeSet::new(),
            slots: BTreeMap::new(),
            ended: BTreeSet::new(),
            fetching: BTreeSet::new(),
        }
    }

    /// Carries out `effects` and then whatever follows, until the run is over.
    pub(crate) async fn live(mut self, effects: Vec<Effect>) -> Result<(), journal::Error> {
        self.carry_out(effects);
        let mut batch = Vec::new();
        loop {
            if self.run.phase().finished() && self.work.is_empty() && batch.is_empty() {
                match self.shared.retire(&self.record.run, &mut self.inbox) {
                    Some(message) => batch.push(message),
                    None => return Ok(()),
                }
            }
            let mut events = Vec::new();
            if batch.is_empty() {
                tokio::select! {
                    _ = self.inbox.recv_many(&mut batch, BATCH) => {}
                    Some(news) = self.work.next(), if !self.work.is_empty() => events.extend(news),
                    Some(fired) = self.timers.next(), if !self.timers.is_empty() => events.push(fired),
                    Some(()) = &mut self.held_until => self.record(Vec::new()).await?,
                }
            }
            if self.turn(&mut batch, events).await? == Next::Stop {
                return Ok(());
            }
        }
    }

    async fn turn(
        &mut self,
        batch: &mut Vec<Message>,
        events: Vec<Event>,
    ) -> Result<Next, journal::Error> {
        let mut applied = Vec::new();
        let mut effects = Vec::new();
        let mut answers = Vec::new();
        let mut looks = Vec::new();
        let mut forget = None;
        for event in events {
            self.apply(event, &mut applied, &mut effects);
        }
        for message in batch.drain(..) {
            match message {
                Message::Pod(pod) => {
                    for event in self.news_of(&pod) {
                        self.apply(event, &mut applied, &mut effects);
                    }
                    self.lose_patience(&pod);
                }
                Message::PodGone(pod) => {
                    // It may have ended before it went, unseen.
                    let mut events = self.news_of(&pod);
                    events.retain(|event| matches!(event, Event::TaskFinished { .. }));
                    if !self.is_fetching(&pod) {
                        events.extend(news::gone(&pod, self.shared.clock.now()));
                    }
                    for event in events {
                        self.apply(event, &mut applied, &mut effects);
                    }
                }
                Message::PodsAre(names) => {
                    for event in self.missing(&names) {
                        self.apply(event, &mut applied, &mut effects);
                    }
                }
                Message::Command(command, reply) => {
                    let at = self.shared.clock.now();
                    let event = match command {
                        Command::Terminate => Event::TerminateRequested { at },
                        Command::Retry => Event::RetryRequested { at },
                    };
                    match self.run.apply(&event) {
                        Ok(more) => {
                            effects.extend(more);
                            applied.push(event);
                            answers.push((reply, Ok(())));
                        }
                        Err(error) => answers.push((reply, Err(Error::State(error.to_string())))),
                    }
                }
                Message::Inspect(look) => looks.push(look),
                Message::Forget(reply) => forget = Some(reply),
            }
        }
        if let Some(reply) = forget {
            while self
                .shared
                .retire(&self.record.run, &mut self.inbox)
                .is_some()
            {}
            // Nobody waiting any more is fine.
            let _ = reply.send(());
            return Ok(Next::Stop);
        }
        let progress = |event: &Event| matches!(event, Event::TaskProgressed { .. });
        if !applied.iter().all(progress) {
            self.record(applied).await?;
        } else if !applied.is_empty() {
            if self.held.is_empty() {
                let pause = self.shared.clock.sleep(PROGRESS_WAITS);
                self.held_until = Some(pause).into();
            }
            self.held.append(&mut applied);
        }
        self.carry_out(effects);
        for (reply, answer) in answers {
            let _ = reply.send(answer);
        }
        for look in looks {
            look(&self.run, &self.record, &self.manifest);
        }
        Ok(Next::GoOn)
    }

    /// Writes down what is held, and `events` after it.
    async fn record(&mut self, events: Vec<Event>) -> Result<(), journal::Error> {
        let mut all = std::mem::take(&mut self.held);
        self.held_until = None.into();
        all.extend(events);
        let status = Status::of(&self.run);
        let run = &self.record.run;
        tracing::trace!(run_id = run, events = all.len(), "append begins");
        append(&self.shared, run, self.recorded, &all, &status).await?;
        tracing::trace!(run_id = run, "appended");
        self.recorded = self.run.version();
        let answer = run_status(run, self.record.workflow.clone(), &status);
        self.shared.publish(&answer);
        Ok(())
    }

    fn apply(&mut self, event: Event, applied: &mut Vec<Event>, effects: &mut Vec<Effect>) {
        if !self.run.is_news(&event) {
            return;
        }
        match self.run.apply(&event) {
            Ok(more) => {
                effects.extend(more);
                if let Event::TaskFinished { task, attempt, .. } = &event {
                    self.no_longer_wanted(&(task.clone(), *attempt));
                }
                applied.push(event);
            }
            Err(error) => tracing::warn!(run_id = self.record.run, "news dropped: {error}"),
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::StartWork(start) => {
                    let settings = self.run.settings();
                    let (shared, record) = (self.shared.clone(), self.record.clone());
                    let start = *start;
                    match start.kind {
                        engine::WorkKind::Container => {
                            let retried = self.has_retry(&start.template);
                            let key = (start.task.clone(), start.attempt);
                            let slot = Arc::new(OnceLock::new());
                            self.slots.insert(key.clone(), slot.clone());
                            self.wait(key, async move {
                                if let Ok(free) = shared.slots.clone().acquire_owned().await {
                                    drop(slot.set(free));
                                }
                                pod::start(shared, record, settings, start, retried).await
                            });
                        }
                        engine::WorkKind::Resource => {
                            let key = (start.task.clone(), start.attempt);
                            self.wait(key, resource::carry_out(shared, record, start));
                        }
                        engine::WorkKind::Import => {
                            self.work.push(Box::pin(async move {
                                Some(import::carry_out(&shared, start))
                            }));
                        }
                    }
                }
                Effect::StopWork { task, attempt } => {
                    self.no_longer_wanted(&(task.clone(), attempt));
                    let name = self.pod_name(&task, attempt);
                    if let Some(name) = name {
                        self.work
                            .push(Box::pin(pod::stop(self.shared.clone(), name)));
                    }
                }
                Effect::StartTimer { timer, at } => {
                    let clock = self.shared.clock.clone();
                    self.timers.push(Box::pin(async move {
                        let wait = at.duration_since(clock.now());
                        clock
                            .sleep(Duration::try_from(wait).unwrap_or_default())
                            .await;
                        Event::TimerFired {
                            timer,
                            at: clock.now().max(at),
                        }
                    }));
                }
                Effect::RunFinished { phase } => {
                    tracing::info!(run_id = self.record.run, "run is over: {}", phase.as_str());
                    self.timers.clear();
                    for wait in std::mem::take(&mut self.waits).into_values() {
                        wait.abort();
                    }
                    self.slots.clear();
                }
            }
        }
    }

    /// Does something that may wait for long, until it ends in news or its attempt is stopped.
    fn wait(
        &mut self,
        attempt: (TaskPath, u32),
        work: impl Future<Output = Option<Event>> + Send + 'static,
    ) {
        let (work, handle) = futures::future::abortable(work);
        self.waits.insert(attempt, handle);
        self.work
            .push(Box::pin(work.map(|ended| ended.ok().flatten())));
    }

    /// Whatever an attempt waits for is given up, and its slot is free.
    fn no_longer_wanted(&mut self, attempt: &(TaskPath, u32)) {
        if let Some(wait) = self.waits.remove(attempt) {
            wait.abort();
        }
        self.slots.remove(attempt);
        self.unplaced.remove(attempt);
    }

    fn has_retry(&self, template: &str) -> bool {
        self.run
            .created()
            .plan
            .templates
            .get(template)
            .is_some_and(|t| t.retry.is_some())
    }

    fn pod_name(&self, task: &TaskPath, attempt: u32) -> Option<String> {
        let state = self.run.task(task)?;
        let retried = self.has_retry(&state.template);
        Some(
            pod::Names::of(
                &self.record.workflow,
                task,
                &state.template,
                attempt,
                retried,
            )
            .pod,
        )
    }

    /// What a Pod's state means for its attempt.
    fn news_of(&mut self, pod: &Arc<Pod>) -> Vec<Event> {
        let Some((task, attempt)) = news::attempt_of(pod) else {
            return Vec::new();
        };
        let Some(Effect::StartWork(start)) = self.run.start_of(&task, attempt) else {
            return Vec::new();
        };
        let key = (task, attempt);
        self.seen.insert(key.clone());
        let at = self.shared.clock.now();
        let news = news::of(pod, &start, at);
        if news.ended && self.ended.insert(key.clone()) {
            self.keep_log(pod);
            if let Some(uri) = news.outputs_at {
                self.fetching.insert(key);
                let shared = self.shared.clone();
                let settings = self.run.settings();
                let key = cache::key(&shared, &self.record, &settings, &start);
                let task = start.task.to_string();
                let fetch = outputs::fetch(shared, pod.clone(), *start, uri, at);
                let (db, run) = (self.shared.db.clone(), self.record.run.clone());
                self.work.push(Box::pin(async move {
                    let event = fetch.await?;
                    if let (Some(key), Some(outputs)) = (key, outputs_of(&event)) {
                        let at = at.as_microsecond();
                        cache::remember(db, key, run, task, at, outputs).await;
                    }
                    Some(event)
                }));
            } else {
                self.remember(&start, &news.events);
            }
        }
        news.events
    }

    fn is_fetching(&self, pod: &Pod) -> bool {
        news::attempt_of(pod).is_some_and(|key| self.fetching.contains(&key))
    }

    /// Copies the log of a step that has ended, besides everything else.
    fn keep_log(&self, pod: &Pod) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let keep = step_log::keep(self.shared.clone(), self.record.run.clone(), name);
        let supervisor = &self.shared.supervisor;
        supervisor.spawn("step log", OnError::Log, async move {
            keep.await;
            Ok::<(), std::convert::Infallible>(())
        });
    }

    /// Puts the outputs of a task that succeeded into the cache.
    fn remember(&self, start: &StartWork, events: &[Event]) {
        let succeeded = events.iter().find_map(outputs_of);
        let (Some(outputs), settings) = (succeeded, self.run.settings()) else {
            return;
        };
        let Some(key) = cache::key(&self.shared, &self.record, &settings, start) else {
            return;
        };
        let remember = cache::remember(
            self.shared.db.clone(),
            key,
            self.record.run.clone(),
            start.task.to_string(),
            self.shared.clock.now().as_microsecond(),
            outputs,
        );
        let supervisor = &self.shared.supervisor;
        supervisor.spawn("task cache", OnError::Log, async move {
            remember.await;
            Ok::<(), std::convert::Infallible>(())
        });
    }

    /// A Pod that no node can take does not wait for ever.
    fn lose_patience(&mut self, pod: &Arc<Pod>) {
        let Some((task, attempt)) = news::attempt_of(pod) else {
            return;
        };
        let key = (task, attempt);
        if patience::hopeless(pod).is_some()
            && self.run.start_of(&key.0, attempt).is_some()
            && self.unplaced.insert(key.clone())
        {
            // Its Pod is there, so the wait for that one is over.
            self.wait(key, patience::run_out(self.shared.clone(), pod.clone()));
        }
    }

    /// Attempts whose Pod was there and is not among `names`.
    fn missing(&mut self, names: &BTreeSet<String>) -> Vec<Event> {
        let at = self.shared.clock.now();
        let gone: Vec<_> = self
            .seen
            .iter()
            .filter(|key| !self.fetching.contains(*key))
            .filter(|(task, attempt)| {
                self.pod_name(task, *attempt)
                    .is_some_and(|name| !names.contains(&name))
            })
            .cloned()
            .collect();
        gone.into_iter()
            .map(|key| {
                self.seen.remove(&key);
                Event::TaskFinished {
                    task: key.0,
                    attempt: key.1,
                    at,
                    outcome: Outcome::Error {
                        message: "pod deleted".to_owned(),
                        transient: true,
                        stop: false,
                    },
                }
            })
            .collect()
    }
}

/// The outputs in the news that an attempt succeeded.
fn outputs_of(event: &Event) -> Option<Outputs> {
    match event {
        Event::TaskFinished {
            outcome: Outcome::Succeeded(outputs),
            ..
        } => Some(outputs.clone()),
        _ => None,
    }
}

/// Appends, and tries again while the disk is full or the like: the state in memory is ahead of the
/// journal, so nothing may happen before this has succeeded.
async fn append(
    shared: &Shared,
    run: &str,
    before: u64,
    events: &[Event],
    status: &Status,
) -> Result<(), journal::Error> {
    let mut pause = Backoff::new(Duration::from_millis(100), 2.0, Duration::from_secs(10));
    loop {
        match shared.journal.append(run, before, events, status).await {
            Ok(()) => return Ok(()),
            Err(error) if error.retryable() => {
                let problem = stdx::error::chain(&error);
                tracing::error!(run_id = run, "write the journal, will try again: {problem}");
                shared.clock.sleep(pause.next_delay()).await;
            }
            Err(error) => return Err(error),
        }
    }
}
