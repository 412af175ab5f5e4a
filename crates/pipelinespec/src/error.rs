//! What can be wrong with a package, in words for the person who made it.

use std::fmt;

/// Where in a package something is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The line, counted from 1, if the package had one.
    pub line: Option<usize>,
    /// The field, such as `spec.templates[2].steps`.
    pub field: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.field),
            None => f.write_str(&self.field),
        }
    }
}

/// What is wrong with a package or with the parameters for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is too big.
    #[error("file size too large: the maximum is {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// It is neither YAML by its name nor an archive by its content.
    #[error("unexpected pipeline file format of {name:?}: expected .zip, .tar.gz, .json or YAML")]
    Format {
        /// The file's name.
        name: String,
    },
    /// The archive cannot be used.
    #[error("error extracting pipeline from the {kind} file: {message}")]
    Archive {
        /// `tarball` or `zip`.
        kind: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The text is not YAML.
    #[error("invalid YAML: {0}")]
    Yaml(String),
    /// There is no pipeline in it.
    #[error(
        "unknown template format: expected a KFP pipeline spec (with pipelineInfo.name and root) or an Argo Workflow (apiVersion argoproj.io/v1alpha1, kind Workflow){0}"
    )]
    NoPipeline(String),
    /// There is more than one pipeline in it.
    #[error("the package has more than one {0}; exactly one is allowed")]
    Several(&'static str),
    /// A field cannot be used.
    #[error("{place}: {reason}")]
    Field {
        /// Where.
        place: Place,
        /// Why.
        reason: String,
    },
    /// The pieces do not fit together.
    #[error("{0}")]
    Plan(engine::Problem),
    /// A parameter that the pipeline does not have.
    #[error(
        "unknown parameter {name:?}; the pipeline's parameters are: {}",
        list(known)
    )]
    UnknownParameter {
        /// The name.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// A parameter given twice, in two spellings or one.
    #[error("parameter {0:?} is given more than once")]
    RepeatedParameter(String),
    /// A parameter of the wrong type.
    #[error("parameter {name:?}: {mismatch}")]
    WrongType {
        /// The name.
        name: String,
        /// What was wanted and what was given.
        mismatch: engine::Mismatch,
    },
    /// A parameter that must have one of a few values.
    #[error("parameter {name:?} is {given}; allowed are: {}", list(allowed))]
    NotAllowed {
        /// The name.
        name: String,
        /// The value as JSON.
        given: String,
        /// The allowed values as JSON.
        allowed: Vec<String>,
    },
    /// A parameter of a kind that no run can be given.
    #[error("parameter {name:?} is of type {kind}, which a run cannot be given")]
    NotForRuns {
        /// The name.
        name: String,
        /// Its type.
        kind: engine::ParameterType,
    },
    /// Parameters without a default that were not given.
    #[error("these parameters have no default and were not given: {}", list(.0))]
    MissingParameters(Vec<String>),
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "(none)".to_owned()
    } else {
        names.join(", ")
    }
}
