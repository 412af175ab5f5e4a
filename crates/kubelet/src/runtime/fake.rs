//! A runtime without processes, for tests: what is started, stopped and asked is kept for looking
//! at, and the test says when a container ends and what a command answers.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Cursor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::{
    ContainerRef, ContainerSpec, Error, ExecSpec, Exit, Image, ImageError, ImageKind, ImageService,
    Recovered, Runtime, RuntimeInfo, Started, Stats, Streams,
};
use stdx::SharedClock;

/// What a container does when it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// It runs until the test ends it or a signal arrives; SIGTERM ends it with 143.
    Run,
    /// It runs and ignores SIGTERM.
    Stubborn,
    /// It ends at once.
    Exit(i32),
    /// It cannot be started.
    Fail(Error),
}

type Script = Box<dyn Fn(&ContainerSpec) -> Behaviour + Send + Sync>;
type Answer = Box<dyn Fn(&ContainerRef, &ExecSpec) -> (i32, String) + Send + Sync>;

/// The fake. Clones share everything, so a test keeps one.
#[derive(Clone)]
pub struct FakeRuntime {
    clock: SharedClock,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

struct State {
    script: Script,
    answer: Answer,
    containers: BTreeMap<String, Fake>,
    started: Vec<ContainerSpec>,
    signals: Vec<(String, i32)>,
    commands: Vec<(String, Vec<String>)>,
    next_pid: u32,
}

struct Fake {
    name: String,
    pid: u32,
    started: Started,
    stubborn: bool,
    exit: watch::Sender<Option<Exit>>,
}

impl fmt::Debug for FakeRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeRuntime").finish_non_exhaustive()
    }
}

impl FakeRuntime {
    /// A runtime whose containers do what `script` says.
    pub fn new(
        clock: SharedClock,
        script: impl Fn(&ContainerSpec) -> Behaviour + Send + Sync + 'static,
    ) -> Self {
        let state = State {
            script: Box::new(script),
            answer: Box::new(|_, _| (0, String::new())),
            containers: BTreeMap::new(),
            started: Vec::new(),
            signals: Vec::new(),
            commands: Vec::new(),
            next_pid: 1000,
        };
        let shared = Shared {
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
        };
        Self {
            clock,
            shared: Arc::new(shared),
        }
    }

    /// Says what commands answer: exit code and standard output.
    pub fn on_exec(
        &self,
        answer: impl Fn(&ContainerRef, &ExecSpec) -> (i32, String) + Send + Sync + 'static,
    ) {
        self.state().answer = Box::new(answer);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.shared.changes.send_modify(|v| *v += 1);
    }

    /// Every container started so far, in order.
    pub fn started(&self) -> Vec<ContainerSpec> {
        self.state().started.clone()
    }

    /// Every signal sent so far: container name and number.
    pub fn signals(&self) -> Vec<(String, i32)> {
        self.state().signals.clone()
    }

    /// Every command run so far: container name and command line.
    pub fn commands(&self) -> Vec<(String, Vec<String>)> {
        self.state().commands.clone()
    }

    /// Names of the containers that run.
    pub fn running(&self) -> Vec<String> {
        let state = self.state();
        let live = state
            .containers
            .values()
            .filter(|c| c.exit.borrow().is_none());
        live.map(|c| c.name.clone()).collect()
    }

    /// Ends every running container of a name.
    pub fn exit(&self, name: &str, code: i32) {
        let at = self.clock.now();
        for container in self.state().containers.values().filter(|c| c.name == name) {
            let signal = (code > 128).then(|| code - 128);
            let exit = Exit {
                code,
                signal,
                oom_killed: false,
                message: None,
                at,
            };
            container.exit.send_if_modified(|e| {
                let first = e.is_none();
                if first {
                    *e = Some(exit);
                }
                first
            });
        }
        self.changed();
    }

    /// Completes once `condition` holds; it is looked at after every start, end, signal, command.
    pub async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        while !condition(self) {
            // The sender lives in `self`.
            drop(changes.changed().await);
        }
    }

    fn exec_streams(&self, container: &ContainerRef, spec: &ExecSpec) -> Result<Streams, Error> {
        let (code, output) = {
            let mut state = self.state();
            let fake = state
                .containers
                .get(&container.id)
                .filter(|c| c.exit.borrow().is_none())
                .ok_or_else(|| Error::NotRunning(container.id.clone()))?;
            let name = fake.name.clone();
            state.commands.push((name, spec.argv.clone()));
            (state.answer)(container, spec)
        };
        self.changed();
        let exit = Exit {
            code,
            signal: None,
            oom_killed: false,
            message: None,
            at: self.clock.now(),
        };
        Ok(Streams {
            stdin: spec.stdin.then(|| Box::new(tokio::io::sink()) as _),
            stdout: spec
                .stdout
                .then(|| Box::new(Cursor::new(output.into_bytes())) as _),
            stderr: spec.stderr.then(|| Box::new(tokio::io::empty()) as _),
            resize: Box::new(|_| {}),
            exit: std::future::ready(Ok(exit)).boxed(),
        })
    }
}

impl Runtime for FakeRuntime {
    fn info(&self) -> RuntimeInfo {
        RuntimeInfo {
            name: "fake".to_owned(),
            version: "1".to_owned(),
            mounts: true,
        }
    }

