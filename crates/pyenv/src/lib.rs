//! Python for steps: which interpreter, which packages, and how a step gets to them without installing
//! anything itself.
//!
//! [`recognise`] reads the commands with which kfp's compilers install packages and start a function.
//! [`prepare`] turns such a command into one direct call of Python in an environment of the [`Cache`],
//! which is made if it is missing, by uv or pip, with its progress in the step's own log. It runs
//! inside the step's container ([`main`] is that program), so that it is killed with the Pod and the
//! server never waits for it.
//!
//! Invariant: an environment is published whole or not at all, and never changes afterwards. A
//! command that is not recognised runs as it is written.
//! Not here: images, Pods, mounts; what an executor does with its input.

mod bootstrap;
mod cache;
mod install;
mod interpreter;
mod make;
mod run;
mod seat;
mod shell;

pub use bootstrap::{Arg, Bootstrap, Program, Then, recognise, resembles};
pub use cache::{Cache, Environment, Maker, Wanted};
pub use install::Install;
pub use interpreter::{Interpreter, Minor, Places, choose, open_to_everyone};
pub use make::{Installer, Tool};
pub use run::{Prepared, main, prepare, wanted};
pub use seat::{Ambient, Seat, VARIABLE};

/// Where progress goes, line by line.
pub type Log<'a> = &'a mut dyn FnMut(&str);

/// Why a command cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A package cannot be had; the text names it and says what the index answered.
    #[error("{0}")]
    Package(String),
    /// There is nothing to install packages with.
    #[error(
        "packages cannot be installed for {interpreter}: it has neither pip nor ensurepip, and uv is \
         not in PATH"
    )]
    NoInstaller {
        /// The interpreter.
        interpreter: String,
    },
    /// A variable or a file is not what it should be.
    #[error("{0}")]
    Settings(String),
    /// Files.
    #[error("cannot {what}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}
