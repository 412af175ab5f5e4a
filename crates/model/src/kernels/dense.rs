//! Fully connected layers: `output = input * weights + bias`, and the bias helpers.

use super::matmul::{Matrix, MatrixMut, matmul};
use super::wide;

/// Up to this many rows are multiplied one by one: reading the weights is what costs then.
const FEW_ROWS: usize = 2;

/// `output = input * weights (+ bias)` for any number of rows.
pub fn dense(
    input: &[f32],
    weights: &[f32],
    bias: Option<&[f32]>,
    output: &mut [f32],
    columns: usize,
) {
    if columns == 0 || output.is_empty() {
        return;
    }
    let rows = output.len() / columns;
    let depth = weights.len() / columns;
    if rows <= FEW_ROWS {
        for (input, output) in input
            .chunks_exact(depth.max(1))
            .zip(output.chunks_exact_mut(columns))
        {
            shared_row_product(input, weights, columns, output);
        }
    } else {
        matmul(
            MatrixMut::new(output, rows, columns),
            0.0,
            Matrix::new(input, rows, depth),
            Matrix::new(weights, depth, columns),
            1.0,
        );
    }
    if let Some(bias) = bias {
        add_bias(output, bias);
    }
}

/// A row times a matrix, a large one with the help of a second thread: reading it is what takes the
/// time, and two cores read faster than one. The parts depend on the input alone, and so does the
/// result.
fn shared_row_product(input: &[f32], weights: &[f32], columns: usize, output: &mut [f32]) {
    /// Weights that one thread reads before another one is awake.
    const MANY: usize = 1 << 19;
    /// The share of the work that this thread does: a bit more than half, because it begins while
    /// the other one wakes up.
    const SHARE: [usize; 2] = [4, 7];
    if weights.len() < MANY || rayon::current_num_threads() < 2 {
        row_product(input, weights, columns, output);
        return;
    }
    let count = input.iter().filter(|value| **value != 0.0).count();
    let ours = count * SHARE[0] / SHARE[1];
    let mut seen = 0;
    let middle = input.iter().position(|value| {
        seen += usize::from(*value != 0.0);
        seen > ours
    });
    let middle = middle.unwrap_or(input.len());
    let (front, back) = input.split_at(middle);
    let (front_weights, back_weights) = weights.split_at(middle * columns);
    let mut other = vec![0.0; columns];
    rayon::in_place_scope(|scope| {
        scope.spawn(|_| row_product(back, back_weights, columns, &mut other));
        row_product(front, front_weights, columns, output);
    });
    sum_rows(&other, output);
}

/// A row times a matrix. Rows of weights that meet a zero are not read: after a ReLU that is half
/// of them.
fn row_product(input: &[f32], weights: &[f32], columns: usize, output: &mut [f32]) {
    const TOGETHER: usize = 4;
    wide(
        #[inline(always)]
        || {
            output.fill(0.0);
            let row = |index: usize| &weights[index * columns..][..columns];
            let mut rows = [0_usize; TOGETHER];
            let mut count = 0;
            for (index, &value) in input.iter().enumerate() {
                if value == 0.0 {
                    continue;
                }
                rows[count] = index;
                count += 1;
                if count == TOGETHER {
                    count = 0;
                    let (a, b, c, d) = (row(rows[0]), row(rows[1]), row(rows[2]), row(rows[3]));
                    let (va, vb) = (input[rows[0]], input[rows[1]]);
                    let (vc, vd) = (input[rows[2]], input[rows[3]]);
                    for (i, sum) in output[..columns].iter_mut().enumerate() {
                        *sum += (va * a[i] + vb * b[i]) + (vc * c[i] + vd * d[i]);
                    }
                }
            }
            for &index in &rows[..count] {
                let value = input[index];
                for (sum, &weight) in output.iter_mut().zip(row(index)) {
                    *sum += value * weight;
                }
            }
        },
    );
}

/// Adds a bias to each row.
pub fn add_bias(values: &mut [f32], bias: &[f32]) {
    wide(
        #[inline(always)]
        || {
            for row in values.chunks_exact_mut(bias.len()) {
                for (value, &bias) in row.iter_mut().zip(bias) {
                    *value += bias;
                }
            }
        },
    );
}

/// Adds a bias to each row and cuts off at zero.
pub fn add_bias_relu(values: &mut [f32], bias: &[f32]) {
    wide(
        #[inline(always)]
        || {
            for row in values.chunks_exact_mut(bias.len()) {
                for (value, &bias) in row.iter_mut().zip(bias) {
                    *value = (*value + bias).max(0.0);
                }
            }
        },
    );
}

/// `sums += ` the sum of the rows: the way back of a bias.
pub fn sum_rows(values: &[f32], sums: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            for row in values.chunks_exact(sums.len()) {
                for (sum, &value) in sums.iter_mut().zip(row) {
                    *sum += value;
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_and_many_rows_agree_with_the_definition() {
        for (rows, depth, columns) in [(1, 7, 3), (2, 30, 5), (9, 30, 5), (1, 1030, 600)] {
            let number = |i: usize| ((i * 29 + 3) % 13) as f32 / 6.0 - 1.0;
            // Zeros, as after a ReLU.
            let input: Vec<f32> = (0..rows * depth).map(|i| number(i).max(0.0)).collect();
            let weights: Vec<f32> = (0..depth * columns).map(|i| number(i + 5)).collect();
            let bias: Vec<f32> = (0..columns).map(number).collect();
            let mut wanted = Vec::new();
            for r in 0..rows {
                for c in 0..columns {
                    let products = (0..depth).map(|d| {
                        f64::from(input[r * depth + d]) * f64::from(weights[d * columns + c])
                    });
                    wanted.push(products.sum::<f64>() + f64::from(bias[c]));
                }
            }
            let mut output = vec![9.0; rows * columns];
            dense(&input, &weights, Some(&bias), &mut output, columns);
            for (found, wanted) in output.iter().zip(&wanted) {
                assert!(
                    (f64::from(*found) - wanted).abs() < 1e-3,
                    "{found} against {wanted}"
                );
            }
        }
    }
}
