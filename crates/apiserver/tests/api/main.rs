//! The server as its clients see it: over its tower service, through `kube::Client`, over TLS, and
//! with kubectl where that is installed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod admission;
mod client;
mod connect;
mod customresource;
mod kubectl;
mod objects;
mod recovery;
mod support;
mod tls;
mod watch;
