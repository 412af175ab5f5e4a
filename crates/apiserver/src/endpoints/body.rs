//! Reading request bodies.

use std::borrow::Cow;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use schema::ContentType;
use serde_json::{Map, Value};

use super::negotiate::{self, BodyForm};
use crate::protobuf;
use crate::status::{Result, Status};

/// The largest body of a write, as upstream has it.
const LIMIT: usize = 3 * 1024 * 1024;

/// The whole body.
pub(crate) async fn read(body: Body) -> Result<Bytes> {
    match Limited::new(body, LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Status::too_large(LIMIT)),
        Err(error) => Err(Status::bad_request(format!(
            "the body could not be read: {error}"
        ))),
    }
}

/// A body as JSON or YAML text: protobuf is read here, the rest stays as it came.
pub(crate) fn text<'a>(
    headers: &HeaderMap,
    bytes: &'a [u8],
    kind: &str,
) -> Result<(Cow<'a, [u8]>, ContentType)> {
    match negotiate::body_form(headers)? {
        BodyForm::Json => Ok((Cow::Borrowed(bytes), ContentType::Json)),
        BodyForm::Yaml => Ok((Cow::Borrowed(bytes), ContentType::Yaml)),
        BodyForm::Protobuf => {
            let value = protobuf::decode(bytes).map_err(|problem| {
                Status::bad_request(format!(
                    "the object provided is unrecognized (must be of type {kind}): {problem}"
                ))
            })?;
            Ok((
                Cow::Owned(value.to_string().into_bytes()),
                ContentType::Json,
            ))
        }
    }
}

/// The members of an options object; an empty body has none.
pub(crate) fn options(
    headers: &HeaderMap,
    bytes: &[u8],
    kind: &str,
) -> Result<Option<Map<String, Value>>> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let unreadable = |problem: &str| {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {problem}"
        ))
    };
    let (bytes, content_type) = text(headers, bytes, kind)?;
    let (value, _) =
        schema::read_value(&bytes, content_type).map_err(|problem| unreadable(&problem))?;
    match value {
        Value::Object(map) => {
            let given = map.get("kind").and_then(Value::as_str).unwrap_or(kind);
            if given == kind {
                Ok(Some(map))
            } else {
                Err(unreadable(&format!("got a {given}")))
            }
        }
        _ => Err(unreadable("not an object")),
    }
}
