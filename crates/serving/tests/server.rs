//! A whole server, asked over both protocols.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use model::codec::Encoding;
use model::mnist::{PIXELS, test_set};
use model::network::{Kind, Network};
use model::{SavedModel, Tensor};
use prost::Message as _;
use serde_json::{Value, json};
use serving::proto::model_service_client::ModelServiceClient;
use serving::proto::model_spec::VersionChoice;
use serving::proto::model_version_status::State;
use serving::proto::prediction_service_client::PredictionServiceClient;
use serving::proto::{
    ClassificationRequest, GetModelMetadataRequest, GetModelStatusRequest, ModelSpec,
    PredictRequest, ReloadConfigRequest, SignatureDefMap,
};
use serving::{Options, Server};
use stdx::{Clock as _, ManualClock, Supervisor};
use tonic::Code;
use tonic::transport::Channel;

struct Running {
    server: Server,
    supervisor: Supervisor,
    clock: Arc<ManualClock>,
    dir: tempfile::TempDir,
    channel: Channel,
}

fn export(dir: &Path, kind: Kind, version: u64) -> SavedModel {
    let model = Network::initial(kind, version).into_saved_model();
    model.export(dir, version).unwrap();
    model
}

impl Running {
    async fn start(version: Option<u64>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        if let Some(version) = version {
            export(dir.path(), Kind::Cnn, version);
        }
        let options = Options {
            port: 0,
            rest_api_port: Some(0),
            model_name: "mnist-service".to_owned(),
            model_aliases: vec!["mnist".to_owned()],
            model_base_path: dir.path().to_owned(),
            ..Options::default()
        };
        let clock = Arc::new(ManualClock::new("2020-01-01T00:00:00Z".parse().unwrap()));
        let supervisor = Supervisor::new();
        let shared = Arc::<ManualClock>::clone(&clock);
        let server = Server::start(options, shared, &supervisor).await.unwrap();
        let endpoint = Channel::from_shared(format!("http://{}", server.grpc_address())).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Self {
            server,
            supervisor,
            clock,
            dir,
            channel,
        }
    }

    fn predictions(&self) -> PredictionServiceClient<Channel> {
        PredictionServiceClient::new(self.channel.clone())
    }

    fn models(&self) -> ModelServiceClient<Channel> {
        ModelServiceClient::new(self.channel.clone())
    }

