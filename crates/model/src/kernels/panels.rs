//! A dense layer in training, with its weights in panels and with slopes that are mostly zero.
//!
//! A panel holds the weights of [`PANEL`] inputs for all outputs, output by output. So a thread can
//! work on a panel of its own, the way there reads both factors of a sum along memory, and the way
//! back can leave out what meets a zero: behind ReLU and dropout that is three quarters of it.
#![expect(
    clippy::inline_always,
    reason = "loops over vectors must be compiled with the caller's instructions"
)]

use pulp::{Simd, WithSimd};

/// Inputs of a panel.
pub const PANEL: usize = 64;

/// Changes the order of weights from `inputs x outputs` to panels.
pub fn into_panels(weights: &[f32], outputs: usize) -> Vec<f32> {
    let mut panels = vec![0.0; weights.len()];
    let rows = weights.chunks_exact(PANEL * outputs);
    for (rows, panel) in rows.zip(panels.chunks_exact_mut(PANEL * outputs)) {
        for (input, row) in rows.chunks_exact(outputs).enumerate() {
            for (output, &weight) in row.iter().enumerate() {
                panel[output * PANEL + input] = weight;
            }
        }
    }
    panels
}

/// The way back of [`into_panels`].
pub fn from_panels(panels: &[f32], outputs: usize) -> Vec<f32> {
    let mut weights = vec![0.0; panels.len()];
    let rows = weights.chunks_exact_mut(PANEL * outputs);
    for (rows, panel) in rows.zip(panels.chunks_exact(PANEL * outputs)) {
        for (input, row) in rows.chunks_exact_mut(outputs).enumerate() {
            for (output, weight) in row.iter_mut().enumerate() {
                *weight = panel[output * PANEL + input];
            }
        }
    }
    weights
}

/// A number of a row that is not zero, and where it stands.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    at: u32,
    value: f32,
}

/// The numbers of some rows that are not zero. Each row has room for all of its numbers.
#[derive(Debug, Clone)]
pub struct Sparse {
    width: usize,
    entries: Vec<Entry>,
    counts: Vec<u32>,
}

impl Sparse {
    /// Empty rows for up to `width` numbers each.
    pub fn new(rows: usize, width: usize) -> Self {
        Self {
            width,
            entries: vec![Entry::default(); rows * width],
            counts: vec![0; rows],
        }
    }

    /// Takes the rows from a matrix of `width` columns.
    pub fn fill(&mut self, matrix: &[f32]) {
        let rows = self.entries.chunks_exact_mut(self.width);
        for ((entries, count), row) in rows
            .zip(&mut self.counts)
            .zip(matrix.chunks_exact(self.width))
        {
            let mut found = 0;
            for (at, &value) in row.iter().enumerate() {
                // Always written, and kept only if the next one goes behind it.
                entries[found] = Entry {
                    at: at as u32,
                    value,
                };
                found += usize::from(value != 0.0);
            }
            *count = found as u32;
        }
    }

    /// Takes the rows from the columns of a matrix that has `width` rows.
    pub fn fill_from_columns(&mut self, matrix: &[f32]) {
        self.counts.fill(0);
        let columns = self.counts.len();
        for (at, row) in matrix.chunks_exact(columns).enumerate() {
            for (column, (&value, count)) in row.iter().zip(&mut self.counts).enumerate() {
                self.entries[column * self.width + *count as usize] = Entry {
                    at: at as u32,
                    value,
                };
                *count += u32::from(value != 0.0);
            }
        }
    }

    #[inline(always)]
    fn row(&self, row: usize) -> &[Entry] {
        &self.entries[row * self.width..][..self.counts[row] as usize]
    }
}

/// `products[output][row] = ` the sum over all inputs of `inputs[row][input] * weights`, for the
/// outputs from `first` on, as many as `products` has rows. `weights` is in panels.
pub fn panel_products(
    inputs: &[f32],
    weights: &[f32],
    outputs: usize,
    first: usize,
    products: &mut [f32],
    rows: usize,
) {
    pulp::Arch::new().dispatch(Products {
        inputs,
        weights,
        outputs,
        first,
        out: products,
        rows,
    });
}

