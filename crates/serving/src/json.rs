//! Tensors between JSON and memory, in the two layouts of the REST API: *row* (`instances`, one
//! element per example) and *columnar* (`inputs`, one element per tensor).

use std::collections::BTreeMap;

use model::tensor::Values;
use model::{DataType, Signature, Tensor};
use serde_json::Value;

use crate::status::Failure;

/// A request's body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Body {
    pub(crate) signature_name: String,
    pub(crate) layout: Layout,
}

/// Which layout a request has; the answer has the same.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Layout {
    Row(Vec<Value>),
    Columnar(Value),
}

/// Reads a body as far as that is possible without knowing the signature.
pub(crate) fn parse_body(bytes: &[u8]) -> Result<Body, Failure> {
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| Failure::invalid(format!("JSON Parse error: {error}")))?;
    let Value::Object(mut object) = value else {
        return Err(Failure::invalid("the request is not a JSON object"));
    };
    let signature_name = match object.remove("signature_name") {
        None => String::new(),
        Some(Value::String(name)) => name,
        Some(_) => return Err(Failure::invalid("'signature_name' is not a string")),
    };
    let layout = match (object.remove("instances"), object.remove("inputs")) {
        (Some(Value::Array(instances)), None) if !instances.is_empty() => Layout::Row(instances),
        (Some(_), None) => {
            return Err(Failure::invalid(
                "'instances' is not a list of at least one instance",
            ));
        }
        (None, Some(inputs)) => Layout::Columnar(inputs),
        (None, None) => return Err(Failure::invalid("Missing 'inputs' or 'instances' key")),
        (Some(_), Some(_)) => {
            return Err(Failure::invalid(
                "Not expecting 'inputs' and 'instances' together",
            ));
        }
    };
    Ok(Body {
        signature_name,
        layout,
    })
}

/// The inputs of a request.
pub(crate) fn inputs(
    layout: Layout,
    signature: &Signature,
) -> Result<BTreeMap<String, Tensor>, Failure> {
    let only = match signature.inputs.len() {
        1 => signature.inputs.keys().next(),
        _ => None,
    };
    // An object gives inputs by name; anything else is the only input.
    let mut columns: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let unnamed = || {
        Failure::invalid(format!(
            "the signature has {} inputs, so each must be given by name: {}",
            signature.inputs.len(),
            signature
                .inputs
                .keys()
                .cloned()
                .collect::<Vec<_>>()
                .join(", ")
        ))
    };
    match layout {
        Layout::Columnar(Value::Object(named)) => {
            return named
                .into_iter()
                .map(|(name, value)| {
                    let tensor = tensor(&name, &[value], signature, false)?;
                    Ok((name, tensor))
                })
                .collect();
        }
        Layout::Columnar(value) => {
            let name = only.ok_or_else(unnamed)?;
            return Ok([(name.clone(), tensor(name, &[value], signature, false)?)].into());
        }
        Layout::Row(instances) => {
            let rows = instances.len();
            for (row, instance) in instances.into_iter().enumerate() {
                let named = match instance {
                    Value::Object(named) => named.into_iter().collect(),
                    value => vec![(only.ok_or_else(unnamed)?.clone(), value)],
                };
                for (name, value) in named {
                    let column = columns.entry(name).or_default();
                    column.push(value);
                    if column.len() != row + 1 {
                        return Err(Failure::invalid("not all instances have the same inputs"));
                    }
                }
            }
            if columns.values().any(|column| column.len() != rows) {
                return Err(Failure::invalid("not all instances have the same inputs"));
            }
        }
    }
    columns
        .into_iter()
        .map(|(name, rows)| {
            let tensor = tensor(&name, &rows, signature, true)?;
            Ok((name, tensor))
        })
        .collect()
}

/// One input: with `rows` each value is one element along the first dimension, else the one value
/// is all.
fn tensor(
    name: &str,
    values: &[Value],
    signature: &Signature,
    rows: bool,
) -> Result<Tensor, Failure> {
    let info = signature.inputs.get(name).ok_or_else(|| {
        let known: Vec<String> = signature.inputs.keys().cloned().collect();
        Failure::invalid(format!(
            "no input {name:?}; the signature has [{}]",
            known.join(", ")
        ))
    })?;
    let [first, ..] = values else {
        return Err(Failure::invalid(format!("input {name:?} has no value")));
    };
    let mut shape = Vec::new();
    let mut inner = first;
    while let Value::Array(items) = inner {
        shape.push(items.len());
        match items.first() {
            Some(item) => inner = item,
            None => break,
        }
    }
    let mut numbers = Numbers::new(info.data_type);
    for value in values {
        numbers
            .collect(value, &shape)
            .map_err(|problem| Failure::invalid(format!("input {name:?}: {problem}")))?;
    }
    if rows {
        shape.insert(0, values.len());
    }
    Tensor::new(shape, numbers.0)
        .map_err(|error| Failure::invalid(format!("input {name:?}: {error}")))
}

