//! Which groups, versions and resources there are, and their OpenAPI documents.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue, VARY};
use http::{HeaderMap, Response, StatusCode};
use schema::discovery::{self, Aggregated, GroupVersion};
use schema::openapi;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::endpoints::negotiate::Form;
use crate::endpoints::query::Query;
use crate::endpoints::respond;
use crate::registry::{Resource, Table};
use crate::server::State;

/// The documents of group-versions, as text and compressed, by path; the hash says for what.
#[derive(Debug, Default)]
pub(crate) struct Documents(Mutex<BTreeMap<String, Arc<Document>>>);

#[derive(Debug)]
struct Document {
    hash: String,
    text: Bytes,
    packed: Option<Bytes>,
}

/// Everything that is served, in discovery's order.
pub(crate) fn group_versions(table: &Table) -> Vec<GroupVersion> {
    let mut all = discovery::builtin();
    for gv in &mut all {
        gv.resources.retain(|r| {
            let plural = r.name.split('/').next().unwrap_or_default();
            table.find(&gv.group, &gv.version, plural).is_some()
        });
    }
    all.retain(|gv| !gv.resources.is_empty());
    let customs = table.all.iter().filter(|r| r.custom.is_some());
    for resource in customs {
        let kind = &resource.kind;
        let place = all
            .iter()
            .position(|gv| gv.group == kind.group && gv.version == kind.version);
        let place = place.unwrap_or_else(|| {
            all.push(GroupVersion {
                group: kind.group.to_string(),
                version: kind.version.to_string(),
                resources: Vec::new(),
            });
            all.len() - 1
        });
        all[place].resources.extend(entries(resource));
    }
    all
}

