//! Convolution of one image, as matrix products over its patches.
//!
//! Where a kernel row is long enough to feed the matrix product by itself, the patches of one
//! kernel row are gathered once and shared by all kernel rows: the patch matrix of row `ky` is the
//! same memory, `ky` image rows further down. That is a k-th of the copying and of the memory of
//! the usual gathering (im2col), which is what strides get. Short kernel rows in steps of one are
//! not gathered at all: see [`direct`].

use super::direct;
use super::matmul::{Matrix, MatrixMut, matmul};
use super::tile::LANES;
use super::wide;

/// A kernel row of at least this many numbers is worth its own matrix product.
const SHARED_ROW: usize = 48;

/// What lies around an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// As many zeros as the output needs to be as large as the input divided by the stride.
    Same,
    /// Nothing: windows stay inside.
    Valid,
}

impl Padding {
    /// The size of the output and of the padding in front, of one dimension.
    pub(crate) fn measure(
        self,
        input: usize,
        window: usize,
        stride: usize,
    ) -> Option<(usize, usize)> {
        if input == 0 || window == 0 || stride == 0 {
            return None;
        }
        match self {
            Self::Same => {
                let output = input.div_ceil(stride);
                let padding = ((output - 1) * stride + window).saturating_sub(input);
                Some((output, padding / 2))
            }
            Self::Valid => Some((input.checked_sub(window)? / stride + 1, 0)),
        }
    }
}

/// The measures of a convolution: image `height x width x channels`, kernel
/// `rows x columns x channels x filters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2d {
    input: [usize; 3],
    kernel: [usize; 2],
    filters: usize,
    strides: [usize; 2],
    front: [usize; 2],
    output: [usize; 2],
}

/// Memory that a convolution works in.
#[derive(Debug, Default, Clone)]
pub struct Conv2dScratch {
    padded: Vec<f32>,
    patches: Vec<f32>,
    gradients: Vec<f32>,
}

impl Conv2d {
    /// The measures of `input * kernel`; `None` if the kernel does not fit the image.
    pub fn new(
        input: [usize; 3],
        kernel: [usize; 4],
        strides: [usize; 2],
        padding: Padding,
    ) -> Option<Self> {
        let [height, width, channels] = input;
        let [rows, columns, kernel_channels, filters] = kernel;
        if channels != kernel_channels || channels == 0 || filters == 0 {
            return None;
        }
        let (out_height, top) = padding.measure(height, rows, strides[0])?;
        let (out_width, left) = padding.measure(width, columns, strides[1])?;
        Some(Self {
            input,
            kernel: [rows, columns],
            filters,
            strides,
            front: [top, left],
            output: [out_height, out_width],
        })
    }

    /// The output's `height x width x filters`.
    pub fn output(&self) -> [usize; 3] {
        [self.output[0], self.output[1], self.filters]
    }

    /// The image's `height x width x channels`.
    pub(super) fn input(&self) -> [usize; 3] {
        self.input
    }

    /// The kernel's rows and columns.
    pub(super) fn kernel(&self) -> [usize; 2] {
        self.kernel
    }

    /// Steps down and right.
    pub(super) fn strides(&self) -> [usize; 2] {
        self.strides
    }

    /// Rows above and columns left of the image that are zero.
    pub(super) fn front(&self) -> [usize; 2] {
        self.front
    }

    /// How many numbers an image has.
    pub fn input_len(&self) -> usize {
        self.input.iter().product()
    }

    /// How many numbers the output has.
    pub fn output_len(&self) -> usize {
        self.output().iter().product()
    }

    /// How many numbers the kernel has.
    pub fn kernel_len(&self) -> usize {
        self.kernel_row() * self.kernel[0] * self.filters
    }

    /// Numbers of one row of the kernel, for one filter.
    fn kernel_row(&self) -> usize {
        self.kernel[1] * self.input[2]
    }

    fn shares_rows(&self) -> bool {
        self.strides[0] == 1 && self.kernel_row() >= SHARED_ROW
    }

