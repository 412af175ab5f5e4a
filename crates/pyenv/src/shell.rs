//! Just enough of the shell's grammar to read scripts that only run simple commands: words with their
//! quotes, assignments, one redirection, `&&`, `||`, groups, and `if … fi` as one opaque part.
//!
//! Nothing is expanded or run. A script with anything else is answered with `None`, and the caller
//! leaves it to a real shell.

/// A word after quotes are taken away. Expansions stay in it as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    /// Whether the text is what the command would get: nothing in it is expanded.
    pub(crate) literal: bool,
}

impl Word {
    /// The text, if nothing in it is expanded.
    pub(crate) fn literal(&self) -> Option<&str> {
        self.literal.then_some(self.text.as_str())
    }

    /// Whether this is exactly that expansion, `$0` or `$@`.
    pub(crate) fn is_expansion(&self, of: &str) -> bool {
        !self.literal && self.text == of
    }
}

/// A simple command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Command {
    /// `NAME=value` before the command's name.
    pub(crate) assignments: Vec<(String, Word)>,
    pub(crate) words: Vec<Word>,
    /// The file that `>` names.
    pub(crate) output: Option<Word>,
}

/// One part of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Command(Command),
    /// `( … )`, with the alternatives that `||` separates.
    Group(Vec<Vec<Command>>),
    /// The text between `if` and `fi`.
    If(String),
}

/// The parts of a script in their order; all of them are joined by `&&`, `;` or a line's end.
pub(crate) fn parse(script: &str) -> Option<Vec<Part>> {
    let tokens = tokens(script)?;
    let mut parts = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            Token::End | Token::And => at += 1,
            Token::Open => {
                let close = at + tokens[at..].iter().position(|t| *t == Token::Close)?;
                parts.push(Part::Group(alternatives(&tokens[at + 1..close])?));
                at = close + 1;
            }
            Token::If(text) => {
                parts.push(Part::If(text.clone()));
                at += 1;
            }
            Token::Word(_) | Token::Output => {
                let length = tokens[at..]
                    .iter()
                    .position(|t| !matches!(t, Token::Word(_) | Token::Output))
                    .unwrap_or(tokens.len() - at);
                parts.push(Part::Command(command(&tokens[at..at + length])?));
                at += length;
            }
            Token::Or | Token::Close => return None,
        }
    }
    Some(parts)
}

fn alternatives(tokens: &[Token]) -> Option<Vec<Vec<Command>>> {
    tokens
        .split(|token| *token == Token::Or)
        .map(|alternative| {
            alternative
                .split(|token| matches!(token, Token::And | Token::End))
                .filter(|tokens| !tokens.is_empty())
                .map(command)
                .collect()
        })
        .collect()
}

fn command(tokens: &[Token]) -> Option<Command> {
    let mut command = Command::default();
    let mut tokens = tokens.iter();
    while let Some(token) = tokens.next() {
        match token {
            Token::Output => match tokens.next()? {
                Token::Word(word) if command.output.is_none() => {
                    command.output = Some(word.clone());
                }
                _ => return None,
            },
            Token::Word(word) => match assignment(word) {
                Some(assignment) if command.words.is_empty() => {
                    command.assignments.push(assignment);
                }
                _ => command.words.push(word.clone()),
            },
            _ => return None,
        }
    }
    Some(command)
}

fn assignment(word: &Word) -> Option<(String, Word)> {
    let (name, value) = word.text.split_once('=')?;
    let is_name = name
        .bytes()
        .enumerate()
        .all(|(at, b)| b == b'_' || b.is_ascii_alphabetic() || (at > 0 && b.is_ascii_digit()));
    (is_name && !name.is_empty()).then(|| {
        let value = Word {
            text: value.to_owned(),
            literal: word.literal,
        };
        (name.to_owned(), value)
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(Word),
    And,
    Or,
    /// A line's end or `;`.
    End,
    Open,
    Close,
    Output,
    If(String),
}

fn tokens(script: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = script;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r']);
        rest = rest.strip_prefix("\\\n").unwrap_or(rest);
        let Some(first) = rest.chars().next() else {
            return Some(tokens);
        };
        let starts_command = matches!(
            tokens.last(),
            None | Some(Token::End | Token::And | Token::Or | Token::Open)
        );
        let (token, length) = match first {
            ' ' | '\t' | '\r' => continue,
            '#' => {
                rest = rest.find('\n').map_or("", |at| &rest[at..]);
                continue;
            }
            '\n' | ';' => (Token::End, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '>' if !rest.starts_with(">>") && !rest.starts_with(">&") => (Token::Output, 1),
            '&' if rest.starts_with("&&") => (Token::And, 2),
            '|' if rest.starts_with("||") => (Token::Or, 2),
            '&' | '|' | '<' | '>' | '`' | '{' | '}' => return None,
            _ => {
                let (word, length) = word(rest)?;
                match word.text.as_str() {
                    "if" if starts_command => {
                        let end = end_of_if(rest)?;
                        (Token::If(rest[2..end - 2].to_owned()), end)
                    }
                    "for" | "while" | "until" | "case" | "function" if starts_command => {
                        return None;
                    }
                    _ => (Token::Word(word), length),
                }
            }
        };
        tokens.push(token);
        rest = &rest[length..];
    }
}

/// Where the `fi` of a first `if` without others inside ends.
fn end_of_if(text: &str) -> Option<usize> {
    let mut at = 0;
    for line in text.split_inclusive(['\n', ';']) {
        let word = line.trim_matches(|c: char| c.is_whitespace() || c == ';');
        if word == "fi" {
            return Some(at + line.find("fi")? + 2);
        }
        if at > 0 && word.starts_with("if ") {
            return None;
        }
        at += line.len();
    }
    None
}

/// The first word of `text` and the length of what it took.
fn word(text: &str) -> Option<(Word, usize)> {
    let mut out = Word {
        text: String::new(),
        literal: true,
    };
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')' => {
                return Some((out, at));
            }
            '\'' => loop {
                match chars.next()?.1 {
                    '\'' => break,
                    inner => out.text.push(inner),
                }
            },
            '"' => loop {
                match chars.next()?.1 {
                    '"' => break,
                    '\\' => match chars.next()?.1 {
                        '\n' => {}
                        escaped @ ('$' | '`' | '"' | '\\') => out.text.push(escaped),
                        other => out.text.extend(['\\', other]),
                    },
                    '$' => expansion(text, &mut chars, &mut out)?,
                    '`' => return None,
                    inner => out.text.push(inner),
                }
            },
            '\\' => match chars.next()?.1 {
                '\n' => {}
                escaped => out.text.push(escaped),
            },
            '$' => expansion(text, &mut chars, &mut out)?,
            // Names of files, which depend on where it runs.
            '`' | '*' | '?' => return None,
            other => out.text.push(other),
        }
    }
    Some((out, text.len()))
}

