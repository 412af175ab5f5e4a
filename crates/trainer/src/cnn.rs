//! One training step of the convolutional network.
//!
//! The convolutions run image by image, a few images to a piece; each piece sums its own gradients,
//! and the pieces' sums are added in order. The hidden layer is kept feature by feature (one row
//! per feature, one column per image), so that blocks of it are contiguous and each thread writes
//! its own; for the same reason its weights are kept in panels while training goes on. Pieces,
//! blocks and panels have fixed sizes: results do not depend on the number of threads.
//! After the first step nothing is allocated.

use std::sync::{Mutex, PoisonError};

use model::kernels::{
    self, Conv2d, Conv2dScratch, KernelGradient, Matrix, MatrixMut, PANEL, Padding, Sparse,
    Winograd, WinogradScratch, matmul,
};
use model::mnist::{CLASSES, PIXELS, SIDE};
use model::network::{FEATURES, FILTERS, HIDDEN, KERNEL, Network};
use rayon::prelude::*;

use crate::optimizer::Optimizer;

/// Images of one piece.
const PIECE: usize = 5;
/// Features of one block of the hidden layer.
const HIDDEN_BLOCK: usize = 128;
/// Numbers of an image after the first pooling.
const POOLED: usize = (SIDE / 2) * (SIDE / 2) * FILTERS[0];
const RAW1: usize = SIDE * SIDE * FILTERS[0];
const RAW2: usize = (SIDE / 2) * (SIDE / 2) * FILTERS[1];
const KERNEL1: usize = KERNEL * KERNEL * FILTERS[0];
const KERNEL2: usize = KERNEL * KERNEL * FILTERS[0] * FILTERS[1];

/// What a step found before it changed the weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// The mean cross-entropy of the batch.
    pub loss: f64,
    /// How many images of the batch were told right.
    pub correct: usize,
}

/// The settings of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The optimizer's factor; see [`Optimizer::rate`].
    pub rate: f32,
    /// The share of the hidden layer that dropout keeps.
    pub keep: f32,
    /// Decides which ones.
    pub dropout_key: u64,
}

/// Gradients of the convolutions.
#[derive(Debug, Clone)]
struct ConvGradients {
    kernel1: Vec<f32>,
    bias1: Vec<f32>,
    kernel2: Vec<f32>,
    bias2: Vec<f32>,
}

impl ConvGradients {
    fn new() -> Self {
        Self {
            kernel1: vec![0.0; KERNEL1],
            bias1: vec![0.0; FILTERS[0]],
            kernel2: vec![0.0; KERNEL2],
            bias2: vec![0.0; FILTERS[1]],
        }
    }

    fn clear(&mut self) {
        for part in [
            &mut self.kernel1,
            &mut self.bias1,
            &mut self.kernel2,
            &mut self.bias2,
        ] {
            part.fill(0.0);
        }
    }
}

/// Memory of a thread that works on a piece.
#[derive(Debug)]
struct Scratch {
    conv1: Conv2dScratch,
    conv2: WinogradScratch,
    kernel2: KernelGradient,
    raw1: Vec<f32>,
    raw2: Vec<f32>,
    pooled_slope: Vec<f32>,
    feature_slopes: Vec<f32>,
    /// One panel's inputs of all images, and the gradient of its weights.
    panel_features: Vec<f32>,
    panel_gradient: Vec<f32>,
}

/// What is not zero of a block of the hidden layer's gradient: by feature and by image.
#[derive(Debug)]
struct HiddenSlopes {
    by_feature: Sparse,
    by_image: Sparse,
}

/// The network with what the optimizer remembers and the memory that a step works in.
#[derive(Debug)]
pub struct Cnn {
    network: Network,
    optimizer: Optimizer,
    /// Per parameter.
    memory: Vec<Vec<f32>>,
    /// Whether the hidden layer's weights and the memory of them are in panels.
    in_panels: bool,
    conv1: Conv2d,
    conv2: Winograd,
    /// The second convolution's kernel, transformed for the way there and for the way back.
    transformed: [Vec<f32>; 2],
    batch: usize,
    scratch: Mutex<Vec<Scratch>>,
    pieces: Vec<ConvGradients>,
    pooled: Vec<f32>,
    winners1: Vec<u32>,
    /// `batch x FEATURES`.
    features: Vec<f32>,
    winners2: Vec<u32>,
    /// Panel by panel, `batch x PANEL`.
    feature_slopes: Vec<f32>,
    /// `HIDDEN x batch`, and its gradient, also block by block without the zeros.
    hidden: Vec<f32>,
    hidden_slopes: Vec<f32>,
    sparse_slopes: Vec<HiddenSlopes>,
    /// `batch x CLASSES`, then its gradient.
    logits: Vec<f32>,
    /// Of the last three parameters.
    gradients: [Vec<f32>; 3],
}

