//! What goes over the wire in every answer: error bodies, times, pages.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{runner, store};

pub(super) type Result<T> = std::result::Result<T, Failure>;

/// The codes of google.rpc.Code that this API uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    FailedPrecondition = 9,
    Internal = 13,
    Unavailable = 14,
}

impl Code {
    fn status(self) -> StatusCode {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists => StatusCode::CONFLICT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// An error answer in the shape of the gateway of the original.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// The HTTP status that goes with the code.
    pub(super) fn status(&self) -> StatusCode {
        self.code.status()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = self.code as i32;
        // Clients of different ages read different members.
        let body = json!({
            "error": self.message, "message": self.message, "code": code,
            "details": [{"@type": "type.googleapis.com/google.rpc.Status", "code": code,
                "message": self.message}],
        });
        (self.status(), Json(body)).into_response()
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        let code = match &error {
            store::Error::NotFound { .. } => Code::NotFound,
            store::Error::Exists { .. } => Code::AlreadyExists,
            store::Error::State(_) => Code::FailedPrecondition,
            store::Error::Invalid(_) => Code::InvalidArgument,
            store::Error::Db(cause) => return of_database(&error, cause),
        };
        Self::new(code, error.to_string())
    }
}

fn of_database(error: &store::Error, cause: &db::Error) -> Failure {
    tracing::error!("{}", stdx::error::chain(error));
    match cause {
        db::Error::DiskFull => Failure::new(Code::Unavailable, cause.to_string()),
        _ => Failure::new(
            Code::Internal,
            "the pipelines database failed; the server's log says why",
        ),
    }
}

impl From<runner::Error> for Failure {
    fn from(error: runner::Error) -> Self {
        let code = match &error {
            runner::Error::NotFound(_) => Code::NotFound,
            runner::Error::Exists(_) => Code::AlreadyExists,
            runner::Error::Invalid(_) => Code::InvalidArgument,
            runner::Error::State(_) => Code::FailedPrecondition,
            runner::Error::Stopping => Code::Unavailable,
            runner::Error::Journal { .. } | runner::Error::Kube { .. } => {
                tracing::error!("{}", stdx::error::chain(&error));
                Code::Internal
            }
        };
        Self::new(code, error.to_string())
    }
}

/// Microseconds since 1970 as RFC 3339, to the second as the original writes them.
pub(super) fn time(micros: i64) -> String {
    let second = micros.div_euclid(1_000_000);
    Timestamp::from_second(second)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_string()
}

/// RFC 3339 to the second; the original says 1970 for what has not happened yet.
pub(super) fn time_or_epoch(text: Option<&str>) -> String {
    let parsed = text.and_then(|text| text.parse::<Timestamp>().ok());
    time(parsed.unwrap_or(Timestamp::UNIX_EPOCH).as_microsecond())
}

/// A list answer: unset members are left out, as protojson does.
pub(super) fn page(member: &str, items: Vec<Value>, page: &store::page::Page) -> Json<Value> {
    let mut body = json!({});
    if !items.is_empty() {
        body[member] = Value::Array(items);
    }
    if page.total > 0 {
        body["total_size"] = json!(page.total);
    }
    if !page.next.is_empty() {
        body["next_page_token"] = json!(page.next);
    }
    Json(body)
}

/// Removes members that are empty text, as protojson does with unset fields.
pub(super) fn compact(mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        map.retain(|_, v| !matches!(v, Value::Null) && v.as_str() != Some(""));
    }
    value
}

/// A plain text answer.
pub(super) fn text(status: StatusCode, body: impl Into<axum::body::Body>) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        body.into(),
    )
        .into_response()
}

/// The empty answer.
pub(super) fn nothing() -> Json<Value> {
    Json(json!({}))
}
