//! The node itself: its object, its Lease, what it has and which addresses it gives out.

pub(crate) mod addresses;
mod object;
pub(crate) mod registration;
pub(crate) mod resources;
