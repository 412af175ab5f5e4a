//! Messages as protojson writes and reads them, declared once with [`message!`] and [`names!`]:
//! unset members left out, 64-bit integers as texts, times in RFC 3339, enums by name; on the way
//! in snake_case or camelCase, enums also by number, null for unset, unknown members refused by
//! their path. The same declaration gives the schema of the OpenAPI document.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::wire::{Failure, Result};

/// Schemas by the names of their messages.
pub(super) type Schemas = BTreeMap<String, Value>;

/// A member of a message, or a message.
pub(super) trait Wire: Default + Serialize {
    /// Reads a value that is not null; `at` is where it is, for error texts.
    fn read(value: Value, at: &str) -> Result<Self>;

    /// Whether it has its default, which is left out of answers.
    fn unset(&self) -> bool;

    /// Its JSON schema; messages add themselves to `schemas` and answer a reference.
    fn schema(schemas: &mut Schemas) -> Value;
}

/// Parses the body of a request.
pub(super) fn parse<T: Wire>(name: &str, bytes: &[u8]) -> Result<T> {
    T::read(parse_json(bytes)?, name)
}

/// Parses the body of a request whose given members matter.
pub(super) fn parse_json(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|e| Failure::invalid(format!("the request's body is not JSON: {e}")))
}

fn expected(what: &str, at: &str, value: &Value) -> Failure {
    let mut shown = value.to_string();
    if shown.len() > 100 {
        let cut = (0..=100).rev().find(|i| shown.is_char_boundary(*i));
        shown.truncate(cut.unwrap_or(0));
        shown.push('…');
    }
    Failure::invalid(format!("{at}: expected {what}, got {shown}"))
}

impl Wire for String {
    fn read(value: Value, at: &str) -> Result<Self> {
        match value {
            Value::String(text) => Ok(text),
            other => Err(expected("a string", at, &other)),
        }
    }

    fn unset(&self) -> bool {
        self.is_empty()
    }

    fn schema(_: &mut Schemas) -> Value {
        json!({"type": "string"})
    }
}

impl Wire for bool {
    fn read(value: Value, at: &str) -> Result<Self> {
        value
            .as_bool()
            .ok_or_else(|| expected("true or false", at, &value))
    }

    fn unset(&self) -> bool {
        !self
    }

    fn schema(_: &mut Schemas) -> Value {
        json!({"type": "boolean"})
    }
}

impl Wire for i32 {
    fn read(value: Value, at: &str) -> Result<Self> {
        integer(&value)
            .and_then(|number| Self::try_from(number).ok())
            .ok_or_else(|| expected("a 32-bit integer", at, &value))
    }

    fn unset(&self) -> bool {
        *self == 0
    }

    fn schema(_: &mut Schemas) -> Value {
        json!({"type": "integer", "format": "int32"})
    }
}

impl Wire for f64 {
    fn read(value: Value, at: &str) -> Result<Self> {
        let number = match &value {
            Value::String(text) => text.parse().ok(),
            other => other.as_f64(),
        };
        number.ok_or_else(|| expected("a number", at, &value))
    }

    fn unset(&self) -> bool {
        *self == 0.0
    }

    fn schema(_: &mut Schemas) -> Value {
        json!({"type": "number", "format": "double"})
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let whole = number.as_f64().filter(|n| n.fract() == 0.0)?;
            (whole.abs() < 9.0e15).then_some(whole as i64)
        }),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// A 64-bit integer, which is a text in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Int64(pub(super) i64);

impl Serialize for Int64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Wire for Int64 {
    fn read(value: Value, at: &str) -> Result<Self> {
        integer(&value)
            .map(Self)
            .ok_or_else(|| expected("a 64-bit integer", at, &value))
    }

    fn unset(&self) -> bool {
        self.0 == 0
    }

    fn schema(_: &mut Schemas) -> Value {
        json!({"type": "string", "format": "int64"})
    }
}

/// A time in microseconds since 1970; none is left out, 0 is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Time(pub(super) Option<i64>);

impl Time {
    pub(super) fn of(at: Timestamp) -> Self {
        Self(Some(at.as_microsecond()))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::wire::time(self.0.unwrap_or_default()))
    }
}

