//! Reading YAML as upstream reads it: version 1.1 scalars (`yes` is a boolean), the first document
//! only, anchors and merge keys, all keys strings.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::Number;

use crate::json::{MAX_STRICT_ERRORS, Tree};

/// A document as a tree; duplicate keys are resolved (the last wins) and listed.
pub(crate) struct Document {
    pub(crate) tree: Tree,
    /// Paths of duplicate keys.
    pub(crate) duplicates: Vec<String>,
    lines: Vec<(usize, String)>,
}

impl Document {
    /// What strict decoding says of duplicate keys.
    pub(crate) fn strict_error(&self) -> Option<String> {
        if self.lines.is_empty() {
            return None;
        }
        let lines: Vec<String> = self
            .lines
            .iter()
            .map(|(line, key)| format!("  line {line}: key {key:?} already set in map"))
            .collect();
        Some(format!("yaml: unmarshal errors:\n{}", lines.join("\n")))
    }
}

/// Aliases may repeat a part of a document, but not blow it up without bound.
const MAX_NODES: usize = 1_000_000;
const MAX_DEPTH: usize = 200;

pub(crate) fn parse(bytes: &[u8]) -> Result<Document, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| "yaml: control characters are not allowed".to_owned())?;
    let mut composer = Composer {
        parser: Parser::new_from_str(text),
        anchors: BTreeMap::new(),
        path: String::new(),
        duplicates: Vec::new(),
        lines: Vec::new(),
        nodes: 0,
    };
    let tree = loop {
        match composer.next()? {
            (Event::StreamStart | Event::DocumentStart(..), _) => {}
            (Event::StreamEnd | Event::DocumentEnd, _) => break Tree::Null,
            (event, span) => break composer.node(event, span, 0)?.tree,
        }
    };
    Ok(Document {
        tree,
        duplicates: composer.duplicates,
        lines: composer.lines,
    })
}

struct Composer<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    anchors: BTreeMap<usize, (Tree, usize)>,
    path: String,
    duplicates: Vec<String>,
    lines: Vec<(usize, String)>,
    nodes: usize,
}

/// A tree with its number of nodes.
struct Node {
    tree: Tree,
    size: usize,
    merge: bool,
}

impl<'a> Composer<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), String> {
        loop {
            let Some(event) = self.parser.next_event() else {
                return Err("yaml: unexpected end of stream".to_owned());
            };
            match event {
                Ok((Event::Comment(..) | Event::Anchor(..), _)) => {}
                Ok(event) => return Ok(event),
                Err(error) => {
                    return Err(format!(
                        "yaml: line {}: {}",
                        error.marker().line(),
                        error.info()
                    ));
                }
            }
        }
    }

    fn count(&mut self, size: usize) -> Result<(), String> {
        self.nodes += size;
        if self.nodes > MAX_NODES {
            return Err("yaml: document contains excessive aliasing".to_owned());
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, String> {
        if depth > MAX_DEPTH {
            return Err(format!("yaml: exceeded max depth of {MAX_DEPTH}"));
        }
        let anchor = event.anchor_id();
        let before = self.nodes;
        self.count(1)?;
        let mut merge = false;
        let tree = match event {
            Event::Alias(id) => {
                let (tree, size) = self
                    .anchors
                    .get(&id)
                    .cloned()
                    .ok_or("yaml: anchor value contains itself")?;
                self.count(size)?;
                tree
            }
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.next()?;
                    if matches!(event, Event::SequenceEnd) {
                        break Tree::List(items);
                    }
                    let length = crate::json::push_index(&mut self.path, items.len());
                    items.push(self.node(event, span, depth + 1)?.tree);
                    self.path.truncate(length);
                }
            }
            Event::MappingStart(..) => self.mapping(depth)?,
            other => {
                let tag = other
                    .tag()
                    .and_then(|tag| tag.core_suffix().map(str::to_owned));
                match other.scalar() {
                    Some((text, style)) => {
                        let plain = style == ScalarStyle::Plain;
                        merge = plain && text == "<<";
                        match tag.as_deref() {
                            Some("str" | "binary") => Tree::String(text.to_owned()),
                            None if plain => resolve(text),
                            Some(_) => resolve(text),
                            None => Tree::String(text.to_owned()),
                        }
                    }
                    None => {
                        return Err(format!(
                            "yaml: line {}: unexpected content",
                            span.start.line()
                        ));
                    }
                }
            }
        };
        let size = self.nodes - before;
        if let Some(id) = anchor {
            self.anchors.insert(id, (tree.clone(), size));
        }
        Ok(Node { tree, size, merge })
    }

    fn mapping(&mut self, depth: usize) -> Result<Tree, String> {
        let mut entries: Vec<(String, Tree)> = Vec::new();
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        let mut merged: Vec<Tree> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let line = span.start.line();
            let key = self.node(event, span, depth + 1)?;
            let text = key_text(&key.tree).ok_or_else(|| {
                format!(
                    "yaml: line {line}: a map or list cannot be a key (of {} nodes)",
                    key.size
                )
            })?;
            let length = crate::json::push_key(&mut self.path, &text);
            let (event, span) = self.next()?;
            let value_line = span.start.line();
            let value = self.node(event, span, depth + 1)?.tree;
            if key.merge {
                merged.push(value);
            } else if let Some(&place) = places.get(&text) {
                if self.lines.len() < MAX_STRICT_ERRORS {
                    self.duplicates.push(self.path.clone());
                    self.lines.push((value_line, text));
                }
                entries[place].1 = value;
            } else {
                places.insert(text.clone(), entries.len());
                entries.push((text, value));
            }
            self.path.truncate(length);
        }
        for source in merged {
            let sources = match source {
                Tree::List(items) => items,
                other => vec![other],
            };
            for source in sources {
                let Tree::Map(fields) = source else {
                    return Err(
                        "yaml: map merge requires map or sequence of maps as the value".to_owned(),
                    );
                };
                for (key, value) in fields {
                    if !places.contains_key(&key) {
                        places.insert(key.clone(), entries.len());
                        entries.push((key, value));
                    }
                }
            }
        }
        Ok(Tree::Map(entries))
    }
}

