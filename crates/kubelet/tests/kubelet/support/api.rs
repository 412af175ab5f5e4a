//! An API server in memory: enough of one for a kubelet. Objects are JSON trees; lists, watches,
//! merge and status patches, graceful deletion and token requests work as upstream's do.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Json, Response};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use stdx::SharedClock;
use tokio::sync::watch;
use tower::ServiceExt as _;

/// Resource, namespace, name.
type Key = (String, String, String);

#[derive(Default)]
struct Store {
    objects: BTreeMap<Key, Value>,
    /// Version, event type, key, object.
    events: Vec<(u64, &'static str, Key, Value)>,
    /// Status patches of Pods, in order.
    status_patches: Vec<Value>,
    next_uid: u64,
}

/// The fake. Clones share everything.
#[derive(Clone)]
pub(crate) struct FakeApi {
    store: Arc<Mutex<Store>>,
    changes: watch::Sender<u64>,
    clock: SharedClock,
}

#[derive(Debug)]
struct Target {
    resource: String,
    namespace: String,
    name: String,
    sub: String,
}

impl Target {
    fn parse(path: &str) -> Option<Self> {
        let mut parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        let skip = match *parts.first()? {
            "api" => 2,
            "apis" => 3,
            _ => return None,
        };
        parts.drain(..skip);
        let namespaced = parts.first() == Some(&"namespaces") && parts.len() > 2;
        let namespace = if namespaced {
            parts[1].to_owned()
        } else {
            String::new()
        };
        if namespaced {
            parts.drain(..2);
        }
        let mut next = parts.into_iter().map(str::to_owned);
        Some(Self {
            resource: next.next()?,
            namespace,
            name: next.next().unwrap_or_default(),
            sub: next.next().unwrap_or_default(),
        })
    }

    fn key(&self) -> Key {
        (
            self.resource.clone(),
            self.namespace.clone(),
            self.name.clone(),
        )
    }
}

fn failure(code: StatusCode, reason: &str, message: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code.as_u16()});
    (code, Json(body)).into_response()
}

impl FakeApi {
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self {
            store: Arc::default(),
            changes: watch::Sender::new(1),
            clock,
        }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let router = Router::new().fallback(handle).with_state(self.clone());
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            router.clone().oneshot(request.map(Body::new))
        });
        kube::Client::new(service, "default")
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    fn version(&self) -> u64 {
        *self.changes.borrow()
    }

    fn publish(&self, store: &mut Store, kind: &'static str, key: Key, mut object: Value) -> Value {
        let version = self.version() + 1;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        if kind == "DELETED" {
            store.objects.remove(&key);
        } else {
            store.objects.insert(key.clone(), object.clone());
        }
        store.events.push((version, kind, key, object.clone()));
        self.changes.send_replace(version);
        object
    }

    /// Puts an object there as it is, but for name, uid and version.
    pub(crate) fn put(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        mut object: Value,
    ) -> Value {
        let mut store = self.store();
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        object["metadata"]["name"] = json!(name);
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        let kind = if let Some(old) = store.objects.get(&key) {
            object["metadata"]["uid"] = old["metadata"]["uid"].clone();
            "MODIFIED"
        } else {
            store.next_uid += 1;
            object["metadata"]["uid"] = json!(format!("uid-{}", store.next_uid));
            "ADDED"
        };
        self.publish(&mut store, kind, key, object)
    }

    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.store().objects.get(&key).cloned()
    }

    pub(crate) fn list(&self, resource: &str) -> Vec<Value> {
        let store = self.store();
        store
            .objects
            .iter()
            .filter(|((r, _, _), _)| r == resource)
            .map(|(_, o)| o.clone())
            .collect()
    }

    pub(crate) fn status_patches(&self) -> Vec<Value> {
        self.store().status_patches.clone()
    }

    /// Asks for a Pod's deletion as a user does; grace 0 removes it at once.
    pub(crate) fn delete_pod(&self, namespace: &str, name: &str, grace: i64) {
        let mut store = self.store();
        let key = ("pods".to_owned(), namespace.to_owned(), name.to_owned());
        let Some(mut object) = store.objects.get(&key).cloned() else {
            return;
        };
        if grace == 0 {
            self.publish(&mut store, "DELETED", key, object);
            return;
        }
        let at = self.clock.now() + jiff::SignedDuration::from_secs(grace);
        object["metadata"]["deletionTimestamp"] = json!(at.to_string());
        object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.publish(&mut store, "MODIFIED", key, object);
    }

    /// Completes once `condition` holds; it is looked at after every write.
    pub(crate) async fn until<T>(&self, condition: impl Fn(&Self) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            if let Some(found) = condition(self) {
                return found;
            }
            changes.changed().await.unwrap();
        }
    }

    /// The Pod, once `condition` holds for it.
    pub(crate) async fn pod(&self, name: &str, condition: impl Fn(&Value) -> bool) -> Value {
        self.until(|api| api.get("pods", "default", name).filter(|p| condition(p)))
            .await
    }

    /// The message of an Event with that reason, once there is one.
    pub(crate) async fn event(&self, reason: &str) -> String {
        let find = |api: &Self| {
            let events = api.list("events");
            let found = events.iter().find(|e| e["reason"] == reason)?;
            Some(found["message"].as_str().unwrap().to_owned())
        };
        self.until(find).await
    }
}