    async fn rest(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let uri = format!("http://{}{path}", self.server.rest_address().unwrap());
        let request = hyper::Request::builder()
            .method(method)
            .uri(uri)
            .body(Full::new(bytes::Bytes::from(body.to_owned())))
            .unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/json");
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn stop(self) {
        drop(self.channel);
        self.supervisor.shutdown().await;
        self.server.outcome().unwrap();
    }
}

fn spec(name: &str) -> ModelSpec {
    ModelSpec {
        name: name.to_owned(),
        ..ModelSpec::default()
    }
}

fn digits(rows: usize, shape: &[usize]) -> Tensor {
    let mut pixels = vec![0.0; rows * PIXELS];
    for (row, image) in pixels.chunks_exact_mut(PIXELS).enumerate() {
        test_set().write_floats(row, image);
    }
    Tensor::float(shape.to_vec(), pixels).unwrap()
}

fn request(name: &str, x: &Tensor, encoding: Encoding) -> PredictRequest {
    PredictRequest {
        model_spec: Some(spec(name)),
        inputs: BTreeMap::from([("x".to_owned(), x.to_proto(encoding))]),
        output_filter: Vec::new(),
    }
}

#[tokio::test]
async fn predict_answers_every_shape_and_encoding_alike() {
    let running = Running::start(Some(1)).await;
    let model = SavedModel::read(&running.dir.path().join("1")).unwrap();
    let mut client = running.predictions();
    for (name, shape) in [
        ("mnist", &[1, 784][..]),
        ("mnist-service", &[1, 28, 28]),
        ("mnist", &[1, 28, 28, 1]),
        ("mnist", &[40, 784]),
    ] {
        let x = digits(shape[0], shape);
        let inputs = BTreeMap::from([("x".to_owned(), x.clone())]);
        let wanted = model.predict("serving_default", inputs, &[]).unwrap();
        for encoding in [Encoding::Fields, Encoding::Content] {
            let answer = client
                .predict(request(name, &x, encoding))
                .await
                .unwrap()
                .into_inner();
            // The fields that the original's clients read.
            assert_eq!(answer.outputs["classes"].int_val.len(), shape[0]);
            assert_eq!(answer.outputs["predictions"].float_val.len(), 10 * shape[0]);
            for (output, tensor) in &wanted {
                assert_eq!(
                    &Tensor::from_proto(&answer.outputs[output]).unwrap(),
                    tensor
                );
            }
            let spec = answer.model_spec.unwrap();
            assert_eq!(
                (spec.name.as_str(), spec.signature_name.as_str()),
                (name, "serving_default")
            );
            assert_eq!(spec.version_choice, Some(VersionChoice::Version(1)));
        }
    }
    let mut filtered = request("mnist", &digits(1, &[1, 784]), Encoding::Fields);
    filtered.output_filter = vec!["classes".to_owned()];
    filtered.model_spec.as_mut().unwrap().signature_name = "classes".to_owned();
    let answer = client.predict(filtered).await.unwrap().into_inner();
    assert_eq!(answer.outputs.keys().collect::<Vec<_>>(), ["classes"]);
    drop(client);
    running.stop().await;
}

#[tokio::test]
async fn a_request_that_cannot_be_answered_gets_its_code_and_a_reason() {
    let running = Running::start(Some(3)).await;
    let mut client = running.predictions();
    let good = request("mnist", &digits(1, &[1, 784]), Encoding::Fields);
    let change = |change: &dyn Fn(&mut PredictRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    fn of(request: &mut PredictRequest) -> &mut ModelSpec {
        request.model_spec.as_mut().unwrap()
    }
    let cases = [
        (
            change(&|r| of(r).name = "letters".to_owned()),
            Code::NotFound,
            "Servable not found for request: Latest(letters)",
        ),
        (
            change(&|r| of(r).version_choice = Some(VersionChoice::Version(4))),
            Code::NotFound,
            "Servable not found for request: Specific(mnist, 4)",
        ),
        (
            change(&|r| {
                of(r).version_choice = Some(VersionChoice::VersionLabel("stable".to_owned()));
            }),
            Code::InvalidArgument,
            "stable",
        ),
        (
            change(&|r| r.model_spec = None),
            Code::InvalidArgument,
            "ModelSpec",
        ),
        (
            change(&|r| of(r).signature_name = "other".to_owned()),
            Code::FailedPrecondition,
            "\"other\" not found",
        ),
        (
            change(&|r| r.inputs.clear()),
            Code::InvalidArgument,
            "wants [x]",
        ),
        (
            change(&|r| {
                let x = Tensor::float(vec![1, 783], vec![0.0; 783]).unwrap();
                r.inputs
                    .insert("x".to_owned(), x.to_proto(Encoding::Content));
            }),
            Code::InvalidArgument,
            "shape [1,783], but the signature wants [-1,28,28]",
        ),
        (
            change(&|r| r.inputs.get_mut("x").unwrap().dtype = 7),
            Code::InvalidArgument,
            "DT_STRING",
        ),
        (
            change(&|r| r.output_filter = vec!["logits".to_owned()]),
            Code::InvalidArgument,
            "\"logits\"",
        ),
    ];
    for (request, code, part) in cases {
        let status = client.predict(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(part), "{status} lacks {part}");
    }
    let classify = ClassificationRequest {
        model_spec: Some(spec("mnist")),
    };
    assert_eq!(
        client.classify(classify).await.unwrap_err().code(),
        Code::Unimplemented
    );
    let reload = running
        .models()
        .handle_reload_config_request(ReloadConfigRequest {})
        .await;
    assert_eq!(reload.unwrap_err().code(), Code::Unimplemented);
    drop(client);
    running.stop().await;
}

#[tokio::test]
async fn metadata_and_status_describe_the_model() {
    let running = Running::start(Some(5)).await;
    let metadata_field = vec!["signature_def".to_owned()];
    let request = GetModelMetadataRequest {
        model_spec: Some(spec("mnist")),
        metadata_field,
    };
    let mut client = running.predictions();
    let answer = client
        .get_model_metadata(request)
        .await
        .unwrap()
        .into_inner();
    let any = &answer.metadata["signature_def"];
    assert!(
        any.type_url
            .ends_with("/tensorflow.serving.SignatureDefMap")
    );
    let map = SignatureDefMap::decode(&any.value[..]).unwrap();
    let signature = &map.signature_def["serving_default"];
    assert_eq!(
        signature.inputs["x"]
            .tensor_shape
            .as_ref()
            .unwrap()
            .dim
            .len(),
        3
    );
    assert_eq!(
        signature.outputs.keys().collect::<Vec<_>>(),
        ["classes", "predictions"]
    );
    let request = GetModelMetadataRequest {
        model_spec: Some(spec("mnist")),
        ..Default::default()
    };
    let status = client.get_model_metadata(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    let mut models = running.models();
    let status = |name: &str| GetModelStatusRequest {
        model_spec: Some(spec(name)),
    };
    let answer = models
        .get_model_status(status("mnist"))
        .await
        .unwrap()
        .into_inner();
    let versions = answer.model_version_status;
    assert_eq!((versions.len(), versions[0].version), (1, 5));
    assert_eq!(versions[0].state(), State::Available);
    let error = models
        .get_model_status(status("letters"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    drop((client, models));
    running.stop().await;
}

#[tokio::test]
async fn rest_answers_what_grpc_answers() {
    let running = Running::start(Some(2)).await;
    let x = digits(2, &[2, 784]);
    let mut client = running.predictions();
    let answer = client
        .predict(request("mnist", &x, Encoding::Content))
        .await
        .unwrap();
    let wanted = answer.into_inner().outputs;
    let rows: Vec<&[f32]> = x.as_floats().unwrap().chunks(784).collect();

    let body = json!({ "instances": rows }).to_string();
    let (status, row) = running
        .rest("POST", "/v1/models/mnist:predict", &body)
        .await;
    assert_eq!(status, 200, "{row}");
    let body = json!({ "inputs": { "x": rows }, "signature_name": "classes" }).to_string();
    let path = "/v1/models/mnist-service/versions/2:predict";
    let (status, column) = running.rest("POST", path, &body).await;
    assert_eq!(status, 200, "{column}");
    for example in 0..2 {
        let class = wanted["classes"].int_val[example];
        assert_eq!(row["predictions"][example]["classes"], class);
        assert_eq!(column["outputs"]["classes"][example], class);
        for digit in 0..10 {
            let score = wanted["predictions"].float_val[10 * example + digit];
            let found = [
                &row["predictions"][example]["predictions"][digit],
                &column["outputs"]["predictions"][example][digit],
            ];
            for found in found {
                let found = found.as_f64().unwrap() as f32;
                assert_eq!(found.to_bits(), score.to_bits());
            }
        }
    }

    let (status, body) = running.rest("GET", "/v1/models/mnist", "").await;
    assert_eq!(status, 200);
    let version = &body["model_version_status"][0];
    assert_eq!(
        (&version["version"], &version["state"]),
        (&json!("2"), &json!("AVAILABLE"))
    );
    assert_eq!(
        version["status"],
        json!({ "error_code": "OK", "error_message": "" })
    );
    let (_, body) = running.rest("GET", "/v1/models/mnist/metadata", "").await;
    let signature = &body["metadata"]["signature_def"]["signature_def"]["serving_default"];
    assert_eq!(signature["inputs"]["x"]["dtype"], "DT_FLOAT");
    assert_eq!(body["model_spec"]["version"], "2");

    for (method, path, body, wanted, part) in [
        (
            "GET",
            "/v1/models/letters",
            "",
            404,
            "Could not find any versions of model letters",
        ),
        ("GET", "/v1/models/mnist/versions/9", "", 404, "version 9"),
        (
            "POST",
            "/v1/models/letters:predict",
            r#"{"instances": [1]}"#,
            404,
            "Latest(letters)",
        ),
        (
            "POST",
            "/v1/models/mnist:predict",
            "{",
            400,
            "JSON Parse error",
        ),
        (
            "POST",
            "/v1/models/mnist:predict",
            r#"{"instances": [[1, 2]]}"#,
            400,
            "[1,2]",
        ),
        ("POST", "/v1/models/mnist:regress", "{}", 501, "regress"),
        ("POST", "/v1/models/mnist:guess", "{}", 400, ":guess"),
        (
            "GET",
            "/v2/health",
            "",
            400,
            "Malformed request: GET /v2/health",
        ),
        (
            "POST",
            "/v1/models/mnist:predict",
            r#"{"instances": [1], "signature_name": "s"}"#,
            412,
            "\"s\" not found",
        ),
    ] {
        let (status, answer) = running.rest(method, path, body).await;
        let text = answer["error"].as_str().unwrap();
        assert_eq!(status, wanted, "{path}: {text}");
        assert!(text.contains(part), "{path}: {text:?} lacks {part:?}");
    }
    drop(client);
    running.stop().await;
}

/// Moves the poller's clock, then asks until it has looked.
async fn until(running: &Running, version: i64) {
    let mut models = running.models();
    loop {
        let request = GetModelStatusRequest {
            model_spec: Some(spec("mnist")),
        };
        let answer = models
            .get_model_status(request)
            .await
            .map(tonic::Response::into_inner);
        let versions = answer
            .map(|answer| answer.model_version_status)
            .unwrap_or_default();
        let newest = versions.first();
        if newest.is_some_and(|v| v.version == version && v.state() == State::Available) {
            return;
        }
        if running.clock.sleepers() > 0 {
            running.clock.advance(Duration::from_secs(1));
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_server_waits_for_its_first_version_and_takes_each_newer_one() {
    let running = Running::start(None).await;
    let mut client = running.predictions();
    let x = digits(1, &[1, 784]);
    let ask = request("mnist", &x, Encoding::Content);
    let status = client.predict(ask.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    for version in [1, 2] {
        export(running.dir.path(), Kind::Linear, version);
        until(&running, version as i64).await;
        let answer = client.predict(ask.clone()).await.unwrap().into_inner();
        let spec = answer.model_spec.unwrap();
        assert_eq!(
            spec.version_choice,
            Some(VersionChoice::Version(version as i64))
        );
    }
    assert!(running.clock.now() > "2020-01-01T00:00:00Z".parse().unwrap());
    drop(client);
    running.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let running = Running::start(None).await;
    let address = running.server.grpc_address();
    let options = Options {
        port: address.port(),
        ..Options::default()
    };
    let clock = Arc::<ManualClock>::clone(&running.clock);
    let error = Server::start(options, clock, &Supervisor::new())
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), format!("listen for gRPC on {address}"));
    running.stop().await;
}
