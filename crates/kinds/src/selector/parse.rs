//! The grammar of a request's label selector, and the complaints upstream's parser has.

use std::collections::BTreeSet;

use super::label::{Operator, Requirement, check_key, requirement};

/// Reads `app=web,tier in (a,b),!legacy`.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, String> {
    Parser {
        tokens: lex(text),
        at: 0,
    }
    .selector()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Error,
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Word,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

fn special(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "(" => Token::Open,
        _ => return None,
    })
}

/// Splits a selector into tokens; symbols are taken as long as they grow into known ones.
fn lex(text: &str) -> Vec<(Token, String)> {
    let is_symbol = |c: char| "=!(),<>".contains(c);
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(first) = rest.chars().next() else {
            break;
        };
        if is_symbol(first) {
            let mut length = 1;
            while rest.get(..=length).and_then(special).is_some() {
                length += 1;
            }
            let (symbol, after) = rest.split_at(length);
            tokens.push((special(symbol).unwrap_or(Token::Error), symbol.to_owned()));
            rest = after;
            continue;
        }
        let end = rest
            .find(|c: char| is_symbol(c) || " \t\r\n".contains(c))
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let token = match word {
            "in" => Token::In,
            "notin" => Token::NotIn,
            _ => Token::Word,
        };
        tokens.push((token, word.to_owned()));
        rest = after;
    }
    tokens
}

struct Parser {
    tokens: Vec<(Token, String)>,
    at: usize,
}

impl Parser {
    /// The next token; `in` and `notin` are plain words except where an operator is expected.
    fn peek(&self, operators: bool) -> (Token, String) {
        let (token, text) = self
            .tokens
            .get(self.at)
            .cloned()
            .unwrap_or((Token::End, String::new()));
        match token {
            Token::In | Token::NotIn if !operators => (Token::Word, text),
            _ => (token, text),
        }
    }

    fn take(&mut self, operators: bool) -> (Token, String) {
        let next = self.peek(operators);
        self.at += 1;
        next
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            let (token, text) = self.peek(false);
            match token {
                Token::Word | Token::Not => {
                    let next = self
                        .requirement()
                        .map_err(|error| format!("unable to parse requirement: {error}"))?;
                    requirements.push(next);
                    let (token, text) = self.take(false);
                    match token {
                        Token::End => return Ok(requirements),
                        Token::Comma => {
                            let (token, text) = self.peek(false);
                            if token != Token::Word && token != Token::Not {
                                return Err(format!(
                                    "found '{text}', expected: identifier after ','"
                                ));
                            }
                        }
                        _ => {
                            return Err(format!(
                                "found '{text}', expected: ',' or 'end of string'"
                            ));
                        }
                    }
                }
                Token::End => return Ok(requirements),
                _ => {
                    return Err(format!(
                        "found '{text}', expected: !, identifier, or 'end of string'"
                    ));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut text) = self.take(false);
        let negated = token == Token::Not;
        if negated {
            (token, text) = self.take(false);
        }
        if token != Token::Word {
            return Err(format!("found '{text}', expected: identifier"));
        }
        let key = text;
        check_key(&key)?;
        if negated {
            return requirement(&key, Operator::DoesNotExist, BTreeSet::new()).map_err(|e| e.0);
        }
        if matches!(self.peek(false).0, Token::End | Token::Comma) {
            return requirement(&key, Operator::Exists, BTreeSet::new()).map_err(|e| e.0);
        }
        let (token, text) = self.take(true);
        let operator = match token {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            _ => {
                return Err(format!(
                    "found '{text}', expected: in, notin, =, ==, !=, gt, lt"
                ));
            }
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => self.exact_value()?,
        };
        requirement(&key, operator, values).map_err(|e| e.0)
    }

    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        let (token, text) = self.take(false);
        if token != Token::Open {
            return Err(format!("found '{text}' expected: '('"));
        }
        let (token, text) = self.peek(false);
        match token {
            Token::Word | Token::Comma => {
                let values = self.words()?;
                let (token, text) = self.take(false);
                if token != Token::Close {
                    return Err(format!("found '{text}', expected: ')'"));
                }
                Ok(values)
            }
            Token::Close => {
                self.at += 1;
                Ok(BTreeSet::new())
            }
            _ => Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
    }

    fn words(&mut self) -> Result<BTreeSet<String>, String> {
        let mut values = BTreeSet::new();
        loop {
            let (token, text) = self.take(false);
            match token {
                Token::Word => {
                    values.insert(text);
                    let (token, text) = self.peek(false);
                    match token {
                        Token::Comma => {}
                        Token::Close => return Ok(values),
                        _ => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                Token::Comma => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    match self.peek(false).0 {
                        Token::Close => {
                            values.insert(String::new());
                            return Ok(values);
                        }
                        Token::Comma => {
                            self.at += 1;
                            values.insert(String::new());
                        }
                        _ => {}
                    }
                }
                _ => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
    }

    fn exact_value(&mut self) -> Result<BTreeSet<String>, String> {
        if matches!(self.peek(false).0, Token::End | Token::Comma) {
            return Ok([String::new()].into());
        }
        let (token, text) = self.take(false);
        if token == Token::Word {
            return Ok([text].into());
        }
        Err(format!("found '{text}', expected: identifier"))
    }
}
