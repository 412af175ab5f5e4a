//! Request bodies in protobuf, which kubectl's typed commands send, read into the JSON they mean.
//!
//! The table of field numbers is data. Answers are never protobuf: every client that accepts it
//! accepts JSON as well.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Messages nest less deeply than this.
const DEPTH: usize = 64;

/// Why a body could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NoMagic,
    #[error("unexpected EOF")]
    Truncated,
    #[error("illegal wire type {0}")]
    WireType(u64),
    #[error("messages are nested too deeply")]
    TooDeep,
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind { api_version: String, kind: String },
    #[error("field {0} is not UTF-8")]
    NotText(String),
    #[error("field {0} does not hold JSON")]
    NotJson(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    One,
    Many,
    Map,
    Inline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Bool,
    Int,
    Bytes,
    Double,
    Words,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    Json,
    Duration,
    Message(usize),
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    kind: Kind,
    shape: Shape,
}

#[derive(Debug, Default)]
struct Table {
    names: HashMap<&'static str, usize>,
    messages: Vec<HashMap<u64, Field>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut text = String::new();
    flate2::read::GzDecoder::new(&include_bytes!("fields.txt.gz")[..])
        .read_to_string(&mut text)
        .expect("invariant: the embedded table is compressed text");
    parse_table(text.leak())
});

fn parse_table(text: &'static str) -> Table {
    let lines = || text.lines().filter(|line| !line.starts_with('#'));
    let mut table = Table::default();
    for (i, line) in lines().enumerate() {
        table
            .names
            .insert(line.split(' ').next().unwrap_or_default(), i);
    }
    for line in lines() {
        let fields = line.split(' ').skip(1).filter_map(|field| {
            let (name, rest) = field.split_once('=')?;
            let (number, kind) = rest.split_once(':').unwrap_or((rest, "s"));
            let shape = match kind.as_bytes().first() {
                Some(b'*') => Shape::Many,
                Some(b'%') => Shape::Map,
                Some(b'^') => Shape::Inline,
                _ => Shape::One,
            };
            let kind = match kind.trim_start_matches(['*', '%', '^']) {
                "s" | "" => Kind::Text,
                "b" => Kind::Bool,
                "i" => Kind::Int,
                "y" => Kind::Bytes,
                "d" => Kind::Double,
                "x" => Kind::Words,
                "meta.v1.Time" => Kind::Time,
                "meta.v1.MicroTime" => Kind::MicroTime,
                "meta.v1.Duration" => Kind::Duration,
                "meta.v1.FieldsV1" | "runtime.RawExtension" => Kind::Json,
                "resource.Quantity" => Kind::Quantity,
                "intstr.IntOrString" => Kind::IntOrString,
                message => Kind::Message(*table.names.get(message)?),
            };
            Some((number.parse().ok()?, Field { name, kind, shape }))
        });
        table.messages.push(fields.collect());
    }
    table
}

/// Reads a body: the envelope and the object in it.
pub(crate) fn decode(body: &[u8]) -> Result<Value, Error> {
    let envelope = body.strip_prefix(MAGIC).ok_or(Error::NoMagic)?;
    let (mut api_version, mut kind, mut raw, mut media) = ("", "", &[][..], "");
    for field in Wire(envelope) {
        match field? {
            (1, Payload::Bytes(bytes)) => {
                for field in Wire(bytes) {
                    match field? {
                        (1, Payload::Bytes(text)) => api_version = utf8(text, "apiVersion")?,
                        (2, Payload::Bytes(text)) => kind = utf8(text, "kind")?,
                        _ => {}
                    }
                }
            }
            (2, Payload::Bytes(bytes)) => raw = bytes,
            (4, Payload::Bytes(bytes)) => media = utf8(bytes, "contentType")?,
            _ => {}
        }
    }
    if media == "application/json" {
        return serde_json::from_slice(raw).map_err(|_| Error::NotJson("raw".to_owned()));
    }
    let message = message_of(api_version, kind).ok_or_else(|| Error::UnknownKind {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
    })?;
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    read_message(message, raw, &mut object, 0)?;
    Ok(Value::Object(object))
}

