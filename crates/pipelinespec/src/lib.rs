//! KFP packages: bytes in, an [`engine::Plan`] and what the API shows of it out.
//!
//! [`Package`] is the entry type. A package is a `.tar.gz`, `.zip` or a YAML (or JSON) text with a
//! v1 Argo Workflow or v2 IR in it, the latter perhaps with a platform spec. Every problem names the
//! line (where there was a text), the field and the reason. [`placeholders`] fills in what a
//! container of v2 leaves open until its inputs are known.
//!
//! Invariant: a field that would change what a run does is either understood or refused, never
//! dropped in silence; the same package always compiles to the same plan. Pure: no network,
//! database, cluster or clock here, and nothing that panics on input.

mod archive;
mod argo;
mod documents;
mod error;
mod field;
mod ir;
mod locate;
mod package;
mod parameters;
pub mod placeholders;
pub mod resource;

pub use archive::MAX_BYTES;
pub use argo::TIME_FORMATS;
pub use error::{Error, Place};
pub use package::{Format, Package, ParameterInfo};
pub use parameters::bind;
