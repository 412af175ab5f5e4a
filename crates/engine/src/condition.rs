//! Conditions of tasks: comparisons of texts, combined.
//!
//! The structure is fixed when the pipeline is compiled and values are put into its operands
//! afterwards, so a value with a quote in it cannot change what a condition means.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::expression::Expression;
use crate::text::{Part, Ref, Scope, Text, render};

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Two operands compared.
    Compare {
        /// Left of the operator.
        left: Operand,
        /// The operator.
        by: Comparison,
        /// Right of the operator.
        right: Operand,
    },
    /// An operand that must be a boolean.
    Truth(Operand),
    /// The opposite.
    Not(Box<Condition>),
    /// All of them.
    All(Vec<Condition>),
    /// One of them.
    Any(Vec<Condition>),
    /// An expression over typed values that must be true.
    Holds(Expression),
}

/// A side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operand {
    /// Its text.
    pub text: Text,
    /// Quoted operands are strings; others are numbers or booleans when they look like one.
    pub quoted: bool,
}

/// How two operands are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Comparison {
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Scalar {
    String(String),
    Number(f64),
    Bool(bool),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => write!(f, "\"{text}\""),
            Self::Number(number) => write!(f, "{number}"),
            Self::Bool(value) => write!(f, "{value}"),
        }
    }
}

impl Operand {
    fn value(&self, scope: &dyn Scope) -> Scalar {
        let text = match self.text.resolve(scope) {
            Value::Bool(value) if !self.quoted => return Scalar::Bool(value),
            value => render(&value),
        };
        if self.quoted {
            return Scalar::String(text);
        }
        let text = text.trim();
        if let Ok(value) = text.parse() {
            return Scalar::Bool(value);
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Scalar::Number(number),
            _ => Scalar::String(text.into()),
        }
    }
}

impl Condition {
    /// The condition as its author wrote it.
    pub fn source(&self) -> String {
        self.written(&Text::source)
    }

    /// The condition with its values in it.
    pub(crate) fn with_values(&self, scope: &dyn Scope) -> String {
        self.written(&|text| text.resolve_string(scope))
    }

    fn written(&self, show: &dyn Fn(&Text) -> String) -> String {
        let operand = |o: &Operand| {
            if o.quoted {
                format!("\"{}\"", show(&o.text))
            } else {
                show(&o.text)
            }
        };
        let join = |all: &[Self], by: &str| {
            all.iter()
                .map(|c| format!("({})", c.written(show)))
                .collect::<Vec<_>>()
                .join(by)
        };
        match self {
            Self::Compare { left, by, right } => {
                format!("{} {} {}", operand(left), by.symbol(), operand(right))
            }
            Self::Truth(value) => operand(value),
            Self::Not(inner) => format!("!({})", inner.written(show)),
            Self::All(all) => join(all, " && "),
            Self::Any(any) => join(any, " || "),
            Self::Holds(expression) => expression.written(&|to| {
                let text = Text::reference(to.clone(), &to.describe());
                show(&text)
            }),
        }
    }

    /// Calls `visit` for everything in the condition that has references.
    pub(crate) fn visit<'a>(&'a self, visit: &mut dyn FnMut(Part<'a>)) {
        match self {
            Self::Compare { left, right, .. } => {
                visit(Part::Text(&left.text));
                visit(Part::Text(&right.text));
            }
            Self::Truth(value) => visit(Part::Text(&value.text)),
            Self::Not(inner) => inner.visit(visit),
            Self::All(all) | Self::Any(all) => all.iter().for_each(|c| c.visit(visit)),
            Self::Holds(expression) => visit(Part::Expression(expression)),
        }
    }

    /// The parameters of the task itself that it names.
    pub fn arguments(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        self.visit(&mut |part| {
            part.visit_refs(&mut |to| {
                if let Ref::Argument(name) = to {
                    names.insert(name.as_str());
                }
            });
        });
        names
    }

    pub(crate) fn uses_item(&self) -> bool {
        let mut uses = false;
        self.visit(&mut |part| uses |= part.uses_item());
        uses
    }

    /// Whether it holds; the error says what could not be compared.
    pub(crate) fn holds(&self, scope: &dyn Scope) -> Result<bool, String> {
        match self {
            Self::Compare { left, by, right } => {
                compare(&left.value(scope), *by, &right.value(scope))
            }
            Self::Truth(operand) => match operand.value(scope) {
                Scalar::Bool(value) => Ok(value),
                other => Err(format!("{other} is neither true nor false")),
            },
            Self::Not(inner) => inner.holds(scope).map(|holds| !holds),
            Self::All(all) => {
                for condition in all {
                    if !condition.holds(scope)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Any(any) => {
                for condition in any {
                    if condition.holds(scope)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Holds(expression) => expression.holds(scope),
        }
    }
}

fn compare(left: &Scalar, by: Comparison, right: &Scalar) -> Result<bool, String> {
    let order = match (by, left, right) {
        (Comparison::Equal, ..) => return Ok(left == right),
        (Comparison::NotEqual, ..) => return Ok(left != right),
        (_, Scalar::Number(l), Scalar::Number(r)) => l.partial_cmp(r),
        (_, Scalar::String(l), Scalar::String(r)) => Some(l.cmp(r)),
        _ => None,
    };
    let Some(order) = order else {
        return Err(format!(
            "cannot compare {left} {} {right}: both must be numbers or both quoted strings",
            by.symbol()
        ));
    };
    Ok(match by {
        Comparison::Less => order == Ordering::Less,
        Comparison::LessOrEqual => order != Ordering::Greater,
        Comparison::Greater => order == Ordering::Greater,
        Comparison::GreaterOrEqual => order != Ordering::Less,
        Comparison::Equal | Comparison::NotEqual => order == Ordering::Equal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Ref;

    struct Nothing;
    impl Scope for Nothing {
        fn lookup(&self, _: &Ref) -> Option<Value> {
            None
        }
    }

    fn check(left: (&str, bool), by: Comparison, right: (&str, bool), expect: Result<bool, ()>) {
        let operand = |(text, quoted)| Operand {
            text: Text::literal(text),
            quoted,
        };
        let condition = Condition::Compare {
            left: operand(left),
            by,
            right: operand(right),
        };
        let got = condition.holds(&Nothing).map_err(|_| ());
        assert_eq!(got, expect, "{}", condition.source());
    }

    #[test]
    fn operands_compare_by_what_they_look_like() {
        use Comparison::*;
        check(("heads", true), Equal, ("heads", true), Ok(true));
        check(("heads", false), Equal, ("heads", true), Ok(true));
        check(("3", false), Equal, ("3.0", false), Ok(true));
        check(("3", true), Equal, ("3", false), Ok(false));
        check(("10", false), Greater, ("9", false), Ok(true));
        check(("10", true), Greater, ("9", true), Ok(false));
        check(("10", true), Less, ("9", false), Err(()));
        check(("true", false), NotEqual, ("false", false), Ok(true));
        check(("2", false), GreaterOrEqual, ("2", false), Ok(true));
        check(("2", false), LessOrEqual, ("1", false), Ok(false));
    }
}
