//! `when` expressions: comparisons of quoted strings, numbers and references, with `&&`, `||`, `!`
//! and parentheses.

use engine::{Comparison, Condition, Operand};

use super::text::{self, Paths};

type Result<T> = core::result::Result<T, String>;

/// Parses an expression; the error says what was expected where.
pub(super) fn parse(source: &str) -> Result<Condition> {
    let mut parser = Parser {
        rest: source,
        whole: source,
        depth: 0,
    };
    let condition = parser.any()?;
    parser.skip_space();
    if !parser.rest.is_empty() {
        return parser.expected("an operator or the end");
    }
    Ok(condition)
}

const MAX_DEPTH: u32 = 64;

struct Parser<'a> {
    rest: &'a str,
    whole: &'a str,
    depth: u32,
}

impl Parser<'_> {
    fn expected<T>(&self, what: &str) -> Result<T> {
        let at = self.whole.len() - self.rest.len();
        let found = self.rest.chars().take(20).collect::<String>();
        let found = if found.is_empty() {
            "the end".to_owned()
        } else {
            format!("{found:?}")
        };
        Err(format!("expected {what} at character {at}, found {found}"))
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn any(&mut self) -> Result<Condition> {
        let mut parts = vec![self.all()?];
        while self.eat("||") {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 {
            parts.remove(0)
        } else {
            Condition::Any(parts)
        })
    }

    fn all(&mut self) -> Result<Condition> {
        let mut parts = vec![self.one()?];
        while self.eat("&&") {
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 {
            parts.remove(0)
        } else {
            Condition::All(parts)
        })
    }

    fn one(&mut self) -> Result<Condition> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!(
                "the expression is nested more than {MAX_DEPTH} deep"
            ));
        }
        self.skip_space();
        let condition = if self.rest.starts_with('!') && !self.rest.starts_with("!=") {
            self.rest = &self.rest[1..];
            Condition::Not(Box::new(self.one()?))
        } else if self.eat("(") {
            let inner = self.any()?;
            if !self.eat(")") {
                return self.expected("a closing parenthesis");
            }
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn comparison(&mut self) -> Result<Condition> {
        let left = self.operand()?;
        for (token, by) in [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<=", Comparison::LessOrEqual),
            (">", Comparison::Greater),
            ("<", Comparison::Less),
        ] {
            if self.eat(token) {
                let right = self.operand()?;
                return Ok(Condition::Compare { left, by, right });
            }
        }
        Ok(Condition::Truth(left))
    }

    fn operand(&mut self) -> Result<Operand> {
        self.skip_space();
        let quote = self.rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        if let Some(quote) = quote {
            let mut content = String::new();
            let mut chars = self.rest.char_indices().skip(1);
            while let Some((at, c)) = chars.next() {
                if c == '\\' {
                    content.extend(chars.next().map(|(_, escaped)| escaped));
                } else if c == quote {
                    self.rest = &self.rest[at + 1..];
                    return Ok(Operand {
                        text: text::parse(&content, &Paths::new())?,
                        quoted: true,
                    });
                } else {
                    content.push(c);
                }
            }
            return self.expected("a closing quote");
        }
        let mut end = 0;
        while end < self.rest.len() {
            let rest = &self.rest[end..];
            if rest.starts_with("{{") {
                let Some(length) = rest.find("}}") else {
                    return self.expected("a closing }}");
                };
                end += length + 2;
                continue;
            }
            let Some(next) = rest.chars().next() else {
                break;
            };
            if next.is_whitespace() || "=!<>&|()\"'".contains(next) {
                break;
            }
            end += next.len_utf8();
        }
        if end == 0 {
            return self.expected("a string, a number or a reference");
        }
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(Operand {
            text: text::parse(word, &Paths::new())?,
            quoted: false,
        })
    }
}
