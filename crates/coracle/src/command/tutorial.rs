//! `coracle tutorial mnist`: the tutorial, step by step, against a running server (or one it starts).
//!
//! It is a client like any other: the Kubernetes API through the administrator's kubeconfig, the
//! Pipelines API over HTTP. Beside each step stands the line that does the same by hand.

mod cluster;
mod kfp;
mod page;

use std::path::Path;
use std::time::Duration;

use stdx::{Clock, SystemClock};

use crate::cli::{self, At, Tutorial, TutorialName, Up};
use crate::command::{down, up};
use crate::failure::{Failure, Result, attempting};
use crate::instance::{DataDir, ServerState};
use crate::output;

/// The pipeline, compiled by the kfp SDK 1.8 from `examples/mnist/mnist_pipeline.py`.
const PACKAGE: &[u8] = include_bytes!("../../../../examples/mnist/mnist_pipeline.yaml");
const METALLB: &str = include_str!("../../../../examples/mnist/manifests/metallb.yaml");
const CLAIM: &str = "mnist-claim";

pub(crate) fn run(args: &Tutorial) -> Result<()> {
    let TutorialName::Mnist = args.name;
    let data = args.at.data()?;
    let started = ServerState::running(&data).is_err();
    if started {
        up::run(&detached(&args.at))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(attempting("start the async runtime"))?;
    let outcome = runtime.block_on(Box::pin(play(args, &data)));
    if started && args.once {
        output::gap();
        let stopped = down::run(&crate::cli::Down {
            at: args.at.clone(),
            purge: false,
        });
        return outcome.and(stopped);
    }
    outcome
}

fn detached(at: &At) -> Up {
    Up {
        at: at.clone(),
        detach: true,
        listen: None,
        kube_listen: None,
        ephemeral: false,
        config: None,
        leave_pods: false,
        no_mounts: false,
        cron_time_zone: jiff::tz::TimeZone::UTC,
        run_ttl_days: None,
        ready_on_stdout: false,
    }
}

/// Counts and times the steps as a person reads them.
struct Story {
    clock: SystemClock,
    begun: Duration,
    step: Duration,
    number: u32,
}

impl Story {
    fn new() -> Self {
        let clock = SystemClock::new();
        let now = clock.monotonic();
        Self {
            clock,
            begun: now,
            step: now,
            number: 0,
        }
    }

    /// Begins a step: its title, and the lines that do the same by hand.
    fn step(&mut self, title: &str, by_hand: &[&str]) {
        self.number += 1;
        self.step = self.clock.monotonic();
        output::gap();
        output::progress(&format!("Step {}", self.number), title);
        for line in by_hand {
            output::remark(&format!("$ {line}"));
        }
    }

    /// Something of the step is done.
    fn done(&self, verb: &str, text: &str) {
        let took = output::seconds(self.clock.monotonic().saturating_sub(self.step));
        output::done(verb, &format!("{text}  ({took})"));
    }
}

async fn play(args: &Tutorial, data: &DataDir) -> Result<()> {
    let state = ServerState::running(data)?;
    let cluster = cluster::Cluster::connect(&data.kubeconfig()).await?;
    let pipelines = kfp::Client::new(&state.http_url());
    let mut story = Story::new();

    story.step(
        "a load balancer for a single machine: MetalLB",
        &[
            "kubectl apply -f examples/mnist/manifests/metallb.yaml",
            "kubectl apply -f examples/mnist/manifests/address-pool.yaml",
        ],
    );
    cluster.apply(METALLB).await?;
    cluster.address_pool(&pool(data)).await?;
    let pods = cluster
        .pods_ready("metallb-system", "app=metallb", 2)
        .await?;
    story.done("Running", &pods.join(" · "));

    story.step(
        "a volume for the model, and a claim for it",
        &[
            "kubectl apply -f examples/mnist/manifests/volume.yaml",
            "kubectl get pv",
        ],
    );
    let folder = data.root().join("tutorial").join("mnist");
    std::fs::create_dir_all(&folder)
        .map_err(|e| Failure::environment(format!("make {}: {e}", folder.display())))?;
    cluster.apply(&volume(&folder)).await?;
    cluster.claim_bound("kubeflow", CLAIM).await?;
    story.done("Bound", &format!("claim {CLAIM} on {}", folder.display()));

    story.step(
        "the pipeline: upload the package, make an experiment, start a run",
        &[
            "kfp pipeline upload -p mnist examples/mnist/mnist_pipeline.yaml",
            "kfp experiment create tutorial",
            "kfp run submit -e tutorial -n mnist pvc_name=mnist-claim",
        ],
    );
    let name = format!("mnist-{}", SystemClock::new().now().as_second());
    let pipeline = pipelines
        .upload(&name, "mnist_pipeline.yaml", PACKAGE)
        .await?;
    let experiment = pipelines.experiment("tutorial").await?;
    let steps = args.train_steps.to_string();
    let parameters = [
        ("model_export_dir", "/mnt/export"),
        ("train_steps", steps.as_str()),
        ("pvc_name", CLAIM),
    ];
    let run = pipelines
        .start("mnist", &pipeline, &experiment, &parameters)
        .await?;
    story.done("Started", &format!("run {run} of pipeline {name}"));

    story.step(
        "train, serve, web-ui: three steps, each a Pod",
        &[
            "kubectl -n kubeflow get pods --watch",
            "kubectl -n kubeflow logs -f POD",
        ],
    );
    cluster.follow_run(&pipelines, &run, &story.clock).await?;
    story.done("Succeeded", "the run and its three steps");

    story.step("the page", &["kubectl -n kubeflow get service web-ui"]);
    let service = cluster.load_balancer("kubeflow", "web-ui").await?;
    let url = page::find(&service).await?;
    for digit in page::three_digits(&url).await? {
        output::progress("Digit", &digit);
    }
    story.done("Open", &url);
    output::gap();
    output::done(
        "Done",
        &format!(
            "in {}",
            output::seconds(story.clock.monotonic().saturating_sub(story.begun))
        ),
    );
    what_next(data, &url, args.once);
    Ok(())
}

/// Addresses on loopback that belong to this instance alone: two servers never hand out the same.
fn pool(data: &DataDir) -> String {
    let slice: u8 = std::fs::read_to_string(data.slice())
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    let third = slice << 4;
    format!("127.98.{third}.10-127.98.{third}.50")
}

fn volume(folder: &Path) -> String {
    include_str!("../../../../examples/mnist/manifests/volume.yaml").replace(
        "hostPath: {path: /mnt/data}",
        &format!("hostPath: {{path: {:?}}}", folder.display().to_string()),
    )
}

fn what_next(data: &DataDir, url: &str, once: bool) {
    let place = cli::place(data);
    if !once {
        output::remark(&format!("{url} draws digits with the mouse or a finger"));
    }
    if on_path("kubectl") {
        output::remark(&format!(
            "eval \"$(coracle env{place})\" && kubectl -n kubeflow get all"
        ));
    }
    if on_path("python3") {
        output::remark(
            "pip install kfp==1.8.22, then change and compile examples/mnist/mnist_pipeline.py",
        );
    }
    output::remark(&format!(
        "coracle tutorial mnist --train-steps 1000{place}   trains a better model, as version 2"
    ));
    if !once {
        output::remark(&format!("coracle down{place}   stops it all"));
    }
}

/// Whether a program of this name can be run.
fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_volume_lies_where_it_is_told() {
        let text = volume(Path::new("/data/it's here"));
        assert!(
            text.contains(r#"hostPath: {path: "/data/it's here"}"#),
            "{text}"
        );
        assert!(text.contains(CLAIM));
    }
}
