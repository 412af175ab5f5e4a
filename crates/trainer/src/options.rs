//! The command line of the original's `/opt/model.py`.

use std::path::{Path, PathBuf};

use crate::optimizer::Optimizer;

/// Which network to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelType {
    /// The convolutional network.
    Cnn,
    /// Weighted sums of the pixels.
    Linear,
}

impl From<ModelType> for model::network::Kind {
    fn from(kind: ModelType) -> Self {
        match kind {
            ModelType::Cnn => Self::Cnn,
            ModelType::Linear => Self::Linear,
        }
    }
}

/// What to train, for how long, and where to put it.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The directory with the data; `None` is the built-in database.
    pub data_dir: Option<PathBuf>,
    /// Where checkpoints are kept; `None` keeps none.
    pub model_dir: Option<PathBuf>,
    /// The directory in which the exported version's directory is made.
    pub export_dir: PathBuf,
    /// The network.
    pub model_type: ModelType,
    /// How many steps.
    pub train_steps: u64,
    /// Images of one step.
    pub batch_size: usize,
    /// The learning rate.
    pub learning_rate: f32,
    /// How a gradient becomes a change of the weights.
    pub optimizer: Optimizer,
    /// Decides first weights, order of the images, and dropout; `None` draws one.
    pub seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data_dir: None,
            model_dir: None,
            export_dir: PathBuf::from("mnist/"),
            model_type: ModelType::Cnn,
            train_steps: 200,
            batch_size: 100,
            learning_rate: 0.01,
            optimizer: Optimizer::Sgd,
            seed: None,
        }
    }
}

/// Arguments that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UsageError {
    /// A flag at the end that needs a value.
    #[error("{flag} needs a value: {expected}")]
    Missing {
        /// The flag.
        flag: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A value that is not what the flag takes.
    #[error("{flag}: {value:?} is not {expected}")]
    Value {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
}

const FLAGS: &[(&str, &str)] = &[
    ("--tf-data-dir", "a directory"),
    ("--tf-model-dir", "a directory"),
    ("--tf-export-dir", "a directory"),
    ("--tf-model-type", "CNN or LINEAR"),
    ("--tf-train-steps", "a number of steps from 0"),
    ("--tf-batch-size", "a number of images from 1 to 10000"),
    ("--tf-learning-rate", "a number greater than 0"),
    ("--optimizer", "sgd, momentum or adam"),
    ("--seed", "a whole number from 0"),
];

impl Options {
    /// Reads `--flag value` and `--flag=value`; answers what was not understood besides. As in the
    /// original, that is ignored, and so is the path of the script in front.
    pub fn parse(args: &[String]) -> Result<(Self, Vec<String>), UsageError> {
        let mut options = Self::default();
        let mut ignored = Vec::new();
        let mut words = args.iter().map(String::as_str).peekable();
        while words.next_if(|word| is_program(word)).is_some() {}
        while let Some(word) = words.next() {
            let (flag, inline) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (word, None),
            };
            // The SDK of the tutorial's time writes some flags with underscores.
            let name = flag.replace('_', "-");
            let Some(&(flag, expected)) = FLAGS.iter().find(|(known, _)| *known == name) else {
                ignored.push(word.to_owned());
                continue;
            };
            let value = match inline {
                Some(value) => value,
                None => words.next().ok_or_else(|| UsageError::Missing {
                    flag: flag.to_owned(),
                    expected,
                })?,
            };
            options
                .set(flag, value.trim())
                .ok_or_else(|| UsageError::Value {
                    flag: flag.to_owned(),
                    value: value.to_owned(),
                    expected,
                })?;
        }
        Ok((options, ignored))
    }

    /// `None` if the value is not one for that flag.
    fn set(&mut self, flag: &str, value: &str) -> Option<()> {
        let directory = || (!value.is_empty()).then(|| PathBuf::from(value));
        match flag {
            "--tf-data-dir" => self.data_dir = directory(),
            "--tf-model-dir" => self.model_dir = directory(),
            "--tf-export-dir" => self.export_dir = directory()?,
            "--tf-model-type" => {
                self.model_type = match value.to_ascii_uppercase().as_str() {
                    "CNN" => ModelType::Cnn,
                    "LINEAR" => ModelType::Linear,
                    _ => return None,
                }
            }
            "--tf-train-steps" => self.train_steps = value.parse().ok()?,
            "--tf-batch-size" => {
                self.batch_size = value
                    .parse()
                    .ok()
                    .filter(|size| (1..=10_000).contains(size))?;
            }
            "--tf-learning-rate" => {
                self.learning_rate = value
                    .parse()
                    .ok()
                    .filter(|rate: &f32| rate.is_finite() && *rate > 0.0)?;
            }
            "--optimizer" => {
                self.optimizer = match value.to_ascii_lowercase().as_str() {
                    "sgd" => Optimizer::Sgd,
                    "momentum" => Optimizer::Momentum,
                    "adam" => Optimizer::Adam,
                    _ => return None,
                }
            }
            "--seed" => self.seed = Some(value.parse().ok()?),
            _ => return None,
        }
        Some(())
    }
}

