//! Watches over HTTP: one line of JSON per event.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::list::Selection;
use super::negotiate::{Encoding, View};
use super::query::{ListOptions, Query};
use super::{Call, Place, respond, table};
use crate::registry::Resource;
use crate::server::State;
use crate::status::{Result, Status};
use crate::storage::Object;
use crate::storage::object::write_json;
use crate::watch::{Begin, Filter as _, Notice, Watcher};

/// Watches without a timeout of their own end after half an hour to an hour.
const SHORTEST: u64 = 30 * 60;

pub(super) fn serve(call: &Call, place: &Place) -> Result<Response<Body>> {
    let form = call.form(true)?;
    if form.encoding == Encoding::Yaml {
        return Err(Status::not_acceptable(&[
            "application/json",
            "application/json;stream=watch",
        ]));
    }
    let mut options = ListOptions::parse(&call.query, true)?;
    if place.path.watch_prefix && !place.path.name.is_empty() {
        options.field_selector = format!("metadata.name={}", place.path.name);
    }
    let selection = Arc::new(Selection::parse(
        &options,
        place.resource.kind.strategy.fields,
    )?);
    let state = &call.state;
    let cache = state.store.cache(&place.resource.key);
    let wanted = options.version()?;
    let initial = options.send_initial_events;
    // Without a version, or from 0, a watch begins with what there is.
    let with_state = initial.unwrap_or_else(|| wanted.is_none_or(|rv| rv == 0));
    let (objects, position) = if with_state {
        let snapshot = cache.snapshot(&place.namespace, state.store.position());
        let mut objects = snapshot.objects;
        objects.retain(|object| selection.matches(object));
        (objects, snapshot.rv)
    } else {
        let position = wanted
            .filter(|&rv| rv != 0)
            .unwrap_or_else(|| state.store.rv());
        (Vec::new(), position)
    };
    let seconds = options
        .timeout_seconds
        .and_then(|s| u64::try_from(s).ok())
        .filter(|&s| s > 0);
    let timeout = seconds.unwrap_or_else(|| SHORTEST + state.rng().below(SHORTEST));
    let begin = Begin {
        initial: objects,
        mark_initial_end: initial == Some(true) && options.bookmarks,
        position,
        bookmarks: options.bookmarks,
        timeout: Duration::from_secs(timeout),
    };
    let watcher = Watcher::new(
        Arc::clone(&state.store),
        cache,
        place.namespace.clone(),
        selection,
        Arc::clone(state.clock()),
        state.supervisor.token().clone(),
        begin,
    );
    let mut encoder = Encoder {
        state: Arc::clone(state),
        resource: Arc::clone(&place.resource),
        view: form.view,
        query: call.query.clone(),
        headers_sent: false,
    };
    let guard = state.metrics.watch();
    let lines = watcher.stream().map(move |batch| {
        let _counted = &guard;
        Ok::<Bytes, std::convert::Infallible>(encoder.lines(&batch))
    });
    let mut response = Response::new(Body::from_stream(lines));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    respond::warn(&mut response, &place.resource.read_warnings());
    Ok(response)
}

/// Writes notices as the client wants to see them.
struct Encoder {
    state: Arc<State>,
    resource: Arc<Resource>,
    view: View,
    query: Query,
    /// Only the first table of a watch names its columns.
    headers_sent: bool,
}

impl Encoder {
    fn lines(&mut self, batch: &[Notice]) -> Bytes {
        let mut out = BytesMut::with_capacity(1024 * batch.len());
        for notice in batch {
            match notice {
                Notice::Added(object) => self.event(&mut out, "ADDED", object),
                Notice::Modified(object) => self.event(&mut out, "MODIFIED", object),
                Notice::Deleted(object) => self.event(&mut out, "DELETED", object),
                Notice::Bookmark {
                    rv,
                    initial_events_end,
                } => {
                    self.bookmark(&mut out, *rv, *initial_events_end);
                }
                Notice::TooOld { position, oldest } => {
                    let status =
                        Status::expired(format!("too old resource version: {position} ({oldest})"));
                    line(&mut out, "ERROR", |out| write_json(out, &status.to_value()));
                }
            }
        }
        out.freeze()
    }

    fn event(&mut self, out: &mut BytesMut, kind: &str, object: &Object) {
        match self.view {
            View::Object => line(out, kind, |out| out.put_slice(&self.resource.bytes(object))),
            View::PartialMetadata => {
                let partial = respond::partial(object.value());
                line(out, kind, |out| write_json(out, &partial));
            }
            View::Table => {
                let shown = self.resource.shown(object);
                let table = self.table(std::iter::once(&*shown), object.rv);
                line(out, kind, |out| write_json(out, &table));
            }
        }
    }

    fn bookmark(&mut self, out: &mut BytesMut, rv: u64, initial_events_end: bool) {
        let mut metadata = json!({"resourceVersion": rv.to_string(), "creationTimestamp": null});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.view {
            View::Object => json!({
                "kind": self.resource.kind.kind,
                "apiVersion": self.resource.api_version,
                "metadata": metadata,
            }),
            View::PartialMetadata => json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
            }),
            View::Table => self.table(std::iter::empty(), rv),
        };
        line(out, "BOOKMARK", |out| write_json(out, &object));
    }

    fn table<'a>(&mut self, objects: impl Iterator<Item = &'a Value>, rv: u64) -> Value {
        let table = table::table(&self.state, &self.resource, objects, &self.query);
        let Ok(mut table) = table else {
            return Value::Null;
        };
        if std::mem::replace(&mut self.headers_sent, true) {
            table["columnDefinitions"] = Value::Null;
        }
        table::finish(table, &json!({"resourceVersion": rv.to_string()}))
    }
}

fn line(out: &mut BytesMut, kind: &str, object: impl FnOnce(&mut BytesMut)) {
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    object(out);
    out.put_slice(b"}\n");
}
