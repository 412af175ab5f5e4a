//! The arguments, and deploying against an API server in memory.

use std::sync::Arc;

use serde_json::json;
use stdx::{ManualClock, SystemClock};

use super::*;
use crate::fake_api::FakeApi;

const ARGS: &str = "--image I --name web-ui --container-port 5000 --service-port 80 \
                    --service-type LoadBalancer --cluster-name mnist-pipeline";

fn parse(text: &str) -> Result<Args, clap::Error> {
    Args::try_parse_from(text.split(' '))
}

#[test]
fn the_arguments_of_the_tutorial_are_understood_and_others_refused() {
    let parsed = parse(ARGS).unwrap();
    assert_eq!(service(&parsed)["spec"]["ports"][0]["targetPort"], 5000);
    assert_eq!(parsed.namespace, "kubeflow");
    let error = parse(&format!("{ARGS} --colour red")).unwrap_err();
    assert!(error.to_string().contains("--colour"), "{error}");
}

/// Gives the Service an address once it is there.
async fn balance(api: &FakeApi) {
    let there = |state: &crate::fake_api::State| state.get("services", "web-ui").is_some();
    api.until("the service", there).await;
    let mut service = api.state().get("services", "web-ui").unwrap().clone();
    service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "127.77.0.10"}]}});
    api.put("services", service);
}

#[tokio::test]
async fn a_second_try_finds_what_the_first_made_and_brings_it_up_to_date() {
    let (api, clock) = (FakeApi::new(), SystemClock::new());
    let client = api.client();
    for image in ["I", "J"] {
        let args = parse(&ARGS.replace("--image I", &format!("--image {image}"))).unwrap();
        let (address, ()) = tokio::join!(deploy(&client, &args, &clock), balance(&api));
        assert_eq!(address.unwrap(), "127.77.0.10:80");
        let state = api.state();
        let deployment = state.get("deployments", "web-ui").unwrap();
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], image);
        assert_eq!(container["ports"][0]["containerPort"], 5000);
        assert_eq!(
            deployment["spec"]["selector"]["matchLabels"],
            deployment["spec"]["template"]["metadata"]["labels"]
        );
    }
}

#[tokio::test]
async fn a_service_inside_the_cluster_is_not_waited_for() {
    let api = FakeApi::new();
    let args = parse("--image I --name s --container-port 1 --service-port 2").unwrap();
    let deployed = deploy(&api.client(), &args, &SystemClock::new()).await;
    // Nobody gives cluster addresses here.
    assert_eq!(deployed.unwrap(), ":2");
}

#[tokio::test]
async fn without_an_address_it_gives_up_and_says_what_is_missing() {
    let api = FakeApi::new();
    let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
    let (args, client) = (parse(ARGS).unwrap(), api.client());
    let impatient = async {
        while clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
        clock.advance(PATIENCE);
    };
    let (outcome, ()) = tokio::join!(deploy(&client, &args, &*clock), impatient);
    let failure = outcome.unwrap_err();
    assert_eq!(failure.code, 1);
    assert!(
        failure
            .message
            .contains("kubeflow/web-ui got no address within 1000 s")
    );
}

#[tokio::test]
async fn what_the_cluster_refuses_is_named() {
    let api = FakeApi::new();
    api.fail_once(http::Method::POST, "/deployments");
    let args = parse(ARGS).unwrap();
    let failure = deploy(&api.client(), &args, &SystemClock::new())
        .await
        .unwrap_err();
    let what = "create Deployment kubeflow/web-ui: ";
    assert!(failure.message.starts_with(what), "{failure}");
}

#[tokio::test]
async fn a_server_that_is_away_for_a_moment_is_asked_again() {
    let api = FakeApi::new();
    let there = api.client();
    let refusals = Arc::new(std::sync::atomic::AtomicU32::new(3));
    let client = Client::new(
        tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (there, refusals) = (there.clone(), refusals.clone());
            async move {
                let order = std::sync::atomic::Ordering::Relaxed;
                match refusals.fetch_update(order, order, |left| left.checked_sub(1)) {
                    Ok(_) => Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)),
                    Err(_) => there.send(request).await.map_err(std::io::Error::other),
                }
            }
        }),
        "default",
    );
    let args = parse("--image I --name s --container-port 1 --service-port 2").unwrap();
    let deployed = deploy(&client, &args, &SystemClock::new()).await;
    assert_eq!(deployed.unwrap(), ":2");
    assert!(api.state().get("deployments", "s").is_some());
}
