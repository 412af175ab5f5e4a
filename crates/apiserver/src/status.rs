//! Errors as clients see them: `metav1.Status`, with upstream's reasons, codes and messages.
//!
//! Every failure inside the server becomes a [`Status`] where it is known best; this module is the
//! only one that knows how a Status looks on the wire.

use http::StatusCode;
use serde_json::{Map, Value, json};

/// Group and resource (or kind) as messages name them: `deployments.apps`, `pods`.
pub(crate) fn qualified(group: &str, name: &str) -> String {
    if group.is_empty() {
        name.to_owned()
    } else {
        format!("{name}.{group}")
    }
}

/// One thing that is wrong, in `details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) field: String,
}

impl Cause {
    /// An invalid value of a field; the message ends in `detail`.
    pub(crate) fn new(reason: &str, field: &str, message: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            field: field.to_owned(),
            message: message.into(),
        }
    }

    /// The errors of a kind's own validation.
    pub(crate) fn of(errors: &kinds::ErrorList) -> Vec<Self> {
        let cause = |error: &kinds::Error| {
            Self::new(error.kind.reason(), error.path.as_str(), error.body())
        };
        errors.0.iter().map(cause).collect()
    }
}

/// A failure on its way to the client. Boxed, since results carry it everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Status(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    code: StatusCode,
    reason: String,
    message: String,
    details: Option<Map<String, Value>>,
}

/// What an endpoint returns when it does not succeed.
pub(crate) type Result<T, E = Status> = std::result::Result<T, E>;

impl Status {
    pub(crate) fn new(code: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Inner {
            code,
            reason: reason.to_owned(),
            message,
            details: None,
        }))
    }

    fn with_details(mut self, name: &str, group: &str, kind: &str) -> Self {
        let details = self.0.details.get_or_insert_default();
        for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                details.insert(key.to_owned(), value.into());
            }
        }
        self
    }

    fn with_causes(mut self, causes: &[Cause]) -> Self {
        let causes: Vec<Value> = causes
            .iter()
            .map(|cause| {
                let mut entry = Map::new();
                let members = [
                    ("reason", &cause.reason),
                    ("message", &cause.message),
                    ("field", &cause.field),
                ];
                for (key, value) in members {
                    if !value.is_empty() {
                        entry.insert(key.to_owned(), value.as_str().into());
                    }
                }
                Value::Object(entry)
            })
            .collect();
        let details = self.0.details.get_or_insert_default();
        if !causes.is_empty() {
            details.insert("causes".to_owned(), causes.into());
        }
        self
    }

    pub(crate) fn with_retry_after(mut self, seconds: u32) -> Self {
        let details = self.0.details.get_or_insert_default();
        details.insert("retryAfterSeconds".to_owned(), seconds.into());
        self
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(group, resource));
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).with_details(name, group, resource)
    }

    /// A path that leads nowhere inside a known group.
    pub(crate) fn no_such_resource() -> Self {
        let message = "the server could not find the requested resource";
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).with_details("", "", "")
    }

    pub(crate) fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", qualified(group, resource));
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message)
            .with_details(name, group, resource)
    }

    pub(crate) fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            qualified(group, resource)
        );
        Self::new(StatusCode::CONFLICT, "Conflict", message).with_details(name, group, resource)
    }

    /// The object is not at the resourceVersion that the client read.
    pub(crate) fn modified(group: &str, resource: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version \
                   and try again";
        Self::conflict(group, resource, name, why)
    }

    /// A JSON patch that does not fit the object; upstream says no more than this.
    pub(crate) fn unprocessable_patch() -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).with_details("", "", "")
    }

    /// Server-side apply met fields of other managers.
    pub(crate) fn apply_conflict(message: impl Into<String>, causes: &[Cause]) -> Self {
        Self::new(StatusCode::CONFLICT, "Conflict", message).with_causes(causes)
    }

    pub(crate) fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = qualified(group, resource);
        let message = if name.is_empty() {
            format!("{what} is forbidden: {why}")
        } else {
            format!("{what} \"{name}\" is forbidden: {why}")
        };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).with_details(name, group, resource)
    }

    /// A path outside the API that the user may not see.
    pub(crate) fn forbidden_path(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).with_details("", "", "")
    }

    /// Several fields are wrong: the message lists them as upstream does.
    pub(crate) fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        // The message says each thing once; the causes stay as they are.
        let mut list: Vec<String> = Vec::new();
        for Cause { field, message, .. } in causes {
            let text = if field.is_empty() {
                message.clone()
            } else {
                format!("{field}: {message}")
            };
            if !list.contains(&text) {
                list.push(text);
            }
        }
        let list = if let [one] = list.as_slice() {
            one.clone()
        } else {
            format!("[{}]", list.join(", "))
        };
        let message = format!("{} \"{name}\" is invalid: {list}", qualified(group, kind));
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
            .with_details(name, group, kind)
            .with_causes(causes)
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
            .with_details("", "", "")
    }

    pub(crate) fn not_acceptable(offered: &[&str]) -> Self {
        let message = format!(
            "only the following media types are accepted: {}",
            offered.join(", ")
        );
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    pub(crate) fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            message,
        )
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            message,
        )
    }

    /// The changes asked for are no longer kept.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// The client knows a future that this server does not.
    pub(crate) fn too_large_resource_version(wanted: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {wanted}, current: {current}");
        let cause = Cause::new("ResourceVersionTooLarge", "", "Too large resource version");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
            .with_causes(&[cause])
            .with_retry_after(1)
    }

    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        let text = format!("Internal error occurred: {message}");
        let cause = Cause {
            reason: String::new(),
            field: String::new(),
            message: message.to_string(),
        };
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", text).with_causes(&[cause])
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            message,
        )
    }

    pub(crate) fn with_cause(self, cause: Cause) -> Self {
        self.with_causes(&[cause])
    }

    pub(crate) fn code(&self) -> StatusCode {
        self.0.code
    }

    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// The object that goes over the wire.
    pub(crate) fn to_value(&self) -> Value {
        let mut value = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.0.message,
            "reason": self.0.reason,
            "code": self.0.code.as_u16(),
        });
        if let Some(details) = &self.0.details {
            value["details"] = Value::Object(details.clone());
        }
        value
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Status {}

/// The answer to a deletion that left nothing behind.
pub(crate) fn deleted(group: &str, resource: &str, name: &str, uid: &str) -> Value {
    let mut details = Map::new();
    for (key, value) in [
        ("name", name),
        ("group", group),
        ("kind", resource),
        ("uid", uid),
    ] {
        if !value.is_empty() {
            details.insert(key.to_owned(), value.into());
        }
    }
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details,
    })
}

/// The answer to an action that returns no object.
pub(crate) fn success(code: StatusCode) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "code": code.as_u16(),
    })
}