struct Products<'a> {
    inputs: &'a [f32],
    weights: &'a [f32],
    outputs: usize,
    first: usize,
    out: &'a mut [f32],
    rows: usize,
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            self.tiles::<S, 4, 5>(simd);
        } else {
            self.tiles::<S, 2, 4>(simd);
        }
    }
}

impl Products<'_> {
    /// Tiles of `O` outputs and `R` rows.
    #[inline(always)]
    fn tiles<S: Simd, const O: usize, const R: usize>(&mut self, simd: S) {
        /// Panels whose sums stay in registers; of `O` outputs they fit the nearest cache.
        const PANELS: usize = 25;
        let panels = self.weights.len() / (PANEL * self.outputs);
        let count = self.out.len() / self.rows;
        let mut from = 0;
        while from < panels {
            let to = panels.min(from + PANELS);
            let mut output = 0;
            while output + O <= count {
                self.strip::<S, O, R>(simd, output, [from, to]);
                output += O;
            }
            while output < count {
                self.strip::<S, 1, R>(simd, output, [from, to]);
                output += 1;
            }
            from = to;
        }
    }

    #[inline(always)]
    fn strip<S: Simd, const O: usize, const R: usize>(
        &mut self,
        simd: S,
        output: usize,
        panels: [usize; 2],
    ) {
        let mut row = 0;
        while row + R <= self.rows {
            self.tile::<S, O, R>(simd, output, row, panels);
            row += R;
        }
        while row < self.rows {
            self.tile::<S, O, 1>(simd, output, row, panels);
            row += 1;
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const O: usize, const R: usize>(
        &mut self,
        simd: S,
        output: usize,
        row: usize,
        [from, to]: [usize; 2],
    ) {
        // Kept from the compiler, which would unroll the loop and run out of registers.
        let vectors = std::hint::black_box(PANEL / S::F32_LANES);
        let (inputs, _) = S::as_simd_f32s(self.inputs);
        let (weights, _) = S::as_simd_f32s(self.weights);
        let length = inputs.len() / self.rows;
        // Plain counting: iterators are not always inlined into code for other instructions.
        let mut sums = [[simd.splat_f32s(0.0); R]; O];
        let mut panel = from;
        while panel < to {
            let weights = &weights[(panel * self.outputs + self.first + output) * vectors..];
            let weights = &weights[..O * vectors];
            let inputs = &inputs[row * length + panel * vectors..][..(R - 1) * length + vectors];
            let mut v = 0;
            while v < vectors {
                let mut row_weights = [simd.splat_f32s(0.0); O];
                let mut o = 0;
                while o < O {
                    row_weights[o] = weights[o * vectors + v];
                    o += 1;
                }
                let mut r = 0;
                while r < R {
                    let value = inputs[r * length + v];
                    let mut o = 0;
                    while o < O {
                        sums[o][r] = simd.mul_add_e_f32s(row_weights[o], value, sums[o][r]);
                        o += 1;
                    }
                    r += 1;
                }
                v += 1;
            }
            panel += 1;
        }
        let mut o = 0;
        while o < O {
            let sums_out = &mut self.out[(output + o) * self.rows + row..][..R];
            let mut r = 0;
            while r < R {
                let sum = simd.reduce_sum_f32s(sums[o][r]);
                sums_out[r] = if from == 0 { sum } else { sums_out[r] + sum };
                r += 1;
            }
            o += 1;
        }
    }
}

/// The gradient of a panel's inputs (`rows x PANEL`). Each of `slopes` holds, for every row, the
/// slopes of as many outputs as it is wide; all of them together are the outputs in order.
pub fn panel_input_gradient<'a>(
    weights: &[f32],
    slopes: impl Iterator<Item = &'a Sparse>,
    gradient: &mut [f32],
) {
    pulp::Arch::new().dispatch(InputGradient {
        weights,
        slopes,
        gradient,
    });
}