    fn start(&self, spec: ContainerSpec) -> BoxFuture<'_, Result<Started, Error>> {
        let result = (|| {
            let at = self.clock.now();
            let mut state = self.state();
            let behaviour = (state.script)(&spec);
            state.started.push(spec.clone());
            let exit = match &behaviour {
                Behaviour::Fail(error) => return Err(error.clone()),
                Behaviour::Exit(code) => Some(Exit {
                    code: *code,
                    signal: None,
                    oom_killed: false,
                    message: None,
                    at,
                }),
                Behaviour::Run | Behaviour::Stubborn => None,
            };
            state.next_pid += 1;
            let started = Started {
                pid: state.next_pid,
                at,
                warnings: Vec::new(),
            };
            let fake = Fake {
                name: spec.name.clone(),
                pid: state.next_pid,
                started: started.clone(),
                stubborn: behaviour == Behaviour::Stubborn,
                exit: watch::Sender::new(exit),
            };
            state.containers.insert(spec.container.id.clone(), fake);
            Ok(started)
        })();
        self.changed();
        std::future::ready(result).boxed()
    }

    fn wait(&self, container: &ContainerRef) -> BoxFuture<'static, Result<Exit, Error>> {
        let receiver = self
            .state()
            .containers
            .get(&container.id)
            .map(|c| c.exit.subscribe());
        let id = container.id.clone();
        async move {
            let mut receiver = receiver.ok_or_else(|| Error::NotRunning(id.clone()))?;
            let exit = receiver.wait_for(Option::is_some).await;
            exit.ok()
                .and_then(|e| e.clone())
                .ok_or(Error::NotRunning(id))
        }
        .boxed()
    }

    fn recover(&self, container: &ContainerRef) -> BoxFuture<'_, Result<Recovered, Error>> {
        let state = self.state();
        let recovered = match state.containers.get(&container.id) {
            None => Recovered::NotStarted,
            Some(fake) => match &*fake.exit.borrow() {
                None => Recovered::Running(fake.started.clone()),
                Some(exit) => Recovered::Exited(exit.clone()),
            },
        };
        drop(state);
        std::future::ready(Ok(recovered)).boxed()
    }

    fn signal(&self, container: &ContainerRef, signal: i32) -> BoxFuture<'_, Result<(), Error>> {
        let at = self.clock.now();
        let result = {
            let mut state = self.state();
            match state.containers.get(&container.id) {
                None => Err(Error::NotRunning(container.id.clone())),
                Some(fake) => {
                    if signal == 9 || !fake.stubborn {
                        let exit = Exit {
                            code: 128 + signal,
                            signal: Some(signal),
                            oom_killed: false,
                            message: None,
                            at,
                        };
                        fake.exit.send_if_modified(|e| {
                            let first = e.is_none();
                            if first {
                                *e = Some(exit);
                            }
                            first
                        });
                    }
                    let name = fake.name.clone();
                    state.signals.push((name, signal));
                    Ok(())
                }
            }
        };
        self.changed();
        std::future::ready(result).boxed()
    }

    fn exec(
        &self,
        container: &ContainerRef,
        spec: ExecSpec,
    ) -> BoxFuture<'_, Result<Streams, Error>> {
        std::future::ready(self.exec_streams(container, &spec)).boxed()
    }

    fn attach(
        &self,
        container: &ContainerRef,
        spec: ExecSpec,
    ) -> BoxFuture<'_, Result<Streams, Error>> {
        let exit = self.wait(container);
        let streams = self
            .exec_streams(container, &spec)
            .map(|s| Streams { exit, ..s });
        std::future::ready(streams).boxed()
    }

    fn stats(&self, container: &ContainerRef) -> BoxFuture<'_, Result<Stats, Error>> {
        let known = self.state().containers.get(&container.id).map(|c| c.pid);
        let stats = known
            .map(|_| Stats {
                processes: 1,
                ..Stats::default()
            })
            .ok_or_else(|| Error::NotRunning(container.id.clone()));
        std::future::ready(stats).boxed()
    }

    fn remove(&self, _container: &ContainerRef) -> BoxFuture<'_, Result<(), Error>> {
        // Ends stay known, as they do in the state files.
        std::future::ready(Ok(())).boxed()
    }
}

/// Knows every image, except those whose name contains `missing`.
#[derive(Debug, Clone, Copy, Default)]
pub struct FakeImages;

impl ImageService for FakeImages {
    fn pull(&self, reference: &str) -> BoxFuture<'_, Result<Image, ImageError>> {
        let result = match self.present(reference) {
            Ok(Some(image)) => Ok(image),
            Ok(None) => Err(ImageError::NotFound(format!("{reference}: not found"))),
            Err(error) => Err(error),
        };
        std::future::ready(result).boxed()
    }

    fn present(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        if reference.is_empty() || reference.contains(' ') {
            return Err(ImageError::InvalidName {
                reference: reference.to_owned(),
                problem: "invalid reference format".to_owned(),
            });
        }
        Ok((!reference.contains("missing")).then(|| Image {
            reference: reference.to_owned(),
            id: format!("docker.io/library/{reference}"),
            kind: ImageKind::Host,
            entrypoint: vec!["/bin/true".to_owned()],
            cmd: Vec::new(),
            env: Vec::new(),
            working_dir: None,
            user: None,
            size_bytes: 0,
        }))
    }
}
