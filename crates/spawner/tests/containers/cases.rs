//! What a container sees and leaves: mounts, names, users, limits, logs, errors.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use spawner::{Error, ExitProblem, Mode, MountKind, MountSpec, Program, StartStep};

use crate::harness::{Bench, Case, Identity, case};

pub(crate) fn all() -> Vec<Case> {
    vec![
        case!(output_and_exit_code_are_kept),
        case!(the_environment_is_what_was_given),
        case!(no_descriptor_leaks_into_a_container),
        case!(a_program_that_cannot_run_says_why),
        case!(a_state_folder_is_used_once),
        case!(the_log_is_rotated),
        case!(mounts_leave_no_trace_on_the_host, needs_mounts: true),
        case!(a_missing_source_is_named, needs_mounts: true),
        case!(volumes_may_be_files_memory_read_only_and_nested, needs_mounts: true),
        case!(devices_work),
        case!(names_come_from_the_pods_hosts_file, needs_mounts: true),
        case!(the_root_can_be_read_only, needs_mounts: true),
        case!(tmp_and_processes_are_private, needs_mounts: true),
        case!(ids_capabilities_and_groups_are_taken_on, only: Some(Identity::Root)),
        case!(a_built_in_program_needs_no_reachable_path, only: Some(Identity::Root)),
        case!(what_needs_root_is_said, only: Some(Identity::User)),
        case!(without_mounts_a_program_gets_tables, mode: Mode::NoMounts),
        case!(a_launch_is_cheap),
    ]
}

/// The built-in programs of this test.
pub(crate) fn image(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let name = args.next().unwrap();
    match name.to_str() {
        Some("ids") => {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            for line in status.lines() {
                if [
                    "Uid:",
                    "Gid:",
                    "Groups:",
                    "CapEff:",
                    "CapBnd:",
                    "NoNewPrivs:",
                ]
                .iter()
                .any(|key| line.starts_with(key))
                {
                    println!("{}", line.split_whitespace().collect::<Vec<_>>().join(" "));
                }
            }
        }
        Some("env") => {
            for (name, value) in std::env::vars() {
                println!("{name}={value}");
            }
        }
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

async fn output_and_exit_code_are_kept(bench: Bench) {
    let spec = bench.shell("a", "echo one; echo two >&2; printf three; exit 7");
    let (exit, _) = bench.output(&spec).await;
    assert_eq!((exit.exit_code, exit.signal, exit.problem), (7, None, None));
    assert!(exit.finished_at >= exit.started_at.unwrap());
    let log = std::fs::read_to_string(bench.dir.join("a.log")).unwrap();
    let mut lines: Vec<&str> = log.lines().map(|line| &line[31..]).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["stderr F two", "stdout F one", "stdout F three"]);
}

async fn the_environment_is_what_was_given(bench: Bench) {
    let mut spec = bench.shell("a", "env; umask; pwd; trap");
    spec.env = vec![("A".into(), "1".into()), ("HOME".into(), "/h".into())];
    spec.cwd = Some("/usr".into());
    let (_, lines) = bench.output(&spec).await;
    let mut lines: Vec<&str> = lines
        .iter()
        .map(String::as_str)
        .filter(|line| !line.starts_with("CORACLE_") && !line.starts_with("OLDPWD="))
        .collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "/usr",
            "0022",
            "A=1",
            "HOME=/h",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PWD=/usr",
        ]
    );
}

async fn no_descriptor_leaks_into_a_container(bench: Bench) {
    let spec = bench.shell("a", "exec ls /proc/self/fd");
    let (_, lines) = bench.output(&spec).await;
    // The fourth is ls's own, of the folder.
    assert_eq!(lines, ["0", "1", "2", "3"]);
    let spec = bench.shell("b", "grep -E '^(SigBlk|SigIgn)' /proc/self/status");
    let (_, lines) = bench.output(&spec).await;
    assert_eq!(
        lines,
        ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"]
    );
}

