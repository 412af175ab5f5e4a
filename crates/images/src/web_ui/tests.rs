//! The page and its JSON, against a model server in the same process.

use std::net::SocketAddr;
use std::path::Path;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use serde_json::Value;
use stdx::{ManualClock, SeededRng, SharedClock, Supervisor};
use tower::ServiceExt as _;

use super::*;

/// A model of two training steps, exported; its version is what the clock says.
fn train(dir: &Path) {
    let args = format!(
        "--tf-export-dir {} --tf-train-steps 2 --tf-batch-size 10 --tf-model-type LINEAR",
        dir.display()
    );
    let args: Vec<String> = args.split(' ').map(str::to_owned).collect();
    let mut log = Vec::new();
    let start = jiff::Timestamp::from_second(1_700_000_000).unwrap();
    let code = trainer::main(
        &args,
        &mut trainer::Host {
            env: &std::collections::BTreeMap::new(),
            resolve: &Path::to_path_buf,
            clock: Arc::new(ManualClock::new(start)),
            rng: Arc::new(SeededRng::new(1)),
            log: &mut log,
        },
    );
    let log = String::from_utf8_lossy(&log).into_owned();
    assert_eq!(
        format!("{code:?}"),
        format!("{:?}", std::process::ExitCode::SUCCESS),
        "{log}"
    );
}

struct World {
    supervisor: Supervisor,
    server: SocketAddr,
    app: Router,
    _dir: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        train(dir.path());
        let supervisor = Supervisor::new();
        let options = serving::Options {
            port: 0,
            rest_api_port: None,
            model_name: "mnist".to_owned(),
            model_base_path: dir.path().to_owned(),
            ..serving::Options::default()
        };
        let clock: SharedClock = SystemClock::shared();
        let server = serving::Server::start(options, clock, &supervisor)
            .await
            .unwrap();
        Self {
            server: server.grpc_address(),
            supervisor,
            app: page(),
            _dir: dir,
        }
    }

    fn query(&self) -> String {
        format!(
            "name=mnist&addr={}&port={}",
            self.server.ip(),
            self.server.port()
        )
    }
}

fn page() -> Router {
    router(Arc::new(App {
        models: Models::new(Pod::default()),
        clock: SystemClock::new(),
    }))
}

async fn send(app: &Router, request: Request<Body>) -> (StatusCode, String) {
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn get(app: &Router, path: &str) -> (StatusCode, String) {
    send(app, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn post(app: &Router, body: &Value) -> (StatusCode, String) {
    let request = Request::post("/predict")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    send(app, request).await
}

#[tokio::test]
async fn digits_and_drawings_are_read_by_the_served_model() {
    let world = World::start().await;
    let (status, html) = get(&world.app, &format!("/?{}", world.query())).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        html.contains("Connected (model version: 1700000000)"),
        "{html}"
    );

    let (_, json) = get(&world.app, &format!("/digit?{}", world.query())).await;
    let digit: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(digit["version"], 1_700_000_000);
    let index = digit["index"].as_u64().unwrap() as usize;
    assert_eq!(digit["truth"], mnist::test_set().label(index));
    let probabilities: Vec<f64> = serde_json::from_value(digit["probabilities"].clone()).unwrap();
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-3);
    let best = probabilities.iter().copied().fold(0.0, f64::max);
    let class = digit["prediction"].as_u64().unwrap() as usize;
    assert!((probabilities[class] - best).abs() < f64::EPSILON);

    // The same picture as a drawing gets the same answer.
    let pixels: Vec<u8> = serde_json::from_value(digit["pixels"].clone()).unwrap();
    let pixels: Vec<f32> = pixels
        .into_iter()
        .map(|value| f32::from(value) / 255.0)
        .collect();
    let drawing = json!({"name": "mnist", "addr": world.server.ip(),
        "port": world.server.port().to_string(), "pixels": pixels});
    let (status, json) = post(&world.app, &drawing).await;
    assert_eq!(status, StatusCode::OK);
    let read: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(read["prediction"], digit["prediction"]);
    world.supervisor.shutdown().await;
}

#[tokio::test]
async fn a_target_that_fails_is_reported_on_the_page_and_in_json() {
    let world = World::start().await;
    let unknown = world.query().replace("name=mnist", "name=other");
    for (query, says) in [
        (unknown.as_str(), "not found"),
        (
            "addr=no-such-service.invalid&port=9000",
            "cannot reach no-such-service.invalid:9000",
        ),
        (
            "addr=127.0.0.1&port=0",
            "port &quot;0&quot; is not a port number",
        ),
        (
            "addr=127.0.0.1&port=x",
            "port &quot;x&quot; is not a port number",
        ),
    ] {
        let (status, html) = get(&world.app, &format!("/?{query}")).await;
        assert_eq!(status, StatusCode::OK);
        let reported = html.contains("Exception making request");
        assert!(reported && html.contains(says), "{query}: {html}");
        let (_, json) = get(&world.app, &format!("/digit?{query}")).await;
        let digit: Value = serde_json::from_str(&json).unwrap();
        assert!(
            digit["error"].is_string() && digit["pixels"].is_array(),
            "{json}"
        );
    }
    // The server itself is well.
    let (_, html) = get(&world.app, &format!("/?{}", world.query())).await;
    assert!(html.contains("Connected"), "{html}");
    world.supervisor.shutdown().await;
}

#[tokio::test]
async fn a_drawing_of_another_size_is_refused() {
    let (status, json) = post(&page(), &json!({"pixels": [0.5, 1.0]})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        json.contains("expected 784 numbers from 0 to 1, got 2"),
        "{json}"
    );
}

#[tokio::test]
async fn the_page_brings_what_it_needs() {
    let app = page();
    assert_eq!(
        get(&app, "/healthz").await,
        (StatusCode::OK, "ok".to_owned())
    );
    for path in ["/play.js", "/play.css"] {
        assert_eq!(get(&app, path).await.0, StatusCode::OK, "{path}");
    }
    assert_eq!(get(&app, "/nothing").await.0, StatusCode::NOT_FOUND);
}
