//! The runner against a cluster in which the test plays the kubelet.

#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "the API's tests use the rest")]
mod support;

use std::sync::Arc;

use artifacts::{Providers, Stores};
use db::Db;
use pipelines::api::MIGRATIONS;
use pipelines::runner::{Error, NewRun, Options, RunStatus, Runner};
use serde_json::{Value, json};
use stdx::{Supervisor, SystemClock, SystemRng};
use support::Cluster;

struct Server {
    runner: Runner,
    supervisor: Supervisor,
    db: Db,
}

impl Server {
    async fn start(path: &std::path::Path, cluster: &Cluster) -> Self {
        Self::start_with(Options::default(), path, cluster).await
    }

    async fn start_with(options: Options, path: &std::path::Path, cluster: &Cluster) -> Self {
        let supervisor = Supervisor::new();
        let db = Db::open(db::Options::file(path), MIGRATIONS, &supervisor)
            .await
            .unwrap();
        let store = path.with_extension("artifacts");
        std::fs::create_dir_all(&store).unwrap();
        let runner = Runner::start(
            Options {
                stores: Stores::new(Some(store), Providers::default()),
                ..options
            },
            db.clone(),
            cluster.client(),
            SystemClock::shared(),
            SystemRng::shared(),
            &supervisor,
        )
        .await
        .unwrap();
        Self {
            runner,
            supervisor,
            db,
        }
    }

    async fn stop(self) {
        self.db.close().await;
        self.supervisor.shutdown().await;
    }

    async fn create(
        &self,
        manifest: Value,
        parameters: &[(&str, &str)],
    ) -> Result<RunStatus, Error> {
        let parameters = parameters
            .iter()
            .map(|(n, v)| ((*n).to_owned(), json!(v)))
            .collect();
        let new = NewRun {
            run_id: "run-1".to_owned(),
            display_name: "a run".to_owned(),
            manifest: Arc::new(manifest),
            parameters,
            service_account: String::new(),
            facts: std::collections::BTreeMap::new(),
        };
        self.runner.create(new, None).await
    }

    /// Waits until the run is over.
    async fn end(&self) -> RunStatus {
        let mut changes = self.runner.subscribe();
        let wait = async {
            loop {
                let status = self.runner.status("run-1").await.unwrap();
                if status.phase.finished() {
                    return status;
                }
                let _ = changes.recv().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), wait)
            .await
            .expect("the run ends")
    }

    async fn nodes(&self) -> Vec<(String, String, String)> {
        let workflow = self.runner.workflow_manifest("run-1").await.unwrap();
        let nodes = workflow["status"]["nodes"].as_object().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut nodes: Vec<_> = nodes
            .values()
            .map(|node| {
                (
                    text(&node["displayName"]),
                    text(&node["type"]),
                    text(&node["phase"]),
                )
            })
            .collect();
        nodes.sort();
        nodes
    }
}

fn workflow(templates: &Value, spec: &Value) -> Value {
    let mut manifest = json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": "demo-"},
        "spec": {"entrypoint": "main", "templates": templates},
    });
    for (key, value) in spec.as_object().unwrap() {
        manifest["spec"][key] = value.clone();
    }
    manifest
}

/// Two steps, the second after the first, with a volume from a parameter.
fn two_steps() -> Value {
    let step = |name: &str| {
        json!({
            "name": name,
            "inputs": {"parameters": [{"name": "pvc_name"}]},
            "container": {
                "image": "i",
                "args": ["--pvc", "{{inputs.parameters.pvc_name}}", "{{workflow.uid}}", "{{pod.name}}"],
                "volumeMounts": [{"name": "v", "mountPath": "/mnt"}],
            },
            "metadata": {"labels": {"l": "x"}},
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "{{inputs.parameters.pvc_name}}"}}],
        })
    };
    let argument =
        json!({"parameters": [{"name": "pvc_name", "value": "{{inputs.parameters.pvc_name}}"}]});
    let main = json!({
        "name": "main",
        "inputs": {"parameters": [{"name": "pvc_name"}]},
        "dag": {"tasks": [
            {"name": "train", "template": "train", "arguments": argument},
            {"name": "serve", "template": "serve", "dependencies": ["train"], "arguments": argument},
        ]},
    });
    let parameters = json!({"parameters": [{"name": "pvc_name", "value": ""}]});
    workflow(
        &json!([main, step("train"), step("serve")]),
        &json!({"arguments": parameters}),
    )
}

