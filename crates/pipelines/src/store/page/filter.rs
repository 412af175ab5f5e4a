//! The filter of lists: `{"predicates": [{"operation": 1, "key": "name", "string_value": "x"}]}`,
//! all of which must hold. Some clients encode the text twice; some write camelCase.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Conditions, Error, Field, Key, Listing, Result};

/// What the column behind a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    /// Microseconds since 1970, compared by whole seconds, as clients write them.
    Time,
    /// A number for each of some names.
    Names(&'static [(&'static str, i64)]),
    /// The state of a run, by the names of either API.
    State,
    /// A number; only metrics have it, and they are only sorted by.
    Real,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Equals,
    NotEquals,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    In,
    IsSubstring,
}

const OPERATIONS: [(&str, i64, Operation); 8] = [
    ("EQUALS", 1, Operation::Equals),
    ("NOT_EQUALS", 2, Operation::NotEquals),
    ("GREATER_THAN", 3, Operation::Greater),
    ("GREATER_THAN_EQUALS", 5, Operation::GreaterOrEqual),
    ("LESS_THAN", 6, Operation::Less),
    ("LESS_THAN_EQUALS", 7, Operation::LessOrEqual),
    ("IN", 8, Operation::In),
    ("IS_SUBSTRING", 9, Operation::IsSubstring),
];

impl Operation {
    fn read(value: &Value) -> Option<Self> {
        OPERATIONS
            .iter()
            .find(|(name, number, _)| match value {
                Value::String(text) => text == name,
                Value::Number(given) => given.as_i64() == Some(*number),
                _ => false,
            })
            .map(|(.., operation)| *operation)
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Equals | Self::In | Self::IsSubstring => "=",
            Self::NotEquals => "<>",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
        }
    }
}

const SCALARS: [&str; 4] = ["string_value", "int_value", "long_value", "timestamp_value"];
const LISTS: [&str; 3] = ["string_values", "int_values", "long_values"];
const CAMEL: [(&str, &str); 7] = [
    ("stringValue", "string_value"),
    ("intValue", "int_value"),
    ("longValue", "long_value"),
    ("timestampValue", "timestamp_value"),
    ("stringValues", "string_values"),
    ("intValues", "int_values"),
    ("longValues", "long_values"),
];

/// A predicate with its names in one spelling.
struct Predicate<'a> {
    whole: &'a Value,
    key: &'a str,
    operation: Operation,
    values: Vec<&'a Value>,
    list: bool,
}

impl<'a> Predicate<'a> {
    fn read(whole: &'a Value) -> Result<Self> {
        let invalid = |why: &str| Error::Invalid(format!("filter predicate {whole}: {why}"));
        let members = whole
            .as_object()
            .ok_or_else(|| invalid("it is not an object"))?;
        let mut operation = None;
        let mut key = "";
        let mut value = None;
        for (name, member) in members {
            let name = CAMEL
                .iter()
                .find(|(camel, _)| camel == name)
                .map_or(name.as_str(), |(_, snake)| snake);
            match name {
                "op" | "operation" => {
                    operation = Some(Operation::read(member).ok_or_else(|| {
                        let names: Vec<&str> = OPERATIONS.iter().map(|(n, ..)| *n).collect();
                        invalid(&format!("the operation is none of {}", names.join(", ")))
                    })?);
                }
                "key" => key = member.as_str().unwrap_or_default(),
                name if SCALARS.contains(&name) || LISTS.contains(&name) => {
                    if value.replace((LISTS.contains(&name), member)).is_some() {
                        return Err(invalid("it has more than one value"));
                    }
                }
                other => return Err(invalid(&format!("unknown field {other:?}"))),
            }
        }
        if key.is_empty() {
            return Err(invalid("key is empty"));
        }
        let operation = operation.ok_or_else(|| invalid("it has no operation"))?;
        let (list, value) = value.ok_or_else(|| invalid("it has no value"))?;
        let values = match (list, value) {
            (false, value) => vec![value],
            (true, value) => value
                .get("values")
                .map(|values| values.as_array())
                .unwrap_or(Some(const { &Vec::new() }))
                .ok_or_else(|| invalid("values is not a list"))?
                .iter()
                .collect(),
        };
        match (operation, list) {
            (Operation::In, false) => return Err(invalid("IN wants a list of values")),
            (Operation::In, true) | (_, false) => {}
            (_, true) => return Err(invalid("only IN takes a list of values")),
        }
        if operation == Operation::IsSubstring && !values.iter().all(|v| v.is_string()) {
            return Err(invalid("IS_SUBSTRING wants a text"));
        }
        Ok(Self {
            whole,
            key,
            operation,
            values,
            list,
        })
    }

