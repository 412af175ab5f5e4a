//! Pods from binding to their end, through the API alone.

use crate::support::{Rig, phase, read, waiting};
use kubelet::runtime::fake::Behaviour;
use serde_json::json;

fn ready(pod: &serde_json::Value) -> bool {
    let conditions = pod["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    conditions
        .iter()
        .any(|c| c["type"] == "Ready" && c["status"] == "True")
}

#[tokio::test]
async fn a_node_registers_with_what_it_has_and_renews_its_lease() {
    let rig = Rig::new(|_| Behaviour::Run).await;
    let node = rig.api.get("nodes", "", "n").unwrap();
    assert_eq!(node["status"]["capacity"]["cpu"], "2");
    assert_eq!(node["status"]["allocatable"]["pods"], "250");
    assert_eq!(node["metadata"]["labels"]["disk"], "fast");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "n");
    let addresses = json!([
        {"type": "InternalIP", "address": "127.97.0.1"}, {"type": "Hostname", "address": "n"}
    ]);
    assert_eq!(node["status"]["addresses"], addresses);
    assert_eq!(
        node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"],
        rig.address.port()
    );
    let renewed = |api: &crate::support::api::FakeApi| {
        let lease = api.get("leases", "kube-node-lease", "n")?;
        lease["spec"]["renewTime"].as_str().map(str::to_owned)
    };
    let first = rig.api.until(renewed).await;
    rig.wait_for(rig.api.until(|api| renewed(api).filter(|r| *r != first)))
        .await;
}

#[tokio::test]
async fn a_step_succeeds_and_what_it_got_was_right() {
    let rig = Rig::new(|_| Behaviour::Exit(0)).await;
    rig.api.put(
        "services",
        "default",
        "web",
        json!({"spec": {"clusterIP": "127.96.0.7", "ports": [{"port": 80}]}}),
    );
    rig.api.put(
        "configmaps",
        "default",
        "kube-root-ca.crt",
        json!({"data": {"ca.crt": "CA"}}),
    );
    let pod = rig.pod("step", json!({
        "restartPolicy": "Never", "serviceAccountName": "runner",
        "volumes": [{"name": "token", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}
        ]}}],
        "containers": [{"name": "main", "image": "img", "args": ["$(ME)"],
            "env": [{"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}]}]
    }));
    let done = rig
        .wait_for(rig.api.pod("step", |p| phase(p) == "Succeeded"))
        .await;
    let status = &done["status"]["containerStatuses"][0];
    assert_eq!(status["state"]["terminated"]["reason"], "Completed");
    assert_eq!(status["imageID"], "docker.io/library/img");
    assert!(
        status["containerID"]
            .as_str()
            .unwrap()
            .starts_with("fake://")
    );
    assert_eq!(done["status"]["podIP"], "127.97.0.2");
    assert_eq!(done["status"]["hostIP"], "127.97.0.1");
    assert_eq!(done["status"]["qosClass"], "BestEffort");
    let started = &rig.runtime.started()[0];
    assert_eq!(started.args, ["step"]);
    let env = |name: &str| {
        started
            .env
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    };
    assert_eq!(env("WEB_SERVICE_HOST"), Some("127.96.0.7"));
    assert_eq!(env("KUBERNETES_SERVICE_HOST"), Some("127.96.0.1"));
    assert_eq!(env("HOSTNAME"), Some("step"));
    for (reason, message) in [
        (
            "Pulled",
            "Container image \"img\" already present on machine",
        ),
        ("Created", "Created container: main"),
        ("Started", "Started container main"),
    ] {
        assert_eq!(rig.wait_for(rig.api.event(reason)).await, message);
    }
    assert!(
        rig.api.status_patches().len() <= 2,
        "{:#?}",
        rig.api.status_patches()
    );
    let hosts = read(&rig.pod_dir(&pod).join("etc/hosts"));
    assert!(
        hosts.contains("127.96.0.7\tweb.default.svc.cluster.local"),
        "{hosts}"
    );
    assert!(started.mounts[0].read_only);
}

#[tokio::test]
async fn files_of_a_volume_follow_their_objects_while_the_pod_runs() {
    let rig = Rig::new(|_| Behaviour::Run).await;
    rig.api
        .put("configmaps", "default", "cm", json!({"data": {"a": "1"}}));
    let pod = rig.pod("p", json!({
        "serviceAccountName": "runner",
        "volumes": [
            {"name": "cm", "configMap": {"name": "cm"}},
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}]}}],
        "containers": [{"name": "c", "image": "img"}]
    }));
    rig.wait_for(rig.api.pod("p", ready)).await;
    let volumes = rig.volumes_of_files(&pod);
    assert_eq!(read(&volumes.join("cm/a")), "1");
    assert_eq!(
        read(&volumes.join("token/token")),
        "token of runner for \"p\""
    );
    rig.api.put(
        "configmaps",
        "default",
        "cm",
        json!({"data": {"a": "2", "b": "new"}}),
    );
    let updated = async {
        while read(&volumes.join("cm/a")) != "2" {
            tokio::task::yield_now().await;
        }
    };
    rig.wait_for(updated).await;
    assert_eq!(read(&volumes.join("cm/b")), "new");
    // The Pod goes on; what it has in memory would outlive the rig's directory.
    std::fs::remove_dir_all(volumes).unwrap();
}

