//! From a request's bytes to a typed tree, with the messages of upstream's handlers when that
//! fails.

use serde_json::Value;

use crate::json::Tree;
use crate::{Gvk, Schemas, yaml};

/// The encodings a body may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    Json,
    Yaml,
}

impl ContentType {
    /// From a `Content-Type` header; parameters are ignored, and an absent type is JSON.
    pub fn parse(header: &str) -> Option<Self> {
        match header.split(';').next().unwrap_or("").trim() {
            "" | "application/json" => Some(Self::Json),
            "application/yaml" | "application/x-yaml" | "text/yaml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

/// A decoded object.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// What the object is, after defaulting an absent `apiVersion` and `kind`.
    pub gvk: Gvk,
    /// What strict decoding objects to; each is also the text of a warning.
    pub strict: Vec<String>,
}

impl Decoded {
    /// The error for `fieldValidation=Strict`, if there is one.
    pub fn strict_error(&self) -> Option<DecodeError> {
        if self.strict.is_empty() {
            return None;
        }
        let fault = format!("strict decoding error: {}", self.strict.join(", "));
        Some(DecodeError::handled(&self.gvk, &self.gvk.kind, &fault))
    }
}

/// Why a body could not be decoded; displays as the whole message of a 400 BadRequest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    message: String,
}

impl DecodeError {
    fn handled(given: &Gvk, want: &str, fault: &str) -> Self {
        Self {
            message: format!(
                "{} in version \"{}\" cannot be handled as a {want}: {fault}",
                given.kind, given.version
            ),
        }
    }

    fn unrecognized(want: &str, fault: &str, body: &[u8]) -> Self {
        Self {
            message: format!(
                "the object provided is unrecognized (must be of type {want}): {fault} ({})",
                summary(body)
            ),
        }
    }
}

/// The start of a body as error messages quote it.
fn summary(body: &[u8]) -> String {
    const MAX: usize = 30;
    let head = &body[..body.len().min(MAX)];
    let more = if body.len() > MAX { " ..." } else { "" };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => {
            let hex: String = head.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{hex}{more}")
        }
    }
}

/// Reads a document without a type: patches, options. Returns the value and the paths of its
/// duplicate fields; the error is worded as Go words it.
pub fn read_value(bytes: &[u8], content_type: ContentType) -> Result<(Value, Vec<String>), String> {
    match content_type {
        ContentType::Json => {
            let mut duplicates = Vec::new();
            let value = Tree::parse(bytes)?.into_value(&mut String::new(), &mut duplicates);
            Ok((value, duplicates))
        }
        ContentType::Yaml => {
            let document = yaml::parse(bytes)?;
            Ok((document.tree.into_plain(), document.duplicates))
        }
    }
}

/// Kinds that every group-version knows; clients send them under any.
const EVERYWHERE: [&str; 1] = ["DeleteOptions"];

impl Schemas {
    /// Decodes a body that ought to be a `want`. An absent `apiVersion` and `kind` are taken from
    /// `want`; an object of another kind, or of a version nobody knows, is refused.
    pub fn decode(
        &self,
        want: &Gvk,
        body: &[u8],
        content_type: ContentType,
    ) -> Result<Decoded, DecodeError> {
        let unrecognized = |fault: &str| DecodeError::unrecognized(&want.kind, fault, body);
        let (tree, duplicates) = match content_type {
            ContentType::Json => {
                let tree = Tree::parse(body).map_err(|error| {
                    unrecognized(&format!(
                        "couldn't get version/kind; json parse error: {error}"
                    ))
                })?;
                (tree, Vec::new())
            }
            ContentType::Yaml => {
                let document = yaml::parse(body).map_err(|error| {
                    unrecognized(&format!("error converting YAML to JSON: {error}"))
                })?;
                let strict = document.strict_error().into_iter().collect();
                (document.tree, strict)
            }
        };
        let given = identify(&tree).map_err(|fault| unrecognized(&fault))?;
        let given = with_defaults(given, want);
        let handled = |fault: &str| DecodeError::handled(&given, &want.kind, fault);
        let meta = EVERYWHERE.contains(&want.kind.as_str());
        if given.kind != want.kind || (given.group != want.group && !meta) {
            return Err(handled(&self.wrong_kind(&given, want)));
        }
        let Some(ty) = self.get(&given) else {
            return Err(handled(&not_registered(&given)));
        };
        if given.version != want.version && !meta {
            return Err(DecodeError {
                message: format!(
                    "the API version in the data ({}) does not match the expected API version ({})",
                    given.api_version(),
                    want.api_version()
                ),
            });
        }
        let coerced = ty.coerce_tree(tree).map_err(|fault| handled(&fault))?;
        let mut value = coerced.value;
        if let Value::Object(map) = &mut value {
            map.insert("apiVersion".to_owned(), Value::from(given.api_version()));
            map.insert("kind".to_owned(), Value::from(given.kind.as_str()));
        }
        let mut strict = duplicates;
        strict.extend(coerced.strict);
        Ok(Decoded {
            value,
            gvk: given,
            strict,
        })
    }

    fn wrong_kind(&self, given: &Gvk, want: &Gvk) -> String {
        let list = given.kind == "List" && given.api_version() == "v1";
        if self.get(given).is_none() && !list {
            return not_registered(given);
        }
        format!(
            "converting ({}.{}) to ({}.{}): unknown conversion",
            given.version,
            given.kind,
            internal_package(&want.group),
            want.kind
        )
    }
}

fn not_registered(gvk: &Gvk) -> String {
    format!(
        "no kind \"{}\" is registered for version \"{}\" in scheme \"pkg/runtime/scheme.go:110\"",
        gvk.kind,
        gvk.api_version()
    )
}

/// The Go package of a group's internal types.
fn internal_package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        _ => group.split('.').next().unwrap_or(group),
    }
}

/// The `apiVersion` and `kind` that a document states.
fn identify(tree: &Tree) -> Result<(String, String), String> {
    const PREFIX: &str = "couldn't get version/kind; json parse error: json: cannot unmarshal";
    match tree {
        Tree::Null => return Ok((String::new(), String::new())),
        Tree::Map(_) => {}
        other => {
            return Err(format!(
                "{PREFIX} {} into Go value of type struct {{ APIVersion string \
                 \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
                other.go_kind()
            ));
        }
    }
    let text = |name: &str| match tree.get(name) {
        None | Some(Tree::Null) => Ok(String::new()),
        Some(Tree::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!(
            "{PREFIX} {} into Go struct field .{name} of type string",
            other.go_kind()
        )),
    };
    Ok((text("apiVersion")?, text("kind")?))
}

fn with_defaults((api_version, kind): (String, String), want: &Gvk) -> Gvk {
    let mut given = Gvk::from_api_version(&api_version, &kind);
    if given.kind.is_empty() {
        given.kind.clone_from(&want.kind);
    }
    if api_version.is_empty() {
        given.group.clone_from(&want.group);
        given.version.clone_from(&want.version);
    }
    given
}
