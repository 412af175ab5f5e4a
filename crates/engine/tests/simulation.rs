//! Thousands of random runs in a simulated world: virtual time, a server that crashes between the
//! journal and its effects, news of work that is lost, late, doubled and out of order, and an old
//! server that comes back to life.
//!
//! `CORACLE_SEED=n cargo test -p engine --test simulation -- --nocapture` replays one seed with a
//! full log; `CORACLE_SEEDS=n` runs the first n.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test, and its log"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use engine::{Effect, Event, Kind, Outcome, Phase, Run, RunPhase, TaskPath, Timer};
use jiff::Timestamp;
use serde_json::json;
use support::random::{Dice, random_plan};
use support::*;

/// What the world knows of an attempt, whatever the server believes.
#[derive(Debug, Clone)]
enum Job {
    Pending,
    Running,
    Ended(Outcome),
    Gone,
}

type Key = (TaskPath, u32);

#[derive(Debug)]
struct Journal {
    epoch: u64,
    events: Vec<Event>,
}

impl Journal {
    fn append(&mut self, epoch: u64, version: u64, event: &Event) -> bool {
        // The run's creation counts as version 1.
        let fits = epoch == self.epoch && version == self.events.len() as u64 + 1;
        if fits {
            self.events.push(event.clone());
        }
        fits
    }
}

struct Server {
    run: Run,
    epoch: u64,
}

struct World {
    seed: u64,
    dice: Dice,
    now: i64,
    created: engine::RunCreated,
    journal: Journal,
    server: Server,
    /// A server that was believed dead.
    ghost: Option<Server>,
    jobs: BTreeMap<Key, Job>,
    /// News on its way, and when it arrives.
    mail: Vec<(i64, Event)>,
    timers: Vec<(i64, Timer)>,
    crash_percent: u64,
    retries_left: u32,
    verbose: bool,
    transitions: BTreeSet<(Phase, Phase)>,
    successes: BTreeMap<TaskPath, serde_json::Value>,
    started: BTreeMap<TaskPath, BTreeSet<u32>>,
}

impl World {
    fn new(seed: u64, verbose: bool) -> Self {
        let mut dice = Dice(seed);
        let created = created(random_plan(&mut dice));
        let (run, effects) = Run::new(created.clone()).expect("random plans are valid");
        let crash_percent = [0, 5, 30, 100][dice.roll(4) as usize];
        let retries_left = dice.roll(3) as u32;
        let mut world = Self {
            seed,
            dice,
            now: 0,
            created,
            journal: Journal {
                epoch: 1,
                events: Vec::new(),
            },
            server: Server { run, epoch: 1 },
            ghost: None,
            jobs: BTreeMap::new(),
            mail: Vec::new(),
            timers: Vec::new(),
            crash_percent,
            retries_left,
            verbose,
            transitions: BTreeSet::new(),
            successes: BTreeMap::new(),
            started: BTreeMap::new(),
        };
        world.log(|| format!("{:#?}", world.created.plan));
        world.carry_out(effects);
        world
    }

    fn log(&self, line: impl FnOnce() -> String) {
        if self.verbose {
            println!("[{}] {}", self.now, line());
        }
    }

    fn at(&self) -> Timestamp {
        at(self.now)
    }

    /// One message for the server: fold, append, maybe crash, act.
    fn deliver(&mut self, event: &Event) {
        if !self.server.run.is_news(event) {
            // News that is none must change nothing.
            let mut copy = self.server.run.clone();
            if !matches!(
                event,
                Event::RetryRequested { .. } | Event::TerminateRequested { .. }
            ) {
                let effects = copy.apply(event).unwrap();
                assert!(
                    effects.is_empty(),
                    "seed {}: {event:?} is no news",
                    self.seed
                );
            }
            return;
        }
        let before = self.server.run.clone();
        let effects = self
            .server
            .run
            .apply(event)
            .unwrap_or_else(|e| panic!("seed {}: {e}", self.seed));
        self.log(|| format!("{event:?} -> {:?}", lines(&effects)));
        self.check_step(&before, event, &effects);
        let appended = self
            .journal
            .append(self.server.epoch, before.version(), event);
        assert!(
            appended,
            "seed {}: the only server could not write",
            self.seed
        );
        if let Event::TaskFinished {
            task,
            outcome: Outcome::Succeeded(outputs),
            ..
        } = event
        {
            let outputs = json!(outputs.parameters);
            let again = self.successes.insert(task.clone(), outputs);
            assert!(
                again.is_none(),
                "seed {}: {task} succeeded twice",
                self.seed
            );
        }
        if matches!(event, Event::RetryRequested { .. }) {
            // The exit handler starts over.
            self.successes
                .retain(|task, _| !task.as_str().starts_with(".onExit"));
        }
        if self.dice.chance(self.crash_percent) {
            self.restart();
        } else {
            self.carry_out(effects);
        }
    }

