//! The landing page: what answers at this address and how to begin. Plain HTML, no scripts; the
//! dashboard takes its place later.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, header};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::cli::VERSION;

const PAGE: &str = include_str!("assets/landing.html");
const STYLE: &str = include_str!("assets/landing.css");
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What the page names.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) http: String,
    pub(crate) kube: String,
    pub(crate) kubeconfig: String,
    /// The Pipelines API, asked for the latest runs.
    pub(crate) pipelines: Router,
}

/// `/`, also under the `/pipeline/` prefix that SDKs and links of Kubeflow use.
pub(crate) fn router(facts: Facts) -> Router {
    let style = || async { ([(header::CONTENT_TYPE, "text/css")], STYLE) };
    Router::new()
        .route("/", get(page))
        .route("/pipeline/", get(page))
        .route("/landing.css", get(style))
        .route("/pipeline/landing.css", get(style))
        .with_state(Arc::new(facts))
}

async fn page(State(facts): State<Arc<Facts>>) -> impl IntoResponse {
    let runs = latest_runs(facts.pipelines.clone())
        .await
        .unwrap_or_default();
    let html = PAGE
        .replace("{{version}}", VERSION)
        .replace("{{http}}", &escaped(&facts.http))
        .replace("{{kube}}", &escaped(&facts.kube))
        .replace("{{kubeconfig}}", &escaped(&facts.kubeconfig))
        .replace("{{runs}}", &table(&runs));
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(html))
}

async fn latest_runs(pipelines: Router) -> Option<Vec<Value>> {
    let path = "/apis/v1beta1/runs?page_size=10&sort_by=created_at%20desc";
    let request = Request::get(path).body(Body::empty()).ok()?;
    let response = pipelines.oneshot(request).await.ok()?;
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 22)
        .await
        .ok()?;
    let body: Value = serde_json::from_slice(&bytes).ok()?;
    body["runs"].as_array().cloned()
}

fn table(runs: &[Value]) -> String {
    if runs.is_empty() {
        return "<p class=\"empty\">None yet. The tutorial makes the first one.</p>".to_owned();
    }
    let rows: String = runs
        .iter()
        .map(|run| {
            let text = |key: &str| escaped(run[key].as_str().unwrap_or_default());
            let (name, status, created) = (text("name"), text("status"), text("created_at"));
            format!(
                "<tr><td>{name}</td><td class=\"{status}\">{status}</td><td>{created}</td></tr>"
            )
        })
        .collect();
    format!("<table><tr><th>Run</th><th>State</th><th>Created</th></tr>{rows}</table>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_runs_name_cannot_break_out_of_the_page() {
        let html = table(&[json!({"name": "<script>", "status": "Succeeded"})]);
        assert!(html.contains("&lt;script&gt;") && !html.contains("<script>"));
    }
}
