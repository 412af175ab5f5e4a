//! `cargo xtask COMMAND`: what a developer does with this repository, and the demo.
//!
//! Each command is a module: [`demo`], [`test`] with its [`suites`], [`bench`], [`tidy`] and
//! [`codegen`]. Below them lie [`workspace`] (where things are), [`process`] (running programs),
//! [`tools`] (getting kubectl and Python environments), [`server`] (a coracle to try things on) and
//! [`http`]. Nothing here is part of the product, and nothing of the product is linked in: the built
//! binary is used from outside, as a user has it.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a development tool talks to its terminal"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a development tool measures and waits by the real clock"
)]

mod bench;
mod codegen;
mod demo;
mod http;
mod process;
mod server;
mod suites;
mod tally;
mod test;
mod tidy;
mod tools;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};

use workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo [--once] [--train-steps N] [--data-dir DIR]
        build coracle and play the MNIST tutorial; --once ends when it worked
  test [--full] [--bless] [--only SUITE]...
        run every test; --full runs the larger counts, --bless accepts new snapshots
  bench [start|step|engine|train|predict|tutorial|all …]
        measure speed and memory, beside TensorFlow where it can be had
  tidy  check what compilers do not: dependencies, files, documents, licences
  codegen [--check]
        write the code generated from crates/*/proto again";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<ExitCode> {
    let Some((command, rest)) = args.split_first() else {
        println!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    let workspace = Workspace::find()?;
    match command.as_str() {
        "demo" => demo::run(&workspace, rest),
        "test" => test::run(&workspace, rest),
        "bench" => bench::run(&workspace, rest).map(|()| ExitCode::SUCCESS),
        "tidy" => tidy::run(&workspace, rest),
        "codegen" => codegen::run(&workspace, rest).map(|()| ExitCode::SUCCESS),
        "help" | "-h" | "--help" => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("no command {other:?}\n\n{USAGE}"),
    }
}
