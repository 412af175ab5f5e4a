//! Where a run's artifacts are: the store, its settings, and the folder of each attempt.

use artifacts::{Providers, Stores, Uri};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::Shared;
use crate::journal::Record;

/// The bucket that Kubeflow Pipelines keeps everything in.
pub(super) const BUCKET: &str = "mlpipeline";
/// Where v2 artifacts go unless somebody says otherwise.
const DEFAULT_ROOT: &str = "minio://mlpipeline/v2/artifacts";
/// The ConfigMap with the settings of stores.
const SETTINGS: &str = "kfp-launcher";

/// Where artifacts go, for the steps of one namespace.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) stores: Stores,
    /// The pipeline root, unless the run or its pipeline has one.
    root: String,
}

impl Place {
    /// The default store alone, which is all that Workflows use.
    pub(super) fn of(shared: &Shared) -> Self {
        Self {
            namespace: shared.options.namespace.clone(),
            stores: shared.options.stores.clone(),
            root: DEFAULT_ROOT.to_owned(),
        }
    }

    /// With what the namespace's ConfigMap says.
    pub(super) async fn configured(shared: &Shared) -> Result<Self, String> {
        let mut place = Self::of(shared);
        let maps: Api<ConfigMap> = Api::namespaced(shared.client.clone(), &place.namespace);
        let found = match maps.get_opt(SETTINGS).await {
            Ok(found) => found,
            Err(error) => {
                return Err(format!(
                    "read ConfigMap {SETTINGS}: {}",
                    stdx::error::chain(&error)
                ));
            }
        };
        let data = found.and_then(|map| map.data).unwrap_or_default();
        if let Some(root) = data
            .get("defaultPipelineRoot")
            .filter(|root| !root.is_empty())
        {
            root.clone_into(&mut place.root);
        }
        if let Some(text) = data.get("providers").filter(|text| !text.trim().is_empty()) {
            let providers: Providers = serde_saphyr::from_str(text)
                .map_err(|error| format!("ConfigMap {SETTINGS}, key providers: {error}"))?;
            let root = place.stores.root().map(ToOwned::to_owned);
            place.stores = Stores::new(root, providers);
        }
        Ok(place)
    }

    /// The folder of everything that a run of a v2 pipeline makes.
    pub(super) fn folder_of_run(&self, record: &Record, settings: &Value) -> Result<Uri, String> {
        let root = pipeline_root(record, settings).unwrap_or(&self.root);
        let root = Uri::parse(root).map_err(|error| format!("pipeline root: {error}"))?;
        Ok(root
            .join(&pipeline_name(record, settings))
            .join(&record.run))
    }
}

/// A key of the default store.
pub(super) fn default_uri(bucket: Option<&str>, key: &str) -> Result<Uri, String> {
    let bucket = bucket.filter(|bucket| !bucket.is_empty()).unwrap_or(BUCKET);
    Uri::parse(&format!("minio://{bucket}/{key}")).map_err(|error| error.to_string())
}

/// The folder of an attempt of a Workflow's step, as Argo is configured to name it.
pub(super) fn attempt_of_workflow(record: &Record, pod: &str) -> Result<Uri, String> {
    let day = record.at.strftime("%Y/%m/%d");
    let key = format!("artifacts/{}/{day}/{pod}", record.workflow);
    default_uri(None, &key)
}

/// The name of the pipeline, as its author gave it.
pub(super) fn pipeline_name(record: &Record, settings: &Value) -> String {
    let text = |pointer: &str| settings.pointer(pointer).and_then(Value::as_str);
    let named = text("/pipeline/name")
        .or_else(|| text("/pipelineInfo/name"))
        .or_else(|| text("/pipelineName"));
    let named = named.filter(|name| !name.is_empty());
    named.map_or_else(|| record.workflow.clone(), ToOwned::to_owned)
}

fn pipeline_root<'a>(record: &'a Record, settings: &'a Value) -> Option<&'a str> {
    let of_run = record.facts.get("pipeline_root").and_then(Value::as_str);
    let of_pipeline = settings.get("defaultPipelineRoot").and_then(Value::as_str);
    let given = |root: &&str| !root.is_empty();
    of_run.filter(given).or_else(|| of_pipeline.filter(given))
}

/// A stable identifier for an attempt, shaped as a UUID.
pub(super) fn attempt_id(record: &Record, task: &str, attempt: u32) -> String {
    let hash = Sha256::digest(format!("{}\0{task}\0{attempt}", record.run));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    Uuid::from_bytes(bytes).to_string()
}