async fn a_program_that_cannot_run_says_why(bench: Bench) {
    for (id, program, code, words) in [
        (
            "a",
            "no-such-program",
            127,
            "exec: \"no-such-program\": executable file not found in $PATH",
        ),
        (
            "b",
            "/no/such",
            127,
            "exec: \"/no/such\": stat /no/such: no such file or directory",
        ),
        (
            "c",
            "/etc/passwd",
            126,
            "exec: \"/etc/passwd\": permission denied",
        ),
        ("d", "", 127, "no command specified"),
    ] {
        let mut spec = bench.shell(id, "");
        spec.program = Program::Path(program.to_owned());
        let Err(Error::NotStarted(error)) = bench.spawner.launch(&spec).await else {
            panic!("{program} must not start")
        };
        assert_eq!(
            (error.step, error.message.as_str()),
            (StartStep::Exec, words)
        );
        let exit = spawner::wait(&spec.state_dir).await.unwrap();
        assert_eq!(exit.exit_code, code);
        assert_eq!(exit.problem, Some(ExitProblem::Start(error)));
    }
}

async fn a_state_folder_is_used_once(bench: Bench) {
    let spec = bench.shell("a", "true");
    bench.run(&spec).await;
    let Err(Error::NotStarted(error)) = bench.spawner.launch(&spec).await else {
        panic!("a second start in the same folder")
    };
    assert_eq!(error.step, StartStep::Files);
    assert!(error.message.contains("already started"), "{error}");
}

async fn the_log_is_rotated(bench: Bench) {
    let mut spec = bench.shell(
        "a",
        "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done",
    );
    let log = spec.log.as_mut().unwrap();
    (log.max_bytes, log.max_files) = (40_000, 3);
    bench.run(&spec).await;
    let mut lines = Vec::new();
    for suffix in [".2", ".1", ""] {
        let path = bench.dir.join(format!("a.log{suffix}"));
        assert!(std::fs::metadata(&path).unwrap().len() <= 40_000);
        lines.extend(
            std::fs::read_to_string(path)
                .unwrap()
                .lines()
                .map(|line| line[40..].to_owned()),
        );
    }
    assert!(!bench.dir.join("a.log.3").exists());
    let first: usize = lines[0].trim_start_matches("line ").parse().unwrap();
    let expected: Vec<String> = (first..3000)
        .map(|number| format!("line {number}"))
        .collect();
    assert_eq!(lines, expected);
}

/// Everything in a tree of the host, with what a stray write would change.
fn snapshot(root: &Path, found: &mut BTreeMap<PathBuf, (u32, u64, i64)>) {
    let Ok(entries) = std::fs::read_dir(root) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        found.insert(entry.path(), (meta.mode(), meta.size(), meta.mtime_nsec()));
        if meta.is_dir() {
            snapshot(&entry.path(), found);
        }
    }
}

async fn mounts_leave_no_trace_on_the_host(bench: Bench) {
    let watched = [
        "/run",
        "/opt",
        "/mnt",
        "/etc",
        "/srv",
        "/var/lib/coracle-test",
    ];
    let look = || {
        let mut found = BTreeMap::new();
        for root in watched {
            snapshot(Path::new(root), &mut found);
        }
        let mut top = std::fs::read_dir("/")
            .unwrap()
            .flatten()
            .map(|e| e.file_name())
            .collect::<Vec<_>>();
        top.sort();
        (found, top)
    };
    let before = look();
    let token = bench.folder("token");
    std::fs::write(token.join("token"), "secret\n").unwrap();
    let (deep, mnt, new) = (
        bench.folder("deep"),
        bench.folder("mnt"),
        bench.folder("new"),
    );
    let mut spec = bench.shell(
        "a",
        "set -e; cat /var/run/secrets/kubernetes.io/serviceaccount/token; \
         echo deep > /opt/a/b/file; echo mnt > /mnt/file; echo new > /no-such-top/x/file; \
         ls /mnt; pwd; ls -d /run/lock /opt/a; ls -d /etc/passwd; touch /opt/a/own",
    );
    spec.mounts.extend([
        MountSpec::bind(token, "/var/run/secrets/kubernetes.io/serviceaccount", true),
        MountSpec::bind(&deep, "/opt/a/b", false),
        MountSpec::bind(&mnt, "/mnt", false),
        MountSpec::bind(&new, "/no-such-top/x", false),
    ]);
    spec.cwd = Some("/srv/made/for/this".into());
    let (exit, lines) = bench.output(&spec).await;
    assert_eq!(exit.exit_code, 0, "{lines:?}");
    assert_eq!(
        lines,
        [
            "secret",
            "file",
            "/srv/made/for/this",
            "/opt/a",
            "/run/lock",
            "/etc/passwd"
        ]
    );
    for (folder, text) in [(deep, "deep\n"), (mnt, "mnt\n"), (new, "new\n")] {
        assert_eq!(std::fs::read_to_string(folder.join("file")).unwrap(), text);
    }
    let after = look();
    assert_eq!(before.1, after.1);
    let changed: Vec<_> = before
        .0
        .iter()
        .filter(|(path, was)| after.0.get(*path) != Some(was))
        .map(|(path, _)| path)
        .chain(after.0.keys().filter(|path| !before.0.contains_key(*path)))
        .collect();
    assert!(changed.is_empty(), "changed on the host: {changed:?}");
}

