//! The command line: starting and stopping, what each command prints, and what it says when it
//! cannot do its work.

mod support;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::cluster::{create, kubectl_ok, phase, shell_pod};
use support::server::{self, free_port, pidfd};
use support::{Server, coracle, http, kubectl_path, said, skip};

const UNREACHABLE: i32 = 3;
const ENVIRONMENT: i32 = 4;

#[tokio::test]
async fn a_server_is_started_found_and_stopped() {
    let server = Server::prepare(&[]);
    let before = server.run(&["status"]);
    assert_eq!(before.status.code(), Some(UNREACHABLE), "{}", said(&before));
    assert!(said(&before).contains("coracle up"), "{}", said(&before));

    server.up();
    assert!(
        http::get(&server.url("/apis/v1beta1/healthz"))
            .await
            .unwrap()
            .status
            .is_success()
    );
    let page = http::get(&server.url("/")).await.unwrap();
    assert!(
        page.status.is_success() && page.text.contains("kubectl"),
        "{}",
        page.text
    );

    let status = said(&server.run(&["status"]));
    for part in [
        server.pid().to_string(),
        server.url(""),
        format!("https://127.0.0.1:{}", server.kube_port),
        server.data().display().to_string(),
    ] {
        assert!(status.contains(&part), "{part:?} in {status}");
    }
    let json = server.run(&["status", "-o", "json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["running"], true, "{json}");
    assert_eq!(json["pid"], server.pid(), "{json}");
    assert_eq!(json["http"], server.url(""), "{json}");

    let down = server.run(&["down"]);
    assert!(down.status.success(), "{}", said(&down));
    assert!(
        http::get(&server.url("/")).await.is_err(),
        "nobody listens any more"
    );
    let again = server.run(&["down"]);
    assert!(
        again.status.success(),
        "twice is as good as once: {}",
        said(&again)
    );
    let json = server.run(&["status", "-o", "json"]);
    assert_eq!(json.status.code(), Some(UNREACHABLE));
    assert_eq!(
        serde_json::from_slice::<Value>(&json.stdout).unwrap()["running"],
        false
    );

    let purged = server.run(&["down", "--purge"]);
    assert!(purged.status.success(), "{}", said(&purged));
    assert!(!server.data().exists());
}

#[tokio::test]
async fn clients_are_pointed_at_it() {
    let server = Server::start();
    let env = server.run(&["env"]);
    let lines = String::from_utf8(env.stdout).unwrap();
    let expect = [
        format!("export KUBECONFIG={}", server.kubeconfig().display()),
        format!("export KFP_URL={}", server.url("")),
    ];
    assert_eq!(
        lines.lines().collect::<Vec<_>>(),
        expect,
        "standard output is for the shell alone"
    );

    let printed = server.run(&["kubeconfig"]);
    assert_eq!(printed.stdout, std::fs::read(server.kubeconfig()).unwrap());

    let token = String::from_utf8(server.run(&["token"]).stdout).unwrap();
    assert!(
        token.trim().len() >= 32 && token.lines().count() == 1,
        "{token:?}"
    );

    // Merged into a file that has another cluster.
    let own = server.scratch().join("own-config");
    let other = "apiVersion: v1\nkind: Config\ncurrent-context: other\nclusters:\n- name: other\n  \
                 cluster: {server: 'https://other:1'}\nusers: []\ncontexts:\n- name: other\n  \
                 context: {cluster: other, user: other}\n";
    std::fs::write(&own, other).unwrap();
    let merged = server
        .command(&["kubeconfig", "--merge"])
        .env("KUBECONFIG", &own)
        .output()
        .unwrap();
    assert!(merged.status.success(), "{}", said(&merged));
    let read: Value = serde_saphyr::from_str(&std::fs::read_to_string(&own).unwrap()).unwrap();
    assert_eq!(read["current-context"], "other");
    let names = |list: &str| -> Vec<String> {
        let items = read[list].as_array().unwrap().iter();
        items
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("clusters"), ["other", "coracle"]);
    assert_eq!(names("contexts"), ["other", "coracle"]);

    let Some(kubectl) = kubectl_path() else {
        return;
    };
    let own = own.to_string_lossy();
    let args = [
        "--kubeconfig",
        &own,
        "--context",
        "coracle",
        "get",
        "nodes",
        "--no-headers",
    ];
    let nodes = kubectl_ok(&kubectl, &server, &args);
    assert!(nodes.contains("Ready"), "{nodes}");
}

#[test]
fn files_with_secrets_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start();
    let mut open = Vec::new();
    let mut folders = vec![server.data().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let kind = entry.metadata().unwrap();
            if kind.is_dir() {
                // The node's folders and volumes belong to Pods, which have users of their own.
                if entry.file_name() != "volumes" && entry.file_name() != "kubelet" {
                    folders.push(entry.path());
                }
            } else if kind.is_file() && kind.permissions().mode() & 0o077 != 0 {
                open.push(format!(
                    "{} {:o}",
                    entry.path().display(),
                    kind.permissions().mode()
                ));
            }
        }
    }
    // What others may read holds no secret.
    open.retain(|entry| !entry.contains("/slice "));
    assert!(open.is_empty(), "{open:#?}");
}

