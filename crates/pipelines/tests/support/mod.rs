//! A cluster that keeps Pods and does nothing with them: tests play the kubelet.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

/// The label that says which run a Pod belongs to.
const RUN_LABEL: &str = "pipeline/runid";

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

#[derive(Default)]
struct State {
    version: u64,
    pods: BTreeMap<String, Value>,
    watches: Vec<mpsc::UnboundedSender<Bytes>>,
    created: Vec<String>,
    deleted: Vec<String>,
    refuse: Option<String>,
}

/// The cluster. Clones share it.
#[derive(Clone)]
pub(crate) struct Cluster {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::default(),
            changed: watch::Sender::new(()),
        }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let cluster = cluster.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.expect("a request's body");
                Ok::<_, Infallible>(cluster.answer(&parts.method, &parts.uri, &body))
            }
        });
        kube::Client::new(service, "kubeflow")
    }

    fn answer(&self, method: &Method, uri: &http::Uri, body: &[u8]) -> Response<Body> {
        let mut state = self.state.lock().expect("the state");
        let query = uri.query().unwrap_or_default();
        let path: Vec<_> = uri.path().trim_matches('/').split('/').collect();
        assert_eq!(path[..4], ["api", "v1", "namespaces", "kubeflow"], "{uri}");
        let answer = match (method, path.get(5)) {
            (&Method::GET, Some(_)) if path[4] == "configmaps" => {
                Err((404, "NotFound", "there are no settings".to_owned()))
            }
            _ if path[4] != "pods" => panic!("unexpected request {method} {uri}"),
            (&Method::GET, Some(name)) if path.get(6) == Some(&"log") => {
                let log = Bytes::from(format!("the words of {name}\n"));
                return Response::new(http_body_util::Full::new(log).boxed_unsync());
            }
            (&Method::GET, None) if query.contains("watch=true") => {
                let (sender, receiver) = mpsc::unbounded_channel();
                state.watches.push(sender);
                let lines = futures::stream::unfold(receiver, async |mut lines| {
                    let line = lines.recv().await?;
                    Some((Ok::<_, Infallible>(http_body::Frame::data(line)), lines))
                });
                return Response::new(BodyExt::boxed_unsync(StreamBody::new(lines)));
            }
            (&Method::GET, None) => {
                let items: Vec<_> = state.pods.values().cloned().collect();
                let metadata = json!({"resourceVersion": state.version.to_string()});
                Ok(
                    json!({"apiVersion": "v1", "kind": "PodList", "metadata": metadata, "items": items}),
                )
            }
            (&Method::GET, Some(name)) => match state.pods.get(*name) {
                Some(pod) => Ok(pod.clone()),
                None => Err((404, "NotFound", format!("pods {name:?} not found"))),
            },
            (&Method::POST, None) => state.create(serde_json::from_slice(body).expect("a Pod")),
            (&Method::DELETE, None) => {
                let names = state.selected(query);
                for name in &names {
                    drop(state.delete(name));
                }
                Ok(json!({"apiVersion": "v1", "kind": "Status", "status": "Success"}))
            }
            (&Method::DELETE, Some(name)) => state.delete(name),
            other => panic!("unexpected request {other:?}"),
        };
        drop(state);
        self.changed.send_replace(());
        let (code, body) = match answer {
            Ok(body) => (200, body),
            Err((code, reason, message)) => {
                let status = json!({
                    "apiVersion": "v1", "kind": "Status", "status": "Failure",
                    "code": code, "reason": reason, "message": message,
                });
                (code, status)
            }
        };
        let body = http_body_util::Full::new(Bytes::from(body.to_string())).boxed_unsync();
        Response::builder()
            .status(code)
            .body(body)
            .expect("a response")
    }

    /// Waits until a run has a Pod and answers it.
    pub(crate) async fn pod_of(&self, run: &str) -> Value {
        self.wait(&format!("a Pod of run {run}"), |state| {
            let pods = &mut state.pods.values();
            pods.find(|pod| pod["metadata"]["labels"][RUN_LABEL] == run)
                .cloned()
        })
        .await
    }

    /// Waits until the Pod of this task is there and answers it.
    pub(crate) async fn pod(&self, task: &str) -> Value {
        self.wait(&format!("a Pod of {task}"), |state| {
            state
                .pods
                .values()
                .find(|pod| pod["metadata"]["annotations"]["coracle/task"] == task)
                .cloned()
        })
        .await
    }

    /// Waits until a Pod was deleted by somebody and answers its name.
    pub(crate) async fn deletion(&self) -> String {
        self.wait("a deletion", |state| state.deleted.first().cloned())
            .await
    }

    /// Waits until this many Pods were made.
    pub(crate) async fn pods_made(&self, count: usize) {
        self.wait(&format!("Pod number {count}"), |state| {
            (state.created.len() >= count).then_some(())
        })
        .await;
    }

    async fn wait<T>(&self, what: &str, found: impl Fn(&State) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                if let Some(value) = found(&self.state.lock().expect("the state")) {
                    return value;
                }
                changed.changed().await.expect("the cluster");
            }
        };
        let limit = std::time::Duration::from_secs(20);
        tokio::time::timeout(limit, wait)
            .await
            .unwrap_or_else(|_| panic!("{what} does not come"))
    }

    pub(crate) fn created(&self) -> Vec<String> {
        self.state.lock().expect("the state").created.clone()
    }

    /// Refuse every Pod from now on, as admission would.
    pub(crate) fn refuse(&self, message: &str) {
        self.state.lock().expect("the state").refuse = Some(message.to_owned());
    }

    /// What the kubelet reports of a Pod.
    pub(crate) fn set_status(&self, pod: &Value, status: &Value) {
        let mut state = self.state.lock().expect("the state");
        let name = pod["metadata"]["name"].as_str().expect("a name");
        let mut pod = state.pods.get(name).expect("the Pod is there").clone();
        pod["status"] = status.clone();
        state.store("MODIFIED", pod);
    }

    pub(crate) fn succeed(&self, pod: &Value) {
        self.end(pod, "Succeeded", 0, "");
    }

    pub(crate) fn end(&self, pod: &Value, phase: &str, exit_code: i32, message: &str) {
        let terminated = json!({
            "exitCode": exit_code,
            "reason": if exit_code == 0 { "Completed" } else { "Error" },
            "message": message,
        });
        let container = json!({
            "name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": terminated},
        });
        self.set_status(
            pod,
            &json!({"phase": phase, "containerStatuses": [container]}),
        );
    }

    /// Somebody else deletes a Pod.
    pub(crate) fn remove(&self, pod: &Value) {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        self.state
            .lock()
            .expect("the state")
            .delete(name)
            .expect("the Pod is there");
    }
}

