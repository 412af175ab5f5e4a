//! Pages of lists: order, filter, and tokens that continue by key, so that a deep page costs what
//! the first costs and nothing is skipped or repeated when rows are added meanwhile.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use db::sqlx::sqlite::{SqliteArguments, SqliteRow};
use db::sqlx::{self, Arguments as _, AssertSqlSafe, Row as _, SqlitePool};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, Result};

const DEFAULT_SIZE: i64 = 20;
const MAX_SIZE: i64 = 200;

/// The type of a column that can be sorted and filtered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    /// Microseconds since 1970.
    Time,
}

/// A field of the API and the SQL expression behind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) names: &'static [&'static str],
    pub(crate) sql: &'static str,
    pub(crate) kind: Kind,
}

/// What a list can be asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listing {
    /// For messages: `experiment`, `run`.
    pub(crate) noun: &'static str,
    /// Everything between SELECT and FROM, FROM included, up to WHERE.
    pub(crate) select: &'static str,
    /// Everything from FROM up to WHERE, for counting.
    pub(crate) from: &'static str,
    /// The id column, which breaks ties.
    pub(crate) id: &'static str,
    pub(crate) fields: &'static [Field],
}

/// What the request says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Request {
    pub(crate) page_token: String,
    pub(crate) page_size: Option<String>,
    pub(crate) sort_by: String,
    pub(crate) filter: String,
}

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) rows: Vec<SqliteRow>,
    pub(crate) total: i64,
    pub(crate) next: String,
}

