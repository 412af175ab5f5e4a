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
        self.values
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(series.into(), value);
    }

    /// The configuration was loaded.
    pub(super) fn config_is_current(&self) {
        self.set("metallb_k8s_client_config_loaded_bool", 1.0);
        self.set("metallb_k8s_client_config_stale_bool", 0.0);
    }

    /// The last configuration could not be loaded.
    pub(super) fn config_is_stale(&self) {
        self.set("metallb_k8s_client_config_stale_bool", 1.0);
    }

    /// Sets the gauges whose names begin like this; those of before that are not among them end.
    pub(super) fn replace(&self, prefix: &str, series: Vec<(String, f64)>) {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.retain(|name, _| !name.starts_with(prefix));
        values.extend(series);
    }

    /// Adds one to a counter.
    pub(super) fn count(&self, series: &str) {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        *values.entry(series.to_owned()).or_default() += 1.0;
    }

    pub(super) fn render(&self) -> String {
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
        (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
            metrics.render(),
        )
    };
    let router = Router::new().route("/metrics", get(page));
    let server = async move { axum::serve(listener, router).await };
    stdx::Supervisor::new().spawn("metrics", stdx::OnError::Log, server);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_printed_one_a_line_and_end_with_what_they_measure() {
        let metrics = Metrics::default();
        metrics.config_is_current();
        metrics.count("metallb_updates_total");
        metrics.count("metallb_updates_total");
        metrics.replace("pool_", vec![("pool_total{pool=\"a\"}".to_owned(), 4.0)]);
        metrics.replace("pool_", vec![("pool_total{pool=\"b\"}".to_owned(), 2.0)]);
        assert_eq!(
            metrics.render(),
            "metallb_k8s_client_config_loaded_bool 1\nmetallb_k8s_client_config_stale_bool 0\n\
             metallb_updates_total 2\npool_total{pool=\"b\"} 2\n"
        );
    }
}