    fn check_step(&mut self, before: &Run, event: &Event, effects: &[Effect]) {
        let run = &self.server.run;
        for (index, task) in run.tasks().iter().enumerate() {
            let from = before.tasks().get(index).filter(|t| t.path == task.path);
            let from = from.map_or(Phase::Waiting, |t| t.phase);
            // The exit handler is made anew when the run is retried.
            if from != task.phase && !task.path.as_str().starts_with(".onExit") {
                self.transitions.insert((from, task.phase));
            }
            let was_over = from.finished() && from != task.phase;
            assert!(
                !was_over || matches!(event, Event::RetryRequested { .. }),
                "seed {}: {} went from {from:?} to {:?}",
                self.seed,
                task.path,
                task.phase
            );
        }
        for effect in effects {
            let Effect::StartWork(start) = effect else {
                continue;
            };
            assert!(
                !run.phase().finished(),
                "seed {}: {} starts after the end",
                self.seed,
                start.task
            );
            let task = run.task(&start.task).unwrap();
            let mut of = task;
            if of.item.is_some() {
                of = &run.tasks()[of.parent.unwrap().index()];
            }
            let id =
                engine::TaskId::at(run.tasks().iter().position(|t| t.path == of.path).unwrap());
            for dependency in run.dependencies(id) {
                let dependency = &run.tasks()[dependency.index()];
                assert!(
                    dependency.phase.finished(),
                    "seed {}: {} starts before {}",
                    self.seed,
                    start.task,
                    dependency.path
                );
            }
        }
        let live = run
            .outstanding()
            .iter()
            .filter(|e| matches!(e, Effect::StartWork(_)))
            .count();
        if let Some(limit) = self.created.plan.parallelism {
            assert!(
                live <= limit as usize,
                "seed {}: {live} at once, allowed {limit}",
                self.seed
            );
        }
        self.check_loops();
        let run = &self.server.run;
        if run.phase().finished() {
            assert_eq!(live, 0, "seed {}: work goes on after the end", self.seed);
            let open = run.tasks().iter().find(|t| !t.phase.finished());
            assert!(
                open.is_none(),
                "seed {}: {} is left",
                self.seed,
                open.unwrap().path
            );
        } else {
            let alive = run.outstanding();
            assert!(
                !alive.is_empty(),
                "seed {}: nothing is going to happen any more",
                self.seed
            );
        }
    }

    /// No loop has more iterations going on than it may.
    fn check_loops(&self) {
        let run = &self.server.run;
        for task in run.tasks() {
            let (Kind::Loop(state), Some(frame)) = (&task.kind, task.frame) else {
                continue;
            };
            let template = &self.created.plan.templates[&run.tasks()[frame.index()].template];
            let engine::Body::Dag(dag) = &template.body else {
                continue;
            };
            let name = task.path.as_str().rsplit('.').next().unwrap_or_default();
            let spec = dag.tasks.iter().find(|spec| spec.name == name).unwrap();
            let Some(limit) = spec.parallelism.filter(|&limit| limit > 0) else {
                continue;
            };
            let goes_on = |id: &&engine::TaskId| {
                let phase = run.tasks()[id.index()].phase;
                matches!(phase, Phase::Pending | Phase::Running)
            };
            let live = state.items.iter().filter(goes_on).count();
            assert!(
                live <= limit as usize,
                "seed {}: {live} iterations of {} at once, allowed {limit}",
                self.seed,
                task.path
            );
        }
    }

    /// The server dies and another takes over: everything it knows is in the journal.
    fn restart(&mut self) {
        self.log(|| "crash".to_owned());
        self.journal.epoch += 1;
        let run = Run::replay(self.created.clone(), &self.journal.events).unwrap();
        assert_eq!(
            run.outstanding(),
            self.server.run.outstanding(),
            "seed {}: replay",
            self.seed
        );
        for (path, outputs) in &self.successes {
            let Some(task) = run.task(path) else {
                panic!("seed {}: lost {path}", self.seed)
            };
            assert_eq!(
                json!(task.outputs),
                *outputs,
                "seed {}: lost output of {path}",
                self.seed
            );
        }
        let old = std::mem::replace(
            &mut self.server,
            Server {
                run,
                epoch: self.journal.epoch,
            },
        );
        if self.dice.chance(30) {
            self.ghost = Some(old);
        }
        self.timers.clear();
        let effects = self.server.run.outstanding();
        self.carry_out(effects);
        self.relist();
    }