/// A fixed condition of the caller: SQL with one `?` and the value.
pub(crate) type Scope = (&'static str, String);

#[derive(Debug, Serialize, Deserialize)]
struct Token {
    sort_by: String,
    filter: String,
    size: i64,
    key: Key,
    id: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Key {
    Number(i64),
    Text(String),
}

/// A condition and the values of its placeholders.
#[derive(Debug, Default)]
struct Conditions {
    sql: Vec<String>,
    values: Vec<Key>,
}

impl Conditions {
    /// Adds a condition whose `?` stand for `values`.
    fn add(&mut self, sql: &str, values: impl IntoIterator<Item = Key>) {
        let mut numbered = String::new();
        let mut next = self.values.len();
        for part in sql.split_inclusive('?') {
            match part.strip_suffix('?') {
                Some(text) => {
                    next += 1;
                    numbered.push_str(text);
                    numbered.push('$');
                    numbered.push_str(&next.to_string());
                }
                None => numbered.push_str(part),
            }
        }
        self.sql.push(numbered);
        self.values.extend(values);
    }

    fn clause(&self) -> String {
        if self.sql.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", self.sql.join(" AND "))
        }
    }

    fn arguments(&self) -> Result<SqliteArguments> {
        let mut arguments = SqliteArguments::default();
        for value in &self.values {
            match value {
                Key::Number(number) => arguments.add(*number),
                Key::Text(text) => arguments.add(text.clone()),
            }
            .map_err(|e| Error::from(sqlx::Error::Encode(e)))?;
        }
        Ok(arguments)
    }
}

impl Listing {
    /// Reads a page.
    pub(crate) async fn page(
        &self,
        pool: &SqlitePool,
        request: &Request,
        scopes: &[Scope],
    ) -> Result<Page> {
        let token = Self::token(request)?;
        let (sort_by, filter) = match &token {
            Some(token) => (token.sort_by.as_str(), token.filter.as_str()),
            None => (request.sort_by.as_str(), request.filter.as_str()),
        };
        let size = match &token {
            Some(token) if request.page_size.is_none() => token.size,
            _ => page_size(request.page_size.as_deref())?,
        };
        let (field, descending) = self.order(sort_by)?;
        let mut conditions = Conditions::default();
        for (sql, value) in scopes {
            conditions.add(sql, [Key::Text(value.clone())]);
        }
        self.filter(filter, &mut conditions)?;
        let count = format!("SELECT count(*) {}{}", self.from, conditions.clause());
        let total: i64 = sqlx::query_scalar_with(AssertSqlSafe(count), conditions.arguments()?)
            .fetch_one(pool)
            .await?;
        if let Some(token) = &token {
            let than = if descending { '<' } else { '>' };
            let sql = format!("({}, {}) {than} (?, ?)", field.sql, self.id);
            conditions.add(&sql, [token.key.clone(), Key::Text(token.id.clone())]);
        }
        let direction = if descending { "DESC" } else { "ASC" };
        let query = format!(
            "SELECT {} AS sort_key, {} AS sort_id, {}{} ORDER BY {} {direction}, {} {direction} LIMIT {}",
            field.sql,
            self.id,
            self.select,
            conditions.clause(),
            field.sql,
            self.id,
            size + 1
        );
        let mut rows = sqlx::query_with(AssertSqlSafe(query), conditions.arguments()?)
            .fetch_all(pool)
            .await?;
        let more = rows.len() as i64 > size;
        rows.truncate(size as usize);
        let next = match rows.last() {
            Some(last) if more => encode(&Token {
                sort_by: sort_by.to_owned(),
                filter: filter.to_owned(),
                size,
                key: match field.kind {
                    Kind::Text => Key::Text(last.try_get("sort_key")?),
                    Kind::Time => Key::Number(last.try_get("sort_key")?),
                },
                id: last.try_get("sort_id")?,
            }),
            Some(_) | None => String::new(),
        };
        Ok(Page { rows, total, next })
    }

    fn token(request: &Request) -> Result<Option<Token>> {
        if request.page_token.is_empty() {
            return Ok(None);
        }
        let token: Token = URL_SAFE_NO_PAD
            .decode(&request.page_token)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| {
                Error::Invalid(format!(
                    "page_token {:?} is not one of ours",
                    request.page_token
                ))
            })?;
        let changed = |asked: &str, kept: &str| !asked.is_empty() && asked != kept;
        if changed(&request.sort_by, &token.sort_by) || changed(&request.filter, &token.filter) {
            return Err(Error::Invalid(
                "page_token belongs to another sort_by or filter; start again without it"
                    .to_owned(),
            ));
        }
        Ok(Some(token))
    }

    fn order(&self, sort_by: &str) -> Result<(&'static Field, bool)> {
        let mut words = sort_by.split_whitespace();
        let name = words.next().unwrap_or("created_at");
        let descending = match words.next().map(str::to_ascii_lowercase).as_deref() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(other) => {
                return Err(Error::Invalid(format!(
                    "sort_by {sort_by:?}: {other:?} is no order (allowed: asc, desc)"
                )));
            }
        };
        Ok((self.field("sort_by", name)?, descending))
    }

    fn field(&self, what: &str, name: &str) -> Result<&'static Field> {
        let known = |field: &&Field| field.names.iter().any(|n| n.eq_ignore_ascii_case(name));
        self.fields.iter().find(known).ok_or_else(|| {
            let names: Vec<&str> = self.fields.iter().map(|f| f.names[0]).collect();
            Error::Invalid(format!(
                "{what}: a {} has no field {name:?} (allowed: {})",
                self.noun,
                names.join(", ")
            ))
        })
    }

    /// The filter of the API: `{"predicates": [{"op": 1, "key": "name", "string_value": "x"}]}`, all
    /// of which must hold. Some clients encode it twice.
    fn filter(&self, text: &str, conditions: &mut Conditions) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let parsed: Value = serde_json::from_str(text)
            .or_else(|_| {
                let decoded = percent_decoded(text);
                serde_json::from_str(&decoded)
            })
            .map_err(|e| Error::Invalid(format!("filter is not JSON: {e}")))?;
        for predicate in parsed["predicates"].as_array().into_iter().flatten() {
            self.predicate(predicate, conditions)?;
        }
        Ok(())
    }

    fn predicate(&self, predicate: &Value, conditions: &mut Conditions) -> Result<()> {
        let invalid = |why: &str| Error::Invalid(format!("filter predicate {predicate}: {why}"));
        let key = predicate["key"].as_str().filter(|k| !k.is_empty());
        let field = self.field("filter", key.ok_or_else(|| invalid("key is empty"))?)?;
        let operation = operation(predicate.get("op").or_else(|| predicate.get("operation")))
            .ok_or_else(|| {
                invalid(
                    "op is none of EQUALS, NOT_EQUALS, GREATER_THAN, \
                GREATER_THAN_EQUALS, LESS_THAN, LESS_THAN_EQUALS, IN, IS_SUBSTRING",
                )
            })?;
        let values = values(predicate).ok_or_else(|| invalid("it has no value"))?;
        let keys = values
            .iter()
            .map(|value| comparable(field.kind, value))
            .collect::<Option<Vec<Key>>>()
            .ok_or_else(|| invalid("the value does not fit the field"))?;
        match (operation, keys.as_slice(), predicate_is_list(predicate)) {
            (Operation::In, _, false) => return Err(invalid("IN wants a list of values")),
            (Operation::In, [], true) => conditions.add("1 = 0", []),
            (Operation::In, _, true) => {
                let places = vec!["?"; keys.len()].join(", ");
                conditions.add(&format!("{} IN ({places})", field.sql), keys);
            }
            (_, _, true) => return Err(invalid("only IN takes a list of values")),
            (Operation::IsSubstring, [Key::Text(_)], false) => {
                conditions.add(&format!("instr({}, ?) > 0", field.sql), keys);
            }
            (Operation::IsSubstring, ..) => return Err(invalid("IS_SUBSTRING wants a text")),
            (Operation::Compare(sign), ..) => {
                // Times compare by whole seconds, as clients write them.
                let sql = match field.kind {
                    Kind::Text => field.sql.to_owned(),
                    Kind::Time => format!("({} / 1000000)", field.sql),
                };
                conditions.add(&format!("{sql} {sign} ?"), keys);
            }
        }
        Ok(())
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

#[derive(Debug, Clone, Copy)]
enum Operation {
    Compare(&'static str),
    In,
    IsSubstring,
}

fn operation(value: Option<&Value>) -> Option<Operation> {
    Some(match value? {
        Value::Number(number) => match number.as_i64()? {
            1 => Operation::Compare("="),
            2 => Operation::Compare("<>"),
            3 => Operation::Compare(">"),
            5 => Operation::Compare(">="),
            6 => Operation::Compare("<"),
            7 => Operation::Compare("<="),
            8 => Operation::In,
            9 => Operation::IsSubstring,
            _ => return None,
        },
        Value::String(name) => match name.as_str() {
            "EQUALS" => Operation::Compare("="),
            "NOT_EQUALS" => Operation::Compare("<>"),
            "GREATER_THAN" => Operation::Compare(">"),
            "GREATER_THAN_EQUALS" => Operation::Compare(">="),
            "LESS_THAN" => Operation::Compare("<"),
            "LESS_THAN_EQUALS" => Operation::Compare("<="),
            "IN" => Operation::In,
            "IS_SUBSTRING" => Operation::IsSubstring,
            _ => return None,
        },
        _ => return None,
    })
}

const SCALARS: [&str; 8] = [
    "string_value",
    "stringValue",
    "int_value",
    "intValue",
    "long_value",
    "longValue",
    "timestamp_value",
    "timestampValue",
];
const LISTS: [&str; 6] = [
    "string_values",
    "stringValues",
    "int_values",
    "intValues",
    "long_values",
    "longValues",
];

fn predicate_is_list(predicate: &Value) -> bool {
    LISTS.iter().any(|name| predicate.get(name).is_some())
}

fn values(predicate: &Value) -> Option<Vec<&Value>> {
    if let Some(value) = SCALARS.iter().find_map(|name| predicate.get(name)) {
        return Some(vec![value]);
    }
    let list = LISTS.iter().find_map(|name| predicate.get(name))?;
    Some(list["values"].as_array()?.iter().collect())
}

fn comparable(kind: Kind, value: &Value) -> Option<Key> {
    match (kind, value) {
        (Kind::Text, Value::String(text)) => Some(Key::Text(text.clone())),
        (Kind::Text, Value::Number(number)) => Some(Key::Text(number.to_string())),
        (Kind::Time, Value::Number(number)) => number.as_i64().map(Key::Number),
        (Kind::Time, Value::String(text)) => text
            .parse::<Timestamp>()
            .map(Timestamp::as_second)
            .or_else(|_| text.parse())
            .ok()
            .map(Key::Number),
        _ => None,
    }
}

fn page_size(text: Option<&str>) -> Result<i64> {
    let size = match text {
        None | Some("") => 0,
        Some(text) => text
            .parse::<i64>()
            .map_err(|_| Error::Invalid(format!("page_size {text:?} is not a number")))?,
    };
    match size {
        0 => Ok(DEFAULT_SIZE),
        size if size < 0 => Err(Error::Invalid(format!(
            "page_size {size} is negative (allowed: 0 for the default of {DEFAULT_SIZE}, up to {MAX_SIZE})"
        ))),
        size => Ok(size.min(MAX_SIZE)),
    }
}

fn encode(token: &Token) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(token).expect("invariant: a token is plain data"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNS: Listing = Listing {
        noun: "run",
        select: "id FROM run",
        from: "FROM run",
        id: "id",
        fields: &[
            Field {
                names: &["name", "display_name"],
                sql: "name",
                kind: Kind::Text,
            },
            Field {
                names: &["created_at"],
                sql: "created_at",
                kind: Kind::Time,
            },
        ],
    };

    fn conditions(filter: &str) -> Result<(String, usize)> {
        let mut conditions = Conditions::default();
        RUNS.filter(filter, &mut conditions)?;
        Ok((conditions.clause(), conditions.values.len()))
    }

    #[test]
    fn predicates_become_numbered_conditions() {
        let filter = r#"{"predicates": [
            {"op": "IS_SUBSTRING", "key": "name", "string_value": "mn"},
            {"operation": 8, "key": "display_name", "stringValues": {"values": ["a", "b"]}},
            {"op": 5, "key": "created_at", "timestamp_value": "1970-01-01T00:01:00Z"}]}"#;
        let (sql, values) = conditions(filter).unwrap();
        assert_eq!(
            sql,
            " WHERE instr(name, $1) > 0 AND name IN ($2, $3) AND (created_at / 1000000) >= $4"
        );
        assert_eq!(values, 4);
    }

    #[test]
    fn a_filter_encoded_twice_is_understood() {
        let twice = "%7B%22predicates%22%3A%5B%7B%22op%22%3A1%2C%22key%22%3A%22name%22%2C%22string_value%22%3A%22x%22%7D%5D%7D";
        assert_eq!(
            conditions(twice).unwrap(),
            (" WHERE name = $1".to_owned(), 1)
        );
    }

    #[test]
    fn bad_requests_say_what_is_allowed() {
        for (filter, says) in [
            ("{", "not JSON"),
            (
                r#"{"predicates": [{"op": 1, "key": "colour", "string_value": "x"}]}"#,
                "allowed: name",
            ),
            (
                r#"{"predicates": [{"op": 8, "key": "name", "string_value": "x"}]}"#,
                "list",
            ),
            (
                r#"{"predicates": [{"op": "LIKE", "key": "name", "string_value": "x"}]}"#,
                "EQUALS",
            ),
            (r#"{"predicates": [{"op": 1, "key": "name"}]}"#, "no value"),
        ] {
            let error = conditions(filter).unwrap_err().to_string();
            assert!(error.contains(says), "{filter}: {error}");
        }
        assert!(page_size(Some("-1")).is_err());
        assert!(RUNS.order("name sideways").is_err());
        assert_eq!(page_size(Some("5000")).unwrap(), 200);
    }
}
