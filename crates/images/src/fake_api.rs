//! For tests: an API server of a few lines behind a `kube::Client`. It keeps objects, answers lists
//! and watches, refuses stale writes, and remembers which requests were made.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// Plural, namespace, name.
type Key = (String, String, String);

#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<watch::Sender<State>>,
    changes: broadcast::Sender<(String, Value)>,
    /// Requests still to be refused: method, and what the path ends in.
    failures: Arc<Mutex<Vec<(Method, &'static str)>>>,
}

#[derive(Default)]
pub(crate) struct State {
    objects: BTreeMap<Key, Value>,
    version: u64,
    /// `METHOD plural[/subresource]` of every request but watches.
    pub(crate) requests: Vec<String>,
}

impl State {
    pub(crate) fn get(&self, plural: &str, name: &str) -> Option<&Value> {
        self.objects
            .iter()
            .find(|((of, _, named), _)| of == plural && named == name)
            .map(|(_, object)| object)
    }

    pub(crate) fn all(&self, plural: &str) -> Vec<&Value> {
        let of_kind = self.objects.iter().filter(|((of, _, _), _)| of == plural);
        of_kind.map(|(_, object)| object).collect()
    }
}

impl FakeApi {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::new(watch::Sender::new(State::default())),
            changes: broadcast::Sender::new(1000),
            failures: Arc::default(),
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

    /// Refuses the next such request with status 500.
    pub(crate) fn fail_once(&self, method: Method, path_end: &'static str) {
        self.failures.lock().unwrap().push((method, path_end));
    }

    /// Creates or replaces an object, as somebody else would.
    pub(crate) fn put(&self, plural: &str, object: Value) {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("n");
        let key = (
            plural.to_owned(),
            namespace.to_owned(),
            object["metadata"]["name"].as_str().unwrap().to_owned(),
        );
        self.store(key, object);
    }

    pub(crate) fn delete(&self, plural: &str, name: &str) {
        let mut gone = None;
        self.state.send_modify(|state| {
            state.version += 1;
            let key = state.objects.keys().find(|k| k.0 == plural && k.2 == name);
            let key = key.unwrap().clone();
            gone = state.objects.remove(&key);
        });
        let change = json!({"type": "DELETED", "object": gone});
        drop(self.changes.send((plural.to_owned(), change)));
    }

    /// Waits until the state is as wanted; a test that waits in vain fails with what there is.
    pub(crate) async fn until(&self, what: &str, wanted: impl FnMut(&State) -> bool) {
        let mut state = self.state.subscribe();
        let patience = std::time::Duration::from_secs(20);
        let met = tokio::time::timeout(patience, state.wait_for(wanted))
            .await
            .is_ok();
        let state = self.state.borrow();
        assert!(met, "{what}: {:#?}", state.objects);
    }

