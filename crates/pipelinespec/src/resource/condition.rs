//! `successCondition` and `failureCondition`: requirements in the syntax of label selectors, about
//! paths of the object instead of labels.

use std::fmt;

use serde_json::Value;

use super::json_path::lookup;

/// Something that must hold for an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    path: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Compare(&'static str, String),
    OneOf(bool, Vec<String>),
    Exists(bool),
}

/// Longest first: each is looked for before those that are part of it.
const OPERATORS: [&str; 7] = ["==", "!=", ">=", "<=", "=", ">", "<"];

/// Reads requirements with commas between; the error says which one is none.
pub fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    let mut parts = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
        .into_iter()
        .map(|part| requirement(part.trim()))
        .collect()
}

fn requirement(part: &str) -> Result<Requirement, String> {
    let unquoted = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    let new = |path: &str, test| {
        let path = path.trim().to_owned();
        if path.is_empty() || path.contains(char::is_whitespace) {
            return Err(format!(
                "{part:?} is no requirement such as status.phase == Done or status.phase in (Done, Ready)"
            ));
        }
        Ok(Requirement { path, test })
    };
    let first = OPERATORS
        .into_iter()
        .filter_map(|operator| Some((part.find(operator)?, operator)))
        .min_by_key(|(at, operator)| (*at, std::cmp::Reverse(operator.len())));
    if let Some((at, operator)) = first.filter(|(at, _)| *at > 0) {
        let value = unquoted(&part[at + operator.len()..]);
        return new(&part[..at], Test::Compare(operator, value));
    }
    for (word, wanted) in [(" notin", false), (" in", true)] {
        let Some((path, list)) = part.split_once(word) else {
            continue;
        };
        let list = list
            .trim()
            .strip_prefix('(')
            .and_then(|l| l.strip_suffix(')'));
        if let Some(list) = list {
            let values = list.split(',').map(unquoted).collect();
            return new(path, Test::OneOf(wanted, values));
        }
    }
    match part.strip_prefix('!') {
        Some(path) => new(path, Test::Exists(false)),
        None => new(part, Test::Exists(true)),
    }
}

impl Requirement {
    /// Whether it holds. As with labels, what is absent is different from everything.
    pub fn holds(&self, object: &Value) -> bool {
        let found = lookup(object, &self.path).filter(|value| !value.is_null());
        match (&self.test, found) {
            (Test::Exists(wanted), found) => found.is_some() == *wanted,
            (Test::Compare(operator, _), None) => *operator == "!=",
            (Test::OneOf(wanted, _), None) => !wanted,
            (Test::OneOf(wanted, values), Some(found)) => {
                values.contains(&engine::render(&found)) == *wanted
            }
            (Test::Compare(operator, wanted), Some(found)) => {
                let found = engine::render(&found);
                let order = match (found.parse::<f64>(), wanted.parse::<f64>()) {
                    (Ok(found), Ok(wanted)) => found.partial_cmp(&wanted),
                    _ => Some(found.as_str().cmp(wanted)),
                };
                order.is_some_and(|order| match *operator {
                    "!=" => order.is_ne(),
                    ">=" => order.is_ge(),
                    "<=" => order.is_le(),
                    ">" => order.is_gt(),
                    "<" => order.is_lt(),
                    _ => order.is_eq(),
                })
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.test {
            Test::Compare(operator, value) => write!(f, "{path} {operator} {value}"),
            Test::OneOf(true, values) => write!(f, "{path} in ({})", values.join(", ")),
            Test::OneOf(false, values) => write!(f, "{path} notin ({})", values.join(", ")),
            Test::Exists(true) => f.write_str(path),
            Test::Exists(false) => write!(f, "!{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requirements_hold_as_label_selectors_do() {
        let object = json!({"status": {"phase": "Done", "n": 3, "ready": true,
            "replicaStatuses": {"Worker": {"succeeded": 3}}}});
        let check = |text: &str, expect: bool| {
            let all = parse(text).unwrap();
            assert_eq!(all.iter().all(|r| r.holds(&object)), expect, "{text}");
        };
        check("status.phase == Done", true);
        check("status.phase=Done", true);
        check("status.phase = 'Done'", true);
        check("status.phase != Done", false);
        check("status.nothing != Done", true);
        check("status.nothing == Done", false);
        check("status.ready == true", true);
        check("status.n > 2,status.n < 4", true);
        check("status.n >= 4", false);
        check("status.n > 10", false);
        check(
            "status.replicaStatuses.Worker.succeeded==3,status.n<=3",
            true,
        );
        check("status.phase in (Ready, Done)", true);
        check("status.phase notin (Ready, Done)", false);
        check("status.phase", true);
        check("!status.phase", false);
        check("!status.nothing", true);
    }

    #[test]
    fn what_is_no_requirement_is_named() {
        for text in ["", "status.phase is Done", "== Done", "a == b,"] {
            assert!(
                parse(text).unwrap_err().contains("is no requirement"),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_requirement_is_shown_as_it_was_meant() {
        for text in ["a.b == c", "a in (b, c)", "a notin (b)", "a", "!a"] {
            assert_eq!(parse(text).unwrap()[0].to_string(), text);
        }
    }
}
