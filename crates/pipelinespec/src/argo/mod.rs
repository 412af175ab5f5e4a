//! v1 Argo Workflows, as kfp 1.x compiles them, to plans.

mod container;
mod dag;
mod resource;
mod script;
mod steps;
mod template;
mod text;
mod when;
mod workflow;

pub use text::TIME_FORMATS;
pub(crate) use workflow::compile;
