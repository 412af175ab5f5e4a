//! `coracle up`: the server, in the foreground or left behind.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stdx::{Clock as _, Rng as _, Supervisor, SystemClock, SystemRng};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{self, Up};
use crate::failure::{Code, Failure, Result, attempting};
use crate::instance::{DataDir, ServerState};
use crate::settings::Settings;
use crate::{logging, output, server};

/// What the background server tells the command that started it.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    data_dir: std::path::PathBuf,
    state: Option<ServerState>,
    failure: Option<String>,
    hint: Option<String>,
    notes: Vec<String>,
}

pub(crate) fn run(up: &Up) -> Result<()> {
    if up.detach {
        return detach(up);
    }
    if up.ready_on_stdout {
        // The background server keeps nothing of its caller open.
        spawner::close_inherited_descriptors();
    } else {
        output::progress("Starting", "the Kubernetes API, the node, and pipelines");
    }
    let data = data_dir(up)?;
    let outcome =
        Settings::read(up.config.as_deref(), &data).and_then(|settings| serve(up, &data, settings));
    if up.ephemeral {
        if let Err(error) = std::fs::remove_dir_all(data.root()) {
            output::warning(&format!("{} stays behind: {error}", data.root().display()));
        }
    }
    if let (Err(failure), true) = (&outcome, up.ready_on_stdout) {
        tell(&Ready {
            data_dir: data.root().to_owned(),
            state: None,
            failure: Some(failure.to_string()),
            hint: failure.hint_text().map(str::to_owned),
            notes: Vec::new(),
        });
    }
    outcome
}

fn data_dir(up: &Up) -> Result<DataDir> {
    let data = if up.ephemeral {
        DataDir::new(&std::env::temp_dir().join(format!("coracle-{}", SystemRng.suffix(8))))?
    } else {
        up.at.data()?
    };
    data.create()?;
    Ok(data)
}

/// The server itself, until a signal ends it.
fn serve(up: &Up, data: &DataDir, settings: Settings) -> Result<()> {
    let Some(_lock) = data.lock()? else {
        return Err(already_running(data));
    };
    logging::start(&data.log())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::environment(format!("start the async runtime: {e}")))?;
    let outcome = runtime.block_on(Box::pin(serve_async(up, data, settings)));
    // A blocking call that hangs (a dead network disk) must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

fn already_running(data: &DataDir) -> Failure {
    let who = match ServerState::running(data) {
        Ok(state) => format!("pid {}, {}", state.pid, state.http_url()),
        Err(_) => "it is starting or stopping".to_owned(),
    };
    Failure::environment(format!(
        "a server already runs on data directory {} ({who})",
        data.root().display()
    ))
    .hint("`coracle status` shows it, `coracle down` stops it, --data-dir starts another")
}

async fn serve_async(up: &Up, data: &DataDir, settings: Settings) -> Result<()> {
    let clock = SystemClock::shared();
    let started = clock.monotonic();
    let supervisor = Supervisor::new();
    // Listening for signals first: a Ctrl-C during the start must not lose anything.
    let mut signals = Signals::new()?;
    let options = server::Options {
        data: data.clone(),
        listen: up.listen,
        kube_listen: up.kube_listen,
        leave_pods: up.leave_pods,
        no_mounts: up.no_mounts,
        ephemeral: up.ephemeral,
        settings,
        cron_time_zone: up.cron_time_zone.clone(),
        run_ttl: up
            .run_ttl_days
            .map(|days| Duration::from_secs(u64::from(days) * 86_400)),
        clock: clock.clone(),
        rng: SystemRng::shared(),
    };
    let starting = Box::pin(server::start(options, &supervisor));
    let running = tokio::select! {
        running = starting => running?,
        () = signals.next() => return Ok(()),
    };
    let took = clock.monotonic().saturating_sub(started);
    tracing::info!(ready_ms = took.as_millis() as u64, "ready");
    if up.ready_on_stdout {
        tell(&Ready {
            data_dir: data.root().to_owned(),
            state: Some(running.state().clone()),
            failure: None,
            hint: None,
            notes: running.notes().to_vec(),
        });
    } else {
        announce(data, running.state(), running.notes(), took);
    }
    tokio::select! {
        () = signals.next() => {}
        () = supervisor.cancelled() => tracing::error!("a vital part failed, stopping"),
    }
    let failed = supervisor.token().is_cancelled();
    if !up.ready_on_stdout {
        let pods = if up.leave_pods {
            "Pods stay"
        } else {
            "Pods end within their grace periods"
        };
        output::progress("Stopping", &format!("{pods}; Ctrl-C again stops at once"));
    }
    tokio::select! {
        () = running.stop(&supervisor) => {}
        () = signals.next() => {
            return Err(Failure::failed("stopped at once, before Pods had ended")
                .hint("`coracle down` cleans up what is left"));
        }
    }
    if failed {
        return Err(Failure::failed("a vital part of the server failed")
            .hint(format!("the log says why: {}", data.log().display())));
    }
    Ok(())
}