impl Cnn {
    /// Ready to train a network of [`model::network::Kind::Cnn`] with batches of one size. `memory`
    /// is what the optimizer remembers of each parameter.
    pub fn new(
        network: Network,
        optimizer: Optimizer,
        memory: Vec<Vec<f32>>,
        batch: usize,
    ) -> Self {
        let conv = |input, kernel| {
            Conv2d::new(input, kernel, [1, 1], Padding::Same)
                .expect("invariant: the network's kernels fit its images")
        };
        let [filters1, filters2] = FILTERS;
        let half = SIDE / 2;
        let conv2 = conv([half, half, filters1], [KERNEL, KERNEL, filters1, filters2]);
        let conv2 = Winograd::new(&conv2).expect("invariant: the second convolution is 5 x 5");
        Self {
            network,
            optimizer,
            memory,
            in_panels: false,
            conv1: conv([SIDE, SIDE, 1], [KERNEL, KERNEL, 1, filters1]),
            conv2,
            transformed: [0, 1].map(|_| vec![0.0; conv2.transformed_len()]),
            batch,
            scratch: Mutex::default(),
            pieces: vec![ConvGradients::new(); batch.div_ceil(PIECE)],
            pooled: vec![0.0; batch * POOLED],
            winners1: vec![0; batch * POOLED],
            features: vec![0.0; batch * FEATURES],
            winners2: vec![0; batch * FEATURES],
            feature_slopes: vec![0.0; batch * FEATURES],
            hidden: vec![0.0; batch * HIDDEN],
            hidden_slopes: vec![0.0; batch * HIDDEN],
            sparse_slopes: (0..HIDDEN / HIDDEN_BLOCK)
                .map(|_| HiddenSlopes {
                    by_feature: Sparse::new(HIDDEN_BLOCK, batch),
                    by_image: Sparse::new(batch, HIDDEN_BLOCK),
                })
                .collect(),
            logits: vec![0.0; batch * CLASSES],
            gradients: [HIDDEN, HIDDEN * CLASSES, CLASSES].map(|len| vec![0.0; len]),
        }
    }

    /// The network as it is now, and what the optimizer remembers of each parameter.
    pub fn state(&mut self) -> (&Network, &[Vec<f32>]) {
        self.arrange(false);
        (&self.network, &self.memory)
    }

    /// The network, given away.
    pub fn into_network(mut self) -> Network {
        self.arrange(false);
        self.network
    }

    /// Brings the hidden layer's weights and the memory of them into panels, or back. In panels
    /// the optimizer's numbers for a panel stand together.
    fn arrange(&mut self, in_panels: bool) {
        if std::mem::replace(&mut self.in_panels, in_panels) == in_panels {
            return;
        }
        let arrange = if in_panels {
            kernels::into_panels
        } else {
            kernels::from_panels
        };
        let weights = &mut self.network.parameters[4].values;
        *weights = arrange(weights, HIDDEN);
        let memory = &mut self.memory[4];
        match self.optimizer.memory() {
            0 => {}
            1 => *memory = arrange(memory, HIDDEN),
            parts if in_panels => {
                let mut panels = vec![0.0; memory.len()];
                for (part, numbers) in memory.chunks_exact(FEATURES * HIDDEN).enumerate() {
                    let numbers = arrange(numbers, HIDDEN);
                    let places = panels.chunks_exact_mut(PANEL * HIDDEN).skip(part);
                    for (place, panel) in places
                        .step_by(parts)
                        .zip(numbers.chunks_exact(PANEL * HIDDEN))
                    {
                        place.copy_from_slice(panel);
                    }
                }
                *memory = panels;
            }
            parts => {
                let mut numbers = Vec::with_capacity(memory.len());
                for part in 0..parts {
                    let panels = memory.chunks_exact(PANEL * HIDDEN).skip(part);
                    let panels: Vec<f32> = panels.step_by(parts).flatten().copied().collect();
                    numbers.extend(arrange(&panels, HIDDEN));
                }
                *memory = numbers;
            }
        }
    }

