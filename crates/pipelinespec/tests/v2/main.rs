//! v2 packages, compiled and executed in the engine with scripted work.

#![expect(clippy::unwrap_used, reason = "a test")]

mod conformance;
mod loops;
mod refused;
mod runs;
mod world;
