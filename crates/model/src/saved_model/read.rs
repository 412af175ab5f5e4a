//! Reading a model into a graph.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bytes::Bytes;
use prost::Message as _;

use super::{Error, FILE_NAME, SERVE_TAG, SavedModel};
use crate::codec;
use crate::graph::{Graph, NodeId, Op};
use crate::kernels::Padding;
use crate::proto::{self, NodeDef, attr_value::Value};
use crate::signature::{Signature, TensorInfo};
use crate::tensor::{DataType, Tensor};

impl SavedModel {
    /// Reads the model in `dir`.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE_NAME);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) => return Err(Error::Read { path, source }),
        };
        match proto::SavedModel::decode(Bytes::from(bytes)) {
            Ok(proto) => Self::from_proto(proto),
            Err(source) => Err(Error::Decode { path, source }),
        }
    }

    /// The model that a message holds.
    pub fn from_proto(model: proto::SavedModel) -> Result<Self, Error> {
        let tags = |graph: &proto::MetaGraphDef| {
            graph
                .meta_info_def
                .as_ref()
                .map(|info| info.tags.clone())
                .unwrap_or_default()
        };
        let found = model
            .meta_graphs
            .iter()
            .map(|graph| tags(graph).join(","))
            .collect();
        let meta_graph = model
            .meta_graphs
            .into_iter()
            .find(|graph| tags(graph).iter().any(|tag| tag == SERVE_TAG))
            .ok_or(Error::NoServeGraph { found })?;

        let mut signatures = BTreeMap::new();
        for (name, signature) in &meta_graph.signature_def {
            // Such as the one that TensorFlow 2 writes for initialisation: nothing to call.
            if !signature.outputs.is_empty() && !name.starts_with("__") {
                signatures.insert(name.clone(), read_signature(name, signature)?);
            }
        }
        let mut reader = Reader {
            defs: meta_graph
                .graph_def
                .map(|graph| graph.node)
                .unwrap_or_default(),
            index: HashMap::new(),
            done: HashMap::new(),
            graph: Graph::new(),
        };
        reader.index = reader
            .defs
            .iter()
            .enumerate()
            .map(|(at, def)| (def.name.clone(), at))
            .collect();
        for (name, signature) in &signatures {
            let user = format!("signature {name:?}");
            for info in signature.inputs.values().chain(signature.outputs.values()) {
                reader.read(&user, &info.edge)?;
            }
        }
        Self::new(reader.graph, signatures)
    }
}

fn read_signature(name: &str, signature: &proto::SignatureDef) -> Result<Signature, Error> {
    let side = |side: &BTreeMap<String, proto::TensorInfo>| {
        let read = |(tensor, info): (&String, &proto::TensorInfo)| {
            let error = |reason: String| Error::SignatureTensor {
                signature: name.to_owned(),
                name: tensor.clone(),
                reason,
            };
            let Some(proto::tensor_info::Encoding::Name(edge)) = &info.encoding else {
                return Err(error("only dense tensors are supported".to_owned()));
            };
            let data_type =
                DataType::from_proto(info.dtype).map_err(|source| error(source.to_string()))?;
            let shape = info.tensor_shape.as_ref().and_then(codec::shape_from_proto);
            let shape = shape.ok_or_else(|| error("it has no shape".to_owned()))?;
            Ok((
                tensor.clone(),
                TensorInfo {
                    edge: edge.clone(),
                    data_type,
                    shape,
                },
            ))
        };
        side.iter()
            .map(read)
            .collect::<Result<BTreeMap<_, _>, Error>>()
    };
    Ok(Signature {
        method_name: signature.method_name.clone(),
        inputs: side(&signature.inputs)?,
        outputs: side(&signature.outputs)?,
    })
}

/// Takes nodes over into a graph, each one behind its inputs.
struct Reader {
    defs: Vec<NodeDef>,
    index: HashMap<String, usize>,
    /// The nodes taken over; `None` while their inputs are.
    done: HashMap<usize, Option<NodeId>>,
    graph: Graph,
}

impl Reader {
    /// Takes the node of an edge over, and everything that it needs.
    fn read(&mut self, user: &str, edge: &str) -> Result<(), Error> {
        let mut stack = vec![self.find(user, edge)?];
        while let Some(&at) = stack.last() {
            if matches!(self.done.get(&at), Some(Some(_))) {
                stack.pop();
                continue;
            }
            let first_visit = self.done.insert(at, None).is_none();
            let user = format!("node {:?}", self.defs[at].name);
            let mut inputs = Vec::new();
            let mut missing = Vec::new();
            // An edge that begins with ^ only orders.
            for edge in self.defs[at]
                .input
                .iter()
                .filter(|edge| !edge.starts_with('^'))
            {
                let input = self.find(&user, edge)?;
                match self.done.get(&input) {
                    Some(Some(id)) => inputs.push(*id),
                    Some(None) => {
                        return Err(Error::Cycle {
                            node: self.defs[input].name.clone(),
                        });
                    }
                    None => missing.push(input),
                }
            }
            if missing.is_empty() {
                let op = read_op(&mut self.defs[at])?;
                let name = self.defs[at].name.clone();
                let id = self
                    .graph
                    .add(name, op, &inputs)
                    .map_err(|source| Error::Graph { source })?;
                self.done.insert(at, Some(id));
                stack.pop();
            } else if first_visit {
                stack.extend(missing);
            } else {
                return Err(Error::Cycle {
                    node: self.defs[at].name.clone(),
                });
            }
        }
        Ok(())
    }

