//! Pods on the real node: how they start, what they find inside, how they end, and what the host
//! looks like afterwards.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use kube::Api;
use kube::api::LogParams;
use serde_json::{Value, json};
use support::cluster::{
    container, create, delete_now, event, exit_code, finished, kubectl_ok, log, log_until, phase,
    shell_pod, when,
};
use support::{Server, kubectl, kubectl_path, root_or_skip, said, until};

/// A Pod with changes to its spec.
fn pod_with(name: &str, script: &str, changes: &Value) -> Value {
    let mut pod = shell_pod(name, script);
    for (key, value) in changes.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

#[tokio::test]
async fn exit_codes_and_restart_policies() {
    let server = Server::start();
    let pods = server.pods().await;
    let pods = &pods;
    let count = json!([{"name": "count", "emptyDir": {}}]);
    // Fails twice, then works.
    let third = "echo x >> /count/runs; n=$(wc -l < /count/runs); echo run $n; [ $n -ge 3 ]";
    let mut flaky = pod_with(
        "flaky",
        third,
        &json!({"restartPolicy": "OnFailure", "volumes": count}),
    );
    flaky["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "count", "mountPath": "/count"}]);
    create(pods, flaky).await;
    for (name, script) in [
        ("good", "exit 0"),
        ("bad", "exit 3"),
        ("shot", "kill -9 $$"),
        ("missing", "no-such-program"),
    ] {
        create(pods, shell_pod(name, script)).await;
    }
    let mut absent = shell_pod("absent", "");
    absent["spec"]["containers"][0]["command"] = json!(["/no/such/program"]);
    create(pods, absent).await;

    let ends = [
        ("good", "Succeeded", 0),
        ("bad", "Failed", 3),
        ("missing", "Failed", 127),
    ];
    for (name, expect, code) in ends {
        let pod = finished(pods, name).await;
        assert_eq!(exit_code(&pod), Some(code), "{name}");
        assert_eq!(
            pod.status.as_ref().unwrap().phase.as_deref(),
            Some(expect),
            "{name}"
        );
        let reason = &container(&pod, "main")["state"]["terminated"]["reason"];
        assert_eq!(
            *reason,
            if code == 0 { "Completed" } else { "Error" },
            "{name}"
        );
        assert_eq!(container(&pod, "main")["restartCount"], 0);
    }
    let absent = finished(pods, "absent").await;
    let state = container(&absent, "main");
    assert!(state.to_string().contains("/no/such/program"), "{state}");
    assert_ne!(exit_code(&absent), Some(0));

    let flaky = finished(pods, "flaky").await;
    assert_eq!(
        flaky.status.as_ref().unwrap().phase.as_deref(),
        Some("Succeeded")
    );
    assert_eq!(container(&flaky, "main")["restartCount"], 2);
    let last = &container(&flaky, "main")["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 1, "{last}");
    assert_eq!(log(pods, "flaky").await, "run 3\n");
    let previous = LogParams {
        previous: true,
        ..LogParams::default()
    };
    assert_eq!(pods.logs("flaky", &previous).await.unwrap(), "run 2\n");
}

#[tokio::test]
async fn init_containers_go_first_one_by_one() {
    let server = Server::start();
    let pods = server.pods().await;
    let mounts = json!([{"name": "shared", "mountPath": "/shared"}]);
    let init = |name: &str, script: &str| {
        json!({"name": name, "image": "busybox", "command": ["sh", "-c", script],
            "volumeMounts": mounts})
    };
    let mut pod = pod_with(
        "ordered",
        "cat /shared/order",
        &json!({
            "volumes": [{"name": "shared", "emptyDir": {}}],
            "initContainers": [
                init("first", "echo first >> /shared/order"),
                init("second", "echo second >> /shared/order"),
            ],
        }),
    );
    pod["spec"]["containers"][0]["volumeMounts"] = mounts.clone();
    create(&pods, pod).await;
    let broken = pod_with(
        "broken",
        "echo never",
        &json!({
            "initContainers": [init("fails", "exit 5"), init("later", "true")],
            "volumes": [{"name": "shared", "emptyDir": {}}],
        }),
    );
    create(&pods, broken).await;

    let ordered = finished(&pods, "ordered").await;
    assert_eq!(exit_code(&ordered), Some(0), "{:?}", ordered.status);
    assert_eq!(log(&pods, "ordered").await, "first\nsecond\n");
    let broken = finished(&pods, "broken").await;
    assert_eq!(
        broken.status.as_ref().unwrap().phase.as_deref(),
        Some("Failed")
    );
    assert_eq!(
        container(&broken, "fails")["state"]["terminated"]["exitCode"],
        5
    );
    assert!(
        container(&broken, "main")["state"]["waiting"].is_object(),
        "{:?}",
        broken.status
    );
    assert!(container(&broken, "later")["state"]["waiting"].is_object());
}

#[tokio::test]
async fn what_a_pod_finds_inside() {
    let server = Server::start();
    let client = server.client().await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "default");
    create(
        &maps,
        json!({"metadata": {"name": "map"},
        "data": {"colour": "green", "file.txt": "from a map\n"}}),
    )
    .await;
    create(
        &secrets,
        json!({"metadata": {"name": "secret"}, "stringData": {"key": "hush"}}),
    )
    .await;
    let script = "
        echo plain=$PLAIN colour=$COLOUR key=$KEY all=$M_colour expanded=$EXPANDED
        echo name=$NAME namespace=$NAMESPACE label=$LABEL ip=$IP cpu=$CPU
        echo arg=$0
        cat /map/renamed.txt; echo key=$(cat /secret/key) mode=$(stat -Lc %a /secret/key)
        echo labels=$(cat /down/labels)
        echo projected=$(cat /all/key)-$(cat /all/colour)-$(cat /all/name)
        echo sub=$(cat /one-file)
        echo token=$(wc -c < /var/run/secrets/kubernetes.io/serviceaccount/token)
        echo namespace-file=$(cat /var/run/secrets/kubernetes.io/serviceaccount/namespace)
        grep -c BEGIN /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
        (echo x > /ro/y) 2>/dev/null && echo writable || echo read-only
        echo pwd=$(pwd)
        grep -c what-is-inside /etc/hosts
        echo message > /dev/termination-log
    ";
    let mut pod = shell_pod("what-is-inside", script);
    pod["metadata"]["labels"] = json!({"app": "inside"});
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    pod["spec"]["containers"][0]["command"] = json!(["sh", "-c", script, "$(PLAIN)-arg"]);
    pod["spec"]["containers"][0]["workingDir"] = json!("/scratch");
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1500m"}});
    pod["spec"]["containers"][0]["env"] = json!([
        {"name": "PLAIN", "value": "p"},
        {"name": "EXPANDED", "value": "$(PLAIN)-$(UNKNOWN)-$$(PLAIN)"},
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "colour"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "key"}}},
        {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k", "optional": true}}},
        {"name": "NAME", "valueFrom": field("metadata.name")},
        {"name": "NAMESPACE", "valueFrom": field("metadata.namespace")},
        {"name": "LABEL", "valueFrom": field("metadata.labels['app']")},
        {"name": "IP", "valueFrom": field("status.podIP")},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
    ]);
    pod["spec"]["containers"][0]["envFrom"] =
        json!([{"prefix": "M_", "configMapRef": {"name": "map"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "map", "mountPath": "/map"},
        {"name": "secret", "mountPath": "/secret"},
        {"name": "down", "mountPath": "/down"},
        {"name": "all", "mountPath": "/all"},
        {"name": "map", "mountPath": "/one-file", "subPath": "renamed.txt"},
        {"name": "scratch", "mountPath": "/scratch"},
        {"name": "scratch", "mountPath": "/ro", "readOnly": true},
    ]);
    pod["spec"]["volumes"] = json!([
        {"name": "map", "configMap": {"name": "map",
            "items": [{"key": "file.txt", "path": "renamed.txt"}]}},
        {"name": "secret", "secret": {"secretName": "secret", "defaultMode": 0o400}},
        {"name": "down", "downwardAPI": {"items": [{"path": "labels",
            "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "all", "projected": {"sources": [
            {"secret": {"name": "secret"}},
            {"configMap": {"name": "map", "items": [{"key": "colour", "path": "colour"}]}},
            {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        ]}},
        {"name": "scratch", "emptyDir": {}},
    ]);
    create(&pods, pod).await;
    let pod = finished(&pods, "what-is-inside").await;
    let text = log(&pods, "what-is-inside").await;
    assert_eq!(exit_code(&pod), Some(0), "{text}\n{:?}", pod.status);
    let ip = pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
    for line in [
        "plain=p colour=green key=hush all=green expanded=p-$(UNKNOWN)-$(PLAIN)",
        &format!("name=what-is-inside namespace=default label=inside ip={ip} cpu=2"),
        "arg=p-arg",
        "from a map",
        "key=hush mode=400",
        "labels=app=\"inside\"",
        "projected=hush-green-what-is-inside",
        "sub=from a map",
        "namespace-file=default",
        "read-only",
        "pwd=/scratch",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} in\n{text}");
    }
    let token = text.lines().find_map(|l| l.strip_prefix("token=")).unwrap();
    assert!(token.parse::<u32>().unwrap() > 100, "{text}");
    let state = container(&pod, "main");
    assert_eq!(
        state["state"]["terminated"]["message"], "message\n",
        "{state}"
    );

    // What is asked for and not there keeps the Pod waiting and says why, until it is there.
    let mut waits = shell_pod("waits", "echo $LATE");
    waits["spec"]["containers"][0]["env"] = json!([{"name": "LATE",
        "valueFrom": {"configMapKeyRef": {"name": "late", "key": "k"}}}]);
    create(&pods, waits).await;
    let waiting = when(&pods, "waits", "an explanation", |pod: &Pod| {
        container(pod, "main")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    })
    .await;
    let waiting = &container(&waiting, "main")["state"]["waiting"];
    assert!(
        waiting["message"].as_str().unwrap().contains("\"late\""),
        "{waiting}"
    );
    create(
        &maps,
        json!({"metadata": {"name": "late"}, "data": {"k": "came"}}),
    )
    .await;
    finished(&pods, "waits").await;
    assert_eq!(log(&pods, "waits").await, "came\n");

    // The last lines of the log stand in for a message, where asked.
    let mut fallback = shell_pod("fallback", "echo the reason; exit 1");
    fallback["spec"]["containers"][0]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    create(&pods, fallback).await;
    let fallback = finished(&pods, "fallback").await;
    let message = &container(&fallback, "main")["state"]["terminated"]["message"];
    assert!(
        message.as_str().unwrap_or_default().contains("the reason"),
        "{message}"
    );
}

#[tokio::test]
async fn probes_decide_about_readiness_and_life() {
    let server = Server::start();
    let pods = server.pods().await;
    let flag = server.scratch().join("flag");
    std::fs::create_dir(&flag).unwrap();
    let volume = json!([{"name": "flag", "hostPath": {"path": flag}}]);
    let probed = |name: &str, probe: &str, script: &str, command: &str| {
        let mut pod = pod_with(
            name,
            script,
            &json!({"volumes": volume, "restartPolicy": "Always"}),
        );
        pod["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "flag", "mountPath": "/flag"}]);
        pod["spec"]["containers"][0][probe] = json!({"periodSeconds": 1, "failureThreshold": 1,
            "exec": {"command": ["sh", "-c", command]}});
        pod
    };
    create(
        &pods,
        probed(
            "ready",
            "readinessProbe",
            "sleep 1000",
            "test -e /flag/ready",
        ),
    )
    .await;
    // Dead at its first life, well at its second.
    let script = "echo life >> /flag/lives; sleep 1000";
    create(
        &pods,
        probed(
            "alive",
            "livenessProbe",
            script,
            "test $(wc -l < /flag/lives) -ge 2",
        ),
    )
    .await;
    let ready = |pod: &Pod| container(pod, "main")["ready"] == true;
    let pod = phase(&pods, "ready", "Running").await;
    assert!(!ready(&pod));
    event(&server.client().await, "default", "ready", |reason, _| {
        reason == "Unhealthy"
    })
    .await;
    std::fs::write(flag.join("ready"), "").unwrap();
    when(&pods, "ready", "ready", ready).await;
    std::fs::remove_file(flag.join("ready")).unwrap();
    when(&pods, "ready", "not ready any more", |pod: &Pod| {
        !ready(pod)
    })
    .await;
    let alive = when(&pods, "alive", "a second life", |pod: &Pod| {
        container(pod, "main")["restartCount"] == 1
            && container(pod, "main")["state"]["running"].is_object()
    })
    .await;
    // By the signal that asks, or by the one that does not.
    let code = container(&alive, "main")["lastState"]["terminated"]["exitCode"].as_i64();
    assert!(matches!(code, Some(137 | 143)), "{code:?}");
    let client = server.client().await;
    let killing = event(&client, "default", "alive", |reason, _| reason == "Killing").await;
    assert!(killing.contains("liveness"), "{killing}");
}

#[tokio::test]
async fn kubectl_talks_with_running_pods() {
    let Some(kubectl_program) = kubectl_path() else {
        return;
    };
    let server = Server::start();
    let pods = server.pods().await;
    let run = |args: &[&str]| kubectl(&kubectl_program, &server, args).output().unwrap();
    let ok = |args: &[&str]| kubectl_ok(&kubectl_program, &server, args);
    create(
        &pods,
        shell_pod("talker", "echo hello; echo world >&2; sleep 1000"),
    )
    .await;
    phase(&pods, "talker", "Running").await;
    log_until(&pods, "talker", |line| line == "world").await;

    assert_eq!(ok(&["exec", "talker", "--", "echo", "inside"]), "inside\n");
    let failed = run(&["exec", "talker", "--", "sh", "-c", "echo err >&2; exit 7"]);
    assert_eq!(failed.status.code(), Some(7), "{}", said(&failed));
    assert!(said(&failed).contains("err"));
    let mut cat = kubectl(
        &kubectl_program,
        &server,
        &["exec", "-i", "talker", "--", "cat"],
    )
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let big = "0123456789abcdef\n".repeat(20_000);
    let mut input = cat.stdin.take().unwrap();
    let to_send = big.clone();
    let writer = std::thread::spawn(move || input.write_all(to_send.as_bytes()));
    let echoed = cat.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(echoed.status.success());
    assert_eq!(echoed.stdout.len(), big.len(), "everything comes back");
    assert!(echoed.stdout == big.as_bytes());
    let mut logs: Vec<String> = ok(&["logs", "talker"]).lines().map(str::to_owned).collect();
    logs.sort();
    assert_eq!(logs, ["hello", "world"]);
    assert_eq!(ok(&["logs", "talker", "--tail", "1"]).lines().count(), 1);

    // A followed log ends with its Pod.
    let folder = server.scratch().join("fifo");
    std::fs::create_dir(&folder).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("go"), 0o666.into()).unwrap();
    let mut pod = pod_with(
        "followed",
        "echo one; read line < /go/go; echo two $line",
        &json!({"volumes": [{"name": "go", "hostPath": {"path": folder}}]}),
    );
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "go", "mountPath": "/go"}]);
    create(&pods, pod).await;
    phase(&pods, "followed", "Running").await;
    let follower = kubectl(&kubectl_program, &server, &["logs", "-f", "followed"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    log_until(&pods, "followed", |line| line == "one").await;
    std::fs::write(folder.join("go"), "later\n").unwrap();
    let followed = follower.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&followed.stdout),
        "one\ntwo later\n"
    );

    let ran = ok(&[
        "run",
        "once",
        "--image=busybox",
        "--restart=Never",
        "-i",
        "--rm",
        "--quiet",
        "--pod-running-timeout=2m",
        "--command",
        "--",
        "sh",
        "-c",
        "cat; echo done",
    ]);
    assert!(ran.contains("done"), "{ran}");
    let waited = ok(&[
        "wait",
        "--for=condition=Ready",
        "pod/talker",
        "--timeout=60s",
    ]);
    assert!(waited.contains("condition met"), "{waited}");
    let described = ok(&["describe", "pod", "talker"]);
    assert!(
        described.contains("Started") && described.contains("busybox"),
        "{described}"
    );
    let missing = run(&["logs", "no-such-pod"]);
    assert!(
        said(&missing).contains("\"no-such-pod\" not found"),
        "{}",
        said(&missing)
    );
    ok(&["delete", "pod", "talker", "--wait=true"]);
}

