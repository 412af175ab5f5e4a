//! The expressions of conditions and selectors: the part of CEL that packages use, as an
//! [`Expression`].

use engine::{Comparison, Expression, Ref};
use serde_json::{Number, Value};

type Result<T> = core::result::Result<T, String>;

/// Parses a condition: a truth over `inputs.parameter_values['name']`.
pub(super) fn condition(source: &str) -> Result<Expression> {
    Parser::new(source, None).whole()
}

/// Parses a selector: a part of `of`, which it calls `string_value` or by another kind of value.
pub(super) fn selector(source: &str, of: &Expression) -> Result<Expression> {
    Parser::new(source, Some(of)).whole()
}

const MAX_DEPTH: u32 = 64;

struct Parser<'a> {
    rest: &'a str,
    whole: &'a str,
    of: Option<&'a Expression>,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn new(source: &'a str, of: Option<&'a Expression>) -> Self {
        Self {
            rest: source,
            whole: source,
            of,
            depth: 0,
        }
    }

    fn whole(mut self) -> Result<Expression> {
        let expression = self.any()?;
        self.rest = self.rest.trim_start();
        if self.rest.is_empty() {
            Ok(expression)
        } else {
            self.expected("an operator or the end")
        }
    }

    fn expected<T>(&self, what: &str) -> Result<T> {
        let at = self.whole.len() - self.rest.len();
        let found: String = self.rest.chars().take(20).collect();
        let found = if found.is_empty() {
            "the end".to_owned()
        } else {
            format!("{found:?}")
        };
        Err(format!(
            "expected {what} at character {at} of {:?}, found {found}",
            self.whole
        ))
    }

    fn eat(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn need(&mut self, token: &str) -> Result<()> {
        if self.eat(token) {
            Ok(())
        } else {
            self.expected(token)
        }
    }

    fn any(&mut self) -> Result<Expression> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!(
                "the expression is nested more than {MAX_DEPTH} deep"
            ));
        }
        let mut parts = vec![self.all()?];
        while self.eat("||") {
            parts.push(self.all()?);
        }
        self.depth -= 1;
        Ok(one_or(parts, Expression::Any))
    }

    fn all(&mut self) -> Result<Expression> {
        let mut parts = vec![self.comparison()?];
        while self.eat("&&") {
            parts.push(self.comparison()?);
        }
        Ok(one_or(parts, Expression::All))
    }

    fn comparison(&mut self) -> Result<Expression> {
        let left = self.unary()?;
        for (token, by) in [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<=", Comparison::LessOrEqual),
            (">", Comparison::Greater),
            ("<", Comparison::Less),
        ] {
            if self.eat(token) {
                let right = self.unary()?;
                return Ok(Expression::Compare {
                    left: Box::new(left),
                    by,
                    right: Box::new(right),
                });
            }
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expression> {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with('!') && !self.rest.starts_with("!=") {
            self.rest = &self.rest[1..];
            return self.deeper(|inner| Expression::Not(Box::new(inner)));
        }
        if self.rest.starts_with('-') {
            self.rest = &self.rest[1..];
            return self.deeper(|inner| Expression::Negative(Box::new(inner)));
        }
        self.postfix()
    }

    fn deeper(&mut self, wrap: impl FnOnce(Expression) -> Expression) -> Result<Expression> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!(
                "the expression is nested more than {MAX_DEPTH} deep"
            ));
        }
        let inner = self.unary()?;
        self.depth -= 1;
        Ok(wrap(inner))
    }

    fn postfix(&mut self) -> Result<Expression> {
        let mut expression = self.primary()?;
        loop {
            let key = if self.eat("[") {
                let key = self.any()?;
                self.need("]")?;
                key
            } else if self.eat(".") {
                match self.word() {
                    Some(name) => Expression::Constant(Value::from(name)),
                    None => return self.expected("a name"),
                }
            } else {
                return Ok(expression);
            };
            expression = Expression::Index(Box::new(expression), Box::new(key));
        }
    }

    fn primary(&mut self) -> Result<Expression> {
        self.rest = self.rest.trim_start();
        match self.rest.chars().next() {
            Some('(') => {
                self.rest = &self.rest[1..];
                let inner = self.any()?;
                self.need(")")?;
                Ok(inner)
            }
            Some(quote @ ('\'' | '"')) => self.string(quote),
            Some(digit) if digit.is_ascii_digit() || digit == '.' => self.number(),
            Some(letter) if letter.is_alphabetic() || letter == '_' => self.named(),
            _ => self.expected("a value"),
        }
    }

    fn word(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        if word.is_empty() {
            return None;
        }
        self.rest = rest;
        Some(word)
    }

    fn named(&mut self) -> Result<Expression> {
        let before = self.rest;
        let word = self.word().unwrap_or_default();
        let wrap: fn(Box<Expression>) -> Expression = match word {
            "true" => return Ok(Expression::Constant(Value::Bool(true))),
            "false" => return Ok(Expression::Constant(Value::Bool(false))),
            "null" => return Ok(Expression::Constant(Value::Null)),
            "inputs" if self.of.is_none() => return self.input(),
            "string_value" => {
                if let Some(of) = self.of {
                    return Ok(Expression::Text(Box::new(of.clone())));
                }
                self.rest = before;
                return self.expected("inputs.parameter_values['…']");
            }
            "bool_value" | "list_value" | "null_value" | "number_value" | "struct_value" => {
                if let Some(of) = self.of {
                    return Ok(of.clone());
                }
                self.rest = before;
                return self.expected("inputs.parameter_values['…']");
            }
            "int" => Expression::Integer,
            "double" => Expression::Double,
            "string" => Expression::Text,
            "size" => Expression::Size,
            "parseJson" => Expression::ParseJson,
            _ => {
                self.rest = before;
                let values = match self.of {
                    None => "inputs.parameter_values['…']",
                    Some(_) => "string_value",
                };
                return self.expected(&format!(
                    "a value ({values}, a string, a number, true, false, null, or one of the \
                     functions int, double, string, size, parseJson)"
                ));
            }
        };
        self.need("(")?;
        let inner = self.any()?;
        self.need(")")?;
        Ok(wrap(Box::new(inner)))
    }

    fn input(&mut self) -> Result<Expression> {
        self.need(".")?;
        match self.word() {
            Some("parameter_values" | "parameters") => {}
            _ => return self.expected("parameter_values"),
        }
        let name = if self.eat(".") {
            match self.word() {
                Some(name) => name.to_owned(),
                None => return self.expected("a name"),
            }
        } else {
            self.need("[")?;
            self.rest = self.rest.trim_start();
            let Some(quote @ ('\'' | '"')) = self.rest.chars().next() else {
                return self.expected("a quoted name");
            };
            let Expression::Constant(Value::String(name)) = self.string(quote)? else {
                return self.expected("a quoted name");
            };
            self.need("]")?;
            name
        };
        Ok(Expression::Ref(Ref::Argument(name)))
    }

    fn string(&mut self, quote: char) -> Result<Expression> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.rest = &self.rest[at + 1..];
                return Ok(Expression::Constant(Value::String(text)));
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let Some((_, escaped)) = chars.next() else {
                break;
            };
            match escaped {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'u' => {
                    let digits: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                    let code = u32::from_str_radix(&digits, 16).ok();
                    match code.and_then(char::from_u32) {
                        Some(c) if digits.len() == 4 => text.push(c),
                        _ => return self.expected("four hexadecimal digits after \\u"),
                    }
                }
                '\\' | '\'' | '"' | '`' | '?' => text.push(escaped),
                other => {
                    return self.expected(&format!("a known escape, not \\{other},"));
                }
            }
        }
        self.expected("a closing quote")
    }

    fn number(&mut self) -> Result<Expression> {
        let mut end = 0;
        let bytes = self.rest.as_bytes();
        while let Some(&byte) = bytes.get(end) {
            let sign = matches!(byte, b'+' | b'-') && matches!(bytes[end - 1], b'e' | b'E');
            if !(byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E') || (end > 0 && sign)) {
                break;
            }
            end += 1;
        }
        let (text, rest) = self.rest.split_at(end);
        let number = match text.parse::<i64>() {
            Ok(whole) => Some(Number::from(whole)),
            Err(_) => text.parse().ok().and_then(Number::from_f64),
        };
        let Some(number) = number else {
            return self.expected("a number");
        };
        self.rest = rest;
        Ok(Expression::Constant(Value::Number(number)))
    }
}

