//! One training step of the linear network.

use model::kernels::{self, Matrix, MatrixMut, matmul};
use model::mnist::{CLASSES, PIXELS};
use model::network::Network;

use crate::cnn::Report;
use crate::optimizer::Optimizer;

/// The network with what the optimizer remembers and the memory that a step works in.
#[derive(Debug)]
pub struct Linear {
    network: Network,
    optimizer: Optimizer,
    memory: Vec<Vec<f32>>,
    logits: Vec<f32>,
    gradients: [Vec<f32>; 2],
}

impl Linear {
    /// Ready to train a network of [`model::network::Kind::Linear`] with batches of one size.
    pub fn new(
        network: Network,
        optimizer: Optimizer,
        memory: Vec<Vec<f32>>,
        batch: usize,
    ) -> Self {
        Self {
            network,
            optimizer,
            memory,
            logits: vec![0.0; batch * CLASSES],
            gradients: [PIXELS * CLASSES, CLASSES].map(|len| vec![0.0; len]),
        }
    }

    /// The network as it is now.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What the optimizer remembers of each parameter.
    pub fn memory(&self) -> &[Vec<f32>] {
        &self.memory
    }

    /// The network, given away.
    pub fn into_network(self) -> Network {
        self.network
    }

    /// Trains on one batch.
    pub fn step(&mut self, images: &[f32], labels: &[u8], rate: f32) -> Report {
        let batch = labels.len();
        let parameters = &mut self.network.parameters;
        let pixels = Matrix::new(images, batch, PIXELS);
        let weights = Matrix::new(&parameters[0].values, PIXELS, CLASSES);
        matmul(
            MatrixMut::new(&mut self.logits, batch, CLASSES),
            0.0,
            pixels,
            weights,
            1.0,
        );
        kernels::add_bias(&mut self.logits, &parameters[1].values);
        let (loss, correct) = kernels::softmax_cross_entropy(&mut self.logits, labels, CLASSES);

        let [weights, bias] = &mut self.gradients;
        let slopes = Matrix::new(&self.logits, batch, CLASSES);
        matmul(
            MatrixMut::new(weights, PIXELS, CLASSES),
            0.0,
            pixels.transposed(),
            slopes,
            1.0,
        );
        bias.fill(0.0);
        kernels::sum_rows(&self.logits, bias);
        let moves = parameters
            .iter_mut()
            .zip(&self.gradients)
            .zip(&mut self.memory);
        for ((parameter, gradient), memory) in moves {
            self.optimizer
                .apply(rate, &mut parameter.values, gradient, memory);
        }
        Report { loss, correct }
    }
}
