//! Request bodies as protojson reads them: snake_case or camelCase names, unknown ones refused.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::wire::{Failure, Result};

/// A message of a request; members are taken one by one, and what is left at the end is unknown.
#[derive(Debug)]
pub(super) struct Message<'a> {
    name: &'static str,
    members: &'a Map<String, Value>,
    taken: BTreeSet<String>,
}

/// Parses a JSON body.
pub(super) fn parse(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|e| Failure::invalid(format!("the request's body is not JSON: {e}")))
}

impl<'a> Message<'a> {
    /// The members of a JSON object; `name` is the message's for error texts.
    pub(super) fn new(name: &'static str, value: &'a Value) -> Result<Self> {
        match value {
            Value::Object(members) => Ok(Self {
                name,
                members,
                taken: BTreeSet::new(),
            }),
            other => Err(Failure::invalid(format!(
                "{name}: expected an object, got {other}"
            ))),
        }
    }

    /// A member by its snake_case name; `None` if it is absent or null.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a Value> {
        let camel = camel_case(name);
        self.taken.insert(name.to_owned());
        self.taken.insert(camel.clone());
        self.members
            .get(name)
            .or_else(|| self.members.get(&camel))
            .filter(|value| !value.is_null())
    }

    /// A text member; empty if absent.
    pub(super) fn text(&mut self, name: &str) -> Result<String> {
        match self.take(name) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(Failure::invalid(format!(
                "{}.{name}: expected a string, got {other}",
                self.name
            ))),
        }
    }

    /// A list member; empty if absent.
    pub(super) fn list(&mut self, name: &str) -> Result<&'a [Value]> {
        match self.take(name) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(Failure::invalid(format!(
                "{}.{name}: expected a list, got {other}",
                self.name
            ))),
        }
    }

    /// Members that only answers carry; clients send them back.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.take(name);
        }
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<()> {
        match self.members.keys().find(|key| !self.taken.contains(*key)) {
            None => Ok(()),
            Some(unknown) => Err(Failure::invalid(format!(
                "{}: unknown field {unknown:?} (known: {})",
                self.name,
                self.taken
                    .iter()
                    .filter(|n| !n.contains(char::is_uppercase))
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ")
            ))),
        }
    }
}

fn camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        match (c, upper) {
            ('_', _) => upper = true,
            (c, true) => {
                camel.extend(c.to_uppercase());
                upper = false;
            }
            (c, false) => camel.push(c),
        }
    }
    camel
}

/// A resource reference of a request: type, id and relationship.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) kind: String,
    pub(super) id: String,
}

/// Reads `resource_references`.
pub(super) fn references(items: &[Value]) -> Result<Vec<Reference>> {
    items
        .iter()
        .map(|item| {
            let mut reference = Message::new("resource_references", item)?;
            let key = reference.take("key").cloned().unwrap_or_default();
            reference.ignore(&["name", "relationship"]);
            reference.finish()?;
            let mut key = Message::new("resource_references.key", &key)?;
            let parsed = Reference {
                kind: kind(key.take("type"))?,
                id: key.text("id")?,
            };
            key.finish()?;
            Ok(parsed)
        })
        .collect()
}

/// A resource type by name or number.
fn kind(value: Option<&Value>) -> Result<String> {
    const NAMES: [&str; 6] = [
        "UNKNOWN_RESOURCE_TYPE",
        "EXPERIMENT",
        "JOB",
        "PIPELINE",
        "PIPELINE_VERSION",
        "NAMESPACE",
    ];
    let known = match value {
        Some(Value::String(name)) => NAMES.iter().find(|n| *n == name),
        Some(Value::Number(number)) => number
            .as_u64()
            .and_then(|n| NAMES.get(usize::try_from(n).ok()?)),
        None => Some(&NAMES[0]),
        Some(_) => None,
    };
    known.map(|n| (*n).to_owned()).ok_or_else(|| {
        Failure::invalid(format!(
            "resource reference type {} is unknown (allowed: {})",
            value.cloned().unwrap_or_default(),
            NAMES[1..].join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_spellings_are_read_and_others_refused() {
        let value = json!({"displayName": "a", "page_size": 3});
        let mut message = Message::new("run", &value).unwrap();
        assert_eq!(message.text("display_name").unwrap(), "a");
        let error = message.finish().unwrap_err();
        assert!(error.message.contains("page_size"), "{}", error.message);
    }

    #[test]
    fn references_name_their_kind_by_word_or_number() {
        let items = [
            json!({"key": {"type": 1, "id": "e"}, "relationship": "OWNER"}),
            json!({"key": {"type": "PIPELINE_VERSION", "id": "v"}}),
        ];
        let kinds: Vec<String> = references(&items)
            .unwrap()
            .into_iter()
            .map(|r| r.kind)
            .collect();
        assert_eq!(kinds, ["EXPERIMENT", "PIPELINE_VERSION"]);
        assert!(references(&[json!({"key": {"type": "CAKE"}})]).is_err());
    }
}