fn entries(resource: &Resource) -> Vec<discovery::Resource> {
    let kind = &resource.kind;
    let owned =
        |list: &[std::borrow::Cow<'static, str>]| list.iter().map(ToString::to_string).collect();
    let mut entries = vec![discovery::Resource {
        name: kind.plural.to_string(),
        singular: kind.singular.to_string(),
        namespaced: kind.namespaced,
        kind: kind.kind.to_string(),
        kind_group_version: None,
        verbs: owned(&kind.verbs),
        short_names: owned(&kind.short_names),
        categories: owned(&kind.categories),
    }];
    for sub in &kind.subresources {
        let group_version = sub.group_version.as_ref();
        entries.push(discovery::Resource {
            name: format!("{}/{}", kind.plural, sub.name),
            namespaced: kind.namespaced,
            kind: sub.kind.to_string(),
            kind_group_version: group_version.map(|(g, v)| (g.to_string(), v.to_string())),
            verbs: owned(&sub.verbs),
            ..discovery::Resource::default()
        });
    }
    entries
}

/// `/api`, `/apis` and what is right below them; `None` is a path nobody knows.
pub(crate) fn serve(
    state: &State,
    path: &str,
    headers: &HeaderMap,
    form: Form,
) -> Option<Response<Body>> {
    let table = state.resources.current();
    let all = group_versions(&table);
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let accept = headers
        .get(http::header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if let [root @ ("api" | "apis")] = parts.as_slice()
        && let Some(aggregated) = Aggregated::accepted(accept)
    {
        return Some(cached(
            &discovery::aggregated(&all, *root == "api", aggregated),
            aggregated.content_type(),
            headers,
        ));
    }
    let value = match parts.as_slice() {
        ["api"] => {
            let address = state.options.kubernetes_endpoint;
            let address = address
                .map(|(ip, port)| format!("{ip}:{port}"))
                .unwrap_or_default();
            discovery::api_versions(&address)
        }
        ["apis"] => discovery::group_list(&all),
        ["api", version] => {
            let gv = all
                .iter()
                .find(|gv| gv.group.is_empty() && gv.version == *version)?;
            discovery::resource_list(gv)
        }
        ["apis", group] => discovery::group(&all, group)?,
        ["apis", group, version] => {
            let gv = all
                .iter()
                .find(|gv| gv.group == *group && gv.version == *version)?;
            discovery::resource_list(gv)
        }
        _ => return None,
    };
    Some(respond::value(StatusCode::OK, form, &value))
}

/// A document that clients keep, with its ETag.
fn cached(value: &Value, media_type: &str, headers: &HeaderMap) -> Response<Body> {
    let text = Bytes::from(value.to_string());
    let tag: String = Sha256::digest(&text)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    let tag = format!("\"{tag}\"");
    let known = headers
        .get(http::header::IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok());
    let mut response = if known == Some(tag.as_str()) {
        respond::raw(StatusCode::NOT_MODIFIED, media_type, Bytes::new(), false)
    } else {
        respond::raw(StatusCode::OK, media_type, text, false)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}

/// `/openapi/v3` and the documents below it; `None` is one nobody knows.
pub(crate) fn openapi(
    state: &State,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Option<Response<Body>> {
    let table = state.resources.current();
    let all = group_versions(&table);
    let path = path.trim_start_matches("/openapi/v3").trim_matches('/');
    if path.is_empty() {
        let index = Bytes::from(openapi::index(&state.schemas, &all).to_string());
        // Upstream names no type for the index, and its library takes it for plain text.
        let media_type = "text/plain; charset=utf-8";
        let gzip = accepts_gzip(headers);
        return Some(respond::raw(StatusCode::OK, media_type, index, gzip));
    }
    let gv = all.iter().find(|gv| openapi::document_path(gv) == path)?;
    let hash = openapi::document_hash(&state.schemas, gv);
    let document = state.documents.get(path, hash, || {
        openapi::document(&state.schemas, gv).to_string().into()
    });
    let mut response = document.answer("application/json", headers);
    let caching = if query.get("hash") == Some(document.hash.as_str()) {
        "public, immutable, max-age=31536000"
    } else {
        "no-cache, private"
    };
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    Some(response)
}

/// `/openapi/v2`: everything in one document, as JSON or, where the client asks for it, protobuf.
pub(crate) fn openapi_v2(state: &State, headers: &HeaderMap) -> Response<Body> {
    let table = state.resources.current();
    let all = group_versions(&table);
    let hash = openapi::v2::hash(&state.schemas, &all);
    let accept = headers
        .get(http::header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let merged = || openapi::v2::merged(&state.schemas, &all);
    if accept.contains("proto-openapi.spec.v2") {
        let document = state.documents.get("v2 protobuf", hash, || {
            openapi::gnostic::encode(&merged()).into()
        });
        return document.answer(openapi::gnostic::MEDIA_TYPE, headers);
    }
    let document = state
        .documents
        .get("v2", hash, || merged().to_string().into());
    document.answer("application/json", headers)
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::ACCEPT_ENCODING)
        .is_some_and(|v| v.to_str().is_ok_and(|v| v.contains("gzip")))
}

impl Document {
    fn answer(&self, media_type: &'static str, headers: &HeaderMap) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        let tag = format!("\"{}\"", self.hash);
        let known = headers
            .get(http::header::IF_NONE_MATCH)
            .is_some_and(|v| v.as_bytes() == tag.as_bytes());
        let out = response.headers_mut();
        out.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        out.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            out.insert(ETAG, tag);
        }
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        match &self.packed {
            Some(packed) if accepts_gzip(headers) => {
                out.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                *response.body_mut() = Body::from(packed.clone());
            }
            _ => *response.body_mut() = Body::from(self.text.clone()),
        }
        response
    }
}

impl Documents {
    fn get(&self, path: &str, hash: String, make: impl FnOnce() -> Bytes) -> Arc<Document> {
        let mut documents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(document) = documents.get(path).filter(|d| d.hash == hash) {
            return Arc::clone(document);
        }
        let text = make();
        let packed = respond::compress(&text).map(Bytes::from);
        let document = Arc::new(Document { hash, text, packed });
        documents.insert(path.to_owned(), Arc::clone(&document));
        document
    }
}
