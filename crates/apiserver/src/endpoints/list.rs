//! Lists: from the cache, or from its past for a continued or exact one.

use std::sync::Arc;

use axum::body::Body;
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use bytes::{BufMut as _, BytesMut};
use http::{Response, StatusCode};
use kinds::selector::{FieldSelector, Fields, LabelSelector};
use serde_json::{Map, Value, json};

use super::negotiate::View;
use super::query::ListOptions;
use super::{Call, Place, respond, table};
use crate::status::{Result, Status};
use crate::storage::Object;
use crate::watch::Filter;

/// Labels and fields that objects are chosen by.
#[derive(Debug)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    known: &'static Fields,
}

impl Selection {
    pub(crate) fn parse(options: &ListOptions, known: &'static Fields) -> Result<Self> {
        let labels = LabelSelector::parse(&options.label_selector)
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let fields = FieldSelector::parse(&options.field_selector, known)
            .map_err(|error| Status::bad_request(error.to_string()))?;
        Ok(Self {
            labels,
            fields,
            known,
        })
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The one name that can match, if the fields say so.
    pub(crate) fn exact_name(&self) -> Option<&str> {
        self.fields.exact_name()
    }
}

impl Filter for Selection {
    fn matches(&self, object: &Object) -> bool {
        if self.is_everything() {
            return true;
        }
        let value = object.glimpse();
        self.labels.matches_object(&value) && self.fields.matches(&value, self.known)
    }
}

/// A page of objects.
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) rv: u64,
    continue_token: Option<String>,
    remaining: Option<usize>,
}

pub(super) fn serve(call: &Call, place: &Place) -> Result<Response<Body>> {
    let form = call.form(true)?;
    let options = ListOptions::parse(&call.query, false)?;
    let page = page(call, place, &options)?;
    let resource = &place.resource;
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".to_owned(), page.rv.to_string().into());
    if let Some(token) = &page.continue_token {
        metadata.insert("continue".to_owned(), token.as_str().into());
    }
    if let Some(remaining) = page.remaining {
        metadata.insert("remainingItemCount".to_owned(), remaining.into());
    }
    let metadata = Value::Object(metadata);
    let mut response = match form.view {
        View::Object => {
            let mut out = BytesMut::with_capacity(128 + page.objects.len() * 1024);
            out.put_slice(b"{\"kind\":\"");
            out.put_slice(resource.list_kind.as_bytes());
            out.put_slice(b"\",\"apiVersion\":\"");
            out.put_slice(resource.api_version.as_bytes());
            out.put_slice(b"\",\"metadata\":");
            crate::storage::object::write_json(&mut out, &metadata);
            out.put_slice(b",\"items\":[");
            for (i, object) in page.objects.iter().enumerate() {
                if i > 0 {
                    out.put_u8(b',');
                }
                resource.write_item(object, &mut out);
            }
            out.put_slice(b"]}\n");
            respond::text(StatusCode::OK, form, out.freeze())
        }
        View::Table => {
            let shown: Vec<_> = page
                .objects
                .iter()
                .map(|object| resource.shown(object))
                .collect();
            let table = table::table(
                &call.state,
                resource,
                shown.iter().map(|v| &**v),
                &call.query,
            )?;
            respond::value(StatusCode::OK, form, &table::finish(table, &metadata))
        }
        View::PartialMetadata => {
            let items: Vec<Value> = page
                .objects
                .iter()
                .map(|object| respond::partial(&object.glimpse()))
                .collect();
            let list = json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "items": items,
            });
            respond::value(StatusCode::OK, form, &list)
        }
    };
    respond::warn(&mut response, &resource.read_warnings());
    Ok(response)
}

