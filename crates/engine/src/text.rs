//! Texts and JSON trees with references in them, and how references are resolved.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a reference names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Ref {
    /// A parameter of the enclosing template.
    Input(String),
    /// An artifact of the enclosing template.
    InputArtifact(String),
    /// An output parameter of a task of the enclosing DAG.
    Output {
        /// The task's name.
        task: String,
        /// The parameter's name.
        name: String,
    },
    /// An output artifact of a task of the enclosing DAG.
    OutputArtifact {
        /// The task's name.
        task: String,
        /// The artifact's name.
        name: String,
    },
    /// The phase of a task of the enclosing DAG.
    TaskStatus(String),
    /// A parameter of the run.
    RunParameter(String),
    /// A fact about the run, such as its name.
    Run(String),
    /// The item of the loop, or a value inside it.
    Item(Vec<String>),
    /// Something only the runner knows; it stays in the text.
    Late(String),
}

/// A part of a [`Text`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// Itself.
    Literal(String),
    /// The value of a reference.
    Ref {
        /// What it names.
        to: Ref,
        /// How it was written; it stands for itself when nothing has that name.
        source: String,
    },
}

/// A text with references in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text(pub Vec<Piece>);

/// A JSON tree whose texts may have references in them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Shape {
    /// A tree without references.
    Plain(Value),
    /// A text.
    Text(Text),
    /// A list.
    List(Vec<Shape>),
    /// An object.
    Map(BTreeMap<String, Shape>),
}

/// Where references are looked up.
pub(crate) trait Scope {
    /// The value of a reference; `None` when nothing has that name (yet).
    fn lookup(&self, to: &Ref) -> Option<Value>;
}

/// A value as part of a text: strings as they are, everything else as compact JSON.
pub fn render(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Text {
    /// A text without references.
    pub fn literal(text: &str) -> Self {
        if text.is_empty() {
            return Self(Vec::new());
        }
        Self(alloc::vec![Piece::Literal(text.to_owned())])
    }

    /// One reference and nothing else.
    pub fn reference(to: Ref, source: &str) -> Self {
        Self(alloc::vec![Piece::Ref {
            to,
            source: source.to_owned()
        }])
    }

    /// The text as it was written.
    pub fn source(&self) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) | Piece::Ref { source: text, .. } => text.as_str(),
            })
            .collect()
    }

    /// Every reference in it.
    pub fn refs(&self) -> impl Iterator<Item = &Ref> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Ref { to, .. } => Some(to),
        })
    }

    /// Whether it names the loop's item.
    pub(crate) fn uses_item(&self) -> bool {
        self.refs().any(|to| matches!(to, Ref::Item(_)))
    }

    /// Its value: that of the reference when it is nothing but one, else a string.
    pub(crate) fn resolve(&self, scope: &dyn Scope) -> Value {
        if let [Piece::Ref { to, source }] = self.0.as_slice() {
            return scope
                .lookup(to)
                .unwrap_or_else(|| Value::String(source.clone()));
        }
        Value::String(self.resolve_string(scope))
    }

    /// Its value as a string.
    pub(crate) fn resolve_string(&self, scope: &dyn Scope) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Ref { to, source } => match scope.lookup(to) {
                    Some(value) => text.push_str(&render(&value)),
                    None => text.push_str(source),
                },
            }
        }
        text
    }

    /// Like [`Text::resolve`], but `None` as soon as a reference has no value.
    pub(crate) fn resolve_all(&self, scope: &dyn Scope) -> Option<Value> {
        let late = |to: &Ref| matches!(to, Ref::Late(_));
        if self
            .refs()
            .any(|to| !late(to) && scope.lookup(to).is_none())
        {
            return None;
        }
        Some(self.resolve(scope))
    }
}

impl Shape {
    /// The tree with every reference replaced by its value.
    pub(crate) fn resolve(&self, scope: &dyn Scope) -> Value {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Text(text) => text.resolve(scope),
            Self::List(items) => items.iter().map(|item| item.resolve(scope)).collect(),
            Self::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.clone(), value.resolve(scope)))
                    .collect(),
            ),
        }
    }

    /// Calls `visit` for every text in the tree.
    pub(crate) fn visit_texts<'a>(&'a self, visit: &mut dyn FnMut(&'a Text)) {
        match self {
            Self::Plain(_) => {}
            Self::Text(text) => visit(text),
            Self::List(items) => items.iter().for_each(|item| item.visit_texts(visit)),
            Self::Map(entries) => entries.values().for_each(|value| value.visit_texts(visit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use serde_json::json;

    struct One;
    impl Scope for One {
        fn lookup(&self, to: &Ref) -> Option<Value> {
            matches!(to, Ref::Input(name) if name == "n").then(|| json!(3))
        }
    }

    fn text(pieces: Vec<Piece>) -> Text {
        Text(pieces)
    }
    fn n() -> Piece {
        Piece::Ref {
            to: Ref::Input("n".into()),
            source: "{{n}}".into(),
        }
    }

    #[test]
    fn a_lone_reference_keeps_its_type_and_a_mixed_text_is_a_string() {
        assert_eq!(text(vec![n()]).resolve(&One), json!(3));
        let mixed = text(vec![Piece::Literal("n=".into()), n()]);
        assert_eq!(mixed.resolve(&One), json!("n=3"));
    }

    #[test]
    fn an_unknown_reference_stands_for_itself() {
        let gone = Text::reference(Ref::Input("gone".into()), "{{gone}}");
        assert_eq!(gone.resolve(&One), json!("{{gone}}"));
        assert_eq!(gone.resolve_all(&One), None);
    }

    #[test]
    fn a_tree_is_resolved_everywhere() {
        let shape = Shape::Map(BTreeMap::from([(
            "args".into(),
            Shape::List(vec![
                Shape::Plain(json!("-n")),
                Shape::Text(text(vec![n()])),
            ]),
        )]));
        assert_eq!(shape.resolve(&One), json!({"args": ["-n", 3]}));
    }
}
