//! Custom resources: compiling a definition's structural schema into an arena of its own, pruning
//! and defaulting by it. Validation is in `validate`; whether the definition itself is a valid
//! object is `kinds`' business, apart from what makes a schema impossible to compile.

mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;
use serde_json::{Map, Number, Value};

use crate::arena::{Field, Node, NodeId, Object, Patch, Presence, Relation, Scalar, Shape, Type};
use crate::builtin::{self, Compiler, OBJECT_META};

/// A field that is not as its schema wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// `spec.containers[0].name`.
    pub field: String,
    /// The `reason` of a status cause: `FieldValueInvalid` and the like.
    pub reason: &'static str,
    /// The message of a status cause: `Invalid value: "x": must be …`.
    pub message: String,
}

impl FieldError {
    pub(crate) fn invalid(field: &str, value: &Value, detail: &str) -> Self {
        Self {
            field: field.to_owned(),
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {value}: {detail}"),
        }
    }
}

/// The value validations of one schema node and of what lies below it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) kind: Option<String>,
    pub(crate) nullable: bool,
    pub(crate) int_or_string: bool,
    pub(crate) default: Option<Value>,
    pub(crate) allowed: Vec<Value>,
    pub(crate) minimum: Option<(Number, bool)>,
    pub(crate) maximum: Option<(Number, bool)>,
    pub(crate) multiple_of: Option<Number>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) format: Option<String>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) unique_items: bool,
    pub(crate) list: Relation,
    pub(crate) min_properties: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) required: Vec<String>,
    pub(crate) properties: BTreeMap<String, Rules>,
    pub(crate) additional: Option<Box<Rules>>,
    pub(crate) items: Option<Box<Rules>>,
    pub(crate) all_of: Vec<Rules>,
    pub(crate) any_of: Vec<Rules>,
    pub(crate) one_of: Vec<Rules>,
    pub(crate) not: Option<Box<Rules>>,
}

impl Type {
    fn rules(&self) -> Option<&Rules> {
        self.cursor().node().rules.as_deref()
    }

    /// Fills in the defaults of a custom resource's schema. Built-in kinds have theirs in code.
    pub fn default_fields(&self, object: &mut Value) {
        if let Some(rules) = self.rules() {
            default_value(rules, object);
        }
    }

    /// Drops the fields of a custom resource that its schema does not know; returns their paths.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        match self.coerce(object.take()) {
            Ok(coerced) => {
                *object = coerced.value;
                coerced.strict
            }
            // The metadata does not decode: nothing to keep is known of it.
            Err(error) => vec![error],
        }
    }

    /// Validates a custom resource by its schema.
    pub fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(rules) = self.rules() {
            validate::value(rules, object, "", &mut errors);
        }
        errors
    }
}

