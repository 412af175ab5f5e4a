//! v1 Argo Workflows, as kfp 1.x compiles them, to plans.

mod dag;
mod field;
mod template;
mod text;
mod when;
mod workflow;

pub(crate) use workflow::compile;