    fn find(&self, user: &str, edge: &str) -> Result<usize, Error> {
        // All operations known here have one result.
        let name = edge.strip_suffix(":0").unwrap_or(edge);
        self.index.get(name).copied().ok_or_else(|| Error::Edge {
            user: user.to_owned(),
            edge: edge.to_owned(),
        })
    }
}

/// The attributes of one node.
struct Attributes<'a> {
    def: &'a mut NodeDef,
}

impl Attributes<'_> {
    fn error(&self, attribute: &'static str, reason: impl Into<String>) -> Error {
        Error::Attribute {
            node: self.def.name.clone(),
            op: self.def.op.clone(),
            attribute,
            reason: reason.into(),
        }
    }

    fn get(&self, name: &'static str) -> Option<&Value> {
        self.def.attr.get(name)?.value.as_ref()
    }

    fn data_type(&self, name: &'static str) -> Result<DataType, Error> {
        match self.get(name) {
            Some(Value::Type(number)) => {
                DataType::from_proto(*number).map_err(|error| self.error(name, error.to_string()))
            }
            _ => Err(self.error(name, "missing")),
        }
    }

    fn flag(&self, name: &'static str) -> bool {
        matches!(self.get(name), Some(Value::B(true)))
    }

    /// A list like `[1, height, width, 1]`: nothing may happen along images and channels.
    fn inner(&self, name: &'static str) -> Result<[usize; 2], Error> {
        let Some(Value::List(list)) = self.get(name) else {
            return Err(self.error(name, "missing"));
        };
        match list.i[..] {
            [1, y, x, 1] if y > 0 && x > 0 => Ok([y as usize, x as usize]),
            _ => Err(self.error(name, format!("{:?} is not like [1, 2, 2, 1]", list.i))),
        }
    }

    fn padding(&self) -> Result<Padding, Error> {
        match self.get("padding") {
            Some(Value::S(text)) if text == b"SAME" => Ok(Padding::Same),
            Some(Value::S(text)) if text == b"VALID" => Ok(Padding::Valid),
            Some(Value::S(text)) => {
                let text = String::from_utf8_lossy(text);
                Err(self.error("padding", format!("{text} is not SAME or VALID")))
            }
            _ => Err(self.error("padding", "missing")),
        }
    }

    fn channels_last(&self) -> Result<(), Error> {
        match self.get("data_format") {
            Some(Value::S(text)) if text != b"NHWC" => {
                let text = String::from_utf8_lossy(text);
                Err(self.error("data_format", format!("{text} is not NHWC")))
            }
            _ => Ok(()),
        }
    }
}

fn read_op(def: &mut NodeDef) -> Result<Op, Error> {
    let name = def.op.clone();
    let attributes = Attributes { def };
    Ok(match name.as_str() {
        "Placeholder" => {
            let shape = match attributes.get("shape") {
                Some(Value::Shape(shape)) => codec::shape_from_proto(shape).unwrap_or_default(),
                _ => Vec::new(),
            };
            Op::Placeholder {
                data_type: attributes.data_type("dtype")?,
                shape,
            }
        }
        "Const" => {
            let tensor = match attributes.get("value") {
                Some(Value::Tensor(tensor)) => Tensor::from_proto(tensor)
                    .map_err(|error| attributes.error("value", error.to_string()))?,
                _ => return Err(attributes.error("value", "missing")),
            };
            // The message's copy is not needed any more, and it is what makes a model large.
            attributes.def.attr.clear();
            Op::Const(tensor)
        }
        "Identity" | "StopGradient" | "PreventGradient" => Op::Identity,
        "Reshape" => Op::Reshape,
        "Conv2D" => {
            attributes.channels_last()?;
            if let Some(Value::List(list)) = attributes.get("dilations")
                && list.i.iter().any(|&dilation| dilation != 1)
            {
                return Err(attributes.error("dilations", format!("{:?} are not all 1", list.i)));
            }
            Op::Conv2D {
                strides: attributes.inner("strides")?,
                padding: attributes.padding()?,
            }
        }
        "BiasAdd" => {
            attributes.channels_last()?;
            Op::BiasAdd
        }
        "Add" | "AddV2" => Op::Add,
        "Relu" => Op::Relu,
        "MaxPool" => {
            attributes.channels_last()?;
            Op::MaxPool {
                window: attributes.inner("ksize")?,
                strides: attributes.inner("strides")?,
                padding: attributes.padding()?,
            }
        }
        "MatMul" => Op::MatMul {
            transpose_a: attributes.flag("transpose_a"),
            transpose_b: attributes.flag("transpose_b"),
        },
        "Softmax" => Op::Softmax,
        "ArgMax" => {
            let output = match attributes.get("output_type") {
                None => DataType::Int64,
                Some(_) => attributes.data_type("output_type")?,
            };
            Op::ArgMax { output }
        }
        "Cast" => Op::Cast {
            to: attributes.data_type("DstT")?,
        },
        _ => {
            let node = attributes.def.name.clone();
            return Err(Error::UnknownOp { node, op: name });
        }
    })
}