    pub(crate) fn state(&self) -> watch::Ref<'_, State> {
        self.state.borrow()
    }

    fn store(&self, key: Key, mut object: Value) -> Value {
        let mut kind = "ADDED";
        self.state.send_modify(|state| {
            state.version += 1;
            let metadata = &mut object["metadata"];
            metadata["resourceVersion"] = json!(state.version.to_string());
            metadata["namespace"] = json!(key.1);
            metadata["uid"] = json!(format!("uid-{}", key.2));
            if state.objects.insert(key.clone(), object.clone()).is_some() {
                kind = "MODIFIED";
            }
            let change = json!({"type": kind, "object": object});
            drop(self.changes.send((key.0.clone(), change)));
        });
        object
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let query = parts.uri.query().unwrap_or_default();
        let path: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
        // api/v1/… or apis/GROUP/VERSION/…
        let rest = if path[0] == "api" {
            &path[2..]
        } else {
            &path[3..]
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, name) = (rest[0], rest.get(1).copied().unwrap_or_default());
        let subresource = rest.get(2).map(|sub| format!("/{sub}")).unwrap_or_default();
        if query.contains("watch=true") {
            return self.watch(plural, query);
        }
        self.state.send_modify(|state| {
            let line = format!("{} {plural}{subresource}", parts.method);
            state.requests.push(line);
        });
        let failing = {
            let mut failures = self.failures.lock().unwrap();
            let hit = failures.iter().position(|(method, end)| {
                *method == parts.method && parts.uri.path().ends_with(end)
            });
            hit.map(|at| failures.remove(at))
        };
        if failing.is_some() {
            return refused(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        }
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let before = self.state.borrow().objects.get(&key).cloned();
        match (&parts.method, before) {
            (&Method::GET, _) if name.is_empty() => {
                let state = self.state.borrow();
                let items = state.all(plural);
                let items: Vec<&&Value> = items.iter().filter(|o| selected(query, o)).collect();
                let version = state.version.to_string();
                let list = json!({"metadata": {"resourceVersion": version}, "items": items});
                respond(StatusCode::OK, whole(&list))
            }
            (&Method::POST, _) => {
                let name = body["metadata"]["name"].as_str().unwrap().to_owned();
                let key = (key.0, key.1, name);
                if self.state.borrow().objects.contains_key(&key) {
                    return refused(StatusCode::CONFLICT, "AlreadyExists");
                }
                respond(StatusCode::CREATED, whole(&self.store(key, body)))
            }
            (_, None) => refused(StatusCode::NOT_FOUND, "NotFound"),
            (&Method::GET, Some(before)) => respond(StatusCode::OK, whole(&before)),
            (&Method::PUT, Some(mut before)) => {
                let version = &body["metadata"]["resourceVersion"];
                if *version != before["metadata"]["resourceVersion"] {
                    return refused(StatusCode::CONFLICT, "Conflict");
                }
                assert_eq!(subresource, "/status", "only the status is ever replaced");
                before["status"] = body["status"].clone();
                respond(StatusCode::OK, whole(&self.store(key, before)))
            }
            (&Method::PATCH, Some(mut before)) => {
                merge(&mut before, &body);
                respond(StatusCode::OK, whole(&self.store(key, before)))
            }
            (method, Some(_)) => panic!("unexpected {method}"),
        }
    }

    fn watch(&self, plural: &str, query: &str) -> Response<Answer> {
        // Whoever watches has listed; what came in between is sent first.
        let since = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion=")?.parse::<u64>().ok())
            .unwrap_or_default();
        let changes = self.changes.subscribe();
        let state = self.state.borrow();
        let missed: Vec<Bytes> = state
            .all(plural)
            .into_iter()
            .filter(|object| selected(query, object) && version(object) > since)
            .map(|object| {
                Bytes::from(format!(
                    "{}\n",
                    json!({"type": "MODIFIED", "object": object})
                ))
            })
            .collect();
        let (upto, plural, query) = (state.version, plural.to_owned(), query.to_owned());
        let next = (changes, plural, query);
        let live = futures::stream::unfold(next, move |(mut changes, plural, query)| async move {
            loop {
                let (of, change) = changes.recv().await.ok()?;
                let object = &change["object"];
                let fresh = change["type"] == "DELETED" || version(object) > upto;
                if of == plural && fresh && selected(&query, object) {
                    return Some((Bytes::from(format!("{change}\n")), (changes, plural, query)));
                }
            }
        });
        let lines = futures::stream::iter(missed).chain(live);
        let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(line)));
        respond(
            StatusCode::OK,
            StreamBody::new(frames.boxed()).boxed_unsync(),
        )
    }
}

fn version(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str();
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Whether the request's field selector, which names one object, lets this one through.
fn selected(query: &str, object: &Value) -> bool {
    let selector = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("fieldSelector=metadata.name%3D"))
        .or_else(|| query.split("fieldSelector=metadata.name=").nth(1));
    selector
        .is_none_or(|name| object["metadata"]["name"] == name.split('&').next().unwrap_or_default())
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (name, value) in patch {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

fn refused(code: StatusCode, reason: &str) -> Response<Answer> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": reason, "code": code.as_u16(), "message": reason});
    respond(code, whole(&status))
}

fn whole(value: &Value) -> Answer {
    Full::new(Bytes::from(value.to_string())).boxed_unsync()
}

fn respond(code: StatusCode, body: Answer) -> Response<Answer> {
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(body)
        .unwrap()
}
