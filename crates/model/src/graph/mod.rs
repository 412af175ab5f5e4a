//! A graph of operations: the one form that models are run in, whatever they were read from.
//!
//! Nodes are added in an order in which each one's inputs come first. [`Plan`] runs a graph.

mod plan;
mod run;
mod workspace;

use std::collections::HashMap;

use crate::kernels::Padding;
use crate::tensor::{DataType, Tensor};

pub use plan::Plan;

/// A node of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) usize);

/// What a node computes from its inputs. Names and meaning are TensorFlow's.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Op {
    /// A value that each run brings along.
    Placeholder {
        /// The type of its elements.
        data_type: DataType,
        /// Its shape, `None` where any size will do.
        shape: Vec<Option<usize>>,
    },
    /// A value that never changes.
    Const(Tensor),
    /// Its input.
    Identity,
    /// Its first input in the shape that the second gives.
    Reshape,
    /// Images (rows, columns, channels) convolved with a kernel.
    Conv2D {
        /// Steps down and right.
        strides: [usize; 2],
        /// What lies around an image.
        padding: Padding,
    },
    /// The first input plus the second, a vector along the last dimension.
    BiasAdd,
    /// The sum; the smaller input is repeated along the other's leading dimensions.
    Add,
    /// Negative numbers become zero.
    Relu,
    /// The largest number of each window.
    MaxPool {
        /// Height and width.
        window: [usize; 2],
        /// Steps down and right.
        strides: [usize; 2],
        /// What lies around an image.
        padding: Padding,
    },
    /// The matrix product.
    MatMul {
        /// Whether the first matrix is turned over.
        transpose_a: bool,
        /// Whether the second matrix is turned over.
        transpose_b: bool,
    },
    /// A distribution along the last dimension.
    Softmax,
    /// The position of the largest number along the last dimension, which the second input names.
    ArgMax {
        /// `Int32` or `Int64`.
        output: DataType,
    },
    /// The numbers as another type.
    Cast {
        /// That type.
        to: DataType,
    },
}

impl Op {
    /// The name of the operation.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Placeholder { .. } => "Placeholder",
            Self::Const(_) => "Const",
            Self::Identity => "Identity",
            Self::Reshape => "Reshape",
            Self::Conv2D { .. } => "Conv2D",
            Self::BiasAdd => "BiasAdd",
            Self::Add => "AddV2",
            Self::Relu => "Relu",
            Self::MaxPool { .. } => "MaxPool",
            Self::MatMul { .. } => "MatMul",
            Self::Softmax => "Softmax",
            Self::ArgMax { .. } => "ArgMax",
            Self::Cast { .. } => "Cast",
        }
    }

    /// How many inputs it takes.
    pub fn arity(&self) -> usize {
        match self {
            Self::Placeholder { .. } | Self::Const(_) => 0,
            Self::Identity
            | Self::Relu
            | Self::MaxPool { .. }
            | Self::Softmax
            | Self::Cast { .. } => 1,
            Self::Reshape
            | Self::Conv2D { .. }
            | Self::BiasAdd
            | Self::Add
            | Self::MatMul { .. }
            | Self::ArgMax { .. } => 2,
        }
    }
}

/// A named operation and where its inputs come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Unique in its graph.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// The nodes whose results it takes.
    pub inputs: Vec<NodeId>,
}

/// Why a graph cannot be built or run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two nodes have one name.
    #[error("the graph has two nodes {name:?}")]
    Duplicate {
        /// That name.
        name: String,
    },
    /// A node has too few or too many inputs.
    #[error("node {node:?} ({op}) takes {wanted} inputs and has {found}")]
    Arity {
        /// The node.
        node: String,
        /// Its operation.
        op: &'static str,
        /// How many it takes.
        wanted: usize,
        /// How many it has.
        found: usize,
    },
    /// A run does not give what the plan was made for.
    #[error("the plan takes {wanted} inputs and got {found}")]
    Feeds {
        /// How many it takes.
        wanted: usize,
        /// How many it got.
        found: usize,
    },
    /// A value was needed that the run did not give.
    #[error("node {node:?} is a Placeholder that no input feeds")]
    NotFed {
        /// The node.
        node: String,
    },
    /// A node cannot work with its inputs.
    #[error("node {node:?} ({op}): {reason}")]
    Node {
        /// The node.
        node: String,
        /// Its operation.
        op: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// Operations joined by their values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph {
    nodes: Vec<Node>,
    names: HashMap<String, NodeId>,
}

impl Graph {
    /// A graph without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node behind its inputs.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        op: Op,
        inputs: &[NodeId],
    ) -> Result<NodeId, Error> {
        let name = name.into();
        if inputs.len() != op.arity() {
            let (wanted, found) = (op.arity(), inputs.len());
            return Err(Error::Arity {
                node: name,
                op: op.name(),
                wanted,
                found,
            });
        }
        let id = NodeId(self.nodes.len());
        assert!(
            inputs.iter().all(|input| *input < id),
            "an input is not of this graph"
        );
        if self.names.insert(name.clone(), id).is_some() {
            return Err(Error::Duplicate { name });
        }
        self.nodes.push(Node {
            name,
            op,
            inputs: inputs.to_vec(),
        });
        Ok(id)
    }

    /// All nodes, inputs first.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (NodeId, &Node)> {
        self.nodes
            .iter()
            .enumerate()
            .map(|(index, node)| (NodeId(index), node))
    }

    /// A node of this graph.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The node of that name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.names.get(name).copied()
    }

    pub(crate) fn constant(&self, id: NodeId) -> Option<&Tensor> {
        match &self.nodes[id.0].op {
            Op::Const(tensor) => Some(tensor),
            Op::Identity => self.constant(self.nodes[id.0].inputs[0]),
            _ => None,
        }
    }
}
