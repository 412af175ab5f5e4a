//! Who this is and whether it lives; and the authorization question of multi-user clients.

use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/apis/v1beta1/healthz", get(healthz))
        .route("/apis/v2beta1/healthz", get(healthz))
        // One user, who may do everything.
        .route("/apis/v1beta1/auth", get(async || Json(json!({}))))
}

async fn healthz() -> Json<Value> {
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({
        "commit_sha": version, "tag_name": version, "multi_user": false,
        "pipeline_store": "database",
        "apiServerReady": true, "apiServerCommitHash": version, "apiServerTagName": version,
        "apiServerMultiUser": false,
    }))
}