/// After a `$`: the expansion goes into the word as it is written, `${x}` as `$x`.
fn expansion(text: &str, chars: &mut std::str::CharIndices<'_>, out: &mut Word) -> Option<()> {
    out.literal = false;
    out.text.push('$');
    let rest = chars.as_str();
    let length = match rest.chars().next()? {
        '{' => {
            let end = rest.find('}')?;
            let name = &rest[1..end];
            if !name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
                return None;
            }
            out.text.push_str(name);
            end + 1
        }
        '(' => {
            // Without others inside, and no arithmetic.
            let end = rest.find(')')?;
            let inner = &rest[1..end];
            if inner.contains(['(', '$', '`', '"', '\'']) {
                return None;
            }
            out.text.push_str(&rest[..=end]);
            end + 1
        }
        '@' | '0'..='9' => {
            out.text.push_str(&rest[..1]);
            1
        }
        _ => {
            let end = rest
                .find(|c: char| c != '_' && !c.is_ascii_alphanumeric())
                .unwrap_or(rest.len());
            if end == 0 {
                return None;
            }
            out.text.push_str(&rest[..end]);
            end
        }
    };
    let target = text.len() - rest.len() + length;
    while text.len() - chars.as_str().len() < target {
        chars.next()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(script: &str) -> Vec<Vec<(String, bool)>> {
        parse(script)
            .unwrap()
            .into_iter()
            .map(|part| match part {
                Part::Command(command) => command
                    .words
                    .into_iter()
                    .map(|word| (word.text, word.literal))
                    .collect(),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn quotes_are_taken_away_and_expansions_stay() {
        assert_eq!(
            words("a 'b c' \"d $0 \\\"e\\$\" f\\ g '$0' ${x}/y"),
            [[
                ("a".to_owned(), true),
                ("b c".to_owned(), true),
                ("d $0 \"e$".to_owned(), false),
                ("f g".to_owned(), true),
                ("$0".to_owned(), true),
                ("$x/y".to_owned(), false),
            ]]
        );
        assert_eq!(words("a \\\n  b\nc; d && e").len(), 4);
    }

    #[test]
    fn assignments_groups_and_redirections_are_told_apart() {
        let parts = parse("A=1 B=$(mktemp -d) c > \"$B/f\"\n(x || x --user) && \"$0\"").unwrap();
        let Part::Command(first) = &parts[0] else {
            panic!("{parts:?}")
        };
        assert_eq!(first.assignments[1].1.text, "$(mktemp -d)");
        assert!(!first.assignments[1].1.literal);
        assert_eq!(first.output.as_ref().unwrap().text, "$B/f");
        assert!(matches!(&parts[1], Part::Group(alternatives) if alternatives.len() == 2));
        assert_eq!(parts.len(), 3);
    }

    #[test]
    fn an_if_is_one_part_with_its_text() {
        let parts = parse("\nif ! [ -x a ]; then\n  b || c\nfi\n\nd").unwrap();
        assert!(matches!(&parts[0], Part::If(text) if text.contains("b || c")));
        assert_eq!(parts.len(), 2);
    }

    #[test]
    fn what_a_shell_would_have_to_run_is_left_to_it() {
        for script in [
            "a | b",
            "a & b",
            "a < b",
            "a >> b",
            "for x in y; do z; done",
            "a `b`",
            "a *.py",
            "a 'b",
            "a ${x:-y}",
            "a $(b \"$c\")",
            "{ a; }",
            "if x; then y",
        ] {
            assert_eq!(parse(script), None, "{script}");
        }
    }
}