#[tokio::test]
async fn users_and_groups_are_honoured_and_can_read_their_token() {
    if !root_or_skip() {
        return;
    }
    let server = Server::start();
    let pods = server.pods().await;
    let script = "echo $(id -u):$(id -g); cat /var/run/secrets/kubernetes.io/serviceaccount/token \
        | wc -c; touch /empty/mine && echo wrote; cat /secret/key; \
        (cat /etc/shadow >/dev/null 2>&1 && echo shadow) || echo no shadow";
    let mut pod = pod_with(
        "nobody",
        script,
        &json!({
            "securityContext": {"runAsUser": 65534, "runAsGroup": 65533, "fsGroup": 65532},
            "volumes": [{"name": "empty", "emptyDir": {}},
                {"name": "secret", "secret": {"secretName": "s", "defaultMode": 0o440}}],
        }),
    );
    let secrets: Api<Secret> = Api::namespaced(server.client().await, "default");
    create(
        &secrets,
        json!({"metadata": {"name": "s"}, "stringData": {"key": "hush\n"}}),
    )
    .await;
    pod["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "empty", "mountPath": "/empty"}, {"name": "secret", "mountPath": "/secret"}]);
    create(&pods, pod).await;
    let pod = finished(&pods, "nobody").await;
    let text = log(&pods, "nobody").await;
    assert_eq!(exit_code(&pod), Some(0), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "65534:65533");
    assert!(lines[1].trim().parse::<u32>().unwrap() > 100, "{text}");
    assert_eq!(&lines[2..], ["wrote", "hush", "no shadow"]);

    // A Pod that must not be root is not run as root.
    let mut pod = shell_pod("not-root", "id -u");
    pod["spec"]["securityContext"] = json!({"runAsNonRoot": true});
    create(&pods, pod).await;
    let pod = when(&pods, "not-root", "a refusal", |pod: &Pod| {
        container(pod, "main")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    })
    .await;
    let message = &container(&pod, "main")["state"]["waiting"]["message"];
    assert!(
        message.as_str().unwrap().contains("runAsNonRoot"),
        "{message}"
    );
}

#[tokio::test]
async fn what_cannot_be_had_is_said_in_status_and_events() {
    let server = Server::start();
    let client = server.client().await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let mut pod = shell_pod("evil", "true");
    pod["spec"]["containers"][0]["image"] = json!("evil.example.com/x");
    create(&pods, pod).await;
    let waiting = |reason: &'static str| {
        move |pod: &Pod| container(pod, "main")["state"]["waiting"]["reason"] == reason
    };
    when(&pods, "evil", "ErrImagePull", |pod: &Pod| {
        waiting("ErrImagePull")(pod) || waiting("ImagePullBackOff")(pod)
    })
    .await;
    let pod = when(
        &pods,
        "evil",
        "ImagePullBackOff",
        waiting("ImagePullBackOff"),
    )
    .await;
    assert_eq!(
        pod.status.as_ref().unwrap().phase.as_deref(),
        Some("Pending")
    );
    let failed = event(&client, "default", "evil", |reason, message| {
        reason == "Failed" && message.contains("pull")
    })
    .await;
    assert!(failed.contains("evil.example.com/x"), "{failed}");

    // A volume whose path cannot be there.
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), "default");
    let file = server.scratch().join("a-file");
    std::fs::write(&file, "").unwrap();
    let path = file.join("below");
    create(
        &volumes,
        json!({"metadata": {"name": "unreadable"}, "spec": {
        "storageClassName": "manual", "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": path}}}),
    )
    .await;
    let claim = |name: &str, class: &str| {
        json!({"metadata": {"name": name}, "spec": {"storageClassName": class,
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
    };
    create(&claims, claim("bound", "manual")).await;
    let using = |name: &str, claim: &str| {
        let mut pod = pod_with(
            name,
            "true",
            &json!({"volumes": [{"name": "v",
            "persistentVolumeClaim": {"claimName": claim}}]}),
        );
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        pod
    };
    create(&pods, using("unmounted", "bound")).await;
    let named = path.display().to_string();
    event(&client, "default", "unmounted", |reason, message| {
        reason == "FailedMount" && message.contains(&named)
    })
    .await;
    let pod = pods.get("unmounted").await.unwrap();
    assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Pending"));

    // A claim that never binds, and one that does not exist.
    create(&claims, claim("never", "no-such-class")).await;
    create(&pods, using("unbound", "never")).await;
    create(&pods, using("nowhere", "absent")).await;
    let unbound = event(&client, "default", "unbound", |r, _| {
        r == "FailedScheduling"
    })
    .await;
    assert!(
        unbound.contains("unbound") || unbound.contains("never"),
        "{unbound}"
    );
    let nowhere = event(&client, "default", "nowhere", |r, _| {
        r == "FailedScheduling"
    })
    .await;
    assert!(nowhere.contains("\"absent\" not found"), "{nowhere}");
    for name in ["unbound", "nowhere"] {
        let pod = pods.get(name).await.unwrap();
        assert_eq!(
            pod.status.unwrap().phase.as_deref(),
            Some("Pending"),
            "{name}"
        );
    }
    event(&client, "default", "never", |reason, message| {
        reason == "ProvisioningFailed" && message.contains("no-such-class")
    })
    .await;
    // The default class makes a volume, and the Pod sees what it wrote before.
    let mut any = claim("dynamic", "");
    any["spec"]
        .as_object_mut()
        .unwrap()
        .remove("storageClassName");
    create(&claims, any).await;
    for (name, script) in [("writes", "echo kept > /v/f"), ("reads", "cat /v/f")] {
        let mut pod = using(name, "dynamic");
        pod["spec"]["containers"][0]["command"] = json!(["sh", "-c", script]);
        create(&pods, pod).await;
        let pod = finished(&pods, name).await;
        assert_eq!(exit_code(&pod), Some(0), "{name}: {:?}", pod.status);
    }
    assert_eq!(log(&pods, "reads").await, "kept\n");
}

/// Names below the folders that Pods mount into, and their neighbours.
fn tree() -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    let mut folders: Vec<PathBuf> = [
        "/opt", "/mnt", "/run", "/var/run", "/etc", "/usr", "/secret",
    ]
    .map(PathBuf::from)
    .into();
    for entry in std::fs::read_dir("/").unwrap().flatten() {
        all.insert(entry.path());
    }
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            // A symbolic link is a name, not a way to walk.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
            all.insert(entry.path());
        }
    }
    all
}

