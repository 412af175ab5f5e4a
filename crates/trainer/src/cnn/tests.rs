//! Gradients against slopes, and training as a whole.

use super::*;
use model::mnist::test_set;
use model::network::Kind;

const PLAIN: Step = Step {
    rate: 0.0,
    keep: 1.0,
    dropout_key: 0,
};

fn batch(size: usize) -> (Vec<f32>, Vec<u8>) {
    let mut images = vec![0.0; size * PIXELS];
    for (at, image) in images.chunks_exact_mut(PIXELS).enumerate() {
        test_set().write_floats(at, image);
    }
    (images, (0..size).map(|at| test_set().label(at)).collect())
}

fn trainer(network: Network, optimizer: Optimizer, batch: usize) -> Cnn {
    let memory = network
        .parameters
        .iter()
        .map(|parameter| vec![0.0; parameter.values.len() * optimizer.memory()])
        .collect();
    Cnn::new(network, optimizer, memory, batch)
}

/// A network away from its start, and with biases away from zero: without one, the empty parts of
/// all images stand exactly on the edge of the ReLU.
fn network() -> Network {
    let (images, labels) = batch(32);
    let mut cnn = trainer(Network::initial(Kind::Cnn, 11), Optimizer::Adam, 32);
    for step in 1..=5 {
        let rate = Optimizer::Adam.rate(1e-3, step);
        cnn.step(&images, &labels, Step { rate, ..PLAIN });
    }
    let mut network = cnn.into_network();
    for bias in network
        .parameters
        .iter_mut()
        .filter(|parameter| parameter.shape.len() == 1)
    {
        for (at, value) in bias.values.iter_mut().enumerate() {
            *value += if at % 3 == 0 { -0.1 } else { 0.1 };
        }
    }
    network
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    let (images, labels) = batch(7);
    let start = network();
    // A dropout that stays the same is a fixed function too.
    let (keep, dropout_key) = (0.5, 99);
    let step = Step {
        rate: 1.0,
        keep,
        dropout_key,
    };
    let mut cnn = trainer(start.clone(), Optimizer::Sgd, 7);
    cnn.step(&images, &labels, step);
    for (index, parameter) in start.parameters.iter().enumerate() {
        let moved = &cnn.state().0.parameters[index].values;
        let gradient: Vec<f64> = parameter
            .values
            .iter()
            .zip(moved)
            .map(|(before, after)| f64::from(*before) - f64::from(*after))
            .collect();
        let length = gradient
            .iter()
            .map(|slope| slope * slope)
            .sum::<f64>()
            .sqrt();
        assert!(length > 1e-4, "{} has no gradient", parameter.name);
        // Along the gradient the loss must rise by the gradient's length, and along the slopes
        // of every third weight by that part of it.
        for every in [1, 3] {
            let direction: Vec<f64> = gradient
                .iter()
                .enumerate()
                .map(|(at, slope)| if at % every == 0 { slope / length } else { 0.0 })
                .collect();
            let wanted: f64 = direction.iter().zip(&gradient).map(|(d, g)| d * g).sum();
            let loss_at = |distance: f64| {
                let mut network = start.clone();
                for (value, along) in network.parameters[index].values.iter_mut().zip(&direction) {
                    *value = (f64::from(*value) + along * distance) as f32;
                }
                let still = Step { rate: 0.0, ..step };
                trainer(network, Optimizer::Sgd, 7)
                    .step(&images, &labels, still)
                    .loss
            };
            let distance = 2e-3 / length.max(0.2);
            let slope = (loss_at(distance) - loss_at(-distance)) / (2.0 * distance);
            assert!(
                (slope - wanted).abs() < 0.03 * wanted.abs() + 1e-3,
                "{} (keep {keep}): gradient {wanted}, slope {slope}",
                parameter.name
            );
        }
    }
}

#[test]
fn the_trainers_loss_is_the_exported_models() {
    let (images, labels) = batch(12);
    let mut cnn = trainer(network(), Optimizer::Sgd, 12);
    let report = cnn.step(&images, &labels, PLAIN);
    let x = model::Tensor::float(vec![12, PIXELS], images).unwrap();
    let answer = cnn
        .into_network()
        .into_saved_model()
        .predict("serving_default", [("x".to_owned(), x)].into(), &[])
        .unwrap();
    let scores = answer["predictions"]
        .as_floats()
        .unwrap()
        .chunks_exact(CLASSES);
    let loss: f64 = scores
        .zip(&labels)
        .map(|(row, &label)| -f64::from(row[label as usize]).ln())
        .sum();
    assert!(
        (loss / 12.0 - report.loss).abs() < 1e-5,
        "{loss} {}",
        report.loss
    );
    let classes = answer["classes"].as_uint8().unwrap();
    let correct = classes
        .iter()
        .zip(&labels)
        .filter(|(class, label)| class == label)
        .count();
    assert_eq!(correct, report.correct);
}

#[test]
fn every_optimizer_learns_a_batch_by_heart() {
    let (images, labels) = batch(20);
    for (optimizer, rate) in [
        (Optimizer::Sgd, 0.1),
        (Optimizer::Momentum, 0.02),
        (Optimizer::Adam, 1e-3),
    ] {
        let mut cnn = trainer(Network::initial(Kind::Cnn, 5), optimizer, 20);
        let mut losses = Vec::new();
        for step in 1..=25 {
            let rate = optimizer.rate(rate, step);
            let report = cnn.step(
                &images,
                &labels,
                Step {
                    rate,
                    keep: 0.5,
                    dropout_key: step,
                },
            );
            losses.push(report.loss);
        }
        assert!(losses[24] < losses[0] / 2.0, "{optimizer:?}: {losses:?}");
    }
}

#[test]
fn the_number_of_threads_does_not_change_the_weights() {
    let (images, labels) = batch(23);
    let train = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let mut cnn = trainer(Network::initial(Kind::Cnn, 3), Optimizer::Momentum, 23);
            for step in 0..3 {
                cnn.step(
                    &images,
                    &labels,
                    Step {
                        rate: 0.05,
                        keep: 0.5,
                        dropout_key: step,
                    },
                );
            }
            cnn.into_network()
        })
    };
    let one = train(1);
    assert!(one == train(1) && one == train(2) && one == train(5));
}