async fn handle(State(api): State<FakeApi>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let query: BTreeMap<String, String> =
        serde_urlencoded::from_str(parts.uri.query().unwrap_or_default()).unwrap();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let Some(target) = Target::parse(parts.uri.path()) else {
        return failure(StatusCode::NOT_FOUND, "NotFound", "no such path");
    };
    match parts.method {
        Method::GET if query.get("watch").is_some_and(|w| w == "true" || w == "1") => {
            api.watch(target, &query)
        }
        Method::GET if target.name.is_empty() => api.answer_list(&target, &query),
        Method::GET => match api.store().objects.get(&target.key()) {
            Some(object) => Json(object.clone()).into_response(),
            None => failure(StatusCode::NOT_FOUND, "NotFound", "not found"),
        },
        Method::POST if target.sub == "token" => {
            let seconds = body["spec"]["expirationSeconds"].as_i64().unwrap();
            let expires = api.clock.now() + jiff::SignedDuration::from_secs(seconds);
            let token = format!(
                "token of {} for {}",
                target.name, body["spec"]["boundObjectRef"]["name"]
            );
            let status = json!({"token": token, "expirationTimestamp": expires.to_string()});
            let answer = json!({"metadata": {}, "spec": body["spec"], "status": status});
            (StatusCode::CREATED, Json(answer)).into_response()
        }
        Method::POST => {
            let name = body["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            if api
                .get(&target.resource, &target.namespace, &name)
                .is_some()
            {
                return failure(StatusCode::CONFLICT, "AlreadyExists", "already exists");
            }
            let made = api.put(&target.resource, &target.namespace, &name, body);
            (StatusCode::CREATED, Json(made)).into_response()
        }
        Method::PATCH => api.patch(&target, &body),
        Method::DELETE => {
            let mut store = api.store();
            let Some(object) = store.objects.get(&target.key()).cloned() else {
                return failure(StatusCode::NOT_FOUND, "NotFound", "not found");
            };
            let uid = &body["preconditions"]["uid"];
            if !uid.is_null() && *uid != object["metadata"]["uid"] {
                return failure(StatusCode::CONFLICT, "Conflict", "uid");
            }
            Json(api.publish(&mut store, "DELETED", target.key(), object)).into_response()
        }
        _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "method"),
    }
}

fn selected(target: &Target, key: &Key, object: &Value, query: &BTreeMap<String, String>) -> bool {
    let field = query.get("fieldSelector").and_then(|s| s.split_once('='));
    let fits = match field {
        Some(("spec.nodeName", node)) => object["spec"]["nodeName"] == node,
        Some(("metadata.name", name)) => object["metadata"]["name"] == name,
        _ => true,
    };
    fits && key.0 == target.resource && (target.namespace.is_empty() || key.1 == target.namespace)
}

impl FakeApi {
    fn answer_list(&self, target: &Target, query: &BTreeMap<String, String>) -> Response {
        let store = self.store();
        let items: Vec<&Value> = store
            .objects
            .iter()
            .filter(|(key, object)| selected(target, key, object, query))
            .map(|(_, object)| object)
            .collect();
        let version = self.version().to_string();
        Json(json!({"metadata": {"resourceVersion": version}, "items": items})).into_response()
    }

    fn watch(&self, target: Target, query: &BTreeMap<String, String>) -> Response {
        let since: u64 = query
            .get("resourceVersion")
            .and_then(|v| v.parse().ok())
            .unwrap_or(0);
        let start = (
            self.clone(),
            since,
            self.changes.subscribe(),
            target,
            query.clone(),
        );
        let lines =
            futures::stream::unfold(start, async |(api, since, mut changes, target, query)| {
                loop {
                    let (lines, seen) = {
                        let store = api.store();
                        let fresh = store.events.iter().filter(|(version, ..)| *version > since);
                        let mut lines = String::new();
                        let mut seen = since;
                        for (version, kind, key, object) in fresh {
                            seen = *version;
                            if selected(&target, key, object, &query) {
                                lines
                                    .push_str(&json!({"type": kind, "object": object}).to_string());
                                lines.push('\n');
                            }
                        }
                        (lines, seen)
                    };
                    if !lines.is_empty() {
                        return Some((
                            Ok::<_, Infallible>(lines),
                            (api, seen, changes, target, query),
                        ));
                    }
                    changes.changed().await.ok()?;
                }
            });
        Body::from_stream(lines).into_response()
    }

    fn patch(&self, target: &Target, body: &Value) -> Response {
        let mut store = self.store();
        let Some(mut object) = store.objects.get(&target.key()).cloned() else {
            return failure(StatusCode::NOT_FOUND, "NotFound", "not found");
        };
        let uid = &body["metadata"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return failure(StatusCode::CONFLICT, "Conflict", "uid");
        }
        if target.resource == "pods" && target.sub == "status" {
            store.status_patches.push(body["status"].clone());
        }
        merge(&mut object, body);
        Json(self.publish(&mut store, "MODIFIED", target.key(), object)).into_response()
    }
}

/// A merge in which `conditions` are merged by their type.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (field, value) in patch {
        match value {
            Value::Null => {
                into.as_object_mut().unwrap().remove(field);
            }
            Value::Array(items) if field == "conditions" => {
                let mut list = into[field].as_array().cloned().unwrap_or_default();
                for item in items {
                    if let Some(old) = list.iter_mut().find(|c| c["type"] == item["type"]) {
                        merge(old, item);
                    } else {
                        let mut fresh = json!({});
                        merge(&mut fresh, item);
                        list.push(fresh);
                    }
                }
                into[field] = Value::Array(list);
            }
            _ => merge(&mut into[field], value),
        }
    }
}