impl Wire for Time {
    fn read(value: Value, at: &str) -> Result<Self> {
        value
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok())
            .map(Self::of)
            .ok_or_else(|| expected("a time such as 2026-01-31T12:00:00Z", at, &value))
    }

    fn unset(&self) -> bool {
        self.0.is_none()
    }

    fn schema(_: &mut Schemas) -> Value {
        json!({"type": "string", "format": "date-time"})
    }
}

/// Plain JSON: google.protobuf.Struct or Value.
#[derive(Debug, Clone, Default)]
pub(super) enum Json {
    /// Left out.
    #[default]
    Unset,
    /// A tree.
    Tree(Value),
    /// Text that is known to be JSON, such as what the database keeps.
    Text(Box<RawValue>),
}

impl Json {
    /// JSON text as it was stored.
    pub(super) fn stored(text: String) -> Self {
        RawValue::from_string(text).map_or(Self::Unset, Self::Text)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Unset => serializer.serialize_unit(),
            Self::Tree(value) => value.serialize(serializer),
            Self::Text(text) => text.serialize(serializer),
        }
    }
}

impl Wire for Json {
    fn read(value: Value, _: &str) -> Result<Self> {
        Ok(Self::Tree(value))
    }

    fn unset(&self) -> bool {
        matches!(self, Self::Unset)
    }

    fn schema(_: &mut Schemas) -> Value {
        json!({})
    }
}

/// A map whose values are plain JSON, null included.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Values(pub(super) Map<String, Value>);

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Wire for Values {
    fn read(value: Value, at: &str) -> Result<Self> {
        match value {
            Value::Object(members) => Ok(Self(members)),
            other => Err(expected("an object", at, &other)),
        }
    }

    fn unset(&self) -> bool {
        self.0.is_empty()
    }

    fn schema(_: &mut Schemas) -> Value {
        json!({"type": "object", "additionalProperties": {}})
    }
}

/// A message that may be absent; a present one is written even if it is empty.
impl<T: Wire> Wire for Option<T> {
    fn read(value: Value, at: &str) -> Result<Self> {
        T::read(value, at).map(Some)
    }

    fn unset(&self) -> bool {
        self.is_none()
    }

    fn schema(schemas: &mut Schemas) -> Value {
        T::schema(schemas)
    }
}

impl<T: Wire> Wire for Box<T> {
    fn read(value: Value, at: &str) -> Result<Self> {
        T::read(value, at).map(Self::new)
    }

    fn unset(&self) -> bool {
        (**self).unset()
    }

    fn schema(schemas: &mut Schemas) -> Value {
        T::schema(schemas)
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn read(value: Value, at: &str) -> Result<Self> {
        match value {
            Value::Array(items) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| T::read(item, &format!("{at}[{index}]")))
                .collect(),
            other => Err(expected("a list", at, &other)),
        }
    }

    fn unset(&self) -> bool {
        self.is_empty()
    }

    fn schema(schemas: &mut Schemas) -> Value {
        json!({"type": "array", "items": T::schema(schemas)})
    }
}

impl<T: Wire> Wire for BTreeMap<String, T> {
    fn read(value: Value, at: &str) -> Result<Self> {
        match value {
            Value::Object(members) => members
                .into_iter()
                .map(|(key, value)| {
                    let read = T::read(value, &format!("{at}[{key:?}]"))?;
                    Ok((key, read))
                })
                .collect(),
            other => Err(expected("an object", at, &other)),
        }
    }

    fn unset(&self) -> bool {
        self.is_empty()
    }

    fn schema(schemas: &mut Schemas) -> Value {
        json!({"type": "object", "additionalProperties": T::schema(schemas)})
    }
}

/// The members of a message that is read; what is left at the end is unknown.
#[derive(Debug)]
pub(super) struct Members<'a> {
    at: &'a str,
    members: Map<String, Value>,
}

impl<'a> Members<'a> {
    pub(super) fn of(value: Value, at: &'a str) -> Result<Self> {
        match value {
            Value::Object(members) => Ok(Self { at, members }),
            other => Err(expected("an object", at, &other)),
        }
    }

