//! Fully connected layers: `output = input * weights + bias`, and the bias helpers.

use rayon::prelude::*;

use super::matmul::{Matrix, MatrixMut, matmul};
use super::wide;

/// Up to this many rows are multiplied one by one: reading the weights is what costs then.
const FEW_ROWS: usize = 2;
/// Weights of one row's product that are worth waking another thread for.
const PAR_WEIGHTS: usize = 1 << 19;
/// Columns of one piece of a row's product.
const PIECE: usize = 256;

/// `output = input * weights (+ bias)` for any number of rows.
pub fn dense(input: &[f32], weights: &[f32], bias: Option<&[f32]>, output: &mut [f32], columns: usize) {
    if columns == 0 || output.is_empty() {
        return;
    }
    let rows = output.len() / columns;
    let depth = weights.len() / columns;
    if rows <= FEW_ROWS {
        for (input, output) in input.chunks_exact(depth.max(1)).zip(output.chunks_exact_mut(columns)) {
            row_product(input, weights, columns, 0, output);
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

/// As [`dense`], for one row whose weights are many: split over rayon's threads.
pub fn par_dense(
    input: &[f32],
    weights: &[f32],
    bias: Option<&[f32]>,
    output: &mut [f32],
    columns: usize,
) {
    if output.len() != columns || weights.len() < PAR_WEIGHTS || rayon::current_num_threads() < 2 {
        return dense(input, weights, bias, output, columns);
    }
    output.par_chunks_mut(PIECE).enumerate().for_each(|(piece, output)| {
        row_product(input, weights, columns, piece * PIECE, output);
    });
    if let Some(bias) = bias {
        add_bias(output, bias);
    }
}

/// A row times some columns of a matrix. Rows of weights that meet a zero are not read: after a
/// ReLU that is half of them.
fn row_product(input: &[f32], weights: &[f32], columns: usize, first: usize, output: &mut [f32]) {
    const TOGETHER: usize = 4;
    let width = output.len();
    let row = |index: usize| &weights[index * columns + first..][..width];
    wide(|| {
        output.fill(0.0);
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
                let [a, b, c, d] = rows.map(row);
                let [va, vb, vc, vd] = rows.map(|index| input[index]);
                for (i, sum) in output.iter_mut().enumerate() {
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
    });
}

/// Adds a bias to each row.
pub fn add_bias(values: &mut [f32], bias: &[f32]) {
    wide(|| {
        for row in values.chunks_exact_mut(bias.len()) {
            for (value, &bias) in row.iter_mut().zip(bias) {
                *value += bias;
            }
        }
    });
}

/// Adds a bias to each row and cuts off at zero.
pub fn add_bias_relu(values: &mut [f32], bias: &[f32]) {
    wide(|| {
        for row in values.chunks_exact_mut(bias.len()) {
            for (value, &bias) in row.iter_mut().zip(bias) {
                *value = (*value + bias).max(0.0);
            }
        }
    });
}

/// `sums += ` the sum of the rows: the way back of a bias.
pub fn sum_rows(values: &[f32], sums: &mut [f32]) {
    wide(|| {
        for row in values.chunks_exact(sums.len()) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
    });
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
                    let products = (0..depth)
                        .map(|d| f64::from(input[r * depth + d]) * f64::from(weights[d * columns + c]));
                    wanted.push(products.sum::<f64>() + f64::from(bias[c]));
                }
            }
            for product in [dense, par_dense] {
                let mut output = vec![9.0; rows * columns];
                product(&input, &weights, Some(&bias), &mut output, columns);
                for (found, wanted) in output.iter().zip(&wanted) {
                    assert!((f64::from(*found) - wanted).abs() < 1e-3, "{found} against {wanted}");
                }
            }
        }
    }
}