/// `/opt/model.py`, also behind an interpreter.
fn is_program(word: &str) -> bool {
    let name = word.rsplit('/').next().unwrap_or(word);
    !word.starts_with('-')
        && (Path::new(name)
            .extension()
            .is_some_and(|extension| extension == "py")
            || name.starts_with("python"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(Options, Vec<String>), UsageError> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::parse(&args)
    }

    #[test]
    fn the_tutorials_arguments_are_understood() {
        let (options, ignored) = parse(
            "/opt/model.py --tf-export-dir /mnt/export --tf-train-steps 200 --tf-batch-size 100 \
             --tf-learning-rate 0.01",
        )
        .unwrap();
        let wanted = Options {
            export_dir: PathBuf::from("/mnt/export"),
            ..Options::default()
        };
        assert_eq!((options, ignored.len()), (wanted, 0));
    }

    #[test]
    fn the_other_arguments_too_and_unknown_ones_are_handed_back() {
        let (options, ignored) = parse(
            "python3 /opt/model.py --verbose=1 --tf-model-type linear --optimizer=Adam --seed 7 \
             --tf-data-dir /data --tf_model_dir=/ckpt extra",
        )
        .unwrap();
        assert_eq!(options.model_type, ModelType::Linear);
        assert_eq!(
            (options.optimizer, options.seed),
            (Optimizer::Adam, Some(7))
        );
        assert_eq!(options.data_dir, Some(PathBuf::from("/data")));
        assert_eq!(options.model_dir, Some(PathBuf::from("/ckpt")));
        assert_eq!(ignored, ["--verbose=1", "extra"]);
    }

    #[test]
    fn a_bad_value_is_named_with_its_flag_and_what_is_allowed() {
        for (line, parts) in [
            (
                "--tf-train-steps ten",
                ["--tf-train-steps", "\"ten\"", "steps from 0"],
            ),
            (
                "--tf-train-steps -1",
                ["--tf-train-steps", "\"-1\"", "steps from 0"],
            ),
            (
                "--tf-batch-size 0",
                ["--tf-batch-size", "\"0\"", "1 to 10000"],
            ),
            (
                "--tf-learning-rate nan",
                ["--tf-learning-rate", "\"nan\"", "greater than 0"],
            ),
            (
                "--tf-learning-rate=-0.1",
                ["--tf-learning-rate", "\"-0.1\"", "greater than 0"],
            ),
            (
                "--tf-model-type RNN",
                ["--tf-model-type", "\"RNN\"", "CNN or LINEAR"],
            ),
            (
                "--optimizer lion",
                ["--optimizer", "\"lion\"", "sgd, momentum or adam"],
            ),
            (
                "--tf-export-dir",
                ["--tf-export-dir", "needs a value", "a directory"],
            ),
        ] {
            let text = parse(line).unwrap_err().to_string();
            for part in parts {
                assert!(text.contains(part), "{text:?} lacks {part:?}");
            }
        }
    }
}