/// Messages are named by package, which follows from the group.
fn message_of(api_version: &str, kind: &str) -> Option<usize> {
    if kind == "DeleteOptions" {
        return TABLE.names.get("meta.v1.DeleteOptions").copied();
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let package = group.split('.').next().unwrap_or_default();
    let version = if (package, version) == ("apps", "v1beta2") {
        "v1"
    } else {
        version
    };
    TABLE
        .names
        .get(format!("{package}.{version}.{kind}").as_str())
        .copied()
}

enum Payload<'a> {
    Number(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in order.
struct Wire<'a>(&'a [u8]);

impl<'a> Iterator for Wire<'a> {
    type Item = Result<(u64, Payload<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Wire<'a> {
    fn field(&mut self) -> Result<(u64, Payload<'a>), Error> {
        let tag = self.varint()?;
        let payload = match tag & 7 {
            0 => Payload::Number(self.varint()?),
            1 => Payload::Fixed64(u64::from_le_bytes(
                self.take(8)?.try_into().map_err(|_| Error::Truncated)?,
            )),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Error::Truncated)?;
                Payload::Bytes(self.take(length)?)
            }
            5 => Payload::Bytes(self.take(4)?),
            other => return Err(Error::WireType(other)),
        };
        Ok((tag >> 3, payload))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        if length > self.0.len() {
            return Err(Error::Truncated);
        }
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::Truncated)
    }
}

fn read_message(
    message: usize,
    bytes: &[u8],
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Error> {
    if depth > DEPTH {
        return Err(Error::TooDeep);
    }
    for entry in Wire(bytes) {
        let (number, payload) = entry?;
        let Some(field) = TABLE.messages[message].get(&number) else {
            continue;
        };
        let name = field.name;
        match field.shape {
            Shape::One => {
                let value = read_value(field, payload, depth)?;
                out.insert(name.to_owned(), value);
            }
            Shape::Inline => {
                if let (Kind::Message(inner), Payload::Bytes(bytes)) = (field.kind, payload) {
                    read_message(inner, bytes, out, depth + 1)?;
                }
            }
            Shape::Many => {
                let value = read_value(field, payload, depth)?;
                let list = out.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    list.push(value);
                }
            }
            Shape::Map => {
                let Payload::Bytes(bytes) = payload else {
                    continue;
                };
                let (mut key, mut value) = ("", None);
                for entry in Wire(bytes) {
                    match entry? {
                        (1, Payload::Bytes(text)) => key = utf8(text, name)?,
                        (2, payload) => value = Some(read_value(field, payload, depth)?),
                        _ => {}
                    }
                }
                let value = match value {
                    Some(value) => value,
                    None => read_value(field, Payload::Bytes(&[]), depth)?,
                };
                let map = out.entry(name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    map.insert(key.to_owned(), value);
                }
            }
        }
    }
    Ok(())
}

