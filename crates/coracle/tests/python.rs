//! Python steps: kfp's commands run in cached environments, made once, from an index that is a folder
//! with one package.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::ops::Deref;
use std::process::Command;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::{Value, json};
use support::cluster::{container, create, exit_code, finished, log};
use support::server::open_to_all;
use support::{Server, root_or_skip, said, skip};

/// A server whose user has set up an index of one package and no other.
struct Served {
    server: Server,
    index: tempfile::TempDir,
}

impl Deref for Served {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// Makes the index; not below `/tmp`, of which every container has one of its own, and not in the
/// user's home, into which other users cannot look.
fn make_index() -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    open_to_all(folder.path());
    let dir = folder.path();
    let info = dir.join("greet-1.0.dist-info");
    std::fs::create_dir_all(&info).unwrap();
    for (file, text) in [
        ("greet.py", "WORD = 'hello from the package'\n"),
        (
            "greet-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: greet\nVersion: 1.0\n",
        ),
        (
            "greet-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        ),
        (
            "greet-1.0.dist-info/RECORD",
            "greet.py,,\ngreet-1.0.dist-info/METADATA,,\ngreet-1.0.dist-info/WHEEL,,\ngreet-1.0.dist-info/RECORD,,\n",
        ),
    ] {
        std::fs::write(dir.join(file), text).unwrap();
    }
    let made = Command::new("python3")
        .current_dir(dir)
        .args([
            "-m",
            "zipfile",
            "-c",
            "greet-1.0-py3-none-any.whl",
            "greet.py",
        ])
        .arg("greet-1.0.dist-info/")
        .output();
    made.is_ok_and(|made| made.status.success())
        .then_some(folder)
}

fn server(flags: &[&str]) -> Option<Served> {
    let Some(index) = make_index() else {
        skip("needs python3");
        return None;
    };
    let server = Server::prepare(flags);
    let mut up = server.up_command(true);
    up.env("PIP_NO_INDEX", "1")
        .env("PIP_FIND_LINKS", index.path());
    let done = up.output().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    Some(Served { server, index })
}

/// A step as the compiler of the first SDK writes it.
fn step(name: &str, package: &str, source: &str) -> Value {
    let install = format!(
        "PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet --no-warn-script-location \
         '{package}'"
    );
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": "python:3", "command": [
                "sh", "-c", format!("({install} || {install} --user) && \"$0\" \"$@\""),
                "sh", "-ec",
                "program_path=$(mktemp)\nprintf \"%s\" \"$0\" > \"$program_path\"\n\
                 python3 -u \"$program_path\" \"$@\"\n",
                source,
            ], "args": ["--word", "argument"]}],
        },
    })
}

const GREET: &str = "import greet, sys, os\nprint(greet.WORD, sys.argv[1:], sys.prefix)\n";

async fn run(pods: &Api<Pod>, pod: Value) -> (Pod, String) {
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    create(pods, pod).await;
    let pod = finished(pods, &name).await;
    let mut log = log(pods, &name).await;
    if exit_code(&pod) == Some(128) {
        // It was never started: its state says why.
        log = container(&pod, "main")["state"].to_string();
    }
    (pod, log)
}

async fn steps_share_one_environment(server: &Server, mounts: bool) {
    let pods = server.pods().await;
    let at_once = ["a", "b", "c"].map(|name| run(&pods, step(name, "greet==1.0", GREET)));
    let mut makers = 0;
    for (pod, log) in join_all(at_once).await {
        assert_eq!(exit_code(&pod), Some(0), "{log}");
        assert!(
            log.contains("hello from the package ['--word', 'argument']"),
            "{log}"
        );
        makers += usize::from(log.contains("making a Python"));
    }
    assert_eq!(makers, 1);
    // Once it is there nobody installs or waits, and nobody can change it.
    let spoil = "import greet, sys\ntry:\n  open(greet.__file__, 'a')\n  print('changed')\n\
                 except OSError as error: print('kept', error.errno)\n";
    let (pod, log) = run(&pods, step("later", "greet==1.0", spoil)).await;
    assert_eq!(exit_code(&pod), Some(0), "{log}");
    assert!(!log.contains("coracle:"), "{log}");
    if mounts {
        assert!(log.contains("kept 30"), "{log}");
    }
}

