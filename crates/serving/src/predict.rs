//! One prediction, the same for both protocols.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Tensor;
use model::signature::DEFAULT_SIGNATURE;

use crate::manager::Servable;
use crate::status::Failure;

/// Inputs of up to this many numbers are answered where the request was read; more would keep the
/// thread from its other connections.
const HERE: usize = 8192;

/// The signature that a request means.
pub(crate) fn signature_name(given: &str) -> &str {
    if given.is_empty() {
        DEFAULT_SIGNATURE
    } else {
        given
    }
}

/// Asks a servable.
pub(crate) async fn predict(
    servable: Arc<Servable>,
    signature: String,
    inputs: BTreeMap<String, Tensor>,
    filter: Vec<String>,
) -> Result<BTreeMap<String, Tensor>, Failure> {
    let numbers: usize = inputs.values().map(|tensor| tensor.values().len()).sum();
    let ask = move || {
        servable
            .model
            .predict(&signature, inputs, &filter)
            .map_err(Failure::from)
    };
    if numbers <= HERE {
        return ask();
    }
    match tokio::task::spawn_blocking(ask).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::error!("a prediction broke down: {error}");
            Err(Failure::internal("the prediction broke down"))
        }
    }
}
