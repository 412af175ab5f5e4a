//! Asking a model server over gRPC.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::proto::tensor_shape_proto::Dim;
use model::proto::{DataType, TensorProto, TensorShapeProto};
use serving::proto::model_spec::VersionChoice;
use serving::proto::prediction_service_client::PredictionServiceClient;
use serving::proto::{ModelSpec, PredictRequest};
use stdx::Clock;
use tonic::transport::{Channel, Endpoint};

use super::Target;
use crate::pod::Pod;

/// How long a model server may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);

/// What a model said.
#[derive(Debug, Clone)]
pub(super) struct Prediction {
    pub(super) version: i64,
    pub(super) class: i32,
    /// Ten of them.
    pub(super) probabilities: Vec<f32>,
    /// From sending the request to having the answer.
    pub(super) latency: Duration,
}

/// The model servers that were asked; their connections are kept.
#[derive(Debug)]
pub(super) struct Models {
    pod: Pod,
    channels: Mutex<HashMap<(String, u16), Channel>>,
}

impl Models {
    pub(super) fn new(pod: Pod) -> Self {
        Self {
            pod,
            channels: Mutex::default(),
        }
    }

    /// Asks `target` what digit an image shows.
    pub(super) async fn predict(
        &self,
        target: &Target,
        pixels: Vec<f32>,
        clock: &dyn Clock,
    ) -> Result<Prediction, String> {
        let port = target
            .port
            .trim()
            .parse::<NonZeroU16>()
            .map_err(|_| format!("port {:?} is not a port number (1 to 65535)", target.port))?;
        let address = (target.addr.trim().to_owned(), port.get());
        let channel = self.channel(&address, clock).await?;
        let request = request(&target.name, pixels);
        let before = clock.monotonic();
        let answer = PredictionServiceClient::new(channel).predict(request).await;
        let latency = clock.monotonic().saturating_sub(before);
        let response = answer.map_err(|status| {
            // The server may have moved; the next request looks it up again.
            self.forget(&address);
            format!("{}: {}", status.code(), status.message())
        })?;
        let response = response.into_inner();
        let output = |name: &str| {
            response.outputs.get(name).ok_or_else(|| {
                let known: Vec<&str> = response.outputs.keys().map(String::as_str).collect();
                format!(
                    "the model has no output {name:?} (it has: {})",
                    known.join(", ")
                )
            })
        };
        let class = output("classes")?;
        let class = class
            .int_val
            .first()
            .copied()
            .or_else(|| class.tensor_content.first().map(|byte| i32::from(*byte)));
        let probabilities = floats(output("predictions")?);
        if probabilities.len() != 10 {
            return Err(format!(
                "expected ten predictions, got {}",
                probabilities.len()
            ));
        }
        let version = response
            .model_spec
            .and_then(|spec| match spec.version_choice {
                Some(VersionChoice::Version(version)) => Some(version),
                Some(VersionChoice::VersionLabel(_)) | None => None,
            });
        Ok(Prediction {
            version: version.ok_or("the server did not say its model's version")?,
            class: class.ok_or("output \"classes\" is empty")?,
            probabilities,
            latency,
        })
    }

    async fn channel(&self, address: &(String, u16), clock: &dyn Clock) -> Result<Channel, String> {
        if let Some(channel) = self.channels().get(address) {
            return Ok(channel.clone());
        }
        let (host, port) = address;
        let trouble = |why: &str| format!("cannot reach {host}:{port}: {why}");
        let found = tokio::select! {
            found = self.pod.resolve(host, *port) => found.map_err(|e| trouble(&e.to_string()))?,
            () = clock.sleep(CONNECT) => return Err(trouble("looking up the name took too long")),
        };
        let mut why = "the name has no address".to_owned();
        for address_found in found {
            match connect(address_found).await {
                Ok(channel) => {
                    self.channels().insert(address.clone(), channel.clone());
                    return Ok(channel);
                }
                Err(problem) => why = problem,
            }
        }
        Err(trouble(&why))
    }

    fn forget(&self, address: &(String, u16)) {
        self.channels().remove(address);
    }

    fn channels(&self) -> std::sync::MutexGuard<'_, HashMap<(String, u16), Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(address: SocketAddr) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| error.to_string())?
        .connect_timeout(CONNECT)
        .timeout(PATIENCE)
        .tcp_nodelay(true);
    let connected = endpoint.connect().await;
    connected.map_err(|error| stdx::error::chain(&error))
}

fn request(name: &str, pixels: Vec<f32>) -> PredictRequest {
    let dim = |size: i64| Dim {
        size,
        name: String::new(),
    };
    let shape = TensorShapeProto {
        dim: vec![dim(1), dim(pixels.len() as i64)],
        unknown_rank: false,
    };
    let tensor = TensorProto {
        dtype: DataType::DtFloat as i32,
        tensor_shape: Some(shape),
        float_val: pixels,
        ..TensorProto::default()
    };
    PredictRequest {
        model_spec: Some(ModelSpec {
            name: name.to_owned(),
            signature_name: "serving_default".to_owned(),
            version_choice: None,
        }),
        inputs: BTreeMap::from([("x".to_owned(), tensor)]),
        output_filter: Vec::new(),
    }
}

/// A float tensor in either of its two encodings.
fn floats(tensor: &TensorProto) -> Vec<f32> {
    if tensor.tensor_content.is_empty() {
        return tensor.float_val.clone();
    }
    tensor
        .tensor_content
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect()
}