fn one_step(extra: &Value) -> Value {
    let mut step = json!({"name": "step", "container": {"image": "no/such:image", "command": ["sh", "-c", "x"]}});
    for (key, value) in extra.as_object().unwrap() {
        step[key] = value.clone();
    }
    let main = json!({"name": "main", "dag": {"tasks": [{"name": "a", "template": "step"}]}});
    workflow(&json!([main, step]), &json!({}))
}

fn owned(nodes: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    nodes
        .iter()
        .map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned()))
        .collect()
}

#[tokio::test]
async fn steps_become_pods_one_after_the_other() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::new());
    let server = Server::start(&folder.path().join("p.db"), &cluster).await;
    let run = server
        .create(two_steps(), &[("pvc-name", "claim")])
        .await
        .unwrap();
    let train = cluster.pod(".train").await;
    let name = train["metadata"]["name"].as_str().unwrap();
    assert!(
        name.starts_with(&format!("{}-train-", run.workflow)),
        "{name}"
    );
    assert_eq!(
        train["metadata"]["labels"]["workflows.argoproj.io/workflow"],
        json!(run.workflow)
    );
    assert_eq!(train["metadata"]["labels"]["pipeline/runid"], "run-1");
    assert_eq!(train["metadata"]["labels"]["l"], "x");
    let node_name = &train["metadata"]["annotations"]["workflows.argoproj.io/node-name"];
    assert_eq!(*node_name, json!(format!("{}.train", run.workflow)));
    let spec = &train["spec"];
    assert_eq!(spec["serviceAccountName"], "pipeline-runner");
    assert_eq!(spec["restartPolicy"], "Never");
    assert_eq!(
        spec["containers"][0]["args"],
        json!(["--pvc", "claim", "run-1", name])
    );
    assert_eq!(
        spec["volumes"][0]["persistentVolumeClaim"]["claimName"],
        "claim"
    );

    cluster.set_status(&train, &json!({"phase": "Running"}));
    cluster.succeed(&train);
    let serve = cluster.pod(".serve").await;
    cluster.succeed(&serve);
    assert_eq!(server.end().await.phase.as_str(), "Succeeded");
    let expect = [
        (run.workflow.as_str(), "DAG", "Succeeded"),
        ("serve", "Pod", "Succeeded"),
        ("train", "Pod", "Succeeded"),
    ];
    assert_eq!(server.nodes().await, owned(&expect));
    let pod = server.runner.pod_of(
        "run-1",
        train["metadata"]["annotations"]["workflows.argoproj.io/node-id"]
            .as_str()
            .unwrap(),
    );
    assert_eq!(pod.await.unwrap().unwrap().name, name);
    server.stop().await;
}

#[tokio::test]
async fn a_run_goes_on_after_a_restart_and_adopts_its_pods() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::new());
    let path = folder.path().join("p.db");
    let server = Server::start(&path, &cluster).await;
    server.create(two_steps(), &[]).await.unwrap();
    let train = cluster.pod(".train").await;
    server.stop().await;
    // It ends while nobody looks.
    cluster.succeed(&train);
    let server = Server::start(&path, &cluster).await;
    let serve = cluster.pod(".serve").await;
    cluster.succeed(&serve);
    assert_eq!(server.end().await.phase.as_str(), "Succeeded");
    assert_eq!(cluster.created().len(), 2, "each step ran once");
    server.stop().await;
}

#[tokio::test]
async fn an_image_that_cannot_be_run_fails_the_step_at_once_and_its_pod_goes() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::new());
    let server = Server::start(&folder.path().join("p.db"), &cluster).await;
    server.create(one_step(&json!({})), &[]).await.unwrap();
    let pod = cluster.pod(".a").await;
    let waiting = json!({"reason": "ErrImagePull", "message": "not found"});
    let container = json!({
        "name": "main", "image": "no/such:image", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": waiting},
    });
    cluster.set_status(
        &pod,
        &json!({"phase": "Pending", "containerStatuses": [container]}),
    );
    let end = server.end().await;
    let message = end.message.unwrap();
    assert!(
        message.contains("no/such:image") && message.contains("ErrImagePull"),
        "{message}"
    );
    assert_eq!(
        cluster.deletion().await,
        pod["metadata"]["name"].as_str().unwrap()
    );
    server.stop().await;
}