async fn a_missing_source_is_named(bench: Bench) {
    let mut spec = bench.shell("a", "true");
    spec.mounts
        .push(MountSpec::bind("/no/such/source", "/x", false));
    let Err(Error::NotStarted(error)) = bench.spawner.launch(&spec).await else {
        panic!("a mount of nothing")
    };
    assert_eq!(error.step, StartStep::Mount);
    assert_eq!(
        error.message,
        "mount /no/such/source: no such file or directory"
    );
}

async fn volumes_may_be_files_memory_read_only_and_nested(bench: Bench) {
    let outer = bench.folder("outer");
    let inner = bench.folder("inner");
    std::fs::write(inner.join("x"), "inner\n").unwrap();
    let file = bench.dir.join("file");
    std::fs::write(&file, "one file\n").unwrap();
    let message = bench.dir.join("message");
    std::fs::write(&message, "").unwrap();
    let mut spec = bench.shell(
        "a",
        "echo bye > /dev/termination-log; cat /data/sub/x /config/app.conf; echo new > /data/sub/y || echo refused; \
         echo m > /memory/m && stat -f -c %T /memory; echo w > /data/w; readlink -f /data/link/z",
    );
    std::os::unix::fs::symlink("sub", outer.join("link")).unwrap();
    spec.mounts.extend([
        // Deeper first: the order must not matter.
        MountSpec::bind(&inner, "/data/sub", true),
        MountSpec::bind(&outer, "/data", false),
        MountSpec::bind(&file, "/config/app.conf", true),
        MountSpec::bind(&message, "/dev/termination-log", false),
        MountSpec {
            target: "/memory".into(),
            kind: MountKind::Tmpfs {
                size: Some(1 << 20),
            },
            read_only: false,
        },
    ]);
    let (_, lines) = bench.output(&spec).await;
    assert!(
        lines
            .iter()
            .any(|line| line.contains("Read-only file system")),
        "{lines:?}"
    );
    let lines: Vec<&String> = lines
        .iter()
        .filter(|line| !line.contains("Read-only"))
        .collect();
    assert_eq!(
        lines,
        ["inner", "one file", "refused", "tmpfs", "/data/sub/z"]
    );
    assert_eq!(std::fs::read_to_string(outer.join("w")).unwrap(), "w\n");
    assert!(!inner.join("y").exists());
    assert_eq!(std::fs::read_to_string(message).unwrap(), "bye\n");
    assert!(!Path::new("/dev/termination-log").exists());
}

async fn devices_work(bench: Bench) {
    let spec = bench.shell(
        "a",
        "head -c 4 /dev/urandom | wc -c; cat /dev/null; echo x 2>/dev/null > /dev/full || echo full; \
         test -c /dev/zero && test -d /dev/pts && ls /dev/fd/0; echo out > /dev/stderr",
    );
    let (_, lines) = bench.output(&spec).await;
    let lines: Vec<&String> = lines
        .iter()
        .filter(|line| !line.contains("No space"))
        .collect();
    assert_eq!(lines, ["4", "full", "/dev/fd/0", "out"]);
}

