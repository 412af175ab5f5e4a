//! A disk that is full, files that are damaged, folders that are missing: said clearly, survived.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use flate2::write::GzEncoder;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};
use support::server::free_port;
use support::tutorial::idx;
use support::{Server, coracle, http, kfp, root_or_skip, said, until};

/// A small file system of the test's own, unmounted at the end.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, size: &str) -> Self {
        let options = format!("size={size},mode=755");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", said(&done));
        Self(at.to_owned())
    }

    /// Writes until nothing more fits; the file that fills it.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).unwrap();
        for size in [65_536, 512, 1] {
            let chunk = vec![0; size];
            while file.write_all(&chunk).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is just ending may still stand in it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn map(name: &str, size: usize) -> ConfigMap {
    let object = json!({"metadata": {"name": name}, "data": {"d": "x".repeat(size)}});
    serde_json::from_value(object).unwrap()
}

#[tokio::test]
async fn a_full_disk_is_reported_and_survived() {
    if !root_or_skip() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    support::server::open_to_all(dir.path());
    let place = dir.path().join("disk");
    std::fs::create_dir(&place).unwrap();
    let disk = Disk::mount(&place, "40m");
    let server = Server::prepare_at(dir, place.join("data"), &[]);
    server.up();
    let client = server.client().await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    maps.create(&PostParams::default(), &map("before", 10))
        .await
        .unwrap();
    let filler = disk.fill();
    // Room that a file has already is used up by some writes.
    let mut refused = None;
    for i in 0..200 {
        let made = maps
            .create(&PostParams::default(), &map(&format!("big-{i}"), 500_000))
            .await;
        if let Err(error) = made {
            refused = Some(error);
            break;
        }
    }
    let Some(kube::Error::Api(status)) = refused else {
        panic!("not a Status: {refused:?}")
    };
    assert!(status.code >= 500, "{status:?}");
    let message = status.message.to_lowercase();
    assert!(
        message.contains("full") || message.contains("no space"),
        "the cause is named: {status:?}"
    );

    // Reading goes on, and so do both listeners.
    assert_eq!(
        maps.get("before").await.unwrap().data.unwrap()["d"].len(),
        10
    );
    let namespaces: Api<Namespace> = Api::all(client);
    assert!(
        !namespaces
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let health = http::get(&server.url("/apis/v1beta1/healthz"))
        .await
        .unwrap();
    assert!(health.status.is_success(), "{}", health.text);
    let mut experiment = None;
    for i in 0..2000 {
        let body = json!({"name": format!("e{i}"), "description": "y".repeat(4000)});
        let answer = kfp::call(&server, "POST", "/apis/v1beta1/experiments", Some(&body)).await;
        if !answer.status.is_success() {
            experiment = Some(answer);
            break;
        }
    }
    let answer = experiment.expect("the second store is full as well");
    assert!(
        answer.status.is_server_error(),
        "{} {}",
        answer.status,
        answer.text
    );

    // Once there is room it works again, without a restart.
    std::fs::remove_file(filler).unwrap();
    until("writes work again", async || {
        maps.create(&PostParams::default(), &map("after", 10))
            .await
            .ok()
    })
    .await;
    let body = json!({"name": "after"});
    until("the second store works again", async || {
        let answer = kfp::call(&server, "POST", "/apis/v1beta1/experiments", Some(&body)).await;
        answer.status.is_success().then_some(())
    })
    .await;
    // And what was answered is kept, what was refused is not.
    server.kill();
    server.up();
    let maps: Api<ConfigMap> = Api::namespaced(server.client().await, "default");
    assert!(maps.get_opt("after").await.unwrap().is_some());
    let listed = maps.list(&ListParams::default()).await.unwrap();
    assert!(
        listed
            .items
            .iter()
            .any(|m| m.metadata.name.as_deref() == Some("before"))
    );
    drop(server);
    drop(disk);
}

fn gzip(path: &Path, bytes: &[u8]) {
    let mut file = GzEncoder::new(File::create(path).unwrap(), flate2::Compression::fast());
    file.write_all(bytes).unwrap();
    file.finish().unwrap();
}

#[test]
fn a_corrupt_idx_file_is_named_with_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let export = dir.path().join("export");
    let train = || {
        coracle()
            .args([
                "image",
                "mnist-model",
                "/opt/model.py",
                "--tf-train-steps",
                "1",
            ])
            .arg("--tf-data-dir")
            .arg(&data)
            .arg("--tf-export-dir")
            .arg(&export)
            .output()
            .unwrap()
    };
    let good = || {
        let _ = std::fs::remove_dir_all(&data);
        std::fs::create_dir(&data).unwrap();
        for name in ["train", "t10k"] {
            let (images, labels) = (
                format!("{name}-images-idx3-ubyte.gz"),
                format!("{name}-labels-idx1-ubyte.gz"),
            );
            gzip(&data.join(images), &idx(true, 4, 4 * 784));
            gzip(&data.join(labels), &idx(false, 4, 4));
        }
    };
    good();
    let trained = train();
    assert!(trained.status.success(), "{}", said(&trained));
    let images = "train-images-idx3-ubyte.gz";
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("too short", |path| gzip(path, &idx(true, 4, 100))),
        ("another kind", |path| {
            gzip(path, b"\x00\x00\x0d\x03rubbish");
        }),
        ("not gzip", |path| {
            std::fs::write(path, "plain text").unwrap();
        }),
        ("cut off", |path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("another count", |path| gzip(path, &idx(true, 3, 3 * 784))),
    ];
    for (what, damage) in damages {
        good();
        damage(&data.join(images));
        std::fs::remove_dir_all(&export).unwrap();
        std::fs::create_dir(&export).unwrap();
        let refused = train();
        let text = said(&refused);
        assert_eq!(refused.status.code(), Some(1), "{what}: {text}");
        // Of two files that do not fit together either may be the wrong one.
        let labels = what == "another count" && text.contains("train-labels-idx1-ubyte");
        assert!(
            labels || text.contains("train-images-idx3-ubyte"),
            "{what}: {text}"
        );
        assert!(!text.contains("panicked"), "{what}: {text}");
        assert_eq!(
            std::fs::read_dir(&export).unwrap().count(),
            0,
            "{what}: nothing is exported"
        );
    }
    good();
    std::fs::remove_file(data.join("t10k-labels-idx1-ubyte.gz")).unwrap();
    let text = said(&train());
    assert!(text.contains("t10k-labels-idx1-ubyte"), "{text}");
    std::fs::remove_dir_all(&data).unwrap();
    let text = said(&train());
    assert!(text.contains(&data.display().to_string()), "{text}");
}

/// A model server, ended with the test.
struct ModelServer(Child);

impl Drop for ModelServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_missing_model_folder_is_reported_and_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("model");
    let (grpc, rest) = (free_port(), free_port());
    let mut child = coracle()
        .args(["image", "tensorflow-serving", "--model_name=mnist"])
        .args([
            &format!("--port={grpc}"),
            &format!("--rest_api_port={rest}"),
        ])
        .arg(format!("--model_base_path={}", base.display()))
        .arg("--file_system_poll_wait_seconds=1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let server = ModelServer(child);
    let wanted = base.display().to_string();
    let (found, named) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = found.send(line);
        }
    });
    let line = named
        .iter()
        .find(|line| line.contains(&wanted) && (line.contains("WARN") || line.contains("ERROR")));
    assert!(line.is_some(), "the folder is named");
    let url = format!("http://127.0.0.1:{rest}/v1/models/mnist");
    let status = until("it answers", async || http::get(&url).await.ok()).await;
    assert!(!status.text.contains("AVAILABLE"), "{}", status.text);
    let predict = http::request(
        "POST",
        &format!("{url}:predict"),
        &[],
        "{\"instances\": []}",
    )
    .await;
    let predict = predict.unwrap();
    assert!(predict.status.is_client_error() || predict.status.is_server_error());
    let body: Value = predict.json();
    assert!(body["error"].is_string(), "{body}");

    // A damaged version does not end it; a good one is found and served.
    std::fs::create_dir_all(base.join("1")).unwrap();
    std::fs::write(base.join("1").join("saved_model.pb"), "not a model").unwrap();
    let line = named
        .iter()
        .find(|line| line.contains("saved_model") || line.contains("version 1"));
    assert!(line.is_some(), "the damaged version is reported");
    let trained = coracle()
        .args([
            "image",
            "mnist-model",
            "--tf-train-steps",
            "0",
            "--tf-export-dir",
        ])
        .arg(&base)
        .output()
        .unwrap();
    assert!(trained.status.success(), "{}", said(&trained));
    let image = vec![vec![0.0; 28]; 28];
    let body = json!({"instances": [image]}).to_string();
    let answer = until("it predicts", async || {
        let answer = http::request("POST", &format!("{url}:predict"), &[], body.clone())
            .await
            .ok()?;
        answer.status.is_success().then_some(answer)
    })
    .await;
    assert!(answer.json()["predictions"].is_array(), "{}", answer.text);
    drop(server);
}
