//! Rows of custom resources: `additionalPrinterColumns` and the JSONPath subset they use.

use serde_json::{Value, json};

use crate::ctx::Ctx;
use crate::table::{Column, name, since};
use crate::tree;

/// The columns of a custom resource's version, and how their cells are found.
#[derive(Clone, Debug)]
pub struct CustomTable {
    pub columns: Vec<Column>,
    paths: Vec<JsonPath>,
}

impl CustomTable {
    /// From a CRD version's `additionalPrinterColumns`; without any, Name and Age.
    pub fn new(definitions: &[Value]) -> Self {
        let column = |name: &str, kind: &str, format: &str, priority| Column {
            name: name.to_owned(),
            kind: kind.to_owned(),
            format: format.to_owned(),
            description: String::new(),
            priority,
        };
        let mut columns = vec![column("Name", "string", "name", 0)];
        let mut paths = Vec::new();
        if definitions.is_empty() {
            columns.push(column("Age", "date", "", 0));
            paths.push(JsonPath::parse(".metadata.creationTimestamp"));
        }
        for definition in definitions {
            let mut made = column(
                tree::text(definition, "name"),
                tree::text(definition, "type"),
                tree::text(definition, "format"),
                tree::int(definition, "priority").unwrap_or(0) as i32,
            );
            tree::text(definition, "description").clone_into(&mut made.description);
            columns.push(made);
            paths.push(JsonPath::parse(tree::text(definition, "jsonPath")));
        }
        Self { columns, paths }
    }

    /// The cells of an object's row; what a path does not find is null.
    pub fn row(&self, ctx: &Ctx, object: &Value) -> Vec<Value> {
        let mut cells = vec![name(object)];
        for (column, path) in self.columns.iter().skip(1).zip(&self.paths) {
            cells.push(cell(ctx, &column.kind, &path.find(object)));
        }
        cells
    }
}

fn cell(ctx: &Ctx, kind: &str, found: &[&Value]) -> Value {
    let Some(first) = found.first() else {
        return Value::Null;
    };
    match (kind, *first) {
        (_, Value::Null) => Value::Null,
        ("integer", Value::Number(number)) => {
            let float = number.as_f64().map(|float| json!(float as i64));
            number
                .as_i64()
                .map_or_else(|| float.unwrap_or(Value::Null), |int| json!(int))
        }
        ("number", value @ Value::Number(_)) | ("boolean", value @ Value::Bool(_)) => value.clone(),
        ("integer" | "number" | "boolean", _) => Value::Null,
        ("date", Value::String(text)) => {
            let known = text.parse::<jiff::Timestamp>().is_ok();
            json!(if known {
                since(ctx, text)
            } else {
                "<invalid>".to_owned()
            })
        }
        ("date", _) => json!("<invalid>"),
        _ => {
            let texts: Vec<String> = found.iter().map(|value| plain(value)).collect();
            json!(texts.join(" "))
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(i64),
    All,
    /// `[?(@.type=="Ready")]`: the path under each element, and the wanted text.
    Filter(Vec<String>, String),
}

/// The JSONPath subset of printer columns: members, indexes, `*`, and equality filters.
#[derive(Clone, Debug)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Reads a path; what it cannot read finds nothing.
    pub fn parse(text: &str) -> Self {
        Self(parse_steps(text.trim()).unwrap_or_else(|| vec![Step::Index(i64::MAX)]))
    }

    pub fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![object];
        for step in &self.0 {
            found = found
                .into_iter()
                .flat_map(|value| apply(step, value))
                .collect();
        }
        found
    }
}

fn apply<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    match step {
        Step::Key(key) => value.get(key).into_iter().collect(),
        Step::Index(index) => {
            let Some(list) = value.as_array() else {
                return Vec::new();
            };
            let at = if *index < 0 {
                list.len() as i64 + index
            } else {
                *index
            };
            usize::try_from(at)
                .ok()
                .and_then(|at| list.get(at))
                .into_iter()
                .collect()
        }
        Step::All => match value {
            Value::Array(list) => list.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        },
        Step::Filter(path, wanted) => value
            .as_array()
            .into_iter()
            .flatten()
            .filter(|element| {
                let end = path.iter().try_fold(*element, |at, key| at.get(key));
                end.is_some_and(|end| plain(end) == *wanted)
            })
            .collect(),
    }
}

fn parse_steps(text: &str) -> Option<Vec<Step>> {
    let mut rest = text.strip_prefix('$').unwrap_or(text);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (inner, after) = split_bracket(after)?;
            steps.push(parse_bracket(inner)?);
            rest = after;
            continue;
        }
        let after = rest.strip_prefix('.').unwrap_or(rest);
        let (key, after) = take_key(after);
        match key.as_str() {
            "" if after.is_empty() || after.starts_with('[') => {}
            "" => return None,
            "*" => steps.push(Step::All),
            _ => steps.push(Step::Key(key)),
        }
        rest = after;
    }
    Some(steps)
}

/// A member's name up to the next `.` or `[`; a backslash takes the next character as it is.
fn take_key(text: &str) -> (String, &str) {
    let mut key = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => key.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (key, &text[i..]),
            c => key.push(c),
        }
    }
    (key, "")
}

fn split_bracket(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, ']') => return Some((&text[..i], &text[i + 1..])),
            (None, _) => {}
        }
    }
    None
}

fn parse_bracket(inner: &str) -> Option<Step> {
    if inner == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        let (path, wanted) = filter.split_once("==")?;
        let path = path.trim().strip_prefix("@.")?;
        let wanted = wanted.trim().trim_matches(['\'', '"']);
        return Some(Step::Filter(
            path.split('.').map(str::to_owned).collect(),
            wanted.to_owned(),
        ));
    }
    let unquoted = inner.trim_matches(['\'', '"']);
    if unquoted.len() != inner.len() {
        return Some(Step::Key(unquoted.to_owned()));
    }
    inner.parse().ok().map(Step::Index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: &Value) {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "x"}},
            "spec": {"list": [1, 2, 3]},
            "status": {"conditions": [{"type": "A", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        let found: Value = JsonPath::parse(path)
            .find(&object)
            .into_iter()
            .cloned()
            .collect();
        assert_eq!(&found, expected, "{path}");
    }

    #[test]
    fn paths() {
        check(".spec.list[1]", &json!([2]));
        check(".spec.list[-1]", &json!([3]));
        check(".spec.list[*]", &json!([1, 2, 3]));
        check(
            ".status.conditions[?(@.type==\"Ready\")].status",
            &json!(["True"]),
        );
        check(
            ".status.conditions[?(@.type=='Ready')].status",
            &json!(["True"]),
        );
        check(r".metadata.labels.a\.b/c", &json!(["x"]));
        check(".metadata.labels['a.b/c']", &json!(["x"]));
        check(".spec.none", &json!([]));
        check(".spec[", &json!([]));
    }

    #[test]
    fn rows() {
        let table =
            CustomTable::new(&[json!({"name": "Ready", "type": "boolean", "jsonPath": ".ok"})]);
        let ctx = Ctx::new(jiff::Timestamp::UNIX_EPOCH);
        let object = json!({"metadata": {"name": "n"}, "ok": true});
        assert_eq!(table.row(&ctx, &object), [json!("n"), json!(true)]);
        assert_eq!(CustomTable::new(&[]).columns[1].name, "Age");
    }
}
