//! The REST API as clients see it: the router over a real database and runner, and a cluster in
//! which the test plays the kubelet.

#![expect(clippy::unwrap_used, reason = "tests")]

mod bad_input;
mod harness;
mod recurring;
#[expect(dead_code, reason = "the runner's tests use the rest")]
#[path = "../support/mod.rs"]
mod support;
mod v1;
mod v2;
