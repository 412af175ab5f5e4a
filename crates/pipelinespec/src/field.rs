//! Walking a package's JSON with the path at hand, so that every complaint can name its field.

use serde_json::{Map, Value};

use crate::locate::{self, Key};
use crate::{Error, Place};

/// A complaint about a field, or about how the pieces fit.
#[derive(Debug)]
pub(crate) enum Invalid {
    Field { path: Vec<Key>, reason: String },
    Plan(engine::Problem),
}

impl Invalid {
    /// Adds the line, if there is a text to look it up in.
    pub(crate) fn located(self, text: Option<&str>) -> Error {
        match self {
            Self::Field { path, reason } => {
                let line = text.and_then(|text| locate::line_of(text, &path));
                Error::Field {
                    place: Place {
                        line,
                        field: locate::path_text(&path),
                    },
                    reason,
                }
            }
            Self::Plan(problem) => Error::Plan(problem),
        }
    }
}

type Result<T> = core::result::Result<T, Invalid>;

/// A value and where it is.
#[derive(Debug, Clone)]
pub(crate) struct Field<'a> {
    pub(crate) value: &'a Value,
    path: Vec<Key>,
}

impl<'a> Field<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Self {
            value,
            path: Vec::new(),
        }
    }

    /// A complaint about this field.
    pub(crate) fn invalid<T>(&self, reason: impl Into<String>) -> Result<T> {
        Err(Invalid::Field {
            path: self.path.clone(),
            reason: reason.into(),
        })
    }

    fn wrong_type<T>(&self, expected: &str) -> Result<T> {
        let found = match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        self.invalid(format!("expected {expected}, found {found}"))
    }

    fn at(&self, key: Key, value: &'a Value) -> Self {
        let mut path = self.path.clone();
        path.push(key);
        Self { value, path }
    }

    /// Another value at the same place.
    pub(super) fn with<'b>(&self, value: &'b Value) -> Field<'b> {
        Field {
            value,
            path: self.path.clone(),
        }
    }

    fn map(&self) -> Result<Option<&'a Map<String, Value>>> {
        match self.value {
            Value::Object(map) => Ok(Some(map)),
            Value::Null => Ok(None),
            _ => self.wrong_type("an object"),
        }
    }

    /// The field below with this name; null counts as absent.
    pub(crate) fn get(&self, name: &str) -> Result<Option<Self>> {
        let value = self
            .map()?
            .and_then(|map| map.get(name))
            .filter(|value| !value.is_null());
        Ok(value.map(|value| self.at(Key::Name(name.to_owned()), value)))
    }

    /// The field below with this name, which must be there.
    pub(crate) fn need(&self, name: &str) -> Result<Self> {
        match self.get(name)? {
            Some(field) => Ok(field),
            None => self.invalid(format!("{name} is missing")),
        }
    }

    /// The fields of an object.
    pub(crate) fn entries(&self) -> Result<Vec<(&'a str, Self)>> {
        let map = self.map()?;
        let entry = |(key, value): (&'a String, &'a Value)| {
            (key.as_str(), self.at(Key::Name(key.clone()), value))
        };
        Ok(map.into_iter().flatten().map(entry).collect())
    }

    /// The items of a list; absent is empty.
    pub(crate) fn items(&self) -> Result<Vec<Self>> {
        match self.value {
            Value::Array(list) => Ok(list
                .iter()
                .enumerate()
                .map(|(i, v)| self.at(Key::Index(i), v))
                .collect()),
            Value::Null => Ok(Vec::new()),
            _ => self.wrong_type("a list"),
        }
    }

    /// The items of the list below with this name; absent is empty.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<Self>> {
        self.get(name)?
            .map_or(Ok(Vec::new()), |field| field.items())
    }

    pub(crate) fn str(&self) -> Result<&'a str> {
        self.value
            .as_str()
            .map_or_else(|| self.wrong_type("a string"), Ok)
    }

    pub(crate) fn bool(&self) -> Result<bool> {
        self.value
            .as_bool()
            .map_or_else(|| self.wrong_type("true or false"), Ok)
    }

    /// A scalar as a string: YAML authors write numbers where Argo has strings.
    pub(crate) fn scalar(&self) -> Result<String> {
        match self.value {
            Value::String(_) | Value::Number(_) | Value::Bool(_) => Ok(engine::render(self.value)),
            _ => self.wrong_type("a string or a number"),
        }
    }

    pub(crate) fn whole_number(&self) -> Result<u64> {
        let number = match self.value {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_u64(),
        };
        number.map_or_else(|| self.wrong_type("a whole number"), Ok)
    }

    pub(crate) fn small_number(&self) -> Result<u32> {
        let number = self.whole_number()?;
        u32::try_from(number).or_else(|_| self.invalid(format!("{number} is too large")))
    }

    /// Every field of the object must be in one of the lists; those in `unsupported` come with a
    /// reason, and an empty one of them (`[]`, `{}`, `false`) is let pass.
    pub(crate) fn only(&self, known: &[&str], unsupported: &[(&str, &str)]) -> Result<()> {
        for (name, field) in self.entries()? {
            if known.contains(&name) || field.value.is_null() {
                continue;
            }
            if let Some((_, reason)) = unsupported.iter().find(|(field, _)| *field == name) {
                let empty = match field.value {
                    Value::Array(list) => list.is_empty(),
                    Value::Object(map) => map.is_empty() && name != "suspend",
                    Value::Bool(on) => !on,
                    Value::String(text) => text.is_empty(),
                    Value::Null | Value::Number(_) => false,
                };
                if empty {
                    continue;
                }
                return field.invalid(format!("{name} is not supported: {reason}"));
            }
            return field.invalid(format!(
                "unknown field {name:?}; known are {}",
                known.join(", ")
            ));
        }
        Ok(())
    }
}
