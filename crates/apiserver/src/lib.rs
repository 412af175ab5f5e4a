//! The Kubernetes API as a tower service: storage, watch, admission, RBAC, custom resources.
//!
//! Entry type: [`Server`], opened from [`Options`]. Objects are JSON trees from the wire to the store;
//! one generic handler serves every kind from its row in `kinds` or its CustomResourceDefinition.
//! Invariants: every write passes one ordered path and is synced before it is answered; watch events
//! are published in commit order and never skipped silently; no policy of its own: hooks come in
//! through [`admission::Admission`]. No Kubeflow kind is known here, no container and no controller.
//!
//! A request is read in `endpoints`, changed and checked in `registry` (with `fieldmanager` and
//! `admission`), kept in `storage` and told to others by `watch`.

mod client;
mod options;
mod serve;
mod server;

mod endpoints;
mod registry;

mod fieldmanager;

pub mod admission;

mod storage;
mod watch;

pub mod auth;

mod bootstrap;
mod customresource;
mod discovery;
mod expiry;
mod metrics;
mod protobuf;
mod status;
mod subresource;

pub use auth::UserInfo;
pub use options::{Cidr, Options};
pub use server::{Error, Server, Service};
pub use storage::MIGRATIONS;
