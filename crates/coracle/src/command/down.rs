//! `coracle down`: stops the server of a data directory and its Pods, also after the server died.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::cli::Down;
use crate::failure::{Failure, Result, attempting};
use crate::instance::{DataDir, ServerState, slice};
use crate::output;

/// How long a server may take to end its Pods before it is killed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(args: &Down) -> Result<()> {
    let data = args.at.data()?;
    let state = ServerState::load(&data);
    let alive = state.as_ref().filter(|state| state.alive());
    match alive {
        Some(state) => stop(state)?,
        None if data.root().exists() => output::remark("no server runs here"),
        None => {
            output::remark(&format!(
                "{} does not exist: nothing to do",
                data.root().display()
            ));
            return Ok(());
        }
    }
    // An ephemeral server takes its directory along.
    if !data.root().exists() {
        return Ok(());
    }
    clean(&data)?;
    if args.purge {
        kubelet::remove_leftovers(&data.kubelet()).map_err(attempting(
            "remove what Pods have outside of the data directory",
        ))?;
        std::fs::remove_dir_all(data.root())
            .map_err(|e| Failure::environment(format!("remove {}: {e}", data.root().display())))?;
        output::done("Removed", &data.root().display().to_string());
    }
    Ok(())
}

fn stop(state: &ServerState) -> Result<()> {
    output::progress(
        "Stopping",
        &format!("the server (pid {}) and its Pods", state.pid),
    );
    let attempt = |e: rustix::io::Errno| {
        Failure::environment(format!("stop the server (pid {}): {e}", state.pid))
    };
    let Some(pid) = i32::try_from(state.pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(e) => return Err(attempt(e)),
    };
    pidfd_send_signal(&process, Signal::TERM).map_err(attempt)?;
    if !ended(&process, PATIENCE)? {
        output::warning("it did not end in time and is killed");
        pidfd_send_signal(&process, Signal::KILL).map_err(attempt)?;
        ended(&process, PATIENCE)?;
    }
    output::done("Stopped", &format!("pid {}", state.pid));
    Ok(())
}

fn ended(process: impl std::os::fd::AsFd, patience: Duration) -> Result<bool> {
    let mut fds = [PollFd::new(&process, PollFlags::IN)];
    let timeout = rustix::time::Timespec {
        tv_sec: patience.as_secs() as i64,
        tv_nsec: patience.subsec_nanos().into(),
    };
    poll(&mut fds, Some(&timeout))
        .map(|ready| ready > 0)
        .map_err(|e| Failure::environment(format!("wait for the server: {e}")))
}

/// Ends what a dead server left: its spawner and the Pods that still run.
fn clean(data: &DataDir) -> Result<()> {
    // Nobody may start a server here meanwhile.
    let Some(_lock) = data.lock()? else {
        return Err(Failure::environment(format!(
            "a server is starting on {}; try again",
            data.root().display()
        )));
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(attempting("start the async runtime"))?;
    let ended = runtime
        .block_on(end_containers(data))
        .map_err(attempting("end containers"))?;
    if ended > 0 {
        output::done(
            "Ended",
            &format!("{ended} containers of a server that was gone"),
        );
    }
    if let Some(node) = slice::last_node(data) {
        proxy::remove_addresses(node.into());
    }
    match std::fs::remove_file(data.state()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Failure::environment(format!(
            "remove {}: {e}",
            data.state().display()
        ))),
    }
}

/// Kills every container that still runs; their state folders lie where the node put them. One that
/// makes trouble does not save the others.
async fn end_containers(data: &DataDir) -> std::result::Result<usize, spawner::Error> {
    let supervisor = stdx::Supervisor::new();
    // After an attach no launch of the dead server is on its way any more.
    let options = spawner::Options::new(data.root());
    let spawner = spawner::Spawner::start_or_attach(options, &supervisor).await?;
    let (mut ended, mut trouble) = (0, None);
    for dir in state_dirs(data) {
        match end(&dir).await {
            Ok(was_running) => ended += usize::from(was_running),
            Err(error) => trouble = Some(error),
        }
    }
    spawner.shutdown().await?;
    supervisor.shutdown().await;
    trouble.map_or(Ok(ended), Err)
}

/// Kills a container and waits for its end; whether it ran.
async fn end(dir: &Path) -> std::result::Result<bool, spawner::Error> {
    let spawner::Recovered::Running(started) = spawner::recover(dir).await? else {
        return Ok(false);
    };
    match spawner::signal(&started, Signal::KILL.as_raw()) {
        // It was just ending by itself.
        Ok(()) | Err(spawner::Error::NotRunning(_)) => {}
        Err(error) => return Err(error),
    }
    spawner::wait(dir).await?;
    Ok(true)
}

/// `kubelet/pods/UID/containers/NAME/ATTEMPT`.
fn state_dirs(data: &DataDir) -> Vec<PathBuf> {
    let entries = |dir: PathBuf| {
        std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    entries(data.kubelet().join("pods"))
        .flat_map(|pod| entries(pod.join("containers")))
        .flat_map(entries)
        .collect()
}