#[tokio::test]
async fn a_volume_that_cannot_be_made_is_told_and_the_pod_waits() {
    let rig = Rig::new(|_| Behaviour::Run).await;
    let path = rig.dir.path().join("data");
    rig.pod("p", json!({
        "volumes": [{"name": "v", "hostPath": {"path": path, "type": "Directory"}}],
        "containers": [{"name": "c", "image": "img", "volumeMounts": [{"name": "v", "mountPath": "/mnt"}]}]
    }));
    let message = rig.wait_for(rig.api.event("FailedMount")).await;
    assert_eq!(
        message,
        format!(
            "MountVolume.SetUp failed for volume \"v\" : hostPath type check failed: {} is not a directory",
            path.display()
        )
    );
    let pod = rig
        .wait_for(rig.api.pod("p", |p| waiting(p) == "ContainerCreating"))
        .await;
    assert_eq!(phase(&pod), "Pending");
    std::fs::create_dir(&path).unwrap();
    rig.wait_for(rig.api.pod("p", ready)).await;
    assert_eq!(rig.runtime.started()[0].mounts[0].source, path);
}

#[tokio::test]
async fn a_claim_is_waited_for_until_it_is_bound() {
    let rig = Rig::new(|_| Behaviour::Run).await;
    let claim = |phase: &str, volume: &str| json!({"spec": {"volumeName": volume}, "status": {"phase": phase}});
    rig.api.put(
        "persistentvolumeclaims",
        "default",
        "data",
        claim("Pending", ""),
    );
    let path = rig.dir.path().join("pv");
    let spec = json!({"spec": {"hostPath": {"path": path}, "accessModes": ["ReadWriteMany"]}});
    rig.api.put("persistentvolumes", "", "pv", spec);
    rig.pod("p", json!({
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
        "containers": [{"name": "c", "image": "img", "volumeMounts": [{"name": "v", "mountPath": "/mnt"}]}]
    }));
    assert!(
        rig.api
            .event("FailedMount")
            .await
            .contains("PVC default/data is not bound")
    );
    // No time passes: the claim's own change is what wakes the Pod.
    rig.api.put(
        "persistentvolumeclaims",
        "default",
        "data",
        claim("Bound", "pv"),
    );
    rig.api.pod("p", ready).await;
    assert_eq!(rig.runtime.started()[0].mounts[0].source, path);
    assert!(path.is_dir());
}

#[tokio::test]
async fn a_missing_config_map_holds_the_container_until_it_is_there() {
    let rig = Rig::new(|_| Behaviour::Run).await;
    rig.pod(
        "p",
        json!({"containers": [{"name": "c", "image": "img",
        "envFrom": [{"configMapRef": {"name": "settings"}}]}]}),
    );
    let pod = rig
        .wait_for(
            rig.api
                .pod("p", |p| waiting(p) == "CreateContainerConfigError"),
        )
        .await;
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"],
        "configmap \"settings\" not found"
    );
    assert_eq!(
        rig.wait_for(rig.api.event("Failed")).await,
        "Error: configmap \"settings\" not found"
    );
    rig.api.put(
        "configmaps",
        "default",
        "settings",
        json!({"data": {"MODE": "fast"}}),
    );
    rig.wait_for(rig.api.pod("p", ready)).await;
    assert!(
        rig.runtime.started()[0]
            .env
            .contains(&("MODE".into(), "fast".into()))
    );
}

#[tokio::test]
async fn an_image_that_nothing_can_run_leaves_the_pod_pending() {
    let rig = Rig::new(|_| Behaviour::Run).await;
    rig.pod(
        "p",
        json!({"containers": [{"name": "c", "image": "missing"}]}),
    );
    let pod = rig
        .wait_for(rig.api.pod("p", |p| waiting(p) == "ErrImagePull"))
        .await;
    assert_eq!(phase(&pod), "Pending");
    rig.wait_for(rig.api.pod("p", |p| waiting(p) == "ImagePullBackOff"))
        .await;
    assert_eq!(
        rig.wait_for(rig.api.event("BackOff")).await,
        "Back-off pulling image \"missing\""
    );
    assert!(
        rig.api
            .event("Failed")
            .await
            .starts_with("Failed to pull image \"missing\"")
    );
}