#[test]
fn it_speaks_before_it_works_and_ctrl_c_stops_it() {
    let server = Server::prepare(&[]);
    let mut child = server
        .up_command(false)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let first = lines.next().unwrap();
    assert!(first.contains("Starting"), "{first}");
    let all: Vec<String> = lines
        .by_ref()
        .take_while(|line| !line.contains("Ready"))
        .collect();
    let text = all.join("\n");
    assert!(text.contains(&server.url("")), "{text}");
    assert!(
        text.contains(&server.kubeconfig().display().to_string()),
        "{text}"
    );
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).unwrap();
    let rest: Vec<String> = lines.collect();
    assert!(
        rest.iter().any(|line| line.contains("Stopping")),
        "{rest:?}"
    );
    assert!(child.wait().unwrap().success());
}

/// A caller that waits for the end of a pipe which its children inherited must not wait for the
/// server to end.
#[test]
fn a_detached_server_keeps_nothing_of_its_caller_open() {
    let server = Server::prepare(&[]);
    let (mut reader, writer) = std::io::pipe().unwrap();
    // The pipe's end is inherited by everything that is started from here: no close-on-exec.
    let inherited = rustix::io::dup(&writer).unwrap();
    let mut command = server.up_command(true);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    drop((writer, inherited));
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    let links = std::fs::read_dir(format!("/proc/{}/fd", server.pid()))
        .unwrap()
        .flatten();
    let pipes: Vec<_> = links
        .filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .collect();
    let shell = pipes
        .iter()
        .filter(|link| link.to_string_lossy().starts_with("/dev/pts"));
    assert_eq!(shell.count(), 0, "{pipes:?}");
}

#[test]
fn a_given_port_in_use_is_an_error_that_names_its_holder() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    for flag in ["--listen", "--kube-listen"] {
        for detach in [true, false] {
            let mut server = Server::prepare(&[]);
            match flag {
                "--listen" => server.http_port = port,
                _ => server.kube_port = port,
            }
            let refused = server.up_command(detach).output().unwrap();
            let text = said(&refused);
            assert_eq!(refused.status.code(), Some(ENVIRONMENT), "{flag}: {text}");
            assert!(text.contains(&format!("{flag} 127.0.0.1:{port}")), "{text}");
            assert!(
                text.contains(&format!("(pid {})", std::process::id())),
                "{text}"
            );
        }
    }
}

#[test]
fn a_port_of_its_own_choice_gives_way_and_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::prepare_at(dir, data, &[]);
    let usual: Vec<Option<TcpListener>> = [6443, 8080]
        .iter()
        .map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).ok())
        .collect();
    let up = || server.command(&["up", "-d"]).output().unwrap();
    let first = up();
    assert!(first.status.success(), "{}", said(&first));
    let text = said(&first);
    assert!(text.contains("port 6443 is taken by"), "{text}");
    assert!(text.contains("port 8080 is taken by"), "{text}");
    let ports = || {
        let state = std::fs::read_to_string(server.data().join("server.json")).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        (state["http"].to_string(), state["kube"].to_string())
    };
    let chosen = ports();
    server.stop();
    drop(usual);
    let second = up();
    assert!(second.status.success(), "{}", said(&second));
    assert_eq!(ports(), chosen, "the next start uses the same ports");
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused_and_the_first_lives_on() {
    let server = Server::start();
    for detach in [true, false] {
        let mut second = server.command(if detach { &["up", "-d"] } else { &["up"] });
        second.args(["--listen", &format!("127.0.0.1:{}", free_port())]);
        let second = second.output().unwrap();
        let text = said(&second);
        assert_eq!(second.status.code(), Some(ENVIRONMENT), "{text}");
        assert!(text.contains(&format!("pid {}", server.pid())), "{text}");
        assert!(text.contains(&server.url("")), "{text}");
    }
    assert!(
        http::get(&server.url("/"))
            .await
            .unwrap()
            .status
            .is_success()
    );
}

