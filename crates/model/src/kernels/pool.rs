//! Max-pooling, alone and joined with the bias and ReLU that follow a convolution.
#![expect(
    clippy::inline_always,
    reason = "loops over vectors must be compiled with the caller's instructions"
)]

use pulp::{Simd, WithSimd};

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

/// Halves an image by max-pooling, then adds the bias and cuts off at zero. The same as bias and
/// ReLU first, for a quarter of the work. `width` is the image's.
pub fn max_pool_bias_relu(image: &[f32], width: usize, bias: &[f32], output: &mut [f32]) {
    pulp::Arch::new().dispatch(Pool {
        image,
        width,
        bias,
        output,
    });
}

struct Pool<'a> {
    image: &'a [f32],
    width: usize,
    bias: &'a [f32],
    output: &'a mut [f32],
}

impl WithSimd for Pool<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (width, channels) = (self.width, self.bias.len());
        let zero = simd.splat_f32s(0.0);
        let (bias, bias_rest) = S::as_simd_f32s(self.bias);
        let rows = self.image.chunks_exact(2 * width * channels);
        let out_rows = self.output.chunks_exact_mut(width / 2 * channels);
        for (rows, out_row) in rows.zip(out_rows) {
            let mut x = 0;
            while x < width / 2 {
                let window = corners(rows, width, channels, x);
                let (a, a_rest) = S::as_simd_f32s(window[0]);
                let (b, b_rest) = S::as_simd_f32s(window[1]);
                let (c, c_rest) = S::as_simd_f32s(window[2]);
                let (d, d_rest) = S::as_simd_f32s(window[3]);
                let out = &mut out_row[x * channels..][..channels];
                let (pixel, pixel_rest) = S::as_mut_simd_f32s(out);
                let mut v = 0;
                while v < pixel.len() {
                    let upper = simd.max_f32s(a[v], b[v]);
                    let max = simd.max_f32s(upper, simd.max_f32s(c[v], d[v]));
                    pixel[v] = simd.max_f32s(simd.add_f32s(max, bias[v]), zero);
                    v += 1;
                }
                for (i, bias) in bias_rest.iter().enumerate() {
                    let max = a_rest[i].max(b_rest[i]).max(c_rest[i].max(d_rest[i]));
                    pixel_rest[i] = (max + bias).max(0.0);
                }
                x += 1;
            }
        }
    }
}

/// The index of an output that ReLU cut off: no pixel of its window gets a gradient.
const DEAD: u32 = 4;

/// As [`max_pool_bias_relu`], and remembers which pixel of each window won: in numbers as wide as
/// the pixels, so that both fit the same vectors.
pub fn max_pool_bias_relu_indexed(
    image: &[f32],
    width: usize,
    bias: &[f32],
    output: &mut [f32],
    winners: &mut [u32],
) {
    pulp::Arch::new().dispatch(Indexed {
        image,
        width,
        bias,
        output,
        winners,
    });
}

struct Indexed<'a> {
    image: &'a [f32],
    width: usize,
    bias: &'a [f32],
    output: &'a mut [f32],
    winners: &'a mut [u32],
}

impl WithSimd for Indexed<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (width, channels) = (self.width, self.bias.len());
        let zero = simd.splat_f32s(0.0);
        let [first, second, third, fourth, dead] =
            [0, 1, 2, 3, DEAD].map(|index| simd.splat_u32s(index));
        let (bias, bias_rest) = S::as_simd_f32s(self.bias);
        let rows = self.image.chunks_exact(2 * width * channels);
        let out_rows = self.output.chunks_exact_mut(width / 2 * channels);
        let winner_rows = self.winners.chunks_exact_mut(width / 2 * channels);
        for ((rows, out_row), winner_row) in rows.zip(out_rows).zip(winner_rows) {
            let mut x = 0;
            while x < width / 2 {
                let place = x * channels;
                let window = corners(rows, width, channels, x);
                let (pixel, pixel_rest) = S::as_mut_simd_f32s(&mut out_row[place..][..channels]);
                let (winner, winner_rest) =
                    S::as_mut_simd_u32s(&mut winner_row[place..][..channels]);
                let (a, a_rest) = S::as_simd_f32s(window[0]);
                let (b, b_rest) = S::as_simd_f32s(window[1]);
                let (c, c_rest) = S::as_simd_f32s(window[2]);
                let (d, d_rest) = S::as_simd_f32s(window[3]);
                let mut v = 0;
                while v < pixel.len() {
                    let right = simd.greater_than_f32s(b[v], a[v]);
                    let upper = simd.select_f32s(right, b[v], a[v]);
                    let up = simd.select_u32s(right, second, first);
                    let right = simd.greater_than_f32s(d[v], c[v]);
                    let lower = simd.select_f32s(right, d[v], c[v]);
                    let low = simd.select_u32s(right, fourth, third);
                    let below = simd.greater_than_f32s(lower, upper);
                    let value = simd.add_f32s(simd.select_f32s(below, lower, upper), bias[v]);
                    let alive = simd.greater_than_f32s(value, zero);
                    pixel[v] = simd.select_f32s(alive, value, zero);
                    winner[v] = simd.select_u32s(alive, simd.select_u32s(below, low, up), dead);
                    v += 1;
                }
                let (a, b, c, d) = (a_rest, b_rest, c_rest, d_rest);
                for (i, bias) in bias_rest.iter().enumerate() {
                    let (upper, up) = if b[i] > a[i] { (b[i], 1) } else { (a[i], 0) };
                    let (lower, low) = if d[i] > c[i] { (d[i], 3) } else { (c[i], 2) };
                    let (max, index) = if lower > upper {
                        (lower, low)
                    } else {
                        (upper, up)
                    };
                    let alive = max + bias > 0.0;
                    pixel_rest[i] = if alive { max + bias } else { 0.0 };
                    winner_rest[i] = if alive { index } else { DEAD };
                }
                x += 1;
            }
        }
    }
}

