//! Max-pooling, alone and joined with the bias and ReLU that follow a convolution.

use super::conv::Padding;
use super::wide;

/// The measures of a max-pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPool {
    input: [usize; 3],
    window: [usize; 2],
    strides: [usize; 2],
    front: [usize; 2],
    output: [usize; 2],
}

impl MaxPool {
    /// The measures of pooling an image of `height x width x channels`.
    pub fn new(
        input: [usize; 3],
        window: [usize; 2],
        strides: [usize; 2],
        padding: Padding,
    ) -> Option<Self> {
        let (out_height, top) = padding.measure(input[0], window[0], strides[0])?;
        let (out_width, left) = padding.measure(input[1], window[1], strides[1])?;
        Some(Self {
            input,
            window,
            strides,
            front: [top, left],
            output: [out_height, out_width],
        })
    }

    /// The output's `height x width x channels`.
    pub fn output(&self) -> [usize; 3] {
        [self.output[0], self.output[1], self.input[2]]
    }

    /// Whether the windows are 2 x 2 tiles that cover the image exactly: what the joined kernels
    /// of this module handle.
    pub fn is_halving(&self) -> bool {
        self.window == [2, 2]
            && self.strides == [2, 2]
            && self.front == [0, 0]
            && self.input[0] == 2 * self.output[0]
            && self.input[1] == 2 * self.output[1]
    }

    /// The largest number of each window, per channel.
    pub fn forward(&self, image: &[f32], output: &mut [f32]) {
        let [height, width, channels] = self.input;
        wide(
            #[inline(always)]
            || {
                for (at, pixel) in output.chunks_exact_mut(channels).enumerate() {
                    let span = |d: usize, position: usize, size: usize| {
                        let start = position * self.strides[d];
                        start.saturating_sub(self.front[d])
                            ..(start + self.window[d] - self.front[d]).min(size)
                    };
                    let (oy, ox) = (at / self.output[1], at % self.output[1]);
                    pixel.fill(f32::NEG_INFINITY);
                    for y in span(0, oy, height) {
                        for x in span(1, ox, width) {
                            let from = (y * width + x) * channels;
                            for (max, &value) in pixel.iter_mut().zip(&image[from..from + channels])
                            {
                                *max = if value > *max { value } else { *max };
                            }
                        }
                    }
                }
            },
        );
    }
}

/// Splits two rows of an image into 2 x 2 windows: left and right pixel of the upper and the lower
/// row.
fn windows(rows: &[f32], width: usize, channels: usize) -> impl Iterator<Item = [&[f32]; 4]> {
    let (upper, lower) = rows.split_at(width * channels);
    upper
        .chunks_exact(2 * channels)
        .zip(lower.chunks_exact(2 * channels))
        .map(move |(up, low)| {
            let ((a, b), (c, d)) = (up.split_at(channels), low.split_at(channels));
            [a, b, c, d]
        })
}

/// Halves an image by max-pooling, then adds the bias and cuts off at zero. The same as bias and
/// ReLU first, for a quarter of the work. `width` is the image's.
pub fn max_pool_bias_relu(image: &[f32], width: usize, bias: &[f32], output: &mut [f32]) {
    let channels = bias.len();
    wide(
        #[inline(always)]
        || {
            let rows = image.chunks_exact(2 * width * channels);
            for (rows, out_row) in rows.zip(output.chunks_exact_mut(width / 2 * channels)) {
                let pixels = out_row.chunks_exact_mut(channels);
                for ([a, b, c, d], pixel) in windows(rows, width, channels).zip(pixels) {
                    for i in 0..channels {
                        let max = a[i].max(b[i]).max(c[i].max(d[i])) + bias[i];
                        pixel[i] = max.max(0.0);
                    }
                }
            }
        },
    );
}

/// The index of an output that ReLU cut off: no pixel of its window gets a gradient.
const DEAD: u8 = 4;

/// As [`max_pool_bias_relu`], and remembers which pixel of each window won.
pub fn max_pool_bias_relu_indexed(
    image: &[f32],
    width: usize,
    bias: &[f32],
    output: &mut [f32],
    winners: &mut [u8],
) {
    let channels = bias.len();
    let out_row_len = width / 2 * channels;
    wide(
        #[inline(always)]
        || {
            let rows = image.chunks_exact(2 * width * channels);
            let out_rows = output.chunks_exact_mut(out_row_len);
            for ((rows, out_row), winners) in rows
                .zip(out_rows)
                .zip(winners.chunks_exact_mut(out_row_len))
            {
                let pixels = out_row
                    .chunks_exact_mut(channels)
                    .zip(winners.chunks_exact_mut(channels));
                for ([a, b, c, d], (pixel, winner)) in windows(rows, width, channels).zip(pixels) {
                    for i in 0..channels {
                        let (upper, up) = if b[i] > a[i] { (b[i], 1) } else { (a[i], 0) };
                        let (lower, low) = if d[i] > c[i] { (d[i], 3) } else { (c[i], 2) };
                        let (max, index) = if lower > upper {
                            (lower, low)
                        } else {
                            (upper, up)
                        };
                        let value = max + bias[i];
                        pixel[i] = if value > 0.0 { value } else { 0.0 };
                        winner[i] = if value > 0.0 { index } else { DEAD };
                    }
                }
            }
        },
    );
}