struct InputGradient<'a, I> {
    weights: &'a [f32],
    slopes: I,
    gradient: &'a mut [f32],
}

impl<'a, I: Iterator<Item = &'a Sparse>> WithSimd for InputGradient<'_, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (weights, _) = S::as_simd_f32s(self.weights);
        let (gradient, _) = S::as_mut_simd_f32s(self.gradient);
        gradient.fill(simd.splat_f32s(0.0));
        let vectors = PANEL / S::F32_LANES;
        let mut first = 0;
        for slopes in self.slopes {
            let weights = &weights[first * vectors..];
            first += slopes.width;
            let mut row = 0;
            while row < slopes.counts.len() {
                let sums = &mut gradient[row * vectors..][..vectors];
                weighted_sum(simd, true, slopes.row(row), 1.0, weights, sums);
                row += 1;
            }
        }
    }
}

/// The gradient of a panel's weights: `weights = scale * gradient`, or with `add` `+=`. `slopes`
/// holds a row for each output, `inputs` is `rows x PANEL`.
pub fn panel_weight_gradient(
    inputs: &[f32],
    slopes: &Sparse,
    first: usize,
    scale: f32,
    add: bool,
    weights: &mut [f32],
) {
    pulp::Arch::new().dispatch(WeightGradient {
        inputs,
        slopes,
        first,
        scale,
        add,
        weights,
    });
}

struct WeightGradient<'a> {
    inputs: &'a [f32],
    slopes: &'a Sparse,
    first: usize,
    scale: f32,
    add: bool,
    weights: &'a mut [f32],
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (inputs, _) = S::as_simd_f32s(self.inputs);
        let (weights, _) = S::as_mut_simd_f32s(self.weights);
        let vectors = PANEL / S::F32_LANES;
        let mut row = 0;
        while row < self.slopes.counts.len() {
            let weights = &mut weights[(self.first + row) * vectors..][..vectors];
            let slopes = self.slopes.row(row);
            weighted_sum(simd, self.add, slopes, self.scale, inputs, weights);
            row += 1;
        }
    }
}

/// `sums = ` (or `+=`) `scale` times the sum of those rows of `rows` that the entries name, each
/// times the entry's value. All rows are a panel wide.
#[inline(always)]
fn weighted_sum<S: Simd>(
    simd: S,
    add: bool,
    entries: &[Entry],
    scale: f32,
    rows: &[S::f32s],
    sums: &mut [S::f32s],
) {
    let vectors = PANEL / S::F32_LANES;
    let mut from = 0;
    while from < vectors {
        from += if vectors - from >= 4 {
            weighted_vectors::<S, 4>(simd, add, entries, scale, [vectors, from], rows, sums)
        } else {
            weighted_vectors::<S, 1>(simd, add, entries, scale, [vectors, from], rows, sums)
        };
    }
}

/// `N` vectors of the sums from `from` on; answers `N`.
#[inline(always)]
fn weighted_vectors<S: Simd, const N: usize>(
    simd: S,
    add: bool,
    entries: &[Entry],
    scale: f32,
    [vectors, from]: [usize; 2],
    rows: &[S::f32s],
    sums: &mut [S::f32s],
) -> usize {
    let mut found = [simd.splat_f32s(0.0); N];
    let mut e = 0;
    while e < entries.len() {
        let Entry { at, value } = entries[e];
        let value = simd.splat_f32s(value);
        let row = &rows[at as usize * vectors + from..][..N];
        let mut n = 0;
        while n < N {
            found[n] = simd.mul_add_e_f32s(value, row[n], found[n]);
            n += 1;
        }
        e += 1;
    }
    let scale = simd.splat_f32s(scale);
    let sums = &mut sums[from..][..N];
    let mut n = 0;
    while n < N {
        sums[n] = if add {
            simd.mul_add_e_f32s(scale, found[n], sums[n])
        } else {
            simd.mul_f32s(scale, found[n])
        };
        n += 1;
    }
    N
}

#[cfg(test)]
mod tests;
