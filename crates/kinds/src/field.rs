//! Validation errors that name a field: [`Path`], [`Error`], [`ErrorList`], worded as Kubernetes
//! words them. How they become a Status belongs to the API server; the parts it needs
//! ([`ErrorList::message`], [`ErrorList::causes`]) are here.

use std::fmt;

use serde_json::{Value, json};

/// Where in an object: `spec.containers[0].image`, `data[key]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A path that starts at a top-level field; dots in `name` separate fields.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The field `name` below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() {
            return Self::new(name);
        }
        Self(format!("{}.{name}", self.0))
    }

    /// The list element `index` of this field.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The map entry `key` of this field.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl ErrorType {
    /// The `reason` of a StatusCause.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

/// One field's error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: ErrorType,
    pub path: Path,
    /// The offending value as it is printed; empty for kinds that print none.
    pub value: String,
    pub detail: String,
}

impl Error {
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::with_value(ErrorType::Invalid, path, &value.into(), detail)
    }

    /// An invalid value that prints as the given text, unquoted.
    pub fn invalid_raw(path: &Path, value: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            kind: ErrorType::Invalid,
            path: path.clone(),
            value: value.into(),
            detail: detail.into(),
        }
    }

    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::plain(ErrorType::Required, path, detail)
    }

    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::plain(ErrorType::Forbidden, path, detail)
    }

    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::with_value(ErrorType::Duplicate, path, &value.into(), "")
    }

    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::with_value(ErrorType::NotFound, path, &value.into(), "")
    }

    /// A value outside a closed set; `supported` is printed in the order given.
    pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        Self::with_value(
            ErrorType::NotSupported,
            path,
            &value.into(),
            supported_values(supported),
        )
    }

    /// As [`Error::not_supported`], with a value that prints as the given text.
    pub fn not_supported_raw(path: &Path, value: impl Into<String>, supported: &[&str]) -> Self {
        Self {
            kind: ErrorType::NotSupported,
            path: path.clone(),
            value: value.into(),
            detail: supported_values(supported),
        }
    }

    pub fn too_long(path: &Path, max: usize) -> Self {
        Self::plain(
            ErrorType::TooLong,
            path,
            format!("may not be more than {max} bytes"),
        )
    }

    pub fn too_many(path: &Path, count: usize, max: usize) -> Self {
        Self::with_value(
            ErrorType::TooMany,
            path,
            &json!(count),
            format!(
                "must have at most {max} item{}",
                if max == 1 { "" } else { "s" }
            ),
        )
    }

    pub fn internal(path: &Path, detail: impl Into<String>) -> Self {
        Self::plain(ErrorType::Internal, path, detail)
    }

    fn plain(kind: ErrorType, path: &Path, detail: impl Into<String>) -> Self {
        Self {
            kind,
            path: path.clone(),
            value: String::new(),
            detail: detail.into(),
        }
    }

    fn with_value(kind: ErrorType, path: &Path, value: &Value, detail: impl Into<String>) -> Self {
        Self {
            kind,
            path: path.clone(),
            value: print_value(value),
            detail: detail.into(),
        }
    }

    /// The message without the field's name, as it stands in a StatusCause.
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_owned();
        for part in [&self.value, &self.detail] {
            if !part.is_empty() {
                text.push_str(": ");
                text.push_str(part);
            }
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

impl std::error::Error for Error {}

fn supported_values(supported: &[&str]) -> String {
    if supported.is_empty() {
        return String::new();
    }
    let quoted: Vec<String> = supported.iter().map(|word| quote(word)).collect();
    format!("supported values: {}", quoted.join(", "))
}

fn print_value(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        other => other
            .to_string()
            .replace('&', "\\u0026")
            .replace('<', "\\u003c")
            .replace('>', "\\u003e"),
    }
}

/// A string in double quotes as Go's `%q` writes it.
pub fn quote(text: &str) -> String {
    use std::fmt::Write as _;

    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The errors of one object, in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorList(pub Vec<Error>);

impl ErrorList {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, error: Error) {
        self.0.push(error);
    }

    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One error as `path: body`, several as `[a, b]`, equal ones once.
    pub fn message(&self) -> String {
        let mut seen: Vec<String> = Vec::new();
        for error in &self.0 {
            let text = error.to_string();
            if !seen.contains(&text) {
                seen.push(text);
            }
        }
        match seen.as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        }
    }

    /// The `details.causes` of a Status: reason, message, field for each error.
    pub fn causes(&self) -> Value {
        self.0
            .iter()
            .map(|error| {
                json!({
                    "reason": error.kind.reason(),
                    "message": error.body(),
                    "field": error.path.as_str(),
                })
            })
            .collect()
    }
}

impl From<Error> for ErrorList {
    fn from(error: Error) -> Self {
        Self(vec![error])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wording() {
        let at = Path::new("spec")
            .child("containers")
            .index(0)
            .child("image");
        assert_eq!(
            Error::required(&at, "").to_string(),
            "spec.containers[0].image: Required value"
        );
        assert_eq!(
            Error::not_supported(&Path::new("a"), "S", &["A", "B"]).to_string(),
            r#"a: Unsupported value: "S": supported values: "A", "B""#
        );
        assert_eq!(
            Error::invalid(&Path::new("data").key("x y"), json!({"a": "b"}), "no").to_string(),
            r#"data[x y]: Invalid value: {"a":"b"}: no"#
        );
    }

    #[test]
    fn equal_errors_are_told_once_and_caused_twice() {
        let error = Error::required(&Path::new("a"), "");
        let list = ErrorList(vec![error.clone(), error]);
        assert_eq!(list.message(), "a: Required value");
        assert_eq!(list.causes().as_array().map(Vec::len), Some(2));
    }
}
