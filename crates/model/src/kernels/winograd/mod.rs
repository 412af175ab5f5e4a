//! Winograd's convolution: kernels of 5 x 5 in steps of one, four by four outputs at a time, with
//! 64 multiplications where the definition has 400.
//!
//! An image is cut into tiles of 8 x 8 that overlap. Tiles and kernel are transformed; for each of
//! the 64 points a small matrix product over the channels follows, and its result is transformed
//! back. The way back of training is the transpose of each of these, in the opposite order.
//! Rounding is about ten times that of the definition in single precision.
#![expect(
    clippy::inline_always,
    reason = "loops over vectors must be compiled with the caller's instructions"
)]
#![expect(
    clippy::redundant_closure_for_method_calls,
    reason = "a closure can be told to be inlined, a method that is passed cannot"
)]

mod transform;

use pulp::{Simd, WithSimd};

use super::conv::{Conv2d, Padding};
use super::tile::{LANES, Left, product};
use transform::{Lanes, OUTPUTS, POINTS, TAPS};

/// Points of a tile.
const SQUARE: usize = POINTS * POINTS;

/// How far apart the matrices of two points begin. A bit more than they are long: at a distance of
/// a power of two, all points of a tile would fall into the same few lines of the cache.
fn plane(rows: usize, columns: usize) -> usize {
    rows * columns + LANES
}

/// The measures of such a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Winograd {
    input: [usize; 3],
    front: [usize; 2],
    output: [usize; 3],
    tiles: [usize; 2],
}

/// Memory that it works in.
#[derive(Debug, Default, Clone)]
pub struct WinogradScratch {
    tiles: usize,
    /// Per point, tile and channel: transformed inputs, or their gradients.
    inputs: Vec<f32>,
    /// Per point, tile and filter: transformed outputs, or their gradients.
    outputs: Vec<f32>,
}

/// The gradient of a transformed kernel, which images add to.
#[derive(Debug, Default, Clone)]
pub struct KernelGradient(Vec<f32>);

impl KernelGradient {
    /// Forgets all images.
    pub fn clear(&mut self) {
        self.0.fill(0.0);
    }
}

impl Winograd {
    /// The measures, if the convolution is one that this method computes.
    pub fn new(conv: &Conv2d) -> Option<Self> {
        let input = conv.input();
        let output = conv.output();
        let fits = conv.kernel() == [TAPS, TAPS]
            && conv.strides() == [1, 1]
            && input[2].is_multiple_of(LANES)
            && output[2].is_multiple_of(LANES);
        fits.then(|| Self {
            input,
            front: conv.front(),
            output,
            tiles: [0, 1].map(|d| output[d].div_ceil(OUTPUTS)),
        })
    }

    /// A kernel transformed for [`forward`](Self::forward) on images of any size, if the
    /// convolution is one that this method computes.
    pub fn prepare_kernel(
        shape: [usize; 4],
        strides: [usize; 2],
        kernel: &[f32],
    ) -> Option<Vec<f32>> {
        let smallest = [TAPS, TAPS, shape[2]];
        let conv = Conv2d::new(smallest, shape, strides, Padding::Valid)?;
        let measures = Self::new(&conv)?;
        let mut transformed = vec![0.0; measures.transformed_len()];
        measures.transform_kernel(kernel, &mut transformed);
        Some(transformed)
    }

    /// How many numbers a transformed kernel has.
    pub fn transformed_len(&self) -> usize {
        SQUARE * plane(self.input[2], self.output[2])
    }

    /// A gradient that no image has added to.
    pub fn kernel_gradient(&self) -> KernelGradient {
        KernelGradient(vec![0.0; self.transformed_len()])
    }

    fn input_len(&self) -> usize {
        self.input.iter().product()
    }

    fn output_len(&self) -> usize {
        self.output.iter().product()
    }

    /// Tiles of an image.
    fn count(&self) -> usize {
        self.tiles[0] * self.tiles[1]
    }

    fn prepare(&self, images: usize, scratch: &mut WinogradScratch) {
        let tiles = images * self.count();
        scratch.tiles = tiles;
        scratch
            .inputs
            .resize(SQUARE * plane(tiles, self.input[2]), 0.0);
        scratch
            .outputs
            .resize(SQUARE * plane(tiles, self.output[2]), 0.0);
    }