type Refusal = (u16, &'static str, String);

impl State {
    /// The Pods of the run that a label selector names; all without one.
    fn selected(&self, query: &str) -> Vec<String> {
        let wanted = query.split('&').find_map(|pair| {
            let selector = pair.strip_prefix("labelSelector=")?;
            selector
                .strip_prefix(&RUN_LABEL.replace('/', "%2F"))?
                .strip_prefix("%3D")
        });
        let of_run = |pod: &Value| match wanted {
            Some(run) => pod["metadata"]["labels"][RUN_LABEL] == run,
            None => true,
        };
        let selected = self.pods.iter().filter(|(_, pod)| of_run(pod));
        selected.map(|(name, _)| name.clone()).collect()
    }

    fn create(&mut self, mut pod: Value) -> Result<Value, Refusal> {
        if let Some(message) = &self.refuse {
            return Err((403, "Forbidden", message.clone()));
        }
        let name = pod["metadata"]["name"].as_str().expect("a name").to_owned();
        if self.pods.contains_key(&name) {
            return Err((
                409,
                "AlreadyExists",
                format!("pods {name:?} already exists"),
            ));
        }
        pod["status"] = json!({"phase": "Pending"});
        self.created.push(name);
        Ok(self.store("ADDED", pod))
    }

    fn delete(&mut self, name: &str) -> Result<Value, Refusal> {
        let Some(pod) = self.pods.remove(name) else {
            return Err((404, "NotFound", format!("pods {name:?} not found")));
        };
        self.deleted.push(name.to_owned());
        self.tell("DELETED", &pod);
        Ok(pod)
    }

    fn store(&mut self, change: &str, mut pod: Value) -> Value {
        self.version += 1;
        pod["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let name = pod["metadata"]["name"].as_str().expect("a name").to_owned();
        self.pods.insert(name, pod.clone());
        self.tell(change, &pod);
        pod
    }

    fn tell(&mut self, change: &str, pod: &Value) {
        let line = Bytes::from(format!("{}\n", json!({"type": change, "object": pod})));
        self.watches
            .retain(|watch| watch.send(line.clone()).is_ok());
    }
}
