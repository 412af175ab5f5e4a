//! TensorFlow Serving's gRPC services.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Tensor;
use model::codec::Encoding;
use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::manager::{Manager, Wanted};
use crate::predict::{predict, signature_name};
use crate::proto::model_service_server::ModelService;
use crate::proto::model_spec::VersionChoice;
use crate::proto::prediction_service_server::PredictionService;
use crate::proto::{
    ClassificationRequest, ClassificationResponse, GetModelMetadataRequest,
    GetModelMetadataResponse, GetModelStatusRequest, GetModelStatusResponse, ModelSpec,
    MultiInferenceRequest, MultiInferenceResponse, PredictRequest, PredictResponse,
    RegressionRequest, RegressionResponse, ReloadConfigRequest, ReloadConfigResponse,
    SignatureDefMap,
};
use crate::status::Failure;

/// The one metadata field that there is.
pub(crate) const SIGNATURE_FIELD: &str = "signature_def";
const SIGNATURE_MAP_URL: &str = "type.googleapis.com/tensorflow.serving.SignatureDefMap";

/// Both services over one manager.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub(crate) manager: Arc<Manager>,
}

fn wanted(spec: &ModelSpec) -> Wanted {
    match &spec.version_choice {
        None => Wanted::Latest,
        Some(VersionChoice::Version(version)) => Wanted::Version(*version),
        Some(VersionChoice::VersionLabel(label)) => Wanted::Label(label.clone()),
    }
}

/// What a request asked, with the version that answered.
fn answered(name: String, version: i64, signature_name: String) -> ModelSpec {
    ModelSpec {
        name,
        version_choice: Some(VersionChoice::Version(version)),
        signature_name,
    }
}

impl Services {
    async fn answer(&self, request: PredictRequest) -> Result<PredictResponse, Failure> {
        let spec = request.model_spec.unwrap_or_default();
        let servable = self.manager.find(&spec.name, &wanted(&spec))?;
        let version = servable.version;
        let signature = signature_name(&spec.signature_name).to_owned();
        let mut inputs = BTreeMap::new();
        for (name, proto) in &request.inputs {
            let tensor = Tensor::from_proto(proto)
                .map_err(|error| Failure::invalid(format!("input {name:?}: {error}")))?;
            inputs.insert(name.clone(), tensor);
        }
        let answer = predict(servable, signature.clone(), inputs, request.output_filter).await?;
        let outputs = answer
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.to_proto(Encoding::Fields)));
        Ok(PredictResponse {
            outputs: outputs.collect(),
            model_spec: Some(answered(spec.name, version, signature)),
        })
    }

    fn metadata(
        &self,
        request: GetModelMetadataRequest,
    ) -> Result<GetModelMetadataResponse, Failure> {
        let spec = request.model_spec.unwrap_or_default();
        if request.metadata_field.is_empty() {
            return Err(Failure::invalid(format!(
                "GetModelMetadataRequest must specify at least one metadata_field; known is {SIGNATURE_FIELD}"
            )));
        }
        if let Some(other) = request
            .metadata_field
            .iter()
            .find(|field| *field != SIGNATURE_FIELD)
        {
            return Err(Failure::invalid(format!(
                "Metadata field {other} is not supported; known is {SIGNATURE_FIELD}"
            )));
        }
        let servable = self.manager.find(&spec.name, &wanted(&spec))?;
        let map = SignatureDefMap {
            signature_def: servable
                .model
                .signatures()
                .map(|(name, signature)| (name.to_owned(), signature.to_proto()))
                .collect(),
        };
        let any = prost_types::Any {
            type_url: SIGNATURE_MAP_URL.to_owned(),
            value: map.encode_to_vec(),
        };
        Ok(GetModelMetadataResponse {
            model_spec: Some(answered(spec.name, servable.version, String::new())),
            metadata: BTreeMap::from([(SIGNATURE_FIELD.to_owned(), any)]),
        })
    }
}

#[tonic::async_trait]
impl PredictionService for Services {
    async fn classify(
        &self,
        _: Request<ClassificationRequest>,
    ) -> Result<Response<ClassificationResponse>, Status> {
        Err(Failure::unimplemented("Classify").into())
    }

    async fn regress(
        &self,
        _: Request<RegressionRequest>,
    ) -> Result<Response<RegressionResponse>, Status> {
        Err(Failure::unimplemented("Regress").into())
    }

    async fn predict(
        &self,
        request: Request<PredictRequest>,
    ) -> Result<Response<PredictResponse>, Status> {
        Ok(Response::new(self.answer(request.into_inner()).await?))
    }

    async fn multi_inference(
        &self,
        _: Request<MultiInferenceRequest>,
    ) -> Result<Response<MultiInferenceResponse>, Status> {
        Err(Failure::unimplemented("MultiInference").into())
    }

    async fn get_model_metadata(
        &self,
        request: Request<GetModelMetadataRequest>,
    ) -> Result<Response<GetModelMetadataResponse>, Status> {
        Ok(Response::new(self.metadata(request.into_inner())?))
    }
}

#[tonic::async_trait]
impl ModelService for Services {
    async fn get_model_status(
        &self,
        request: Request<GetModelStatusRequest>,
    ) -> Result<Response<GetModelStatusResponse>, Status> {
        let spec = request.into_inner().model_spec.unwrap_or_default();
        let model_version_status = self.manager.statuses(&spec.name, &wanted(&spec))?;
        Ok(Response::new(GetModelStatusResponse {
            model_version_status,
        }))
    }

    async fn handle_reload_config_request(
        &self,
        _: Request<ReloadConfigRequest>,
    ) -> Result<Response<ReloadConfigResponse>, Status> {
        Err(Failure::unimplemented("HandleReloadConfigRequest").into())
    }
}