    /// Trains on one batch.
    ///
    /// # Panics
    /// If it is not of the size that the trainer was made for.
    pub fn step(&mut self, images: &[f32], labels: &[u8], step: Step) -> Report {
        assert_eq!(
            (images.len(), labels.len()),
            (self.batch * PIXELS, self.batch),
            "the batch has another size"
        );
        self.arrange(true);
        self.convolve(images);
        self.apply_dense(step);
        let (loss, correct) = kernels::softmax_cross_entropy(&mut self.logits, labels, CLASSES);
        self.dense_gradients(step);
        self.convolution_gradients(images);
        self.update(step.rate);
        Report { loss, correct }
    }

    /// Images to features.
    fn convolve(&mut self, images: &[f32]) {
        let parameter = |at: usize| &self.network.parameters[at].values[..];
        let (kernel1, bias1, kernel2, bias2) =
            (parameter(0), parameter(1), parameter(2), parameter(3));
        let [there, back] = &mut self.transformed;
        self.conv2.transform_kernel(kernel2, there);
        self.conv2.turn_kernel(there, back);
        let kernel2 = &there[..];
        let (conv1, conv2, pool) = (self.conv1, self.conv2, &self.scratch);
        let outputs = self
            .pooled
            .par_chunks_mut(PIECE * POOLED)
            .zip(self.winners1.par_chunks_mut(PIECE * POOLED))
            .zip(self.features.par_chunks_mut(PIECE * FEATURES))
            .zip(self.winners2.par_chunks_mut(PIECE * FEATURES));
        images.par_chunks(PIECE * PIXELS).zip(outputs).for_each(
            |(images, (((pooled, winners1), features), winners2))| {
                let mut scratch = take(pool, conv2);
                let outputs = pooled
                    .chunks_exact_mut(POOLED)
                    .zip(winners1.chunks_exact_mut(POOLED))
                    .zip(features.chunks_exact_mut(FEATURES))
                    .zip(winners2.chunks_exact_mut(FEATURES));
                for (image, (((pooled, winners1), features), winners2)) in
                    images.chunks_exact(PIXELS).zip(outputs)
                {
                    let Scratch {
                        conv1: patches1,
                        conv2: tiles,
                        raw1,
                        raw2,
                        ..
                    } = &mut scratch;
                    conv1.forward(image, kernel1, raw1, patches1);
                    kernels::max_pool_bias_relu_indexed(raw1, SIDE, bias1, pooled, winners1);
                    conv2.forward(pooled, kernel2, raw2, tiles);
                    kernels::max_pool_bias_relu_indexed(raw2, SIDE / 2, bias2, features, winners2);
                }
                give(pool, scratch);
            },
        );
    }

    /// Features to logits.
    fn apply_dense(&mut self, step: Step) {
        let batch = self.batch;
        let parameter = |at: usize| &self.network.parameters[at].values[..];
        let (weights, bias) = (parameter(4), parameter(5));
        let features = &self.features;
        self.hidden
            .par_chunks_mut(HIDDEN_BLOCK * batch)
            .enumerate()
            .for_each(|(block, hidden)| {
                let first = block * HIDDEN_BLOCK;
                kernels::panel_products(features, weights, HIDDEN, first, hidden, batch);
                kernels::wide(
                    #[inline(always)]
                    || {
                        for (row, &bias) in hidden.chunks_exact_mut(batch).zip(&bias[first..]) {
                            for value in row {
                                *value = (*value + bias).max(0.0);
                            }
                        }
                    },
                );
                if step.keep < 1.0 {
                    let key = step.dropout_key ^ (block as u64).wrapping_mul(0xa076_1d64_78bd_642f);
                    kernels::dropout_in_place(hidden, step.keep, key);
                }
            });
        let (weights, bias) = (parameter(6), parameter(7));
        matmul(
            MatrixMut::new(&mut self.logits, batch, CLASSES),
            0.0,
            Matrix::new(&self.hidden, HIDDEN, batch).transposed(),
            Matrix::new(weights, HIDDEN, CLASSES),
            1.0,
        );
        kernels::add_bias(&mut self.logits, bias);
    }

