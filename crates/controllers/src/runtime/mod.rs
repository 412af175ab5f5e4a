//! What every controller stands on: caches filled by watches, work queues, writes that go into the
//! caches at once, and the recorder of Kubernetes Events. No controller's logic.

pub(crate) mod cache;
pub(crate) mod informers;
pub(crate) mod object;
pub(crate) mod queue;
pub(crate) mod recorder;
pub(crate) mod worker;

pub(crate) use cache::{Cache, Change, Key};
pub(crate) use informers::Informers;
pub(crate) use object::Handle;
pub(crate) use queue::Queue;
pub(crate) use recorder::Recorder;
pub(crate) use worker::{Outcome, Starter};
