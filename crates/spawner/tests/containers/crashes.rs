//! Signals, and deaths at the wrong moment: of the container, its monitor, the spawner, the server.

use spawner::{Error, ExitProblem, Mode, Recovered, Spawner, recover, signal, wait};

use crate::harness::{Bench, Case, case, gone, hear, kill, options, tell};

pub(crate) fn all() -> Vec<Case> {
    vec![
        case!(a_signal_reaches_the_group),
        case!(a_signal_reaches_the_group_without_namespaces, mode: Mode::NoMounts),
        case!(the_end_of_a_container_ends_everything_in_it),
        case!(the_end_of_a_container_ends_everything_without_namespaces, mode: Mode::NoMounts),
        case!(containers_survive_the_spawner),
        case!(a_launch_happens_once_whenever_the_spawner_dies),
        case!(containers_survive_the_server),
        case!(an_exit_that_nobody_saw_is_found),
        case!(a_killed_monitor_takes_its_container_along),
        case!(a_killed_monitor_takes_its_container_along_without_namespaces, mode: Mode::NoMounts),
        case!(leases_are_held_while_a_container_lives),
        case!(a_spawner_whose_folder_is_gone_ends),
        case!(another_mode_replaces_the_spawner),
    ]
}

async fn a_signal_reaches_the_group(bench: Bench) {
    let spec = bench.shell("a", "echo > $GATES/up; sleep 1000; echo not reached");
    let up = bench.gate("up");
    let started = bench.spawner.launch(&spec).await.unwrap();
    hear(&up).await;
    signal(&started, libc::SIGTERM).unwrap();
    let exit = wait(&spec.state_dir).await.unwrap();
    assert_eq!((exit.exit_code, exit.signal), (143, Some(15)));
    assert!(matches!(
        signal(&started, libc::SIGTERM),
        Err(Error::NotRunning(_))
    ));

    let spec = bench.shell(
        "b",
        "trap 'echo bye; exit 3' TERM; sleep 1000 & echo > $GATES/up; wait",
    );
    let started = bench.spawner.launch(&spec).await.unwrap();
    hear(&up).await;
    signal(&started, libc::SIGTERM).unwrap();
    assert_eq!(wait(&spec.state_dir).await.unwrap().exit_code, 3);
    assert!(bench.log("b").contains(&"bye".to_owned()));
}

async fn a_signal_reaches_the_group_without_namespaces(bench: Bench) {
    a_signal_reaches_the_group(bench).await;
}

async fn the_end_of_a_container_ends_everything_in_it(bench: Bench) {
    let up = bench.gate("up");
    // A grandchild in a session of its own that shields itself from signals, twice removed.
    let script = "setsid sh -c 'trap \"\" TERM HUP INT; (echo up > $GATES/up; sleep 1000); :' & \
                  read x < $GATES/end; exit 5";
    let spec = bench.shell("a", script);
    let end = bench.gate("end");
    let started = bench.spawner.launch(&spec).await.unwrap();
    hear(&up).await;
    let stats = spawner::stats(&started).unwrap();
    assert!(stats.processes >= 3, "{stats:?}");
    tell(&end, "\n").await;
    let exit = wait(&spec.state_dir).await.unwrap();
    assert_eq!(exit.exit_code, 5);
    assert_eq!(spawner::stats(&started).unwrap().processes, 0);
    let spec = bench.shell("b", script);
    let started = bench.spawner.launch(&spec).await.unwrap();
    hear(&up).await;
    signal(&started, libc::SIGKILL).unwrap();
    assert_eq!(wait(&spec.state_dir).await.unwrap().exit_code, 137);
    // No sleeper has survived.
    let left = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let gates = bench.folder("gates").display().to_string();
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            command.starts_with(b"sleep")
                && String::from_utf8_lossy(&environment).contains(&format!("GATES={gates}"))
        });
    assert_eq!(left.count(), 0);
}

async fn the_end_of_a_container_ends_everything_without_namespaces(bench: Bench) {
    the_end_of_a_container_ends_everything_in_it(bench).await;
}

