//! Query parameters, and the options that requests carry in them.

use serde_json::{Map, Value};

use crate::status::{Cause, Result, Status};

/// The parameters of a query, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default();
        Self(serde_urlencoded::from_str(pairs).unwrap_or_default())
    }

    /// The first value of a parameter; an empty one counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
            .filter(|v| !v.is_empty())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
            .collect()
    }

    /// A boolean as upstream converts it: present and neither `0` nor `false` is true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .is_some_and(|(_, v)| !matches!(v.to_ascii_lowercase().as_str(), "0" | "false"))
    }

    fn optional_flag(&self, name: &str) -> Option<bool> {
        self.has(name).then(|| self.flag(name))
    }

    pub(crate) fn int(&self, name: &str) -> Result<Option<i64>> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!(
                "strconv.ParseInt: parsing {}: invalid syntax",
                kinds::field::quote(text)
            ))
        })
    }
}

/// What lists and watches take.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListOptions {
    pub(crate) label_selector: String,
    pub(crate) field_selector: String,
    pub(crate) watch: bool,
    pub(crate) bookmarks: bool,
    pub(crate) resource_version: String,
    pub(crate) resource_version_match: String,
    pub(crate) timeout_seconds: Option<i64>,
    pub(crate) limit: usize,
    pub(crate) continue_token: String,
    pub(crate) send_initial_events: Option<bool>,
}

impl ListOptions {
    pub(crate) fn parse(query: &Query, watch: bool) -> Result<Self> {
        let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
        let options = Self {
            label_selector: text("labelSelector"),
            field_selector: text("fieldSelector"),
            watch,
            bookmarks: query.flag("allowWatchBookmarks"),
            resource_version: text("resourceVersion"),
            resource_version_match: text("resourceVersionMatch"),
            timeout_seconds: query.int("timeoutSeconds")?,
            limit: query
                .int("limit")?
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(0),
            continue_token: text("continue"),
            send_initial_events: query.optional_flag("sendInitialEvents"),
        };
        options.validate()?;
        Ok(options)
    }

    fn validate(&self) -> Result<()> {
        let mut causes = Vec::new();
        let forbidden = |field: &str, message: &str| {
            Cause::new(
                "FieldValueForbidden",
                field,
                format!("Forbidden: {message}"),
            )
        };
        let matching = self.resource_version_match.as_str();
        let unknown = Cause::new(
            "FieldValueNotSupported",
            "resourceVersionMatch",
            format!(
                "Unsupported value: \"{matching}\": supported values: \"Exact\", \"NotOlderThan\", \"\""
            ),
        );
        if self.watch {
            if self.send_initial_events.is_some() {
                if matching.is_empty() {
                    causes.push(forbidden(
                        "resourceVersionMatch",
                        "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                    ));
                } else if matching != "NotOlderThan" {
                    causes.push(Cause::new(
                        "FieldValueNotSupported",
                        "resourceVersionMatch",
                        format!(
                            "Unsupported value: \"{matching}\": supported values: \"NotOlderThan\""
                        ),
                    ));
                }
            } else if !matching.is_empty() {
                causes.push(forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
        } else {
            if self.send_initial_events.is_some() {
                causes.push(forbidden(
                    "sendInitialEvents",
                    "sendInitialEvents is forbidden for list",
                ));
            }
            if !matching.is_empty() {
                if self.resource_version.is_empty() {
                    causes.push(forbidden(
                        "resourceVersionMatch",
                        "resourceVersionMatch is forbidden unless resourceVersion is provided",
                    ));
                }
                if !self.continue_token.is_empty() {
                    causes.push(forbidden(
                        "resourceVersionMatch",
                        "resourceVersionMatch is forbidden when continue is provided",
                    ));
                }
                if !matches!(matching, "Exact" | "NotOlderThan") {
                    causes.push(unknown);
                } else if matching == "Exact" && self.resource_version == "0" {
                    causes.push(forbidden(
                        "resourceVersionMatch",
                        "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                    ));
                }
            }
        }
        if causes.is_empty() {
            return Ok(());
        }
        Err(Status::invalid("meta.k8s.io", "ListOptions", "", &causes))
    }

    /// The resourceVersion as a number; empty is none.
    pub(crate) fn version(&self) -> Result<Option<u64>> {
        parse_version(&self.resource_version)
    }
}

/// A resourceVersion as clients send it.
pub(crate) fn parse_version(text: &str) -> Result<Option<u64>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        Status::bad_request(format!(
            "Invalid value: {0}: strconv.ParseUint: parsing {0}: invalid syntax",
            kinds::field::quote(text)
        ))
    })
}

/// What to do about fields that the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// What writes take: create, update and patch.
#[derive(Debug, Clone)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) field_manager: String,
    pub(crate) field_validation: FieldValidation,
    pub(crate) force: bool,
    /// Whether this is a server-side apply.
    pub(crate) apply: bool,
}

impl WriteOptions {
    /// `kind` is how messages name the options: `CreateOptions`, `UpdateOptions`, `PatchOptions`.
    pub(crate) fn parse(query: &Query, kind: &str) -> Result<Self> {
        let mut causes = Vec::new();
        let dry_run = dry_run(
            query
                .all("dryRun")
                .iter()
                .map(|v| Value::from(*v))
                .collect(),
            &mut causes,
        );
        let field_manager = query.get("fieldManager").unwrap_or_default().to_owned();
        if field_manager.len() > 128 {
            causes.push(Cause::new(
                "FieldValueTooLong",
                "fieldManager",
                "Too long: may not be more than 128 bytes",
            ));
        } else if let Some(at) = field_manager.chars().position(char::is_control) {
            causes.push(Cause::new(
                "FieldValueInvalid",
                "fieldManager",
                format!(
                    "Invalid value: {}: should not contain any non-printable character (at position {at})",
                    kinds::field::quote(&field_manager)
                ),
            ));
        }
        let field_validation = match query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                causes.push(Cause::new(
                    "FieldValueNotSupported",
                    "fieldValidation",
                    format!(
                        "Unsupported value: {}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
                        kinds::field::quote(other)
                    ),
                ));
                FieldValidation::Warn
            }
        };
        if causes.is_empty() {
            let force = query.flag("force");
            return Ok(Self {
                dry_run,
                field_manager,
                field_validation,
                force,
                apply: false,
            });
        }
        Err(Status::invalid("meta.k8s.io", kind, "", &causes))
    }
}

