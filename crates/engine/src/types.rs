//! Types of parameters, and what becomes of a value that is given for one.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::text::render;

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ParameterType {
    /// A number.
    #[serde(rename = "NUMBER_DOUBLE")]
    Double,
    /// A whole number.
    #[serde(rename = "NUMBER_INTEGER")]
    Integer,
    /// A text.
    #[serde(rename = "STRING")]
    String,
    /// True or false.
    #[serde(rename = "BOOLEAN")]
    Boolean,
    /// A list of anything.
    #[serde(rename = "LIST")]
    List,
    /// An object of anything.
    #[serde(rename = "STRUCT")]
    Struct,
    /// How another task ended: an object.
    #[serde(rename = "TASK_FINAL_STATUS")]
    FinalStatus,
    /// The settings of the task's own work: an object that the runner makes.
    #[serde(rename = "TASK_CONFIG")]
    Config,
}

/// A value that is not of the type it should have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {wanted}, got {}", shown(given))]
pub struct Mismatch {
    /// The type.
    pub wanted: ParameterType,
    /// The value.
    pub given: Value,
}

fn shown(value: &Value) -> String {
    let kind = match value {
        Value::Null => return "null".to_string(),
        Value::Bool(_) => "BOOLEAN",
        Value::Number(number) if number.is_f64() => "NUMBER_DOUBLE",
        Value::Number(_) => "NUMBER_INTEGER",
        Value::String(_) => "STRING",
        Value::Array(_) => "LIST",
        Value::Object(_) => "STRUCT",
    };
    let text = value.to_string();
    let start: String = text.chars().take(60).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    format!("{kind} {start}{more}")
}

impl ParameterType {
    /// The name that pipelines use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Double => "NUMBER_DOUBLE",
            Self::Integer => "NUMBER_INTEGER",
            Self::String => "STRING",
            Self::Boolean => "BOOLEAN",
            Self::List => "LIST",
            Self::Struct => "STRUCT",
            Self::FinalStatus => "TASK_FINAL_STATUS",
            Self::Config => "TASK_CONFIG",
        }
    }

    /// The type with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Every type.
    pub const ALL: [Self; 8] = [
        Self::Double,
        Self::Integer,
        Self::String,
        Self::Boolean,
        Self::List,
        Self::Struct,
        Self::FinalStatus,
        Self::Config,
    ];

    /// The value as one of this type: itself, with whole numbers in it written without a fraction.
    /// No other conversion.
    pub fn accept(self, mut value: Value) -> Result<Value, Mismatch> {
        cut_fractions(&mut value);
        let fits = match (self, &value) {
            (Self::Double, Value::Number(_))
            | (Self::String, Value::String(_))
            | (Self::Boolean, Value::Bool(_))
            | (Self::List, Value::Array(_))
            | (Self::Struct | Self::FinalStatus | Self::Config, Value::Object(_)) => true,
            (Self::Integer, Value::Number(number)) => !number.is_f64(),
            _ => false,
        };
        if fits {
            Ok(value)
        } else {
            Err(Mismatch {
                wanted: self,
                given: value,
            })
        }
    }

    /// Like [`ParameterType::accept`], but a text takes everything: as text.
    pub fn coerce(self, mut value: Value) -> Result<Value, Mismatch> {
        cut_fractions(&mut value);
        match (self, value) {
            (Self::String, Value::Null) => Err(Mismatch {
                wanted: self,
                given: Value::Null,
            }),
            (Self::String, value) => Ok(Value::String(render(&value))),
            (_, value) => self.accept(value),
        }
    }
}

impl fmt::Display for ParameterType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Writes the whole numbers in a tree without a fraction, as if all numbers were of one type.
fn cut_fractions(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = whole(number) {
                *number = whole;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(cut_fractions),
        Value::Object(entries) => entries.values_mut().for_each(cut_fractions),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The same number without a fraction, if it has none.
pub(crate) fn whole(number: &Number) -> Option<Number> {
    if !number.is_f64() {
        return Some(number.clone());
    }
    let value = number.as_f64()?;
    // Up to 2^53 a double is exact.
    let exact = -9_007_199_254_740_992.0..=9_007_199_254_740_992.0;
    if !exact.contains(&value) {
        return None;
    }
    let cut = value as i64;
    let same = (cut as f64).total_cmp(&value).is_eq() || value.abs().to_bits() == 0;
    same.then(|| Number::from(cut))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_takes_everything_and_the_rest_only_their_own() {
        use ParameterType::*;
        let check = |kind: ParameterType, given: Value, expect: Option<Value>| {
            assert_eq!(kind.coerce(given.clone()).ok(), expect, "{kind} {given}");
        };
        check(String, json!(3), Some(json!("3")));
        check(String, json!(3.0), Some(json!("3")));
        check(String, json!(0.5), Some(json!("0.5")));
        check(String, json!(true), Some(json!("true")));
        check(String, json!([1.0, "a"]), Some(json!("[1,\"a\"]")));
        check(
            List,
            json!([1.0, {"a": 2.0}, 0.5]),
            Some(json!([1, {"a": 2}, 0.5])),
        );
        check(String, json!("3"), Some(json!("3")));
        check(String, json!(null), None);
        check(Integer, json!(3), Some(json!(3)));
        check(Integer, json!(3.0), Some(json!(3)));
        check(Integer, json!(3.5), None);
        check(Integer, json!("3"), None);
        check(Double, json!(3), Some(json!(3)));
        check(Boolean, json!(1), None);
        check(List, json!("[1]"), None);
        check(Struct, json!({}), Some(json!({})));
        check(Struct, json!([]), None);
    }

    #[test]
    fn a_mismatch_names_both_types() {
        let error = ParameterType::Integer.coerce(json!("three")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected NUMBER_INTEGER, got STRING \"three\""
        );
    }

    #[test]
    fn names_and_types_match() {
        for kind in ParameterType::ALL {
            assert_eq!(ParameterType::parse(kind.as_str()), Some(kind));
            assert_eq!(json!(kind), json!(kind.as_str()));
        }
        assert_eq!(ParameterType::parse("INT"), None);
    }
}
