//! The two networks for MNIST: their weights, their first values, and the graph that applies them.

use std::collections::BTreeMap;

use crate::graph::{self, Graph, NodeId, Op};
use crate::kernels::Padding;
use crate::mnist::{CLASSES, PIXELS, SIDE};
use crate::saved_model::SavedModel;
use crate::signature::{DEFAULT_SIGNATURE, PREDICT_METHOD, Signature, TensorInfo};
use crate::tensor::{DataType, Tensor, Values};

/// Side of the convolutions' kernels.
pub const KERNEL: usize = 5;
/// Filters of the two convolutions.
pub const FILTERS: [usize; 2] = [32, 64];
/// Numbers that leave the second pooling.
pub const FEATURES: usize = (SIDE / 4) * (SIDE / 4) * FILTERS[1];
/// Width of the hidden layer.
pub const HIDDEN: usize = 1024;

/// Which network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Two convolutions with pooling, a hidden layer, ten outputs.
    Cnn,
    /// Ten weighted sums of the pixels.
    Linear,
}

/// Weights or a bias.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// The name of its node.
    pub name: &'static str,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Vec<f32>,
}

/// A network as its parameters, in the order in which they are applied: weights, bias, weights, …
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Which one it is.
    pub kind: Kind,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
}

impl Kind {
    /// Names and shapes of the parameters.
    pub fn layout(self) -> Vec<(&'static str, Vec<usize>)> {
        match self {
            Self::Cnn => vec![
                ("conv1/kernel", vec![KERNEL, KERNEL, 1, FILTERS[0]]),
                ("conv1/bias", vec![FILTERS[0]]),
                ("conv2/kernel", vec![KERNEL, KERNEL, FILTERS[0], FILTERS[1]]),
                ("conv2/bias", vec![FILTERS[1]]),
                ("dense/kernel", vec![FEATURES, HIDDEN]),
                ("dense/bias", vec![HIDDEN]),
                ("logits/kernel", vec![HIDDEN, CLASSES]),
                ("logits/bias", vec![CLASSES]),
            ],
            Self::Linear => {
                vec![
                    ("logits/kernel", vec![PIXELS, CLASSES]),
                    ("logits/bias", vec![CLASSES]),
                ]
            }
        }
    }
}

/// SplitMix64, enough to draw first weights with.
struct Draw(u64);

impl Draw {
    /// A number from -1 to 1.
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // The upper 24 bits are what a float can tell apart.
        (z >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    }
}

impl Network {
    /// First values: biases are zero, weights uniform within Glorot's bound; a linear network
    /// starts from zero.
    pub fn initial(kind: Kind, seed: u64) -> Self {
        let mut draw = Draw(seed);
        let parameters = kind.layout().into_iter().map(|(name, shape)| {
            let count = shape.iter().product();
            let mut values = vec![0.0; count];
            if kind == Kind::Cnn && shape.len() > 1 {
                let field: usize = shape[..shape.len() - 2].iter().product();
                let (inputs, outputs) = (shape[shape.len() - 2], shape[shape.len() - 1]);
                let bound = (6.0 / (field * (inputs + outputs)) as f32).sqrt();
                values.fill_with(|| draw.next() * bound);
            }
            Parameter {
                name,
                shape,
                values,
            }
        });
        Self {
            kind,
            parameters: parameters.collect(),
        }
    }

    /// The network as a model: input `x`, outputs `predictions` and `classes`, under the signatures
    /// `serving_default` and `classes`.
    pub fn into_saved_model(self) -> SavedModel {
        let graph = self
            .into_graph()
            .expect("invariant: the networks' graphs are well-formed");
        let info = |edge: &str, data_type, shape: &[Option<usize>]| TensorInfo {
            edge: format!("{edge}:0"),
            data_type,
            shape: shape.to_vec(),
        };
        let image = info("x", DataType::Float, &[None, Some(SIDE), Some(SIDE)]);
        let signature = Signature {
            method_name: PREDICT_METHOD.to_owned(),
            inputs: BTreeMap::from([("x".to_owned(), image)]),
            outputs: BTreeMap::from([
                (
                    "classes".to_owned(),
                    info("classes", DataType::Uint8, &[None]),
                ),
                (
                    "predictions".to_owned(),
                    info("predictions", DataType::Float, &[None, Some(CLASSES)]),
                ),
            ]),
        };
        let signatures = [DEFAULT_SIGNATURE, "classes"];
        let signatures = signatures.map(|name| (name.to_owned(), signature.clone()));
        SavedModel::new(graph, BTreeMap::from(signatures))
            .expect("invariant: the signature names nodes of the graph")
    }

