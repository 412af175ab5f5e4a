//! A training run from its options to the exported model.

use std::path::{Path, PathBuf};
use std::time::Duration;

use model::idx;
use model::mnist::{CLASSES, Dataset, PIXELS, Part};
use model::network::Network;
use model::saved_model::{self, PredictError, SavedModel};
use model::signature::DEFAULT_SIGNATURE;
use model::tensor::{ShapeError, Tensor};

use crate::batches::Batches;
use crate::checkpoint::{self, Checkpoint};
use crate::cnn::{Cnn, Report, Step};
use crate::linear::Linear;
use crate::options::{ModelType, Options};
use crate::tf_config::Role;
use crate::{Host, say};

/// The share of the hidden layer that dropout keeps.
const KEEP: f32 = 0.5;
/// At most this many steps pass between two checkpoints.
const CHECKPOINT_STEPS: u64 = 500;
/// Images of the test set that are judged together.
const TEST_BATCH: usize = 1000;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The environment names a role that makes no sense.
    #[error("TF_CONFIG: {reason}")]
    TfConfig {
        /// What is wrong.
        reason: String,
    },
    /// The data cannot be used.
    #[error("--tf-data-dir")]
    Data {
        /// What is wrong.
        #[source]
        source: idx::Error,
    },
    /// A checkpoint cannot be written or used.
    #[error("--tf-model-dir")]
    Checkpoint {
        /// What is wrong.
        #[source]
        source: checkpoint::Error,
    },
    /// The model cannot be exported.
    #[error("--tf-export-dir")]
    Export {
        /// What is wrong.
        #[source]
        source: saved_model::Error,
    },
    /// The loss is no number any more.
    #[error(
        "the loss is not a number after step {step}: the learning rate {learning_rate} is too large"
    )]
    Diverged {
        /// The step.
        step: u64,
        /// The learning rate.
        learning_rate: f32,
    },
    /// The trained model does not work.
    #[error("judge the model on the test set")]
    Judge {
        /// What is wrong.
        #[source]
        source: PredictError,
    },
    /// A batch of test images that is not one.
    #[error("judge the model on the test set")]
    Batch {
        /// What is wrong.
        #[source]
        source: ShapeError,
    },
}

/// What a run achieved.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The share of the test set that was told right; `None` if this process does not judge.
    pub accuracy: Option<f64>,
    /// The exported version's directory; `None` if this process does not export.
    pub exported: Option<PathBuf>,
    /// The last batch's report; `None` if no step was left to do.
    pub last: Option<Report>,
}

/// A network of either kind in training.
enum Trainer {
    Cnn(Box<Cnn>),
    Linear(Linear),
}

impl Trainer {
    fn step(&mut self, images: &[f32], labels: &[u8], step: Step) -> Report {
        match self {
            Self::Cnn(cnn) => cnn.step(images, labels, step),
            Self::Linear(linear) => linear.step(images, labels, step.rate),
        }
    }

    fn state(&mut self) -> (&Network, &[Vec<f32>]) {
        match self {
            Self::Cnn(cnn) => cnn.state(),
            Self::Linear(linear) => (linear.network(), linear.memory()),
        }
    }

    fn into_network(self) -> Network {
        match self {
            Self::Cnn(cnn) => cnn.into_network(),
            Self::Linear(linear) => linear.into_network(),
        }
    }
}

