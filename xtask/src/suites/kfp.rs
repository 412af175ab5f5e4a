//! The real kfp SDK 1.8: it compiles the example's pipeline to the package that lies beside it, and
//! uploads and runs pipelines through its client.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::Session;
use crate::process;
use crate::server::{Account, Server};
use crate::tally::Outcome;
use crate::tools::python::KFP_1_8;

const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn run(session: &mut Session) -> Result<Outcome> {
    let python = match KFP_1_8.python(&session.workspace) {
        Ok(python) => python,
        Err(error) => return Ok(Outcome::skipped(format!("no kfp SDK: {error:#}"))),
    };
    let scripts = session.workspace.root.join("xtask/python");
    let example = session.workspace.root.join("examples/mnist");
    let folder = session.folder("kfp")?;
    let mut outcome = Outcome::default();

    let compiled = folder.join("mnist_pipeline.yaml");
    process::run(
        Command::new(&python)
            .arg(example.join("mnist_pipeline.py"))
            .arg(&compiled),
    )?;
    let mut compare = Command::new(&python);
    compare
        .arg(scripts.join("compare_packages.py"))
        .arg(example.join("mnist_pipeline.yaml"))
        .arg(&compiled);
    let same = process::stream(&mut compare, LIMIT, |_| {})?.success();
    outcome.add(
        same,
        "examples/mnist: the package beside the pipeline is what the SDK compiles",
    );

    let account = Account::own(&session.binary()?);
    let server = Server::start(&account, &folder.join("data"))?;
    let mut client = Command::new(&python);
    client
        .arg(scripts.join("check_kfp.py"))
        .arg(&server.status.http);
    let worked = process::stream(&mut client, LIMIT, |_| {})?.success();
    outcome.add(worked, "the SDK's client uploads, runs and reads pipelines");
    Ok(outcome)
}
