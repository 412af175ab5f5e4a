//! Output parameters that a step writes to files.
//!
//! A Pod's files are gone with it, so its last act has to be to hand them over, on any Kubernetes
//! and without an image of ours. A template with such outputs has its command wrapped by a line of
//! shell that runs it, copies the files into the container's termination message and exits as it
//! did. Where the image's own command is used and there is one file, the termination message path
//! is that file. The kubelet keeps 4 KiB of a termination message: a larger output is an error that
//! says so.

use std::collections::BTreeMap;

use engine::{Outcome, Outputs, StartWork, WantedParameter};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::pod::{MAIN, Names};

/// What precedes the files in a termination message.
const HEADER: &str = "coracle-outputs\n";

/// Where a kubelet looks for a termination message.
const LOG: &str = "/dev/termination-log";

/// As much of a termination message as a kubelet keeps.
const LIMIT: usize = 4096;

/// `$1` is where the files go, `$2` their number; the files follow, and then the command.
const WRAPPER: &str = r#"log=$1; n=$2; shift 2; i=0
while [ $i -lt $n ]; do eval "f$i=\$1"; shift; i=$((i+1)); done
"$@" & child=$!
trap 'kill -TERM $child' TERM INT
wait $child; rc=$?
while kill -0 $child 2>/dev/null; do wait $child; rc=$?; done
{ printf 'coracle-outputs\n'; i=0
while [ $i -lt $n ]; do eval "f=\$f$i"
if [ -f "$f" ]; then printf '%s %s\n' "$i" "$(($(wc -c <"$f")))"; cat "$f"; echo; else printf '%s -\n' "$i"; fi
i=$((i+1)); done; } >"$log"
exit $rc"#;

fn files(start: &StartWork) -> Vec<&str> {
    start
        .output_parameters
        .iter()
        .filter_map(|wanted| match wanted {
            WantedParameter::File { path, .. } => Some(path.as_str()),
            WantedParameter::JsonPath { .. } | WantedParameter::Text { .. } => None,
        })
        .collect()
}

/// Makes a step's main container hand over its files.
pub(super) fn prepare(container: &mut Value, start: &StartWork) -> Result<(), String> {
    let files = files(start);
    if files.is_empty() {
        return Ok(());
    }
    let command = container
        .get("command")
        .and_then(Value::as_array)
        .filter(|c| !c.is_empty());
    let Some(command) = command else {
        if let [file] = files.as_slice() {
            container["terminationMessagePath"] = json!(file);
            return Ok(());
        }
        return Err(format!(
            "template {:?} has {} output files and no command: give it the command of its image, so \
             that the files can be collected",
            start.template,
            files.len()
        ));
    };
    let mut wrapped: Vec<Value> = ["sh", "-c", WRAPPER, "sh", LOG]
        .into_iter()
        .map(Value::from)
        .collect();
    wrapped.push(json!(files.len().to_string()));
    wrapped.extend(files.iter().map(|file| json!(file)));
    wrapped.extend(command.iter().cloned());
    container["command"] = Value::Array(wrapped);
    container["terminationMessagePath"] = json!(LOG);
    container["terminationMessagePolicy"] = json!("File");
    Ok(())
}

/// A termination message without what the wrapper put there.
pub(super) fn without_collected(message: &str) -> &str {
    message
        .find(HEADER)
        .map_or(message, |start| &message[..start])
}

/// The end of a step whose Pod succeeded: its outputs, or which one is missing.
pub(super) fn collect(pod: &Pod, start: &StartWork) -> Outcome {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let main = statuses
        .into_iter()
        .flatten()
        .find(|container| container.name == MAIN);
    let terminated = main.and_then(|c| c.state.as_ref()?.terminated.as_ref());
    let message = terminated
        .and_then(|t| t.message.as_deref())
        .unwrap_or_default();
    let exit_code = terminated.map(|t| t.exit_code).or(Some(0));
    match parameters(
        start,
        message,
        pod.metadata.name.as_deref().unwrap_or_default(),
    ) {
        Ok(parameters) => Outcome::Succeeded(Outputs {
            parameters,
            artifacts: BTreeMap::new(),
            exit_code,
            cached_from: None,
        }),
        Err(message) => Outcome::Error {
            message,
            transient: false,
            stop: false,
        },
    }
}

