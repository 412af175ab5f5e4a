//! v2 intermediate representation, as kfp 2.x compiles it, to plans.
//!
//! A component with a DAG becomes a template; a task that calls a component with an executor gets a
//! template of its own, because retries, caching and names belong to the task. Settings of the
//! platform are resolved where the task is called, as inputs are.

mod call;
mod cel;
mod component;
mod dag;
mod executor;
mod inputs;
mod kubernetes;
mod outputs;
mod pipeline;
mod text;

pub(crate) use pipeline::compile;
