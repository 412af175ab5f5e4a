//! `gcr.io/kubeflow-examples/mnist/web-ui`: a page to play with the served model.
//!
//! `GET /` shows a random test digit and what the model says to it, as the original did; the page's
//! script adds a pad to draw on. `GET /digit` and `POST /predict` answer the same in JSON.

mod client;
mod page;

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Parser;
use model::mnist;
use serde::{Deserialize, Serialize};
use serde_json::json;
use stdx::{Rng as _, SystemClock, SystemRng};

use crate::pod::Pod;
use crate::{Failure, say};
use client::{Models, Prediction};

const PORT: u16 = 5000;
const SCRIPT: &str = include_str!("web_ui/assets/play.js");
const STYLE: &str = include_str!("web_ui/assets/play.css");
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'self'";

#[derive(Debug, Parser)]
#[command(name = "web-ui", no_binary_name = true)]
struct Args {
    /// The port to listen on.
    #[arg(long, default_value_t = PORT)]
    port: u16,
}

/// The served model that is asked: the query parameters of the original.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
struct Target {
    name: String,
    addr: String,
    port: String,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            name: "mnist".to_owned(),
            addr: "mnist-service".to_owned(),
            port: "9000".to_owned(),
        }
    }
}

/// A test image with the model's answer.
#[derive(Debug)]
struct Shown {
    index: usize,
    truth: u8,
    pixels: Vec<u8>,
    answer: Result<Prediction, String>,
}

#[derive(Debug)]
struct App {
    models: Models,
    clock: SystemClock,
}

pub(crate) async fn run(args: Vec<String>, pod: Pod) -> Result<(), Failure> {
    let args = Args::try_parse_from(args).map_err(|e| Failure::usage(e.to_string()))?;
    let address = std::net::SocketAddr::new(pod.bind_address(), args.port);
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|e| Failure::work(format!("listen on {address}: {e}")))?;
    let app = Arc::new(App {
        models: Models::new(pod),
        clock: SystemClock::new(),
    });
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|e| Failure::work(format!("listen for signals: {e}")))?;
    say(&format!("listening on http://{address}"));
    axum::serve(listener, router(app))
        .with_graceful_shutdown(async move {
            terminate.recv().await;
        })
        .await
        .map_err(|e| Failure::work(format!("serve: {e}")))
}

fn router(app: Arc<App>) -> Router {
    let script = || async { ([(header::CONTENT_TYPE, "text/javascript")], SCRIPT) };
    let style = || async { ([(header::CONTENT_TYPE, "text/css")], STYLE) };
    Router::new()
        .route("/", get(index))
        .route("/digit", get(digit))
        .route("/predict", post(predict))
        .route("/healthz", get(async || "ok"))
        .route("/play.js", get(script))
        .route("/play.css", get(style))
        .with_state(app)
}

/// A random test image and what the model says to it.
async fn show(app: &App, target: &Target) -> Shown {
    let images = mnist::test_set();
    let index = SystemRng.below(images.len() as u64) as usize;
    let mut floats = vec![0.0; mnist::PIXELS];
    images.write_floats(index, &mut floats);
    Shown {
        index,
        truth: images.label(index),
        pixels: images.pixels(index).to_vec(),
        answer: app.models.predict(target, floats, &app.clock).await,
    }
}

async fn index(State(app): State<Arc<App>>, Query(target): Query<Target>) -> Response {
    let shown = show(&app, &target).await;
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
    ];
    match page::render(&target, &shown) {
        Ok(html) => (headers, Html(html)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
    }
}

async fn digit(State(app): State<Arc<App>>, Query(target): Query<Target>) -> Response {
    let shown = show(&app, &target).await;
    let mut body = answer(&shown.answer);
    body["index"] = json!(shown.index);
    body["truth"] = json!(shown.truth);
    body["pixels"] = json!(shown.pixels);
    Json(body).into_response()
}

/// A drawing: 28×28 grey values from 0 to 1, row by row.
#[derive(Debug, Deserialize)]
struct Drawing {
    #[serde(flatten)]
    target: Target,
    pixels: Vec<f32>,
}

async fn predict(State(app): State<Arc<App>>, Json(drawing): Json<Drawing>) -> Response {
    if drawing.pixels.len() != mnist::PIXELS || drawing.pixels.iter().any(|p| !p.is_finite()) {
        let got = drawing.pixels.len();
        let error = format!(
            "pixels: expected {} numbers from 0 to 1, got {got}",
            mnist::PIXELS
        );
        return (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response();
    }
    let outcome = app
        .models
        .predict(&drawing.target, drawing.pixels, &app.clock)
        .await;
    Json(answer(&outcome)).into_response()
}

fn answer(outcome: &Result<Prediction, String>) -> serde_json::Value {
    match outcome {
        Ok(prediction) => json!({
            "version": prediction.version,
            "prediction": prediction.class,
            "probabilities": prediction.probabilities,
            "latencyMs": prediction.latency.as_secs_f64() * 1000.0,
        }),
        Err(error) => json!({"error": error}),
    }
}

#[cfg(test)]
mod tests;
