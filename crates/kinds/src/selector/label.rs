//! Label selectors: `app=web,tier in (a,b),!legacy` with upstream's grammar and complaints, and the
//! `{matchLabels, matchExpressions}` object.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

use super::parse;
use crate::content;
use crate::field::{self, ErrorList, Path};
use crate::tree;

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Exists,
    DoesNotExist,
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    GreaterThan,
    LessThan,
}

/// A conjunction of requirements, or one that matches nothing (an absent LabelSelector).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelSelector {
    All(Vec<Requirement>),
    Nothing,
}

/// A selector could not be read; the text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

impl Default for LabelSelector {
    fn default() -> Self {
        Self::everything()
    }
}

impl LabelSelector {
    pub fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// Whether no label is looked at and all objects match.
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::All(list) if list.is_empty())
    }

    /// Reads the form of `?labelSelector=`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::requirements(text)
            .map(Self::All)
            .map_err(SelectorError)
    }

    /// Reads a LabelSelector object; null or missing matches nothing, `{}` everything.
    pub fn from_object(selector: Option<&Value>) -> Result<Self, SelectorError> {
        let Some(selector) = selector.filter(|s| !s.is_null()) else {
            return Ok(Self::Nothing);
        };
        let mut requirements = Vec::new();
        for (key, value) in tree::strings(selector, "matchLabels") {
            requirements.push(requirement(
                key,
                Operator::Equals,
                [value.to_owned()].into(),
            )?);
        }
        for expression in tree::list(selector, "matchExpressions") {
            let operator = match tree::text(expression, "operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    let text = format!(
                        "{} is not a valid label selector operator",
                        field::quote(other)
                    );
                    return Err(SelectorError(text));
                }
            };
            let values = tree::words(expression, "values")
                .into_iter()
                .map(str::to_owned)
                .collect();
            requirements.push(requirement(
                tree::text(expression, "key"),
                operator,
                values,
            )?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self::All(requirements))
    }

    /// A selector for exactly these labels: the `spec.selector` of a Service.
    pub fn from_labels(labels: Option<&Map<String, Value>>) -> Self {
        let each = labels.into_iter().flatten();
        Self::All(
            each.map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: value.as_str().map(str::to_owned).into_iter().collect(),
            })
            .collect(),
        )
    }

    /// Whether a label map (`metadata.labels`) matches.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        match self {
            Self::Nothing => false,
            Self::All(requirements) => requirements.iter().all(|r| {
                r.matches(
                    labels
                        .and_then(|map| map.get(&r.key))
                        .and_then(Value::as_str),
                )
            }),
        }
    }

    /// Whether an object's labels match.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(tree::map(object, "metadata.labels"))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::All(requirements) = self else {
            return Ok(());
        };
        for (i, requirement) in requirements.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        let joined = values.join(",");
        let key = &self.key;
        match self.operator {
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::Equals => write!(f, "{key}={joined}"),
            Operator::DoubleEquals => write!(f, "{key}=={joined}"),
            Operator::NotEquals => write!(f, "{key}!={joined}"),
            Operator::In => write!(f, "{key} in ({joined})"),
            Operator::NotIn => write!(f, "{key} notin ({joined})"),
            Operator::GreaterThan => write!(f, "{key}>{joined}"),
            Operator::LessThan => write!(f, "{key}<{joined}"),
        }
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        match self.operator {
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::In | Operator::Equals | Operator::DoubleEquals => {
                value.is_some_and(|v| self.values.contains(v))
            }
            Operator::NotIn | Operator::NotEquals => value.is_none_or(|v| !self.values.contains(v)),
            Operator::GreaterThan | Operator::LessThan => {
                let bound = self.values.first().and_then(|v| v.parse::<i64>().ok());
                match (value.and_then(|v| v.parse::<i64>().ok()), bound) {
                    (Some(v), Some(b)) if self.operator == Operator::GreaterThan => v > b,
                    (Some(v), Some(b)) => v < b,
                    _ => false,
                }
            }
        }
    }
}

/// The text of a LabelSelector object as tables and Scale show it: `app=d,tier in (a,b)`.
pub fn format_object(selector: Option<&Value>) -> String {
    let Some(selector) = selector else {
        return "<none>".to_owned();
    };
    match LabelSelector::from_object(Some(selector)) {
        Ok(LabelSelector::All(list)) if list.is_empty() => "<none>".to_owned(),
        Ok(all @ LabelSelector::All(_)) => all.to_string(),
        Ok(LabelSelector::Nothing) => "<none>".to_owned(),
        Err(_) => "<error>".to_owned(),
    }
}

/// The errors of a LabelSelector object.
pub fn validate_object(selector: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let labels_path = path.child("matchLabels");
    for (key, value) in tree::strings(selector, "matchLabels") {
        for message in content::qualified_name(key) {
            errors.push(field::Error::invalid(&labels_path, key, message));
        }
        for message in content::label_value(value) {
            errors.push(field::Error::invalid(&labels_path, value, message));
        }
    }
    for (i, expression) in tree::list(selector, "matchExpressions").iter().enumerate() {
        errors.extend(validate_expression(
            expression,
            &path.child("matchExpressions").index(i),
        ));
    }
    errors
}