#[tokio::test]
async fn a_pod_that_no_node_can_take_fails_its_step_and_goes() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::new());
    let options = Options {
        unschedulable_after: std::time::Duration::ZERO,
        ..Options::default()
    };
    let server = Server::start_with(options, &folder.path().join("p.db"), &cluster).await;
    server.create(one_step(&json!({})), &[]).await.unwrap();
    let pod = cluster.pod(".a").await;
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient gpu. preemption: 0/1 nodes are \
            available: 1 Preemption is not helpful for scheduling.",
    });
    cluster.set_status(
        &pod,
        &json!({"phase": "Pending", "conditions": [condition]}),
    );
    assert_eq!(
        server.end().await.message.as_deref(),
        Some(
            "a: no node could take the step for 0 s: 0/1 nodes are available: 1 Insufficient gpu."
        )
    );
    assert_eq!(
        cluster.deletion().await,
        pod["metadata"]["name"].as_str().unwrap()
    );
    server.stop().await;
}

#[tokio::test]
async fn a_pod_that_waits_says_why() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::new());
    let server = Server::start(&folder.path().join("p.db"), &cluster).await;
    server.create(one_step(&json!({})), &[]).await.unwrap();
    let pod = cluster.pod(".a").await;
    let mut changes = server.runner.subscribe();
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "claim is not bound",
    });
    cluster.set_status(
        &pod,
        &json!({"phase": "Pending", "conditions": [condition]}),
    );
    changes.recv().await.unwrap();
    let workflow = server.runner.workflow_manifest("run-1").await.unwrap();
    let nodes = workflow["status"]["nodes"].as_object().unwrap();
    let node = nodes
        .values()
        .find(|node| node["displayName"] == "a")
        .unwrap();
    assert_eq!(node["phase"], "Pending");
    assert_eq!(node["message"], "Unschedulable: claim is not bound");
    server.stop().await;
}

#[tokio::test]
async fn a_run_that_is_terminated_loses_its_pods_and_ends() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::new());
    let server = Server::start(&folder.path().join("p.db"), &cluster).await;
    server.create(two_steps(), &[]).await.unwrap();
    let pod = cluster.pod(".train").await;
    server.runner.terminate("run-1").await.unwrap();
    assert_eq!(server.end().await.phase.as_str(), "Failed");
    assert_eq!(
        cluster.deletion().await,
        pod["metadata"]["name"].as_str().unwrap()
    );
    assert!(matches!(
        server.runner.terminate("run-1").await,
        Err(Error::State(_))
    ));
    // And it can be tried again, with a Pod of another name.
    server.runner.retry("run-1").await.unwrap();
    let again = cluster.pod(".train").await;
    assert_ne!(again["metadata"]["name"], pod["metadata"]["name"]);
    server.runner.delete("run-1", None).await.unwrap();
    assert!(matches!(
        server.runner.status("run-1").await,
        Err(Error::NotFound(_))
    ));
    server.stop().await;
}

#[tokio::test]
async fn a_refused_or_deleted_pod_is_an_error_of_its_step() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::new());
    let server = Server::start(&folder.path().join("p.db"), &cluster).await;
    server.create(one_step(&json!({})), &[]).await.unwrap();
    let pod = cluster.pod(".a").await;
    cluster.remove(&pod);
    assert_eq!(
        server.end().await.message.as_deref(),
        Some("a: pod deleted")
    );
    cluster.refuse("image \"no/such:image\" violates policy");
    server.runner.retry("run-1").await.unwrap();
    let end = server.end().await;
    let expect = "a: the step's Pod was refused: image \"no/such:image\" violates policy";
    assert_eq!(end.message.as_deref(), Some(expect));
    server.stop().await;
}

#[tokio::test]
async fn a_step_is_tried_again_as_its_template_says() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::new());
    let server = Server::start(&folder.path().join("p.db"), &cluster).await;
    server
        .create(one_step(&json!({"retryStrategy": {"limit": 1}})), &[])
        .await
        .unwrap();
    let pod = cluster.pod(".a").await;
    cluster.end(&pod, "Failed", 3, "bad luck");
    cluster.pods_made(2).await;
    let run = server.runner.workflow_manifest("run-1").await.unwrap();
    let workflow = run["metadata"]["name"].as_str().unwrap().to_owned();
    let nodes = owned(&[
        ("a", "Retry", "Pending"),
        ("a(0)", "Pod", "Failed"),
        ("a(1)", "Pod", "Pending"),
        (workflow.as_str(), "DAG", "Running"),
    ]);
    assert_eq!(server.nodes().await, nodes);
    server.stop().await;
}