async fn containers_survive_the_spawner(bench: Bench) {
    let (up, go) = (bench.gate("up"), bench.gate("go"));
    let spec = bench.shell(
        "a",
        "echo before; echo > $GATES/up; read x < $GATES/go; echo after; exit 9",
    );
    bench.spawner.launch(&spec).await.unwrap();
    hear(&up).await;
    let first = bench.spawner.pid();
    kill(first);
    gone(first).await;
    // The next launch waits for the new spawner; the old container is not disturbed.
    let second = bench.shell("b", "exit 4");
    assert_eq!(bench.run(&second).await.exit_code, 4);
    assert_ne!(bench.spawner.pid(), first);
    tell(&go, "\n").await;
    assert_eq!(wait(&spec.state_dir).await.unwrap().exit_code, 9);
    assert_eq!(bench.log("a"), ["before", "after"]);
}

async fn a_launch_happens_once_whenever_the_spawner_dies(bench: Bench) {
    let gates = bench.folder("gates");
    let specs: Vec<_> = (0..60)
        .map(|number| {
            bench.shell(
                &format!("c{number}"),
                &format!("echo ran >> $GATES/{number}; exit 3"),
            )
        })
        .collect();
    // One deadly enemy, who strikes whenever there is someone new to strike, and many launches.
    let spawner = bench.spawner.clone();
    let enemy = async {
        let mut last = 0;
        let mut struck = 0;
        while struck < 15 {
            let pid = spawner.pid();
            if pid == last {
                tokio::task::yield_now().await;
                continue;
            }
            kill(pid);
            gone(pid).await;
            (last, struck) = (pid, struck + 1);
        }
    };
    let launches = async {
        for batch in specs.chunks(4) {
            let waits = batch.iter().map(async |spec| {
                // A spawner that dies three times under one request is given up.
                while let Err(error) = bench.spawner.launch(spec).await {
                    assert!(error.retryable(), "{error}");
                }
                wait(&spec.state_dir).await.unwrap()
            });
            for exit in futures_join(waits).await {
                assert_eq!((exit.exit_code, exit.problem), (3, None));
            }
        }
    };
    tokio::join!(enemy, launches);
    for number in 0..60 {
        let ran = std::fs::read_to_string(gates.join(number.to_string())).unwrap();
        assert_eq!(ran, "ran\n", "container {number}");
    }
}

/// Drives futures together, without a crate for it.
async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut waiting = false;
        for (future, output) in &mut running {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => waiting = true,
                }
            }
        }
        if waiting {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    running
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}

async fn containers_survive_the_server(bench: Bench) {
    let (up, go) = (bench.gate("up"), bench.gate("go"));
    let spec = bench.shell("a", "echo > $GATES/up; read x < $GATES/go; exit 6");
    let started = bench.spawner.launch(&spec).await.unwrap();
    hear(&up).await;
    // All that a dead server leaves is the end of its connections.
    bench.supervisor.token().cancel();
    let supervisor = stdx::Supervisor::new();
    let mode = if bench.spawner.mounts() {
        Mode::Auto
    } else {
        Mode::NoMounts
    };
    let next = Spawner::start_or_attach(options(&bench.dir, mode), &supervisor)
        .await
        .unwrap();
    assert_eq!(next.pid(), bench.spawner.pid());
    assert_eq!(
        recover(&spec.state_dir).await.unwrap(),
        Recovered::Running(started)
    );
    tell(&go, "\n").await;
    assert_eq!(wait(&spec.state_dir).await.unwrap().exit_code, 6);
    let unknown = bench.folder("containers/never");
    assert_eq!(recover(&unknown).await.unwrap(), Recovered::Unknown);
    let nowhere = unknown.join("not-made-yet");
    assert_eq!(recover(&nowhere).await.unwrap(), Recovered::Unknown);
    next.shutdown().await.unwrap();
}

