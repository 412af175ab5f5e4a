//! The step's own command, run as if the launcher were not there.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::{Failure, IMAGE_VARIABLE, Job};

/// Shells are the host's also in an image that is one of our programs.
const SHELLS: [&str; 4] = ["ash", "bash", "dash", "sh"];
/// What is passed on: everything that asks a program for something.
const FORWARDED: [Signal; 7] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
];

/// What the node says of the container's image.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Image {
    /// The program of this binary that the image is.
    program: Option<String>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
}

/// Runs the command; the answer is its exit code (128 and the signal's number where one ended it).
pub(crate) async fn run(job: &Job, command: Vec<OsString>) -> Result<u8, Failure> {
    let argv = argv(job, command, std::env::var_os(IMAGE_VARIABLE))?;
    let Some((program, args)) = argv.split_first() else {
        return Err(Failure::new(
            "the step has no command and its image's is not known here: give the component its \
             image's command",
        ));
    };
    let python = python(&argv)?;
    let (program, args, env) = match &python {
        Some(prepared) => {
            let args = prepared.args.iter().map(OsString::from).collect();
            (OsStr::new(&prepared.program), args, prepared.env.as_slice())
        }
        None => (program.as_os_str(), args.to_vec(), [].as_slice()),
    };
    // Before the command is there, so that none is lost.
    let mut signals =
        forwarded().map_err(|error| Failure::new(format!("watch signals: {error}")))?;
    let mut child = Command::new(program)
        .args(args)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .env_remove(IMAGE_VARIABLE)
        .spawn()
        .map_err(|error| cannot_start(program, &error))?;
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            Some(signal) = signals.recv() => {
                if let Some(pid) = pid {
                    // It may just have ended.
                    let _ = kill_process(pid, signal);
                }
            }
        }
    };
    let status = status.map_err(|error| Failure::new(format!("wait for the command: {error}")))?;
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    Ok(u8::try_from(code).unwrap_or(1))
}

/// A Python step may be known by its shape, and its environment be there or be made now.
fn python(argv: &[OsString]) -> Result<Option<pyenv::Prepared>, Failure> {
    if std::env::var_os(pyenv::VARIABLE).is_none() {
        return Ok(None);
    }
    let text = |text: &OsString| text.to_string_lossy().into_owned();
    let argv: Vec<String> = argv.iter().map(text).collect();
    let env: BTreeMap<String, String> = std::env::vars_os()
        .map(|(name, value)| (text(&name), text(&value)))
        .collect();
    let mut log = |line: &str| drop(writeln!(io::stderr(), "coracle: {line}"));
    pyenv::prepare(&argv, &env, &mut log).map_err(|error| Failure::new(stdx::error::chain(&error)))
}

fn argv(
    job: &Job,
    command: Vec<OsString>,
    image: Option<OsString>,
) -> Result<Vec<OsString>, Failure> {
    let image: Image = match image.as_ref().map(|text| text.to_string_lossy()) {
        Some(text) => serde_json::from_str(&text)
            .map_err(|error| Failure::new(format!("read {IMAGE_VARIABLE}: {error}")))?,
        None => Image::default(),
    };
    let shell = job.has_command
        && command.first().is_some_and(|first| {
            let name = Path::new(first).file_name();
            SHELLS.iter().any(|shell| name == Some(shell.as_ref()))
        });
    if let Some(program) = &image.program
        && !shell
    {
        // The first word of a command names the executable that this program replaces.
        let own = std::env::current_exe()
            .map_err(|error| Failure::new(format!("find this program: {error}")))?;
        let rest = command.into_iter().skip(usize::from(job.has_command));
        let words = [own.into_os_string(), "image".into(), program.into()];
        return Ok(words.into_iter().chain(rest).collect());
    }
    if job.has_command {
        return Ok(command);
    }
    let mut argv: Vec<OsString> = image.entrypoint.into_iter().map(OsString::from).collect();
    if command.is_empty() {
        argv.extend(image.cmd.into_iter().map(OsString::from));
    } else if argv.is_empty() {
        // As a runtime has it: arguments without an entry point are the command.
        return Ok(if image.cmd.is_empty() {
            Vec::new()
        } else {
            command
        });
    } else {
        argv.extend(command);
    }
    Ok(argv)
}

fn cannot_start(program: &OsStr, error: &io::Error) -> Failure {
    let (code, problem) = match error.kind() {
        io::ErrorKind::NotFound => (
            127,
            "no such program, neither there nor in $PATH".to_owned(),
        ),
        io::ErrorKind::PermissionDenied => (126, "permission denied".to_owned()),
        io::ErrorKind::ArgumentListTooLong => (
            126,
            "its arguments are larger than the operating system allows; pass large values as \
             artifacts"
                .to_owned(),
        ),
        _ => (126, error.to_string()),
    };
    Failure {
        code,
        message: format!("cannot run {:?}: {problem}", program.display()),
    }
}

fn forwarded() -> io::Result<mpsc::UnboundedReceiver<Signal>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    for wanted in FORWARDED {
        let mut stream = signal(SignalKind::from_raw(wanted.as_raw()))?;
        let sender = sender.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "a program of a few milliseconds on one thread has no supervisor"
        )]
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if sender.send(wanted).is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(job: &Job, command: &[&str], image: Option<&str>) -> Vec<String> {
        let command = command.iter().map(OsString::from).collect();
        let argv = argv(job, command, image.map(OsString::from)).unwrap();
        argv.into_iter()
            .map(|word| word.into_string().unwrap())
            .collect()
    }

    #[test]
    fn an_image_own_command_is_used_where_the_step_has_none() {
        let with = Job {
            has_command: true,
            ..Job::default()
        };
        let without = Job::default();
        let host = Some(r#"{"entrypoint":[],"cmd":["python3"]}"#);
        let entry = Some(r#"{"entrypoint":["/e"],"cmd":["c"]}"#);
        assert_eq!(words(&with, &["a", "b"], entry), ["a", "b"]);
        assert_eq!(words(&without, &[], host), ["python3"]);
        assert_eq!(words(&without, &["echo", "x"], host), ["echo", "x"]);
        assert_eq!(words(&without, &[], entry), ["/e", "c"]);
        assert_eq!(words(&without, &["x"], entry), ["/e", "x"]);
        assert!(words(&without, &["x"], None).is_empty());
    }

    #[test]
    fn an_image_that_is_one_of_our_programs_runs_it() {
        let image = Some(r#"{"program":"web"}"#);
        let with = Job {
            has_command: true,
            ..Job::default()
        };
        assert_eq!(
            words(&with, &["python", "x.py"], image)[1..],
            ["image", "web", "x.py"]
        );
        assert_eq!(words(&with, &["/bin/sh", "-c"], image), ["/bin/sh", "-c"]);
        assert_eq!(
            words(&Job::default(), &["--p=1"], image)[1..],
            ["image", "web", "--p=1"]
        );
    }
}