fn read_value(field: &Field, payload: Payload<'_>, depth: usize) -> Result<Value, Error> {
    let name = field.name;
    Ok(match (field.kind, payload) {
        (Kind::Bool, Payload::Number(number)) => Value::Bool(number != 0),
        (Kind::Int, Payload::Number(number)) => Value::from(number as i64),
        (Kind::Double, Payload::Fixed64(bits)) => Value::from(f64::from_bits(bits)),
        (Kind::Text, Payload::Bytes(bytes)) => utf8(bytes, name)?.into(),
        (Kind::Bytes, Payload::Bytes(bytes)) => BASE64_STANDARD.encode(bytes).into(),
        (Kind::Words, Payload::Bytes(bytes)) => {
            let mut words = Vec::new();
            for entry in Wire(bytes) {
                if let (1, Payload::Bytes(word)) = entry? {
                    words.push(Value::from(utf8(word, name)?));
                }
            }
            words.into()
        }
        (Kind::Time, Payload::Bytes(bytes)) => time(bytes, "%Y-%m-%dT%H:%M:%SZ")?,
        (Kind::MicroTime, Payload::Bytes(bytes)) => time(bytes, "%Y-%m-%dT%H:%M:%S.%6fZ")?,
        (Kind::Quantity, Payload::Bytes(bytes)) => {
            let mut text = "0";
            for entry in Wire(bytes) {
                if let (1, Payload::Bytes(value)) = entry? {
                    text = utf8(value, name)?;
                }
            }
            text.into()
        }
        (Kind::IntOrString, Payload::Bytes(bytes)) => {
            let (mut is_text, mut number, mut text) = (false, 0, "");
            for entry in Wire(bytes) {
                match entry? {
                    (1, Payload::Number(kind)) => is_text = kind == 1,
                    (2, Payload::Number(value)) => number = value as i64,
                    (3, Payload::Bytes(value)) => text = utf8(value, name)?,
                    _ => {}
                }
            }
            if is_text { text.into() } else { number.into() }
        }
        (Kind::Json, Payload::Bytes(bytes)) => {
            let mut value = Value::Null;
            for entry in Wire(bytes) {
                if let (1, Payload::Bytes(raw)) = entry?
                    && !raw.is_empty()
                {
                    value =
                        serde_json::from_slice(raw).map_err(|_| Error::NotJson(name.to_owned()))?;
                }
            }
            value
        }
        (Kind::Duration, Payload::Bytes(bytes)) => {
            let mut nanos = 0;
            for entry in Wire(bytes) {
                if let (1, Payload::Number(value)) = entry? {
                    nanos = value as i64;
                }
            }
            format!("{}s", nanos as f64 / 1e9).into()
        }
        (Kind::Message(message), Payload::Bytes(bytes)) => {
            let mut inner = Map::new();
            read_message(message, bytes, &mut inner, depth + 1)?;
            Value::Object(inner)
        }
        _ => Value::Null,
    })
}

/// An empty message is Go's zero time, which JSON writes as null.
fn time(bytes: &[u8], format: &str) -> Result<Value, Error> {
    let (mut seconds, mut nanos) = (None, 0);
    for entry in Wire(bytes) {
        match entry? {
            (1, Payload::Number(value)) => seconds = Some(value as i64),
            (2, Payload::Number(value)) => nanos = value as i32,
            _ => {}
        }
    }
    let Some(seconds) = seconds else {
        return Ok(Value::Null);
    };
    let time = jiff::Timestamp::new(seconds, nanos);
    Ok(time.map_or(Value::Null, |time| time.strftime(format).to_string().into()))
}

fn utf8<'a>(bytes: &'a [u8], field: &str) -> Result<&'a str, Error> {
    std::str::from_utf8(bytes).map_err(|_| Error::NotText(field.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn an_object_is_read_by_the_table() {
        let metadata = [field(1, b"a"), field(8, b"")].concat();
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        let raw = [field(1, &metadata), field(2, &entry)].concat();
        let value = decode(&envelope("v1", "Secret", &raw)).unwrap();
        let expected = json!({
            "apiVersion": "v1", "kind": "Secret", "data": {"k": "dg=="},
            "metadata": {"name": "a", "creationTimestamp": null},
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn inlined_messages_and_special_types_take_their_json_form() {
        let port = [vec![8, 0, 16, 80]].concat();
        let http_get = [field(1, b"/x"), field(2, &port)].concat();
        let probe = field(1, &field(2, &http_get));
        let container = [field(1, b"c"), field(10, &probe)].concat();
        let raw = field(2, &field(2, &container));
        let value = decode(&envelope("v1", "Pod", &raw)).unwrap();
        let probe = &value["spec"]["containers"][0]["livenessProbe"];
        assert_eq!(*probe, json!({"httpGet": {"path": "/x", "port": 80}}));
    }

    #[test]
    fn damaged_bodies_are_refused() {
        assert_eq!(decode(b"{}"), Err(Error::NoMagic));
        let whole = envelope("v1", "Pod", &field(2, &field(5, b"node")));
        assert_eq!(decode(&whole[..whole.len() - 2]), Err(Error::Truncated));
        assert!(matches!(
            decode(&envelope("v9", "Pod", b"")),
            Err(Error::UnknownKind { .. })
        ));
    }
}