/// The signals that ask the server to stop.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| {
            signal(kind).map_err(|e| Failure::environment(format!("listen for signals: {e}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn announce(data: &DataDir, state: &ServerState, notes: &[String], took: Duration) {
    for note in notes {
        output::warning(note);
    }
    output::done(
        "Dashboard",
        &format!("{}   (Pipelines API too)", state.http_url()),
    );
    output::done("Kubernetes", &state.kube_url());
    output::done(
        "Wrote",
        &format!("kubeconfig {}", data.kubeconfig().display()),
    );
    output::done("Ready", &format!("in {}", output::seconds(took)));
    let place = cli::place(data);
    output::remark(&format!(
        "eval \"$(coracle env{place})\" && kubectl get nodes"
    ));
    output::remark(&format!(
        "coracle tutorial mnist{place}     trains, serves and shows a digit; no downloads"
    ));
}

/// Tells the waiting command, whose pipe is this process's standard output, and closes it.
fn tell(ready: &Ready) {
    let text = serde_json::to_string(ready).expect("invariant: plain data is JSON");
    output::result(&text);
    // The waiting command reads to the end of the pipe.
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        if let Err(error) = rustix::stdio::dup2_stdout(&null) {
            tracing::warn!("close the readiness pipe: {error}");
        }
    }
}

/// Starts the server in the background and waits until it is ready.
fn detach(up: &Up) -> Result<()> {
    output::progress("Starting", "the Kubernetes API, the node, and pipelines");
    let clock = SystemClock::new();
    let data = if up.ephemeral {
        DataDir::new(&std::env::temp_dir())?
    } else {
        data_dir(up)?
    };
    if !up.ephemeral {
        // Two `up -d` at once: the second sees the lock in its child; a running server shows here.
        if data.lock()?.is_none() {
            return Err(already_running(&data));
        }
    }
    let (mut reader, writer) = std::io::pipe().map_err(attempting("make a pipe"))?;
    let exe = std::env::current_exe().map_err(attempting("find this program"))?;
    let mut command = Command::new(exe);
    command
        .args(cli::detached(up, &data))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(writer))
        .stderr(background_errors(&data, up.ephemeral)?)
        .process_group(0);
    let child = command.spawn().map_err(attempting("start the server"))?;
    // It holds the pipe's writing end, which only the server may keep open now.
    drop(command);
    let mut line = String::new();
    reader
        .read_to_string(&mut line)
        .map_err(attempting("hear from the server"))?;
    let Some(ready) = line
        .lines()
        .next()
        .and_then(|l| serde_json::from_str::<Ready>(l).ok())
    else {
        return Err(Failure::failed(format!(
            "the server (pid {}) ended while starting",
            child.id()
        ))
        .hint(format!("its log may say why: {}", data.log().display())));
    };
    match (ready.state, ready.failure) {
        (Some(state), _) => {
            let data = DataDir::new(&ready.data_dir)?;
            announce(&data, &state, &ready.notes, clock.monotonic());
            output::remark(&format!("coracle down{}     stops it", cli::place(&data)));
            Ok(())
        }
        (None, failure) => {
            let mut failed = Failure::environment(failure.unwrap_or_default());
            debug_assert_eq!(failed.code, Code::Environment);
            if let Some(hint) = ready.hint {
                failed = failed.hint(hint);
            }
            Err(failed)
        }
    }
}

/// Where panics of the background server go: its log.
fn background_errors(data: &DataDir, ephemeral: bool) -> Result<Stdio> {
    if ephemeral {
        return Ok(Stdio::null());
    }
    let open = |path: &Path| {
        File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
    };
    open(&data.log())
        .map(Stdio::from)
        .map_err(attempting("open the server's log"))
}