#[tokio::test]
async fn files_of_a_step_become_parameters_of_the_next() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::new());
    let server = Server::start(&folder.path().join("p.db"), &cluster).await;
    let flip = json!({
        "name": "flip",
        "container": {"image": "i", "command": ["sh", "-c", "true"]},
        "outputs": {"parameters": [
            {"name": "side", "valueFrom": {"path": "/tmp/side"}},
            {"name": "n", "valueFrom": {"path": "/tmp/n", "default": "7"}},
        ]},
    });
    let say = json!({
        "name": "say", "inputs": {"parameters": [{"name": "x"}]},
        "container": {"image": "i", "args": ["{{inputs.parameters.x}}"]},
    });
    let arguments = json!({"parameters": [{
        "name": "x",
        "value": "{{tasks.flip.outputs.parameters.side}} {{tasks.flip.outputs.parameters.n}}",
    }]});
    let main = json!({"name": "main", "dag": {"tasks": [
        {"name": "flip", "template": "flip"},
        {"name": "say", "template": "say", "dependencies": ["flip"], "arguments": arguments,
         "when": "\"{{tasks.flip.outputs.parameters.side}}\" == \"heads\""},
    ]}});
    server
        .create(workflow(&json!([main, flip, say]), &json!({})), &[])
        .await
        .unwrap();
    let pod = cluster.pod(".flip").await;
    let (words, job) = launched(&pod);
    assert_eq!(words, ["sh", "-c", "true"]);
    assert_eq!(
        job["parameters"],
        json!([{"name": "side", "path": "/tmp/side"}, {"name": "n", "path": "/tmp/n"}])
    );
    let message = "coracle-outputs\n{\"inline\":{\"parameters\":{\"side\":\"heads\\n\"}}}";
    cluster.end(&pod, "Succeeded", 0, message);
    let pod = cluster.pod(".say").await;
    assert_eq!(pod["spec"]["containers"][0]["args"], json!(["heads 7"]));
    server.stop().await;
}

/// The command behind the launcher's own words, and what the launcher is to do.
fn launched(pod: &Value) -> (Vec<String>, Value) {
    let container = &pod["spec"]["containers"][0];
    let words: Vec<String> = serde_json::from_value(container["command"].clone()).unwrap();
    assert_eq!(words[..3], ["/kfp-launcher/coracle", "launch", "--job"]);
    assert_eq!(words[4], "--");
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let image = &volumes
        .iter()
        .find(|v| v["name"] == "kfp-launcher")
        .unwrap()["image"];
    assert_eq!(image["reference"], "coracle/launcher");
    (
        words[5..].to_vec(),
        serde_json::from_str(&words[3]).unwrap(),
    )
}

fn mounted<'a>(pod: &'a Value, path: &str) -> Option<&'a Value> {
    let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array()?;
    mounts.iter().find(|mount| mount["mountPath"] == path)
}

#[tokio::test]
async fn large_outputs_come_by_the_store() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::new());
    let server = Server::start(&folder.path().join("p.db"), &cluster).await;
    let template = json!({
        "name": "a", "container": {"image": "i", "command": ["x"]},
        "outputs": {"parameters": [{"name": "big", "valueFrom": {"path": "/tmp/big"}}]},
    });
    let main = json!({"name": "main", "dag": {"tasks": [{"name": "a", "template": "a"}]}});
    server
        .create(workflow(&json!([main, template]), &json!({})), &[])
        .await
        .unwrap();
    let pod = cluster.pod(".a").await;
    let (_, job) = launched(&pod);
    let uri = job["document"].as_str().unwrap();
    let path = uri.strip_prefix("minio://").unwrap();
    let (own, _) = uri.rsplit_once('/').unwrap();
    let own = own.replace("minio://", "/minio/");
    // Its own folder of the store and nothing else can be written to.
    assert_eq!(mounted(&pod, &own).unwrap()["readOnly"], false);
    let big = "x".repeat(1 << 20);
    let document = json!({"parameters": {"big": big}}).to_string();
    std::fs::write(folder.path().join("p.artifacts").join(path), document).unwrap();
    let message = format!("coracle-outputs\n{}", json!({"at": uri}));
    cluster.end(&pod, "Succeeded", 0, &message);
    assert_eq!(server.end().await.phase.as_str(), "Succeeded");
    let manifest = server.runner.workflow_manifest("run-1").await.unwrap();
    assert!(manifest.to_string().contains(&big));
    server.runner.delete("run-1", None).await.unwrap();
    assert!(!folder.path().join("p.artifacts").join(path).exists());
    server.stop().await;
}

