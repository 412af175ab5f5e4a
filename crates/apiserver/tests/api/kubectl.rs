//! The real kubectl, where it is installed: its typed commands speak protobuf, `apply` reads the
//! OpenAPI documents, `get` asks for tables.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::{Authority, TOKEN, serve, start};

struct Kubectl {
    port: u16,
    home: tempfile::TempDir,
}

impl Kubectl {
    /// What it prints; a failure is one of the test.
    async fn run(&self, arguments: &[&str], input: &str) -> String {
        let mut child = Command::new("kubectl")
            .args([
                "--server",
                &format!("https://127.0.0.1:{}", self.port),
                "--token",
                TOKEN,
            ])
            .args(["--insecure-skip-tls-verify", "--kubeconfig", "/dev/null"])
            .arg("--cache-dir")
            .arg(self.home.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_creates_applies_gets_and_deletes() {
    if Command::new("kubectl")
        .args(["version", "--client"])
        .output()
        .await
        .is_err()
    {
        return;
    }
    let fixture = start().await;
    let port = serve(&fixture, &Authority::new("servers")).await;
    let kubectl = Kubectl {
        port,
        home: tempfile::tempdir().unwrap(),
    };
    let created = kubectl.run(&["create", "namespace", "x"], "").await;
    assert_eq!(created, "namespace/x created\n");
    kubectl
        .run(
            &["-n", "x", "create", "configmap", "a", "--from-literal=k=v"],
            "",
        )
        .await;
    let binding = [
        "create",
        "clusterrolebinding",
        "b",
        "--clusterrole=view",
        "--group=g",
    ];
    kubectl.run(&binding, "").await;
    let manifest = |size: u32| {
        format!(
            "apiVersion: apps/v1beta2\nkind: Deployment\nmetadata: {{name: d, namespace: x}}\n\
             spec:\n  replicas: {size}\n  selector: {{matchLabels: {{a: b}}}}\n  template:\n    \
             metadata: {{labels: {{a: b}}}}\n    spec: {{containers: [{{name: c, image: i}}]}}\n"
        )
    };
    let applied = kubectl.run(&["apply", "-f", "-"], &manifest(1)).await;
    assert_eq!(applied, "deployment.apps/d created\n");
    let again = kubectl.run(&["apply", "-f", "-"], &manifest(1)).await;
    assert_eq!(again, "deployment.apps/d unchanged\n");
    let more = kubectl.run(&["apply", "-f", "-"], &manifest(2)).await;
    assert_eq!(more, "deployment.apps/d configured\n");
    let table = kubectl
        .run(&["-n", "x", "get", "deployments", "--no-headers"], "")
        .await;
    let cells: Vec<&str> = table.split_whitespace().take(4).collect();
    assert_eq!(cells, ["d", "0/2", "0", "0"]);
    let value = [
        "-n",
        "x",
        "get",
        "configmap",
        "a",
        "-o",
        "jsonpath={.data.k}",
    ];
    assert_eq!(kubectl.run(&value, "").await, "v");
    let deleted = kubectl
        .run(&["-n", "x", "delete", "configmap", "a"], "")
        .await;
    assert_eq!(deleted, "configmap \"a\" deleted\n");
}
