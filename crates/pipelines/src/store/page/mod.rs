//! Pages of lists: order, filter, and tokens that continue by key, so that a deep page costs what
//! the first costs and nothing is skipped or repeated when rows are added meanwhile.
//!
//! A [`Listing`] says what can be asked for. The index to walk is chosen here and not by the
//! database: it knows neither how many rows share a value nor that a page is all that is wanted.

mod count;
mod filter;
mod token;

use db::sqlx::sqlite::{SqliteArguments, SqliteRow};
use db::sqlx::{self, Arguments as _, AssertSqlSafe, Row as _, SqlitePool};
use serde::{Deserialize, Serialize};

pub use self::count::Counts;
pub(crate) use self::count::Current;
pub(crate) use self::filter::Kind;
use self::token::Token;
use super::{Error, Result};

const DEFAULT_SIZE: i64 = 20;
const MAX_SIZE: i64 = 200;
/// Up to so many rows that share a value are read and sorted rather than looked for in order.
const FEW: i64 = 1000;

/// A field of the API and the SQL expression behind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) names: &'static [&'static str],
    pub(crate) sql: &'static str,
    pub(crate) kind: Kind,
}

/// An index: columns that have to be given, and the column it orders the rest by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Index {
    pub(crate) name: &'static str,
    pub(crate) equal: &'static [&'static str],
    pub(crate) order: &'static str,
}

/// A table of counters `n` by some columns; a row whose scope is empty counts all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counter {
    pub(crate) table: &'static str,
    pub(crate) columns: &'static [&'static str],
    pub(crate) scope: &'static str,
}

/// What a list can be asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listing {
    /// For messages: `experiment`, `run`.
    pub(crate) noun: &'static str,
    /// The table with its short name: `run_record r`.
    pub(crate) table: &'static str,
    /// The columns to read.
    pub(crate) columns: &'static str,
    /// LEFT JOINs for columns of other tables.
    pub(crate) joins: &'static str,
    /// The id column, which breaks ties.
    pub(crate) id: &'static str,
    pub(crate) fields: &'static [Field],
    /// A column with a JSON object of tags.
    pub(crate) tags: Option<&'static str>,
    /// The SQL for the value of a metric, `?` being its name.
    pub(crate) metric: Option<&'static str>,
    pub(crate) indexes: &'static [Index],
    /// A column of texts and the index that is read instead of the table to look into all of them.
    pub(crate) searched: Option<(&'static str, &'static str)>,
    pub(crate) counter: Option<Counter>,
}

impl Listing {
    /// What is common: no joins, tags, metrics, indexes to choose from, counters.
    pub(crate) const PLAIN: Self = Self {
        noun: "",
        table: "",
        columns: "*",
        joins: "",
        id: "id",
        fields: &[],
        tags: None,
        metric: None,
        indexes: &[],
        searched: None,
        counter: None,
    };
}

/// What the request says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Request {
    #[serde(alias = "pageToken")]
    pub(crate) page_token: String,
    #[serde(alias = "pageSize")]
    pub(crate) page_size: Option<String>,
    #[serde(alias = "sortBy")]
    pub(crate) sort_by: String,
    pub(crate) filter: String,
    pub(crate) namespace: String,
}

/// A page.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) rows: Vec<SqliteRow>,
    pub(crate) total: i64,
    pub(crate) next: String,
}

/// A fixed condition of the caller: a column and its value.
pub(crate) type Scope = (&'static str, String);

/// A value that is bound or kept in a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Key {
    Number(i64),
    /// By its bits, so that it comes back exactly.
    Real(u64),
    Text(String),
}

/// Conditions and the values of their placeholders.
#[derive(Debug, Default)]
struct Conditions {
    sql: Vec<String>,
    values: Vec<Key>,
    /// Columns that have to equal one value, and the value.
    equal: Vec<(&'static str, Key)>,
    /// Columns that conditions are about; none for a condition that is about more.
    columns: Vec<Option<&'static str>>,
}

impl Conditions {
    /// Adds a condition whose `?` stand for `values`.
    fn add(
        &mut self,
        column: Option<&'static str>,
        sql: &str,
        values: impl IntoIterator<Item = Key>,
    ) {
        let numbered = numbered(sql, self.values.len());
        self.sql.push(numbered);
        self.values.extend(values);
        self.columns.push(column);
    }

    /// Adds that a column has to equal a value.
    fn equal(&mut self, column: &'static str, value: Key) {
        self.equal.push((column, value.clone()));
        self.add(Some(column), &format!("{column} = ?"), [value]);
    }

    fn clause(&self) -> String {
        if self.sql.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", self.sql.join(" AND "))
        }
    }
}

/// Replaces each `?` by `$n`.
fn numbered(sql: &str, before: usize) -> String {
    let mut numbered = String::new();
    let mut next = before;
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
    numbered
}

fn arguments(values: &[Key]) -> Result<SqliteArguments> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        match value {
            Key::Number(number) => arguments.add(*number),
            Key::Real(bits) => arguments.add(f64::from_bits(*bits)),
            Key::Text(text) => arguments.add(text.clone()),
        }
        .map_err(|e| Error::from(sqlx::Error::Encode(e)))?;
    }
    Ok(arguments)
}

/// What to sort by.
struct Order {
    sql: String,
    values: Vec<Key>,
    kind: Kind,
    descending: bool,
}

impl Listing {
    /// Reads a page.
    pub(crate) async fn page(
        &self,
        pool: &SqlitePool,
        request: &Request,
        scopes: &[Scope],
    ) -> Result<Page> {
        self.page_counted(pool, request, scopes, None).await
    }