/// Compiles a definition's `openAPIV3Schema`.
pub(crate) fn compile(structural: &Value) -> Result<Type, Vec<FieldError>> {
    let mut errors = Vec::new();
    let rules = Rules::read(structural, "openAPIV3Schema", &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let components = builtin::components();
    let mut compiler = Compiler::new(&components);
    let root = node(&mut compiler, structural, true);
    let mut root_node = compiler.arena().node(root).clone();
    root_node.rules = Some(Box::new(rules));
    compiler.arena().replace(root, root_node);
    Ok(Type {
        arena: Arc::new(compiler.finish()),
        root,
        custom: true,
    })
}

fn flag(schema: &Value, name: &str) -> bool {
    schema[name].as_bool().unwrap_or(false)
}

fn relation(schema: &Value) -> Relation {
    match (
        schema["x-kubernetes-list-type"].as_str(),
        schema["x-kubernetes-map-type"].as_str(),
    ) {
        (Some("set"), _) => Relation::Set,
        (Some("map"), _) => Relation::Keyed(
            schema["x-kubernetes-list-map-keys"]
                .as_array()
                .map(|keys| {
                    keys.iter()
                        .filter_map(Value::as_str)
                        .map(Into::into)
                        .collect()
                })
                .unwrap_or_default(),
        ),
        (Some(_), _) | (_, Some("atomic")) => Relation::Atomic,
        _ if schema["type"] == "array" => Relation::Atomic,
        _ => Relation::Granular,
    }
}

fn node(compiler: &mut Compiler<'_>, schema: &Value, root: bool) -> NodeId {
    let preserve = flag(schema, "x-kubernetes-preserve-unknown-fields");
    let embedded = root || flag(schema, "x-kubernetes-embedded-resource");
    let shape = if flag(schema, "x-kubernetes-int-or-string") {
        Shape::Scalar(Scalar::IntOrString)
    } else {
        match schema["type"].as_str() {
            Some("array") => Shape::List(node(compiler, &schema["items"], false)),
            Some("string") => Shape::Scalar(Scalar::String),
            Some("boolean") => Shape::Scalar(Scalar::Bool),
            Some("integer") => Shape::Scalar(Scalar::Int64),
            Some("number") => Shape::Scalar(Scalar::Float),
            Some("object") => object(compiler, schema, preserve, embedded),
            _ if root => object(compiler, schema, true, true),
            _ => Shape::Deduced,
        }
    };
    let mut node = Node::new(shape, "");
    node.relation = relation(schema);
    compiler.arena().push(node)
}

fn object(compiler: &mut Compiler<'_>, schema: &Value, preserve: bool, embedded: bool) -> Shape {
    match &schema["additionalProperties"] {
        Value::Object(_) => {
            let value = node(compiler, &schema["additionalProperties"], false);
            return Shape::Map(value);
        }
        Value::Bool(true) => return Shape::Deduced,
        _ => {}
    }
    let properties = schema["properties"].as_object();
    if preserve && !embedded && properties.is_none_or(Map::is_empty) {
        return Shape::Deduced;
    }
    let mut shape = Object {
        preserve_unknown: preserve,
        ..Object::default()
    };
    let given = |node| Field {
        node,
        presence: Presence::AsGiven,
        default: None,
        patch: Patch::default(),
    };
    for (name, schema) in properties.into_iter().flatten() {
        let mut field = given(node(compiler, schema, false));
        field.default = schema.get("default").cloned();
        let name = compiler.intern(name);
        shape.fields.insert(name, field);
    }
    if embedded {
        let text = compiler
            .arena()
            .push(Node::new(Shape::Scalar(Scalar::String), "string"));
        for name in ["apiVersion", "kind"] {
            let name = compiler.intern(name);
            shape.fields.insert(name, given(text));
        }
        let metadata = compiler.component(OBJECT_META);
        let name = compiler.intern("metadata");
        shape.fields.insert(name, given(metadata));
    }
    Shape::Object(shape)
}

fn default_value(rules: &Rules, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, below) in &rules.properties {
                // A null that may not be there makes room for the default.
                if below.default.is_some()
                    && !below.nullable
                    && map.get(name).is_some_and(Value::is_null)
                {
                    map.remove(name);
                }
                if let (Some(default), false) = (&below.default, map.contains_key(name)) {
                    map.insert(name.clone(), default.clone());
                }
                if let Some(value) = map.get_mut(name) {
                    default_value(below, value);
                }
            }
            if let Some(below) = &rules.additional {
                for (name, value) in map.iter_mut() {
                    if !rules.properties.contains_key(name) {
                        if let (Some(default), true) = (&below.default, value.is_null()) {
                            *value = default.clone();
                        }
                        default_value(below, value);
                    }
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = &rules.items {
                for item in items {
                    default_value(below, item);
                }
            }
        }
        _ => {}
    }
}

impl Rules {
    fn read(schema: &Value, path: &str, errors: &mut Vec<FieldError>) -> Self {
        let count = |name: &str| schema[name].as_u64();
        let number = |name: &str| schema[name].as_number().cloned();
        let pattern = schema["pattern"].as_str().and_then(|text| {
            Regex::new(text)
                .map_err(|error| {
                    errors.push(FieldError::invalid(
                        &format!("{path}.pattern"),
                        &schema["pattern"],
                        &format!("must be a valid regular expression: {error}"),
                    ));
                })
                .ok()
        });
        let mut below = |name: &str| match schema.get(name) {
            Some(Value::Object(_)) => Some(Box::new(Self::read(
                &schema[name],
                &format!("{path}.{name}"),
                errors,
            ))),
            _ => None,
        };
        let (additional, items, not) =
            (below("additionalProperties"), below("items"), below("not"));
        let mut several = |name: &str| {
            schema[name]
                .as_array()
                .map(|list| {
                    list.iter()
                        .enumerate()
                        .map(|(index, schema)| {
                            Self::read(schema, &format!("{path}.{name}[{index}]"), errors)
                        })
                        .collect()
                })
                .unwrap_or_default()
        };
        let (all_of, any_of, one_of) = (several("allOf"), several("anyOf"), several("oneOf"));
        let properties = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, schema)| {
                let path = format!("{path}.properties[{name}]");
                (name.clone(), Self::read(schema, &path, errors))
            })
            .collect();
        Self {
            kind: schema["type"].as_str().map(str::to_owned),
            nullable: flag(schema, "nullable"),
            int_or_string: flag(schema, "x-kubernetes-int-or-string"),
            default: schema.get("default").cloned(),
            allowed: schema["enum"].as_array().cloned().unwrap_or_default(),
            minimum: number("minimum").map(|limit| (limit, flag(schema, "exclusiveMinimum"))),
            maximum: number("maximum").map(|limit| (limit, flag(schema, "exclusiveMaximum"))),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            pattern,
            format: schema["format"].as_str().map(str::to_owned),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            unique_items: flag(schema, "uniqueItems"),
            list: relation(schema),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            required: schema["required"]
                .as_array()
                .map(|names| {
                    names
                        .iter()
                        .filter_map(Value::as_str)
                        .map(str::to_owned)
                        .collect()
                })
                .unwrap_or_default(),
            properties,
            additional,
            items,
            all_of,
            any_of,
            one_of,
            not,
        }
    }
}
