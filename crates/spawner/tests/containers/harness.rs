//! A small test runner: a data directory per case (with a path longer than a socket address may be),
//! builders for specs, and the second run as an ordinary user.

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, ExitCode};
use std::time::Duration;

use spawner::{
    ContainerSpec, Exit, LogSpec, Mode, MountSpec, Options, Program, Spawner, Started, wait,
};
use stdx::Supervisor;

/// The user of the second run.
const NOBODY: u32 = 65534;
/// No case takes this long: a hang is a failure.
const LIMIT: Duration = Duration::from_secs(60);

/// Who runs the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    Root,
    User,
}

impl Identity {
    pub(crate) fn current() -> Self {
        if rustix::process::geteuid().is_root() {
            Self::Root
        } else {
            Self::User
        }
    }
}

type Body = fn(Bench) -> Pin<Box<dyn Future<Output = ()>>>;

/// One test.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Whether it makes sense only where containers get their mounts.
    pub(crate) needs_mounts: bool,
    pub(crate) only: Option<Identity>,
    pub(crate) mode: Mode,
    pub(crate) body: Body,
}

/// Declares a case from an async function.
macro_rules! case {
    ($name:ident) => {
        crate::harness::Case {
            name: stringify!($name),
            needs_mounts: false,
            only: None,
            mode: spawner::Mode::Auto,
            body: |bench| Box::pin($name(bench)),
        }
    };
    ($name:ident, $($field:ident: $value:expr),+) => {
        crate::harness::Case { $($field: $value,)+ ..case!($name) }
    };
}
pub(crate) use case;

/// What a case works with.
pub(crate) struct Bench {
    pub(crate) dir: PathBuf,
    pub(crate) supervisor: Supervisor,
    pub(crate) spawner: Spawner,
    _folder: tempfile::TempDir,
}

pub(crate) fn options(data_dir: &Path, mode: Mode) -> Options {
    let mut options = Options::new(data_dir);
    options.mode = mode;
    options
}

impl Bench {
    async fn new(mode: Mode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder
            .path()
            .join("long".repeat(20))
            .join("path".repeat(20));
        std::fs::create_dir_all(&dir).unwrap();
        let supervisor = Supervisor::new();
        let spawner = Spawner::start_or_attach(options(&dir, mode), &supervisor.child())
            .await
            .unwrap();
        Self {
            dir,
            supervisor,
            spawner,
            _folder: folder,
        }
    }

    /// A folder for a volume, made.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// A named pipe in a volume, through which a container can say something to the test.
    pub(crate) fn gate(&self, name: &str) -> PathBuf {
        let path = self.folder("gates").join(name);
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        path
    }

    /// A container that runs a shell script; its folder of gates is at `$GATES`.
    pub(crate) fn shell(&self, id: &str, script: &str) -> ContainerSpec {
        let gates = self.folder("gates");
        let mut spec = ContainerSpec {
            id: id.to_owned(),
            state_dir: self.folder(&format!("containers/{id}")),
            log: Some(LogSpec::new(self.dir.join(format!("{id}.log")))),
            program: Program::Path("sh".to_owned()),
            args: vec!["-c".to_owned(), script.to_owned()],
            ..ContainerSpec::default()
        };
        if self.spawner.mounts() {
            spec.mounts
                .push(MountSpec::bind(gates, "/var/gates", false));
            spec.env.push(("GATES".to_owned(), "/var/gates".to_owned()));
        } else {
            spec.env
                .push(("GATES".to_owned(), gates.display().to_string()));
        }
        spec
    }

    /// A container that runs this binary as a built-in image.
    pub(crate) fn image(&self, id: &str, args: &[&str]) -> ContainerSpec {
        ContainerSpec {
            program: Program::SelfExe,
            args: ["image"]
                .iter()
                .chain(args)
                .map(|&arg| arg.to_owned())
                .collect(),
            ..self.shell(id, "")
        }
    }

    /// Runs a container to its end.
    pub(crate) async fn run(&self, spec: &ContainerSpec) -> Exit {
        self.spawner.launch(spec).await.unwrap();
        wait(&spec.state_dir).await.unwrap()
    }