#[tokio::test]
async fn mount_points_leave_no_trace_on_the_host() {
    if !root_or_skip() {
        return;
    }
    let before = tree();
    let server = Server::start();
    let pods = server.pods().await;
    let places = [
        "/opt/a/b",
        "/mnt",
        "/var/run/secrets/x/y",
        "/usr/share/coracle-test/z",
        "/new/top",
        "/etc/coracle-test",
    ];
    let volumes: Vec<Value> = (0..places.len())
        .map(|i| json!({"name": format!("v{i}"), "emptyDir": {}}))
        .collect();
    let mounts: Vec<Value> = (0..places.len())
        .map(|i| json!({"name": format!("v{i}"), "mountPath": places[i]}))
        .collect();
    let script = format!(
        "for p in {}; do echo x > $p/file || exit 1; done; ls /usr/bin >/dev/null; \
         touch /var/run/secrets/z 2>/dev/null; sleep 0",
        places.join(" ")
    );
    let mut pod = pod_with("mounts", &script, &json!({"volumes": volumes}));
    pod["spec"]["containers"][0]["volumeMounts"] = json!(mounts);
    create(&pods, pod).await;
    let pod = finished(&pods, "mounts").await;
    assert_eq!(exit_code(&pod), Some(0), "{}", log(&pods, "mounts").await);
    delete_now(&pods, "mounts").await;
    server.stop();
    drop(server);
    let after = tree();
    let differences: Vec<&PathBuf> = before
        .symmetric_difference(&after)
        .filter(|path| ours(path))
        .collect();
    assert!(differences.is_empty(), "{differences:#?}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    for place in ["/opt/a", "/var/run/secrets/x", "/new"] {
        assert!(!mounts.contains(place), "{place} is mounted:\n{mounts}");
    }
}

