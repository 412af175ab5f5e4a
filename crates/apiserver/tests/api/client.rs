//! The client inside the process, as controllers use it.

use apiserver::UserInfo;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;

use crate::support::start;

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"k": "v"}})).unwrap()
}

#[tokio::test]
async fn a_client_acts_as_its_user_and_names_its_manager() {
    let fixture = start().await;
    let client = fixture
        .server
        .client_for(UserInfo::admin("boss"), "my-controller/1.0");
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    maps.create(&PostParams::default(), &map("a"))
        .await
        .unwrap();
    let patch = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"z": "1"}});
    let applied = maps
        .patch(
            "a",
            &PatchParams::apply("applier").force(),
            &Patch::Apply(&patch),
        )
        .await;
    assert!(
        applied.is_err(),
        "an applied configuration must name its object"
    );
    let patch = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"z": "1"},
    });
    let applied = maps
        .patch(
            "a",
            &PatchParams::apply("applier").force(),
            &Patch::Apply(&patch),
        )
        .await
        .unwrap();
    let managers: Vec<String> = applied
        .metadata
        .managed_fields
        .unwrap()
        .into_iter()
        .filter_map(|entry| entry.manager)
        .collect();
    assert_eq!(managers, ["applier", "my-controller"]);

    let nobody = fixture.server.client_for(UserInfo::new("nobody", &[]), "x");
    let denied = Api::<ConfigMap>::namespaced(nobody, "default")
        .list(&ListParams::default())
        .await;
    let kube::Error::Api(status) = denied.unwrap_err() else {
        panic!("not a Status")
    };
    assert_eq!(status.code, 403);
}

#[tokio::test]
async fn a_watch_tells_what_happens() {
    let fixture = start().await;
    let client = fixture.server.client_for(UserInfo::admin("boss"), "test");
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let list = maps.list(&ListParams::default()).await.unwrap();
    let version = list.metadata.resource_version.unwrap();
    let mut watch = maps
        .watch(&WatchParams::default(), &version)
        .await
        .unwrap()
        .boxed();
    maps.create(&PostParams::default(), &map("a"))
        .await
        .unwrap();
    maps.delete("a", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match watch.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(map) => seen.push(format!("added {}", map.metadata.name.unwrap())),
            WatchEvent::Deleted(map) => {
                seen.push(format!("deleted {}", map.metadata.name.unwrap()));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, ["added a", "deleted a"]);
}

#[tokio::test]
async fn both_ways_of_listing_for_a_watcher_work() {
    let fixture = start().await;
    let client = fixture.server.client_for(UserInfo::admin("boss"), "test");
    let namespaces: Api<Namespace> = Api::all(client);
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let stream = watcher(namespaces.clone(), config)
            .applied_objects()
            .take(4);
        let names: Vec<String> = stream
            .map_ok(|namespace| namespace.metadata.name.unwrap())
            .try_collect()
            .await
            .unwrap();
        assert_eq!(
            names,
            ["default", "kube-node-lease", "kube-public", "kube-system"]
        );
    }
}

#[tokio::test]
async fn a_service_account_token_is_good_for_its_account() {
    let fixture = start().await.with_account().await;
    let token = fixture
        .server
        .issue_token(
            "default",
            "default",
            None,
            &[],
            std::time::Duration::from_secs(3600),
        )
        .unwrap();
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token},
    });
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let answer = fixture.post(path, &review).await.body;
    assert_eq!(
        answer["status"]["user"]["username"],
        "system:serviceaccount:default:default"
    );
    let client = fixture.server.client_for(UserInfo::admin("boss"), "test");
    let accounts: Api<ServiceAccount> = Api::namespaced(client, "default");
    accounts
        .delete("default", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    let answer = fixture.post(path, &review).await.body;
    assert_eq!(
        answer["status"]["authenticated"],
        serde_json::Value::Null,
        "{answer}"
    );
}
