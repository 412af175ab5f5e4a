//! Expressions over values: what selects a part of a value, and what conditions on typed values are
//! made of.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::condition::Comparison;
use crate::text::{Ref, Scope, Text, render};
use crate::types::whole;

/// An expression. Its value may be absent: that of an optional input which was not given, or of an
/// output that was not produced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expression {
    /// A value.
    Constant(Value),
    /// The value of a reference.
    Ref(Ref),
    /// A text with references in it; one without a value stands for itself.
    Format(Text),
    /// The first of them that is not absent.
    First(Vec<Expression>),
    /// What a JSON text says; what is no text is left as it is.
    ParseJson(Box<Expression>),
    /// As text: strings as they are, everything else as JSON.
    Text(Box<Expression>),
    /// As whole number, cut towards zero.
    Integer(Box<Expression>),
    /// As number.
    Double(Box<Expression>),
    /// The number with the other sign.
    Negative(Box<Expression>),
    /// How many characters, items or entries.
    Size(Box<Expression>),
    /// A value inside an object (by a text) or a list (by a number).
    Index(Box<Expression>, Box<Expression>),
    /// The opposite.
    Not(Box<Expression>),
    /// All of them.
    All(Vec<Expression>),
    /// One of them.
    Any(Vec<Expression>),
    /// Two values compared.
    Compare {
        /// Left of the operator.
        left: Box<Expression>,
        /// The operator.
        by: Comparison,
        /// Right of the operator.
        right: Box<Expression>,
    },
}

type Result<T> = core::result::Result<T, String>;

impl Expression {
    /// Its value; the error says what cannot be calculated.
    pub(crate) fn value(&self, scope: &dyn Scope) -> Result<Option<Value>> {
        let some = |value: Value| Ok(Some(value));
        match self {
            Self::Constant(value) => some(value.clone()),
            Self::Ref(to) => Ok(scope.lookup(to)),
            Self::Format(text) => some(Value::String(text.resolve_string(scope))),
            Self::First(all) => {
                for one in all {
                    if let Some(value) = one.value(scope)? {
                        return some(value);
                    }
                }
                Ok(None)
            }
            Self::ParseJson(inner) => match inner.value(scope)? {
                Some(Value::String(text)) => match serde_json::from_str(&text) {
                    Ok(value) => some(value),
                    Err(error) => Err(format!("{} is not JSON: {error}", start(&text))),
                },
                other => Ok(other),
            },
            Self::Text(inner) => Ok(inner.value(scope)?.map(|v| Value::String(render(&v)))),
            Self::Integer(inner) => inner.need(scope).and_then(integer).and_then(some),
            Self::Double(inner) => inner.need(scope).and_then(double).and_then(some),
            Self::Negative(inner) => match inner.need(scope)? {
                Value::Number(number) => some(negative(&number)),
                other => Err(format!("{other} is no number")),
            },
            Self::Size(inner) => match inner.need(scope)? {
                Value::String(text) => some(text.chars().count().into()),
                Value::Array(items) => some(items.len().into()),
                Value::Object(entries) => some(entries.len().into()),
                other => Err(format!("{other} has no size")),
            },
            Self::Index(of, key) => index(of.need(scope)?, &key.need(scope)?).and_then(some),
            Self::Not(inner) => some(Value::Bool(!inner.holds(scope)?)),
            Self::All(all) => {
                for one in all {
                    if !one.holds(scope)? {
                        return some(Value::Bool(false));
                    }
                }
                some(Value::Bool(true))
            }
            Self::Any(any) => {
                for one in any {
                    if one.holds(scope)? {
                        return some(Value::Bool(true));
                    }
                }
                some(Value::Bool(false))
            }
            Self::Compare { left, by, right } => {
                let (left, right) = (left.need(scope)?, right.need(scope)?);
                compare(&left, *by, &right).map(|holds| Some(Value::Bool(holds)))
            }
        }
    }

    /// Whether it is true.
    pub(crate) fn holds(&self, scope: &dyn Scope) -> Result<bool> {
        match self.need(scope)? {
            Value::Bool(value) => Ok(value),
            other => Err(format!("{other} is neither true nor false")),
        }
    }

    /// Its value; absent counts as null.
    fn need(&self, scope: &dyn Scope) -> Result<Value> {
        Ok(self.value(scope)?.unwrap_or(Value::Null))
    }

    /// Calls `visit` for every reference in it.
    pub(crate) fn visit_refs<'a>(&'a self, visit: &mut dyn FnMut(&'a Ref)) {
        match self {
            Self::Constant(_) => {}
            Self::Ref(to) => visit(to),
            Self::Format(text) => text.refs().for_each(visit),
            Self::First(all) | Self::All(all) | Self::Any(all) => {
                for one in all {
                    one.visit_refs(visit);
                }
            }
            Self::ParseJson(inner)
            | Self::Text(inner)
            | Self::Integer(inner)
            | Self::Double(inner)
            | Self::Negative(inner)
            | Self::Size(inner)
            | Self::Not(inner) => inner.visit_refs(visit),
            Self::Index(left, right) | Self::Compare { left, right, .. } => {
                left.visit_refs(visit);
                right.visit_refs(visit);
            }
        }
    }

