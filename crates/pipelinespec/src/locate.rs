//! Finding the line of a field, once something is wrong with it.
//!
//! Packages are parsed without positions, which is fast; only an error parses them again.

use std::fmt::Write as _;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::documents;

/// A step of a field's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    Name(String),
    Index(usize),
}

/// `spec.templates[2].name`.
pub(crate) fn path_text(path: &[Key]) -> String {
    let mut text = String::new();
    for key in path {
        match key {
            Key::Name(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            Key::Index(index) => {
                // Writing to a String cannot fail.
                let _ = write!(text, "[{index}]");
            }
        }
    }
    text
}

/// The line of the field, or of the closest thing around it that exists.
pub(crate) fn line_of(text: &str, path: &[Key]) -> Option<usize> {
    let documents: Vec<Spanned<Tree>> = documents::parse(text).ok()?;
    let mut at = document_of(&documents, path)?;
    for key in path {
        let below = match (&at.value, key) {
            (tree, Key::Name(name)) => tree.member(name),
            (Tree::List(items), Key::Index(index)) => items.get(*index),
            _ => None,
        };
        match below {
            Some(below) => at = below,
            None => break,
        }
    }
    usize::try_from(at.referenced.line())
        .ok()
        .filter(|line| *line > 0)
}

/// The document that a path is in.
fn document_of<'a>(documents: &'a [Spanned<Tree>], path: &[Key]) -> Option<&'a Spanned<Tree>> {
    let platform = matches!(path.first(), Some(Key::Name(name)) if name == "platforms");
    let split = documents.iter().flat_map(|document| {
        let member = |name| document.value.member(name);
        match (member("pipeline_spec"), member("platform_spec")) {
            (Some(pipeline), platform) => [Some(pipeline), platform],
            (None, _) => [Some(document), None],
        }
    });
    split.flatten().find(|document| {
        let has = |name| document.value.member(name).is_some();
        let workflow = matches!(
            document.value.member("kind").map(|kind| &kind.value),
            Some(Tree::Text(kind)) if kind == "Workflow"
        );
        if platform {
            has("platforms")
        } else {
            workflow || has("pipelineInfo")
        }
    })
}

enum Tree {
    Text(String),
    List(Vec<Spanned<Tree>>),
    Map(Vec<(String, Spanned<Tree>)>),
    Other,
}

impl Tree {
    fn member(&self, name: &str) -> Option<&Spanned<Self>> {
        match self {
            Self::Map(entries) => {
                let mut entries = entries.iter();
                entries.find(|(key, _)| key == name).map(|(_, value)| value)
            }
            Self::Text(_) | Self::List(_) | Self::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Tree;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("anything")
            }
            fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
                Ok(Tree::Text(text.to_owned()))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
                Ok(Tree::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
                Ok(Tree::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
                Ok(Tree::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
                Ok(Tree::Other)
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Other)
            }
            fn visit_none<E>(self) -> Result<Tree, E> {
                Ok(Tree::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Tree::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
                let mut map = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    map.push(entry);
                }
                Ok(Tree::Map(map))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
