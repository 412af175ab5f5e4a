//! The loop that fires recurring runs: it sleeps until the next firing, a change, or the end of a
//! run that another waits for.
//!
//! A firing is recorded in the transaction that makes its run (`store::recurring::fire`), so the
//! loop may be killed anywhere and simply starts over. How a run is made is handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use db::Db;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use stdx::{Backoff, SharedClock};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast};

use super::Settings;
use super::schedule::{Decision, Schedule};
use crate::runner::RunStatus;
use crate::store::recurring::{self as store, Firing};
use crate::store::{self as stores};

/// The wall clock may be set, or the machine sleep: nothing is overslept by more than this.
const NAP: Duration = Duration::from_secs(5);

/// So many firings that are due together are made together.
const TOGETHER: usize = 32;

/// Why a firing made no run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It is not what it was when the firing was decided: look again.
    Changed,
    /// It cannot be made now, for this reason.
    Failed(String),
}

/// Makes the run of a firing.
pub(crate) type Launch =
    Arc<dyn Fn(Firing) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

/// The loop.
pub(crate) struct Triggers {
    db: Db,
    clock: SharedClock,
    settings: Settings,
    changed: Arc<Notify>,
    ended: broadcast::Receiver<RunStatus>,
    launch: Launch,
    entries: BTreeMap<String, Entry>,
    /// Whether the table has to be read again.
    stale: bool,
}

/// An enabled recurring run.
struct Entry {
    schedule: Schedule,
    fired: u64,
    /// The active runs that hold its next firing up; empty if none do.
    waits_for: BTreeSet<String>,
    backoff: Backoff,
    /// After a failure: not before this moment of the monotonic clock.
    retry: Option<Duration>,
}

/// What became of one look at an entry.
enum Looked {
    Fired(Timestamp),
    Full(BTreeSet<String>),
    Failed(Failure),
}

impl Triggers {
    pub(crate) fn new(
        db: Db,
        clock: SharedClock,
        settings: Settings,
        changed: Arc<Notify>,
        ended: broadcast::Receiver<RunStatus>,
        launch: Launch,
    ) -> Self {
        Self {
            db,
            clock,
            settings,
            changed,
            ended,
            launch,
            entries: BTreeMap::new(),
            stale: true,
        }
    }

    /// Fires until it is dropped.
    pub(crate) async fn run(mut self) -> Result<(), stores::Error> {
        let changed = self.changed.clone();
        loop {
            let pause = match self.turn().await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!("fire recurring runs: {}", stdx::error::chain(&error));
                    self.stale = true;
                    Some(NAP)
                }
            };
            let sleep = async {
                match pause {
                    Some(pause) => self.clock.sleep(pause.min(NAP)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = changed.notified() => self.stale = true,
                ended = self.ended.recv() => match ended {
                    Ok(status) => self.note_end(&status),
                    Err(RecvError::Lagged(_)) => self.forget_waiting(),
                    Err(RecvError::Closed) => return Ok(()),
                },
            }
            while let Ok(status) = self.ended.try_recv() {
                self.note_end(&status);
            }
        }
    }

    fn note_end(&mut self, status: &RunStatus) {
        if status.phase.finished() {
            for entry in self.entries.values_mut() {
                if entry.waits_for.remove(&status.run_id) {
                    entry.waits_for.clear();
                }
            }
        }
    }

    fn forget_waiting(&mut self) {
        for entry in self.entries.values_mut() {
            entry.waits_for.clear();
        }
    }

    /// Fires what is due, and answers how long there is nothing to do.
    async fn turn(&mut self) -> Result<Option<Duration>, stores::Error> {
        loop {
            if self.stale {
                self.reload().await?;
            }
            let (now, monotonic) = (self.clock.now(), self.clock.monotonic());
            let zone = &self.settings.zone;
            let mut pause: Option<Duration> = None;
            let mut due = Vec::new();
            for (id, entry) in &self.entries {
                let wait = match entry.schedule.decide(now, 0, zone) {
                    _ if entry.retry.is_some_and(|at| at > monotonic) => {
                        entry.retry.map(|at| at.saturating_sub(monotonic))
                    }
                    Decision::Idle => None,
                    Decision::Wait(at) => Duration::try_from(at.duration_since(now)).ok(),
                    Decision::Full(_) | Decision::Fire(_) => {
                        if entry.waits_for.is_empty() {
                            due.push(id.clone());
                        }
                        None
                    }
                };
                pause = [pause, wait].into_iter().flatten().min();
            }
            if due.is_empty() {
                return Ok(pause);
            }
            let this = &*self;
            let looks = due.into_iter().map(|id| async move {
                let looked = this.look(&id, now).await;
                (id, looked)
            });
            let looked: Vec<_> = futures::stream::iter(looks)
                .buffer_unordered(TOGETHER)
                .collect()
                .await;
            for (id, looked) in looked {
                self.note(&id, looked?).await?;
            }
        }
    }

    async fn reload(&mut self) -> Result<(), stores::Error> {
        self.stale = false;
        self.entries = store::enabled(&self.db)
            .await?
            .into_iter()
            .map(|(id, schedule, fired)| {
                let entry = Entry {
                    schedule,
                    fired,
                    waits_for: BTreeSet::new(),
                    backoff: Backoff::new(Duration::from_secs(1), 2.0, Duration::from_secs(300)),
                    retry: None,
                };
                (id, entry)
            })
            .collect();
        Ok(())
    }

    /// Fires one that is due, unless enough of its runs are active.
    async fn look(&self, id: &str, now: Timestamp) -> Result<Looked, stores::Error> {
        let entry = &self.entries[id];
        let active = store::active(&self.db, id).await?;
        let decision = entry
            .schedule
            .decide(now, active.len() as u32, &self.settings.zone);
        let Decision::Fire(at) = decision else {
            return Ok(Looked::Full(active.into_iter().collect()));
        };
        let firing = Firing {
            recurring_run: id.to_owned(),
            at,
            index: entry.fired + 1,
        };
        Ok(match (self.launch)(firing).await {
            Ok(()) => Looked::Fired(at),
            Err(failure) => Looked::Failed(failure),
        })
    }

    async fn note(&mut self, id: &str, looked: Looked) -> Result<(), stores::Error> {
        let monotonic = self.clock.monotonic();
        let Some(entry) = self.entries.get_mut(id) else {
            return Ok(());
        };
        match looked {
            Looked::Fired(at) => {
                entry.schedule.last = Some(at);
                entry.fired += 1;
                entry.retry = None;
                entry.backoff.reset();
            }
            Looked::Full(active) => entry.waits_for = active,
            Looked::Failed(Failure::Changed) => self.stale = true,
            Looked::Failed(Failure::Failed(why)) => {
                tracing::warn!(recurring_run = id, "no run was made: {why}");
                entry.retry = Some(monotonic + entry.backoff.next_delay());
                store::fail(&self.db, id, why).await?;
            }
        }
        Ok(())
    }
}
