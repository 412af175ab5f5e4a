//! What a server finds again when it starts after a crash or a stop: its objects, and the Pods that
//! went on or ended while nobody looked.

mod support;

use std::io::Write as _;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, ServiceAccount};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use support::cluster::{
    container, create, delete_now, exit_code, finished, log, phase, shell_pod, when,
};
use support::server::{pidfd, processes_with};
use support::{Server, until};

/// A Pod whose process shows under a number of its own in the process table.
fn sleeper(name: &str, number: u32) -> Value {
    shell_pod(name, &format!("echo started; exec sleep {number}"))
}

/// The one process that a sleeper is, by pid and the time it was started.
async fn process(number: u32) -> (u32, String) {
    let text = number.to_string();
    until("the Pod's process runs", async || {
        let found: Vec<u32> = processes_with(&text)
            .into_iter()
            .filter(|pid| {
                std::fs::read_to_string(format!("/proc/{pid}/comm"))
                    .is_ok_and(|name| name.trim() == "sleep" || name.trim() == "busybox")
            })
            .collect();
        let [pid] = found.as_slice() else { return None };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let started = stat
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(19)?
            .to_owned();
        Some((*pid, started))
    })
    .await
}

fn runs(number: u32) -> bool {
    !processes_with(&format!("sleep {number}")).is_empty()
}

