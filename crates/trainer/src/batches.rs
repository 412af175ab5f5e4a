//! The order in which a training run sees the images.

use model::mnist::Dataset;
use stdx::{Rng as _, SeededRng};

/// Draws batches without an end: each pass over the images has its own order, which belongs to the
/// seed and the number of the pass, so that a run can begin anywhere.
#[derive(Debug)]
pub struct Batches {
    seed: u64,
    pass: Option<u64>,
    order: Vec<u32>,
}

impl Batches {
    /// The batches that belong to a seed, of this many images.
    pub fn new(seed: u64, images: usize) -> Self {
        Self {
            seed,
            pass: None,
            order: (0..images as u32).collect(),
        }
    }

    /// Writes the batch of step `step` (the first is 0): the images one after the other, and their
    /// labels.
    pub fn fill(&mut self, step: u64, data: &Dataset, images: &mut [f32], labels: &mut [u8]) {
        let first = step * labels.len() as u64;
        let size = model::mnist::PIXELS;
        for (at, (image, label)) in images.chunks_exact_mut(size).zip(labels).enumerate() {
            let index = self.index(first + at as u64);
            data.write_floats(index, image);
            *label = data.label(index);
        }
    }

    fn index(&mut self, position: u64) -> usize {
        let images = self.order.len() as u64;
        let pass = position / images;
        if self.pass != Some(pass) {
            self.shuffle(pass);
        }
        self.order[(position % images) as usize] as usize
    }

    fn shuffle(&mut self, pass: u64) {
        let rng = SeededRng::new(self.seed ^ pass.wrapping_mul(0xd134_2543_de82_ef95));
        for (index, slot) in self.order.iter_mut().enumerate() {
            *slot = index as u32;
        }
        for index in (1..self.order.len()).rev() {
            self.order.swap(index, rng.below(index as u64 + 1) as usize);
        }
        self.pass = Some(pass);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_pass_sees_each_image_once_in_an_order_of_its_own() {
        let mut batches = Batches::new(5, 1000);
        let pass = |batches: &mut Batches, pass: u64| -> Vec<usize> {
            (0..1000)
                .map(|at| batches.index(pass * 1000 + at))
                .collect()
        };
        let first = pass(&mut batches, 0);
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 1000);
        let second = pass(&mut batches, 1);
        assert_ne!(first, second);
        // Beginning in the middle, as after a restart, gives the same.
        assert_eq!(Batches::new(5, 1000).index(1500), second[500]);
        assert_ne!(pass(&mut Batches::new(6, 1000), 0), first);
    }
}
