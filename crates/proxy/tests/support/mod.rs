//! An API server of a few lines: lists and watches what a test puts in, and keeps posted Events.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

type Answer = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Clone)]
pub(crate) struct Api {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<(String, Value)>,
    pub(crate) events: Arc<watch::Sender<Vec<Value>>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<(String, String), Value>,
    version: u64,
}

impl Api {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::default(),
            changes: broadcast::Sender::new(1000),
            events: Arc::new(watch::Sender::new(Vec::new())),
        }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Creates or replaces an object.
    pub(crate) fn put(&self, plural: &str, mut object: Value) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        object["metadata"]["namespace"] = json!("n");
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let old = state
            .objects
            .insert((plural.to_owned(), name), object.clone());
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        let _ = self
            .changes
            .send((plural.to_owned(), json!({"type": kind, "object": object})));
    }

    pub(crate) fn delete(&self, plural: &str, name: &str) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let object = state
            .objects
            .remove(&(plural.to_owned(), name.to_owned()))
            .unwrap();
        let _ = self.changes.send((
            plural.to_owned(),
            json!({"type": "DELETED", "object": object}),
        ));
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let plural = request.uri().path().rsplit('/').next().unwrap().to_owned();
        if request.method() == "POST" {
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            let event: Value = serde_json::from_slice(&bytes).unwrap();
            self.events.send_modify(|events| events.push(event.clone()));
            return respond(whole(&event));
        }
        // A watch begins before the state is read, so that nothing falls between.
        let changes = self.changes.subscribe();
        if request
            .uri()
            .query()
            .unwrap_or_default()
            .contains("watch=true")
        {
            let lines = futures::stream::unfold((changes, plural), |(mut changes, plural)| async {
                loop {
                    let (of, change) = changes.recv().await.ok()?;
                    if of == plural {
                        let line = Bytes::from(format!("{change}\n"));
                        return Some((Ok::<_, Infallible>(Frame::data(line)), (changes, plural)));
                    }
                }
            });
            return respond(StreamBody::new(lines.boxed()).boxed_unsync());
        }
        let state = self.state.lock().unwrap();
        let items: Vec<&Value> = state
            .objects
            .iter()
            .filter(|((of, _), _)| *of == plural)
            .map(|(_, o)| o)
            .collect();
        let version = state.version.to_string();
        let list = json!({"metadata": {"resourceVersion": version}, "items": items});
        respond(whole(&list))
    }
}

fn whole(value: &Value) -> Answer {
    Full::new(Bytes::from(value.to_string())).boxed_unsync()
}

fn respond(body: Answer) -> Response<Answer> {
    Response::builder()
        .header("content-type", "application/json")
        .body(body)
        .unwrap()
}