/// The way back: gives each winner its output's gradient, everyone else zero, and adds the
/// gradients up into the bias's.
pub fn unpool(
    winners: &[u8],
    output_gradient: &[f32],
    width: usize,
    gradient: &mut [f32],
    bias_gradient: &mut [f32],
) {
    let channels = bias_gradient.len();
    let out_row_len = width / 2 * channels;
    wide(
        #[inline(always)]
        || {
            let rows = gradient.chunks_exact_mut(2 * width * channels);
            let slopes = output_gradient.chunks_exact(out_row_len);
            for ((rows, slopes), winners) in rows.zip(slopes).zip(winners.chunks_exact(out_row_len))
            {
                let (upper, lower) = rows.split_at_mut(width * channels);
                let pairs = upper
                    .chunks_exact_mut(2 * channels)
                    .zip(lower.chunks_exact_mut(2 * channels));
                let pixels = slopes
                    .chunks_exact(channels)
                    .zip(winners.chunks_exact(channels));
                for ((up, low), (slope, winner)) in pairs.zip(pixels) {
                    let ((a, b), (c, d)) = (up.split_at_mut(channels), low.split_at_mut(channels));
                    for i in 0..channels {
                        let give = |index: u8| if winner[i] == index { slope[i] } else { 0.0 };
                        (a[i], b[i], c[i], d[i]) = (give(0), give(1), give(2), give(3));
                        bias_gradient[i] += if winner[i] == DEAD { 0.0 } else { slope[i] };
                    }
                }
            }
        },
    );
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "maxima and small whole numbers are exact")]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 31 + 5) % 23) as f32 / 11.0 - 1.0)
            .collect()
    }

    #[test]
    fn a_window_at_the_edge_sees_only_the_image() {
        let pool = MaxPool::new([3, 3, 1], [2, 2], [2, 2], Padding::Same).unwrap();
        let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -9.0, -8.0, -7.0];
        let mut output = [0.0; 4];
        pool.forward(&image, &mut output);
        assert_eq!((pool.output(), output), ([2, 2, 1], [5.0, 6.0, -8.0, -7.0]));
        let pool = MaxPool::new([3, 3, 1], [3, 3], [1, 1], Padding::Same).unwrap();
        let mut output = [0.0; 9];
        pool.forward(&image, &mut output);
        assert_eq!(output, [5.0, 6.0, 6.0, 5.0, 6.0, 6.0, 5.0, 6.0, 6.0]);
    }

    #[test]
    fn the_joined_kernels_agree_with_the_separate_steps() {
        let (height, width, channels) = (6, 4, 5);
        let image = numbers(height * width * channels);
        let bias: Vec<f32> = (0..channels).map(|c| c as f32 / 4.0 - 1.2).collect();
        let mut separate = image.clone();
        crate::kernels::add_bias_relu(&mut separate, &bias);
        let pool = MaxPool::new([height, width, channels], [2, 2], [2, 2], Padding::Valid).unwrap();
        assert!(pool.is_halving());
        let mut wanted = vec![0.0; 3 * 2 * channels];
        pool.forward(&separate, &mut wanted);

        let mut found = vec![0.0; wanted.len()];
        max_pool_bias_relu(&image, width, &bias, &mut found);
        assert_eq!(found, wanted);
        let mut winners = vec![9; wanted.len()];
        found.fill(9.0);
        max_pool_bias_relu_indexed(&image, width, &bias, &mut found, &mut winners);
        assert_eq!(found, wanted);

        let slopes: Vec<f32> = (1..=wanted.len()).map(|i| i as f32).collect();
        let (mut back, mut bias_back) = (vec![9.0; image.len()], vec![0.0; channels]);
        unpool(&winners, &slopes, width, &mut back, &mut bias_back);
        let alive = |i: usize| if wanted[i] > 0.0 { slopes[i] } else { 0.0 };
        for (c, &sum) in bias_back.iter().enumerate() {
            assert_eq!(sum, (0..6).map(|p| alive(p * channels + c)).sum::<f32>());
        }
        for (i, &slope) in back.iter().enumerate().filter(|(_, slope)| **slope != 0.0) {
            let (pixel, c) = (i / channels, i % channels);
            let out = (pixel / width / 2 * (width / 2) + pixel % width / 2) * channels + c;
            assert_eq!((slope, separate[i]), (slopes[out], wanted[out]));
        }
        assert_eq!(
            back.iter().sum::<f32>(),
            (0..wanted.len()).map(alive).sum::<f32>()
        );
    }
}
