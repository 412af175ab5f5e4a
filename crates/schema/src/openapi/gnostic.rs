//! OpenAPI v2 in protobuf, the form in which `kubectl` asks for it.
//!
//! The messages are gnostic's `openapi.v2.Document` and what it holds (`openapiv2/OpenAPIv2.proto`);
//! the numbers below are its field numbers. Only fields that [`super::v2`] makes are written.

use serde_json::{Map, Value};

/// What clients name in `Accept` for this form; older ones write the second `.` as `@`.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The message of a document of version 2.
pub fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    out.message(2, |info| {
        info.text(1, &document["info"]["title"]);
        info.text(2, &document["info"]["version"]);
    });
    out.message(8, |paths| {
        for (path, item) in entries(&document["paths"]) {
            paths.named(2, path, |out| path_item(out, item));
        }
    });
    out.message(9, |definitions| {
        for (name, of_name) in entries(&document["definitions"]) {
            definitions.named(1, name, |out| schema(out, of_name));
        }
    });
    for requirement in list(&document["security"]) {
        out.message(12, |security| {
            for (name, _) in entries(requirement) {
                security.named(1, name, |_| {});
            }
        });
    }
    out.message(13, |security| {
        for (name, of_name) in entries(&document["securityDefinitions"]) {
            security.named(1, name, |item| {
                item.message(2, |key| {
                    for (number, field) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")]
                    {
                        key.text(number, &of_name[field]);
                    }
                });
            });
        }
    });
    out.0
}

fn path_item(out: &mut Message, item: &Value) {
    let methods = [
        (2, "get"),
        (3, "put"),
        (4, "post"),
        (5, "delete"),
        (8, "patch"),
    ];
    for (number, method) in methods {
        if let Some(of_method) = item.get(method) {
            out.message(number, |out| operation(out, of_method));
        }
    }
    for of_all in list(&item["parameters"]) {
        out.message(9, |out| parameter(out, of_all));
    }
}

fn operation(out: &mut Message, value: &Value) {
    for (number, field) in [(6, "produces"), (7, "consumes")] {
        for media_type in list(&value[field]) {
            out.text(number, media_type);
        }
    }
    for one in list(&value["parameters"]) {
        out.message(8, |out| parameter(out, one));
    }
    out.message(9, |responses| {
        for (code, response) in entries(&value["responses"]) {
            responses.named(1, code, |out| {
                out.message(1, |out| {
                    out.text(1, &response["description"]);
                    if let Some(of_body) = response.get("schema") {
                        out.message(2, |item| item.message(1, |out| schema(out, of_body)));
                    }
                });
            });
        }
    });
    extensions(out, 13, value);
}

/// A `ParametersItem`: a body, or a piece of the query or of the path.
fn parameter(out: &mut Message, value: &Value) {
    out.message(1, |out| match value["in"].as_str() {
        Some("body") => out.message(1, |out| {
            out.text(2, &value["name"]);
            out.text(3, &value["in"]);
            out.flag(4, &value["required"]);
            out.message(5, |out| schema(out, &value["schema"]));
        }),
        place => out.message(2, |out| {
            // The two messages differ in where the fields after the name stand.
            let (number, kind, unique) = if place == Some("path") {
                (4, 5, 19)
            } else {
                (3, 6, 20)
            };
            out.message(number, |out| {
                out.flag(1, &value["required"]);
                out.text(2, &value["in"]);
                out.text(4, &value["name"]);
                out.text(kind, &value["type"]);
                out.flag(unique, &value["uniqueItems"]);
            });
        }),
    });
}