    /// Reads a page; counts that cost much are kept.
    pub(crate) async fn page_counted(
        &self,
        pool: &SqlitePool,
        request: &Request,
        scopes: &[Scope],
        counts: Option<Current<'_>>,
    ) -> Result<Page> {
        let token = Token::of(request)?;
        let (sort_by, filter) = match &token {
            Some(token) => (token.sort_by.as_str(), token.filter.as_str()),
            None => (request.sort_by.as_str(), request.filter.as_str()),
        };
        let size = match &token {
            Some(token) if request.page_size.is_none() => token.size,
            _ => page_size(request.page_size.as_deref())?,
        };
        let order = self.order(sort_by)?;
        let mut conditions = Conditions::default();
        for (column, value) in scopes {
            conditions.equal(column, Key::Text(value.clone()));
        }
        self.filter(filter, &mut conditions)?;
        let total = match &token {
            // Counted for the first page.
            Some(token) => token.total,
            None => self.count(pool, &conditions, counts).await?,
        };
        let index = self.index(pool, &order, &conditions, total).await?;
        if let Some(token) = &token {
            let than = if order.descending { '<' } else { '>' };
            let mut values = order.values.clone();
            values.extend([token.key.clone(), Key::Text(token.id.clone())]);
            conditions.add(
                None,
                &format!("({}, {}) {than} (?, ?)", order.sql, self.id),
                values,
            );
        }
        let direction = if order.descending { "DESC" } else { "ASC" };
        let mut values = conditions.values.clone();
        let key = numbered(&order.sql, values.len());
        values.extend(order.values.iter().cloned());
        let query = format!(
            "SELECT {key} AS sort_key, {} AS sort_id, {} FROM {}{index}{}{} ORDER BY {key} \
             {direction}, {} {direction} LIMIT {}",
            self.id,
            self.columns,
            self.table,
            self.joins,
            conditions.clause(),
            self.id,
            size + 1
        );
        let mut rows = sqlx::query_with(AssertSqlSafe(query), arguments(&values)?)
            .fetch_all(pool)
            .await?;
        let more = rows.len() as i64 > size;
        rows.truncate(size as usize);
        let next = match rows.last() {
            Some(last) if more => Token {
                sort_by: sort_by.to_owned(),
                filter: filter.to_owned(),
                size,
                total,
                key: match order.kind {
                    Kind::Text | Kind::State => Key::Text(last.try_get("sort_key")?),
                    Kind::Time | Kind::Names(_) => Key::Number(last.try_get("sort_key")?),
                    Kind::Real => Key::Real(last.try_get::<f64, _>("sort_key")?.to_bits()),
                },
                id: last.try_get("sort_id")?,
            }
            .encode(),
            Some(_) | None => String::new(),
        };
        Ok(Page { rows, total, next })
    }

    /// The index to walk, as a clause.
    async fn index(
        &self,
        pool: &SqlitePool,
        order: &Order,
        conditions: &Conditions,
        total: i64,
    ) -> Result<String> {
        let given = |column: &str| conditions.equal.iter().find(|(c, _)| *c == column);
        let fits = |index: &&Index| index.equal.iter().all(|column| given(column).is_some());
        let by_order = self
            .indexes
            .iter()
            .filter(|index| index.order == order.sql)
            .filter(fits)
            .max_by_key(|index| index.equal.len());
        let unhelped = by_order.is_none_or(|i| i.equal.len() < conditions.columns.len());
        if unhelped {
            // Few rows share a value that was asked for: read them all and sort them.
            for index in self.indexes.iter().filter(fits) {
                let [column] = index.equal else { continue };
                let Some((_, value)) = given(column) else {
                    continue;
                };
                let probe = format!(
                    "SELECT count(*) FROM (SELECT 1 FROM {} INDEXED BY {} WHERE {column} = $1 LIMIT {FEW})",
                    self.table, index.name
                );
                let values = arguments(std::slice::from_ref(value))?;
                let found: i64 = sqlx::query_scalar_with(AssertSqlSafe(probe), values)
                    .fetch_one(pool)
                    .await?;
                if found < FEW {
                    return Ok(format!(" INDEXED BY {}", index.name));
                }
            }
        }
        if let Some((column, index)) = self.searched
            && total < FEW
            && conditions.columns.contains(&Some(column))
        {
            return Ok(format!(" INDEXED BY {index}"));
        }
        Ok(by_order.map_or_else(String::new, |index| format!(" INDEXED BY {}", index.name)))
    }

    fn order(&self, sort_by: &str) -> Result<Order> {
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
        if let Some(more) = words.next() {
            return Err(Error::Invalid(format!(
                "sort_by {sort_by:?}: {more:?} is too much (expected a field and asc or desc)"
            )));
        }
        if let (Some(sql), Some(metric)) = (self.metric, name.strip_prefix("metric:")) {
            return Ok(Order {
                sql: sql.to_owned(),
                values: vec![Key::Text(metric.to_owned())],
                kind: Kind::Real,
                descending,
            });
        }
        let field = self.field("sort_by", name)?;
        Ok(Order {
            sql: field.sql.to_owned(),
            values: Vec::new(),
            kind: field.kind,
            descending,
        })
    }

    fn field(&self, what: &str, name: &str) -> Result<&'static Field> {
        let known = |field: &&Field| field.names.iter().any(|n| n.eq_ignore_ascii_case(name));
        self.fields.iter().find(known).ok_or_else(|| {
            let names: Vec<&str> = self
                .fields
                .iter()
                .flat_map(|f| f.names.iter().copied())
                .collect();
            Error::Invalid(format!(
                "{what}: a {} has no field {name:?} (allowed: {})",
                self.noun,
                names.join(", ")
            ))
        })
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

#[cfg(test)]
mod tests;
