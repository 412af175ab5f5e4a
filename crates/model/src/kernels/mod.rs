//! Numeric kernels on slices of floats: matrix product, convolution, pooling, dense layers,
//! activations and the loss, forward and backward.
//!
//! Images are laid out as rows, columns, channels (channels fastest). Kernels that take scratch
//! memory never allocate. A kernel works on the calling thread; whoever has many images or blocks
//! splits them over rayon's pool. The one exception is a row times a large matrix, which a second
//! thread helps with. Sizes that do not fit are bugs of the caller and panic.

mod activation;
mod conv;
mod dense;
mod direct;
mod matmul;
mod panels;
mod pool;
mod tile;
mod winograd;

pub use activation::{
    arg_max, dropout_in_place, relu_gradient, softmax_cross_entropy, softmax_in_place,
};
pub use conv::{Conv2d, Conv2dScratch, Padding};
pub use dense::{add_bias, add_bias_relu, dense, sum_rows};
pub use matmul::{Matrix, MatrixMut, matmul};
pub use panels::{
    PANEL, Sparse, from_panels, into_panels, panel_input_gradient, panel_products,
    panel_weight_gradient,
};
pub use pool::{MaxPool, max_pool_bias_relu, max_pool_bias_relu_indexed, unpool};
pub use winograd::{KernelGradient, Winograd, WinogradScratch};

/// Runs a loop with the widest instructions that this machine has.
pub fn wide<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}
