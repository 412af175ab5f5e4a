//! What a kubelet finds when it starts again.

use crate::support::{Rig, phase};
use kubelet::runtime::fake::Behaviour;
use serde_json::{Value, json};

fn running(pod: &Value) -> bool {
    phase(pod) == "Running"
}

fn one(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "img"}]})
}

#[tokio::test]
async fn what_still_runs_is_taken_up_and_its_end_is_reported_once() {
    let mut rig = Rig::new(|_| Behaviour::Run).await;
    rig.pod("p", one("Never"));
    let before = rig.wait_for(rig.api.pod("p", running)).await;
    rig.crash().await;
    rig.start().await;
    rig.runtime.exit("c", 0);
    let after = rig
        .wait_for(rig.api.pod("p", |p| phase(p) == "Succeeded"))
        .await;
    assert_eq!(rig.runtime.started().len(), 1);
    assert_eq!(after["status"]["podIP"], before["status"]["podIP"]);
    assert_eq!(after["status"]["startTime"], before["status"]["startTime"]);
    let ended = &after["status"]["containerStatuses"][0];
    assert_eq!(
        ended["containerID"],
        before["status"]["containerStatuses"][0]["containerID"]
    );
}

#[tokio::test]
async fn an_end_that_happened_meanwhile_is_reported() {
    let mut rig = Rig::new(|_| Behaviour::Run).await;
    rig.pod("p", one("Never"));
    rig.wait_for(rig.api.pod("p", running)).await;
    rig.crash().await;
    rig.runtime.exit("c", 7);
    rig.start().await;
    let pod = rig
        .wait_for(rig.api.pod("p", |p| phase(p) == "Failed"))
        .await;
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(ended["exitCode"], 7);
    assert!(
        ended["startedAt"].as_str().unwrap().starts_with("2026"),
        "{ended}"
    );
    assert_eq!(rig.runtime.started().len(), 1);
}

#[tokio::test]
async fn a_pod_deleted_meanwhile_is_ended_and_its_directory_removed() {
    let mut rig = Rig::new(|_| Behaviour::Stubborn).await;
    let pod = rig.pod("p", one("Always"));
    rig.wait_for(rig.api.pod("p", running)).await;
    rig.crash().await;
    rig.api.delete_pod("default", "p", 0);
    rig.start().await;
    rig.wait_for(rig.runtime.until(|r| r.running().is_empty()))
        .await;
    assert_eq!(
        rig.runtime.signals(),
        [("c".to_owned(), 15), ("c".to_owned(), 9)]
    );
    let gone = async {
        while rig.pod_dir(&pod).exists() {
            tokio::task::yield_now().await;
        }
    };
    rig.wait_for(gone).await;
}

#[tokio::test]
async fn draining_ends_pods_and_the_next_start_goes_on_with_them() {
    let mut rig = Rig::new(|_| Behaviour::Run).await;
    rig.pod("keep", one("Always"));
    rig.pod("step", one("Never"));
    rig.wait_for(rig.api.pod("keep", running)).await;
    rig.wait_for(rig.api.pod("step", running)).await;
    let (kubelet, supervisor) = rig.kubelet.take().unwrap();
    rig.wait_for(kubelet.drain()).await;
    assert!(rig.runtime.running().is_empty());
    let step = rig.api.get("pods", "default", "step").unwrap();
    assert_eq!(
        (phase(&step), &step["status"]["reason"]),
        ("Failed", &json!("Terminated"))
    );
    supervisor.shutdown().await;
    rig.start().await;
    let again = |p: &Value| p["status"]["containerStatuses"][0]["restartCount"] == 1 && running(p);
    rig.wait_for(rig.api.pod("keep", again)).await;
    assert_eq!(rig.runtime.started().len(), 3);
}

#[tokio::test]
async fn a_new_pod_never_gets_the_address_of_one_that_still_runs() {
    let mut rig = Rig::new(|_| Behaviour::Run).await;
    rig.pod("old", one("Always"));
    let old = rig.wait_for(rig.api.pod("old", running)).await;
    rig.crash().await;
    // By its name it stands before the old one in the list.
    rig.pod("new", one("Always"));
    rig.start().await;
    let new = rig.wait_for(rig.api.pod("new", running)).await;
    let again = rig.api.get("pods", "default", "old").unwrap();
    assert_eq!(again["status"]["podIP"], old["status"]["podIP"]);
    assert_ne!(new["status"]["podIP"], old["status"]["podIP"]);
}
