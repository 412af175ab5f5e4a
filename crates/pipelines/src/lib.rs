//! Kubeflow Pipelines: the runner that executes runs as Pods, and the API in front of it.
//!
//! [`runner::Runner`] owns every run's state machine; [`journal`] is its durable memory. Cluster
//! access is through the `kube::Client` it is given and nothing else: no API server, no kubelet and
//! no image is known here, so the same code runs inside one process and in a real cluster.

pub mod api;
pub mod journal;
pub mod macros;
pub mod recurring;
pub mod runner;
mod store;
