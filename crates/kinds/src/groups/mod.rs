//! Kinds of the smaller groups.

pub(crate) mod admission;
pub mod apiextensions;
pub(crate) mod networking;
pub(crate) mod policy;