    /// Gradients of the dense layers and of the features. The hidden layer's weights are moved
    /// here, panel by panel, while each panel is in the cache.
    fn dense_gradients(&mut self, step: Step) {
        let batch = self.batch;
        let slopes = Matrix::new(&self.logits, batch, CLASSES);
        let [hidden_bias, weights_gradient, bias_gradient] = &mut self.gradients;
        bias_gradient.fill(0.0);
        kernels::sum_rows(&self.logits, bias_gradient);
        let weights = &self.network.parameters[6].values;
        self.hidden_slopes
            .par_chunks_mut(HIDDEN_BLOCK * batch)
            .zip(self.hidden.par_chunks(HIDDEN_BLOCK * batch))
            .zip(weights.par_chunks(HIDDEN_BLOCK * CLASSES))
            .zip(weights_gradient.par_chunks_mut(HIDDEN_BLOCK * CLASSES))
            .zip(hidden_bias.par_chunks_mut(HIDDEN_BLOCK))
            .zip(&mut self.sparse_slopes)
            .for_each(
                |(((((hidden_slopes, hidden), weights), gradient), bias), sparse)| {
                    let values = Matrix::new(hidden, HIDDEN_BLOCK, batch);
                    let out = MatrixMut::new(gradient, HIDDEN_BLOCK, CLASSES);
                    matmul(out, 0.0, values, slopes, 1.0);
                    let weights = Matrix::new(weights, HIDDEN_BLOCK, CLASSES);
                    let out = MatrixMut::new(hidden_slopes, HIDDEN_BLOCK, batch);
                    matmul(out, 0.0, weights, slopes.transposed(), 1.0);
                    kernels::relu_gradient(hidden, hidden_slopes, 1.0 / step.keep);
                    for (sum, row) in bias.iter_mut().zip(hidden_slopes.chunks_exact(batch)) {
                        *sum = row.iter().sum();
                    }
                    sparse.by_feature.fill(hidden_slopes);
                    sparse.by_image.fill_from_columns(hidden_slopes);
                },
            );

        let (features, optimizer) = (&self.features, self.optimizer);
        let (slopes, pool, conv2) = (&self.sparse_slopes, &self.scratch, self.conv2);
        let panels = self.network.parameters[4]
            .values
            .par_chunks_mut(PANEL * HIDDEN)
            .zip(self.feature_slopes.par_chunks_mut(PANEL * batch))
            .enumerate();
        // The gradient of the features first: it is that of the weights as they were.
        let begin = |panel: usize, weights: &[f32], feature_slopes: &mut [f32]| {
            let mut scratch = take(pool, conv2);
            scratch.panel_features.clear();
            for features in features.chunks_exact(FEATURES) {
                let features = &features[panel * PANEL..][..PANEL];
                scratch.panel_features.extend_from_slice(features);
            }
            let slopes = slopes.iter().map(|slopes| &slopes.by_image);
            kernels::panel_input_gradient(weights, slopes, feature_slopes);
            scratch
        };
        let gradient = |features: &[f32], scale: f32, add: bool, weights: &mut [f32]| {
            for (block, slopes) in slopes.iter().enumerate() {
                let (slopes, first) = (&slopes.by_feature, block * HIDDEN_BLOCK);
                kernels::panel_weight_gradient(features, slopes, first, scale, add, weights);
            }
        };
        if optimizer == Optimizer::Sgd {
            panels.for_each(|(panel, (weights, feature_slopes))| {
                let scratch = begin(panel, weights, feature_slopes);
                gradient(&scratch.panel_features, -step.rate, true, weights);
                give(pool, scratch);
            });
            return;
        }
        let memory = PANEL * HIDDEN * optimizer.memory();
        panels.zip(self.memory[4].par_chunks_mut(memory)).for_each(
            |((panel, (weights, feature_slopes)), memory)| {
                let mut scratch = begin(panel, weights, feature_slopes);
                let found = &mut scratch.panel_gradient;
                found.resize(PANEL * HIDDEN, 0.0);
                gradient(&scratch.panel_features, 1.0, false, found);
                optimizer.apply(step.rate, weights, found, memory);
                give(pool, scratch);
            },
        );
    }

