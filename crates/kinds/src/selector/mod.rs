//! Selecting objects: by labels (the string form of a request and the LabelSelector object) and by
//! fields.

pub mod field;
pub mod label;
mod parse;

pub use field::{CUSTOM_FIELDS, FieldSelector, Fields, METADATA_FIELDS};
pub use label::LabelSelector;
