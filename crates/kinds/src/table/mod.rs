//! The table form of objects: columns (data), the helpers that rows are made with, and the rows of
//! custom resources. Rows of built-in kinds are in the submodules, reached through
//! [`crate::Kind::row`].

pub(crate) mod config;
pub(crate) mod core;
pub mod custom;
pub mod duration;
pub(crate) mod network;
pub(crate) mod pod;
pub(crate) mod policy;
pub(crate) mod storage;
pub(crate) mod workload;

use std::collections::HashMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::ctx::Ctx;
use crate::tree;

pub use duration::human_duration;

/// A column's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// `string`, `integer`, `boolean`, `date`, `number`
    pub kind: String,
    /// `name` for the column that holds the object's name.
    pub format: String,
    pub description: String,
    /// 1 is shown by `-o wide` only.
    pub priority: i32,
}

impl Column {
    fn parse(text: &str) -> Self {
        let (text, priority) = text.strip_suffix('*').map_or((text, 0), |text| (text, 1));
        let (text, kind) = match text.rsplit_once(':') {
            Some((name, kind)) if kind.chars().all(|c| c.is_ascii_lowercase()) => (name, kind),
            _ => (text, "string"),
        };
        let (name, format) = text
            .strip_suffix('#')
            .map_or((text, ""), |name| (name, "name"));
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            format: format.to_owned(),
            description: String::new(),
            priority,
        }
    }

    /// The member of a Table's `columnDefinitions`.
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.kind,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }
}

static COLUMNS: LazyLock<HashMap<String, Vec<Column>>> = LazyLock::new(|| {
    include_str!("../../data/table-columns.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (group_version, rest) = line.split_once(' ')?;
            let (plural, columns) = rest.split_once(' ')?;
            let columns = columns.split('|').map(Column::parse).collect();
            Some((format!("{group_version} {plural}"), columns))
        })
        .collect()
});

static GENERIC: LazyLock<Vec<Column>> =
    LazyLock::new(|| vec![Column::parse("Name#"), Column::parse("Created At:date")]);

/// The columns of a built-in resource; Name and Created At for one that is not listed.
pub fn columns(group: &str, version: &str, plural: &str) -> &'static [Column] {
    let version = if (group, version) == ("apps", "v1beta2") {
        "v1"
    } else {
        version
    };
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    COLUMNS
        .get(&format!("{group_version} {plural}"))
        .unwrap_or(&GENERIC)
}

/// Name and Created At.
pub fn generic_row(object: &Value) -> Vec<Value> {
    vec![
        name(object),
        json!(tree::text(object, "metadata.creationTimestamp")),
    ]
}

/// The object's name as a cell.
pub(crate) fn name(object: &Value) -> Value {
    json!(tree::text(object, "metadata.name"))
}

/// The object's age as a cell.
pub(crate) fn age(ctx: &Ctx, object: &Value) -> Value {
    json!(since(ctx, tree::text(object, "metadata.creationTimestamp")))
}

/// How long ago a timestamp was; `<unknown>` for none.
pub fn since(ctx: &Ctx, timestamp: &str) -> String {
    timestamp.parse::<Timestamp>().map_or_else(
        |_| "<unknown>".to_owned(),
        |then| human_duration(ctx.now.duration_since(then)),
    )
}

/// The text under a dotted path, or `fallback` where it is empty.
pub(crate) fn text_or<'a>(object: &'a Value, path: &str, fallback: &'a str) -> &'a str {
    Some(tree::text(object, path))
        .filter(|text| !text.is_empty())
        .unwrap_or(fallback)
}

/// The integer under a dotted path as a cell; 0 where it is missing.
pub(crate) fn count(object: &Value, path: &str) -> Value {
    json!(tree::int(object, path).unwrap_or(0))
}

/// `a=b,c=d`, or `<none>`.
pub fn format_labels(labels: Option<&Map<String, Value>>) -> String {
    let parts: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    if parts.is_empty() {
        "<none>".to_owned()
    } else {
        parts.join(",")
    }
}

/// A few of the items, and how many more there are.
pub(crate) fn some_of(items: &[String], max: usize) -> String {
    if items.len() > max {
        return format!("{} + {} more...", items[..max].join(","), items.len() - max);
    }
    items.join(",")
}

pub(crate) fn yes_no(value: Option<bool>) -> &'static str {
    match value {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read() {
        let columns = columns("batch", "v1", "cronjobs");
        assert_eq!(columns[0].format, "name");
        assert_eq!(columns[3].name, "Suspend");
        assert_eq!(columns[3].kind, "boolean");
        assert_eq!(columns[7].priority, 1);
    }

    #[test]
    fn a_resource_without_columns_of_its_own_shows_name_and_creation() {
        let columns = super::columns("x.io", "v1", "things");
        assert_eq!(columns[1].name, "Created At");
        assert_eq!(columns[1].kind, "date");
    }
}
