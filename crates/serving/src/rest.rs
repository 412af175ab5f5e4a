//! TensorFlow Serving's REST API: predict, status and metadata.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use model::Signature;
use serde_json::{Value, json};

use crate::json::{self, Layout};
use crate::manager::{Manager, Wanted};
use crate::predict::{predict, signature_name};
use crate::status::Failure;

/// The largest body that is read.
const MOST_BYTES: usize = 256 << 20;

/// The whole API as one router.
pub(crate) fn router(manager: Arc<Manager>) -> Router {
    Router::new().fallback(handle).with_state(manager)
}

/// A path of the API, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    name: &'a str,
    wanted: Wanted,
    action: Action<'a>,
}

#[derive(Debug, PartialEq, Eq)]
enum Action<'a> {
    Status,
    Metadata,
    /// What follows the colon.
    Call(&'a str),
}

/// Reads `/v1/models/NAME[/versions/V|/labels/L][/metadata|:CALL]`.
fn parse_path(path: &str) -> Option<Target<'_>> {
    let path = path.strip_prefix("/v1/models/")?;
    let (path, call) = match path.rsplit_once(':') {
        Some((path, call)) => (path, Some(call)),
        None => (path, None),
    };
    let mut parts = path.split('/');
    let name = parts.next().filter(|name| !name.is_empty())?;
    let (mut wanted, mut action) = (Wanted::Latest, Action::Status);
    let mut next = parts.next();
    match next {
        Some("versions") => {
            let version = parts
                .next()?
                .parse()
                .ok()
                .filter(|version: &i64| *version >= 0)?;
            (wanted, next) = (Wanted::Version(version), parts.next());
        }
        Some("labels") => {
            let label = parts.next().filter(|label| !label.is_empty())?;
            (wanted, next) = (Wanted::Label(label.to_owned()), parts.next());
        }
        _ => {}
    }
    match (next, call) {
        (None, None) => {}
        (Some("metadata"), None) => action = Action::Metadata,
        (None, Some(call)) => action = Action::Call(call),
        _ => return None,
    }
    parts.next().is_none().then_some(Target {
        name,
        wanted,
        action,
    })
}

async fn handle(State(manager): State<Arc<Manager>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let answer = match (parse_path(path), &parts.method) {
        (
            Some(Target {
                name,
                wanted,
                action: Action::Call(call),
            }),
            &Method::POST,
        ) => call_model(&manager, name, &wanted, call, body).await,
        (
            Some(Target {
                name,
                wanted,
                action: Action::Status,
            }),
            &Method::GET,
        ) => status(&manager, name, &wanted),
        (
            Some(Target {
                name,
                wanted,
                action: Action::Metadata,
            }),
            &Method::GET,
        ) => metadata(&manager, name, &wanted),
        (_, method) => Err(Failure::invalid(format!(
            "Malformed request: {method} {path}"
        ))),
    };
    match answer {
        Ok(text) => respond(StatusCode::OK, text),
        Err(failure) => respond(
            failure.http_status(),
            json!({ "error": failure.message }).to_string(),
        ),
    }
}

fn respond(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn call_model(
    manager: &Manager,
    name: &str,
    wanted: &Wanted,
    call: &str,
    body: Body,
) -> Result<String, Failure> {
    match call {
        "predict" => {}
        "classify" | "regress" => return Err(Failure::unimplemented(call)),
        other => {
            return Err(Failure::invalid(format!(
                "Malformed request: no method :{other}"
            )));
        }
    }
    let bytes = axum::body::to_bytes(body, MOST_BYTES)
        .await
        .map_err(|error| Failure::invalid(format!("the request's body: {error}")))?;
    let request = json::parse_body(&bytes)?;
    let servable = manager.find(name, wanted)?;
    let signature_name = signature_name(&request.signature_name).to_owned();
    let row = matches!(request.layout, Layout::Row(_));
    let inputs = json::inputs(request.layout, servable.model.signature(&signature_name)?)?;
    let outputs = predict(servable, signature_name, inputs, Vec::new()).await?;
    json::answer(&outputs, row)
}

fn status(manager: &Manager, name: &str, wanted: &Wanted) -> Result<String, Failure> {
    let statuses: Vec<Value> = manager
        .statuses(name, wanted)?
        .into_iter()
        .map(|version| {
            let state = version.state().as_str_name();
            let status = version.status.unwrap_or_default();
            json!({
                // 64-bit numbers are strings in the JSON form of protobuf.
                "version": version.version.to_string(),
                "state": state,
                "status": {
                    "error_code": code_name(status.error_code),
                    "error_message": status.error_message,
                },
            })
        })
        .collect();
    Ok(json!({ "model_version_status": statuses }).to_string())
}

fn code_name(code: i32) -> &'static str {
    match tonic::Code::from_i32(code) {
        tonic::Code::Ok => "OK",
        _ => "UNKNOWN",
    }
}

fn metadata(manager: &Manager, name: &str, wanted: &Wanted) -> Result<String, Failure> {
    let servable = manager.find(name, wanted)?;
    let signatures: serde_json::Map<String, Value> = servable
        .model
        .signatures()
        .map(|(name, signature)| (name.to_owned(), signature_json(signature)))
        .collect();
    Ok(json!({
        "model_spec": {
            "name": name,
            "signature_name": "",
            "version": servable.version.to_string(),
        },
        "metadata": { "signature_def": { "signature_def": signatures } },
    })
    .to_string())
}

fn signature_json(signature: &Signature) -> Value {
    let side = |side: &std::collections::BTreeMap<String, model::TensorInfo>| {
        let info = |info: &model::TensorInfo| {
            let dims: Vec<Value> = info
                .shape
                .iter()
                .map(|size| size.map_or_else(|| "-1".to_owned(), |size| size.to_string()))
                .map(|size| json!({ "size": size, "name": "" }))
                .collect();
            json!({
                "dtype": info.data_type.to_proto().as_str_name(),
                "tensor_shape": { "dim": dims, "unknown_rank": false },
                "name": info.edge,
            })
        };
        let pairs = side
            .iter()
            .map(|(name, tensor)| (name.clone(), info(tensor)));
        Value::Object(pairs.collect())
    };
    json!({
        "inputs": side(&signature.inputs),
        "outputs": side(&signature.outputs),
        "method_name": signature.method_name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart_and_others_refused() {
        let target = |name, wanted, action| {
            Some(Target {
                name,
                wanted,
                action,
            })
        };
        let parse = parse_path;
        assert_eq!(
            parse("/v1/models/m"),
            target("m", Wanted::Latest, Action::Status)
        );
        assert_eq!(
            parse("/v1/models/m:predict"),
            target("m", Wanted::Latest, Action::Call("predict"))
        );
        assert_eq!(
            parse("/v1/models/m/versions/12:predict"),
            target("m", Wanted::Version(12), Action::Call("predict"))
        );
        assert_eq!(
            parse("/v1/models/m/labels/stable/metadata"),
            target("m", Wanted::Label("stable".to_owned()), Action::Metadata)
        );
        for path in [
            "/",
            "/v1/models",
            "/v1/models/",
            "/v1/models/m/versions",
            "/v1/models/m/versions/x",
            "/v1/models/m/versions/-1",
            "/v1/models/m/versions/1/metadata/x",
            "/v1/models/m/metadata:predict",
            "/v1/models/m/other",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