/// What else happens on the machine meanwhile is not this test's affair.
fn ours(path: &Path) -> bool {
    !["/run/lock", "/run/user", "/run/systemd"]
        .iter()
        .any(|other| path.starts_with(other))
}

#[tokio::test]
async fn a_grace_period_is_kept_and_then_enforced() {
    let server = Server::start();
    let pods = server.pods().await;
    let polite = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done";
    create(
        &pods,
        pod_with(
            "polite",
            polite,
            &json!({"terminationGracePeriodSeconds": 60}),
        ),
    )
    .await;
    let stubborn = "trap '' TERM; echo up; while :; do sleep 0.1; done";
    create(
        &pods,
        pod_with(
            "stubborn",
            stubborn,
            &json!({"terminationGracePeriodSeconds": 1}),
        ),
    )
    .await;
    for name in ["polite", "stubborn"] {
        phase(&pods, name, "Running").await;
        log_until(&pods, name, |line| line == "up").await;
    }
    let follow = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut farewell = Box::pin(pods.log_stream("polite", &follow).await.unwrap());
    for name in ["polite", "stubborn"] {
        pods.delete(name, &kube::api::DeleteParams::default())
            .await
            .unwrap();
    }
    let mut text = String::new();
    support::within(
        "the log's end",
        futures::AsyncReadExt::read_to_string(&mut farewell, &mut text),
    )
    .await
    .unwrap();
    assert!(text.contains("bye"), "{text}");
    for name in ["polite", "stubborn"] {
        support::cluster::gone(&pods, name).await;
    }
    until("no process stays", async || {
        support::server::processes_with("trap '' TERM; echo up")
            .is_empty()
            .then_some(())
    })
    .await;
}
