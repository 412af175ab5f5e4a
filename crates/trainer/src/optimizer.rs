//! From gradients to changes of the weights: plain descent, momentum and Adam, with TensorFlow's
//! formulas and constants.

/// How weights follow their gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Optimizer {
    /// `w -= rate * g`.
    Sgd,
    /// `m = 0.9 m + g; w -= rate * m`.
    Momentum,
    /// Kingma and Ba's, with 0.9, 0.999 and 1e-8.
    Adam,
}

const MOMENTUM: f32 = 0.9;
const BETA: [f32; 2] = [0.9, 0.999];
const EPSILON: f32 = 1e-8;

impl Optimizer {
    /// How many numbers it remembers for each weight.
    pub fn memory(self) -> usize {
        match self {
            Self::Sgd => 0,
            Self::Momentum => 1,
            Self::Adam => 2,
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sgd => "sgd",
            Self::Momentum => "momentum",
            Self::Adam => "adam",
        }
    }

    /// The factor of step `step` (the first is 1): the learning rate, for Adam with its correction
    /// for the first steps.
    pub fn rate(self, learning_rate: f32, step: u64) -> f32 {
        match self {
            Self::Sgd | Self::Momentum => learning_rate,
            Self::Adam => {
                let power = |beta: f32| f64::from(beta).powf(step as f64);
                let correction = (1.0 - power(BETA[1])).sqrt() / (1.0 - power(BETA[0]));
                (f64::from(learning_rate) * correction) as f32
            }
        }
    }

    /// Moves weights. `memory` holds what the optimizer remembers of them: empty, as long as they,
    /// or twice as long.
    pub fn apply(self, rate: f32, weights: &mut [f32], gradients: &[f32], memory: &mut [f32]) {
        model::kernels::wide(
            #[inline(always)]
            || self.apply_here(rate, weights, gradients, memory),
        );
    }

    #[expect(
        clippy::inline_always,
        reason = "its loops must be compiled with the caller's instructions"
    )]
    #[inline(always)]
    fn apply_here(self, rate: f32, weights: &mut [f32], gradients: &[f32], memory: &mut [f32]) {
        let [beta1, beta2] = BETA;
        match self {
            Self::Sgd => {
                for (weight, &slope) in weights.iter_mut().zip(gradients) {
                    *weight -= rate * slope;
                }
            }
            Self::Momentum => {
                for ((weight, &slope), speed) in weights.iter_mut().zip(gradients).zip(memory) {
                    *speed = MOMENTUM * *speed + slope;
                    *weight -= rate * *speed;
                }
            }
            Self::Adam => {
                let (means, squares) = memory.split_at_mut(weights.len());
                let moments = means.iter_mut().zip(squares);
                for ((weight, &slope), (mean, square)) in
                    weights.iter_mut().zip(gradients).zip(moments)
                {
                    *mean = beta1 * *mean + (1.0 - beta1) * slope;
                    *square = beta2 * *square + (1.0 - beta2) * slope * slope;
                    *weight -= rate * *mean / (square.sqrt() + EPSILON);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_steps_are_what_the_formulas_say() {
        let run = |optimizer: Optimizer| {
            let (mut weights, mut memory) = (vec![1.0], vec![0.0; optimizer.memory()]);
            let path: Vec<f32> = [(1, 0.5), (2, -0.25)]
                .into_iter()
                .map(|(step, slope)| {
                    let rate = optimizer.rate(0.1, step);
                    optimizer.apply(rate, &mut weights, &[slope], &mut memory);
                    weights[0]
                })
                .collect();
            [path[0], path[1]]
        };
        let close = |found: [f32; 2], wanted: [f32; 2]| {
            assert!(
                found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5),
                "{found:?}"
            );
        };
        close(run(Optimizer::Sgd), [0.95, 0.975]);
        close(run(Optimizer::Momentum), [0.95, 0.93]);
        // m = 0.05, v = 0.00025, so the first step is the rate itself; then m = 0.02, v = 0.00031225.
        close(run(Optimizer::Adam), [0.9, 0.873_366]);
    }
}
