//! The paths of `jsonPath` outputs, as kubectl reads them: `{}`, `{.metadata.name}`,
//! `{.status.conditions[?(@.type=="Ready")].status}`, with text around and between.

use serde_json::Value;

/// A text with paths into an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Path(Vec<Step>),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Name(String),
    Index(i64),
    All,
    /// Items in which the path is equal (or, if `false`, not equal) to a text.
    Where(Vec<Step>, bool, String),
}

impl Template {
    /// Reads a template; the error says what about it is not understood.
    pub fn parse(source: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some((before, after)) = rest.split_once('{') {
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let end = end_of(after, '}').ok_or_else(|| format!("{source:?} has no closing }}"))?;
            let inner = after[..end].trim();
            rest = &after[end + 1..];
            parts.push(
                match inner.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
                    Some(text) => Part::Text(text.replace("\\n", "\n").replace("\\t", "\t")),
                    None if inner.starts_with("range") || inner == "end" => {
                        return Err("range is not supported: select a list with [*]".to_owned());
                    }
                    None => Part::Path(path(inner)?),
                },
            );
        }
        if parts.is_empty() {
            return Err(format!(
                "{source:?} is no path such as {{.metadata.name}} or {{}}"
            ));
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// The text it makes of an object. What the object does not have is left out, and then the
    /// second value is false.
    pub fn render(&self, object: &Value) -> (String, bool) {
        let mut text = String::new();
        let mut complete = true;
        for part in &self.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Path(steps) => {
                    let found = select(object, steps);
                    complete &= !found.is_empty();
                    let found: Vec<_> = found.into_iter().map(engine::render).collect();
                    text.push_str(&found.join(" "));
                }
            }
        }
        (text, complete)
    }
}

/// Where `close` is outside quotes and brackets.
fn end_of(text: &str, close: char) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, _) if c == close && depth == 0 => return Some(at),
            (None, '[' | '(') => depth += 1,
            (None, ']' | ')') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

/// `.a.b[0]`, `a\.b`, `['a.b']`, `.items[*].name`.
fn path(text: &str) -> Result<Vec<Step>, String> {
    let mut rest = text.trim_start_matches(['$', '@']);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = end_of(after, ']').ok_or_else(|| format!("{text:?} has no closing ]"))?;
            steps.push(bracket(after[..end].trim())?);
            rest = &after[end + 1..];
            continue;
        }
        if rest.starts_with("..") {
            return Err(format!(
                "{text:?}: searching everywhere with .. is not supported"
            ));
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let mut name = String::new();
        let mut end = rest.len();
        let mut chars = rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
                '.' | '[' => {
                    end = at;
                    break;
                }
                _ => name.push(c),
            }
        }
        // A lone dot is the object itself.
        if name.is_empty() && !(steps.is_empty() && rest.is_empty()) && !rest.starts_with('[') {
            return Err(format!("{text:?} has an empty name"));
        }
        rest = &rest[end..];
        match name.as_str() {
            "" => {}
            "*" => steps.push(Step::All),
            _ => steps.push(Step::Name(name)),
        }
    }
    Ok(steps)
}

fn bracket(inner: &str) -> Result<Step, String> {
    if inner == "*" || inner == ":" {
        return Ok(Step::All);
    }
    if let Ok(index) = inner.parse() {
        return Ok(Step::Index(index));
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        for (operator, equal) in [("==", true), ("!=", false)] {
            if let Some((left, right)) = filter.split_once(operator) {
                let wanted = right.trim().trim_matches(['"', '\'']);
                return Ok(Step::Where(path(left.trim())?, equal, wanted.to_owned()));
            }
        }
        return Err(format!("filter {filter:?}: only == and != are supported"));
    }
    let unquoted = ['\'', '"']
        .into_iter()
        .find_map(|q| inner.strip_prefix(q)?.strip_suffix(q));
    match unquoted {
        Some(name) => Ok(Step::Name(name.to_owned())),
        None => Err(format!(
            "[{inner}] is none of a number, a quoted name, * and a filter"
        )),
    }
}

fn select<'a>(object: &'a Value, steps: &[Step]) -> Vec<&'a Value> {
    let mut found = vec![object];
    for step in steps {
        found = found
            .into_iter()
            .flat_map(|value| below(value, step))
            .collect();
    }
    found.retain(|value| !value.is_null());
    found
}