    /// Transforms a kernel for [`forward`](Self::forward).
    pub fn transform_kernel(&self, kernel: &[f32], transformed: &mut [f32]) {
        let len = self.input[2] * self.output[2];
        pulp::Arch::new().dispatch(TransformKernel {
            len,
            kernel: &kernel[..TAPS * TAPS * len],
            transformed: &mut transformed[..self.transformed_len()],
        });
    }

    /// Turns a transformed kernel over, for [`backward`](Self::backward): filters before channels.
    pub fn turn_kernel(&self, transformed: &[f32], turned: &mut [f32]) {
        let [channels, filters] = [self.input[2], self.output[2]];
        let plane = plane(channels, filters);
        let planes = transformed
            .chunks_exact(plane)
            .zip(turned.chunks_exact_mut(plane));
        for (from, to) in planes {
            for (c, row) in from[..channels * filters].chunks_exact(filters).enumerate() {
                for (f, &value) in row.iter().enumerate() {
                    to[f * channels + c] = value;
                }
            }
        }
    }

    /// `outputs = images * kernel`, for any number of images; the kernel is a transformed one.
    pub fn forward(
        &self,
        images: &[f32],
        transformed: &[f32],
        outputs: &mut [f32],
        scratch: &mut WinogradScratch,
    ) {
        let count = images.len() / self.input_len();
        self.prepare(count, scratch);
        pulp::Arch::new().dispatch(Forward {
            measures: self,
            images: &images[..count * self.input_len()],
            transformed: &transformed[..self.transformed_len()],
            outputs: &mut outputs[..count * self.output_len()],
            scratch,
        });
    }

    /// From the outputs' gradients: adds to the kernel's, and writes the images'. `turned` is the
    /// transformed kernel, turned over.
    pub fn backward(
        &self,
        images: &[f32],
        turned: &[f32],
        output_gradients: &[f32],
        kernel_gradient: &mut KernelGradient,
        gradients: &mut [f32],
        scratch: &mut WinogradScratch,
    ) {
        let count = images.len() / self.input_len();
        self.prepare(count, scratch);
        pulp::Arch::new().dispatch(Backward {
            measures: self,
            images: &images[..count * self.input_len()],
            turned: &turned[..self.transformed_len()],
            output_gradients: &output_gradients[..count * self.output_len()],
            kernel_gradient: &mut kernel_gradient.0,
            gradients: &mut gradients[..count * self.input_len()],
            scratch,
        });
    }

    /// `gradient += ` the gradient of the kernel that a transformed one stands for.
    pub fn finish_gradient(&self, transformed: &KernelGradient, gradient: &mut [f32]) {
        let len = self.input[2] * self.output[2];
        pulp::Arch::new().dispatch(FinishGradient {
            len,
            transformed: &transformed.0,
            gradient: &mut gradient[..TAPS * TAPS * len],
        });
    }

    /// Where the tiles' first outputs stand.
    #[inline(always)]
    fn corners(&self) -> impl Iterator<Item = [usize; 2]> + use<> {
        let [down, right] = self.tiles;
        (0..down).flat_map(move |y| (0..right).map(move |x| [y * OUTPUTS, x * OUTPUTS]))
    }

    /// Transforms the images' tiles into `inputs`.
    #[inline(always)]
    fn gather<S: Simd>(&self, simd: S, images: &[f32], inputs: &mut [f32]) {
        let [height, width, channels] = self.input;
        let [top, left] = self.front;
        let vectors = channels / S::F32_LANES;
        let (images, _) = S::as_simd_f32s(images);
        let (inputs, _) = S::as_mut_simd_f32s(inputs);
        let plane = inputs.len() / SQUARE;
        let mut at = 0;
        for image in images.chunks_exact(height * width * vectors) {
            for [y0, x0] in self.corners() {
                for vector in 0..vectors {
                    Lanes(simd).square::<POINTS, POINTS>(
                        #[inline(always)]
                        |y, x| {
                            let y = (y0 + y).wrapping_sub(top);
                            let x = (x0 + x).wrapping_sub(left);
                            if y < height && x < width {
                                image[(y * width + x) * vectors + vector]
                            } else {
                                simd.splat_f32s(0.0)
                            }
                        },
                        #[inline(always)]
                        |lanes, values| lanes.input(values),
                        #[inline(always)]
                        |y, x, value| inputs[(y * POINTS + x) * plane + at + vector] = value,
                    );
                }
                at += vectors;
            }
        }
    }
}

