//! Running an installer: its progress goes to the log line by line, its failure becomes a sentence.

use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::pipe::PipeFlags;

use crate::Log;
use crate::install::Install;

/// Why an installation failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// What the tool said about it.
    text: String,
    /// The versions of the package that there are.
    pub(super) versions: Vec<String>,
}

/// Lines that tell of progress, as pip and uv begin them.
const PROGRESS: [&str; 16] = [
    "Building",
    "Built",
    "Collecting",
    "Created wheel",
    "Downloaded",
    "Downloading",
    "ERROR",
    "Installed",
    "Installing",
    "Prepared",
    "Preparing",
    "Resolved",
    "Successfully",
    "WARNING",
    "error:",
    "warning:",
];
/// How pip begins the list of versions that there are.
const VERSIONS: &str = "(from versions: ";
/// As much of a tool's output as is kept for an answer.
const KEPT_LINES: usize = 40;

/// Runs a tool to its end.
pub(super) fn run(mut command: Command, log: Log<'_>) -> Result<(), Answer> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = move |error: std::io::Error| Answer {
        text: format!("run {program}: {error}"),
        versions: Vec::new(),
    };
    // One pipe for both streams: their lines belong together.
    let (near, far): (OwnedFd, OwnedFd) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    command.stdout(far.try_clone().map_err(&failed)?);
    command.stderr(Stdio::from(far));
    let mut child = command.spawn().map_err(&failed)?;
    // It holds the far end, which must be closed for the pipe to end.
    drop(command);
    let mut lines = Vec::new();
    for line in BufReader::new(std::fs::File::from(near)).split(b'\n') {
        let line = line.map_err(&failed)?;
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let begins = line
            .trim_start()
            .trim_start_matches(['×', '╰', '─', '▶', ' ']);
        if PROGRESS.iter().any(|start| begins.starts_with(start)) {
            log(&abridged(line.trim()));
        }
        if lines.len() == KEPT_LINES {
            lines.remove(0);
        }
        lines.push(line);
    }
    let status = child.wait().map_err(&failed)?;
    if status.success() {
        return Ok(());
    }
    Err(Answer::read(&lines))
}

impl Answer {
    /// What matters of a failed tool's last lines.
    fn read(lines: &[String]) -> Self {
        let errors: Vec<&str> = lines
            .iter()
            .filter_map(|line| line.trim().strip_prefix("ERROR: "))
            .collect();
        let text = if !errors.is_empty() {
            let texts: Vec<String> = errors.iter().map(|line| abridged(line)).collect();
            let mut text = texts.join("; ");
            // Why there are no versions at all.
            if let Some(cause) = lines.iter().rev().find_map(|line| connection(line)) {
                text = format!("{text}; {cause}");
            }
            text
        } else {
            // uv: its answer begins with a cross or `error:` and goes on over several lines.
            let start = lines.iter().position(|line| {
                let line = line.trim_start();
                line.starts_with('×') || line.starts_with("error:")
            });
            let tail = &lines[start.unwrap_or_else(|| lines.len().saturating_sub(5))..];
            tail.iter()
                .map(|line| {
                    line.trim()
                        .trim_start_matches(['×', '╰', '─', '▶', '│', ' '])
                })
                .filter(|line| !line.is_empty())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let versions = errors
            .iter()
            .find_map(|line| line.split_once(VERSIONS))
            .map(|(_, list)| list.trim_end_matches(')'))
            .filter(|list| *list != "none")
            .map(|list| list.split(", ").map(str::to_owned).collect());
        Self {
            text,
            versions: versions.unwrap_or_default(),
        }
    }

    /// The failure as a sentence that names the package.
    pub(super) fn about(&self, install: &Install) -> String {
        let named = install
            .requirements
            .iter()
            .find(|requirement| {
                let name = requirement
                    .split(['=', '<', '>', '~', '!', ';', '[', ' '])
                    .next();
                name.is_some_and(|name| self.text.contains(name))
            })
            .map_or_else(|| install.requirements.join(", "), Clone::clone);
        let text = if self.text.is_empty() {
            "the installer failed without saying why"
        } else {
            &self.text
        };
        format!("Python package {named} cannot be had: {text}")
    }
}

/// A line of pip's with only the last of the versions that it lists.
fn abridged(line: &str) -> String {
    const LISTED: usize = 6;
    let listed = line.split_once(VERSIONS).and_then(|(before, list)| {
        let (list, after) = list.split_once(')')?;
        let versions: Vec<&str> = list.split(", ").collect();
        let last = versions.get(versions.len().checked_sub(LISTED)?..)?;
        let last = last.join(", ");
        Some(format!("{before}{VERSIONS}…, {last}){after}"))
    });
    listed.unwrap_or_else(|| line.to_owned())
}

/// The cause in a line of pip's about a try that failed.
fn connection(line: &str) -> Option<&str> {
    let (_, cause) = line.split_once("after connection broken by ")?;
    Some(cause.trim_matches(|c| c == '\'' || c == ' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(lines: &str, requirements: &[&str]) -> (String, Vec<String>) {
        let lines: Vec<String> = lines.lines().map(str::to_owned).collect();
        let answer = Answer::read(&lines);
        let install = Install {
            requirements: requirements.iter().map(|&r| r.to_owned()).collect(),
            ..Install::default()
        };
        (answer.about(&install), answer.versions)
    }

    #[test]
    fn pips_answer_names_the_package_and_what_there_is() {
        let (text, versions) = about(
            "Looking in indexes: https://a/simple\n\
             ERROR: Could not find a version that satisfies the requirement nope==9 (from versions: 1.0, 2.0)\n\
             ERROR: No matching distribution found for nope==9",
            &["numpy", "nope==9"],
        );
        assert_eq!(
            text,
            "Python package nope==9 cannot be had: Could not find a version that satisfies the \
             requirement nope==9 (from versions: 1.0, 2.0); No matching distribution found for nope==9"
        );
        assert_eq!(versions, ["1.0", "2.0"]);
    }

    #[test]
    fn a_long_list_of_versions_is_cut_short() {
        assert_eq!(
            abridged("x==0 (from versions: 1, 2, 3, 4, 5, 6, 7, 8) y"),
            "x==0 (from versions: …, 3, 4, 5, 6, 7, 8) y"
        );
        assert_eq!(
            abridged("x (from versions: none)"),
            "x (from versions: none)"
        );
    }

    #[test]
    fn an_index_that_cannot_be_reached_is_in_the_answer() {
        let (text, versions) = about(
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(\"refused\")': /simple/x/\n\
             ERROR: Could not find a version that satisfies the requirement x (from versions: none)\n\
             ERROR: No matching distribution found for x",
            &["x"],
        );
        assert!(text.contains("NewConnectionError"), "{text}");
        assert!(versions.is_empty());
    }

    #[test]
    fn uvs_answer_is_one_sentence() {
        let (text, _) = about(
            "Using Python 3.11.7 environment at: /x\n  × No solution found when resolving dependencies:\n  ╰─▶ Because nope was not found in the package registry and you require\n      nope, we can conclude that your requirements are unsatisfiable.",
            &["nope"],
        );
        assert_eq!(
            text,
            "Python package nope cannot be had: No solution found when resolving dependencies: Because \
             nope was not found in the package registry and you require nope, we can conclude that your \
             requirements are unsatisfiable."
        );
    }
}