fn dry_run(values: Vec<Value>, causes: &mut Vec<Cause>) -> bool {
    if values.iter().any(|v| v != "All") {
        causes.push(Cause::new(
            "FieldValueNotSupported",
            "dryRun",
            format!(
                "Unsupported value: {}: supported values: \"All\"",
                Value::from(values.clone())
            ),
        ));
    }
    !values.is_empty()
}

/// How the dependents of a deleted object are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// What deletions take, in the body or in the query.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) dry_run: bool,
    pub(crate) grace_period_seconds: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
}

impl DeleteOptions {
    /// The body's options win over the query's, as upstream reads them.
    pub(crate) fn parse(query: &Query, body: Option<&Map<String, Value>>) -> Result<Self> {
        let member = |name: &str| body.and_then(|b| b.get(name)).filter(|v| !v.is_null());
        let in_body = body.is_some();
        let grace_period_seconds = match member("gracePeriodSeconds") {
            Some(value) => Some(value.as_i64().ok_or_else(|| {
                Status::bad_request("DeleteOptions: gracePeriodSeconds must be an integer")
            })?),
            None if in_body => None,
            None => query.int("gracePeriodSeconds")?,
        };
        let mut causes = Vec::new();
        let dry_run_values = match member("dryRun") {
            Some(value) => value.as_array().cloned().unwrap_or_default(),
            None => query
                .all("dryRun")
                .iter()
                .map(|v| Value::from(*v))
                .collect(),
        };
        let dry_run = dry_run(dry_run_values, &mut causes);
        let policy = match member("propagationPolicy") {
            Some(value) => value.as_str(),
            None if in_body => None,
            None => query.get("propagationPolicy"),
        };
        let orphan = match member("orphanDependents") {
            Some(value) => value.as_bool(),
            None if in_body => None,
            None => query.optional_flag("orphanDependents"),
        };
        let propagation = match (policy, orphan) {
            (Some(_), Some(_)) => {
                causes.push(Cause::new(
                    "FieldValueInvalid",
                    "propagationPolicy",
                    format!(
                        "Invalid value: \"{}\": orphanDependents and deletionPropagation cannot be both set",
                        policy.unwrap_or_default()
                    ),
                ));
                None
            }
            (Some("Orphan"), None) => Some(Propagation::Orphan),
            (Some("Background"), None) => Some(Propagation::Background),
            (Some("Foreground"), None) => Some(Propagation::Foreground),
            (Some(other), None) => {
                causes.push(Cause::new(
                    "FieldValueNotSupported",
                    "propagationPolicy",
                    format!(
                        "Unsupported value: \"{other}\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
                    ),
                ));
                None
            }
            (None, Some(true)) => Some(Propagation::Orphan),
            (None, Some(false)) => Some(Propagation::Background),
            (None, None) => None,
        };
        if !causes.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &causes));
        }
        let precondition = |name: &str| {
            member("preconditions")?
                .get(name)?
                .as_str()
                .map(ToOwned::to_owned)
        };
        Ok(Self {
            dry_run,
            grace_period_seconds: grace_period_seconds.map(|s| if s < 0 { 1 } else { s }),
            propagation,
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
        })
    }
}