    fn into_graph(self) -> Result<Graph, graph::Error> {
        let kind = self.kind;
        let mut graph = Graph::new();
        let shape = vec![None, Some(SIDE), Some(SIDE)];
        let x = Op::Placeholder {
            data_type: DataType::Float,
            shape,
        };
        let x = graph.add("x", x, &[])?;
        let mut constants = Vec::new();
        for Parameter {
            name,
            shape,
            values,
        } in self.parameters
        {
            let tensor =
                Tensor::float(shape, values).expect("invariant: parameters fill their shapes");
            constants.push(graph.add(name, Op::Const(tensor), &[])?);
        }
        let mut constants = constants.into_iter();
        let mut next = || {
            constants
                .next()
                .expect("invariant: the layout has all parameters")
        };

        let features = match kind {
            Kind::Linear => reshape(&mut graph, "pixels", x, &[-1, PIXELS as i32])?,
            Kind::Cnn => {
                let side = SIDE as i32;
                let mut image = reshape(&mut graph, "image", x, &[-1, side, side, 1])?;
                for layer in ["1", "2"] {
                    let conv = Op::Conv2D {
                        strides: [1, 1],
                        padding: Padding::Same,
                    };
                    let conv = graph.add(format!("conv{layer}/conv"), conv, &[image, next()])?;
                    let sum =
                        graph.add(format!("conv{layer}/sum"), Op::BiasAdd, &[conv, next()])?;
                    let relu = graph.add(format!("conv{layer}/relu"), Op::Relu, &[sum])?;
                    let pool = Op::MaxPool {
                        window: [2, 2],
                        strides: [2, 2],
                        padding: Padding::Same,
                    };
                    image = graph.add(format!("pool{layer}"), pool, &[relu])?;
                }
                let features = reshape(&mut graph, "features", image, &[-1, FEATURES as i32])?;
                let sum = dense(&mut graph, "dense", features, [next(), next()])?;
                graph.add("dense/relu", Op::Relu, &[sum])?
            }
        };
        let logits = dense(&mut graph, "logits", features, [next(), next()])?;
        graph.add("predictions", Op::Softmax, &[logits])?;
        let axis = Tensor::new(Vec::new(), Values::Int32(vec![1]))
            .expect("invariant: one number fills a scalar");
        let axis = graph.add("best/axis", Op::Const(axis), &[])?;
        let best = graph.add(
            "best",
            Op::ArgMax {
                output: DataType::Int64,
            },
            &[logits, axis],
        )?;
        graph.add(
            "classes",
            Op::Cast {
                to: DataType::Uint8,
            },
            &[best],
        )?;
        Ok(graph)
    }
}

fn reshape(
    graph: &mut Graph,
    name: &str,
    input: NodeId,
    shape: &[i32],
) -> Result<NodeId, graph::Error> {
    let tensor = Tensor::new(vec![shape.len()], Values::Int32(shape.to_vec()))
        .expect("invariant: a vector of sizes fills its shape");
    let shape = graph.add(format!("{name}/shape"), Op::Const(tensor), &[])?;
    graph.add(name, Op::Reshape, &[input, shape])
}

fn dense(
    graph: &mut Graph,
    name: &str,
    input: NodeId,
    [weights, bias]: [NodeId; 2],
) -> Result<NodeId, graph::Error> {
    let product = Op::MatMul {
        transpose_a: false,
        transpose_b: false,
    };
    let product = graph.add(format!("{name}/product"), product, &[input, weights])?;
    graph.add(format!("{name}/sum"), Op::BiasAdd, &[product, bias])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_weights_belong_to_the_seed_and_stay_in_their_bound() {
        let network = Network::initial(Kind::Cnn, 1);
        assert_eq!(network, Network::initial(Kind::Cnn, 1));
        assert_ne!(network, Network::initial(Kind::Cnn, 2));
        let kernel = &network.parameters[2];
        let bound = (6.0_f32 / (25 * (32 + 64)) as f32).sqrt();
        let largest = kernel
            .values
            .iter()
            .copied()
            .fold(0.0_f32, |max, v| max.max(v.abs()));
        assert!(largest <= bound && largest > 0.99 * bound);
        let mean = kernel.values.iter().sum::<f32>() / kernel.values.len() as f32;
        assert!(mean.abs() < bound / 50.0, "{mean}");
        assert!(
            network.parameters[1]
                .values
                .iter()
                .all(|&value| value == 0.0)
        );
    }
}