/// Trains, judges and exports.
pub fn run(options: &Options, host: &mut Host<'_>) -> Result<Outcome, Error> {
    let role = Role::from_tf_config(host.env.get("TF_CONFIG").map(String::as_str))
        .map_err(|reason| Error::TfConfig { reason })?;
    if let Role::Idle { name } = &role {
        say(
            host.log,
            format_args!("{name}: nothing to do, the chief keeps the parameters"),
        );
        return Ok(Outcome {
            accuracy: None,
            exported: None,
            last: None,
        });
    }
    let data_dir = options.data_dir.as_deref().map(host.resolve);
    // Both are read now, so that a broken file ends the run before the work.
    let (train, test) = rayon::join(
        || dataset(data_dir.as_deref(), Part::Train),
        || dataset(data_dir.as_deref(), Part::Test),
    );
    let (train, test) = (train?, test?);
    let export_dir = (host.resolve)(&options.export_dir);
    if role.is_chief() {
        check_writable(&export_dir).map_err(|source| Error::Export { source })?;
    }

    let model_dir = options
        .model_dir
        .as_deref()
        .filter(|_| role.is_chief())
        .map(|dir| (host.resolve)(dir));
    let start = begin(options, model_dir.as_deref(), host)?;
    let (first, seed) = (start.step, start.seed);
    say(
        host.log,
        format_args!(
            "{role}: {} on {} images, {} steps of {}, {} with learning rate {}, seed {seed}, {} threads",
            match options.model_type {
                ModelType::Cnn => "CNN",
                ModelType::Linear => "LINEAR",
            },
            train.len(),
            options.train_steps,
            options.batch_size,
            options.optimizer.name(),
            options.learning_rate,
            rayon::current_num_threads(),
        ),
    );

    let batch = options.batch_size;
    let optimizer = options.optimizer;
    let mut trainer = match options.model_type {
        ModelType::Cnn => Trainer::Cnn(Box::new(Cnn::new(
            start.network,
            optimizer,
            start.memory,
            batch,
        ))),
        ModelType::Linear => {
            Trainer::Linear(Linear::new(start.network, optimizer, start.memory, batch))
        }
    };
    let mut batches = Batches::new(seed, train.len());
    let (mut images, mut labels) = (vec![0.0; batch * PIXELS], vec![0; batch]);
    let began = host.clock.monotonic();
    let mut progress = Progress {
        every: (options.train_steps / 10).clamp(1, 100),
        step: first,
        at: began,
    };
    let mut last = None;
    for step in first..options.train_steps {
        batches.fill(step, &train, &mut images, &mut labels);
        let settings = Step {
            rate: optimizer.rate(options.learning_rate, step + 1),
            keep: KEEP,
            dropout_key: (seed ^ 0x5851_f42d_4c95_7f2d)
                .wrapping_add(step.wrapping_mul(0x2545_f491_4f6c_dd1d)),
        };
        let report = trainer.step(&images, &labels, settings);
        last = Some(report);
        let done = step + 1;
        if !report.loss.is_finite() {
            let learning_rate = options.learning_rate;
            return Err(Error::Diverged {
                step: done,
                learning_rate,
            });
        }
        progress.tell(done, options, report, host);
        if let Some(dir) = &model_dir
            && (done.is_multiple_of(CHECKPOINT_STEPS) || done == options.train_steps)
        {
            let (network, memory) = trainer.state();
            let path = checkpoint::save(dir, done, seed, network, optimizer, memory)
                .map_err(|source| Error::Checkpoint { source })?;
            say(host.log, format_args!("checkpoint {}", path.display()));
        }
    }
    let steps = options.train_steps.saturating_sub(first);
    let took = host.clock.monotonic().saturating_sub(began);
    say(
        host.log,
        format_args!(
            "training done: {steps} steps in {:.2} s",
            took.as_secs_f64()
        ),
    );
    // The memory of training is not needed any more, and the export needs some.
    drop((train, images, labels));
    if !role.is_chief() {
        say(host.log, format_args!("{role}: the chief exports"));
        return Ok(Outcome {
            accuracy: None,
            exported: None,
            last,
        });
    }

    let model = trainer.into_network().into_saved_model();
    let accuracy = judge(&model, &test)?;
    say(
        host.log,
        format_args!(
            "test accuracy {:.2} % on {} images",
            100.0 * accuracy,
            test.len()
        ),
    );
    let version = u64::try_from(host.clock.now().as_second()).unwrap_or(0);
    let exported = model
        .export(&export_dir, version)
        .map_err(|source| Error::Export { source })?;
    // The program's own view of the path, which is what its user knows.
    let name = exported.file_name().unwrap_or_default();
    say(
        host.log,
        format_args!(
            "exported the model to {}",
            options.export_dir.join(name).display()
        ),
    );
    Ok(Outcome {
        accuracy: Some(accuracy),
        exported: Some(exported),
        last,
    })
}

