//! `coracle`: Kubeflow on one machine.
//!
//! The command line, the composition root ([`server`]) and what belongs to one instance on this
//! machine ([`instance`]). Everything with a life of its own is a crate; nothing depends on this one.
//! Four invocations never see the command line below: the spawner, the built-in images, the program
//! that starts Python steps and the launcher of a step's command, which branch off before any runtime
//! starts.

mod cli;
mod command;
mod failure;
mod instance;
mod logging;
mod output;
mod server;
mod settings;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        // The spawner forks and enters namespaces, so it must be single-threaded.
        Some("__spawner") => spawner::main(args),
        // Becomes a step's Python, which pays for every thread and allocation before it.
        Some("__pyenv") => pyenv::main(args, std::env::vars_os()),
        Some("image") => command::image::run(args.collect()),
        Some("launch") => launcher::main(args.collect()),
        Some(_) | None => cli::run(),
    }
}