#[tokio::test]
async fn an_ephemeral_server_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let started = coracle()
        .args(["up", "-d", "--ephemeral"])
        .args(["--listen", &format!("127.0.0.1:{}", free_port())])
        .args(["--kube-listen", &format!("127.0.0.1:{}", free_port())])
        .env("TMPDIR", home.path())
        .env("HOME", home.path())
        .output()
        .unwrap();
    assert!(started.status.success(), "{}", said(&started));
    let data: Vec<_> = std::fs::read_dir(home.path()).unwrap().flatten().collect();
    assert_eq!(data.len(), 1, "{data:?}");
    let data = data[0].path();
    let server = Server::prepare_at(home, data.clone(), &[]);
    let pods = server.pods().await;
    create(&pods, shell_pod("sleeper", "sleep 1000")).await;
    phase(&pods, "sleeper", "Running").await;
    let process = pidfd(server.pid()).unwrap();
    let down = server.run(&["down"]);
    assert!(down.status.success(), "{}", said(&down));
    assert!(server::ended(&process));
    assert!(!data.exists(), "{data:?} is still there");
    let left: Vec<_> = std::fs::read_dir(server.scratch())
        .unwrap()
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn down_cleans_up_after_a_server_that_was_killed() {
    let server = Server::start();
    let pods = server.pods().await;
    // The child of a shell must go as well.
    create(
        &pods,
        shell_pod("orphan", "sleep 98761 & sleep 98762; true"),
    )
    .await;
    phase(&pods, "orphan", "Running").await;
    let ours = || {
        let all = ["sleep 98761", "sleep 98762"].iter();
        all.flat_map(|text| server::processes_with(text))
            .collect::<Vec<_>>()
    };
    support::until("both processes run", async || {
        (ours().len() >= 2).then_some(())
    })
    .await;
    server.kill();
    assert!(!ours().is_empty(), "Pods outlive a server that is killed");
    let down = server.run(&["down"]);
    assert!(down.status.success(), "{}", said(&down));
    support::until("no process is left", async || {
        ours().is_empty().then_some(())
    })
    .await;
    support::until("nor its spawner", async || {
        server.spawner_pid().is_none().then_some(())
    })
    .await;
    let again = server.run(&["down"]);
    assert!(again.status.success(), "{}", said(&again));
}

#[test]
fn what_makes_no_sense_is_explained() {
    for (args, part) in [
        (&["up", "--frobnicate"][..], "--frobnicate"),
        (&["frobnicate"], "frobnicate"),
        (&["up", "--listen", "8080"], "127.0.0.1:8080"),
        (
            &["up", "--ephemeral", "--data-dir", "/x"],
            "cannot be used with",
        ),
        (&["status", "-o", "xml"], "xml"),
        (&["completion", "no-such-shell"], "no-such-shell"),
    ] {
        let refused = coracle().args(args).output().unwrap();
        assert_eq!(
            refused.status.code(),
            Some(2),
            "{args:?}: {}",
            said(&refused)
        );
        assert!(
            said(&refused).contains(part),
            "{args:?}: {}",
            said(&refused)
        );
    }
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    File::create(&file).unwrap();
    for place in ["/proc/nowhere".into(), file.join("data"), file] {
        let refused = coracle()
            .args(["up", "-d", "--data-dir"])
            .arg(&place)
            .output()
            .unwrap();
        let text = said(&refused);
        assert_eq!(refused.status.code(), Some(ENVIRONMENT), "{text}");
        assert!(text.contains(&place.display().to_string()), "{text}");
        assert!(
            text.contains("--data-dir"),
            "a hint says what to do: {text}"
        );
    }
}

#[test]
fn doctor_looks_at_everything_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let run = |args: &[&str]| {
        coracle()
            .args(args)
            .arg("--data-dir")
            .arg(&data)
            .output()
            .unwrap()
    };
    let table = run(&["doctor"]);
    assert!(table.status.success(), "{}", said(&table));
    let json = run(&["doctor", "-o", "json"]);
    let findings: Value = serde_json::from_slice(&json.stdout).unwrap();
    let findings = findings.as_array().unwrap();
    assert!(findings.len() >= 6, "{findings:?}");
    for finding in findings {
        let (what, weight) = (
            finding["what"].as_str().unwrap(),
            finding["weight"].as_str().unwrap(),
        );
        assert!(["ok", "limited", "broken"].contains(&weight), "{finding}");
        assert!(said(&table).contains(what), "{finding}");
        // What is wrong comes with a way to mend it.
        assert_eq!(weight == "ok", finding.get("fix").is_none(), "{finding}");
    }
    assert!(!data.exists(), "looking makes nothing");
    let nowhere = coracle()
        .args(["doctor", "--data-dir", "/proc/x/y"])
        .output()
        .unwrap();
    let text = said(&nowhere);
    assert_eq!(nowhere.status.code(), Some(ENVIRONMENT), "{text}");
    assert!(text.contains("fix:"), "{text}");
}

#[test]
fn shells_get_a_completion() {
    for shell in ["bash", "zsh", "fish"] {
        let script = coracle().args(["completion", shell]).output().unwrap();
        assert!(script.status.success());
        let script = String::from_utf8(script.stdout).unwrap();
        assert!(
            script.contains("kubeconfig") && script.contains("data-dir"),
            "{shell}"
        );
        assert!(!script.contains("__spawner"), "inner words are not offered");
    }
    let Ok(bash) = std::process::Command::new("bash").arg("--version").output() else {
        return skip("needs bash");
    };
    assert!(bash.status.success());
    let checked = std::process::Command::new("bash")
        .args([
            "-c",
            "eval \"$(\"$0\" completion bash)\" && complete -p coracle",
        ])
        .arg(env!("CARGO_BIN_EXE_coracle"))
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", said(&checked));
}
