//! The tutorial's run with servers and spawners killed at random moments: it always ends with three
//! steps that succeeded once each, and a page that answers.
//!
//! `CORACLE_SEED` repeats a failure, `CORACLE_TEST_FULL=1` kills thirty times instead of three.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::DeleteParams;
use rustix::process::Signal;
use support::cluster::gone;
use support::server::signal_and_wait;
use support::{Dice, Server, setting, tutorial};
use tokio::time::Instant;

/// What an earlier run deployed, away.
async fn clear(server: &Server) {
    let client = server.client().await;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "kubeflow");
    let services: Api<Service> = Api::namespaced(client, "kubeflow");
    for name in ["web-ui", "mnist-service"] {
        let params = DeleteParams::default();
        deployments.delete(name, &params).await.unwrap();
        services.delete(name, &params).await.unwrap();
        gone(&deployments, name).await;
        gone(&services, name).await;
    }
}

fn kill_spawner(server: &Server) {
    if let Some(pid) = server.spawner_pid() {
        signal_and_wait(pid, Signal::KILL);
    }
}

#[tokio::test]
async fn kills_at_random_moments_cost_nothing() {
    let seed = setting("CORACLE_SEED")
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    let full = setting("CORACLE_TEST_FULL").is_some();
    let kills = if full { 30 } else { 3 };
    println!("CORACLE_SEED={seed}, {kills} kills");
    let mut dice = Dice(seed);
    let server = Server::start();
    let pipeline = tutorial::set_up(&server, !full).await;
    // Undisturbed, to know which moments there are.
    let begin = Instant::now();
    let id = tutorial::start(&server, &pipeline).await;
    tutorial::three_steps(&server, &id).await;
    tutorial::page(&server).await;
    let whole = begin.elapsed().as_millis() as u64;
    for kill in 0..kills {
        clear(&server).await;
        let moment = Duration::from_millis(dice.below(whole));
        let victim = ["server", "spawner", "both"][kill % 3];
        println!("kill {kill}: {victim}, {moment:?} after the start of a run of {whole} ms");
        let id = tutorial::start(&server, &pipeline).await;
        // The moment is what is tested; nothing is waited for.
        tokio::time::sleep(moment).await;
        match victim {
            "server" => server.kill(),
            "spawner" => kill_spawner(&server),
            _ => {
                server.kill();
                kill_spawner(&server);
            }
        }
        if victim != "spawner" {
            server.up();
        }
        tutorial::three_steps(&server, &id).await;
        tutorial::page(&server).await;
    }
}