    /// Gradients of the convolutions, piece by piece.
    fn convolution_gradients(&mut self, images: &[f32]) {
        let batch = self.batch;
        let (conv1, conv2, pool) = (self.conv1, self.conv2, &self.scratch);
        let kernel2 = &self.transformed[1][..];
        let all_slopes = &self.feature_slopes;
        let inputs = self
            .pooled
            .par_chunks(PIECE * POOLED)
            .zip(self.winners1.par_chunks(PIECE * POOLED))
            .zip(self.winners2.par_chunks(PIECE * FEATURES))
            .zip(images.par_chunks(PIECE * PIXELS));
        // The pieces are borrowed apart from the rest.
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.par_iter_mut().zip(inputs).enumerate().for_each(
            |(piece, (gradients, (((pooled, winners1), winners2), images)))| {
                gradients.clear();
                let mut scratch = take(pool, conv2);
                scratch.kernel2.clear();
                let Scratch {
                    conv1: patches1,
                    conv2: tiles,
                    kernel2: kernel2_gradient,
                    raw1,
                    raw2,
                    pooled_slope,
                    feature_slopes,
                    ..
                } = &mut scratch;
                let first = piece * PIECE;
                let count = images.len() / PIXELS;
                for (panel, rows) in all_slopes.chunks_exact(PANEL * batch).enumerate() {
                    for image in 0..count {
                        let row = &rows[(first + image) * PANEL..][..PANEL];
                        feature_slopes[image * FEATURES + panel * PANEL..][..PANEL]
                            .copy_from_slice(row);
                    }
                }
                let images = images.chunks_exact(PIXELS).zip(pooled.chunks_exact(POOLED));
                let winners = winners1
                    .chunks_exact(POOLED)
                    .zip(winners2.chunks_exact(FEATURES));
                let slopes = feature_slopes.chunks_exact(FEATURES);
                for (((image, pooled), (winners1, winners2)), slopes) in
                    images.zip(winners).zip(slopes)
                {
                    kernels::unpool(winners2, slopes, SIDE / 2, raw2, &mut gradients.bias2);
                    conv2.backward(pooled, kernel2, raw2, kernel2_gradient, pooled_slope, tiles);
                    kernels::unpool(winners1, pooled_slope, SIDE, raw1, &mut gradients.bias1);
                    conv1.backward_kernel(image, raw1, &mut gradients.kernel1, patches1);
                }
                conv2.finish_gradient(kernel2_gradient, &mut gradients.kernel2);
                give(pool, scratch);
            },
        );
        self.pieces = pieces;
    }

    /// Moves all weights but the hidden layer's.
    fn update(&mut self, rate: f32) {
        let optimizer = self.optimizer;
        let [first, others @ ..] = &mut self.pieces[..] else {
            return;
        };
        let mut apply = |parameter: usize, gradient: &[f32]| {
            let weights = &mut self.network.parameters[parameter].values;
            optimizer.apply(rate, weights, gradient, &mut self.memory[parameter]);
        };
        add_up(&mut first.kernel1, others, |piece| &piece.kernel1);
        add_up(&mut first.bias1, others, |piece| &piece.bias1);
        add_up(&mut first.kernel2, others, |piece| &piece.kernel2);
        add_up(&mut first.bias2, others, |piece| &piece.bias2);
        apply(0, &first.kernel1);
        apply(1, &first.bias1);
        apply(2, &first.kernel2);
        apply(3, &first.bias2);
        for (gradient, parameter) in self.gradients.iter().zip([5, 6, 7]) {
            apply(parameter, gradient);
        }
    }
}

/// Adds the pieces' sums to the first one's, in their order.
fn add_up(
    sum: &mut [f32],
    others: &[ConvGradients],
    part: impl Fn(&ConvGradients) -> &[f32] + Sync,
) {
    const TOGETHER: usize = 8192;
    sum.par_chunks_mut(TOGETHER)
        .enumerate()
        .for_each(|(chunk, sum)| {
            for other in others {
                for (total, &value) in sum.iter_mut().zip(&part(other)[chunk * TOGETHER..]) {
                    *total += value;
                }
            }
        });
}

fn take(pool: &Mutex<Vec<Scratch>>, conv2: Winograd) -> Scratch {
    let free = pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
    free.unwrap_or_else(|| Scratch {
        conv1: Conv2dScratch::default(),
        conv2: WinogradScratch::default(),
        kernel2: conv2.kernel_gradient(),
        raw1: vec![0.0; RAW1],
        raw2: vec![0.0; RAW2],
        pooled_slope: vec![0.0; POOLED],
        feature_slopes: vec![0.0; PIECE * FEATURES],
        panel_features: Vec::new(),
        panel_gradient: Vec::new(),
    })
}

fn give(pool: &Mutex<Vec<Scratch>>, scratch: Scratch) {
    pool.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(scratch);
}

#[cfg(test)]
mod tests;