fn dataset(dir: Option<&Path>, part: Part) -> Result<Dataset, Error> {
    match dir {
        None => Ok(Dataset::embedded(part)),
        Some(dir) => Dataset::from_dir(dir, part).map_err(|source| Error::Data { source }),
    }
}

/// Fails now rather than after the training.
fn check_writable(dir: &Path) -> Result<(), saved_model::Error> {
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| saved_model::Error::Write { path, source }
    };
    std::fs::create_dir_all(dir).map_err(write(dir))?;
    let probe = dir.join(format!(".probe-{}", std::process::id()));
    std::fs::write(&probe, b"").map_err(write(dir))?;
    std::fs::remove_file(&probe).map_err(write(&probe))
}

/// The state to begin with: the latest checkpoint's or a new one.
fn begin(
    options: &Options,
    model_dir: Option<&Path>,
    host: &mut Host<'_>,
) -> Result<Checkpoint, Error> {
    let kind = options.model_type.into();
    if let Some(dir) = model_dir {
        let (found, skipped) = checkpoint::find(dir, kind, options.optimizer)
            .map_err(|source| Error::Checkpoint { source })?;
        for (path, reason) in skipped {
            say(
                host.log,
                format_args!("warning: not using {}: {reason}", path.display()),
            );
        }
        if let Some(found) = found {
            say(
                host.log,
                format_args!("going on from the checkpoint of step {}", found.step),
            );
            return Ok(found);
        }
    }
    let seed = options.seed.unwrap_or_else(|| host.rng.next_u64() >> 32);
    let network = Network::initial(kind, seed);
    let remembered = |values: &Vec<f32>| vec![0.0; values.len() * options.optimizer.memory()];
    let memory = network
        .parameters
        .iter()
        .map(|p| remembered(&p.values))
        .collect();
    Ok(Checkpoint {
        step: 0,
        seed,
        network,
        memory,
    })
}

/// The share of images that the model tells right.
fn judge(model: &SavedModel, test: &Dataset) -> Result<f64, Error> {
    let mut correct = 0;
    for first in (0..test.len()).step_by(TEST_BATCH) {
        let count = TEST_BATCH.min(test.len() - first);
        let mut pixels = vec![0.0; count * PIXELS];
        for (at, image) in pixels.chunks_exact_mut(PIXELS).enumerate() {
            test.write_floats(first + at, image);
        }
        let x =
            Tensor::float(vec![count, PIXELS], pixels).map_err(|source| Error::Batch { source })?;
        let outputs = model
            .predict(DEFAULT_SIGNATURE, [("x".to_owned(), x)].into(), &[])
            .map_err(|source| Error::Judge { source })?;
        let scores = outputs["predictions"]
            .as_floats()
            .unwrap_or_default()
            .chunks_exact(CLASSES);
        correct += scores
            .enumerate()
            .filter(|(at, row)| model::kernels::arg_max(row) == usize::from(test.label(first + at)))
            .count();
    }
    Ok(correct as f64 / test.len() as f64)
}

/// Tells how far a run is, every so many steps.
struct Progress {
    every: u64,
    /// When the last line was written.
    step: u64,
    at: Duration,
}

impl Progress {
    fn tell(&mut self, done: u64, options: &Options, report: Report, host: &mut Host<'_>) {
        if !done.is_multiple_of(self.every) && done != options.train_steps {
            return;
        }
        let now = host.clock.monotonic();
        let millis = now.saturating_sub(self.at).as_secs_f64() * 1e3;
        let per_step = millis / done.saturating_sub(self.step).max(1) as f64;
        (self.step, self.at) = (done, now);
        say(
            host.log,
            format_args!(
                "step {done}/{}: loss {:.4}, accuracy {:.2}, {per_step:.1} ms/step",
                options.train_steps,
                report.loss,
                report.correct as f64 / options.batch_size as f64,
            ),
        );
    }
}
