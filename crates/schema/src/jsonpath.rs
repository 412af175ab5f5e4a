//! JSONPath as kubectl and printer columns use it: `.spec.a`, `['a']`, `[0]`, `[-1]`, `[1:3]`,
//! `[*]`, `..name`, `[?(@.type=="Ready")]`. Templates around paths (`{.a} text`) are not here.

use serde_json::Value;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    All,
    Recursive(String),
    Filter(Vec<Step>, Option<(Operator, Value)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Why a path cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("JSONPath {path:?}: {fault} at byte {at}")]
pub struct Error {
    path: String,
    fault: &'static str,
    at: usize,
}

impl JsonPath {
    /// Parses a path with or without its leading dot or surrounding braces.
    pub fn parse(path: &str) -> Result<Self, Error> {
        let trimmed = path.trim();
        let inner = trimmed
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .unwrap_or(trimmed);
        let inner = inner.strip_prefix('$').unwrap_or(inner);
        let mut parser = Parser { text: inner, at: 0 };
        let steps = parser.steps(true).map_err(|fault| Error {
            path: path.to_owned(),
            fault,
            at: parser.at,
        })?;
        Ok(Self { steps })
    }

    /// Every value the path leads to; none where a part is missing.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        follow(&self.steps, value)
    }

    /// The first value.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.find(value).into_iter().next()
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    fn steps(&mut self, whole: bool) -> Result<Vec<Step>, &'static str> {
        let mut steps = Vec::new();
        loop {
            if self.eat("..") {
                let name = self.name();
                if name.is_empty() {
                    return Err("a name must follow '..'");
                }
                steps.push(Step::Recursive(name));
            } else if self.eat(".") {
                if self.eat("*") {
                    steps.push(Step::All);
                } else if !self.rest().starts_with('[') {
                    let name = self.name();
                    if name.is_empty() {
                        if whole && self.rest().is_empty() && steps.is_empty() {
                            return Ok(steps);
                        }
                        return Err("a name must follow '.'");
                    }
                    steps.push(Step::Field(name));
                }
            } else if self.eat("[") {
                steps.push(self.bracket()?);
            } else if steps.is_empty() && whole && !self.rest().is_empty() {
                let name = self.name();
                if name.is_empty() {
                    return Err("unexpected character");
                }
                steps.push(Step::Field(name));
            } else if !whole || self.rest().is_empty() {
                return Ok(steps);
            } else {
                return Err("unexpected character");
            }
        }
    }

    /// A field name; a backslash takes the meaning from the next character.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let mut escaped = false;
        for c in self.text[self.at..].chars() {
            if escaped {
                name.push(c);
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c.is_alphanumeric() || matches!(c, '_' | '-' | '/') {
                name.push(c);
            } else {
                break;
            }
            self.at += c.len_utf8();
        }
        name
    }

    fn space(&mut self) {
        while self.eat(" ") {}
    }

    fn quoted(&mut self) -> Option<String> {
        let quote = self
            .rest()
            .chars()
            .next()
            .filter(|c| matches!(c, '\'' | '"'))?;
        let body = &self.text[self.at + 1..];
        let end = body.find(quote)?;
        let text = body[..end].to_owned();
        self.at += end + 2;
        Some(text)
    }

    fn integer(&mut self) -> Option<i64> {
        let rest = self.rest();
        let end = rest
            .char_indices()
            .find(|(index, c)| !(c.is_ascii_digit() || (*index == 0 && *c == '-')))
            .map_or(rest.len(), |(index, _)| index);
        let value = rest[..end].parse().ok()?;
        self.at += end;
        Some(value)
    }

    fn bracket(&mut self) -> Result<Step, &'static str> {
        self.space();
        let step = if self.eat("*") {
            Step::All
        } else if self.eat("?(") {
            self.filter()?
        } else if let Some(name) = self.quoted() {
            Step::Field(name)
        } else {
            let start = self.integer();
            if self.eat(":") {
                Step::Slice(start, self.integer())
            } else {
                Step::Index(start.ok_or("an index, name, slice or filter must stand in brackets")?)
            }
        };
        self.space();
        if !self.eat("]") {
            return Err("missing ']'");
        }
        Ok(step)
    }

    fn filter(&mut self) -> Result<Step, &'static str> {
        self.space();
        if !self.eat("@") {
            return Err("a filter must start with '@'");
        }
        let left = self.steps(false)?;
        self.space();
        let operators = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        let operator = operators
            .into_iter()
            .find(|(text, _)| self.eat(text))
            .map(|(_, operator)| operator);
        let comparison = match operator {
            None => None,
            Some(operator) => {
                self.space();
                Some((operator, self.literal()?))
            }
        };
        self.space();
        if !self.eat(")") {
            return Err("missing ')'");
        }
        Ok(Step::Filter(left, comparison))
    }

    fn literal(&mut self) -> Result<Value, &'static str> {
        if let Some(text) = self.quoted() {
            return Ok(Value::String(text));
        }
        let rest = self.rest();
        let end = rest.find([')', ' ']).unwrap_or(rest.len());
        let value =
            serde_json::from_str(&rest[..end]).map_err(|_| "a value must be compared with")?;
        self.at += end;
        Ok(value)
    }
}

