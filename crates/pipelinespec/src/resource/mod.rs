//! What resource templates say about an object: what it must be like, which values are taken out of
//! it, and kubectl's flags. Checked at upload, carried out by the runner.

pub mod condition;
pub mod flags;
pub mod json_path;