async fn names_come_from_the_pods_hosts_file(bench: Bench) {
    let etc = bench.folder("etc");
    std::fs::write(etc.join("hosts"), "127.97.0.9 first.svc\n").unwrap();
    let mut spec = bench.shell(
        "a",
        "getent hosts first.svc; hostname; echo > $GATES/ask; read x < $GATES/answer; \
         getent hosts second.svc; getent hosts first.svc || echo none",
    );
    (spec.etc_dir, spec.hostname) = (Some(etc.clone()), Some("pod-0".into()));
    let (ask, answer) = (bench.gate("ask"), bench.gate("answer"));
    bench.spawner.launch(&spec).await.unwrap();
    crate::harness::hear(&ask).await;
    std::fs::write(etc.join("new"), "127.97.0.10 second.svc\n").unwrap();
    std::fs::rename(etc.join("new"), etc.join("hosts")).unwrap();
    crate::harness::tell(&answer, "go\n").await;
    spawner::wait(&spec.state_dir).await.unwrap();
    let words: Vec<String> = bench
        .log("a")
        .iter()
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        words,
        [
            "127.97.0.9 first.svc",
            "pod-0",
            "127.97.0.10 second.svc",
            "none"
        ]
    );
}

async fn the_root_can_be_read_only(bench: Bench) {
    let data = bench.folder("data");
    let mut spec = bench.shell(
        "a",
        "for f in /usr/x /etc/x /opt/x /x; do touch $f 2>/dev/null && echo wrote $f; done; \
         touch /data/x /tmp/x /dev/shm/x && echo volumes; echo > /dev/null && echo null",
    );
    spec.mounts.push(MountSpec::bind(&data, "/data", false));
    spec.read_only_root = true;
    let (_, lines) = bench.output(&spec).await;
    assert_eq!(lines, ["volumes", "null"]);
}

async fn tmp_and_processes_are_private(bench: Bench) {
    let spec = bench.shell(
        "a",
        "echo x > /tmp/mark; ls /tmp; ls /proc | grep -c '^[0-9]'; ls /dev/shm",
    );
    let (_, lines) = bench.output(&spec).await;
    assert_eq!(lines[0], "mark");
    if bench.spawner.capabilities().pid_namespace == spawner::Support::Ok {
        assert!(lines[1].parse::<u32>().unwrap() <= 5, "{lines:?}");
    }
    assert_eq!(lines.len(), 2);
    assert!(spec.state_dir.join("tmp/mark").exists());
}

async fn ids_capabilities_and_groups_are_taken_on(bench: Bench) {
    let mut spec = bench.image("a", &["ids"]);
    let (_, lines) = bench.output(&spec).await;
    assert_eq!(lines[..3], ["Uid: 0 0 0 0", "Gid: 0 0 0 0", "Groups:"]);
    // Of the usual set nothing is missing where the caller has it, and NET_ADMIN is not in it.
    let effective = u64::from_str_radix(lines[3].trim_start_matches("CapEff: "), 16).unwrap();
    assert_eq!((effective >> 10 & 1, effective >> 12 & 1), (1, 0));

    spec = bench.image("b", &["ids"]);
    spec.user.uid = Some(1234);
    spec.user.gid = Some(77);
    spec.user.groups = vec![88, 99];
    spec.user.no_new_privs = true;
    spec.user.cap_drop = vec!["ALL".into()];
    let (_, lines) = bench.output(&spec).await;
    assert_eq!(
        lines,
        [
            "Uid: 1234 1234 1234 1234",
            "Gid: 77 77 77 77",
            "Groups: 88 99",
            "CapEff: 0000000000000000",
            "CapBnd: 0000000000000000",
            "NoNewPrivs: 1",
        ]
    );

    let mut spec = bench.shell("c", "id -u; id -g; touch /tmp/x && stat -c %u /tmp/x");
    spec.user.uid = Some(65534);
    let (_, lines) = bench.output(&spec).await;
    assert_eq!(lines, ["65534", "65534", "65534"]);
}

