//! Packages of Kubeflow Pipelines' own corpus, uploaded and run. Every row of the corpus' manifest
//! is a test of its own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Session;
use crate::process;
use crate::server::{Account, Server};
use crate::tally::{Count, Outcome};
use crate::tools::python::KFP_1_8;

/// Rows that end within seconds and between them touch every part of both formats; `--full` runs all.
const QUICK: &str = "^v1/(?!preemptible|timeout|volume_snapshot)|^v2/(add_numbers|arguments_parameters|\
    collected_parameters|component_with_optional_inputs|concat_message|cross_loop_after_topology|hello_world|\
    if_elif_else_with_oneof_parameters|mixed_parameters|nested_with_parameters|\
    pipeline_in_pipeline|pipeline_with_after|pipeline_with_condition|pipeline_with_env|\
    pipeline_with_importer|pipeline_with_loops_and_conditions|\
    pipeline_with_multiple_exit_handlers|pipeline_with_outputs|\
    pipeline_with_parallelfor_parallelism|pipeline_with_placeholders|\
    pipeline_with_secret_as_env|pipeline_with_task_final_status|two_step_pipeline)[.]|\
    ^kubernetes/(config_map_as_env|secret_as_vol|timeout)";

/// Rows that cannot end as the corpus wants here, and why. They count as skipped.
const IMPOSSIBLE: [(&str, &str); 8] = [
    ("v2/container_io", "runs my_program, which is nowhere"),
    (
        "v2/container_with_concat_placeholder",
        "runs my_program, which is nowhere",
    ),
    (
        "v2/container_with_if_placeholder",
        "runs my_program, which is nowhere",
    ),
    (
        "v2/container_with_placeholder_in_fstring",
        "runs my_program, which is nowhere",
    ),
    (
        "v2/local_execution_pipeline_with_ignore_upstream_failure",
        "its run is failed as in the original, though not in kfp.local",
    ),
    (
        "v2/local_execution_pipeline_with_retry",
        "counts its attempts in /tmp, of which every Pod has one of its own",
    ),
    (
        "v2/pipeline_with_metadata_fields",
        "needs an input artifact, which no run can be given",
    ),
    ("v2/take_nap_compiled", "sleeps for 15 minutes"),
];

/// Rows of different folders with one file name would be one pipeline, which exists already the
/// second time: they are uploaded apart.
const FOLDERS: [&str; 2] = ["^(?!kubernetes/)", "^kubernetes/"];

/// Runs that wait for one another's Pods are no faster for being many.
const JOBS: &str = "4";
const ROW_LIMIT: &str = "120";

pub(crate) fn run(session: &mut Session) -> Result<Outcome> {
    let script = match session.shared("kfp-conformance/kfp_conformance.py") {
        Ok(script) => script,
        Err(skipped) => return Ok(skipped),
    };
    // The SDK's environment has PyYAML, which the script needs.
    let python = match KFP_1_8.python(&session.workspace) {
        Ok(python) => python,
        Err(error) => return Ok(Outcome::skipped(format!("no PyYAML: {error:#}"))),
    };
    let kubectl = session.kubectl()?;
    let account = Account::own(&session.binary()?);
    let server = Server::start(&account, &session.folder("kfp-conformance")?.join("data"))?;
    let mut outcome = Outcome::default();

    for folder in FOLDERS {
        let mut upload = Command::new(&python);
        upload.arg(&script).arg("upload");
        upload.args(["--server", &server.status.http, "--only", folder]);
        rows(upload, "upload", Duration::from_secs(300), &mut outcome)?;
    }

    let mut run = Command::new(&python);
    run.arg(&script).arg("run");
    run.args(["--server", &server.status.http, "--jobs", JOBS]);
    run.args(["--timeout", ROW_LIMIT]);
    run.arg("--kubectl").arg(format!(
        "{} --kubeconfig {} -n kubeflow",
        quoted(&kubectl),
        quoted(&server.status.kubeconfig)
    ));
    let limit = if session.options.full {
        let names: Vec<&str> = IMPOSSIBLE.iter().map(|(row, _)| *row).collect();
        run.args(["--only", &format!("^(?!({})[.])", names.join("|"))]);
        for (row, why) in IMPOSSIBLE {
            outcome.count.skipped += 1;
            outcome.notes.push(format!("skipped {row}: {why}"));
        }
        Duration::from_secs(3600)
    } else {
        run.args(["--only", QUICK]);
        Duration::from_secs(900)
    };
    rows(run, "run", limit, &mut outcome)?;
    Ok(outcome)
}

/// Runs the script and counts its rows.
fn rows(mut script: Command, what: &str, limit: Duration, outcome: &mut Outcome) -> Result<()> {
    let mut last = String::new();
    let mut failures = Vec::new();
    // Its exit code says no more than its last line.
    process::stream(&mut script, limit, |line| {
        if line.starts_with("FAIL ") {
            failures.push(format!("{what}: {line}"));
        }
        line.clone_into(&mut last);
    })?;
    let count = counted(&last).with_context(|| format!("{what} ended in {last:?}"))?;
    if count.failed > 0 && failures.is_empty() {
        bail!(
            "{what}: {} rows failed and none of them is named",
            count.failed
        );
    }
    outcome.count += count;
    outcome.notes.push(format!("{what}: {count}"));
    outcome.notes.extend(failures);
    Ok(())
}

/// `19 passed, 0 failed, 3 skipped`.
fn counted(line: &str) -> Option<Count> {
    let mut parts = line.split(", ");
    let mut number = |what: &str| -> Option<u64> {
        let (number, word) = parts.next()?.split_once(' ')?;
        (word == what).then(|| number.parse().ok())?
    };
    let count = Count {
        passed: number("passed")?,
        failed: number("failed")?,
        skipped: number("skipped")?,
    };
    parts.next().is_none().then_some(count)
}

/// A path as a word of a shell's line.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_counted_and_nothing_else() {
        let count = counted("19 passed, 2 failed, 3 skipped").unwrap();
        assert_eq!((count.passed, count.failed, count.skipped), (19, 2, 3));
        for other in [
            "",
            "19 passed",
            "Traceback",
            "1 passed, x failed, 3 skipped",
            "1 a, 2 b, 3 c",
        ] {
            assert_eq!(counted(other), None, "{other}");
        }
    }

    #[test]
    fn a_path_stays_one_word() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
