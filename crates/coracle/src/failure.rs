//! What a command says when it cannot do its work: a message, a hint, an exit code.

use std::fmt;

/// The result of a command.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Exit codes; scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The run (or another job that was asked for) failed.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// No server answers.
    Unreachable = 3,
    /// Something about this machine is in the way.
    Environment = 4,
}

/// Why a command gave up.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    message: String,
    hint: Option<String>,
}

impl Failure {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// A job failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Code::Failed, message)
    }

    /// The command line makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    /// No server answers.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Code::Unreachable, message)
    }

    /// Something about this machine is in the way.
    pub(crate) fn environment(message: impl Into<String>) -> Self {
        Self::new(Code::Environment, message)
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What to do about it.
    pub(crate) fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Turns an error of a library into a failure that says what was attempted.
pub(crate) fn attempting<E: std::error::Error>(what: &str) -> impl FnOnce(E) -> Failure + '_ {
    move |error| Failure::environment(format!("{what}: {}", stdx::error::chain(&error)))
}
