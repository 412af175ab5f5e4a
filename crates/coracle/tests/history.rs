//! A mixed load of runs while servers and spawners are killed at random moments: the history that
//! the steps themselves wrote shows that nothing was lost and no finished step ran again.
//!
//! `CORACLE_SEED` repeats a failure, `CORACLE_TEST_FULL=1` kills two hundred times instead of twenty.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::server::signal_and_wait;
use support::{Dice, Server, kfp, setting};

/// Runs that go on at any time.
const LOAD: usize = 4;

/// A step that writes to the history when it begins and when it ends.
fn step(name: &str, extra: &str, more: &Value) -> Value {
    let script = format!(
        "echo start $KEY >> /work/history; sleep 0.$(( $(printf %d \"'$KEY\") % 3 )); {extra}\n\
         echo end $KEY >> /work/history"
    );
    let mut template = json!({
        "name": name,
        "inputs": {"parameters": [{"name": "key"}]},
        "volumes": [{"name": "work", "hostPath": {"path": "FOLDER"}}],
        "container": {
            "image": "busybox",
            "command": ["sh", "-ec", script],
            "env": [{"name": "KEY", "value": "{{workflow.uid}}/{{inputs.parameters.key}}"}],
            "volumeMounts": [{"name": "work", "mountPath": "/work"}],
        },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        template[key] = value.clone();
    }
    template
}

fn task(name: &str, template: &str, after: &[&str], key: &str, more: &Value) -> Value {
    let mut task = json!({
        "name": name, "template": template, "dependencies": after,
        "arguments": {"parameters": [{"name": "key", "value": key}]},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        task[key] = value.clone();
    }
    task
}

/// A chain, a fan-out, an output that decides what follows, a retry, an exit handler.
fn workflow(folder: &Path) -> Value {
    let none = Value::Null;
    let flip =
        json!({"outputs": {"parameters": [{"name": "side", "valueFrom": {"path": "/tmp/side"}}]}});
    let retry = json!({"retryStrategy": {"limit": 3}});
    let heads = "\"{{tasks.flip.outputs.parameters.side}}\" == \"heads\"";
    let text = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "metadata": {"generateName": "history-"},
        "spec": {
            "entrypoint": "main", "onExit": "bye", "serviceAccountName": "pipeline-runner",
            "templates": [
                {"name": "main", "dag": {"tasks": [
                    task("one", "say", &[], "one", &none),
                    task("two", "say", &["one"], "two", &none),
                    task("each", "say", &["one"], "each-{{item}}", &json!({"withItems": [1, 2, 3, 4]})),
                    task("flip", "flip", &["two"], "flip", &none),
                    task("heads", "say", &["flip"], "heads", &json!({"when": heads})),
                    task("flaky", "flaky", &["two"], "flaky", &none),
                    task("last", "say", &["each", "heads", "flaky"], "last", &none),
                ]}},
                step("say", "", &none),
                step("flip", "echo -n heads > /tmp/side", &flip),
                step("flaky", "test -e /work/again-$(echo $KEY | tr / -) || \
                     { touch /work/again-$(echo $KEY | tr / -); echo failed $KEY >> /work/history; exit 3; }",
                     &retry),
                {"name": "bye", "dag": {"tasks": [task("bye", "say", &[], "bye", &none)]}},
            ],
        },
    })
    .to_string();
    serde_json::from_str(&text.replace("FOLDER", &folder.display().to_string())).unwrap()
}

/// What has to be in the history of every run, by step: starts and ends.
fn expected() -> BTreeMap<&'static str, (usize, usize)> {
    let once = [
        "one", "two", "each-1", "each-2", "each-3", "each-4", "flip", "heads", "last", "bye",
    ];
    let mut expected: BTreeMap<_, _> = once.into_iter().map(|step| (step, (1, 1))).collect();
    // Its first attempt fails of its own will.
    expected.insert("flaky", (2, 1));
    expected
}

/// Checks one run's part of the history.
fn judge(id: &str, history: &str) {
    let count = |word: &str, step: &str| {
        let line = format!("{word} {id}/{step}");
        history.lines().filter(|found| **found == line).count()
    };
    for (step, (starts, ends)) in expected() {
        assert_eq!(
            count("end", step),
            ends,
            "{step} of run {id} ended this often:\n{history}"
        );
        assert_eq!(
            count("start", step),
            starts,
            "{step} of run {id} began this often: a running step was not taken over\n{history}"
        );
    }
}

async fn start(server: &Server, manifest: &Value) -> String {
    kfp::run_manifest(server, "history", manifest, &[]).await
}

#[tokio::test]
async fn the_history_of_a_mixed_load_is_whole_whatever_is_killed() {
    let seed = setting("CORACLE_SEED")
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    let full = setting("CORACLE_TEST_FULL").is_some();
    let kills = if full { 200 } else { 20 };
    println!("CORACLE_SEED={seed}, {kills} kills");
    let mut dice = Dice(seed);
    let server = Server::start();
    let folder = server.scratch().join("work");
    std::fs::create_dir_all(&folder).unwrap();
    let manifest = workflow(&folder);
    let mut going = Vec::new();
    let mut over = Vec::new();
    for kill in 0..kills {
        while going.len() < LOAD {
            going.push(start(&server, &manifest).await);
        }
        let moment = Duration::from_millis(dice.below(1500));
        let victim = ["server", "spawner", "both"][kill % 3];
        println!("kill {kill}: {victim} after {moment:?}");
        // The moment is what is tested; nothing is waited for.
        tokio::time::sleep(moment).await;
        if victim != "spawner" {
            server.kill();
        }
        if victim != "server"
            && let Some(pid) = server.spawner_pid()
        {
            signal_and_wait(pid, Signal::KILL);
        }
        if victim != "spawner" {
            server.up();
        }
        let mut still = Vec::new();
        for id in going.drain(..) {
            let status = kfp::run(&server, &id).await["run"]["status"].clone();
            if matches!(status.as_str(), Some("Succeeded" | "Failed")) {
                over.push(id);
            } else {
                still.push(id);
            }
        }
        going = still;
    }
    over.extend(going);
    let mut judged = Vec::new();
    for id in &over {
        let run = kfp::succeed(&server, id).await;
        judged.push((id, kfp::steps(&run)));
    }
    let history = std::fs::read_to_string(folder.join("history")).unwrap();
    for (id, steps) in judged {
        judge(id, &history);
        assert!(steps.len() >= expected().len(), "run {id} shows {steps:?}");
    }
    println!("{} runs", over.len());
}
