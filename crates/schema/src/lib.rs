//! Everything that walks Kubernetes objects by their OpenAPI schema, with objects as
//! [`serde_json::Value`] trees. Pure: no IO, no clock, no async.
//!
//! The entry is [`Schemas`]: built once ([`Schemas::builtin`]) from the embedded data of a real server, shared in an
//! `Arc`, extended and shrunk at run time by custom resource definitions. [`Schemas::get`] gives a
//! [`Type`], a cheap handle on one kind's compiled schema; its methods coerce, normalise, merge,
//! prune, default and validate. A request passes through here in this order:
//!
//! 1. [`Schemas::decode`]: bytes to a typed tree in the form Go would encode it, with strict errors;
//! 2. (the caller's defaults), then [`Type::normalise`];
//! 3. [`managed::update`] before admission, or [`managed::apply`] for a server-side apply;
//! 4. for custom resources [`Type::default_fields`], [`Type::prune`] and [`Type::validate`].
//!
//! A patch: [`read_value`], [`Type::strategic_merge`] (or a JSON patch by the caller), then
//! [`Type::coerce`]. [`discovery`] and [`openapi`] make the documents clients ask for, and
//! [`jsonpath`] reads columns.
//!
//! Invariant: a compiled schema never changes; a [`Type`] taken before a definition was removed
//! stays usable. Absent on purpose: defaults and validation of built-in kinds (crate `kinds`),
//! storage, HTTP.

mod arena;
mod builtin;
mod coerce;
mod custom;
mod decode;
mod gvk;
mod json;
mod quantity;
mod scalar;
mod schemas;
mod strategic;
mod syntax;
mod typed;
mod yaml;

pub mod discovery;
pub mod fieldset;
pub mod jsonpath;
pub mod managed;
pub mod openapi;

pub use arena::Type;
pub use coerce::Coerced;
pub use custom::FieldError;
pub use decode::{ContentType, DecodeError, Decoded, read_value};
pub use fieldset::{FieldSet, PathElement};
pub use gvk::Gvk;
pub use schemas::Schemas;
pub use strategic::PatchError;
