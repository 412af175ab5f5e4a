//! Winograd's convolution against the matrix products over patches.

use super::*;
use crate::kernels::{Conv2dScratch, Padding};

/// Numbers between -1 and 1 without a pattern that a transform could cancel.
fn numbers(count: usize, salt: u32) -> Vec<f32> {
    let mut state = salt.wrapping_mul(0x9e37_79b9) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn assert_close(found: &[f32], wanted: &[f32], what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let scale = wanted
        .iter()
        .fold(1.0_f32, |max, value| max.max(value.abs()));
    for (i, (a, b)) in found.iter().zip(wanted).enumerate() {
        assert!(
            (a - b).abs() <= 1e-5 * scale,
            "{what} at {i}: {a} against {b}, largest {scale}"
        );
    }
}

#[test]
fn it_agrees_with_the_products_over_patches() {
    let cases = [
        ([14, 14, 32], [5, 5, 32, 64], Padding::Same),
        ([9, 7, 16], [5, 5, 16, 48], Padding::Same),
        ([11, 13, 48], [5, 5, 48, 16], Padding::Valid),
    ];
    for (input, kernel, padding) in cases {
        let conv = Conv2d::new(input, kernel, [1, 1], padding).unwrap();
        let winograd = Winograd::new(&conv).unwrap();
        let (images, outputs) = (3 * conv.input_len(), 3 * conv.output_len());
        let image = numbers(images, 1);
        let weights = numbers(conv.kernel_len(), 2);
        let slopes = numbers(outputs, 3);
        let mut wanted = (
            vec![0.0; outputs],
            vec![0.0; images],
            vec![1.0; weights.len()],
        );
        let mut scratch = Conv2dScratch::default();
        for at in 0..3 {
            let image = &image[at * conv.input_len()..][..conv.input_len()];
            let slopes = &slopes[at * conv.output_len()..][..conv.output_len()];
            let output = &mut wanted.0[at * conv.output_len()..][..conv.output_len()];
            conv.forward(image, &weights, output, &mut scratch);
            let gradient = &mut wanted.1[at * conv.input_len()..][..conv.input_len()];
            conv.backward_image(&weights, slopes, gradient, &mut scratch);
            conv.backward_kernel(image, slopes, &mut wanted.2, &mut scratch);
        }

        let mut scratch = WinogradScratch::default();
        let mut transformed = vec![9.0; winograd.transformed_len()];
        winograd.transform_kernel(&weights, &mut transformed);
        let mut found = vec![9.0; outputs];
        winograd.forward(&image, &transformed, &mut found, &mut scratch);
        assert_close(&found, &wanted.0, "output");
        let mut turned = vec![9.0; transformed.len()];
        winograd.turn_kernel(&transformed, &mut turned);
        let mut gradient = winograd.kernel_gradient();
        let mut found = vec![9.0; images];
        winograd.backward(
            &image,
            &turned,
            &slopes,
            &mut gradient,
            &mut found,
            &mut scratch,
        );
        assert_close(&found, &wanted.1, "image gradient");
        let mut found = vec![1.0; weights.len()];
        winograd.finish_gradient(&gradient, &mut found);
        assert_close(&found, &wanted.2, "kernel gradient");
    }
}

#[test]
fn other_convolutions_are_refused() {
    let measures = |kernel, strides| {
        Winograd::new(&Conv2d::new([14, 14, 16], kernel, strides, Padding::Same).unwrap())
    };
    assert!(measures([5, 5, 16, 16], [1, 1]).is_some());
    assert!(measures([5, 5, 16, 16], [2, 1]).is_none());
    assert!(measures([3, 5, 16, 16], [1, 1]).is_none());
    assert!(measures([5, 5, 16, 10], [1, 1]).is_none());
}
