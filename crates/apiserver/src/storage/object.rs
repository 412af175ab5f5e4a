//! One stored state of an object: its bytes, shared by everyone who reads or watches it.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::{Map, Value};

/// A state of an object. The text begins with kind and apiVersion, so both can be left out or
/// replaced without reading the rest.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) rv: u64,
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
    bytes: Bytes,
    /// Where the text goes on after kind and apiVersion.
    rest: usize,
    value: OnceLock<Arc<Value>>,
}

impl Object {
    /// Stamps `rv` into the value and writes it down.
    pub(crate) fn new(namespace: &str, name: &str, rv: u64, mut value: Value) -> Self {
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), Value::String(rv.to_string()));
        }
        let (bytes, rest) = encode(&value);
        let value = OnceLock::from(Arc::new(value));
        Self {
            rv,
            namespace: namespace.into(),
            name: name.into(),
            bytes,
            rest,
            value,
        }
    }

    /// A state that was never stored; `rv` is that of the object it would have replaced.
    pub(crate) fn dry_run(namespace: &str, name: &str, rv: Option<u64>, mut value: Value) -> Self {
        if let Some(rv) = rv {
            return Self::new(namespace, name, rv, value);
        }
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
        }
        let (bytes, rest) = encode(&value);
        let value = OnceLock::from(Arc::new(value));
        Self {
            rv: 0,
            namespace: namespace.into(),
            name: name.into(),
            bytes,
            rest,
            value,
        }
    }

    /// A state as it was read from the store.
    pub(crate) fn stored(namespace: String, name: String, rv: u64, bytes: Vec<u8>) -> Self {
        let rest = type_meta_end(&bytes);
        Self {
            rv,
            namespace: namespace.into(),
            name: name.into(),
            bytes: bytes.into(),
            rest,
            value: OnceLock::new(),
        }
    }

    /// The object as a tree.
    pub(crate) fn value(&self) -> &Arc<Value> {
        self.value.get_or_init(|| {
            Arc::new(serde_json::from_slice(&self.bytes).unwrap_or_else(|error| {
                tracing::error!(name = %self.name, namespace = %self.namespace, rv = self.rv,
                    "stored object is not JSON: {error}");
                Value::Object(Map::new())
            }))
        })
    }

    /// The object as a tree that is not kept if it was not there: for passing over many objects.
    pub(crate) fn glimpse(&self) -> Arc<Value> {
        match self.value.get() {
            Some(value) => Arc::clone(value),
            None => Arc::clone(self.without_tree().value()),
        }
    }

    /// The same state without its tree, which takes several times the room of its text.
    pub(crate) fn without_tree(&self) -> Self {
        Self {
            rv: self.rv,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            bytes: self.bytes.clone(),
            rest: self.rest,
            value: OnceLock::new(),
        }
    }

    /// The object's text, with kind and apiVersion as stored.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Appends the text, without kind and apiVersion or with others.
    pub(crate) fn write(&self, out: &mut BytesMut, type_meta: Option<(&str, &str)>) {
        out.put_u8(b'{');
        if let Some((api_version, kind)) = type_meta {
            put_type_meta(out, api_version, kind);
            if self.bytes.get(self.rest) != Some(&b'}') {
                out.put_u8(b',');
            }
        }
        out.put_slice(&self.bytes[self.rest..]);
    }

    /// The key within its resource: objects are ordered by it.
    pub(crate) fn key(&self) -> String {
        key(&self.namespace, &self.name)
    }
}

/// `namespace/name`, or just the name: the order of lists.
pub(crate) fn key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

fn put_type_meta(out: &mut BytesMut, api_version: &str, kind: &str) {
    out.put_slice(b"\"kind\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"apiVersion\":\"");
    out.put_slice(api_version.as_bytes());
    out.put_u8(b'"');
}

fn encode(value: &Value) -> (Bytes, usize) {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut out = BytesMut::with_capacity(1024);
    out.put_u8(b'{');
    put_type_meta(&mut out, text("apiVersion"), text("kind"));
    let mut rest = out.len();
    if let Some(map) = value.as_object() {
        for (key, member) in map {
            if key == "kind" || key == "apiVersion" {
                continue;
            }
            out.put_u8(b',');
            write_json(&mut out, key);
            out.put_u8(b':');
            write_json(&mut out, member);
        }
    }
    if out.len() > rest {
        rest += 1;
    }
    out.put_u8(b'}');
    (out.freeze(), rest)
}

/// Appends the JSON text of `value`.
pub(crate) fn write_json<T: serde::Serialize + ?Sized>(out: &mut BytesMut, value: &T) {
    serde_json::to_writer(out.writer(), value)
        .expect("invariant: trees with string keys always serialise into memory");
}

/// Both names are identifiers, so the eighth quote ends them.
fn type_meta_end(bytes: &[u8]) -> usize {
    let end = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'"')
        .nth(7)
        .map_or(1, |(at, _)| at + 1);
    if bytes.get(end) == Some(&b',') {
        end + 1
    } else {
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_state_can_be_written_with_other_type_meta_or_none() {
        let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        let object = Object::new("ns", "a", 7, value);
        let again = Object::stored("ns".to_owned(), "a".to_owned(), 7, object.bytes().to_vec());
        for object in [&object, &again] {
            let mut bare = BytesMut::new();
            object.write(&mut bare, None);
            assert_eq!(
                &bare[..],
                br#"{"metadata":{"name":"a","resourceVersion":"7"}}"#
            );
            let mut other = BytesMut::new();
            object.write(&mut other, Some(("x/v2", "Thing")));
            let parsed: Value = serde_json::from_slice(&other).unwrap();
            assert_eq!(
                (&parsed["apiVersion"], &parsed["kind"]),
                (&json!("x/v2"), &json!("Thing"))
            );
            assert_eq!(object.value()["metadata"]["resourceVersion"], "7");
        }
    }

    #[test]
    fn an_object_with_nothing_but_its_type_is_still_json() {
        let object = Object::new("", "", 1, json!({"apiVersion": "v1", "kind": "X"}));
        let mut out = BytesMut::new();
        object.write(&mut out, Some(("v1", "Y")));
        assert_eq!(&out[..], br#"{"kind":"Y","apiVersion":"v1"}"#);
    }
}
