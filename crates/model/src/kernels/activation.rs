//! Softmax, the loss, arg max, ReLU's gradient and dropout.

use super::wide;

/// Makes each row of `columns` numbers a distribution.
pub fn softmax_in_place(values: &mut [f32], columns: usize) {
    for row in values.chunks_exact_mut(columns.max(1)) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for value in row.iter_mut() {
            *value = (*value - max).exp();
            sum += *value;
        }
        for value in row.iter_mut() {
            *value /= sum;
        }
    }
}

/// The position of the largest number of a row, the first if there are several.
pub fn arg_max(row: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = index;
        }
    }
    best
}

/// Turns logits (one row per label) into the gradient of the mean cross-entropy; answers that mean
/// and how many rows have their largest number at the label.
pub fn softmax_cross_entropy(logits: &mut [f32], labels: &[u8], columns: usize) -> (f64, usize) {
    let scale = 1.0 / labels.len().max(1) as f32;
    let mut loss = 0.0;
    let mut correct = 0;
    for (row, &label) in logits.chunks_exact_mut(columns).zip(labels) {
        let label = label as usize;
        correct += usize::from(arg_max(row) == label);
        softmax_in_place(row, columns);
        // Not `max`, which would hide what is not a number.
        let likely = if row[label] < f32::MIN_POSITIVE {
            f32::MIN_POSITIVE
        } else {
            row[label]
        };
        loss -= f64::from(likely).ln();
        row[label] -= 1.0;
        for value in row.iter_mut() {
            *value *= scale;
        }
    }
    (loss * f64::from(scale), correct)
}

/// Passes a gradient back through a ReLU (and a dropout behind it): where the output is zero it
/// becomes zero, elsewhere it is multiplied by `scale`.
pub fn relu_gradient(output: &[f32], gradient: &mut [f32], scale: f32) {
    wide(
        #[inline(always)]
        || {
            for (slope, &value) in gradient.iter_mut().zip(output) {
                *slope = if value > 0.0 { *slope * scale } else { 0.0 };
            }
        },
    );
}

/// Sets numbers to zero at random and multiplies the rest so that the expected sum stays. Which
/// ones depends on `key` and the position alone.
pub fn dropout_in_place(values: &mut [f32], keep: f32, key: u64) {
    let limit = (f64::from(keep.clamp(0.0, 1.0)) * 65536.0) as u64;
    let scale = if keep > 0.0 { 1.0 / keep } else { 0.0 };
    for (index, chunk) in values.chunks_mut(4).enumerate() {
        // SplitMix64: 16 bits for each of four numbers.
        let mut bits = key.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        for value in chunk {
            *value = if bits & 0xffff < limit {
                *value * scale
            } else {
                0.0
            };
            bits >>= 16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_stands_large_numbers_and_sums_to_one() {
        let mut rows = [1000.0, 1001.0, 1002.0, -5.0, -5.0, -5.0];
        softmax_in_place(&mut rows, 3);
        assert!((rows[2] - 0.665_240_94).abs() < 1e-6);
        assert!((rows[3..].iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(arg_max(&[1.0, 3.0, 3.0]), 1);
    }

    #[test]
    fn the_gradient_of_the_loss_is_its_slope() {
        let logits = [0.5, -1.0, 2.0, 0.1, 0.2, 0.3];
        let labels = [2, 0];
        let mut gradient = logits;
        let (loss, correct) = softmax_cross_entropy(&mut gradient, &labels, 3);
        assert_eq!(correct, 1);
        assert!(loss > 0.0);
        for i in 0..logits.len() {
            let at = |step: f32| {
                let mut moved = logits;
                moved[i] += step;
                softmax_cross_entropy(&mut moved, &labels, 3).0
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!(
                (slope - f64::from(gradient[i])).abs() < 1e-4,
                "{i}: {slope}"
            );
        }
    }

    #[test]
    fn a_loss_is_finite_for_a_hopeless_guess_and_not_a_number_for_none() {
        let loss = |logits: [f32; 2]| softmax_cross_entropy(&mut logits.clone(), &[0], 2).0;
        assert!(loss([-500.0, 500.0]).is_finite());
        assert!(loss([f32::NAN, 0.0]).is_nan());
        assert!(loss([f32::INFINITY, 0.0]).is_nan());
    }

    #[test]
    fn dropout_keeps_its_share_and_repeats_itself() {
        let drop = |key| {
            let mut values = vec![1.0; 40_000];
            dropout_in_place(&mut values, 0.5, key);
            values
        };
        let kept = drop(7).iter().filter(|value| **value > 1.5).count();
        assert!((19_500..20_500).contains(&kept), "{kept}");
        assert_eq!(drop(7), drop(7));
        assert_ne!(drop(7), drop(8));
    }
}
