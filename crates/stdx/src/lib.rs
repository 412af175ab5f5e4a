//! What the standard library lacks and every crate here needs: time and randomness behind traits,
//! supervised tasks, back-off, whole-file writes and error chains.
//!
//! Nothing in here knows a word of Kubernetes, Kubeflow or machine learning. Entry types: [`Clock`],
//! [`Rng`], [`Supervisor`]. Invariant: these are the only places of the workspace that read the
//! operating system's clock or its randomness, so a test can drive both.

pub mod backoff;
pub mod clock;
pub mod error;
pub mod fs;
pub mod rng;
pub mod supervisor;

pub use backoff::Backoff;
pub use clock::{Clock, ManualClock, SharedClock, SystemClock};
pub use rng::{Rng, SeededRng, SharedRng, SystemRng};
pub use supervisor::{OnError, Supervisor};
