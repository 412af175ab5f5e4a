//! Models and what they are made of: the MNIST data, tensors, numeric kernels, a small graph of
//! operations with its executor, and the SavedModel format in both directions.
//!
//! Entry types: [`mnist::Dataset`] for data, [`network::Network`] for the two MNIST networks as
//! weights, [`SavedModel`] for a model with signatures that can be read, written and run. The
//! kernels stand on `gemm` and `rayon` and choose their instruction set when they run.
//! Invariant: a SavedModel written here is one that TensorFlow loads and agrees with.
//!
//! Absent: training loops (crate `trainer`), HTTP and gRPC (crate `serving`), and every operation
//! that a graph of this project does not need: reading such a graph is an error that names the
//! operation and its node.

pub mod idx;
pub mod mnist;

pub mod tensor;

pub mod kernels;

pub mod graph;
pub mod network;

pub mod codec;
pub mod saved_model;
pub mod signature;

pub use saved_model::SavedModel;
pub use signature::{Signature, TensorInfo};
pub use tensor::{DataType, Tensor};

/// The generated types of TensorFlow's wire format (`proto/`, written by `cargo xtask codegen`).
pub mod proto {
    #![expect(clippy::pedantic, reason = "generated code")]
    include!("generated/tensorflow.rs");
}
