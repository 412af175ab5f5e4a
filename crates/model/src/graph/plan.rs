//! From a graph to the steps that compute some of its nodes: what is not needed is left out, and
//! chains that one kernel can do together become one step.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::run::{self, Mode, Stop};
use super::workspace::Workspace;
use super::{Error, Graph, NodeId, Op};
use crate::kernels::{Padding, Winograd};
use crate::tensor::{Tensor, Values};

/// At most this many rows run together: what they need stays near the processor.
const ROWS_TOGETHER: usize = 128;

/// What follows a convolution or a matrix product in the same step.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tail {
    pub(super) bias: Option<NodeId>,
    pub(super) relu: bool,
    pub(super) pool: Option<PoolSpec>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PoolSpec {
    pub(super) window: [usize; 2],
    pub(super) strides: [usize; 2],
    pub(super) padding: Padding,
}

/// One kernel call: it computes `result`, beginning at the operation of `node`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) node: NodeId,
    pub(super) inputs: Vec<NodeId>,
    pub(super) tail: Tail,
    pub(super) result: NodeId,
}

/// A graph made ready to compute some of its nodes from values for others.
#[derive(Debug)]
pub struct Plan {
    pub(super) graph: Arc<Graph>,
    pub(super) feeds: Vec<NodeId>,
    /// The nodes asked for, each with the step result (or feed, or constant) that it equals.
    pub(super) fetches: Vec<NodeId>,
    pub(super) steps: Vec<Step>,
    /// How many steps and fetches read each node's value.
    pub(super) uses: Vec<usize>,
    /// Transformed kernels of the convolutions that Winograd's method computes.
    pub(super) transformed: HashMap<NodeId, Vec<f32>>,
    workspaces: Mutex<Vec<Workspace>>,
}

impl Plan {
    /// Plans to compute `fetches` from values for `feeds`.
    pub fn new(graph: Arc<Graph>, feeds: &[NodeId], fetches: &[NodeId]) -> Result<Self, Error> {
        let resolve = |mut id: NodeId| {
            while graph.node(id).op == Op::Identity && !feeds.contains(&id) {
                id = graph.node(id).inputs[0];
            }
            id
        };
        let fetches: Vec<NodeId> = fetches.iter().map(|&id| resolve(id)).collect();

        let mut needed = vec![false; graph.nodes.len()];
        let mut stack = fetches.clone();
        while let Some(id) = stack.pop() {
            if std::mem::replace(&mut needed[id.0], true) || feeds.contains(&id) {
                continue;
            }
            let node = graph.node(id);
            if matches!(node.op, Op::Placeholder { .. }) {
                return Err(Error::NotFed {
                    node: node.name.clone(),
                });
            }
            stack.extend(node.inputs.iter().map(|&input| resolve(input)));
        }

        let mut steps: Vec<Step> = Vec::new();
        for (id, node) in graph.nodes() {
            if !needed[id.0] || feeds.contains(&id) || matches!(node.op, Op::Const(_)) {
                continue;
            }
            let inputs = node.inputs.iter().map(|&input| resolve(input)).collect();
            steps.push(Step {
                node: id,
                inputs,
                tail: Tail::default(),
                result: id,
            });
        }
        let mut uses = vec![0; graph.nodes.len()];
        for id in steps.iter().flat_map(|step| &step.inputs).chain(&fetches) {
            uses[id.0] += 1;
        }
        let steps = join(&graph, steps, &uses);
        let transformed = steps
            .iter()
            .filter_map(|step| Some((step.node, transform(&graph, feeds, step)?)))
            .collect();
        Ok(Self {
            feeds: feeds.to_vec(),
            fetches,
            steps,
            uses,
            transformed,
            graph,
            workspaces: Mutex::default(),
        })
    }

    /// Computes the planned nodes. `values` stand in the order of the feeds, answers in the order
    /// of the fetches. Many rows (along the first dimension) are split over rayon's threads if each
    /// row's answer depends on that row alone.
    pub fn run(&self, values: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        if values.len() != self.feeds.len() {
            return Err(Error::Feeds {
                wanted: self.feeds.len(),
                found: values.len(),
            });
        }
        if let Some(rows) = common_rows(&values)
            && rows > 1
        {
            let pieces = rows
                .div_ceil(ROWS_TOGETHER)
                .max(rayon::current_num_threads())
                .min(rows);
            if pieces > 1
                && let Some(answer) = self.run_pieces(&values, rows, rows.div_ceil(pieces))
            {
                return Ok(answer);
            }
        }
        match self.run_whole(values, Mode::Whole) {
            Ok(answer) => Ok(answer),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::MixesRows) => unreachable!("rows are told apart only in pieces"),
        }
    }

    /// Runs `piece` rows at a time; `None` if the graph mixes rows, or fails: the run of the whole
    /// will say how.
    fn run_pieces(&self, values: &[Tensor], rows: usize, piece: usize) -> Option<Vec<Tensor>> {
        let starts: Vec<usize> = (0..rows).step_by(piece).collect();
        let answers: Result<Vec<Vec<Tensor>>, Stop> = starts
            .into_par_iter()
            .map(|start| {
                let count = piece.min(rows - start);
                let values = values
                    .iter()
                    .map(|value| slice(value, start, count))
                    .collect();
                let answer = self.run_whole(values, Mode::Rows)?;
                let apart = answer
                    .iter()
                    .all(|tensor| tensor.shape().first() == Some(&count));
                if apart {
                    Ok(answer)
                } else {
                    Err(Stop::MixesRows)
                }
            })
            .collect();
        answers.ok().map(|answers| concatenate(answers, rows))
    }

    fn run_whole(&self, values: Vec<Tensor>, mode: Mode) -> Result<Vec<Tensor>, Stop> {
        let lock = || {
            self.workspaces
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let mut workspace = lock().pop().unwrap_or_default();
        let answer = run::run(self, values, mode, &mut workspace);
        lock().push(workspace);
        answer
    }
}

