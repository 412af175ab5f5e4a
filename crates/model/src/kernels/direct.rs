//! Convolution of few channels by its definition, in steps of one: a kernel row is too short to
//! feed a matrix product, and gathering its patches would take longer than multiplying them.
#![expect(
    clippy::inline_always,
    reason = "loops over vectors must be compiled with the caller's instructions"
)]

use pulp::{Simd, WithSimd};

/// What the loops run over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measures {
    /// Numbers from one row of the padded image to the next.
    pub(super) row: usize,
    /// Channels: numbers from one pixel to the next.
    pub(super) step: usize,
    /// Rows of the kernel, and numbers of one row for one filter.
    pub(super) kernel: [usize; 2],
    /// Height and width.
    pub(super) output: [usize; 2],
    /// A multiple of [`LANES`](super::tile::LANES).
    pub(super) filters: usize,
}

/// Vectors of filters that are computed together.
const TOGETHER: usize = 2;

/// `output = image * kernel`.
pub(super) struct Forward<'a> {
    pub(super) measures: Measures,
    pub(super) padded: &'a [f32],
    pub(super) kernel: &'a [f32],
    pub(super) output: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let vectors = self.measures.filters / S::F32_LANES;
        let mut filter = 0;
        while filter + TOGETHER <= vectors {
            self.filters::<S, TOGETHER>(simd, filter);
            filter += TOGETHER;
        }
        while filter < vectors {
            self.filters::<S, 1>(simd, filter);
            filter += 1;
        }
    }
}

impl Forward<'_> {
    #[inline(always)]
    fn filters<S: Simd, const N: usize>(&mut self, simd: S, filter: usize) {
        const WIDE: usize = 7;
        const NARROW: usize = 4;
        let [height, width] = self.measures.output;
        for y in 0..height {
            let mut x = 0;
            while S::REGISTER_COUNT >= 32 && x + WIDE <= width {
                self.pixels::<S, WIDE, N>(simd, filter, [y, x]);
                x += WIDE;
            }
            while x + NARROW <= width {
                self.pixels::<S, NARROW, N>(simd, filter, [y, x]);
                x += NARROW;
            }
            while x < width {
                self.pixels::<S, 1, N>(simd, filter, [y, x]);
                x += 1;
            }
        }
    }

    /// `P` pixels of a row.
    #[inline(always)]
    fn pixels<S: Simd, const P: usize, const N: usize>(
        &mut self,
        simd: S,
        filter: usize,
        [y, x]: [usize; 2],
    ) {
        let Measures {
            row,
            step,
            kernel: [rows, taps],
            output: [_, width],
            filters,
        } = self.measures;
        let vectors = filters / S::F32_LANES;
        let (kernel, _) = S::as_simd_f32s(self.kernel);
        // Plain counting: iterators are not always inlined into code for other instructions.
        let mut sums = [[simd.splat_f32s(0.0); N]; P];
        let mut ky = 0;
        while ky < rows {
            let mut tap = 0;
            while tap < taps {
                let weights = &kernel[(ky * taps + tap) * vectors + filter..][..N];
                let pixels = &self.padded[(y + ky) * row + x * step + tap..][..=(P - 1) * step];
                let mut p = 0;
                while p < P {
                    let pixel = simd.splat_f32s(pixels[p * step]);
                    let mut n = 0;
                    while n < N {
                        sums[p][n] = simd.mul_add_e_f32s(pixel, weights[n], sums[p][n]);
                        n += 1;
                    }
                    p += 1;
                }
                tap += 1;
            }
            ky += 1;
        }
        let (output, _) = S::as_mut_simd_f32s(self.output);
        let mut p = 0;
        while p < P {
            let pixel = &mut output[(y * width + x + p) * vectors + filter..][..N];
            let mut n = 0;
            while n < N {
                pixel[n] = sums[p][n];
                n += 1;
            }
            p += 1;
        }
    }
}

/// `gradient += d loss / d kernel`.
pub(super) struct BackwardKernel<'a> {
    pub(super) measures: Measures,
    pub(super) padded: &'a [f32],
    pub(super) output_gradient: &'a [f32],
    pub(super) gradient: &'a mut [f32],
}

impl WithSimd for BackwardKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let vectors = self.measures.filters / S::F32_LANES;
        // Row by row, so that a row of slopes stays near while all rows of the kernel meet it.
        for y in 0..self.measures.output[0] {
            let mut filter = 0;
            while filter + TOGETHER <= vectors {
                self.row::<S, TOGETHER>(simd, filter, y);
                filter += TOGETHER;
            }
            while filter < vectors {
                self.row::<S, 1>(simd, filter, y);
                filter += 1;
            }
        }
    }
}

impl BackwardKernel<'_> {
    #[inline(always)]
    fn row<S: Simd, const N: usize>(&mut self, simd: S, filter: usize, y: usize) {
        const WIDE: usize = 5;
        let [rows, taps] = self.measures.kernel;
        for ky in 0..rows {
            let mut tap = 0;
            while tap + WIDE <= taps {
                self.taps::<S, WIDE, N>(simd, filter, y, [ky, tap]);
                tap += WIDE;
            }
            while tap < taps {
                self.taps::<S, 1, N>(simd, filter, y, [ky, tap]);
                tap += 1;
            }
        }
    }

    /// What a row of slopes adds to `T` taps.
    #[inline(always)]
    fn taps<S: Simd, const T: usize, const N: usize>(
        &mut self,
        simd: S,
        filter: usize,
        y: usize,
        [ky, tap]: [usize; 2],
    ) {
        let Measures {
            row,
            step,
            kernel: [_, taps],
            output: [_, width],
            filters,
        } = self.measures;
        let vectors = filters / S::F32_LANES;
        let (slopes, _) = S::as_simd_f32s(self.output_gradient);
        let (gradient, _) = S::as_mut_simd_f32s(self.gradient);
        let mut sums = [[simd.splat_f32s(0.0); N]; T];
        let mut x = 0;
        while x < width {
            let slopes = &slopes[(y * width + x) * vectors + filter..][..N];
            let pixels = &self.padded[(y + ky) * row + x * step + tap..][..T];
            let mut t = 0;
            while t < T {
                let pixel = simd.splat_f32s(pixels[t]);
                let mut n = 0;
                while n < N {
                    sums[t][n] = simd.mul_add_e_f32s(pixel, slopes[n], sums[t][n]);
                    n += 1;
                }
                t += 1;
            }
            x += 1;
        }
        let mut t = 0;
        while t < T {
            let sum = &mut gradient[(ky * taps + tap + t) * vectors + filter..][..N];
            let mut n = 0;
            while n < N {
                sum[n] = simd.add_f32s(sum[n], sums[t][n]);
                n += 1;
            }
            t += 1;
        }
    }
}
