//! Every failure of a request, and what the two protocols make of it.

use axum::http::StatusCode;
use model::saved_model::PredictError;

/// Why a request failed: a canonical code and a text for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: tonic::Code,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self {
            code: tonic::Code::NotFound,
            message: message.into(),
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            code: tonic::Code::InvalidArgument,
            message: message.into(),
        }
    }

    pub(crate) fn unimplemented(method: &str) -> Self {
        let message = format!("{method} is not served here; use Predict");
        Self {
            code: tonic::Code::Unimplemented,
            message,
        }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self {
            code: tonic::Code::Internal,
            message: message.into(),
        }
    }

    /// The REST status of the code.
    pub(crate) fn http_status(&self) -> StatusCode {
        match self.code {
            tonic::Code::NotFound => StatusCode::NOT_FOUND,
            tonic::Code::InvalidArgument => StatusCode::BAD_REQUEST,
            tonic::Code::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
            tonic::Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            tonic::Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<Failure> for tonic::Status {
    fn from(failure: Failure) -> Self {
        Self::new(failure.code, failure.message)
    }
}

impl From<PredictError> for Failure {
    fn from(error: PredictError) -> Self {
        match &error {
            PredictError::NoSignature { name, known } => Self {
                code: tonic::Code::FailedPrecondition,
                message: format!(
                    "Serving signature key {name:?} not found. The model has [{}]",
                    known.join(", ")
                ),
            },
            PredictError::Request(_) | PredictError::Run(_) => Self::invalid(error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }
}