#[tokio::test]
async fn steps_with_the_same_packages_share_an_environment_that_is_made_once() {
    let Some(server) = server(&[]) else { return };
    steps_share_one_environment(&server, true).await;

    let pods = server.pods().await;
    let (pod, log) = run(&pods, step("missing", "no-such-thing==9", GREET)).await;
    assert_eq!(exit_code(&pod), Some(1), "{log}");
    let message = container(&pod, "main")["state"]["terminated"]["message"].clone();
    let message = message.as_str().unwrap_or_default();
    assert!(
        message.starts_with("Python package no-such-thing==9 cannot be had:"),
        "{message}"
    );
    assert!(
        message.contains("No matching distribution found"),
        "{message}"
    );
    assert!(log.contains(message), "{log}");
}

#[tokio::test]
async fn without_mounts_environments_are_used_where_they_are() {
    let Some(server) = server(&["--no-mounts"]) else {
        return;
    };
    steps_share_one_environment(&server, false).await;
}

#[tokio::test]
async fn a_step_of_another_user_has_environments_of_its_own() {
    if !root_or_skip() {
        return;
    }
    let Some(server) = server(&[]) else { return };
    let pods = server.pods().await;
    let mut pod = step(
        "other",
        "greet==1.0",
        "import greet, os\nprint(greet.WORD, os.getuid())\n",
    );
    pod["spec"]["securityContext"] = json!({"runAsUser": 65534});
    let (pod, text) = run(&pods, pod).await;
    if text.is_empty() {
        // No Python on this machine that everyone may run.
        let reason = container(&pod, "main")["state"].to_string();
        assert!(reason.contains("user 65534 may run"), "{reason}");
        return skip("needs a Python that everyone may run");
    }
    assert_eq!(exit_code(&pod), Some(0), "{text}");
    assert!(text.contains("hello from the package 65534"), "{text}");
}

#[tokio::test]
async fn further_images_are_named_in_the_configuration() {
    let server = Server::prepare(&[]);
    let config = server.scratch().join("images.yaml");
    let up = |text: &str| {
        std::fs::write(&config, text).unwrap();
        let mut up = server.up_command(true);
        up.current_dir(server.scratch())
            .args(["--config", "images.yaml"]);
        up.output().unwrap()
    };
    let refused = up("images:\n- pattern: mine/*\n  kind: {kind: wasm}\n");
    assert!(!refused.status.success(), "{}", said(&refused));
    assert!(said(&refused).contains("wasm"), "{}", said(&refused));
    let done = up("images:\n- pattern: mine/*\n  kind: {kind: host}\n");
    assert!(done.status.success(), "{}", said(&done));
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mine"},
        "spec": {"restartPolicy": "Never", "containers": [
            {"name": "main", "image": "mine/tool:7", "command": ["echo", "it runs"]},
        ]},
    });
    let (pod, log) = run(&server.pods().await, pod).await;
    assert_eq!((exit_code(&pod), log.as_str()), (Some(0), "it runs\n"));
}

#[tokio::test]
async fn a_plain_command_finds_the_python_of_its_image_and_its_own_packages() {
    let Some(server) = server(&[]) else { return };
    let pods = server.pods().await;
    let script = "python -c 'import sys; print(sys.version_info[0])' && pip install -q greet \
                  && python3 -c 'import greet; print(greet.__file__)'";
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain"},
        "spec": {"restartPolicy": "Never", "containers": [
            {"name": "main", "image": "python", "command": ["sh", "-c", script], "env": [
                {"name": "PIP_NO_INDEX", "value": "1"},
                {"name": "PIP_FIND_LINKS", "value": server.index.path()},
            ]},
        ]},
    });
    let (pod, log) = run(&pods, pod).await;
    assert_eq!(exit_code(&pod), Some(0), "{log}");
    assert!(log.starts_with("3\n"), "{log}");
    // pip put it into the container's own place, not into the host's Python.
    assert!(log.contains("/tmp/.python/"), "{log}");
}
