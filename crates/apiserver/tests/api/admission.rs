//! Admission: the built-in plugins and hooks of the embedding program.

use std::sync::Arc;

use apiserver::admission::{Admission, AdmissionRequest, Denied, Operation};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::json;

use crate::support::{config_map, pod, start, start_with};

/// Refuses images of one registry and marks every Pod it lets pass.
#[derive(Debug)]
struct Images;

impl Admission for Images {
    fn admit<'a>(
        &'a self,
        request: &'a mut AdmissionRequest,
    ) -> BoxFuture<'a, Result<Vec<String>, Denied>> {
        async move {
            if request.resource != "pods" || request.operation != Operation::Create {
                return Ok(Vec::new());
            }
            if request.object.to_string().contains("evil.example.com") {
                return Err(Denied::forbidden("evil.example.com is not allowed"));
            }
            request.object["metadata"]["labels"] = json!({"seen": "yes"});
            let names = request.reader.list("", "namespaces", "").len();
            Ok(vec![format!("{names} namespaces")])
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_hook_refuses_changes_and_warns() {
    let fixture = start_with(|options| options.admission = vec![Arc::new(Images)]).await;
    let fixture = fixture.with_account().await;
    let pods = "/api/v1/namespaces/default/pods";
    let good = fixture.post(pods, &pod("good")).await;
    assert_eq!(
        good.body["metadata"]["labels"]["seen"], "yes",
        "{}",
        good.text
    );
    assert_eq!(good.headers["warning"], "299 - \"4 namespaces\"");
    let mut bad = pod("bad");
    bad["spec"]["containers"][0]["image"] = "evil.example.com/x".into();
    let refused = fixture.post(pods, &bad).await;
    assert_eq!(refused.code, 403);
    assert_eq!(refused.body["message"], "evil.example.com is not allowed");
}

#[tokio::test]
async fn a_pod_gets_its_account_token_and_tolerations() {
    let fixture = start().await.with_account().await;
    let made = fixture
        .post("/api/v1/namespaces/default/pods", &pod("p"))
        .await
        .body;
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["spec"]["priority"], 0);
    assert_eq!(made["spec"]["tolerations"].as_array().unwrap().len(), 2);
    let mount = &made["spec"]["containers"][0]["volumeMounts"][0]["mountPath"];
    assert_eq!(mount, "/var/run/secrets/kubernetes.io/serviceaccount");
}

#[tokio::test]
async fn nothing_is_made_in_a_namespace_that_is_missing_or_going() {
    let fixture = start().await;
    let missing = fixture
        .post("/api/v1/namespaces/no/configmaps", &config_map("a"))
        .await;
    assert_eq!(
        (missing.code, missing.body["message"].as_str()),
        (404, Some("namespaces \"no\" not found"))
    );
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}});
    fixture.post("/api/v1/namespaces", &namespace).await;
    let going = fixture.delete("/api/v1/namespaces/x").await.body;
    assert_eq!(going["status"]["phase"], "Terminating");
    let refused = fixture
        .post("/api/v1/namespaces/x/configmaps", &config_map("a"))
        .await;
    assert_eq!(
        (
            refused.code,
            refused.body["details"]["causes"][0]["reason"].as_str()
        ),
        (403, Some("NamespaceTerminating"))
    );
    let mut finalized = going;
    finalized["spec"]["finalizers"] = json!([]);
    fixture
        .put("/api/v1/namespaces/x/finalize", &finalized)
        .await;
    assert_eq!(fixture.get("/api/v1/namespaces/x").await.code, 404);
    assert_eq!(fixture.delete("/api/v1/namespaces/default").await.code, 403);
}
