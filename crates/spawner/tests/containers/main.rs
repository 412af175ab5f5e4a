//! The spawner from outside: real processes, namespaces and crashes.
//!
//! The test binary plays all the roles, by its first argument: `__spawner` is the helper process,
//! `image` a built-in program, and anything else runs the tests: as whoever calls, and for root once
//! more as an ordinary user. What this machine does not allow is skipped with a line that says so.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and this is their own runner"
)]

mod cases;
mod crashes;
mod harness;
mod interactive;

use std::process::ExitCode;

use harness::{Case, Identity};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("__spawner") => spawner::main(args),
        Some("image") => cases::image(args),
        first => {
            let filter = first
                .filter(|first| !first.starts_with('-'))
                .map(str::to_owned);
            let mut cases: Vec<Case> = Vec::new();
            cases.extend(cases::all());
            cases.extend(crashes::all());
            cases.extend(interactive::all());
            harness::run(&cases, filter.as_deref(), Identity::current())
        }
    }
}