fn follow<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        let mut next = Vec::new();
        for value in found {
            advance(step, value, &mut next);
        }
        found = next;
    }
    found
}

/// An index from the end when negative.
fn position(index: i64, length: usize) -> Option<usize> {
    if index < 0 {
        let back = usize::try_from(index.unsigned_abs()).ok()?;
        length.checked_sub(back)
    } else {
        usize::try_from(index).ok()
    }
}

fn advance<'a>(step: &Step, value: &'a Value, next: &mut Vec<&'a Value>) {
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => next.extend(map.get(name)),
        (Step::Index(index), Value::Array(items)) => {
            next.extend(position(*index, items.len()).and_then(|index| items.get(index)));
        }
        (Step::Slice(start, end), Value::Array(items)) => {
            let bound = |index: &Option<i64>, otherwise: usize| match index {
                Some(index) => position(*index, items.len()).unwrap_or(0).min(items.len()),
                None => otherwise,
            };
            let (start, end) = (bound(start, 0), bound(end, items.len()));
            next.extend(items.iter().take(end).skip(start));
        }
        (Step::All, Value::Array(items)) => next.extend(items),
        (Step::All, Value::Object(map)) => next.extend(map.values()),
        (Step::Recursive(name), value) => recursive(name, value, next),
        (Step::Filter(left, comparison), Value::Array(items)) => {
            next.extend(items.iter().filter(|item| {
                let found = follow(left, item).into_iter().next();
                match (comparison, found) {
                    (None, found) => found.is_some(),
                    (Some((operator, right)), Some(left)) => compare(*operator, left, right),
                    (Some(_), None) => false,
                }
            }));
        }
        _ => {}
    }
}

fn recursive<'a>(name: &str, value: &'a Value, next: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => {
            next.extend(map.get(name));
            for value in map.values() {
                recursive(name, value, next);
            }
        }
        Value::Array(items) => {
            for value in items {
                recursive(name, value, next);
            }
        }
        _ => {}
    }
}

fn compare(operator: Operator, left: &Value, right: &Value) -> bool {
    let order = match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => match (left.as_f64(), right.as_f64()) {
            (Some(left), Some(right)) => left.partial_cmp(&right),
            _ => None,
        },
    };
    match operator {
        Operator::Equal => left == right || order.is_some_and(std::cmp::Ordering::is_eq),
        Operator::NotEqual => left != right && !order.is_some_and(std::cmp::Ordering::is_eq),
        Operator::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Operator::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
        Operator::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Operator::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::JsonPath;

    fn find(path: &str) -> Value {
        let object = json!({
            "spec": {"list": [1, 2, 3], "a.b": "dotted", "n": 5},
            "metadata": {"labels": {"example.com/x": "y"}},
            "status": {"conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "Other", "status": "False", "n": 2},
            ]},
        });
        let path = JsonPath::parse(path).unwrap();
        Value::Array(path.find(&object).into_iter().cloned().collect())
    }

    #[test]
    fn paths_lead_where_kubectl_says() {
        assert_eq!(find(".spec.n"), json!([5]));
        assert_eq!(find("{.spec.n}"), json!([5]));
        assert_eq!(find("$.spec.n"), json!([5]));
        assert_eq!(find("spec.n"), json!([5]));
        assert_eq!(find(".spec['a.b']"), json!(["dotted"]));
        assert_eq!(find(".spec.a\\.b"), json!(["dotted"]));
        assert_eq!(find(".metadata.labels['example.com/x']"), json!(["y"]));
        assert_eq!(find(".spec.list[-1]"), json!([3]));
        assert_eq!(find(".spec.list[0:2]"), json!([1, 2]));
        assert_eq!(find(".spec.list[*]"), json!([1, 2, 3]));
        assert_eq!(
            find(".status.conditions[?(@.type==\"Ready\")].status"),
            json!(["True"])
        );
        assert_eq!(find(".status.conditions[?(@.n)].type"), json!(["Other"]));
        assert_eq!(find(".status.conditions[?(@.n>=2)].type"), json!(["Other"]));
        assert_eq!(
            find("..status"),
            json!([{"conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "Other", "status": "False", "n": 2},
        ]}, "True", "False"])
        );
        assert_eq!(find(".spec.none.deeper"), json!([]));
    }

    #[test]
    fn bad_paths_say_where() {
        for path in [".spec[", ".spec[x]", ".a..", ".a[?(b)]", ".a b"] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }
}