fn validate_expression(expression: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let values = tree::words(expression, "values");
    match tree::text(expression, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(field::Error::required(&path.child("values"), detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(field::Error::forbidden(&path.child("values"), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(field::Error::invalid(
            &path.child("operator"),
            other,
            "not a valid selector operator",
        )),
    }
    let key = tree::text(expression, "key");
    for message in content::qualified_name(key) {
        errors.push(field::Error::invalid(&path.child("key"), key, message));
    }
    for (i, value) in values.iter().enumerate() {
        for message in content::label_value(value) {
            errors.push(field::Error::invalid(
                &path.child("values").index(i),
                *value,
                message,
            ));
        }
    }
    errors
}

pub(super) fn requirement(
    key: &str,
    operator: Operator,
    values: BTreeSet<String>,
) -> Result<Requirement, SelectorError> {
    check_key(key).map_err(SelectorError)?;
    let list: Vec<&str> = values.iter().map(String::as_str).collect();
    let shown = Value::from(list.clone()).to_string();
    let complain = |detail: &str| {
        Err(SelectorError(format!(
            "values: Invalid value: {shown}: {detail}"
        )))
    };
    match operator {
        Operator::In | Operator::NotIn if list.is_empty() => {
            return complain("for 'in', 'notin' operators, values set can't be empty");
        }
        Operator::Exists | Operator::DoesNotExist if !list.is_empty() => {
            return complain("values set must be empty for exists and does not exist");
        }
        Operator::GreaterThan | Operator::LessThan => {
            if let Some(bad) = list.iter().find(|value| value.parse::<i64>().is_err()) {
                return Err(SelectorError(format!(
                    "values[0]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
                    field::quote(bad)
                )));
            }
        }
        _ => {}
    }
    for (i, value) in list.iter().enumerate() {
        let complaints = content::label_value(value);
        if !complaints.is_empty() {
            return Err(SelectorError(format!(
                "values[{i}][{key}]: Invalid value: {}: {}",
                field::quote(value),
                complaints.join("; ")
            )));
        }
    }
    Ok(Requirement {
        key: key.to_owned(),
        operator,
        values,
    })
}

pub(super) fn check_key(key: &str) -> Result<(), String> {
    let complaints = content::qualified_name(key);
    if complaints.is_empty() {
        return Ok(());
    }
    // The selector of a request has no path, which upstream prints like this.
    Err(format!(
        "<nil>: Invalid value: {}: {}",
        field::quote(key),
        complaints.join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(selector: &str, labels: &Value, expected: bool) {
        let parsed = LabelSelector::parse(selector).unwrap();
        assert_eq!(
            parsed.matches(labels.as_object()),
            expected,
            "{selector} on {labels}"
        );
    }

    #[test]
    fn matching() {
        let labels = json!({"t": "x", "n": "2"});
        let yes = [
            "",
            "t",
            "t=x",
            "t==x",
            "t in (x,y)",
            "!u",
            "u!=1",
            "u notin (a)",
            "n>1",
            "n<3",
            "t=x,n=2",
            " t = x ",
            "t in (x)",
            "in!=1",
        ];
        let no = [
            "u",
            "!t",
            "t!=x",
            "t in (y)",
            "t notin (x)",
            "n>2",
            "t=",
            "t=x,n=3",
        ];
        for selector in yes {
            check(selector, &labels, true);
        }
        for selector in no {
            check(selector, &labels, false);
        }
    }

    #[test]
    fn complaints() {
        let cases = [
            (
                "n gt 1",
                "unable to parse requirement: found 'gt', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                "t in x",
                "unable to parse requirement: found 'x' expected: '('",
            ),
            ("t=x,", "found '', expected: identifier after ','"),
            (
                "=x",
                "found '=', expected: !, identifier, or 'end of string'",
            ),
            ("t=x y", "found 'y', expected: ',' or 'end of string'"),
            (
                "t in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            ),
        ];
        for (given, expected) in cases {
            assert_eq!(
                LabelSelector::parse(given).unwrap_err().0,
                expected,
                "{given}"
            );
        }
    }

    #[test]
    fn objects() {
        let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]});
        let parsed = LabelSelector::from_object(Some(&selector)).unwrap();
        assert!(parsed.matches(json!({"a": "b", "c": ""}).as_object()));
        assert!(!parsed.matches(json!({"a": "b"}).as_object()));
        assert_eq!(format_object(Some(&selector)), "a=b,c");
        assert!(!LabelSelector::from_object(None).unwrap().matches(None));
        assert!(
            LabelSelector::from_object(Some(&json!({})))
                .unwrap()
                .matches(None)
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-c=!<>(), ]{0,16}|.{0,8}") {
            let _ = LabelSelector::parse(&text);
        }

        #[test]
        fn what_is_printed_reads_the_same(text in "[a-c](=|!=|==| in \\(| notin \\()[a-c]\\)?") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
            }
        }
    }
}
