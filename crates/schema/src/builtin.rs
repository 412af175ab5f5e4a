//! The schemas of the built-in kinds: the embedded data and its compilation into an [`Arena`].

use std::collections::BTreeMap;
use std::io::Read as _;

use flate2::read::GzDecoder;
use serde_json::{Map, Value};

use crate::Gvk;
use crate::arena::{
    Arena, Field, Node, NodeId, Object, Patch, Presence, Relation, Scalar, Shape, Str,
};

const SCHEMAS: &[u8] = include_bytes!("../openapi/schemas.json.gz");
const GO_TYPES: &[u8] = include_bytes!("../openapi/go-types.json.gz");
const DISCOVERY: &[u8] = include_bytes!("../openapi/discovery.json.gz");

const REF: &str = "#/components/schemas/";
pub(crate) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Kinds of the retired `apps/v1beta2`, served as conversions of `apps/v1`.
pub(crate) const V1BETA2_KINDS: [&str; 4] =
    ["DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"];

fn embedded(bytes: &[u8]) -> Map<String, Value> {
    let mut text = Vec::new();
    GzDecoder::new(bytes)
        .read_to_end(&mut text)
        .expect("invariant: the embedded data is gzip");
    match serde_json::from_slice(&text) {
        Ok(Value::Object(map)) => map,
        _ => unreachable!("the embedded data is a JSON object"),
    }
}

/// The component schemas by name.
pub(crate) fn components() -> Map<String, Value> {
    embedded(SCHEMAS)
}

/// The resources by group-version.
pub(crate) fn discovery() -> Map<String, Value> {
    embedded(DISCOVERY)
}

/// The component that a schema refers to, directly or through its only `allOf`.
pub(crate) fn reference(schema: &Value) -> Option<&str> {
    let direct = schema.get("$ref").or_else(|| {
        let all_of = schema.get("allOf")?.as_array()?;
        all_of.first()?.get("$ref")
    });
    direct?.as_str()?.strip_prefix(REF)
}

/// Compiles component schemas, each once, into an arena.
pub(crate) struct Compiler<'a> {
    arena: Arena,
    components: &'a Map<String, Value>,
    go_types: Map<String, Value>,
    done: BTreeMap<String, NodeId>,
    strings: BTreeMap<String, Str>,
}

impl<'a> Compiler<'a> {
    pub(crate) fn new(components: &'a Map<String, Value>) -> Self {
        Self {
            arena: Arena::default(),
            components,
            go_types: embedded(GO_TYPES),
            done: BTreeMap::new(),
            strings: BTreeMap::new(),
        }
    }

    pub(crate) fn finish(self) -> Arena {
        self.arena
    }

    pub(crate) fn arena(&mut self) -> &mut Arena {
        &mut self.arena
    }

    pub(crate) fn intern(&mut self, text: &str) -> Str {
        if let Some(known) = self.strings.get(text) {
            return known.clone();
        }
        let shared = Str::from(text);
        self.strings.insert(text.to_owned(), shared.clone());
        shared
    }

    fn push(&mut self, shape: Shape, relation: Relation, go: &str) -> NodeId {
        let mut node = Node::new(shape, "");
        node.go = self.intern(go);
        node.relation = relation;
        self.arena.push(node)
    }

    /// The node of the component `name`.
    pub(crate) fn component(&mut self, name: &str) -> NodeId {
        if let Some(&id) = self.done.get(name) {
            return id;
        }
        let mut segments = name.rsplitn(3, '.');
        let last = segments.next().unwrap_or(name);
        let go = format!("{}.{last}", segments.next().unwrap_or_default());
        let special = match last {
            "Quantity" => Some(Shape::Scalar(Scalar::Quantity)),
            "Time" => Some(Shape::Scalar(Scalar::Time)),
            "MicroTime" => Some(Shape::Scalar(Scalar::MicroTime)),
            "IntOrString" => Some(Shape::Scalar(Scalar::IntOrString)),
            _ => None,
        };
        if let Some(shape) = special {
            let id = self.push(shape, Relation::Granular, &go);
            self.done.insert(name.to_owned(), id);
            return id;
        }
        let components = self.components;
        let Some(properties) = components
            .get(name)
            .and_then(|schema| schema.get("properties"))
            .and_then(Value::as_object)
        else {
            let id = self.push(Shape::Any, Relation::Atomic, &go);
            self.done.insert(name.to_owned(), id);
            return id;
        };
        let schema = &components[name];
        // The place is taken first: schemas may contain themselves.
        let id = self.push(Shape::Any, relation(schema, Relation::Granular), &go);
        self.done.insert(name.to_owned(), id);
        let go_fields = self.go_types.get(name).cloned().unwrap_or_default();
        let mut object = Object::default();
        for (field_name, field_schema) in properties {
            let go_field = GoField::read(&go_fields[field_name]);
            let node = self.property(field_schema, go_field.type_name);
            let field = Field {
                node,
                presence: go_field.presence,
                default: field_schema.get("default").cloned(),
                patch: self.patch(field_schema),
            };
            let field_name = self.intern(field_name);
            object.fields.insert(field_name, field);
        }
        let mut node = self.arena.node(id).clone();
        node.shape = Shape::Object(object);
        self.arena.replace(id, node);
        id
    }