struct TransformKernel<'a> {
    len: usize,
    kernel: &'a [f32],
    transformed: &'a mut [f32],
}

impl WithSimd for TransformKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let len = self.len / S::F32_LANES;
        let plane = plane(self.len, 1) / S::F32_LANES;
        let (kernel, _) = S::as_simd_f32s(self.kernel);
        let (transformed, _) = S::as_mut_simd_f32s(self.transformed);
        for at in 0..len {
            Lanes(simd).square::<TAPS, POINTS>(
                #[inline(always)]
                |y, x| kernel[(y * TAPS + x) * len + at],
                #[inline(always)]
                |lanes, values| lanes.kernel(values),
                #[inline(always)]
                |y, x, value| transformed[(y * POINTS + x) * plane + at] = value,
            );
        }
    }
}

struct FinishGradient<'a> {
    len: usize,
    transformed: &'a [f32],
    gradient: &'a mut [f32],
}

impl WithSimd for FinishGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let len = self.len / S::F32_LANES;
        let plane = plane(self.len, 1) / S::F32_LANES;
        let (transformed, _) = S::as_simd_f32s(self.transformed);
        let (gradient, _) = S::as_mut_simd_f32s(self.gradient);
        for at in 0..len {
            Lanes(simd).square::<POINTS, TAPS>(
                #[inline(always)]
                |y, x| transformed[(y * POINTS + x) * plane + at],
                #[inline(always)]
                |lanes, values| lanes.kernel_back(values),
                #[inline(always)]
                |y, x, value| {
                    let sum = &mut gradient[(y * TAPS + x) * len + at];
                    *sum = simd.add_f32s(*sum, value);
                },
            );
        }
    }
}

struct Forward<'a> {
    measures: &'a Winograd,
    images: &'a [f32],
    transformed: &'a [f32],
    outputs: &'a mut [f32],
    scratch: &'a mut WinogradScratch,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Winograd { input, output, .. } = *self.measures;
        let ([channels, filters], [height, width]) =
            ([input[2], output[2]], [output[0], output[1]]);
        let &mut WinogradScratch {
            tiles,
            ref mut inputs,
            ref mut outputs,
        } = self.scratch;
        self.measures.gather(simd, self.images, inputs);
        let products = inputs
            .chunks_exact(plane(tiles, channels))
            .zip(self.transformed.chunks_exact(plane(channels, filters)))
            .zip(outputs.chunks_exact_mut(plane(tiles, filters)));
        for ((data, kernel), out) in products {
            let left = Left {
                data,
                rows: channels,
                depths: 1,
            };
            product(simd, false, [tiles, channels, filters], left, kernel, out);
        }

        let vectors = filters / S::F32_LANES;
        let (outputs, _) = S::as_simd_f32s(outputs);
        let (results, _) = S::as_mut_simd_f32s(self.outputs);
        let plane = outputs.len() / SQUARE;
        let mut at = 0;
        for result in results.chunks_exact_mut(height * width * vectors) {
            for [y0, x0] in self.measures.corners() {
                for vector in 0..vectors {
                    Lanes(simd).square::<POINTS, OUTPUTS>(
                        #[inline(always)]
                        |y, x| outputs[(y * POINTS + x) * plane + at + vector],
                        #[inline(always)]
                        |lanes, values| lanes.output(values),
                        #[inline(always)]
                        |y, x, value| {
                            let (y, x) = (y0 + y, x0 + x);
                            if y < height && x < width {
                                result[(y * width + x) * vectors + vector] = value;
                            }
                        },
                    );
                }
                at += vectors;
            }
        }
    }
}