    fn invalid(&self, why: &str) -> Error {
        Error::Invalid(format!("filter predicate {}: {why}", self.whole))
    }

    fn misfit(&self) -> Error {
        self.invalid("the value does not fit the field")
    }
}

impl Listing {
    /// Adds the conditions of a filter.
    pub(super) fn filter(&self, text: &str, conditions: &mut Conditions) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let parsed: Map<String, Value> = serde_json::from_str(text)
            .or_else(|_| serde_json::from_str(&percent_decoded(text)))
            .map_err(|e| Error::Invalid(format!("filter is not a JSON object: {e}")))?;
        if let Some(unknown) = parsed.keys().find(|key| *key != "predicates") {
            return Err(Error::Invalid(format!(
                "filter: unknown field {unknown:?} (known: predicates)"
            )));
        }
        let predicates = match parsed.get("predicates") {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::Array(predicates)) => predicates,
            Some(_) => return Err(Error::Invalid("filter.predicates is not a list".to_owned())),
        };
        for predicate in predicates {
            self.predicate(&Predicate::read(predicate)?, conditions)?;
        }
        Ok(())
    }

    fn predicate(&self, predicate: &Predicate<'_>, conditions: &mut Conditions) -> Result<()> {
        if let (Some(column), Some(tag)) = (self.tags, predicate.key.strip_prefix("tags.")) {
            return tagged(column, tag, predicate, conditions);
        }
        let field = self.field("filter", predicate.key)?;
        match field.kind {
            Kind::Text => textual(field, predicate, conditions, str::to_owned),
            Kind::State => textual(field, predicate, conditions, state),
            Kind::Time => timed(field, predicate, conditions),
            Kind::Names(names) => named(field, names, predicate, conditions),
            Kind::Real => Err(predicate.invalid("a metric cannot be filtered by")),
        }
    }
}

/// The stored name of a state, from the name that v1beta1 or v2beta1 has for it.
fn state(name: &str) -> String {
    match name.to_ascii_uppercase().as_str() {
        "ERROR" | "CANCELED" => "FAILED".to_owned(),
        "TERMINATING" => "CANCELING".to_owned(),
        other => other.to_owned(),
    }
}

fn textual(
    field: &Field,
    predicate: &Predicate<'_>,
    conditions: &mut Conditions,
    stored: impl Fn(&str) -> String,
) -> Result<()> {
    let keys = predicate
        .values
        .iter()
        .map(|value| match value {
            Value::String(text) => Some(Key::Text(stored(text))),
            Value::Number(number) => Some(Key::Text(number.to_string())),
            _ => None,
        })
        .collect::<Option<Vec<Key>>>()
        .ok_or_else(|| predicate.misfit())?;
    within(field.sql, predicate, keys, conditions);
    Ok(())
}

/// A comparison, membership or substring test of a column.
fn within(
    column: &'static str,
    predicate: &Predicate<'_>,
    mut keys: Vec<Key>,
    conditions: &mut Conditions,
) {
    match (predicate.operation, keys.len(), predicate.list) {
        (Operation::In, 0, true) => conditions.add(Some(column), "1 = 0", []),
        (Operation::Equals, ..) | (Operation::In, 1, true) => {
            let key = keys.remove(0);
            conditions.equal(column, key);
        }
        (Operation::In, ..) => {
            let places = vec!["?"; keys.len()].join(", ");
            conditions.add(Some(column), &format!("{column} IN ({places})"), keys);
        }
        (Operation::IsSubstring, ..) => {
            conditions.add(Some(column), &format!("instr({column}, ?) > 0"), keys);
        }
        (operation, ..) => {
            let sql = format!("{column} {} ?", operation.sign());
            conditions.add(Some(column), &sql, keys);
        }
    }
}