#[tokio::test]
async fn a_killed_server_finds_objects_and_running_pods_again() {
    let server = Server::start();
    let client = server.client().await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let made = create(
        &maps,
        json!({"metadata": {"name": "kept"}, "data": {"a": "b"}}),
    )
    .await;
    create(&pods, sleeper("keeper", 987_631)).await;
    let before = phase(&pods, "keeper", "Running").await;
    let process_before = process(987_631).await;

    server.kill();
    assert!(runs(987_631), "a Pod outlives the server");
    server.up();

    let client = server.client().await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    assert_eq!(maps.get("kept").await.unwrap(), made);
    let nodes: Api<Node> = Api::all(client.clone());
    let name = nodes
        .list(&kube::api::ListParams::default())
        .await
        .unwrap()
        .items
        .remove(0);
    let name = name.metadata.name.unwrap();
    when(&nodes, &name, "ready", |node: &Node| {
        let conditions = node
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten());
        conditions
            .clone()
            .any(|c| c.type_ == "Ready" && c.status == "True")
    })
    .await;
    // News about the Pod comes from a node agent that has taken it over.
    let patch = json!({"metadata": {"labels": {"seen": "again"}}});
    pods.patch("keeper", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    let after = phase(&pods, "keeper", "Running").await;
    assert_eq!(after.metadata.uid, before.metadata.uid);
    let (old, new) = (container(&before, "main"), container(&after, "main"));
    assert_eq!(new["containerID"], old["containerID"]);
    assert_eq!(new["restartCount"], 0);
    assert_eq!(
        new["state"]["running"]["startedAt"],
        old["state"]["running"]["startedAt"]
    );
    assert_eq!(
        process(987_631).await,
        process_before,
        "the very same process"
    );
    assert_eq!(log(&pods, "keeper").await, "started\n");
    // It is not only shown: it is in the new server's hands.
    delete_now(&pods, "keeper").await;
    until("the process ends with its Pod", async || {
        (!runs(987_631)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn pods_stay_when_the_server_is_told_to_leave_them() {
    let server = Server::start_with(&["--leave-pods"]);
    let pods = server.pods().await;
    create(&pods, sleeper("stays", 987_632)).await;
    let before = phase(&pods, "stays", "Running").await;
    let process_before = process(987_632).await;
    server.stop();
    assert!(runs(987_632));
    server.up();
    let pods = server.pods().await;
    let after = phase(&pods, "stays", "Running").await;
    assert_eq!(
        container(&after, "main")["containerID"],
        container(&before, "main")["containerID"]
    );
    assert_eq!(container(&after, "main")["restartCount"], 0);
    assert_eq!(process(987_632).await, process_before);
}

#[tokio::test]
async fn a_stop_ends_pods_and_the_next_start_runs_them_anew() {
    let server = Server::start();
    let pods = server.pods().await;
    let mut pod = sleeper("again", 987_633);
    pod["spec"]["restartPolicy"] = json!("Always");
    create(&pods, pod).await;
    let before = phase(&pods, "again", "Running").await;
    let process_before = process(987_633).await;
    server.stop();
    assert!(!runs(987_633), "no process is left behind");
    until("nor a spawner", async || {
        server.spawner_pid().is_none().then_some(())
    })
    .await;
    server.up();
    let pods = server.pods().await;
    let after = when(&pods, "again", "a new container", |pod: &Pod| {
        let main = container(pod, "main");
        main["state"]["running"].is_object()
            && main["containerID"] != container(&before, "main")["containerID"]
    })
    .await;
    assert_eq!(after.metadata.uid, before.metadata.uid);
    assert_ne!(process(987_633).await, process_before);
}

#[tokio::test]
async fn an_end_that_nobody_saw_is_reported_once_with_its_code() {
    let server = Server::start();
    let pods = server.pods().await;
    let folder = server.scratch().join("go");
    std::fs::create_dir(&folder).unwrap();
    for (name, policy) in [("never", "Never"), ("failing", "OnFailure")] {
        let fifo = folder.join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o666.into()).unwrap();
        // A second life of the container finds a marker and stays.
        let script = format!(
            "echo started; if [ -e /go/{name}.ran ]; then exec sleep 987634; fi; \
             read line < /go/{name}; touch /go/{name}.ran; exit 7"
        );
        let mut pod = shell_pod(name, &script);
        pod["spec"]["restartPolicy"] = json!(policy);
        pod["spec"]["volumes"] = json!([{"name": "go", "hostPath": {"path": folder}}]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "go", "mountPath": "/go"}]);
        create(&pods, pod).await;
        phase(&pods, name, "Running").await;
    }
    server.kill();
    for name in ["never", "failing"] {
        let mut fifo = std::fs::File::options()
            .write(true)
            .open(folder.join(name))
            .unwrap();
        fifo.write_all(b"go\n").unwrap();
        let marker = folder.join(format!("{name}.ran"));
        until("the Pod ends", async || marker.exists().then_some(())).await;
    }
    server.up();
    let pods = server.pods().await;
    let never = finished(&pods, "never").await;
    assert_eq!(exit_code(&never), Some(7), "{:?}", never.status);
    assert_eq!(container(&never, "main")["restartCount"], 0);
    assert_eq!(log(&pods, "never").await, "started\n");
    let failing = when(&pods, "failing", "a second life", |pod: &Pod| {
        let main = container(pod, "main");
        main["restartCount"] == 1 && main["state"]["running"].is_object()
    })
    .await;
    let last = &container(&failing, "main")["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 7, "{last}");
}

#[tokio::test]
async fn a_killed_spawner_costs_no_pod_its_exit_code() {
    let server = Server::start();
    let pods = server.pods().await;
    create(&pods, sleeper("survivor", 987_635)).await;
    phase(&pods, "survivor", "Running").await;
    let spawner = server.spawner_pid().expect("a spawner runs");
    let handle = pidfd(spawner).unwrap();
    rustix::process::pidfd_send_signal(&handle, rustix::process::Signal::KILL).unwrap();
    assert!(support::server::ended(&handle));
    let (pid, _) = process(987_635).await;
    support::server::signal_and_wait(pid, rustix::process::Signal::KILL);
    let pod = finished(&pods, "survivor").await;
    assert_eq!(exit_code(&pod), Some(128 + 9), "{:?}", pod.status);
    // And the server starts new Pods, by a spawner of its own accord.
    create(&pods, shell_pod("next", "echo fine")).await;
    let next = finished(&pods, "next").await;
    assert_eq!(exit_code(&next), Some(0), "{:?}", next.status);
}

#[tokio::test]
async fn tokens_and_keys_outlive_a_crash() {
    let server = Server::start();
    let token = server.run(&["token"]).stdout;
    let config = std::fs::read(server.kubeconfig()).unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(server.client().await, "default");
    let account = when(&accounts, "default", "made", |_| true).await;
    server.kill();
    server.up();
    assert_eq!(server.run(&["token"]).stdout, token);
    assert_eq!(std::fs::read(server.kubeconfig()).unwrap(), config);
    let accounts: Api<ServiceAccount> = Api::namespaced(server.client().await, "default");
    assert_eq!(
        accounts.get("default").await.unwrap().metadata.uid,
        account.metadata.uid
    );
}