/// The four pixels of window `x` of two rows.
#[inline(always)]
fn corners(rows: &[f32], width: usize, channels: usize, x: usize) -> [&[f32]; 4] {
    let (upper, lower) = (2 * x * channels, (2 * x + width) * channels);
    [
        &rows[upper..][..channels],
        &rows[upper + channels..][..channels],
        &rows[lower..][..channels],
        &rows[lower + channels..][..channels],
    ]
}

/// The way back: gives each winner its output's gradient, everyone else zero, and adds the
/// gradients up into the bias's.
pub fn unpool(
    winners: &[u32],
    output_gradient: &[f32],
    width: usize,
    gradient: &mut [f32],
    bias_gradient: &mut [f32],
) {
    pulp::Arch::new().dispatch(Unpool {
        winners,
        output_gradient,
        width,
        gradient,
        bias_gradient,
    });
}

struct Unpool<'a> {
    winners: &'a [u32],
    output_gradient: &'a [f32],
    width: usize,
    gradient: &'a mut [f32],
    bias_gradient: &'a mut [f32],
}

impl WithSimd for Unpool<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (width, channels) = (self.width, self.bias_gradient.len());
        let zero = simd.splat_f32s(0.0);
        let indices = [0, 1, 2, 3].map(|index| simd.splat_u32s(index));
        let dead = simd.splat_u32s(DEAD);
        let (bias, bias_rest) = S::as_mut_simd_f32s(self.bias_gradient);
        let rows = self.gradient.chunks_exact_mut(2 * width * channels);
        let slope_rows = self.output_gradient.chunks_exact(width / 2 * channels);
        let winner_rows = self.winners.chunks_exact(width / 2 * channels);
        for ((rows, slope_row), winner_row) in rows.zip(slope_rows).zip(winner_rows) {
            let mut x = 0;
            while x < width / 2 {
                let place = x * channels;
                let (slope, slope_rest) = S::as_simd_f32s(&slope_row[place..][..channels]);
                let (winner, winner_rest) = S::as_simd_u32s(&winner_row[place..][..channels]);
                let mut index = 0;
                while index < 4 {
                    let at = (2 * x + [0, 1, width, width + 1][index]) * channels;
                    let (pixel, rest) = S::as_mut_simd_f32s(&mut rows[at..][..channels]);
                    let mut v = 0;
                    while v < pixel.len() {
                        let won = simd.equal_u32s(winner[v], indices[index]);
                        pixel[v] = simd.select_f32s(won, slope[v], zero);
                        v += 1;
                    }
                    for (i, pixel) in rest.iter_mut().enumerate() {
                        let won = winner_rest[i] == index as u32;
                        *pixel = if won { slope_rest[i] } else { 0.0 };
                    }
                    index += 1;
                }
                let mut v = 0;
                while v < bias.len() {
                    let cut = simd.equal_u32s(winner[v], dead);
                    let slope = simd.select_f32s(cut, zero, slope[v]);
                    bias[v] = simd.add_f32s(bias[v], slope);
                    v += 1;
                }
                for (i, sum) in bias_rest.iter_mut().enumerate() {
                    *sum += if winner_rest[i] == DEAD {
                        0.0
                    } else {
                        slope_rest[i]
                    };
                }
                x += 1;
            }
        }
    }
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
        // Whole vectors and a rest.
        let (height, width, channels) = (6, 4, 37);
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
