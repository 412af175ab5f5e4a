//! The built-in Kubernetes kinds: one row each ([`Kind`]) with its names, verbs and subresources,
//! and the hand-written knowledge that schemas do not carry: defaults, preparation, validation,
//! update rules, table rows, selectable fields.
//!
//! Everything here is a pure function over `serde_json::Value` trees and a [`Ctx`] (the time and the
//! server's settings): no storage, no HTTP, no clock, no randomness, no look-up of other objects.
//! The API server's generic handler calls the rows ([`find`], [`all`]); which order it keeps stands
//! at [`kind`]. Decoding, strictness and type errors come before, from the schemas.
//!
//! Also here because several sides need them: [`quantity`], [`selector`] (labels and fields),
//! [`table`] (columns, human durations), [`field`] (errors that name a field).
//!
//! Absent on purpose: admission that looks objects up, address and port allocation, OpenAPI.

pub mod content;
pub mod convert;
pub mod ctx;
pub mod field;
pub mod kind;
pub mod meta;
pub mod quantity;
pub mod registry;
pub mod selector;
mod shape;
pub mod table;
pub mod tree;

pub mod apps;
pub mod batch;
pub mod core;
pub mod groups;
pub mod rbac;
pub mod storage;

pub use ctx::{Cidr, Ctx};
pub use field::{Error, ErrorList, ErrorType, Path};
pub use kind::{Allocation, CustomNames, Generation, Kind, Strategy, Subresource};
pub use quantity::Quantity;
pub use registry::{all, find, find_kind};