fn timed(field: &Field, predicate: &Predicate<'_>, conditions: &mut Conditions) -> Result<()> {
    let seconds = |value: &Value| match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text
            .parse::<Timestamp>()
            .map(Timestamp::as_second)
            .or_else(|_| text.parse())
            .ok(),
        _ => None,
    };
    let bounds = predicate
        .values
        .iter()
        .map(|value| {
            let second = seconds(value)?;
            let from = second.checked_mul(1_000_000)?;
            Some((from, from.checked_add(1_000_000)?))
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| predicate.misfit())?;
    let column = field.sql;
    let mut add = |sql: &str, keys: Vec<i64>| {
        let keys = keys.into_iter().map(Key::Number);
        conditions.add(Some(column), &sql.replace("COLUMN", column), keys);
    };
    match (predicate.operation, bounds.as_slice()) {
        (Operation::IsSubstring, _) => return Err(predicate.misfit()),
        (Operation::In, bounds) => {
            let one = "COLUMN >= ? AND COLUMN < ?";
            let any = vec![one; bounds.len()].join(" OR ");
            let sql = if any.is_empty() { "1 = 0" } else { &any };
            let keys = bounds.iter().flat_map(|(from, to)| [*from, *to]).collect();
            add(&format!("({sql})"), keys);
        }
        (Operation::Equals, &[(from, to)]) => add("(COLUMN >= ? AND COLUMN < ?)", vec![from, to]),
        (Operation::NotEquals, &[(from, to)]) => add("(COLUMN < ? OR COLUMN >= ?)", vec![from, to]),
        (Operation::Greater, &[(_, to)]) => add("COLUMN >= ?", vec![to]),
        (Operation::GreaterOrEqual, &[(from, _)]) => add("COLUMN >= ?", vec![from]),
        (Operation::Less, &[(from, _)]) => add("COLUMN < ?", vec![from]),
        (Operation::LessOrEqual, &[(_, to)]) => add("COLUMN < ?", vec![to]),
        _ => return Err(predicate.misfit()),
    }
    Ok(())
}

/// A column of numbers that stand for names: whatever is asked becomes a set of numbers.
fn named(
    field: &Field,
    names: &'static [(&'static str, i64)],
    predicate: &Predicate<'_>,
    conditions: &mut Conditions,
) -> Result<()> {
    let texts = predicate
        .values
        .iter()
        .map(|value| value.as_str())
        .collect::<Option<Vec<&str>>>()
        .ok_or_else(|| predicate.misfit())?;
    let number = |text: &str| {
        names
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text))
            .map(|(_, number)| *number)
    };
    let mut all: Vec<i64> = names.iter().map(|(_, number)| *number).collect();
    all.sort_unstable();
    all.dedup();
    let asked: Vec<i64> = texts.iter().filter_map(|text| number(text)).collect();
    all.retain(|candidate| match predicate.operation {
        Operation::Equals | Operation::In => asked.contains(candidate),
        Operation::NotEquals => !asked.contains(candidate),
        Operation::IsSubstring => names
            .iter()
            .any(|(name, number)| number == candidate && texts.iter().all(|t| name.contains(t))),
        // Names have no order that means anything; the numbers do.
        operation => asked.iter().all(|asked| match operation {
            Operation::Greater => candidate > asked,
            Operation::GreaterOrEqual => candidate >= asked,
            Operation::Less => candidate < asked,
            _ => candidate <= asked,
        }),
    });
    match all.as_slice() {
        [one] => conditions.equal(field.sql, Key::Number(*one)),
        several => {
            let places = vec!["?"; several.len()].join(", ");
            let keys: Vec<Key> = several.iter().copied().map(Key::Number).collect();
            conditions.add(
                Some(field.sql),
                &format!("{} IN ({places})", field.sql),
                keys,
            );
        }
    }
    Ok(())
}

fn tagged(
    column: &'static str,
    tag: &str,
    predicate: &Predicate<'_>,
    conditions: &mut Conditions,
) -> Result<()> {
    match (predicate.operation, predicate.values.as_slice()) {
        (Operation::Equals, [Value::String(value)]) => {
            let sql =
                format!("EXISTS (SELECT 1 FROM json_each({column}) WHERE key = ? AND atom = ?)");
            let keys = [Key::Text(tag.to_owned()), Key::Text(value.clone())];
            conditions.add(None, &sql, keys);
            Ok(())
        }
        _ => Err(predicate.invalid("tags are only compared with EQUALS and a string_value")),
    }
}

/// Decodes percent signs and pluses once.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let pair = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                let hex = std::str::from_utf8(&pair)
                    .ok()
                    .and_then(|h| u8::from_str_radix(h, 16).ok());
                bytes.push(hex.unwrap_or(b'%'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