struct Numbers(Values);

impl Numbers {
    fn new(data_type: DataType) -> Self {
        Self(match data_type {
            DataType::Float => Values::Float(Vec::new()),
            DataType::Uint8 => Values::Uint8(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
        })
    }

    fn collect(&mut self, value: &Value, shape: &[usize]) -> Result<(), String> {
        match (value, shape) {
            (Value::Array(items), [size, inner @ ..]) => {
                if items.len() != *size {
                    return Err(format!(
                        "lists of {size} and of {} elements side by side",
                        items.len()
                    ));
                }
                items.iter().try_for_each(|item| self.collect(item, inner))
            }
            (Value::Number(number), []) => {
                let data_type = self.0.data_type();
                self.push(number)
                    .ok_or_else(|| format!("{number} is not of type {data_type}"))
            }
            (Value::Array(_), []) => Err("lists and numbers side by side".to_owned()),
            (Value::Number(_), _) => Err("lists and numbers side by side".to_owned()),
            (other, _) => Err(format!("{other} is not a number")),
        }
    }

    fn push(&mut self, number: &serde_json::Number) -> Option<()> {
        match &mut self.0 {
            Values::Float(values) => values.push(number.as_f64()? as f32),
            Values::Uint8(values) => values.push(number.as_u64()?.try_into().ok()?),
            Values::Int32(values) => values.push(number.as_i64()?.try_into().ok()?),
            Values::Int64(values) => values.push(number.as_i64()?),
            _ => return None,
        }
        Some(())
    }
}

/// The answer in the request's layout. A single output stands by itself, several by name.
pub(crate) fn answer(outputs: &BTreeMap<String, Tensor>, row: bool) -> Result<String, Failure> {
    let mut text = String::new();
    let only = if outputs.len() == 1 {
        outputs.values().next()
    } else {
        None
    };
    if !row {
        text.push_str("{\"outputs\":");
        match only {
            Some(tensor) => write_tensor(&mut text, tensor, tensor.shape(), 0),
            None => write_object(&mut text, outputs, |text, tensor| {
                write_tensor(text, tensor, tensor.shape(), 0);
            }),
        }
        text.push('}');
        return Ok(text);
    }
    let rows = outputs
        .values()
        .next()
        .and_then(|tensor| tensor.shape().first().copied());
    let rows = rows
        .filter(|rows| {
            outputs
                .values()
                .all(|tensor| tensor.shape().first() == Some(rows))
        })
        .ok_or_else(|| {
            Failure::invalid("the outputs are not one per instance; ask with 'inputs' instead")
        })?;
    text.push_str("{\"predictions\":[");
    for row in 0..rows {
        if row > 0 {
            text.push(',');
        }
        let write_row = |text: &mut String, tensor: &Tensor| {
            let shape = &tensor.shape()[1..];
            write_tensor(text, tensor, shape, row * shape.iter().product::<usize>());
        };
        match only {
            Some(tensor) => write_row(&mut text, tensor),
            None => write_object(&mut text, outputs, write_row),
        }
    }
    text.push_str("]}");
    Ok(text)
}

fn write_object(
    text: &mut String,
    outputs: &BTreeMap<String, Tensor>,
    write: impl Fn(&mut String, &Tensor),
) {
    for (index, (name, tensor)) in outputs.iter().enumerate() {
        text.push(if index == 0 { '{' } else { ',' });
        text.push_str(&Value::from(name.as_str()).to_string());
        text.push(':');
        write(text, tensor);
    }
    text.push('}');
}

/// Writes the elements from `first` on as nested lists.
fn write_tensor(text: &mut String, tensor: &Tensor, shape: &[usize], first: usize) {
    let [size, inner @ ..] = shape else {
        write_number(text, tensor, first);
        return;
    };
    let step: usize = inner.iter().product();
    text.push('[');
    for item in 0..*size {
        if item > 0 {
            text.push(',');
        }
        write_tensor(text, tensor, inner, first + item * step);
    }
    text.push(']');
}

fn write_number(text: &mut String, tensor: &Tensor, at: usize) {
    use std::fmt::Write as _;
    // Writing to a String cannot fail.
    let _ = match tensor.values() {
        // As the original does, numbers that JSON lacks are written all the same.
        Values::Float(values) if values[at].is_nan() => write!(text, "NaN"),
        Values::Float(values) if values[at].is_infinite() => {
            write!(text, "{}Infinity", if values[at] < 0.0 { "-" } else { "" })
        }
        // The shortest text that reads back as the same float.
        Values::Float(values) => write!(text, "{:?}", values[at]),
        Values::Uint8(values) => write!(text, "{}", values[at]),
        Values::Int32(values) => write!(text, "{}", values[at]),
        Values::Int64(values) => write!(text, "{}", values[at]),
        _ => write!(text, "null"),
    };
}

#[cfg(test)]
mod tests;