#[tokio::test]
async fn a_deleted_pod_is_ended_politely_and_leaves_nothing() {
    let rig = Rig::new(|_| Behaviour::Stubborn).await;
    let pod = rig.pod(
        "p",
        json!({"terminationGracePeriodSeconds": 5,
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}}],
        "containers": [{"name": "c", "image": "img"}]}),
    );
    rig.wait_for(rig.api.pod("p", ready)).await;
    let memory = std::path::PathBuf::from(format!(
        "/dev/shm/pod-{}-m",
        pod["metadata"]["uid"].as_str().unwrap()
    ));
    rig.api.delete_pod("default", "p", 5);
    let asked = rig.now();
    rig.wait_for(
        rig.api
            .until(|api| api.get("pods", "default", "p").is_none().then_some(())),
    )
    .await;
    assert_eq!(
        rig.runtime.signals(),
        [("c".to_owned(), 15), ("c".to_owned(), 9)]
    );
    assert!(rig.now().duration_since(asked).as_secs() >= 5);
    let last = rig.api.status_patches().pop().unwrap();
    assert_eq!(
        last["containerStatuses"][0]["state"]["terminated"]["exitCode"],
        137
    );
    let gone = async {
        while rig.pod_dir(&pod).exists() {
            tokio::task::yield_now().await;
        }
    };
    rig.wait_for(gone).await;
    assert!(!memory.exists());
}

#[tokio::test]
async fn a_pod_whose_object_is_gone_at_once_is_ended_and_leaves_nothing() {
    let rig = Rig::new(|_| Behaviour::Run).await;
    let pod = rig.pod("p", json!({"containers": [{"name": "c", "image": "img"}]}));
    rig.wait_for(rig.api.pod("p", ready)).await;
    rig.api.delete_pod("default", "p", 0);
    let gone = async {
        while rig.pod_dir(&pod).exists() {
            tokio::task::yield_now().await;
        }
    };
    rig.wait_for(gone).await;
    assert_eq!(rig.runtime.signals(), [("c".to_owned(), 15)]);
    assert!(rig.runtime.running().is_empty());
}

#[tokio::test]
async fn a_readiness_probe_decides_and_a_liveness_probe_restarts() {
    let rig = Rig::new(|_| Behaviour::Run).await;
    rig.runtime.on_exec(|_, spec| match spec.argv[0].as_str() {
        "alive" => (1, "I am not well".to_owned()),
        _ => (0, String::new()),
    });
    rig.pod("p", json!({"containers": [{"name": "c", "image": "img",
        "readinessProbe": {"exec": {"command": ["ready"]}},
        "livenessProbe": {"exec": {"command": ["alive"]}, "initialDelaySeconds": 5, "periodSeconds": 1, "failureThreshold": 2}}]}));
    rig.wait_for(rig.api.pod("p", ready)).await;
    assert_eq!(
        rig.wait_for(rig.api.event("Unhealthy")).await,
        "Liveness probe failed: I am not well"
    );
    let restarted =
        |p: &serde_json::Value| p["status"]["containerStatuses"][0]["restartCount"] == 1;
    rig.wait_for(rig.api.pod("p", restarted)).await;
    assert_eq!(
        rig.api.event("Killing").await,
        "Container c failed liveness probe, will be restarted"
    );
    let unhealthy = |api: &crate::support::api::FakeApi| {
        let events = api.list("events");
        let event = events.into_iter().find(|e| e["reason"] == "Unhealthy")?;
        event["count"].as_i64().filter(|c| *c >= 2)
    };
    rig.wait_for(rig.api.until(unhealthy)).await;
}

#[tokio::test]
async fn a_node_that_is_full_refuses_more() {
    let rig = Rig::new(|_| Behaviour::Run).await;
    let half = json!({"containers": [{"name": "c", "image": "img", "resources": {"requests": {"cpu": "1500m"}}}]});
    rig.pod("a", half.clone());
    rig.wait_for(rig.api.pod("a", ready)).await;
    rig.pod("b", half);
    let pod = rig
        .wait_for(rig.api.pod("b", |p| phase(p) == "Failed"))
        .await;
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
    assert_eq!(rig.runtime.started().len(), 1);
}

#[tokio::test]
async fn every_pod_has_its_own_address_and_host_network_has_the_nodes() {
    let rig = Rig::new(|_| Behaviour::Run).await;
    let one = json!({"containers": [{"name": "c", "image": "img"}]});
    rig.pod("a", one.clone());
    rig.pod("b", one);
    rig.pod(
        "h",
        json!({"hostNetwork": true, "containers": [{"name": "c", "image": "img"}]}),
    );
    let mut addresses = Vec::new();
    for name in ["a", "b", "h"] {
        let pod = rig.wait_for(rig.api.pod(name, ready)).await;
        addresses.push(pod["status"]["podIP"].as_str().unwrap().to_owned());
    }
    assert_ne!(addresses[0], addresses[1]);
    assert_eq!(addresses[2], "127.97.0.1");
}
