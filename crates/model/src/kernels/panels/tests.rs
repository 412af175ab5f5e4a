//! Panels against the definition of a dense layer.

use super::*;

fn numbers(count: usize, salt: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * 37 + salt * 13) % 29) as f32 / 14.0 - 1.0)
        .collect()
}

fn assert_close(found: &[f32], wanted: &[f32], what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(wanted).enumerate() {
        assert!((a - b).abs() < 1e-3, "{what} at {i}: {a} against {b}");
    }
}

#[test]
fn a_layer_in_panels_agrees_with_its_definition() {
    const TILE: usize = 11;
    let (rows, depth, outputs) = (13, 27 * PANEL, 2 * TILE);
    let inputs = numbers(rows * depth, 1);
    let weights = numbers(depth * outputs, 2);
    // One row for each output; three quarters are zero.
    let mut slopes = numbers(outputs * rows, 3);
    for (at, slope) in slopes.iter_mut().enumerate() {
        if at % 4 != 1 {
            *slope = 0.0;
        }
    }
    let mut products = vec![0.0; outputs * rows];
    let mut input_gradient = vec![0.0; rows * depth];
    let mut weight_gradient = vec![0.0; depth * outputs];
    for o in 0..outputs {
        for r in 0..rows {
            for d in 0..depth {
                products[o * rows + r] += inputs[r * depth + d] * weights[d * outputs + o];
                input_gradient[r * depth + d] += slopes[o * rows + r] * weights[d * outputs + o];
                weight_gradient[d * outputs + o] += slopes[o * rows + r] * inputs[r * depth + d];
            }
        }
    }

    let panels = into_panels(&weights, outputs);
    assert_eq!(from_panels(&panels, outputs), weights);
    let mut found = vec![9.0; outputs * rows];
    let (one, other) = found.split_at_mut(5 * rows);
    panel_products(&inputs, &panels, outputs, 0, one, rows);
    panel_products(&inputs, &panels, outputs, 5, other, rows);
    assert_close(&found, &products, "products");

    let mut by_output = [0, 1].map(|_| Sparse::new(TILE, rows));
    let mut by_row = [0, 1].map(|_| Sparse::new(rows, TILE));
    for (tile, slopes) in slopes.chunks_exact(TILE * rows).enumerate() {
        by_output[tile].fill(slopes);
        by_row[tile].fill_from_columns(slopes);
    }
    let mut found = panels.clone();
    for (panel, weights) in found.chunks_exact_mut(PANEL * outputs).enumerate() {
        let mut gradient = vec![9.0; rows * PANEL];
        panel_input_gradient(weights, by_row.iter(), &mut gradient);
        let mut panel_inputs = Vec::new();
        for r in 0..rows {
            let at = r * depth + panel * PANEL;
            panel_inputs.extend_from_slice(&inputs[at..at + PANEL]);
            let wanted = &input_gradient[at..at + PANEL];
            assert_close(&gradient[r * PANEL..][..PANEL], wanted, "input gradient");
        }
        let mut alone = vec![9.0; weights.len()];
        for (tile, slopes) in by_output.iter().enumerate() {
            panel_weight_gradient(&panel_inputs, slopes, tile * TILE, -0.5, true, weights);
            panel_weight_gradient(&panel_inputs, slopes, tile * TILE, 2.0, false, &mut alone);
        }
        for (moved, gradient) in weights.iter_mut().zip(alone) {
            *moved += gradient / 4.0;
        }
    }
    // Half the gradient was taken away, and twice a quarter of it given back.
    assert_close(&from_panels(&found, outputs), &weights, "weights");
    let first = into_panels(&weight_gradient, outputs);
    let mut alone = vec![9.0; PANEL * outputs];
    let panel_inputs: Vec<f32> = (0..rows)
        .flat_map(|r| inputs[r * depth..][..PANEL].to_vec())
        .collect();
    for (tile, slopes) in by_output.iter().enumerate() {
        panel_weight_gradient(&panel_inputs, slopes, tile * TILE, 1.0, false, &mut alone);
    }
    assert_close(&alone, &first[..PANEL * outputs], "weight gradient");
}
