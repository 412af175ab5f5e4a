//! The real kfp SDKs: each compiles the example's pipeline to the package that lies beside it, runs it
//! through its client, and uploads, runs and reads other pipelines.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::Session;
use crate::process;
use crate::server::{Account, Server};
use crate::tally::Outcome;
use crate::tools::python::{Environment, KFP_1_8, KFP_2};

const LIMIT: Duration = Duration::from_secs(600);

/// An SDK and what is tried with it.
struct Sdk {
    environment: Environment,
    /// The example's pipeline for this SDK; its package has the same name.
    pipeline: &'static str,
    /// A script that drives the client.
    check: &'static str,
}

const SDKS: [Sdk; 2] = [
    Sdk {
        environment: KFP_1_8,
        pipeline: "mnist_pipeline",
        check: "check_kfp.py",
    },
    Sdk {
        environment: KFP_2,
        pipeline: "mnist_pipeline_v2",
        check: "check_kfp2.py",
    },
];

pub(crate) fn run(session: &mut Session) -> Result<Outcome> {
    let folder = session.folder("kfp")?;
    let account = Account::own(&session.binary()?);
    let server = Server::start(&account, &folder.join("data"))?;
    let mut outcome = Outcome::default();
    // The example's last step waits until the web page has an address.
    let kubectl = match session.kubectl() {
        Ok(kubectl) => kubectl,
        Err(error) => return Ok(Outcome::skipped(format!("no kubectl: {error:#}"))),
    };
    let manifests = session.workspace.root.join("examples/mnist/manifests");
    for manifest in ["metallb.yaml", "address-pool.yaml"] {
        process::run(
            Command::new(&kubectl)
                .env("KUBECONFIG", &server.status.kubeconfig)
                .args(["apply", "--filename"])
                .arg(manifests.join(manifest)),
        )?;
    }
    for sdk in &SDKS {
        match sdk.environment.python(&session.workspace) {
            Ok(python) => sdk.try_all(session, &server, &folder, &python, &mut outcome)?,
            Err(error) => {
                let why = format!("no kfp SDK for {}: {error:#}", sdk.pipeline);
                outcome.count.skipped += 1;
                outcome.notes.push(why);
            }
        }
    }
    Ok(outcome)
}

impl Sdk {
    fn try_all(
        &self,
        session: &Session,
        server: &Server,
        folder: &Path,
        python: &Path,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let scripts = session.workspace.root.join("xtask/python");
        let example = session.workspace.root.join("examples/mnist");
        let source = example.join(format!("{}.py", self.pipeline));
        let package = format!("{}.yaml", self.pipeline);

        let compiled = folder.join(&package);
        process::run(Command::new(python).arg(&source).arg(&compiled))?;
        let mut compare = Command::new(python);
        compare
            .arg(scripts.join("compare_packages.py"))
            .arg(example.join(&package))
            .arg(&compiled);
        let same = process::stream(&mut compare, LIMIT, |_| {})?.success();
        outcome.add(
            same,
            format!("examples/mnist/{package} is what the SDK compiles"),
        );

        let mut mnist = Command::new(python);
        mnist
            .arg(scripts.join("check_mnist.py"))
            .arg(&server.status.http)
            .arg(&server.status.kubeconfig)
            .arg(&source);
        let worked = process::stream(&mut mnist, LIMIT, |_| {})?.success();
        outcome.add(
            worked,
            format!("{} runs from the SDK to its end", self.pipeline),
        );

        let mut client = Command::new(python);
        client
            .arg(scripts.join(self.check))
            .arg(&server.status.http);
        let worked = process::stream(&mut client, LIMIT, |_| {})?.success();
        outcome.add(
            worked,
            format!("{}: the client uploads, runs and reads", self.check),
        );
        Ok(())
    }
}