/// The transformed kernel of a step that convolves in a way that has one.
fn transform(graph: &Graph, feeds: &[NodeId], step: &Step) -> Option<Vec<f32>> {
    let Op::Conv2D { strides, .. } = graph.node(step.node).op else {
        return None;
    };
    if feeds.contains(&step.inputs[1]) {
        return None;
    }
    let kernel = graph.constant(step.inputs[1])?;
    let shape = <[usize; 4]>::try_from(kernel.shape()).ok()?;
    Winograd::prepare_kernel(shape, strides, kernel.as_floats()?)
}

/// Joins a convolution or matrix product with the bias, ReLU and pooling behind it.
fn join(graph: &Graph, steps: Vec<Step>, uses: &[usize]) -> Vec<Step> {
    let mut joined: Vec<Step> = Vec::new();
    for step in steps {
        // The step that this one could become the tail of.
        let head = joined.iter_mut().find(|head| {
            head.result == step.inputs[0]
                && uses[head.result.0] == 1
                && matches!(
                    graph.node(head.node).op,
                    Op::Conv2D { .. } | Op::MatMul { .. }
                )
        });
        if let Some(head) = head {
            let convolves = matches!(graph.node(head.node).op, Op::Conv2D { .. });
            let tail = &mut head.tail;
            let fits = match &graph.node(step.node).op {
                Op::BiasAdd | Op::Add if *tail == Tail::default() => {
                    let vector = graph
                        .constant(step.inputs[1])
                        .is_some_and(|t| t.shape().len() == 1);
                    tail.bias = vector.then_some(step.inputs[1]);
                    vector
                }
                Op::Relu if tail.bias.is_some() && !tail.relu && tail.pool.is_none() => {
                    tail.relu = true;
                    true
                }
                &Op::MaxPool {
                    window,
                    strides,
                    padding,
                } if convolves && tail.relu && tail.pool.is_none() => {
                    tail.pool = Some(PoolSpec {
                        window,
                        strides,
                        padding,
                    });
                    true
                }
                _ => false,
            };
            if fits {
                head.result = step.result;
                continue;
            }
        }
        joined.push(step);
    }
    joined
}

/// The number of rows if all values have the same.
fn common_rows(values: &[Tensor]) -> Option<usize> {
    let rows = *values.first()?.shape().first()?;
    values
        .iter()
        .all(|value| value.shape().first() == Some(&rows))
        .then_some(rows)
}

fn slice(tensor: &Tensor, start: usize, count: usize) -> Tensor {
    let mut shape = tensor.shape().to_vec();
    let row: usize = shape[1..].iter().product();
    shape[0] = count;
    let range = start * row..(start + count) * row;
    let values = match tensor.values() {
        Values::Float(values) => Values::Float(values[range].to_vec()),
        Values::Uint8(values) => Values::Uint8(values[range].to_vec()),
        Values::Int32(values) => Values::Int32(values[range].to_vec()),
        Values::Int64(values) => Values::Int64(values[range].to_vec()),
    };
    Tensor::new(shape, values).expect("invariant: a slice of whole rows fills its shape")
}

/// Puts the pieces' answers behind each other, output by output.
fn concatenate(pieces: Vec<Vec<Tensor>>, rows: usize) -> Vec<Tensor> {
    let mut pieces = pieces.into_iter();
    let Some(first) = pieces.next() else {
        return Vec::new();
    };
    let mut shapes: Vec<Vec<usize>> = first.iter().map(|tensor| tensor.shape().to_vec()).collect();
    let mut all: Vec<Values> = first.into_iter().map(Tensor::into_values).collect();
    for piece in pieces {
        for (values, tensor) in all.iter_mut().zip(piece) {
            match (values, tensor.into_values()) {
                (Values::Float(all), Values::Float(more)) => all.extend(more),
                (Values::Uint8(all), Values::Uint8(more)) => all.extend(more),
                (Values::Int32(all), Values::Int32(more)) => all.extend(more),
                (Values::Int64(all), Values::Int64(more)) => all.extend(more),
                _ => unreachable!("an output has one type"),
            }
        }
    }
    for shape in &mut shapes {
        shape[0] = rows;
    }
    shapes
        .into_iter()
        .zip(all)
        .map(|(shape, values)| {
            Tensor::new(shape, values).expect("invariant: all rows together fill the shape")
        })
        .collect()
}

#[cfg(test)]
mod tests;
