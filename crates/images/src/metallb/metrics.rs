//! The metrics endpoint: counters and gauges in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::header;
use axum::routing::get;

use crate::Failure;

/// Values by name and labels. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    values: Arc<Mutex<BTreeMap<String, f64>>>,
}

impl Metrics {
    /// Sets a gauge; `series` is its name with labels, as it is printed.
    pub(super) fn set(&self, series: impl Into<String>, value: f64) {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).insert(series.into(), value);
    }

    /// Adds one to a counter.
    pub(super) fn count(&self, series: &str) {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        *values.entry(series.to_owned()).or_default() += 1.0;
    }

    fn render(&self) -> String {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (series, value) in values.iter() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{series} {value}");
        }
        text
    }
}

/// Opens the endpoint; it is served by the runtime's own thread for as long as the program lives.
pub(super) async fn listen(address: SocketAddr, metrics: Metrics) -> Result<(), Failure> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|e| Failure::work(format!("listen for metrics on {address}: {e}")))?;
    let page = move || async move {
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())
    };
    let router = Router::new().route("/metrics", get(page));
    let server = async move { axum::serve(listener, router).await };
    stdx::Supervisor::new().spawn("metrics", stdx::OnError::Log, server);
    Ok(())
}