async fn a_built_in_program_needs_no_reachable_path(bench: Bench) {
    // The data directory lies in a folder that only its owner may enter; so shall the binary.
    let hidden = bench.folder("hidden");
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o700)).unwrap();
    let copy = hidden.join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let data = bench.folder("other-data");
    let mut options = crate::harness::options(&data, Mode::Auto);
    options.exe = copy;
    let other = spawner::Spawner::start_or_attach(options, &bench.supervisor)
        .await
        .unwrap();
    let mut spec = bench.image("a", &["ids"]);
    spec.user.uid = Some(65534);
    other.launch(&spec).await.unwrap();
    assert_eq!(spawner::wait(&spec.state_dir).await.unwrap().exit_code, 0);
    assert_eq!(bench.log("a")[0], "Uid: 65534 65534 65534 65534");
    other.shutdown().await.unwrap();
}

async fn what_needs_root_is_said(bench: Bench) {
    let mut spec = bench.shell("a", "id -u; touch $GATES/made");
    spec.user.uid = Some(1000);
    spec.user.groups = vec![5];
    spec.user.cap_add = vec!["NET_ADMIN".into()];
    let started = bench.spawner.launch(&spec).await.unwrap();
    let warnings = started.warnings.join("\n");
    assert!(
        warnings.contains("fsGroup [5]") && warnings.contains("NET_ADMIN"),
        "{warnings}"
    );
    spawner::wait(&spec.state_dir).await.unwrap();
    let own = rustix::process::geteuid().as_raw();
    if bench.spawner.mounts() {
        // A view through the user namespace; on the host the user stays who they are.
        assert_eq!(bench.log("a"), ["1000"]);
    } else {
        assert!(warnings.contains("runAsUser 1000"), "{warnings}");
    }
    assert_eq!(
        std::fs::metadata(bench.folder("gates").join("made"))
            .unwrap()
            .uid(),
        own
    );
}

async fn without_mounts_a_program_gets_tables(bench: Bench) {
    assert!(!bench.spawner.mounts());
    let (data, etc) = (bench.folder("data"), bench.folder("etc"));
    let mut spec = bench.image("a", &["env"]);
    spec.mounts.push(MountSpec::bind(&data, "/mnt", true));
    spec.etc_dir = Some(etc.clone());
    spec.cwd = Some("/mnt".into());
    let started = bench.spawner.launch(&spec).await.unwrap();
    assert!(started.warnings.is_empty(), "{:?}", started.warnings);
    spawner::wait(&spec.state_dir).await.unwrap();
    let lines = bench.log("a");
    let value = |name: &str| {
        let prefix = format!("{name}=");
        lines
            .iter()
            .find_map(|line| line.strip_prefix(&prefix))
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        value("CORACLE_HOSTS"),
        etc.join("hosts").display().to_string()
    );
    let table = std::fs::read_to_string(value("CORACLE_MOUNTS")).unwrap();
    let table: serde_json::Value = serde_json::from_str(&table).unwrap();
    assert_eq!(
        table,
        serde_json::json!([{ "target": "/mnt", "source": data, "readOnly": true }])
    );

    let mut spec = bench.shell("b", "true");
    spec.mounts.push(MountSpec::bind(&data, "/mnt", true));
    let started = bench.spawner.launch(&spec).await.unwrap();
    assert!(
        started.warnings[0].contains("/mnt need a mount namespace"),
        "{:?}",
        started.warnings
    );
}

async fn a_launch_is_cheap(bench: Bench) {
    let mut times = Vec::new();
    for number in 0..30 {
        let mut spec = bench.shell(&format!("c{number}"), "");
        spec.program = Program::Path("/bin/true".into());
        let clock = stdx::SystemClock::new();
        let before = stdx::Clock::monotonic(&clock);
        bench.spawner.launch(&spec).await.unwrap();
        let launched = stdx::Clock::monotonic(&clock).saturating_sub(before);
        spawner::wait(&spec.state_dir).await.unwrap();
        times.push((
            launched,
            stdx::Clock::monotonic(&clock).saturating_sub(before),
        ));
    }
    times.sort_unstable();
    let (launched, ended) = times[times.len() / 2];
    // A figure to look at; a busy machine proves nothing.
    println!(
        "        launch {launched:?}, launch to exit {ended:?} (median of {})",
        times.len()
    );
}
