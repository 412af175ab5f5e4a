//! Counters of the server, in Prometheus' text form.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::storage::Store;

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<Labels, Timing>>,
    watches: AtomicI64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    verb: &'static str,
    resource: String,
    code: u16,
}

#[derive(Debug, Default, Clone, Copy)]
struct Timing {
    count: u64,
    seconds: f64,
}

impl Metrics {
    pub(crate) fn request(&self, verb: &'static str, resource: &str, code: u16, seconds: f64) {
        let labels = Labels {
            verb,
            resource: resource.to_owned(),
            code,
        };
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let timing = requests.entry(labels).or_default();
        timing.count += 1;
        timing.seconds += seconds;
    }

    /// Counts a watch for as long as the answer lives.
    pub(crate) fn watch(self: &std::sync::Arc<Self>) -> WatchGuard {
        self.watches.fetch_add(1, Ordering::Relaxed);
        WatchGuard(std::sync::Arc::clone(self))
    }

    pub(crate) fn text(&self, store: &Store) -> String {
        let mut out = String::new();
        let requests = self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let head = |out: &mut String, name: &str, kind: &str, help: &str| {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        };
        head(
            &mut out,
            "apiserver_request_total",
            "counter",
            "Requests by verb, resource and code.",
        );
        for (
            Labels {
                verb,
                resource,
                code,
            },
            timing,
        ) in &requests
        {
            let _ = writeln!(
                out,
                "apiserver_request_total{{verb=\"{verb}\",resource=\"{resource}\",code=\"{code}\"}} {}",
                timing.count
            );
        }
        let duration = "apiserver_request_duration_seconds";
        head(
            &mut out,
            duration,
            "summary",
            "Time until the answer began.",
        );
        for (
            Labels {
                verb,
                resource,
                code,
            },
            timing,
        ) in &requests
        {
            let labels = format!("{{verb=\"{verb}\",resource=\"{resource}\",code=\"{code}\"}}");
            let _ = writeln!(out, "{duration}_sum{labels} {}", timing.seconds);
            let _ = writeln!(out, "{duration}_count{labels} {}", timing.count);
        }
        head(
            &mut out,
            "apiserver_longrunning_requests",
            "gauge",
            "Open watches.",
        );
        let _ = writeln!(
            out,
            "apiserver_longrunning_requests{{verb=\"watch\"}} {}",
            self.watches.load(Ordering::Relaxed)
        );
        head(
            &mut out,
            "apiserver_storage_objects",
            "gauge",
            "Stored objects by resource.",
        );
        for (resource, count) in store.counts() {
            let _ = writeln!(
                out,
                "apiserver_storage_objects{{resource=\"{resource}\"}} {count}"
            );
        }
        head(
            &mut out,
            "apiserver_storage_resource_version",
            "counter",
            "The newest resourceVersion.",
        );
        let _ = writeln!(out, "apiserver_storage_resource_version {}", store.rv());
        out
    }
}

#[derive(Debug)]
pub(crate) struct WatchGuard(std::sync::Arc<Metrics>);

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.0.watches.fetch_sub(1, Ordering::Relaxed);
    }
}
