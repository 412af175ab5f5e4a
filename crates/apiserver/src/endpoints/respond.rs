//! Putting answers together: objects, lists, tables, errors, in the form that was asked for.

use std::io::Write as _;

use axum::body::Body;
use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY, WARNING};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::negotiate::{Encoding, Form, View, negotiate};
use super::query::Query;
use super::table;
use crate::registry::Resource;
use crate::server::State;
use crate::status::{Result, Status};
use crate::storage::Object;

/// Answers smaller than this are not worth compressing.
const GZIP_FROM: usize = 128 * 1024;

/// One object.
pub(crate) fn object(
    state: &State,
    resource: &Resource,
    object: &Object,
    form: Form,
    query: &Query,
) -> Result<Response<Body>> {
    written(state, resource, object, form, query, StatusCode::OK)
}

/// One object that was created or changed.
pub(crate) fn written(
    state: &State,
    resource: &Resource,
    object: &Object,
    form: Form,
    query: &Query,
    code: StatusCode,
) -> Result<Response<Body>> {
    match form.view {
        View::Object => Ok(text(code, form, resource.bytes(object))),
        View::PartialMetadata => Ok(value(code, form, &partial(object.value()))),
        View::Table => {
            let shown = resource.shown(object);
            let table = table::table(state, resource, std::iter::once(&*shown), query)?;
            let rv = object.rv.to_string();
            Ok(value(
                code,
                form,
                &table::finish(table, &json!({"resourceVersion": rv})),
            ))
        }
    }
}

/// The object without anything but its metadata.
pub(crate) fn partial(value: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": value.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

/// A tree in the chosen encoding.
pub(crate) fn value(code: StatusCode, form: Form, value: &Value) -> Response<Body> {
    let mut out = BytesMut::with_capacity(1024);
    crate::storage::object::write_json(&mut out, value);
    out.put_u8(b'\n');
    text(code, form, out.freeze())
}

/// JSON text in the chosen encoding.
pub(crate) fn text(code: StatusCode, form: Form, json: Bytes) -> Response<Body> {
    let body = match form.encoding {
        Encoding::Json => json,
        Encoding::PrettyJson => match serde_json::from_slice::<Value>(&json) {
            Ok(value) => format!("{value:#}\n").into(),
            Err(_) => json,
        },
        Encoding::Yaml => match serde_json::from_slice::<Value>(&json) {
            Ok(value) => serde_saphyr::to_string(&value).map_or(json, Bytes::from),
            Err(_) => json,
        },
    };
    raw(code, form.encoding.media_type(), body, form.gzip)
}

/// A body of any type.
pub(crate) fn raw(code: StatusCode, media_type: &str, body: Bytes, gzip: bool) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    if let Ok(media_type) = HeaderValue::from_str(media_type) {
        headers.insert(CONTENT_TYPE, media_type);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    let packed = (gzip && body.len() >= GZIP_FROM)
        .then(|| compress(&body))
        .flatten();
    if let Some(packed) = packed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        *response.body_mut() = Body::from(packed);
    } else {
        *response.body_mut() = Body::from(body);
    }
    response
}

pub(crate) fn compress(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

/// A failure, in JSON or YAML as the client likes.
pub(crate) fn failure(status: &Status, headers: &HeaderMap, query: &Query) -> Response<Body> {
    let form = negotiate(headers, query, false).unwrap_or(Form {
        encoding: Encoding::Json,
        view: View::Object,
        gzip: false,
    });
    let mut response = value(status.code(), form, &status.to_value());
    if status.code() == StatusCode::GATEWAY_TIMEOUT {
        response
            .headers_mut()
            .insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// What upstream says about paths that no API knows.
pub(crate) fn page_not_found() -> Response<Body> {
    let body = Bytes::from_static(b"404 page not found\n");
    raw(
        StatusCode::NOT_FOUND,
        "text/plain; charset=utf-8",
        body,
        false,
    )
}

/// Adds warnings, which kubectl prints.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    let mut seen: Vec<&String> = Vec::new();
    for warning in warnings {
        if seen.contains(&warning) {
            continue;
        }
        seen.push(warning);
        let escaped: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| {
                let escape = matches!(c, '"' | '\\').then_some('\\');
                escape.into_iter().chain(std::iter::once(c))
            })
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{escaped}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