    /// A server that was believed dead wakes up and writes: it must not succeed.
    fn haunt(&mut self) {
        let Some(mut ghost) = self.ghost.take() else {
            return;
        };
        let Some((path, attempt)) = self.jobs.keys().next().cloned() else {
            return;
        };
        let event = Event::TaskFinished {
            task: path,
            attempt,
            at: self.at(),
            outcome: succeeded("ghost"),
        };
        let before = ghost.run.version();
        if ghost.run.is_news(&event) && ghost.run.apply(&event).is_ok() {
            let length = self.journal.events.len();
            assert!(!self.journal.append(ghost.epoch, before, &event));
            assert_eq!(
                self.journal.events.len(),
                length,
                "seed {}: an old epoch wrote",
                self.seed
            );
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::StartWork(start) => {
                    let key = (start.task.clone(), start.attempt);
                    self.started
                        .entry(start.task.clone())
                        .or_default()
                        .insert(start.attempt);
                    self.jobs.entry(key).or_insert(Job::Pending);
                }
                Effect::StopWork { task, attempt } => {
                    if let Some(job) = self.jobs.get_mut(&(task, attempt)) {
                        *job = Job::Gone;
                    }
                }
                Effect::StartTimer { timer, at } => self.timers.push((at.as_second(), timer)),
                Effect::RunFinished { .. } => {}
            }
        }
    }

    fn news_of(&self, key: &Key, job: &Job) -> Option<Event> {
        let (task, attempt, at) = (key.0.clone(), key.1, self.at());
        let error = |message: &str| Outcome::Error {
            message: message.into(),
            transient: true,
            stop: false,
        };
        Some(match job {
            Job::Pending => return None,
            Job::Running => {
                let host = Some("node".to_owned());
                Event::TaskProgressed {
                    task,
                    attempt,
                    at,
                    running: true,
                    host,
                    message: None,
                }
            }
            Job::Ended(outcome) => Event::TaskFinished {
                task,
                attempt,
                at,
                outcome: outcome.clone(),
            },
            Job::Gone => Event::TaskFinished {
                task,
                attempt,
                at,
                outcome: error("deleted"),
            },
        })
    }

    /// News may get lost, doubled and late.
    fn send(&mut self, event: Event) {
        if self.dice.chance(15) {
            return;
        }
        for _ in 0..=self.dice.roll(10) / 8 {
            let arrives = self.now + self.dice.roll(6) as i64;
            self.mail.push((arrives, event.clone()));
        }
    }

    /// The watch starts over and shows everything there is.
    fn relist(&mut self) {
        let all: Vec<_> = self
            .jobs
            .iter()
            .filter_map(|(key, job)| self.news_of(key, job))
            .collect();
        for event in all {
            let arrives = self.now + self.dice.roll(3) as i64;
            self.mail.push((arrives, event));
        }
    }

    /// Something happens to some work.
    fn work_goes_on(&mut self) {
        let open: Vec<Key> = self
            .jobs
            .iter()
            .filter(|(_, job)| matches!(job, Job::Pending | Job::Running))
            .map(|(key, _)| key.clone())
            .collect();
        if open.is_empty() {
            return;
        }
        let key = open[self.dice.roll(open.len() as u64) as usize].clone();
        let next = match (&self.jobs[&key], self.dice.roll(20)) {
            (_, 0) => Job::Gone,
            (Job::Pending, 1) => Job::Ended(Outcome::Error {
                message: "no image".into(),
                transient: false,
                stop: true,
            }),
            (Job::Pending, _) => Job::Running,
            (_, 1..=3) => Job::Ended(failed()),
            (_, 4) => Job::Ended(Outcome::Lost {
                message: "shutdown".into(),
            }),
            (_, roll) => Job::Ended(succeeded(if roll % 3 == 0 { "heads" } else { "tails" })),
        };
        if let Some(event) = self.news_of(&key, &next) {
            self.send(event);
        }
        self.jobs.insert(key, next);
    }

    fn run_to_the_end(&mut self) {
        for _ in 0..20_000 {
            if self.server.run.phase().finished() && !self.retry_maybe() {
                self.check_end();
                return;
            }
            match self.dice.roll(100) {
                0..=1 => self.relist(),
                2 => self.restart(),
                3 => self.haunt(),
                4 if self.dice.chance(8) => {
                    let event = Event::TerminateRequested { at: self.at() };
                    self.deliver(&event);
                }
                5..=44 => self.work_goes_on(),
                _ => self.pass_time(),
            }
        }
        panic!(
            "seed {}: the run does not end: {:?}",
            self.seed,
            lines(&self.server.run.outstanding())
        );
    }

    fn retry_maybe(&mut self) -> bool {
        let failed = matches!(self.server.run.phase(), RunPhase::Failed | RunPhase::Error);
        if !failed || self.retries_left == 0 {
            return false;
        }
        self.retries_left -= 1;
        let event = Event::RetryRequested { at: self.at() };
        self.deliver(&event);
        true
    }

    fn pass_time(&mut self) {
        self.now += 1;
        let now = self.now;
        let arrived: Vec<_> = self.mail.extract_if(.., |(when, _)| *when <= now).collect();
        for (_, event) in arrived {
            self.deliver(&event);
        }
        let due: Vec<_> = self
            .timers
            .extract_if(.., |(when, _)| *when <= now)
            .collect();
        for (when, timer) in due {
            let event = Event::TimerFired { timer, at: at(now) };
            self.deliver(&event);
            // A server that crashed has set its timers again.
            assert!(when <= now);
        }
    }

    fn check_end(&self) {
        let run = &self.server.run;
        for task in run.tasks() {
            let Kind::Work(work) = &task.kind else {
                continue;
            };
            let template = &self.created.plan.templates[&task.template];
            let limit: usize = template
                .retry
                .as_ref()
                .map_or(0, |r| r.limit.as_ref().unwrap().source().parse().unwrap());
            let tries = 3; // the run itself may be retried twice
            let counted = work.attempts.iter().filter(|a| !a.lost).count();
            assert!(
                counted <= (limit + 1) * tries,
                "seed {}: {} has {counted} attempts",
                self.seed,
                task.path
            );
            let succeeded = work
                .attempts
                .iter()
                .filter(|a| a.phase == Phase::Succeeded)
                .count();
            assert!(
                succeeded <= 1,
                "seed {}: {} succeeded {succeeded} times",
                self.seed,
                task.path
            );
            assert_eq!(
                succeeded == 1,
                task.phase == Phase::Succeeded,
                "seed {}",
                self.seed
            );
        }
        let failed = run.tasks().iter().any(|t| t.phase.unsuccessful());
        let stopped = run.message().is_some();
        let succeeded = run.phase() == RunPhase::Succeeded;
        assert_eq!(
            succeeded,
            !failed && !stopped,
            "seed {}: {:?}",
            self.seed,
            run.phase()
        );
    }
}