    fn patch(&mut self, schema: &Value) -> Patch {
        let strategy = schema["x-kubernetes-patch-strategy"].as_str().unwrap_or("");
        Patch {
            merge: strategy.split(',').any(|part| part == "merge"),
            retain_keys: strategy.split(',').any(|part| part == "retainKeys"),
            merge_key: schema["x-kubernetes-patch-merge-key"]
                .as_str()
                .map(|key| self.intern(key)),
        }
    }

    fn property(&mut self, schema: &Value, go: &str) -> NodeId {
        if let Some(name) = reference(schema) {
            let id = self.component(name);
            let own = relation(schema, Relation::Granular);
            // A field may be granular although its type is not, as a volume's `claimRef`.
            let granular = schema["x-kubernetes-map-type"] == "granular";
            if own == Relation::Granular && !granular {
                return id;
            }
            let mut node = self.arena.node(id).clone();
            node.relation = own;
            return self.arena.push(node);
        }
        match schema["type"].as_str() {
            Some("array") => {
                let item = self.property(&schema["items"], element(go, "[]"));
                self.push(Shape::List(item), relation(schema, Relation::Atomic), go)
            }
            Some("object") => match schema.get("additionalProperties") {
                Some(value) => {
                    let value = self.property(value, element(go, "]"));
                    self.push(Shape::Map(value), relation(schema, Relation::Granular), go)
                }
                None => self.push(Shape::Any, Relation::Atomic, go),
            },
            Some(kind) => {
                let format = schema["format"].as_str().unwrap_or("");
                let (scalar, plain) = match (kind, format) {
                    ("boolean", _) => (Scalar::Bool, "bool"),
                    ("integer", "int32") => (Scalar::Int32, "int32"),
                    ("integer", _) => (Scalar::Int64, "int64"),
                    ("number", _) => (Scalar::Float, "float64"),
                    ("string", "byte") => (Scalar::Bytes, "[]uint8"),
                    _ => (Scalar::String, "string"),
                };
                let go = if go.is_empty() { plain } else { go };
                self.push(Shape::Scalar(scalar), Relation::Granular, go)
            }
            None => self.push(Shape::Any, Relation::Atomic, go),
        }
    }
}

/// The element type of a Go slice or map type, as far as its text tells.
fn element<'a>(go: &'a str, after: &str) -> &'a str {
    match go.split_once(after) {
        Some((_, element)) if go.starts_with("[]") || go.starts_with("map[") => element,
        _ => "",
    }
}

fn relation(schema: &Value, otherwise: Relation) -> Relation {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("atomic") => return Relation::Atomic,
        Some("set") => return Relation::Set,
        Some("map") => {
            return Relation::Keyed(
                schema["x-kubernetes-list-map-keys"]
                    .as_array()
                    .map(|keys| {
                        keys.iter()
                            .filter_map(Value::as_str)
                            .map(Str::from)
                            .collect()
                    })
                    .unwrap_or_default(),
            );
        }
        _ => {}
    }
    match schema["x-kubernetes-map-type"].as_str() {
        Some("atomic") => Relation::Atomic,
        _ => otherwise,
    }
}

struct GoField<'a> {
    presence: Presence,
    type_name: &'a str,
}

impl<'a> GoField<'a> {
    /// From `[flags, kind, type]`.
    fn read(entry: &'a Value) -> Self {
        let flags = entry[0].as_str().unwrap_or("o");
        let omit = flags.contains('o');
        let presence = if flags.contains('p') {
            Presence::Pointer { omit }
        } else {
            Presence::Value {
                omit_empty: omit,
                omit_zero: flags.contains('z'),
            }
        };
        Self {
            presence,
            type_name: entry[2].as_str().unwrap_or(""),
        }
    }
}

/// All built-in kinds with their roots.
pub(crate) fn compile() -> (Arena, BTreeMap<Gvk, NodeId>) {
    let components = components();
    let mut compiler = Compiler::new(&components);
    let mut roots = BTreeMap::new();
    for (name, schema) in &components {
        let Some(gvks) = schema["x-kubernetes-group-version-kind"].as_array() else {
            continue;
        };
        let id = compiler.component(name);
        for gvk in gvks {
            roots.insert(gvk_of(gvk), id);
        }
    }
    for kind in V1BETA2_KINDS {
        for kind in [kind.to_owned(), format!("{kind}List")] {
            if let Some(&id) = roots.get(&Gvk::new("apps", "v1", kind.as_str())) {
                roots.insert(Gvk::new("apps", "v1beta2", kind), id);
            }
        }
    }
    (compiler.finish(), roots)
}

pub(crate) fn gvk_of(gvk: &Value) -> Gvk {
    let part = |name: &str| gvk[name].as_str().unwrap_or("").to_owned();
    Gvk::new(part("group"), part("version"), part("kind"))
}
