//! A model with signatures: read from and written to TensorFlow's SavedModel format, and run.
//!
//! Weights are constants of the graph; there is no variables directory. Reading follows the
//! signatures' outputs back through the graph, so that operations for training in the same file do
//! not matter.

mod read;
mod write;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::codec;
use crate::graph::{self, Graph, NodeId, Plan};
use crate::proto;
use crate::signature::{self, Signature};
use crate::tensor::Tensor;

/// The file that makes a directory a SavedModel.
pub const FILE_NAME: &str = "saved_model.pb";
/// The tag of a graph to serve.
pub const SERVE_TAG: &str = "serve";

/// Why a model cannot be read, written or built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file or directory cannot be written.
    #[error("write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a SavedModel.
    #[error("{} is not a SavedModel", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        #[source]
        source: prost::DecodeError,
    },
    /// No graph in the file has the tag.
    #[error("no graph with the tag {SERVE_TAG:?}; the file has [{}]", found.join("; "))]
    NoServeGraph {
        /// The tag sets that there are.
        found: Vec<String>,
    },
    /// A graph without signatures cannot be called.
    #[error("the model has no signature that can be called")]
    NoSignature,
    /// A node has an operation that is not known here.
    #[error("node {node:?} has the operation {op}, which is not supported")]
    UnknownOp {
        /// The node.
        node: String,
        /// Its operation.
        op: String,
    },
    /// A node's attribute is missing or asks for something that is not supported.
    #[error("node {node:?} ({op}), attribute {attribute}: {reason}")]
    Attribute {
        /// The node.
        node: String,
        /// Its operation.
        op: String,
        /// The attribute.
        attribute: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// An edge that leads nowhere.
    #[error("{user} refers to {edge:?}, which the graph does not have")]
    Edge {
        /// Who refers to it.
        user: String,
        /// `node:output`.
        edge: String,
    },
    /// A node needs its own result.
    #[error("node {node:?} depends on itself")]
    Cycle {
        /// The node.
        node: String,
    },
    /// A signature's input or output has a type or shape that is not supported.
    #[error("signature {signature:?}, tensor {name:?}: {reason}")]
    SignatureTensor {
        /// The signature.
        signature: String,
        /// Its input or output.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The graph does not hold together.
    #[error("the graph is not well-formed")]
    Graph {
        /// What is wrong.
        #[source]
        source: graph::Error,
    },
}

/// Why a model gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PredictError {
    /// The model has no such signature.
    #[error("no signature {name:?}; the model has [{}]", known.join(", "))]
    NoSignature {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The request does not fit the signature.
    #[error(transparent)]
    Request(#[from] signature::Error),
    /// The graph failed on this input.
    #[error(transparent)]
    Run(#[from] graph::Error),
}

#[derive(Debug)]
struct Callable {
    signature: Signature,
    /// Computes all outputs, in the signature's order.
    plan: Arc<Plan>,
}

/// A graph with named ways to call it.
#[derive(Debug)]
pub struct SavedModel {
    graph: Arc<Graph>,
    callables: BTreeMap<String, Callable>,
}

impl SavedModel {
    /// A model of a graph whose nodes the signatures name.
    pub fn new(graph: Graph, signatures: BTreeMap<String, Signature>) -> Result<Self, Error> {
        let graph = Arc::new(graph);
        let mut callables: BTreeMap<String, Callable> = BTreeMap::new();
        for (name, signature) in signatures {
            let node = |edge: &str| {
                graph
                    .find(edge.strip_suffix(":0").unwrap_or(edge))
                    .ok_or_else(|| Error::Edge {
                        user: format!("signature {name:?}"),
                        edge: edge.to_owned(),
                    })
            };
            let nodes = |side: &BTreeMap<String, signature::TensorInfo>| {
                side.values()
                    .map(|info| node(&info.edge))
                    .collect::<Result<Vec<NodeId>, Error>>()
            };
            // Signatures that are alike share their plan.
            let alike = callables
                .values()
                .find(|other| other.signature == signature);
            let plan = if let Some(other) = alike {
                Arc::clone(&other.plan)
            } else {
                let (feeds, fetches) = (nodes(&signature.inputs)?, nodes(&signature.outputs)?);
                let plan = Plan::new(Arc::clone(&graph), &feeds, &fetches)
                    .map_err(|source| Error::Graph { source })?;
                Arc::new(plan)
            };
            callables.insert(name, Callable { signature, plan });
        }
        if callables.is_empty() {
            return Err(Error::NoSignature);
        }
        Ok(Self { graph, callables })
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Names and signatures.
    pub fn signatures(&self) -> impl Iterator<Item = (&str, &Signature)> {
        self.callables
            .iter()
            .map(|(name, callable)| (name.as_str(), &callable.signature))
    }

    /// The signature of that name.
    pub fn signature(&self, name: &str) -> Result<&Signature, PredictError> {
        self.callable(name).map(|callable| &callable.signature)
    }

    fn callable(&self, name: &str) -> Result<&Callable, PredictError> {
        self.callables
            .get(name)
            .ok_or_else(|| PredictError::NoSignature {
                name: name.to_owned(),
                known: self.callables.keys().cloned().collect(),
            })
    }

    /// Calls the model: checks the inputs against the signature, runs the graph, and answers the
    /// outputs that `filter` names (all, if it names none).
    pub fn predict(
        &self,
        signature: &str,
        inputs: BTreeMap<String, Tensor>,
        filter: &[String],
    ) -> Result<BTreeMap<String, Tensor>, PredictError> {
        let callable = self.callable(signature)?;
        let wanted = callable.signature.select(filter)?;
        let values = callable.signature.fit(inputs)?;
        let answers = callable.plan.run(values)?;
        let outputs = callable.signature.outputs.keys().zip(answers);
        Ok(outputs
            .filter(|(name, _)| wanted.iter().any(|(other, _)| name == other))
            .map(|(name, tensor)| (name.clone(), tensor))
            .collect())
    }
}

impl Signature {
    /// The signature as a message.
    pub fn to_proto(&self) -> proto::SignatureDef {
        let side = |side: &BTreeMap<String, signature::TensorInfo>| {
            let info = |info: &signature::TensorInfo| proto::TensorInfo {
                encoding: Some(proto::tensor_info::Encoding::Name(info.edge.clone())),
                dtype: info.data_type.to_proto().into(),
                tensor_shape: Some(codec::shape_to_proto(info.shape.iter().copied())),
            };
            side.iter()
                .map(|(name, tensor)| (name.clone(), info(tensor)))
                .collect()
        };
        proto::SignatureDef {
            inputs: side(&self.inputs),
            outputs: side(&self.outputs),
            method_name: self.method_name.clone(),
        }
    }
}

/// A one-line summary of a model for logs: its signatures with their shapes.
impl std::fmt::Display for SavedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (name, callable)) in self.callables.iter().enumerate() {
            let side = |side: &BTreeMap<String, signature::TensorInfo>| {
                let tensors = side.iter().map(|(name, info)| {
                    format!("{name}: {} {}", info.data_type, info.shape_text())
                });
                tensors.collect::<Vec<_>>().join(", ")
            };
            let separator = if index == 0 { "" } else { "; " };
            let (inputs, outputs) = (
                side(&callable.signature.inputs),
                side(&callable.signature.outputs),
            );
            write!(f, "{separator}{name}({inputs}) -> ({outputs})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