fn key_text(tree: &Tree) -> Option<String> {
    Some(match tree {
        Tree::String(text) => text.clone(),
        Tree::Bool(value) => value.to_string(),
        Tree::Number(number) => number.to_string(),
        Tree::Null => "null".to_owned(),
        Tree::List(_) | Tree::Map(_) => return None,
    })
}

/// What a plain scalar means in YAML 1.1 as Go's library reads it.
fn resolve(text: &str) -> Tree {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Tree::Null,
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Tree::Bool(true);
        }
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Tree::Bool(false);
        }
        _ => {}
    }
    let first = text.as_bytes()[0];
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return Tree::String(text.to_owned());
    }
    integer(text)
        .or_else(|| float(text))
        .map_or_else(|| Tree::String(text.to_owned()), Tree::Number)
}

fn integer(text: &str) -> Option<Number> {
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, plain.as_str()),
    };
    let (radix, digits) = if let Some(rest) = digits.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = digits.strip_prefix("0b") {
        (2, rest)
    } else if let Some(rest) = digits.strip_prefix("0o") {
        (8, rest)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (8, &digits[1..])
    } else {
        (10, digits)
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -value } else { value };
    i64::try_from(value)
        .map(Number::from)
        .or_else(|_| u64::try_from(value).map(Number::from))
        .ok()
}

fn float(text: &str) -> Option<Number> {
    let plain = text.replace('_', "");
    let known =
        |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    if !plain.bytes().all(known) || !plain.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: f64 = plain.parse().ok()?;
    // Go writes a whole float without its fraction.
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::parse;

    fn value(text: &str) -> Value {
        parse(text.as_bytes()).unwrap().tree.into_plain()
    }

    #[test]
    fn scalars_follow_version_1_1() {
        assert_eq!(
            value(
                "a: y\nb: 'y'\nc: 010\nd: 0x1F\ne: 1.0\nf: 1.5\ng: ~\nh: v1.2\ni: 1_000\nj: off\nk:\n- -1\n"
            ),
            json!({"a": true, "b": "y", "c": 8, "d": 31, "e": 1, "f": 1.5, "g": null,
                   "h": "v1.2", "i": 1000, "j": false, "k": [-1]})
        );
        assert_eq!(
            value("a: 2026-01-01\nb: 10.0.0.1\nc: 12:30\n"),
            json!({"a": "2026-01-01", "b": "10.0.0.1", "c": "12:30"})
        );
        assert_eq!(value("1: a\ntrue: b\n"), json!({"1": "a", "true": "b"}));
        assert_eq!(value("a: |\n  x\n  y\n"), json!({"a": "x\ny\n"}));
    }

    #[test]
    fn only_the_first_document_counts() {
        assert_eq!(value("---\na: 1\n---\nb: 2\n"), json!({"a": 1}));
        assert_eq!(value(""), Value::Null);
    }

    #[test]
    fn anchors_and_merge_keys_resolve() {
        assert_eq!(
            value("x: &x {a: 1, b: 2}\nw:\n  <<: *x\n  b: 3\nz: *x\n"),
            json!({"x": {"a": 1, "b": 2}, "w": {"b": 3, "a": 1}, "z": {"a": 1, "b": 2}})
        );
    }

    #[test]
    fn duplicate_keys_are_listed() {
        let document = parse(b"a: 1\nb:\n  c: 1\n  c: 2\n").unwrap();
        assert_eq!(document.duplicates, ["b.c"]);
        assert_eq!(
            document.strict_error().unwrap(),
            "yaml: unmarshal errors:\n  line 4: key \"c\" already set in map"
        );
        assert_eq!(document.tree.into_plain(), json!({"a": 1, "b": {"c": 2}}));
    }

    #[test]
    fn broken_documents_are_refused() {
        assert!(parse(b"a: [1, 2").is_err());
        assert!(parse(b"a: b: c").is_err());
        assert!(parse(b"\xff\xfe").is_err());
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
        assert!(parse(bomb.as_bytes()).is_err());
    }
}