async fn an_exit_that_nobody_saw_is_found(bench: Bench) {
    let spec = bench.shell("a", "exit 8");
    let started = bench.spawner.launch(&spec).await.unwrap();
    gone(started.monitor_pid).await;
    let Recovered::Exited(exit) = recover(&spec.state_dir).await.unwrap() else {
        panic!("it has ended")
    };
    assert_eq!(exit.exit_code, 8);
    assert_eq!(wait(&spec.state_dir).await.unwrap(), exit);
}

async fn a_killed_monitor_takes_its_container_along(bench: Bench) {
    let up = bench.gate("up");
    let spec = bench.shell("a", "echo > $GATES/up; sleep 1000");
    let started = bench.spawner.launch(&spec).await.unwrap();
    hear(&up).await;
    kill(started.monitor_pid);
    let exit = wait(&spec.state_dir).await.unwrap();
    assert_eq!(
        (exit.exit_code, exit.problem.clone()),
        (137, Some(ExitProblem::Lost))
    );
    gone(started.pid).await;
    // The loss is written down: it is heard the same again.
    assert_eq!(wait(&spec.state_dir).await.unwrap(), exit);
}

async fn a_killed_monitor_takes_its_container_along_without_namespaces(bench: Bench) {
    a_killed_monitor_takes_its_container_along(bench).await;
}

async fn leases_are_held_while_a_container_lives(bench: Bench) {
    let data = bench.folder("leasing");
    let path = bench.dir.join("lease");
    let free = || {
        let file = std::fs::File::create(&path).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
    };
    let lease = std::fs::File::create(&path).unwrap();
    rustix::fs::flock(&lease, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut with_lease = options(&data, Mode::Auto);
    with_lease.held.push(lease.into());
    let supervisor = stdx::Supervisor::new();
    let server = Spawner::start_or_attach(with_lease, &supervisor)
        .await
        .unwrap();
    let (up, go) = (bench.gate("up"), bench.gate("go"));
    let spec = bench.shell("a", "echo > $GATES/up; read x < $GATES/go");
    let started = server.launch(&spec).await.unwrap();
    hear(&up).await;
    // A server that comes after a crash gets the lease back.
    supervisor.token().cancel();
    let first = server.pid();
    drop(server);
    let supervisor = stdx::Supervisor::new();
    let server = Spawner::start_or_attach(options(&data, Mode::Auto), &supervisor)
        .await
        .unwrap();
    assert_eq!(server.held().unwrap().len(), 1);
    // With server and spawner gone the monitor still holds it.
    server.shutdown().await.unwrap();
    supervisor.token().cancel();
    supervisor.shutdown().await;
    drop(server);
    gone(first).await;
    assert!(!free());
    tell(&go, "\n").await;
    wait(&spec.state_dir).await.unwrap();
    gone(started.monitor_pid).await;
    assert!(free());
}

async fn a_spawner_whose_folder_is_gone_ends(bench: Bench) {
    let data = bench.folder("short-lived");
    let supervisor = stdx::Supervisor::new();
    let server = Spawner::start_or_attach(options(&data, Mode::Auto), &supervisor)
        .await
        .unwrap();
    let pid = server.pid();
    std::fs::remove_dir_all(&data).unwrap();
    supervisor.token().cancel();
    supervisor.shutdown().await;
    drop(server);
    gone(pid).await;
}

async fn another_mode_replaces_the_spawner(bench: Bench) {
    if !bench.spawner.mounts() {
        return;
    }
    let data = bench.folder("changing");
    let supervisor = stdx::Supervisor::new();
    let server = Spawner::start_or_attach(options(&data, Mode::Auto), &supervisor)
        .await
        .unwrap();
    let first = server.pid();
    supervisor.token().cancel();
    supervisor.shutdown().await;
    let supervisor = stdx::Supervisor::new();
    let server = Spawner::start_or_attach(options(&data, Mode::NoMounts), &supervisor)
        .await
        .unwrap();
    assert_ne!(server.pid(), first);
    assert!(!server.mounts());
    gone(first).await;
    server.shutdown().await.unwrap();
}
