//! Memory that runs of a plan use again.

use crate::kernels::{Conv2dScratch, WinogradScratch};

/// Buffers of one run at a time.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    free: Vec<Vec<f32>>,
    pub(super) conv: Conv2dScratch,
    pub(super) winograd: WinogradScratch,
}

impl Workspace {
    /// A buffer of `len` numbers with any content.
    pub(super) fn take(&mut self, len: usize) -> Vec<f32> {
        let fit = self
            .free
            .iter()
            .enumerate()
            .filter(|(_, buffer)| buffer.capacity() >= len)
            .min_by_key(|(_, buffer)| buffer.capacity())
            .map(|(index, _)| index);
        let mut buffer = match fit {
            Some(index) => self.free.swap_remove(index),
            None => Vec::with_capacity(len),
        };
        buffer.resize(len, 0.0);
        buffer
    }

    /// Keeps a buffer for the next user. The number kept is bounded by what one run has alive.
    pub(super) fn give(&mut self, buffer: Vec<f32>) {
        const KEPT: usize = 16;
        if buffer.capacity() > 0 && self.free.len() < KEPT {
            self.free.push(buffer);
        }
    }
}