fn below<'a>(value: &'a Value, step: &Step) -> Vec<&'a Value> {
    let list = || value.as_array().map(Vec::as_slice).unwrap_or_default();
    match step {
        Step::Name(name) => value.get(name).into_iter().collect(),
        Step::Index(index) => {
            let from_end = |n: u64| list().len().checked_sub(usize::try_from(n).ok()?);
            let at = match usize::try_from(*index) {
                Ok(at) => Some(at),
                Err(_) => from_end(index.unsigned_abs()),
            };
            at.and_then(|at| list().get(at)).into_iter().collect()
        }
        Step::All => match value {
            Value::Object(map) => map.values().collect(),
            _ => list().iter().collect(),
        },
        Step::Where(path, equal, wanted) => list()
            .iter()
            .filter(|item| {
                let found = select(item, path);
                let same = found.first().is_some_and(|v| engine::render(v) == *wanted);
                same == *equal
            })
            .collect(),
    }
}

/// The value at a path of a condition: names and positions with dots between, as in
/// `status.conditions.0.type`; `#` is the length of a list, and `\.` a dot in a name.
pub(super) fn lookup(object: &Value, path: &str) -> Option<Value> {
    let path = path.trim();
    let plain = path.strip_suffix(".#").unwrap_or(path);
    let mut value = object;
    for step in self::path(plain).ok()? {
        value = match (&step, value) {
            (Step::Name(name), Value::Array(list)) => list.get(name.parse::<usize>().ok()?)?,
            _ => below(value, &step).first()?,
        };
    }
    if plain.len() < path.len() {
        return value.as_array().map(|list| list.len().into());
    }
    Some(value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object() -> Value {
        json!({
            "metadata": {"name": "a", "labels": {"x.y/z": "l"}},
            "status": {"capacity": {"storage": "1Gi"}, "items": [{"n": 3}, {"n": 4}], "ready": true,
                "conditions": [{"type": "A", "status": "1"}, {"type": "Ready", "status": "yes"}]},
        })
    }

    #[test]
    fn paths_select_what_kubectl_selects() {
        let check = |path: &str, expect: &str, complete: bool| {
            let text = Template::parse(path).unwrap().render(&object());
            assert_eq!(text, (expect.to_owned(), complete), "{path}");
        };
        check("{.metadata.name}", "a", true);
        check("{$.metadata.name}", "a", true);
        check("{.status.capacity.storage}", "1Gi", true);
        check("{.status.items[0].n}", "3", true);
        check("{.status.items[-1].n}", "4", true);
        check("{.status.items[*].n}", "3 4", true);
        check("{.status.ready}", "true", true);
        check(r"{.metadata.labels.x\.y/z}", "l", true);
        check("{.metadata.labels['x.y/z']}", "l", true);
        check(
            r#"{.status.conditions[?(@.type=="Ready")].status}"#,
            "yes",
            true,
        );
        check("{.metadata.name}-{.status.ready}!", "a-true!", true);
        check(r#"{.metadata.name}{"\n"}"#, "a\n", true);
        check("{.status.nothing}", "", false);
        check("{.status.items[7]}", "", false);
        check("{.status.items[-7]}", "", false);
        check("{}", &object().to_string(), true);
        check("{.}", &object().to_string(), true);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let check = |path: &str, expect: &str| {
            let problem = Template::parse(path).unwrap_err();
            assert!(problem.contains(expect), "{path}: {problem}");
        };
        check("no braces", "is no path such as {.metadata.name}");
        check("{.a", "no closing }");
        check("{.a[0}", "no closing }");
        check("{..a}", ".. is not supported");
        check("{.a..b}", "");
        check("{range .items[*]}{.n}{end}", "range is not supported");
        check("{.a[x]}", "none of a number");
        check("{.a[?(@.n>3)]}", "only == and != are supported");
    }

    #[test]
    fn conditions_count_and_index_with_dots() {
        let check = |path: &str, expect: Option<Value>| {
            assert_eq!(lookup(&object(), path), expect, "{path}");
        };
        check("status.items.1.n", Some(json!(4)));
        check("status.items[0].n", Some(json!(3)));
        check("status.items.#", Some(json!(2)));
        check("status.ready", Some(json!(true)));
        check("status.missing.x", None);
        check("status.ready.#", None);
    }
}
