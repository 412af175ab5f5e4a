//! The composition root: everything of the embedded system started in one process, wired by hand.

pub(crate) mod bootstrap;
mod compose;
mod fetch;
mod guard;
mod http;
mod image_policy;
mod landing;

pub(crate) use compose::{Options, start};