#[tokio::test]
async fn artifacts_of_a_step_are_seen_by_the_next() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::new());
    let server = Server::start(&folder.path().join("p.db"), &cluster).await;
    let make = json!({
        "name": "make", "container": {"image": "i", "command": ["x"]},
        "outputs": {"artifacts": [{"name": "data", "path": "/tmp/data"},
            {"name": "mlpipeline-metrics", "path": "/mlpipeline-metrics.json"}]},
    });
    let read = json!({
        "name": "read", "container": {"image": "i", "command": ["y"]},
        "inputs": {"artifacts": [{"name": "in", "path": "/tmp/in"}]},
    });
    let arguments = json!({"artifacts": [
        {"name": "in", "from": "{{tasks.make.outputs.artifacts.data}}"}]});
    let main = json!({"name": "main", "dag": {"tasks": [
        {"name": "make", "template": "make"},
        {"name": "read", "template": "read", "dependencies": ["make"], "arguments": arguments},
    ]}});
    server
        .create(workflow(&json!([main, make, read]), &json!({})), &[])
        .await
        .unwrap();
    let pod = cluster.pod(".make").await;
    let (_, job) = launched(&pod);
    let uri = job["artifacts"][0]["uri"].as_str().unwrap().to_owned();
    assert!(uri.ends_with("/data.tgz"), "{uri}");
    let path = folder
        .path()
        .join("p.artifacts")
        .join(uri.strip_prefix("minio://").unwrap());
    std::fs::write(&path, "packed").unwrap();
    // What a step does not write although it says so is a failure, but for what only dashboards read.
    let stored = json!({"artifacts": {"data": {"uri": uri, "archive": "tgz"}}});
    let message = format!("coracle-outputs\n{}", json!({"inline": stored}));
    cluster.end(&pod, "Succeeded", 0, &message);

    let pod = cluster.pod(".read").await;
    let (_, job) = launched(&pod);
    let expect = json!([{"name": "in", "path": "/tmp/in", "uri": uri, "archive": "tgz"}]);
    assert_eq!(job["inputs"], expect);
    let seen = uri.replace("minio://", "/minio/");
    assert_eq!(mounted(&pod, &seen).unwrap()["readOnly"], true);

    let manifest = server.runner.workflow_manifest("run-1").await.unwrap();
    let nodes = manifest["status"]["nodes"].as_object().unwrap();
    let (id, node) = nodes
        .iter()
        .find(|(_, n)| n["displayName"] == "make")
        .unwrap();
    let artifact = &node["outputs"]["artifacts"][0];
    assert_eq!(artifact["s3"]["bucket"], "mlpipeline");
    let found = server
        .runner
        .read_artifact("run-1", id, "data")
        .await
        .unwrap();
    assert_eq!(found.unwrap().content.size, 6);
    let none = server
        .runner
        .read_artifact("run-1", id, "nothing")
        .await
        .unwrap();
    assert!(none.is_none());
    server.stop().await;
}

#[tokio::test]
async fn a_step_that_does_not_write_its_artifact_fails() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::new());
    let server = Server::start(&folder.path().join("p.db"), &cluster).await;
    let template = json!({
        "name": "a", "container": {"image": "i", "command": ["x"]},
        "outputs": {"artifacts": [{"name": "data", "path": "/tmp/data"}]},
    });
    let main = json!({"name": "main", "dag": {"tasks": [{"name": "a", "template": "a"}]}});
    server
        .create(workflow(&json!([main, template]), &json!({})), &[])
        .await
        .unwrap();
    let pod = cluster.pod(".a").await;
    cluster.end(&pod, "Succeeded", 0, "coracle-outputs\n{\"inline\":{}}");
    assert_eq!(server.end().await.phase.as_str(), "Failed");
    let manifest = server.runner.workflow_manifest("run-1").await.unwrap();
    assert!(manifest.to_string().contains("did not write /tmp/data"));
    server.stop().await;
}

#[tokio::test]
async fn a_parameter_that_does_not_exist_is_refused_with_the_known_ones() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::new());
    let server = Server::start(&folder.path().join("p.db"), &cluster).await;
    let error = server
        .create(two_steps(), &[("nope", "x")])
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown parameter \"nope\"; the pipeline's parameters are: pvc_name"
    );
    assert!(cluster.created().is_empty());
    server.create(two_steps(), &[]).await.unwrap();
    assert!(matches!(
        server.create(two_steps(), &[]).await,
        Err(Error::Exists(_))
    ));
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_was_replaced_writes_no_more() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::new());
    let path = folder.path().join("p.db");
    let old = Server::start(&path, &cluster).await;
    old.create(two_steps(), &[]).await.unwrap();
    let new = Server::start(&path, &cluster).await;
    let train = cluster.pod(".train").await;
    cluster.succeed(&train);
    cluster.succeed(&cluster.pod(".serve").await);
    assert_eq!(new.end().await.phase.as_str(), "Succeeded");
    assert_eq!(cluster.created().len(), 2);
    old.stop().await;
    new.stop().await;
}