    /// The measures of the direct way, if that is the one to go.
    fn direct(&self) -> Option<direct::Measures> {
        let fits = self.strides == [1, 1]
            && self.kernel_row() < SHARED_ROW
            && self.filters.is_multiple_of(LANES);
        fits.then(|| direct::Measures {
            row: self.padded()[1] * self.input[2],
            step: self.input[2],
            kernel: [self.kernel[0], self.kernel_row()],
            output: self.output,
            filters: self.filters,
        })
    }

    /// Height and width of what all windows together cover.
    fn padded(&self) -> [usize; 2] {
        [0, 1].map(|d| (self.output[d] - 1) * self.strides[d] + self.kernel[d])
    }

    fn patches_len(&self) -> usize {
        let rows = if self.shares_rows() {
            self.padded()[0]
        } else {
            self.output[0] * self.kernel[0]
        };
        rows * self.output[1] * self.kernel_row()
    }

    /// Copies between an image and its padded form, row by row.
    fn rows(&self) -> impl Iterator<Item = (std::ops::Range<usize>, std::ops::Range<usize>)> {
        let [height, width, channels] = self.input;
        let [padded_height, padded_width] = self.padded();
        let [top, left] = self.front;
        let count = width.min(padded_width - left) * channels;
        (0..height.min(padded_height - top)).map(move |y| {
            let inner = y * width * channels;
            let outer = ((y + top) * padded_width + left) * channels;
            (inner..inner + count, outer..outer + count)
        })
    }

