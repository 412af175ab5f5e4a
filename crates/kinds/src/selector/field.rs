//! Field selectors: `metadata.name=a,status.phase!=Running`, which fields a kind can be selected by
//! ([`Fields`]), and the answers for those it cannot.

use serde_json::Value;

use super::label::SelectorError;
use crate::tree;

/// The fields by which a kind's objects can be selected.
#[derive(Debug)]
pub struct Fields {
    /// Field labels, each a dotted path unless `alias` says otherwise.
    pub labels: &'static [&'static str],
    /// Old names and labels whose value stands elsewhere: (label, dotted path).
    pub alias: &'static [(&'static str, &'static str)],
    /// What a label that is not known is answered.
    pub unknown: fn(&str) -> String,
    /// Values that a missing field has: (label, text).
    pub zero: &'static [(&'static str, &'static str)],
    /// Whether this is the row of a custom resource.
    pub custom: bool,
}

fn unknown_metadata(label: &str) -> String {
    format!(
        "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        crate::field::quote(label)
    )
}

/// `field label not supported: x`, the answer of kinds with fields of their own.
pub fn not_supported(label: &str) -> String {
    format!("field label not supported: {label}")
}

/// Name and namespace only: what kinds without fields of their own have.
pub const METADATA_FIELDS: Fields = Fields {
    labels: &["metadata.name", "metadata.namespace"],
    alias: &[],
    unknown: unknown_metadata,
    zero: &[],
    custom: false,
};

/// The fields of custom resources.
pub const CUSTOM_FIELDS: Fields = Fields {
    unknown: not_supported,
    custom: true,
    ..METADATA_FIELDS
};

impl Fields {
    /// Name and namespace, and the given ones, with the usual answer for others.
    pub const fn with(labels: &'static [&'static str]) -> Self {
        Self {
            labels,
            unknown: not_supported,
            ..METADATA_FIELDS
        }
    }

    /// The value of a selectable field; missing fields are "" or the kind's zero value.
    pub fn value(&self, object: &Value, label: &str) -> String {
        let path = self
            .alias
            .iter()
            .find(|(name, _)| *name == label)
            .map_or(label, |(_, path)| path);
        match tree::get(object, path) {
            Some(Value::String(text)) if !text.is_empty() => text.clone(),
            Some(Value::String(_)) | None => {
                let zero = self.zero.iter().find(|(name, _)| *name == label);
                zero.map_or("", |(_, text)| text).to_owned()
            }
            Some(Value::Array(list)) => {
                let texts: Vec<String> = list
                    .iter()
                    .map(|item| {
                        item.as_str()
                            .unwrap_or_else(|| tree::text(item, "ip"))
                            .to_owned()
                    })
                    .collect();
                texts.join(",")
            }
            Some(other) => other.to_string(),
        }
    }
}

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub label: String,
    pub equal: bool,
    pub value: String,
}

/// A conjunction of terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub terms: Vec<Term>,
}

impl FieldSelector {
    /// Reads the form of `?fieldSelector=` and checks its labels against a kind's fields.
    pub fn parse(text: &str, fields: &Fields) -> Result<Self, SelectorError> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let (label, equal, raw) = split_term(part).ok_or_else(|| {
                SelectorError(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                ))
            })?;
            let value = unescape(raw).map_err(SelectorError)?;
            let known = fields.labels.contains(&label)
                || fields.alias.iter().any(|(name, _)| *name == label);
            if !known {
                return Err(SelectorError((fields.unknown)(label)));
            }
            terms.push(Term {
                label: label.to_owned(),
                equal,
                value,
            });
        }
        Ok(Self { terms })
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    pub fn matches(&self, object: &Value, fields: &Fields) -> bool {
        self.terms
            .iter()
            .all(|term| (fields.value(object, &term.label) == term.value) == term.equal)
    }

    /// The one name that can match, if a term asks for it: a list or watch of a single object.
    pub fn exact_name(&self) -> Option<&str> {
        self.exact("metadata.name")
    }

    /// The value that a field must have, if a term says so.
    pub fn exact(&self, label: &str) -> Option<&str> {
        let term = self
            .terms
            .iter()
            .find(|term| term.label == label && term.equal);
        term.map(|term| term.value.as_str())
    }
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (i, _) in term.char_indices() {
        let rest = &term[i..];
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((&term[..i], equal, value));
            }
        }
    }
    None
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                Some(next) => {
                    return Err(format!("invalid escape sequence: \\{next}"));
                }
                None => return Err("invalid escape sequence: \\".to_owned()),
            },
            ',' | '=' => return Err(format!("invalid unescaped character: {c}")),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selecting() {
        let object = json!({"metadata": {"name": "b", "namespace": "n"}});
        for (text, expected) in [
            ("metadata.name=b", true),
            ("metadata.name==b", true),
            ("metadata.name!=b", false),
            ("metadata.name=b,metadata.namespace=m", false),
            ("", true),
        ] {
            let selector = FieldSelector::parse(text, &METADATA_FIELDS).unwrap();
            assert_eq!(
                selector.matches(&object, &METADATA_FIELDS),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn complaints() {
        let error = |text, fields: &Fields| FieldSelector::parse(text, fields).unwrap_err().0;
        assert_eq!(
            error("data.x=b", &METADATA_FIELDS),
            r#""data.x" is not a known field selector: only "metadata.name", "metadata.namespace""#
        );
        assert_eq!(
            error("garbage", &METADATA_FIELDS),
            "invalid selector: 'garbage'; can't understand 'garbage'"
        );
        assert_eq!(
            error("spec.a=1", &CUSTOM_FIELDS),
            "field label not supported: spec.a"
        );
    }
}
