//! The matrix product: a safe face for the `gemm` crate.

use gemm::Parallelism;

/// A matrix that is read: any two-dimensional pattern of strides over a slice.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

/// A matrix that is written; its rows are contiguous.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

fn extent(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> usize {
    if rows == 0 || columns == 0 {
        return 0;
    }
    let last_row = (rows - 1).checked_mul(row_stride);
    let last_column = (columns - 1).checked_mul(column_stride);
    last_row
        .zip(last_column)
        .and_then(|(row, column)| row.checked_add(column)?.checked_add(1))
        .expect("invariant: a matrix in memory has an extent that can be counted")
}

impl<'a> Matrix<'a> {
    /// A matrix of contiguous rows.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// A matrix whose rows start `row_stride` apart.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(
            extent(rows, columns, row_stride, 1) <= data.len(),
            "the matrix exceeds its slice"
        );
        Self {
            data,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// The same numbers with rows and columns exchanged.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

impl<'a> MatrixMut<'a> {
    /// A matrix of contiguous rows.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// A matrix whose rows start `row_stride` apart and do not overlap.
    pub fn strided(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(
            extent(rows, columns, row_stride, 1) <= data.len(),
            "the matrix exceeds its slice"
        );
        assert!(rows <= 1 || columns <= row_stride, "the rows overlap");
        Self {
            data,
            rows,
            columns,
            row_stride,
        }
    }
}

/// `out = keep * out + scale * a * b` on the calling thread; with `keep` 0 the old content of `out`
/// does not matter.
#[expect(unsafe_code, reason = "the gemm crate takes pointers")]
pub fn matmul(out: MatrixMut<'_>, keep: f32, a: Matrix<'_>, b: Matrix<'_>, scale: f32) {
    assert_eq!(
        (out.rows, out.columns, a.columns),
        (a.rows, b.columns, b.rows),
        "the matrices do not fit"
    );
    if out.rows == 0 || out.columns == 0 {
        return;
    }
    // SAFETY: the constructors have checked that every element of the three matrices lies within
    // its slice, `out` is borrowed exclusively and its rows do not overlap, and strides are far
    // below isize::MAX because slices are.
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            a.columns,
            out.data.as_mut_ptr(),
            1,
            out.row_stride as isize,
            keep != 0.0,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            keep,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 37 + 11) % 23) as f32 / 7.0 - 1.5)
            .collect()
    }

    #[test]
    fn the_product_agrees_with_the_sum_over_its_definition() {
        let (m, k, n) = (13, 29, 17);
        let (a, b) = (numbers(m * k), numbers(k * n));
        for (ta, tb, keep, scale) in [
            (false, false, 0.0, 1.0),
            (true, false, 1.0, -0.5),
            (false, true, 0.9, 1.0),
        ] {
            let left = if ta {
                Matrix::new(&a, k, m).transposed()
            } else {
                Matrix::new(&a, m, k)
            };
            let right = if tb {
                Matrix::new(&b, n, k).transposed()
            } else {
                Matrix::new(&b, k, n)
            };
            let before = numbers(m * n);
            let mut out = before.clone();
            matmul(MatrixMut::new(&mut out, m, n), keep, left, right, scale);
            for i in 0..m {
                for j in 0..n {
                    let sum: f32 = (0..k)
                        .map(|p| {
                            let x = if ta { a[p * m + i] } else { a[i * k + p] };
                            x * if tb { b[j * k + p] } else { b[p * n + j] }
                        })
                        .sum();
                    let want = keep * before[i * n + j] + scale * sum;
                    assert!((out[i * n + j] - want).abs() < 1e-4, "{i} {j}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "exceeds its slice")]
    fn a_matrix_larger_than_its_slice_is_a_bug() {
        let _ = Matrix::new(&[0.0; 5], 2, 3);
    }
}