struct Backward<'a> {
    measures: &'a Winograd,
    images: &'a [f32],
    turned: &'a [f32],
    output_gradients: &'a [f32],
    kernel_gradient: &'a mut [f32],
    gradients: &'a mut [f32],
    scratch: &'a mut WinogradScratch,
}

impl Backward<'_> {
    /// Transforms the tiles of the outputs' gradients.
    #[inline(always)]
    fn gather_outputs<S: Simd>(&mut self, simd: S) {
        let [height, width, filters] = self.measures.output;
        let vectors = filters / S::F32_LANES;
        let (slopes, _) = S::as_simd_f32s(self.output_gradients);
        let (outputs, _) = S::as_mut_simd_f32s(&mut self.scratch.outputs);
        let plane = outputs.len() / SQUARE;
        let mut at = 0;
        for slopes in slopes.chunks_exact(height * width * vectors) {
            for [y0, x0] in self.measures.corners() {
                for vector in 0..vectors {
                    Lanes(simd).square::<OUTPUTS, POINTS>(
                        #[inline(always)]
                        |y, x| {
                            let (y, x) = (y0 + y, x0 + x);
                            if y < height && x < width {
                                slopes[(y * width + x) * vectors + vector]
                            } else {
                                simd.splat_f32s(0.0)
                            }
                        },
                        #[inline(always)]
                        |lanes, values| lanes.output_back(values),
                        #[inline(always)]
                        |y, x, value| outputs[(y * POINTS + x) * plane + at + vector] = value,
                    );
                }
                at += vectors;
            }
        }
    }

    /// Transforms the tiles of the inputs' gradients back, and adds them up where they overlap.
    #[inline(always)]
    fn scatter_inputs<S: Simd>(&mut self, simd: S) {
        let [height, width, channels] = self.measures.input;
        let [top, left] = self.measures.front;
        let vectors = channels / S::F32_LANES;
        self.gradients.fill(0.0);
        let (gradients, _) = S::as_mut_simd_f32s(self.gradients);
        let (inputs, _) = S::as_simd_f32s(&self.scratch.inputs);
        let plane = inputs.len() / SQUARE;
        let mut at = 0;
        for gradient in gradients.chunks_exact_mut(height * width * vectors) {
            for [y0, x0] in self.measures.corners() {
                for vector in 0..vectors {
                    Lanes(simd).square::<POINTS, POINTS>(
                        #[inline(always)]
                        |y, x| inputs[(y * POINTS + x) * plane + at + vector],
                        #[inline(always)]
                        |lanes, values| lanes.input_back(values),
                        #[inline(always)]
                        |y, x, value| {
                            let y = (y0 + y).wrapping_sub(top);
                            let x = (x0 + x).wrapping_sub(left);
                            if y < height && x < width {
                                let sum = &mut gradient[(y * width + x) * vectors + vector];
                                *sum = simd.add_f32s(*sum, value);
                            }
                        },
                    );
                }
                at += vectors;
            }
        }
    }
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let [channels, filters] = [self.measures.input[2], self.measures.output[2]];
        self.gather_outputs(simd);
        let &mut WinogradScratch {
            tiles,
            ref mut inputs,
            ref outputs,
        } = &mut *self.scratch;
        self.measures.gather(simd, self.images, inputs);
        let points = inputs
            .chunks_exact_mut(plane(tiles, channels))
            .zip(outputs.chunks_exact(plane(tiles, filters)))
            .zip(
                self.kernel_gradient
                    .chunks_exact_mut(plane(channels, filters)),
            )
            .zip(self.turned.chunks_exact(plane(channels, filters)));
        for (((inputs, outputs), kernel_gradient), turned) in points {
            let left = Left {
                data: inputs,
                rows: 1,
                depths: channels,
            };
            let sizes = [channels, tiles, filters];
            product(simd, true, sizes, left, outputs, kernel_gradient);
            let left = Left {
                data: outputs,
                rows: filters,
                depths: 1,
            };
            product(
                simd,
                false,
                [tiles, filters, channels],
                left,
                turned,
                inputs,
            );
        }
        self.scatter_inputs(simd);
    }
}

#[cfg(test)]
mod tests;
