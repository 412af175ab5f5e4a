//! Small matrix products that are held in registers, for kernels that bring their numbers into the
//! right order themselves: nothing is packed and nothing is allocated.
#![expect(
    clippy::inline_always,
    reason = "loops over vectors must be compiled with the caller's instructions"
)]

use pulp::Simd;

/// The columns of a product must be a multiple of this: the most numbers of a vector anywhere.
pub(super) const LANES: usize = 16;

/// The left matrix of a product: element `(row, depth)` stands at `row * rows + depth * depths`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) depths: usize,
}

/// `out = left * right`, or `out += left * right` with `add`. `right` is `depth x columns` and
/// `out` is `rows x columns`, both without gaps.
#[inline(always)]
pub(super) fn product<S: Simd>(
    simd: S,
    add: bool,
    [rows, depth, columns]: [usize; 3],
    left: Left<'_>,
    right: &[f32],
    out: &mut [f32],
) {
    let vectors = columns / S::F32_LANES;
    let (right, _) = S::as_simd_f32s(&right[..depth * columns]);
    let (out, _) = S::as_mut_simd_f32s(&mut out[..rows * columns]);
    let mut column = 0;
    while column < vectors {
        let right = &right[column..];
        let out = &mut out[column..];
        let sizes = [rows, depth, vectors];
        column += match vectors - column {
            4.. if S::REGISTER_COUNT >= 32 => strip::<S, 4, 4>(simd, add, sizes, left, right, out),
            2.. if S::REGISTER_COUNT >= 32 => strip::<S, 8, 2>(simd, add, sizes, left, right, out),
            2.. => strip::<S, 4, 2>(simd, add, sizes, left, right, out),
            _ => strip::<S, 8, 1>(simd, add, sizes, left, right, out),
        };
    }
}

/// All rows of `N` vectors of columns; answers `N`.
#[inline(always)]
fn strip<S: Simd, const R: usize, const N: usize>(
    simd: S,
    add: bool,
    [rows, depth, vectors]: [usize; 3],
    left: Left<'_>,
    right: &[S::f32s],
    out: &mut [S::f32s],
) -> usize {
    let mut row = 0;
    while row + R <= rows {
        block::<S, R, N>(simd, add, row, [depth, vectors], left, right, out);
        row += R;
    }
    while row < rows {
        block::<S, 1, N>(simd, add, row, [depth, vectors], left, right, out);
        row += 1;
    }
    N
}

#[inline(always)]
fn block<S: Simd, const R: usize, const N: usize>(
    simd: S,
    add: bool,
    first: usize,
    [depth, vectors]: [usize; 2],
    left: Left<'_>,
    right: &[S::f32s],
    out: &mut [S::f32s],
) {
    // Plain counting everywhere: iterators are not always inlined into code for other instructions,
    // and these sums must stay in registers.
    let mut sums = [[simd.splat_f32s(0.0); N]; R];
    let mut d = 0;
    while d < depth {
        let row = &right[d * vectors..][..N];
        let at = first * left.rows + d * left.depths;
        let mut r = 0;
        while r < R {
            let value = simd.splat_f32s(left.data[at + r * left.rows]);
            let mut n = 0;
            while n < N {
                sums[r][n] = simd.mul_add_e_f32s(value, row[n], sums[r][n]);
                n += 1;
            }
            r += 1;
        }
        d += 1;
    }
    let mut r = 0;
    while r < R {
        let row = &mut out[(first + r) * vectors..][..N];
        let mut n = 0;
        while n < N {
            row[n] = if add {
                simd.add_f32s(row[n], sums[r][n])
            } else {
                sums[r][n]
            };
            n += 1;
        }
        r += 1;
    }
}