    /// Visits each piece of the patch matrix, in the matrix's order, with the place in the padded
    /// image where it begins.
    #[expect(
        clippy::inline_always,
        reason = "its loop must be compiled with the caller's instructions"
    )]
    #[inline(always)]
    fn each_piece(&self, mut visit: impl FnMut(usize, usize)) {
        let channels = self.input[2];
        let padded_width = self.padded()[1];
        let [stride_y, stride_x] = self.strides;
        let (outer, inner) = if self.shares_rows() {
            (self.padded()[0], 1)
        } else {
            (self.output[0], self.kernel[0])
        };
        let mut piece = 0;
        for y in 0..outer {
            for x in 0..self.output[1] {
                for ky in 0..inner {
                    visit(
                        piece,
                        ((y * stride_y + ky) * padded_width + x * stride_x) * channels,
                    );
                    piece += 1;
                }
            }
        }
    }

    /// Puts zeros around an image.
    fn pad(&self, image: &[f32], padded: &mut Vec<f32>) {
        let [height, width] = self.padded();
        padded.resize(height * width * self.input[2], 0.0);
        padded.fill(0.0);
        for (inner, outer) in self.rows() {
            padded[outer].copy_from_slice(&image[inner]);
        }
    }

    fn gather(&self, image: &[f32], scratch: &mut Conv2dScratch) {
        let Conv2dScratch {
            padded, patches, ..
        } = scratch;
        self.pad(image, padded);
        patches.resize(self.patches_len(), 0.0);
        match self.kernel_row() {
            160 => self.gather_pieces::<160>(padded, patches),
            row => self.each_piece(|piece, at| {
                patches[piece * row..][..row].copy_from_slice(&padded[at..at + row]);
            }),
        }
    }

    /// Copies of a length known to the compiler need no call.
    fn gather_pieces<const ROW: usize>(&self, padded: &[f32], patches: &mut [f32]) {
        wide(
            #[inline(always)]
            || {
                let (pieces, _) = patches.as_chunks_mut::<ROW>();
                self.each_piece(
                    #[inline(always)]
                    |piece, at| {
                        pieces[piece].copy_from_slice(&padded[at..at + ROW]);
                    },
                );
            },
        );
    }

    /// The patch matrices, each with the first row of the kernel matrix that it meets.
    fn products(&self) -> impl Iterator<Item = (usize, usize)> {
        let count = if self.shares_rows() {
            self.kernel[0]
        } else {
            1
        };
        (0..count).map(|ky| {
            (
                ky * self.output[1] * self.kernel_row(),
                ky * self.kernel_row(),
            )
        })
    }

    /// Rows and columns of a patch matrix.
    fn patch_matrix(&self) -> (usize, usize) {
        let columns = if self.shares_rows() {
            1
        } else {
            self.kernel[0]
        } * self.kernel_row();
        (self.output[0] * self.output[1], columns)
    }

    /// `output = image * kernel`.
    pub fn forward(
        &self,
        image: &[f32],
        kernel: &[f32],
        output: &mut [f32],
        scratch: &mut Conv2dScratch,
    ) {
        if let Some(measures) = self.direct() {
            self.pad(image, &mut scratch.padded);
            pulp::Arch::new().dispatch(direct::Forward {
                measures,
                padded: &scratch.padded,
                kernel: &kernel[..self.kernel_len()],
                output: &mut output[..self.output_len()],
            });
            return;
        }
        self.gather(image, scratch);
        let (rows, columns) = self.patch_matrix();
        for (index, (patch, first)) in self.products().enumerate() {
            matmul(
                MatrixMut::new(output, rows, self.filters),
                if index == 0 { 0.0 } else { 1.0 },
                Matrix::new(&scratch.patches[patch..], rows, columns),
                Matrix::new(&kernel[first * self.filters..], columns, self.filters),
                1.0,
            );
        }
    }

    /// `gradient += d loss / d kernel`, from the output's gradient and the image.
    pub fn backward_kernel(
        &self,
        image: &[f32],
        output_gradient: &[f32],
        gradient: &mut [f32],
        scratch: &mut Conv2dScratch,
    ) {
        if let Some(measures) = self.direct() {
            self.pad(image, &mut scratch.padded);
            pulp::Arch::new().dispatch(direct::BackwardKernel {
                measures,
                padded: &scratch.padded,
                output_gradient: &output_gradient[..self.output_len()],
                gradient: &mut gradient[..self.kernel_len()],
            });
            return;
        }
        self.gather(image, scratch);
        let (rows, columns) = self.patch_matrix();
        for (patch, first) in self.products() {
            matmul(
                MatrixMut::new(&mut gradient[first * self.filters..], columns, self.filters),
                1.0,
                Matrix::new(&scratch.patches[patch..], rows, columns).transposed(),
                Matrix::new(output_gradient, rows, self.filters),
                1.0,
            );
        }
    }

    /// `gradient = d loss / d image`, from the output's gradient and the kernel.
    pub fn backward_image(
        &self,
        kernel: &[f32],
        output_gradient: &[f32],
        gradient: &mut [f32],
        scratch: &mut Conv2dScratch,
    ) {
        let Conv2dScratch {
            padded, gradients, ..
        } = scratch;
        let [height, width] = self.padded();
        padded.resize(height * width * self.input[2], 0.0);
        gradients.resize(self.patches_len(), 0.0);
        gradients.fill(0.0);
        let (rows, columns) = self.patch_matrix();
        for (patch, first) in self.products() {
            matmul(
                MatrixMut::new(&mut gradients[patch..], rows, columns),
                1.0,
                Matrix::new(output_gradient, rows, self.filters),
                Matrix::new(&kernel[first * self.filters..], columns, self.filters).transposed(),
                1.0,
            );
        }
        padded.fill(0.0);
        wide(
            #[inline(always)]
            || {
                let row = self.kernel_row();
                self.each_piece(
                    #[inline(always)]
                    |piece, at| {
                        let parts = &gradients[piece * row..][..row];
                        for (sum, &part) in padded[at..][..row].iter_mut().zip(parts) {
                            *sum += part;
                        }
                    },
                );
            },
        );
        gradient.fill(0.0);
        for (inner, outer) in self.rows() {
            gradient[inner].copy_from_slice(&padded[outer]);
        }
    }
}

#[cfg(test)]
mod tests;
