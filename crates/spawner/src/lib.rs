//! Starting, watching and finding again the processes of containers.
//!
//! A server with threads and gigabytes cannot fork well, so a tiny single-threaded process does it
//! for the server: the *spawner*, the same binary entered through [`main`] before any runtime exists.
//! Each container has a process of its own above it, the *monitor*, which writes the container's log
//! and, by rename, its exit file. So:
//!
//! - the server ([`Spawner`], and the functions [`wait`], [`signal`], [`recover`], [`stats`],
//!   [`attach`] on a container's state folder) may die at any time and find everything again;
//! - the spawner may die at any time, and another is started; it knows nothing that is not in files;
//! - a monitor that is killed takes its container with it, and the loss is recorded.
//!
//! Containers see the host's folders and the Pod's mounts in a root filesystem of their own (module
//! `root`), in namespaces chosen by trying (module `isolation`). Where that is refused they run without,
//! and are told of their mounts through `CORACLE_MOUNTS` (a JSON list of `target`, `source`, `readOnly`)
//! and of names through `CORACLE_HOSTS` (a hosts file).
//!
//! Absent: Pods, images, restart policy, grace periods. The kubelet has them.

mod client;
mod container;
mod enter;
mod error;
mod identity;
mod isolation;
mod log;
mod monitor;
mod process;
pub mod pty;
mod root;
mod server;
mod spec;
mod state;
mod sys;
mod wire;

pub use client::{Exec, Mode, Options, Spawner, Stdio};
pub use container::{Recovered, Stats, Streams, attach, recover, signal, stats, wait};
pub use error::{Error, Result};
pub use server::main;
pub use spec::{
    Capabilities, ContainerSpec, ExecExit, ExecSpec, Exit, ExitProblem, LogSpec, MountKind,
    MountSpec, Program, StartError, StartStep, Started, Support, Usage, UserSpec,
};

/// Closes every descriptor above standard error. For the start of a program that will live long and
/// must not keep what its caller had open; nothing of its own may be open yet.
pub fn close_inherited_descriptors() {
    sys::close_all_except(&[0, 1, 2]);
}
