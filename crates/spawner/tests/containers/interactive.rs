//! Commands run inside, terminals, and attaching to a container's own streams.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use spawner::{Error, ExecSpec, MountSpec, StartStep, Stdio, pty, wait};

use crate::harness::{Bench, Case, case, hear};

pub(crate) fn all() -> Vec<Case> {
    vec![
        case!(a_command_runs_inside),
        case!(a_command_has_a_terminal),
        case!(a_dropped_command_is_killed),
        case!(a_command_ends_with_its_container),
        case!(standard_input_is_open_for_whoever_attaches),
        case!(a_container_has_a_terminal),
    ]
}

fn exec(argv: &[&str]) -> ExecSpec {
    ExecSpec {
        argv: argv.iter().map(|&arg| arg.to_owned()).collect(),
        ..ExecSpec::default()
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

async fn read(fd: OwnedFd) -> String {
    let read = move || {
        let (mut file, mut text) = (std::fs::File::from(fd), Vec::new());
        // A terminal ends with an error.
        drop(file.read_to_end(&mut text));
        String::from_utf8(text).unwrap()
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

async fn a_command_runs_inside(bench: Bench) {
    let (data, up) = (bench.folder("data"), bench.gate("up"));
    std::fs::write(data.join("file"), "from the volume\n").unwrap();
    let mut spec = bench.shell("a", "echo > $GATES/up; sleep 1000");
    spec.mounts.push(MountSpec::bind(&data, "/data", false));
    spec.hostname = Some("pod-1".into());
    let started = bench.spawner.launch(&spec).await.unwrap();
    hear(&up).await;

    let (stdout, out) = pipe();
    let (input, stdin) = pipe();
    let mut command = exec(&["sh", "-c", "echo $A; pwd; read x; echo got $x; exit 3"]);
    command.env = vec![("A".into(), "b".into())];
    command.cwd = Some("/usr".into());
    let stdio = Stdio {
        stdin: Some(input),
        stdout: Some(out),
        stderr: None,
    };
    let running = bench.spawner.exec(&started, &command, stdio).await.unwrap();
    std::fs::File::from(stdin).write_all(b"word\n").unwrap();
    assert_eq!(read(stdout).await, "b\n/usr\ngot word\n");
    assert_eq!(running.wait().await.unwrap().exit_code, 3);

    if bench.spawner.mounts() {
        let (stdout, out) = pipe();
        let stdio = Stdio {
            stdout: Some(out),
            ..Stdio::default()
        };
        let command = exec(&["sh", "-c", "cat /data/file; hostname; echo x > /tmp/seen"]);
        let running = bench.spawner.exec(&started, &command, stdio).await.unwrap();
        assert_eq!(read(stdout).await, "from the volume\npod-1\n");
        assert_eq!(running.wait().await.unwrap().exit_code, 0);
        assert!(spec.state_dir.join("tmp/seen").exists());
    }

    let outcome = bench
        .spawner
        .exec(&started, &exec(&["no-such"]), Stdio::default())
        .await;
    let Err(Error::NotStarted(error)) = outcome else {
        panic!("no-such must not run")
    };
    assert_eq!(error.step, StartStep::Exec);
    assert_eq!((error.exit_code(), error.errno), (127, Some(libc::ENOENT)));
}

async fn a_command_has_a_terminal(bench: Bench) {
    let up = bench.gate("up");
    let spec = bench.shell("a", "echo > $GATES/up; sleep 1000");
    let started = bench.spawner.launch(&spec).await.unwrap();
    hear(&up).await;
    let terminal = pty::open().unwrap();
    pty::resize(&terminal.master, 101, 33).unwrap();
    let far = || Some(terminal.slave.try_clone().unwrap());
    let stdio = Stdio {
        stdin: far(),
        stdout: far(),
        stderr: far(),
    };
    let mut command = exec(&[
        "sh",
        "-c",
        "stty size; test -t 0 && echo terminal; echo > /dev/tty",
    ]);
    command.tty = true;
    let running = bench.spawner.exec(&started, &command, stdio).await.unwrap();
    drop(terminal.slave);
    assert_eq!(running.wait().await.unwrap().exit_code, 0);
    assert_eq!(read(terminal.master).await, "33 101\r\nterminal\r\n\r\n");
}

async fn a_dropped_command_is_killed(bench: Bench) {
    let up = bench.gate("up");
    let spec = bench.shell("a", "echo > $GATES/up; sleep 1000");
    let started = bench.spawner.launch(&spec).await.unwrap();
    hear(&up).await;
    let (stdout, out) = pipe();
    let stdio = Stdio {
        stdout: Some(out),
        ..Stdio::default()
    };
    let running = bench
        .spawner
        .exec(&started, &exec(&["sh", "-c", "sleep 1000"]), stdio)
        .await
        .unwrap();
    drop(running);
    // The pipe ends with the last process that holds it.
    assert_eq!(read(stdout).await, "");
}

async fn a_command_ends_with_its_container(bench: Bench) {
    let up = bench.gate("up");
    let spec = bench.shell("a", "echo > $GATES/up; sleep 1000");
    let started = bench.spawner.launch(&spec).await.unwrap();
    hear(&up).await;
    let command = exec(&["sleep", "1000"]);
    let running = bench
        .spawner
        .exec(&started, &command, Stdio::default())
        .await
        .unwrap();
    spawner::signal(&started, libc::SIGKILL).unwrap();
    let exit = running.wait().await.unwrap();
    assert_eq!((exit.exit_code, exit.signal), (137, Some(9)));
    wait(&spec.state_dir).await.unwrap();
    let outcome = bench
        .spawner
        .exec(&started, &command, Stdio::default())
        .await;
    assert!(matches!(outcome, Err(Error::NotStarted(_))), "{outcome:?}");
}

async fn standard_input_is_open_for_whoever_attaches(bench: Bench) {
    let mut spec = bench.shell(
        "a",
        "while read line; do echo got $line; done; echo end >&2",
    );
    (spec.stdin, spec.stdin_once) = (true, true);
    bench.spawner.launch(&spec).await.unwrap();
    let streams = spawner::attach(&spec.state_dir).await.unwrap();
    let mut stdin = std::fs::File::from(streams.stdin.unwrap());
    stdin.write_all(b"one\ntwo\n").unwrap();
    drop(stdin);
    assert_eq!(read(streams.stdout).await, "got one\ngot two\n");
    assert_eq!(read(streams.stderr.unwrap()).await, "end\n");
    assert_eq!(wait(&spec.state_dir).await.unwrap().exit_code, 0);
    assert_eq!(bench.log("a"), ["got one", "got two", "end"]);
    assert!(spawner::attach(&spec.state_dir).await.is_err());
}

async fn a_container_has_a_terminal(bench: Bench) {
    let mut spec = bench.shell("a", "read x; stty size; echo you said $x");
    (spec.stdin, spec.tty) = (true, true);
    bench.spawner.launch(&spec).await.unwrap();
    let streams = spawner::attach(&spec.state_dir).await.unwrap();
    assert!(streams.tty && streams.stderr.is_none());
    let terminal = streams.stdin.unwrap();
    pty::resize(&terminal, 90, 20).unwrap();
    rustix::io::write(&terminal, b"hello\n").unwrap();
    drop(terminal);
    assert_eq!(
        read(streams.stdout).await,
        "hello\r\n20 90\r\nyou said hello\r\n"
    );
    assert_eq!(wait(&spec.state_dir).await.unwrap().exit_code, 0);
    assert_eq!(bench.log("a").last().unwrap().trim_end(), "you said hello");
}