    /// A member by its proto name, or the camelCase of it.
    pub(super) fn take<T: Wire>(&mut self, name: &str) -> Result<T> {
        let camel = camel_case(name);
        let snake = self.members.remove(name);
        let other = (camel != name)
            .then(|| self.members.remove(&camel))
            .flatten();
        let value = match (snake, other) {
            (Some(_), Some(_)) => {
                let at = self.at;
                return Err(Failure::invalid(format!(
                    "{at}: both {name:?} and {camel:?} are given, which are the same field"
                )));
            }
            (one, None) | (None, one) => one.unwrap_or_default(),
        };
        if value.is_null() {
            return Ok(T::default());
        }
        T::read(value, &format!("{}.{name}", self.at))
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self, known: &[&str]) -> Result<()> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(unknown) => Err(Failure::invalid(format!(
                "{}: unknown field {unknown:?} (known: {})",
                self.at,
                known.join(", ")
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

/// Writes one member unless it is unset.
pub(super) fn write<M: serde::ser::SerializeMap, T: Wire>(
    map: &mut M,
    name: &'static str,
    value: &T,
) -> std::result::Result<(), M::Error> {
    if value.unset() {
        return Ok(());
    }
    map.serialize_entry(name, value)
}

/// Starts to write a message.
pub(super) fn start<S: Serializer>(
    serializer: S,
) -> std::result::Result<S::SerializeMap, S::Error> {
    serializer.serialize_map(None)
}

/// Ends it.
pub(super) fn end<M: serde::ser::SerializeMap>(map: M) -> std::result::Result<M::Ok, M::Error> {
    map.end()
}

/// An enum by the names and numbers of its proto.
pub(super) fn read_name<T: Copy>(value: &Value, at: &str, known: &[(T, &str, i64)]) -> Result<T> {
    let found = match value {
        Value::String(name) => known.iter().find(|(_, n, _)| n == name),
        Value::Number(number) => known.iter().find(|(_, _, n)| number.as_i64() == Some(*n)),
        _ => None,
    };
    found.map(|(this, ..)| *this).ok_or_else(|| {
        let names: BTreeSet<&str> = known.iter().map(|(_, name, _)| *name).collect();
        let names: Vec<&str> = names.into_iter().collect();
        expected(&format!("one of {}", names.join(", ")), at, value)
    })
}

/// Declares a message: `message! { struct Name as "NameInTheProto" { member: Type, … } }`; a member
/// whose name on the wire differs is `member as "name": Type`.
macro_rules! message {
    ($(#[$about:meta])* $vis:vis struct $name:ident as $title:literal {
        $($(#[$of:meta])* $member:ident $(as $wire:literal)? : $kind:ty),* $(,)?
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default)]
        $vis struct $name {
            $($(#[$of])* $vis $member: $kind,)*
        }

        impl $name {
            const MEMBERS: &'static [&'static str] =
                &[$($crate::api::message::message!(@name $member $($wire)?)),*];
        }

        impl $crate::api::message::Wire for $name {
            fn read(
                value: serde_json::Value,
                at: &str,
            ) -> $crate::api::wire::Result<Self> {
                let mut members = $crate::api::message::Members::of(value, at)?;
                let read = Self {
                    $($member: members.take($crate::api::message::message!(@name $member $($wire)?))?,)*
                };
                members.finish(Self::MEMBERS)?;
                Ok(read)
            }

            fn unset(&self) -> bool {
                false
            }

            fn schema(schemas: &mut $crate::api::message::Schemas) -> serde_json::Value {
                let reference = format!("#/components/schemas/{}", $title);
                if !schemas.contains_key($title) {
                    // A message that contains itself finds the entry and stops.
                    schemas.insert($title.to_owned(), serde_json::Value::Null);
                    let mut properties = serde_json::Map::new();
                    $(properties.insert(
                        $crate::api::message::message!(@name $member $($wire)?).to_owned(),
                        <$kind as $crate::api::message::Wire>::schema(schemas),
                    );)*
                    let schema = serde_json::json!({
                        "type": "object", "properties": properties, "additionalProperties": false,
                    });
                    schemas.insert($title.to_owned(), schema);
                }
                serde_json::json!({"$ref": reference})
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(
                &self,
                serializer: S,
            ) -> std::result::Result<S::Ok, S::Error> {
                let mut map = $crate::api::message::start(serializer)?;
                $($crate::api::message::write(
                    &mut map,
                    $crate::api::message::message!(@name $member $($wire)?),
                    &self.$member,
                )?;)*
                $crate::api::message::end(map)
            }
        }
    };
    (@name $member:ident) => { stringify!($member) };
    (@name $member:ident $wire:literal) => { $wire };
}

/// Declares an enum with its names and numbers on the wire; the first is the default.
macro_rules! names {
    ($(#[$about:meta])* $vis:vis enum $name:ident {
        $first:ident = $first_wire:literal $first_number:literal,
        $($variant:ident = $wire:literal $number:literal),* $(,)?
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        $vis enum $name {
            #[default]
            $first,
            $($variant),*
        }

        impl $name {
            const KNOWN: &'static [(Self, &'static str, i64)] = &[
                (Self::$first, $first_wire, $first_number),
                $((Self::$variant, $wire, $number)),*
            ];
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self {
                    Self::$first => $first_wire,
                    $(Self::$variant => $wire),*
                })
            }
        }

        impl $crate::api::message::Wire for $name {
            fn read(value: serde_json::Value, at: &str) -> $crate::api::wire::Result<Self> {
                $crate::api::message::read_name(&value, at, Self::KNOWN)
            }

            fn unset(&self) -> bool {
                // protojson leaves out the number 0.
                Self::KNOWN.iter().any(|(this, _, number)| this == self && *number == 0)
            }

            fn schema(_: &mut $crate::api::message::Schemas) -> serde_json::Value {
                serde_json::json!({"type": "string", "enum": [$first_wire, $($wire),*]})
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(
                &self,
                serializer: S,
            ) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

pub(super) use message;
pub(super) use names;

#[cfg(test)]
mod tests {
    use super::*;

    message! {
        struct Inner as "Inner" { a_b: String, next: Option<Box<Inner>> }
    }
    names! {
        enum Colour { None = "NONE" 0, Red = "RED" 1, Blue = "BLUE" 3 }
    }
    message! {
        struct Outer as "Outer" {
            text: String,
            big: Int64,
            colour: Colour,
            inner: Option<Inner>,
            odd as "oddName": Vec<Inner>,
            when: Time,
            free: Json,
            values: Values,
        }
    }

    fn read(value: Value) -> Result<Outer> {
        Outer::read(value, "outer")
    }

    #[test]
    fn unset_members_are_left_out_and_integers_are_texts() {
        let outer = Outer {
            big: Int64(7),
            colour: Colour::Blue,
            inner: Some(Inner::default()),
            when: Time(Some(0)),
            ..Outer::default()
        };
        assert_eq!(
            serde_json::to_value(&outer).unwrap(),
            json!({"big": "7", "colour": "BLUE", "inner": {}, "when": "1970-01-01T00:00:00Z"})
        );
    }

    #[test]
    fn both_spellings_numbers_and_null_are_read() {
        let value = json!({"big": 5, "colour": 3, "inner": {"aB": "x"}, "text": null,
            "oddName": [{"a_b": "y"}], "free": {"aB": null}, "values": {"n": null}});
        let outer = read(value).unwrap();
        assert_eq!((outer.big.0, outer.colour), (5, Colour::Blue));
        assert_eq!(outer.inner.unwrap().a_b, "x");
        assert_eq!(outer.odd[0].a_b, "y");
        assert!(matches!(outer.free, Json::Tree(tree) if tree == json!({"aB": null})));
        assert!(outer.values.0.contains_key("n"));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_its_path() {
        for (value, says) in [
            (
                json!({"inner": {"x": 1}}),
                r#"outer.inner: unknown field "x" (known: a_b, next)"#,
            ),
            (json!({"text": 1}), "outer.text: expected a string, got 1"),
            (
                json!({"colour": "GREEN"}),
                "outer.colour: expected one of BLUE, NONE, RED",
            ),
            (
                json!({"oddName": [{}, 3]}),
                "outer.oddName[1]: expected an object",
            ),
            (json!({"inner": {"a_b": "", "aB": ""}}), "the same field"),
            (json!({"when": "now"}), "outer.when: expected a time"),
            (json!([]), "outer: expected an object"),
        ] {
            let message = read(value).unwrap_err().message;
            assert!(message.contains(says), "{message}");
        }
    }

    #[test]
    fn a_message_that_contains_itself_has_a_schema() {
        let mut schemas = Schemas::new();
        let reference = Inner::schema(&mut schemas);
        assert_eq!(reference, json!({"$ref": "#/components/schemas/Inner"}));
        assert_eq!(schemas["Inner"]["properties"]["next"], reference);
    }
}