fn parameters(
    start: &StartWork,
    message: &str,
    pod: &str,
) -> Result<BTreeMap<String, Value>, String> {
    let mut found = if let Some(files) = message.strip_prefix(HEADER) {
        sections(files)?
    } else {
        // The message is the one file itself.
        vec![(!message.is_empty()).then(|| message.to_owned())]
    };
    found.reverse();
    let mut parameters = BTreeMap::new();
    for wanted in &start.output_parameters {
        let (name, value) = match wanted {
            WantedParameter::File {
                name,
                path,
                default,
            } => {
                let content = found.pop().flatten().or_else(|| default.clone());
                let content = content.ok_or_else(|| {
                    format!("output parameter {name:?}: the step did not write {path}")
                })?;
                (name, content)
            }
            WantedParameter::Text { name, value } => {
                (name, Names::replace_late(value, pod, start.attempt))
            }
            WantedParameter::JsonPath { name, .. } => {
                return Err(format!(
                    "output parameter {name:?}: jsonPath is for resource templates"
                ));
            }
        };
        // As upstream: one line's end at the end is not part of the value.
        let value = value.strip_suffix('\n').map(str::to_owned).unwrap_or(value);
        parameters.insert(name.clone(), Value::String(value));
    }
    Ok(parameters)
}

/// The files in a termination message, in the order of the outputs.
fn sections(mut text: &str) -> Result<Vec<Option<String>>, String> {
    let cut = || {
        format!(
            "the step's output parameters are larger than the {LIMIT} bytes a Pod can hand over"
        )
    };
    let mut sections = Vec::new();
    while !text.is_empty() {
        let (head, rest) = text.split_once('\n').ok_or_else(cut)?;
        let (_, size) = head.split_once(' ').ok_or_else(cut)?;
        if size == "-" {
            sections.push(None);
            text = rest;
            continue;
        }
        let size: usize = size.parse().map_err(|_| cut())?;
        let content = rest.get(..size).ok_or_else(cut)?;
        sections.push(Some(content.to_owned()));
        text = rest[size..].strip_prefix('\n').ok_or_else(cut)?;
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Runs `script` as a step with the output files `files`; answers its exit code and the log.
    fn run(script: &str, files: &[&str]) -> (i32, String) {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let count = files.len().to_string();
        let status = Command::new("sh")
            .current_dir(folder.path())
            .args(["-c", WRAPPER, "sh"])
            .arg(&log)
            .arg(count)
            .args(files)
            .args(["sh", "-c", script, "zero", "an argument"])
            .status()
            .unwrap();
        (
            status.code().unwrap(),
            std::fs::read_to_string(log).unwrap(),
        )
    }

    #[test]
    fn the_wrapper_hands_over_files_and_exits_as_the_step_did() {
        let (code, log) = run(
            r#"printf 'a\nb' >x; printf '%s' "$1" >"y z"; exit 3"#,
            &["x", "gone", "y z"],
        );
        assert_eq!(code, 3);
        let found = sections(log.strip_prefix(HEADER).unwrap()).unwrap();
        let expect = [Some("a\nb"), None, Some("an argument")];
        assert_eq!(found, expect.map(|text| text.map(str::to_owned)));
    }

    #[test]
    fn a_message_that_was_cut_is_an_error() {
        for cut in ["0 10\nshort", "0", "0 x\n", "0 3\nabcd"] {
            assert!(
                sections(cut).unwrap_err().contains("larger than"),
                "{cut:?}"
            );
        }
    }

    #[test]
    fn the_step_own_words_are_kept_apart() {
        assert_eq!(without_collected("oops coracle-outputs\n0 -\n"), "oops ");
        assert_eq!(without_collected("oops"), "oops");
    }
}
