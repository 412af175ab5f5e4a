//! What goes over the wire in every answer: error bodies, times, pages.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::json;

use crate::{runner, store};

pub(super) type Result<T> = std::result::Result<T, Failure>;

/// The codes of google.rpc.Code that this API uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    FailedPrecondition = 9,
    Aborted = 10,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

impl Code {
    fn status(self) -> StatusCode {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists | Self::Aborted => StatusCode::CONFLICT,
            Self::Unimplemented => StatusCode::METHOD_NOT_ALLOWED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// An error answer in the shape of the gateway of the original.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) code: Code,
    /// With everything that led to it.
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

    /// A failure of ours: its causes go to the client, as the original does, and once to the log.
    pub(super) fn internal(error: &dyn std::error::Error) -> Self {
        let chain = stdx::error::chain(error);
        tracing::error!("{chain}");
        Self::new(Code::Internal, chain)
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
            store::Error::Db(db::Error::DiskFull) => {
                return Self::new(Code::Unavailable, stdx::error::chain(&error));
            }
            store::Error::Db(_) => return Self::internal(&error),
        };
        Self::new(code, error.to_string())
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
            runner::Error::Journal { .. }
            | runner::Error::Kube { .. }
            | runner::Error::Artifact(_) => {
                return Self::internal(&error);
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

/// A plain text answer.
pub(super) fn text(status: StatusCode, body: impl Into<axum::body::Body>) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        body.into(),
    )
        .into_response()
}