fn number(name: &str) -> Option<u64> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test is configured by its environment"
    )]
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {value}")),
    )
}

#[test]
fn runs_survive_crashes_and_bad_news() {
    let (seeds, verbose) = match number("CORACLE_SEED") {
        Some(seed) => (seed..seed + 1, true),
        None => (0..number("CORACLE_SEEDS").unwrap_or(2000), false),
    };
    let mut seen = BTreeSet::new();
    for seed in seeds.clone() {
        let mut world = World::new(seed, verbose);
        world.run_to_the_end();
        seen.append(&mut world.transitions);
    }
    if verbose || seeds.end < 1000 {
        return;
    }
    use Phase::{Error, Failed, Omitted, Pending, Running, Skipped, Succeeded, Waiting};
    let wanted = BTreeSet::from([
        (Waiting, Pending),
        (Waiting, Running),
        (Waiting, Skipped),
        (Waiting, Omitted),
        (Waiting, Error),
        (Pending, Running),
        (Pending, Succeeded),
        (Pending, Failed),
        (Pending, Error),
        (Running, Pending),
        (Running, Succeeded),
        (Running, Failed),
        (Running, Error),
        // Only a retry of the run takes an end back.
        (Failed, Waiting),
        (Failed, Running),
        (Failed, Pending),
        (Error, Running),
        (Error, Pending),
        (Omitted, Waiting),
        (Omitted, Pending),
    ]);
    let missing: Vec<_> = wanted.difference(&seen).collect();
    assert!(missing.is_empty(), "no seed showed {missing:?}");
    let forbidden: Vec<_> = seen
        .iter()
        .filter(|(from, _)| matches!(from, Succeeded | Skipped))
        .collect();
    assert!(forbidden.is_empty(), "{forbidden:?}");
}