    /// The expression as text; `show` writes the references.
    pub(crate) fn written(&self, show: &dyn Fn(&Ref) -> String) -> String {
        let call = |name: &str, inner: &Self| format!("{name}({})", inner.written(show));
        let join = |all: &[Self], by: &str| {
            let all: Vec<_> = all.iter().map(|one| one.written(show)).collect();
            all.join(by)
        };
        match self {
            Self::Constant(value) => value.to_string(),
            Self::Ref(to) => show(to),
            Self::Format(text) => text.source(),
            Self::First(all) => format!("first({})", join(all, ", ")),
            Self::ParseJson(inner) => call("parseJson", inner),
            Self::Text(inner) => call("string", inner),
            Self::Integer(inner) => call("int", inner),
            Self::Double(inner) => call("double", inner),
            Self::Negative(inner) => format!("-{}", inner.written(show)),
            Self::Size(inner) => call("size", inner),
            Self::Index(of, key) => format!("{}[{}]", of.written(show), key.written(show)),
            Self::Not(inner) => call("!", inner),
            Self::All(all) => join(all, " && "),
            Self::Any(any) => format!("({})", join(any, " || ")),
            Self::Compare { left, by, right } => format!(
                "{} {} {}",
                left.written(show),
                by.symbol(),
                right.written(show)
            ),
        }
    }
}

fn start(text: &str) -> String {
    format!("{:?}", text.chars().take(60).collect::<String>())
}

fn integer(value: Value) -> Result<Value> {
    let refuse = || Err(format!("int({value}): no whole number"));
    match &value {
        Value::Number(number) => match whole(number) {
            Some(number) => Ok(Value::Number(number)),
            // Beyond the range of integers there is nothing to cut to.
            None => match number.as_f64() {
                Some(float) if float > -9.2e18 && float < 9.2e18 => Ok((float as i64).into()),
                _ => refuse(),
            },
        },
        Value::String(text) => match text.trim().parse::<i64>() {
            Ok(number) => Ok(number.into()),
            Err(_) => refuse(),
        },
        _ => refuse(),
    }
}

fn double(value: Value) -> Result<Value> {
    let number = match &value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match number.and_then(Number::from_f64) {
        Some(number) => Ok(Value::Number(number)),
        None => Err(format!("double({value}): no number")),
    }
}

fn negative(number: &Number) -> Value {
    match number.as_i64().and_then(i64::checked_neg) {
        Some(negative) => negative.into(),
        None => number
            .as_f64()
            .and_then(|float| Number::from_f64(-float))
            .map_or(Value::Null, Value::Number),
    }
}

fn index(of: Value, key: &Value) -> Result<Value> {
    let missing = |what: &str| Err(format!("there is no {what} {key}"));
    match (of, key) {
        (Value::Object(mut entries), Value::String(name)) => match entries.remove(name) {
            Some(value) => Ok(value),
            None => missing("key"),
        },
        (Value::Array(mut items), Value::Number(number)) => {
            let place = whole(number).and_then(|n| n.as_u64());
            match place.and_then(|place| usize::try_from(place).ok()) {
                Some(place) if place < items.len() => Ok(items.swap_remove(place)),
                _ => missing("item"),
            }
        }
        (of, _) => Err(format!(
            "{} has nothing at {key}",
            of.to_string().chars().take(60).collect::<String>()
        )),
    }
}

fn compare(left: &Value, by: Comparison, right: &Value) -> Result<bool> {
    let order = match (left, right) {
        (Value::Number(l), Value::Number(r)) => order(l, r),
        (Value::String(l), Value::String(r)) => Some(l.cmp(r)),
        (Value::Bool(l), Value::Bool(r)) => Some(l.cmp(r)),
        _ => None,
    };
    match (by, order) {
        (Comparison::Equal, Some(order)) => Ok(order == Ordering::Equal),
        (Comparison::NotEqual, Some(order)) => Ok(order != Ordering::Equal),
        (Comparison::Equal, None) => Ok(left == right),
        (Comparison::NotEqual, None) => Ok(left != right),
        (_, None) => Err(format!(
            "cannot compare {left} {} {right}: they are of different types",
            by.symbol()
        )),
        (Comparison::Less, Some(order)) => Ok(order == Ordering::Less),
        (Comparison::LessOrEqual, Some(order)) => Ok(order != Ordering::Greater),
        (Comparison::Greater, Some(order)) => Ok(order == Ordering::Greater),
        (Comparison::GreaterOrEqual, Some(order)) => Ok(order != Ordering::Less),
    }
}

fn order(left: &Number, right: &Number) -> Option<Ordering> {
    match (left.as_i64(), right.as_i64()) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

#[cfg(test)]
mod tests;
