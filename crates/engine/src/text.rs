//! Texts and JSON trees with references in them, and how references are resolved.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::expression::Expression;

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
    /// How a task of the enclosing DAG ended, as metadata stores spell it: `COMPLETE`, `CACHED`,
    /// `FAILED` or `CANCELED`.
    TaskState(String),
    /// What went wrong with a task of the enclosing DAG: an object with a code and a message, empty
    /// when nothing did.
    TaskError(String),
    /// The first of them that has a value.
    FirstOf(Vec<Ref>),
    /// A parameter passed to the task itself, as its template gets it: for its condition.
    Argument(String),
    /// The settings that the call gives its work.
    Settings,
    /// An id of the task, like a UUID: the called one in a call, else the template's own.
    TaskUid,
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
    /// An object; an entry without a value is left out.
    Map(BTreeMap<String, Shape>),
    /// An object whose keys may have references, too.
    Entries(Vec<(Text, Shape)>),
    /// The value of an expression, which may be absent.
    Value(Box<Expression>),
    /// Absent unless all of these have a value other than null.
    If {
        /// What must be there.
        present: Vec<Expression>,
        /// The tree.
        then: Box<Shape>,
    },
}

/// Something that has references in it.
#[derive(Clone, Copy)]
pub(crate) enum Part<'a> {
    Text(&'a Text),
    Expression(&'a Expression),
}

impl<'a> Part<'a> {
    /// Calls `visit` for every reference.
    pub(crate) fn visit_refs(self, visit: &mut dyn FnMut(&'a Ref)) {
        let mut each = |to: &'a Ref| match to {
            Ref::FirstOf(all) => all.iter().for_each(&mut *visit),
            to => visit(to),
        };
        match self {
            Self::Text(text) => text.refs().for_each(&mut each),
            Self::Expression(expression) => expression.visit_refs(&mut each),
        }
    }

    /// As it was written, or close to it.
    pub(crate) fn source(self) -> String {
        match self {
            Self::Text(text) => text.source(),
            Self::Expression(expression) => expression.written(&Ref::describe),
        }
    }

    /// Whether it names the loop's item.
    pub(crate) fn uses_item(self) -> bool {
        let mut uses = false;
        self.visit_refs(&mut |to| uses |= matches!(to, Ref::Item(_)));
        uses
    }
}

impl Ref {
    /// What it names, in words.
    pub fn describe(&self) -> String {
        match self {
            Self::Input(name) => format!("input {name:?}"),
            Self::InputArtifact(name) => format!("input artifact {name:?}"),
            Self::Output { task, name } => format!("output {name:?} of task {task:?}"),
            Self::OutputArtifact { task, name } => {
                format!("output artifact {name:?} of task {task:?}")
            }
            Self::TaskStatus(task) | Self::TaskState(task) => format!("state of task {task:?}"),
            Self::TaskError(task) => format!("error of task {task:?}"),
            Self::FirstOf(all) => {
                let all: Vec<_> = all.iter().map(Self::describe).collect();
                format!("first of {}", all.join(", "))
            }
            Self::Argument(name) => format!("inputs.parameter_values[{name:?}]"),
            Self::Settings => "settings".to_owned(),
            Self::TaskUid => "task id".to_owned(),
            Self::RunParameter(name) => format!("run parameter {name:?}"),
            Self::Run(name) => format!("the run's {name}"),
            Self::Item(path) if path.is_empty() => "item".to_owned(),
            Self::Item(path) => format!("item.{}", path.join(".")),
            Self::Late(name) => name.clone(),
        }
    }
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
    /// One reference, which may have no value.
    pub fn reference(to: Ref) -> Self {
        Self::Value(Box::new(Expression::Ref(to)))
    }

    /// The tree with every reference replaced by its value. Items and entries without a value are
    /// left out; the error says what cannot be calculated.
    pub(crate) fn value(&self, scope: &dyn Scope) -> Result<Option<Value>, String> {
        match self {
            Self::Plain(value) => Ok(Some(value.clone())),
            Self::Text(text) => Ok(Some(text.resolve(scope))),
            Self::List(items) => {
                let items = items.iter().map(|item| item.value(scope));
                let list: Result<Vec<_>, _> = items.collect();
                Ok(Some(list?.into_iter().flatten().collect()))
            }
            Self::Map(entries) => {
                let mut object = serde_json::Map::new();
                for (key, entry) in entries {
                    if let Some(value) = entry.value(scope)? {
                        object.insert(key.clone(), value);
                    }
                }
                Ok(Some(Value::Object(object)))
            }
            Self::Entries(entries) => {
                let mut object = serde_json::Map::new();
                for (key, entry) in entries {
                    if let Some(value) = entry.value(scope)? {
                        object.insert(key.resolve_string(scope), value);
                    }
                }
                Ok(Some(Value::Object(object)))
            }
            Self::Value(expression) => expression.value(scope),
            Self::If { present, then } => {
                for one in present {
                    if one.value(scope)?.is_none_or(|value| value.is_null()) {
                        return Ok(None);
                    }
                }
                then.value(scope)
            }
        }
    }

    /// Like [`Shape::value`], for trees in which everything has a value: null where it has none.
    pub(crate) fn resolve(&self, scope: &dyn Scope) -> Value {
        self.value(scope).ok().flatten().unwrap_or_default()
    }

    /// Calls `visit` for everything in the tree that has references.
    pub(crate) fn visit<'a>(&'a self, visit: &mut dyn FnMut(Part<'a>)) {
        match self {
            Self::Plain(_) => {}
            Self::Text(text) => visit(Part::Text(text)),
            Self::List(items) => items.iter().for_each(|item| item.visit(visit)),
            Self::Map(entries) => entries.values().for_each(|value| value.visit(visit)),
            Self::Entries(entries) => {
                for (key, value) in entries {
                    visit(Part::Text(key));
                    value.visit(visit);
                }
            }
            Self::Value(expression) => visit(Part::Expression(expression)),
            Self::If { present, then } => {
                for one in present {
                    visit(Part::Expression(one));
                }
                then.visit(visit);
            }
        }
    }

    /// Whether it names the loop's item.
    pub(crate) fn uses_item(&self) -> bool {
        let mut uses = false;
        self.visit(&mut |part| uses |= part.uses_item());
        uses
    }

    /// Whether it names another parameter of the same call.
    pub(crate) fn uses_arguments(&self) -> bool {
        let mut uses = false;
        self.visit(&mut |part| {
            part.visit_refs(&mut |to| uses |= matches!(to, Ref::Argument(_)));
        });
        uses
    }

    /// What it names, in words; for messages.
    pub(crate) fn source(&self) -> String {
        let mut parts = Vec::new();
        self.visit(&mut |part| parts.push(part.source()));
        parts.join(", ")
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
