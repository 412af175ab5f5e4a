//! Convolutions against their definition.

use super::*;

fn numbers(count: usize, salt: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * 31 + salt * 17) % 19) as f32 / 9.0 - 1.0)
        .collect()
}

/// Calls `visit` with the index of the image, kernel and output of each product of the definition.
fn each_product(conv: &Conv2d, mut visit: impl FnMut(usize, usize, usize)) {
    let [height, width, channels] = conv.input;
    let [out_height, out_width, filters] = conv.output();
    for oy in 0..out_height {
        for ox in 0..out_width {
            for ky in 0..conv.kernel[0] {
                for kx in 0..conv.kernel[1] {
                    let y = (oy * conv.strides[0] + ky).wrapping_sub(conv.front[0]);
                    let x = (ox * conv.strides[1] + kx).wrapping_sub(conv.front[1]);
                    if y >= height || x >= width {
                        continue;
                    }
                    for c in 0..channels {
                        for f in 0..filters {
                            visit(
                                (y * width + x) * channels + c,
                                ((ky * conv.kernel[1] + kx) * channels + c) * filters + f,
                                (oy * out_width + ox) * filters + f,
                            );
                        }
                    }
                }
            }
        }
    }
}

fn assert_close(found: &[f32], wanted: &[f32], what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(wanted).enumerate() {
        assert!(
            (a - b).abs() <= 1e-3 * b.abs().max(1.0),
            "{what} at {i}: {a} against {b}"
        );
    }
}

#[test]
fn forward_and_backward_agree_with_the_definition() {
    let cases = [
        ([28, 28, 1], [5, 5, 1, 8], [1, 1], Padding::Same),
        // Directly, with pixels, taps and filters left over from the blocks.
        ([28, 28, 1], [5, 5, 1, 32], [1, 1], Padding::Same),
        ([9, 13, 2], [4, 3, 2, 48], [1, 1], Padding::Valid),
        ([14, 14, 32], [5, 5, 32, 16], [1, 1], Padding::Same),
        ([9, 7, 3], [3, 3, 3, 4], [2, 2], Padding::Same),
        ([8, 9, 20], [3, 3, 20, 4], [1, 2], Padding::Valid),
        ([9, 9, 20], [3, 3, 20, 4], [2, 1], Padding::Same),
        ([6, 6, 2], [2, 4, 2, 3], [1, 1], Padding::Same),
        ([5, 5, 2], [1, 1, 2, 3], [2, 2], Padding::Valid),
    ];
    for (input, kernel, strides, padding) in cases {
        let conv = Conv2d::new(input, kernel, strides, padding).unwrap();
        let image = numbers(conv.input_len(), 1);
        let weights = numbers(conv.kernel_len(), 2);
        let slope = numbers(conv.output_len(), 3);
        let mut output = vec![0.0; conv.output_len()];
        let mut image_slope = vec![0.0; conv.input_len()];
        let mut kernel_slope = vec![1.0; conv.kernel_len()];
        each_product(&conv, |i, k, o| {
            output[o] += image[i] * weights[k];
            image_slope[i] += slope[o] * weights[k];
            kernel_slope[k] += slope[o] * image[i];
        });

        let mut scratch = Conv2dScratch::default();
        let mut found = vec![9.0; conv.output_len()];
        conv.forward(&image, &weights, &mut found, &mut scratch);
        assert_close(&found, &output, "output");
        let mut found = vec![9.0; conv.input_len()];
        conv.backward_image(&weights, &slope, &mut found, &mut scratch);
        assert_close(&found, &image_slope, "image gradient");
        let mut found = vec![1.0; conv.kernel_len()];
        conv.backward_kernel(&image, &slope, &mut found, &mut scratch);
        assert_close(&found, &kernel_slope, "kernel gradient");
    }
}

#[test]
fn measures_that_do_not_fit_are_refused() {
    let valid = |input, kernel| Conv2d::new(input, kernel, [1, 1], Padding::Valid);
    assert_eq!(valid([4, 4, 1], [5, 5, 1, 1]), None);
    assert_eq!(valid([8, 8, 2], [5, 5, 1, 1]), None);
    assert_eq!(
        Conv2d::new([8, 8, 1], [3, 3, 1, 1], [0, 1], Padding::Same),
        None
    );
}
