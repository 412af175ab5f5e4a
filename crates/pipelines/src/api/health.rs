//! Who this is and whether it lives; and the authorization question of multi-user clients.

use axum::Json;
use serde_json::{Value, json};

use super::route::{Route, get};

pub(super) fn routes() -> Vec<Route> {
    let (health, auth) = (
        "Whether the server lives, and its version",
        "Whether a user may do something; there is one user, who may do everything",
    );
    let questions: &[&str] = &["namespace", "resources", "verb"];
    vec![
        get("/apis/v1beta1/healthz", health, healthz),
        get("/apis/v2beta1/healthz", health, healthz),
        get("/apis/v1beta1/auth", auth, allowed).query(questions),
        get("/apis/v2beta1/auth", auth, allowed).query(questions),
    ]
}

async fn allowed() -> Json<Value> {
    Json(json!({}))
}

/// The API's own answer, merged with what the original's frontend adds.
async fn healthz() -> Json<Value> {
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({
        "commit_sha": version, "tag_name": version, "multi_user": false,
        "pipeline_store": "database", "pipelineStore": "database",
        "apiServerReady": true, "apiServerCommitHash": version, "apiServerTagName": version,
        "apiServerMultiUser": false, "frontendCommitHash": version, "frontendTagName": version,
    }))
}
