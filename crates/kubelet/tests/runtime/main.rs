//! The process runtime with real processes: what the kubelet asks of it, it does.
//!
//! The test binary is its own spawner (first argument `__spawner`) and its own built-in image (`image`).

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and this is their own runner"
)]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kubelet::runtime::catalogue::{Catalogue, Entry};
use kubelet::runtime::process::ProcessRuntime;
use kubelet::runtime::{
    ContainerRef, ContainerSpec, Error, ExecSpec, ImageService, LogSpec, Mount, Recovered, Runtime,
    SPEC_FILE, SecuritySpec, TerminalSize,
};
use spawner::{Mode, Options, Spawner};
use stdx::{Supervisor, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("__spawner") => return spawner::main(args),
        Some("image") => {
            let words: Vec<String> = args
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            println!("{}", words.join(" "));
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    for mode in [Mode::Auto, Mode::NoMounts] {
        runtime.block_on(async {
            let bench = Bench::new(mode).await;
            images_run(&bench).await;
            a_container_is_found_again(&bench).await;
            commands_run_inside(&bench).await;
            whoever_attaches_talks_to_the_container(&bench).await;
            bench.spawner.shutdown().await.unwrap();
        });
        println!("ok {mode:?}");
    }
    ExitCode::SUCCESS
}

struct Bench {
    dir: tempfile::TempDir,
    spawner: Spawner,
    runtime: ProcessRuntime,
    images: Catalogue,
    _supervisor: Supervisor,
}

impl Bench {
    async fn new(mode: Mode) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::new();
        let mut options = Options::new(dir.path());
        options.mode = mode;
        let spawner = Spawner::start_or_attach(options, &supervisor)
            .await
            .unwrap();
        let runtime = ProcessRuntime::new(spawner.clone(), SystemClock::shared(), "1");
        let images = Catalogue::with_host_images([Entry::built_in("test/echo", "echo")]);
        Self {
            dir,
            spawner,
            runtime,
            images,
            _supervisor: supervisor,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn spec(&self, id: &str, image: &str, command: &[&str], args: &[&str]) -> ContainerSpec {
        let state_dir = self.path(id);
        let data = self.path("data");
        std::fs::create_dir_all(&state_dir).unwrap();
        std::fs::create_dir_all(&data).unwrap();
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        ContainerSpec {
            container: ContainerRef {
                id: id.to_owned(),
                state_dir,
            },
            namespace: "default".to_owned(),
            pod: "pod".to_owned(),
            pod_uid: "uid".to_owned(),
            name: "main".to_owned(),
            image: self.images.pull(image).await.unwrap(),
            command: words(command),
            args: words(args),
            env: vec![("WORD".to_owned(), "hello".to_owned())],
            working_dir: None,
            mounts: vec![Mount {
                source: data,
                target: "/data".into(),
                read_only: false,
            }],
            hosts_dir: None,
            hostname: Some("pod".to_owned()),
            pod_ip: Ipv4Addr::LOCALHOST,
            host_network: false,
            security: SecuritySpec::default(),
            memory_limit: None,
            cpu_limit: None,
            log: LogSpec {
                path: self.path(&format!("{id}.log")),
                max_bytes: 1 << 20,
                max_files: 2,
            },
            stdin: false,
            stdin_once: false,
            tty: false,
        }
    }

    /// Starts a container as the kubelet does: its spec lies in the state directory first.
    async fn start(&self, spec: &ContainerSpec) -> Result<(), Error> {
        let bytes = serde_json::to_vec(spec).unwrap();
        std::fs::write(spec.container.state_dir.join(SPEC_FILE), bytes).unwrap();
        self.runtime.start(spec.clone()).await.map(drop)
    }

    fn log(&self, id: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{id}.log"))).unwrap()
    }
}

async fn images_run(bench: &Bench) {
    let spec = bench
        .spec("built-in", "test/echo:v1", &["/original"], &["--a=b", "c"])
        .await;
    bench.start(&spec).await.unwrap();
    assert_eq!(bench.runtime.wait(&spec.container).await.unwrap().code, 0);
    assert!(bench.log("built-in").ends_with(" stdout F echo --a=b c\n"));

    let spec = bench
        .spec("shell", "busybox", &[], &["sh", "-c", "echo $WORD; exit 4"])
        .await;
    bench.start(&spec).await.unwrap();
    assert_eq!(bench.runtime.wait(&spec.container).await.unwrap().code, 4);
    assert!(bench.log("shell").ends_with(" stdout F hello\n"));

    let spec = bench.spec("missing", "busybox", &["no-such"], &[]).await;
    let error = bench.start(&spec).await.unwrap_err();
    let message = "exec: \"no-such\": executable file not found in $PATH".to_owned();
    assert_eq!(
        error,
        Error::CannotRun {
            exit_code: 127,
            message: message.clone()
        }
    );
    // A server that died before it heard that finds it in the files.
    let Recovered::Exited(exit) = bench.runtime.recover(&spec.container).await.unwrap() else {
        panic!("it never ran")
    };
    assert_eq!((exit.code, exit.message), (127, Some(message)));
}

async fn a_container_is_found_again(bench: &Bench) {
    let spec = bench.spec("found", "alpine", &["sleep", "1000"], &[]).await;
    let recover = async || bench.runtime.recover(&spec.container).await.unwrap();
    assert_eq!(recover().await, Recovered::NotStarted);
    bench.start(&spec).await.unwrap();
    assert!(matches!(recover().await, Recovered::Running(_)));
    let stats = bench.runtime.stats(&spec.container).await.unwrap();
    assert_eq!(stats.processes, 1, "{stats:?}");
    bench.runtime.signal(&spec.container, 15).await.unwrap();
    let exit = bench.runtime.wait(&spec.container).await.unwrap();
    assert_eq!((exit.code, exit.signal), (143, Some(15)));
    assert_eq!(recover().await, Recovered::Exited(exit));
    let gone = Error::NotRunning("found".to_owned());
    assert_eq!(
        bench.runtime.signal(&spec.container, 15).await,
        Err(gone.clone())
    );
    assert_eq!(
        bench.runtime.stats(&spec.container).await,
        Err(gone.clone())
    );
    let outcome = bench
        .runtime
        .exec(&spec.container, command(&["true"], false))
        .await;
    assert_eq!(outcome.err(), Some(gone));
}

fn command(argv: &[&str], tty: bool) -> ExecSpec {
    ExecSpec {
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        stdin: true,
        stdout: true,
        stderr: !tty,
        tty,
    }
}

async fn commands_run_inside(bench: &Bench) {
    let spec = bench
        .spec("inside", "alpine", &["sleep", "1000"], &[])
        .await;
    bench.start(&spec).await.unwrap();
    let script = "read x; echo $WORD $x; echo bad >&2; exit 5";
    let mut streams = bench
        .runtime
        .exec(&spec.container, command(&["sh", "-c", script], false))
        .await
        .unwrap();
    let mut stdin = streams.stdin.take().unwrap();
    stdin.write_all(b"there\n").await.unwrap();
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    streams
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .await
        .unwrap();
    streams
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .await
        .unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("hello there\n", "bad\n"));
    assert_eq!(streams.exit.await.unwrap().code, 5);

    let script = "read x; stty size";
    let mut streams = bench
        .runtime
        .exec(&spec.container, command(&["sh", "-c", script], true))
        .await
        .unwrap();
    (streams.resize)(TerminalSize {
        width: 99,
        height: 22,
    });
    streams
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"\n")
        .await
        .unwrap();
    let mut out = String::new();
    // The near end of a terminal ends like a pipe.
    streams
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .await
        .unwrap();
    assert_eq!(out, "\r\n22 99\r\n");
    assert_eq!(streams.exit.await.unwrap().code, 0);

    let outcome = bench
        .runtime
        .exec(&spec.container, command(&["/etc/passwd"], false))
        .await;
    assert!(matches!(
        outcome.err(),
        Some(Error::CannotRun { exit_code: 126, .. })
    ));
    if bench.runtime.info().mounts {
        let touch = command(&["touch", "/data/touched"], false);
        let streams = bench.runtime.exec(&spec.container, touch).await.unwrap();
        assert_eq!(streams.exit.await.unwrap().code, 0);
        assert!(bench.path("data/touched").exists());
        assert!(!Path::new("/data").exists());
    }
    bench.runtime.signal(&spec.container, 9).await.unwrap();
    assert_eq!(bench.runtime.wait(&spec.container).await.unwrap().code, 137);
}

async fn whoever_attaches_talks_to_the_container(bench: &Bench) {
    let script = "while read line; do echo got $line; done; exit 6";
    let mut spec = bench
        .spec("attached", "bash", &["sh", "-c", script], &[])
        .await;
    (spec.stdin, spec.stdin_once) = (true, true);
    bench.start(&spec).await.unwrap();
    let mut streams = bench
        .runtime
        .attach(&spec.container, command(&["-"], false))
        .await
        .unwrap();
    let mut stdin = streams.stdin.take().unwrap();
    stdin.write_all(b"one\n").await.unwrap();
    drop(stdin);
    let mut out = String::new();
    streams
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .await
        .unwrap();
    assert_eq!(out, "got one\n");
    assert_eq!(streams.exit.await.unwrap().code, 6);
}