    /// Runs a container to its end and returns the texts of its log, `stdout` and `stderr` mixed.
    pub(crate) async fn output(&self, spec: &ContainerSpec) -> (Exit, Vec<String>) {
        let exit = self.run(spec).await;
        (exit, self.log(&spec.id))
    }

    /// The texts of a container's log, without stamps.
    pub(crate) fn log(&self, id: &str) -> Vec<String> {
        let log = std::fs::read_to_string(self.dir.join(format!("{id}.log"))).unwrap();
        log.lines()
            .map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned())
            .collect()
    }
}

/// What a container says through a gate.
pub(crate) async fn hear(gate: &Path) -> String {
    let gate = gate.to_owned();
    tokio::task::spawn_blocking(move || std::fs::read_to_string(gate))
        .await
        .unwrap()
        .unwrap()
}

/// Says something to a container that listens at a gate.
pub(crate) async fn tell(gate: &Path, text: &'static str) {
    let gate = gate.to_owned();
    tokio::task::spawn_blocking(move || std::fs::write(gate, text))
        .await
        .unwrap()
        .unwrap();
}

/// Waits until a process is gone.
pub(crate) async fn gone(pid: i32) {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else {
        return;
    };
    let flags = rustix::process::PidfdFlags::empty();
    let Ok(pidfd) = rustix::process::pidfd_open(pid, flags) else {
        return;
    };
    let wait = move || {
        let mut fds = [rustix::event::PollFd::new(
            &pidfd,
            rustix::event::PollFlags::IN,
        )];
        rustix::event::poll(&mut fds, None).unwrap();
    };
    tokio::task::spawn_blocking(wait).await.unwrap();
}

pub(crate) fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Ends what a case has left running.
fn clear_away(dir: &Path) {
    let Ok(containers) = std::fs::read_dir(dir.join("containers")) else {
        return;
    };
    for entry in containers.flatten() {
        if let Ok(bytes) = std::fs::read(entry.path().join("pid"))
            && let Ok(started) = serde_json::from_slice::<Started>(&bytes)
        {
            drop(spawner::signal(&started, 9));
        }
    }
}

/// Runs the cases; as root, then again as an ordinary user.
pub(crate) fn run(cases: &[Case], filter: Option<&str>, identity: Identity) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut failed = 0;
    let who = if identity == Identity::Root {
        "root"
    } else {
        "user"
    };
    for case in cases
        .iter()
        .filter(|case| filter.is_none_or(|filter| case.name.contains(filter)))
    {
        if case.only.is_some_and(|only| only != identity) {
            continue;
        }
        let result = std::panic::catch_unwind(|| {
            runtime.block_on(async {
                let bench = Bench::new(case.mode).await;
                if case.needs_mounts && !bench.spawner.mounts() {
                    let why = bench.spawner.capabilities().mount_namespace;
                    return Some(format!("no mount namespace: {why:?}"));
                }
                let (dir, supervisor) = (bench.dir.clone(), bench.supervisor.clone());
                let spawner = bench.spawner.clone();
                let body = (case.body)(bench);
                tokio::time::timeout(LIMIT, body)
                    .await
                    .expect("the case hangs");
                clear_away(&dir);
                drop(spawner.shutdown().await);
                supervisor.token().cancel();
                None
            })
        });
        match result {
            Ok(None) => println!("ok      {who} {}", case.name),
            Ok(Some(why)) => println!("skipped {who} {} ({why})", case.name),
            Err(_) => {
                failed += 1;
                println!("FAILED  {who} {}", case.name);
            }
        }
    }
    drop(runtime);
    if identity == Identity::Root {
        failed += i32::from(!run_as_user(filter));
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs this binary once more as an ordinary user, from a folder which that user can reach.
fn run_as_user(filter: Option<&str>) -> bool {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("containers");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
    command
        .arg("--clear-groups")
        .arg(&copy)
        .args(filter)
        .current_dir("/")
        .env_remove("TMPDIR");
    command.arg0("setpriv");
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            println!("skipped user (setpriv: {error})");
            true
        }
    }
}
