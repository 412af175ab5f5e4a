//! Names, models, and deploying against an API server in memory.

use std::sync::Arc;

use serde_json::json;
use stdx::{ManualClock, SystemClock};

use super::*;
use crate::fake_api::{FakeApi, State};

#[test]
fn names_are_trimmed_as_a_service_needs_them() {
    let long = format!("{}-{}", "a".repeat(62), "b".repeat(10));
    assert_eq!(service_name(&long).unwrap(), "a".repeat(62));
    assert_eq!(service_name("mnist-service").unwrap(), "mnist-service");
    assert!(service_name("---").is_err());
}

#[test]
fn only_a_whole_numbered_version_is_a_model() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!has_model(&dir.path().join("missing")));
    std::fs::create_dir_all(dir.path().join("latest")).unwrap();
    std::fs::write(dir.path().join("latest").join("saved_model.pb"), b"x").unwrap();
    std::fs::create_dir_all(dir.path().join("17")).unwrap();
    assert!(!has_model(dir.path()));
    std::fs::write(dir.path().join("17").join("saved_model.pb"), b"x").unwrap();
    assert!(has_model(dir.path()));
}

#[test]
fn the_model_answers_to_the_name_of_its_server_and_to_the_plain_one() {
    assert_eq!(alias("mnist-service"), "mnist");
    assert_eq!(alias("mnist"), "mnist");
    assert_eq!(alias("-service"), "-service");
}

fn args() -> Args {
    let text = "--model-export-path /mnt/export --server-name mnist-service --pvc-name claim \
                --cluster-name mnist-pipeline";
    Args::try_parse_from(text.split(' ')).unwrap()
}

/// The patience of a test's clock, spent as soon as somebody sleeps.
async fn run_out(clock: &ManualClock) {
    loop {
        if clock.sleepers() > 0 {
            clock.advance(PATIENCE);
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_missing_model_is_waited_for_and_then_named() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
    let outcome = tokio::select! {
        outcome = wait_for_model(dir.path(), "/mnt/export", &*clock) => outcome,
        () = run_out(&clock) => unreachable!("it does not end"),
    };
    let failure = outcome.unwrap_err();
    assert_eq!(failure.code, 1);
    assert!(
        failure
            .message
            .contains("no model in /mnt/export after 600 s"),
        "{failure}"
    );
}

#[tokio::test]
async fn the_server_is_deployed_and_waited_for() {
    let (api, clock, args) = (FakeApi::new(), SystemClock::new(), args());
    let client = api.client();
    let become_ready = async {
        let there = |state: &State| state.get("deployments", "mnist-service").is_some();
        api.until("the deployment", there).await;
        let mut deployment = api
            .state()
            .get("deployments", "mnist-service")
            .unwrap()
            .clone();
        // News of an older generation does not count.
        deployment["metadata"]["generation"] = json!(2);
        deployment["status"] = json!({"observedGeneration": 1, "replicas": 1,
            "updatedReplicas": 1, "availableReplicas": 1});
        api.put("deployments", deployment.clone());
        deployment["status"]["observedGeneration"] = json!(2);
        api.put("deployments", deployment);
    };
    let deployed = deploy(&client, &args, "mnist-service", &clock);
    let (outcome, ()) = tokio::join!(deployed, become_ready);
    outcome.unwrap();
    let state = api.state();
    let pod = &state.get("deployments", "mnist-service").unwrap()["spec"]["template"]["spec"];
    assert_eq!(
        pod["containers"][0]["args"],
        json!([
            "--port=9000",
            "--rest_api_port=8500",
            "--model_name=mnist-service",
            "--model_base_path=/mnt/export"
        ])
    );
    assert_eq!(pod["containers"][0]["volumeMounts"][0]["mountPath"], "/mnt");
    assert_eq!(
        pod["volumes"][0]["persistentVolumeClaim"]["claimName"],
        "claim"
    );
    let ports = &state.get("services", "mnist-service").unwrap()["spec"]["ports"];
    assert_eq!(ports[0]["name"], "grpc-tf-serving");
    assert_eq!(ports[1]["name"], "http-tf-serving-proxy");
}

#[tokio::test]
async fn a_server_that_never_gets_ready_ends_the_wait_with_a_hint() {
    let (api, args) = (FakeApi::new(), args());
    let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
    let client = api.client();
    let outcome = tokio::select! {
        outcome = deploy(&client, &args, "mnist-service", &*clock) => outcome,
        () = run_out(&clock) => unreachable!("it does not end"),
    };
    let failure = outcome.unwrap_err();
    assert!(
        failure
            .message
            .contains("kubectl -n kubeflow describe pod -l app=mnist-service")
    );
}
