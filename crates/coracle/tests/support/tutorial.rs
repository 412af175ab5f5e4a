//! The tutorial by API: MetalLB, a volume, the pipeline of `examples/mnist`, and the page it ends
//! with. Light: a handful of training steps, addresses and folders of the test's own.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use flate2::write::GzEncoder;
use k8s_openapi::api::core::v1::Service;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::cluster::when;
use super::{Server, http, kfp, repository, until};

const NAMESPACE: &str = "kubeflow";

/// Creates every object of a manifest.
async fn apply(client: &Client, file: &str, change: impl Fn(&mut Value)) {
    let text = std::fs::read_to_string(repository(file)).unwrap();
    for mut object in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
        change(&mut object);
        let text = |key: &str| object[key].as_str().unwrap().to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let (group, version) = version.rsplit_once('/').unwrap_or(("", &version));
        let gvk = GroupVersionKind::gvk(group, version, &kind);
        let resource = ApiResource::from_gvk(&gvk);
        let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    }
}

/// The package with its training step reading a few pictures from the volume, where the whole of
/// MNIST takes an unoptimised program half a minute.
fn with_small_data(volume: &Path, package: &str) -> String {
    let data = volume.join("mnist");
    std::fs::create_dir(&data).unwrap();
    let gzip = |name: &str, bytes: &[u8]| {
        let file = File::create(data.join(name)).unwrap();
        let mut file = GzEncoder::new(file, flate2::Compression::fast());
        file.write_all(bytes).unwrap();
        file.finish().unwrap();
    };
    for set in ["train", "t10k"] {
        gzip(
            &format!("{set}-images-idx3-ubyte.gz"),
            &idx(true, 40, 40 * 784),
        );
        gzip(&format!("{set}-labels-idx1-ubyte.gz"), &idx(false, 40, 40));
    }
    let changed = package.replace(
        "/opt/model.py,",
        "/opt/model.py, --tf-data-dir, /mnt/mnist,",
    );
    assert_ne!(changed, package);
    changed
}

/// An IDX file of `count` pictures (or labels) with this many bytes of content, all zero.
pub(crate) fn idx(images: bool, count: u32, bytes: usize) -> Vec<u8> {
    let mut file: Vec<u8> = vec![0, 0, 8, if images { 3 } else { 1 }];
    file.extend(count.to_be_bytes());
    if images {
        file.extend(28_u32.to_be_bytes());
        file.extend(28_u32.to_be_bytes());
    }
    file.extend(std::iter::repeat_n(0, bytes));
    file
}

/// Load balancer, pool and volume; the id of the uploaded pipeline, which reads a small data set
/// where that is asked for.
pub(crate) async fn set_up(server: &Server, small: bool) -> String {
    let client = server.client().await;
    let folder = server.scratch().join("volume");
    std::fs::create_dir(&folder).unwrap();
    // Addresses of other servers' pools are other addresses.
    let pool = format!(
        "127.78.{}.1-127.78.{}.20",
        server.http_port >> 8,
        server.http_port >> 8
    );
    apply(&client, "examples/mnist/manifests/metallb.yaml", |_| {}).await;
    apply(
        &client,
        "examples/mnist/manifests/address-pool.yaml",
        |object| {
            object["data"]["config"] = json!(format!(
                "address-pools:\n- name: default\n  protocol: layer2\n  addresses:\n  - {pool}\n"
            ));
        },
    )
    .await;
    apply(&client, "examples/mnist/manifests/volume.yaml", |object| {
        if object["kind"] == "PersistentVolume" {
            object["spec"]["hostPath"]["path"] = json!(folder);
        }
    })
    .await;
    let package =
        std::fs::read_to_string(repository("examples/mnist/mnist_pipeline.yaml")).unwrap();
    let package = if small {
        with_small_data(&folder, &package)
    } else {
        package
    };
    let uploaded = kfp::upload(server, "mnist", "mnist_pipeline.yaml", package.as_bytes())
        .await
        .ok();
    uploaded["id"].as_str().unwrap().to_owned()
}

/// Starts a run with little training; its id.
pub(crate) async fn start(server: &Server, pipeline: &str) -> String {
    let parameters = [("train_steps", "3"), ("batch_size", "20")];
    let source = json!({"pipeline_id": pipeline});
    let run = kfp::create_run(server, "mnist", source, &parameters)
        .await
        .ok();
    run["run"]["id"].as_str().unwrap().to_owned()
}

/// Demands three steps that succeeded once each, by the run and by its Pods.
pub(crate) async fn three_steps(server: &Server, id: &str) {
    let run = kfp::succeed(server, id).await;
    let expect = ["serve", "train", "web-ui"].map(|n| (n.to_owned(), "Succeeded".to_owned()));
    assert_eq!(
        kfp::steps(&run),
        expect,
        "{:#}",
        kfp::workflow(&run)["status"]["nodes"]
    );
    let pods: Api<k8s_openapi::api::core::v1::Pod> =
        Api::namespaced(server.client().await, NAMESPACE);
    let ours = ListParams::default().labels(&format!("pipeline/runid={id}"));
    let pods = pods.list(&ours).await.unwrap().items;
    assert_eq!(pods.len(), 3, "one Pod for each step");
    for pod in pods {
        let status = pod.status.unwrap();
        assert_eq!(
            status.phase.as_deref(),
            Some("Succeeded"),
            "{:?}",
            pod.metadata.name
        );
        let restarts: i32 = status
            .container_statuses
            .iter()
            .flatten()
            .map(|c| c.restart_count)
            .sum();
        assert_eq!(restarts, 0, "{:?}", pod.metadata.name);
    }
}

/// Waits until the page answers by its node port and has a model behind it.
pub(crate) async fn page(server: &Server) -> String {
    let services: Api<Service> = Api::namespaced(server.client().await, NAMESPACE);
    let service = when(
        &services,
        "web-ui",
        "a load-balancer address",
        |service: &Service| {
            let status = service
                .status
                .as_ref()
                .and_then(|s| s.load_balancer.as_ref());
            status
                .and_then(|s| s.ingress.as_ref())
                .is_some_and(|list| !list.is_empty())
        },
    )
    .await;
    let port = service.spec.unwrap().ports.unwrap()[0].node_port.unwrap();
    let url = format!("http://127.0.0.1:{port}/");
    until("the page is connected to a model", async || {
        let answer = http::get(&url).await.ok()?;
        answer
            .text
            .contains("Connected (model version")
            .then_some(answer.text)
    })
    .await
}