fn one_or(mut parts: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    if parts.len() == 1 {
        parts.remove(0)
    } else {
        many(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(source: &str) -> String {
        match condition(source) {
            Ok(expression) => format!("{expression:?}"),
            Err(error) => error,
        }
    }

    #[test]
    fn what_compilers_write_is_understood() {
        for source in [
            "inputs.parameter_values['a'] == 'heads'",
            "!(inputs.parameter_values['a'] == 'heads') && !(inputs.parameter_values['b'] == true)",
            "int(inputs.parameter_values['pipelinechannel--x']) >= int(inputs.parameter_values['y'])",
            "inputs.parameter_values['a'] != 'it\\'s' || inputs.parameter_values.b < -1.5e-3",
            "parseJson(inputs.parameter_values['a'])['k'][0].name == null",
            "size(inputs.parameter_values['l']) > 0",
        ] {
            assert!(condition(source).is_ok(), "{}", written(source));
        }
        let of = Expression::Constant(Value::from("{}"));
        for source in [
            "parseJson(string_value)[\"A_a\"]",
            "struct_value['a']",
            "list_value[0]",
        ] {
            assert!(selector(source, &of).is_ok(), "{source}");
        }
    }

    #[test]
    fn operators_bind_as_in_cel() {
        let and_or = condition("true || false && !true").unwrap();
        assert!(matches!(and_or, Expression::Any(parts) if parts.len() == 2));
        let escaped = condition("'a\\n\\u00e4\\''").unwrap();
        assert_eq!(escaped, Expression::Constant(Value::from("a\nä'")));
    }

    #[test]
    fn everything_else_is_refused_with_the_place() {
        for (source, expect) in [
            ("", "expected a value at character 0"),
            ("foo == 1", "expected a value (inputs.parameter_values"),
            ("inputs.artifacts['a']", "expected parameter_values"),
            ("1 ==", "expected a value at character 4"),
            ("'open", "expected a closing quote"),
            ("1 == 1)", "expected an operator or the end at character 6"),
            ("string_value == ''", "expected inputs.parameter_values"),
            ("1.2.3", "expected a number"),
        ] {
            let error = condition(source).unwrap_err();
            assert!(error.contains(expect), "{source}: {error}");
        }
        let deep = "(".repeat(5000);
        assert!(condition(&deep).unwrap_err().contains("nested"));
        let bangs = "!".repeat(5000);
        assert!(condition(&bangs).unwrap_err().contains("nested"));
    }
}