/// The objects that a list, or a deletion of a collection, is about.
pub(crate) fn page(call: &Call, place: &Place, options: &ListOptions) -> Result<Page> {
    let selection = Selection::parse(options, place.resource.kind.strategy.fields)?;
    let store = &call.state.store;
    let cache = store.cache(&place.resource.key);
    let wanted = options.version()?;
    let current = store.rv().max(cache.last());
    if let Some(wanted) = wanted.filter(|&wanted| wanted > current) {
        return Err(Status::too_large_resource_version(wanted, current));
    }
    let from = if options.continue_token.is_empty() {
        None
    } else {
        if wanted.is_some_and(|rv| rv != 0) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        Some(Continue::decode(&options.continue_token)?)
    };
    let exact = match &from {
        Some(from) => Some(from.rv),
        // A limited list of an old state must show that state, so that its pages fit together.
        None if options.resource_version_match == "Exact" => wanted,
        None => None,
    };
    let (mut objects, rv) =
        match exact.filter(|&rv| rv != current) {
            Some(rv) => {
                let objects = cache.snapshot_at(&place.namespace, rv).map_err(|_| match from {
                Some(_) => Status::expired(
                    "The provided continue parameter is too old to display a consistent list \
                     result. You must start a new list without the continue parameter.",
                ),
                None => Status::expired("The resourceVersion for the provided list is too old."),
            })?;
                (objects, rv)
            }
            None if selection.exact_name().is_some()
                && (!place.namespace.is_empty() || !place.resource.kind.namespaced) =>
            {
                let rv = store.rv().max(cache.last());
                let name = selection.exact_name().unwrap_or_default();
                (cache.get(&place.namespace, name).into_iter().collect(), rv)
            }
            None => {
                let snapshot = cache.snapshot(&place.namespace, store.position());
                (snapshot.objects, snapshot.rv)
            }
        };
    if let Some(from) = &from {
        let start = objects.partition_point(|object| object.key() <= from.after);
        objects.drain(..start);
    }
    if !selection.is_everything() {
        objects.retain(|object| selection.matches(object));
    }
    let mut page = Page {
        objects,
        rv,
        continue_token: None,
        remaining: None,
    };
    // As upstream, resourceVersion=0 is served whole.
    if options.limit > 0 && page.objects.len() > options.limit && wanted != Some(0) {
        let left = page.objects.len() - options.limit;
        page.objects.truncate(options.limit);
        let after = page
            .objects
            .last()
            .map(|object| object.key())
            .unwrap_or_default();
        page.continue_token = Some(Continue { rv, after }.encode());
        page.remaining = selection.is_everything().then_some(left);
    }
    Ok(page)
}

/// Go's decoder does not look at the bits that are left over, so neither does this one.
const TOKEN: GeneralPurpose =
    GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// Where a limited list goes on.
struct Continue {
    rv: u64,
    after: String,
}

impl Continue {
    fn encode(&self) -> String {
        let token = json!({
            "v": "meta.k8s.io/v1", "rv": self.rv, "start": format!("{}\u{0}", self.after),
        });
        TOKEN.encode(token.to_string())
    }

    fn decode(text: &str) -> Result<Self> {
        let invalid = |problem: &str| {
            Status::bad_request(format!(
                "invalid continue token: continue key is not valid: {problem}"
            ))
        };
        let bytes = TOKEN.decode(text.trim_end_matches('=')).map_err(|error| {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _)
                | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                _ => text.len(),
            };
            invalid(&format!("illegal base64 data at input byte {at}"))
        })?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|_| {
            let first = bytes.iter().copied().find(|b| !b.is_ascii_whitespace());
            invalid(&match first {
                None => "unexpected end of JSON input".to_owned(),
                Some(b'{') => "unexpected end of JSON input".to_owned(),
                Some(byte) => format!(
                    "invalid character {} looking for beginning of value",
                    quote_char(char::from(byte))
                ),
            })
        })?;
        if token["v"] != "meta.k8s.io/v1" {
            return Err(invalid(&format!(
                "server does not recognize this encoded version \"{}\"",
                token["v"].as_str().unwrap_or_default()
            )));
        }
        let rv = token["rv"].as_u64().filter(|&rv| rv > 0);
        let rv = rv.ok_or_else(|| {
            invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
        })?;
        let start = token["start"].as_str().unwrap_or_default();
        if start.is_empty() {
            return Err(invalid("continue key is empty"));
        }
        Ok(Self {
            rv,
            after: start.trim_end_matches('\u{0}').to_owned(),
        })
    }
}

/// A character as Go's JSON decoder quotes it.
fn quote_char(c: char) -> String {
    match c {
        '\'' => "'\\''".to_owned(),
        c if c.is_control()
            || (!c.is_ascii()
                && !c.is_alphanumeric()
                && c.len_utf8() == 2
                && (c as u32) < 0xa1) =>
        {
            if (c as u32) < 0x80 {
                format!("'\\x{:02x}'", c as u32)
            } else {
                format!("'\\u{:04x}'", c as u32)
            }
        }
        c => format!("'{c}'"),
    }
}