fn schema(out: &mut Message, value: &Value) {
    for (number, field) in [(1, "$ref"), (2, "format"), (3, "title"), (4, "description")] {
        out.text(number, &value[field]);
    }
    if let Some(default) = value.get("default") {
        out.any(5, default);
    }
    for (number, field) in [(6, "multipleOf"), (7, "maximum"), (9, "minimum")] {
        out.double(number, &value[field]);
    }
    out.flag(8, &value["exclusiveMaximum"]);
    out.flag(10, &value["exclusiveMinimum"]);
    let counts = [
        (11, "maxLength"),
        (12, "minLength"),
        (14, "maxItems"),
        (15, "minItems"),
    ];
    for (number, field) in counts {
        out.count(number, &value[field]);
    }
    out.text(13, &value["pattern"]);
    out.flag(16, &value["uniqueItems"]);
    out.count(17, &value["maxProperties"]);
    out.count(18, &value["minProperties"]);
    for field in list(&value["required"]) {
        out.text(19, field);
    }
    for allowed in list(&value["enum"]) {
        out.any(20, allowed);
    }
    match value.get("additionalProperties") {
        Some(Value::Bool(allowed)) => out.message(21, |item| item.varint(2, u64::from(*allowed))),
        Some(of_items) => out.message(21, |item| item.message(1, |out| schema(out, of_items))),
        None => {}
    }
    if value["type"].is_string() {
        out.message(22, |out| out.text(1, &value["type"]));
    }
    if let Some(of_items) = value.get("items") {
        out.message(23, |item| item.message(1, |out| schema(out, of_items)));
    }
    for of_all in list(&value["allOf"]) {
        out.message(24, |out| schema(out, of_all));
    }
    if let Some(properties) = value.get("properties") {
        out.message(25, |out| {
            for (name, of_name) in entries(properties) {
                out.named(1, name, |out| schema(out, of_name));
            }
        });
    }
    if let Some(example) = value.get("example") {
        out.any(30, example);
    }
    extensions(out, 31, value);
}

/// The fields that begin with `x-`, as `NamedAny`.
fn extensions(out: &mut Message, number: u32, value: &Value) {
    for (name, extension) in entries(value) {
        if name.starts_with("x-") {
            out.message(number, |named| {
                named.bytes(1, name.as_bytes());
                named.any(2, extension);
            });
        }
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A message being written. Fields that are absent or have their default are not.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, number: u32, wire_type: u8) {
        self.raw_varint(u64::from(number << 3 | u32::from(wire_type)));
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, number: u32, value: u64) {
        self.key(number, 0);
        self.raw_varint(value);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.key(number, 2);
        self.raw_varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, number: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(number, &inner.0);
    }

    /// An entry of a map: gnostic's `Named…` messages all have the name first.
    fn named(&mut self, number: u32, name: &str, write: impl FnOnce(&mut Self)) {
        self.message(number, |entry| {
            entry.bytes(1, name.as_bytes());
            entry.message(2, write);
        });
    }

    fn text(&mut self, number: u32, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(number, text.as_bytes());
        }
    }

    fn flag(&mut self, number: u32, value: &Value) {
        if value == &Value::Bool(true) {
            self.varint(number, 1);
        }
    }

    fn count(&mut self, number: u32, value: &Value) {
        if let Some(count) = value.as_u64() {
            self.varint(number, count);
        }
    }

    fn double(&mut self, number: u32, value: &Value) {
        if let Some(value) = value.as_f64() {
            self.key(number, 1);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// An `Any`: YAML text, which JSON is.
    fn any(&mut self, number: u32, value: &Value) {
        self.message(number, |any| any.bytes(2, value.to_string().as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_small_document_is_written_as_protobuf_says() {
        let document = json!({
            "swagger": "2.0",
            "info": {"title": "T", "version": "1"},
            "definitions": {"D": {"type": "string", "x-a": 1}},
        });
        let schema = [
            &b"\xb2\x01\x08\x0a\x06string"[..],          // type
            b"\xfa\x01\x0a\x0a\x03x-a\x12\x03\x12\x011", // extension
        ]
        .concat();
        let mut named = b"\x0a\x01D\x12".to_vec();
        named.push(schema.len() as u8);
        named.extend(schema);
        let mut expected = b"\x0a\x032.0\x12\x06\x0a\x01T\x12\x011\x42\x00\x4a".to_vec();
        expected.push(named.len() as u8 + 2);
        expected.extend([0x0a, named.len() as u8]);
        expected.extend(named);
        expected.extend(b"\x6a\x00");
        assert_eq!(encode(&document), expected);
    }
}
