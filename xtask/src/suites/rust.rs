//! What cargo itself can tell: formatting, lints, the build, the tests.

use std::time::Duration;

use anyhow::Result;

use super::Session;
use crate::process;
use crate::tally::{Count, Outcome};
use crate::tools;

/// More than all Rust tests together may take.
const LIMIT: Duration = Duration::from_secs(45 * 60);

pub(crate) fn fmt(session: &mut Session) -> Result<Outcome> {
    process::run(&mut session.workspace.cargo(&["fmt", "--all", "--check"]))?;
    Ok(Outcome::passed())
}

pub(crate) fn clippy(session: &mut Session) -> Result<Outcome> {
    let args = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ];
    process::run(&mut session.workspace.cargo(&args))?;
    Ok(Outcome::passed())
}

pub(crate) fn build(session: &mut Session) -> Result<Outcome> {
    session.binary()?;
    Ok(Outcome::passed())
}

pub(crate) fn doc(session: &mut Session) -> Result<Outcome> {
    if !session.options.full {
        return Ok(Outcome::default());
    }
    let args = [
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
        "--locked",
        "--quiet",
    ];
    process::run(&mut session.workspace.cargo(&args))?;
    Ok(Outcome::passed())
}

pub(crate) fn test(session: &mut Session) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut cargo = session
        .workspace
        .cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    match session.kubectl() {
        Ok(kubectl) => {
            if let Some(folder) = kubectl.parent() {
                cargo.env("PATH", tools::path_with(folder));
            }
        }
        Err(error) => outcome.notes.push(format!("without kubectl: {error:#}")),
    }
    cargo.env(
        "INSTA_UPDATE",
        if session.options.bless {
            "always"
        } else {
            "no"
        },
    );
    if session.options.full {
        cargo.env("CORACLE_TEST_FULL", "1");
    }
    let mut count = Count::default();
    let status = process::stream(&mut cargo, LIMIT, |line| {
        if let Some(results) = results_of(line) {
            count += results;
        }
    })?;
    if !status.success() && count.failed == 0 {
        outcome.add(
            false,
            format!("cargo test: {status}, although no test failed"),
        );
    }
    outcome.count += count;
    Ok(outcome)
}

/// What a line of test output counts: the result line of libtest, or one case of a test program
/// with its own harness (`ok NAME`, `skipped NAME`, `FAILED NAME`).
fn results_of(line: &str) -> Option<Count> {
    if let Some(rest) = line.strip_prefix("test result: ") {
        let number = |word: &str| {
            let before = rest.split_once(&format!(" {word}"))?.0;
            before.rsplit(' ').next()?.parse().ok()
        };
        return Some(Count {
            passed: number("passed")?,
            failed: number("failed")?,
            skipped: number("ignored")?,
        });
    }
    let (mark, case) = line.split_once(' ')?;
    if !case
        .trim_start()
        .starts_with(|first: char| first.is_alphanumeric())
    {
        return None;
    }
    match mark {
        "ok" => Some(Count::one(true)),
        "FAILED" => Some(Count::one(false)),
        "skipped" => Some(Outcome::skipped("").count),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted_and_nothing_else() {
        let count = |passed, failed, skipped| {
            Some(Count {
                passed,
                failed,
                skipped,
            })
        };
        for (line, expected) in [
            (
                "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.01s",
                count(12, 0, 3),
            ),
            (
                "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.01s",
                count(1, 2, 0),
            ),
            ("ok      root a_case", count(1, 0, 0)),
            ("FAILED  user a_case", count(0, 1, 0)),
            ("skipped user (setpriv: not found)", count(0, 0, 1)),
            ("skipped user a_case (no mount namespace)", count(0, 0, 1)),
            ("test a_case ... ok", None),
            ("running 3 tests", None),
            ("", None),
        ] {
            assert_eq!(results_of(line), expected, "{line}");
        }
    }
}
