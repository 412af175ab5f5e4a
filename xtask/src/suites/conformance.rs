//! Recorded answers of a real kube-apiserver, compared with ours.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Session, python3};
use crate::process;
use crate::server::{Account, Server};
use crate::tally::Outcome;

/// How many of the recorded cases must be answered as recorded.
const ENOUGH: u64 = 90;
const LIMIT: Duration = Duration::from_secs(600);

pub(crate) fn run(session: &mut Session) -> Result<Outcome> {
    let script = match session.shared("kube-conformance/kube_conformance.py") {
        Ok(script) => script,
        Err(skipped) => return Ok(skipped),
    };
    let cases = script.with_file_name("cases.json");
    let account = Account::own(&session.binary()?);
    let server = Server::start(&account, &session.folder("conformance")?.join("data"))?;
    let mut check = Command::new(python3()?);
    check.arg(script).arg("check").arg(cases);
    check.args([
        "--server",
        &server.status.kubernetes,
        "--token",
        &server.token()?,
    ]);
    let mut last = String::new();
    // Its exit code says whether all cases agree, which is more than is asked for.
    process::stream(&mut check, LIMIT, |line| line.clone_into(&mut last))?;
    let passed: u64 = last
        .split_once(" passed, ")
        .and_then(|(number, _)| number.parse().ok())
        .with_context(|| format!("the check ended in {last:?}"))?;
    let mut outcome = Outcome::default();
    outcome.add(
        passed >= ENOUGH,
        format!("cases: {last}; at least {ENOUGH} have to pass"),
    );
    Ok(outcome)
}
