//! The last steps of a process before it becomes the container's program, and finding that program.
//!
//! All of it runs in a fresh child of a single-threaded process.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Access, AtFlags, Mode, OFlags};

use crate::identity::{self, Power};
use crate::root::describe;
use crate::spec::{ContainerSpec, ExecSpec, Program, StartError, StartStep, UserSpec};
use crate::sys;

/// The search path of a container that does not set one.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a process is to become.
#[derive(Debug)]
pub(crate) struct Command<'a> {
    pub(crate) program: Target<'a>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: &'a str,
    pub(crate) user: &'a UserSpec,
    pub(crate) ids: (u32, u32),
    pub(crate) power: Power,
    pub(crate) tty: bool,
    /// stdin, stdout, stderr.
    pub(crate) stdio: [RawFd; 3],
}

/// The program of a [`Command`].
#[derive(Debug)]
pub(crate) enum Target<'a> {
    /// Our own executable with these arguments.
    SelfExe(BorrowedFd<'a>, Vec<&'a str>),
    /// A name or path with all arguments, its own name first.
    Path(Vec<&'a str>),
}

impl<'a> Target<'a> {
    pub(crate) fn of_container(spec: &'a ContainerSpec, exe: BorrowedFd<'a>) -> Self {
        let args = spec.args.iter().map(String::as_str);
        match &spec.program {
            Program::SelfExe => Self::SelfExe(exe, args.collect()),
            Program::Path(path) => Self::Path([path.as_str()].into_iter().chain(args).collect()),
        }
    }

    pub(crate) fn of_exec(spec: &'a ExecSpec) -> Self {
        Self::Path(spec.argv.iter().map(String::as_str).collect())
    }
}

fn start_error(step: StartStep, message: String, error: &io::Error) -> StartError {
    StartError {
        step,
        message,
        errno: error.raw_os_error(),
    }
}

/// The environment with defaults for what every program expects.
pub(crate) fn environment(
    env: &[(String, String)],
    uid: u32,
    passwd: &str,
) -> Vec<(String, String)> {
    let mut whole: Vec<(String, String)> = Vec::with_capacity(env.len() + 2);
    for (name, value) in env {
        match whole.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => old.clone_from(value),
            None => whole.push((name.clone(), value.clone())),
        }
    }
    let has = |name: &str, whole: &[(String, String)]| whole.iter().any(|(known, _)| known == name);
    if !has("PATH", &whole) {
        whole.push(("PATH".to_owned(), DEFAULT_PATH.to_owned()));
    }
    if !has("HOME", &whole) {
        whole.push(("HOME".to_owned(), identity::home(passwd, uid)));
    }
    whole
}

/// Becomes the command. Returns only if that failed. `report` is kept open until exec;
/// `die_with_parent` ties the process to its parent's life.
pub(crate) fn become_command(
    command: &Command<'_>,
    report: BorrowedFd<'_>,
    die_with_parent: bool,
) -> StartError {
    match prepare(command, report, die_with_parent) {
        Ok(()) => run(command),
        Err(error) => error,
    }
}

/// Says to `parent` why the program does not run, and ends.
pub(crate) fn report_and_exit(mut parent: UnixStream, error: &StartError) -> ! {
    let report = serde_json::to_vec(error).unwrap_or_else(|_| b"?".to_vec());
    drop(parent.write_all(&report));
    sys::exit_now(1)
}

fn prepare(
    command: &Command<'_>,
    report: BorrowedFd<'_>,
    die_with_parent: bool,
) -> Result<(), StartError> {
    let isolate = |what: &'static str| {
        move |error: io::Error| {
            start_error(
                StartStep::Isolate,
                format!("{what}: {}", describe(&error)),
                &error,
            )
        }
    };
    rustix::process::setsid().map_err(|error| isolate("start a session")(error.into()))?;
    take_stdio(command.stdio).map_err(isolate("connect standard streams"))?;
    if command.tty {
        rustix::process::ioctl_tiocsctty(io::stdin())
            .map_err(|error| isolate("take the terminal")(error.into()))?;
    }
    let mut keep = vec![report.as_raw_fd()];
    if let Target::SelfExe(exe, _) = &command.program {
        keep.push(exe.as_raw_fd());
    }
    sys::close_all_except(&keep);
    rustix::process::umask(Mode::from_raw_mode(0o022));
    change_dir(command)?;
    identity::assume(command.user, command.ids, command.power)
        .map_err(isolate("take on user and capabilities"))?;
    if die_with_parent {
        // After the change of user, which would undo it.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(|error| isolate("die with the monitor")(error.into()))?;
    }
    sys::reset_signals();
    Ok(())
}

fn change_dir(command: &Command<'_>) -> Result<(), StartError> {
    rustix::process::chdir(command.cwd).map_err(|error| {
        let error = io::Error::from(error);
        let message = format!(
            "change to working directory {:?}: {}",
            command.cwd,
            describe(&error)
        );
        start_error(StartStep::WorkingDir, message, &error)
    })
}

/// Puts the three descriptors where a program expects them.
fn take_stdio(stdio: [RawFd; 3]) -> io::Result<()> {
    // First out of the way: a source may itself be one of the low numbers.
    let mut copies = Vec::with_capacity(3);
    for fd in stdio {
        copies.push(sys::duplicate(fd, 10)?);
    }
    for (number, copy) in copies.iter().enumerate() {
        sys::duplicate_to(copy.as_fd(), number as RawFd)?;
    }
    Ok(())
}

fn c_strings<S: AsRef<str>>(
    strings: impl IntoIterator<Item = S>,
) -> Result<Vec<CString>, StartError> {
    strings
        .into_iter()
        .map(|text| {
            CString::new(text.as_ref()).map_err(|_| StartError {
                step: StartStep::Exec,
                message: format!("exec: {:?} holds a NUL byte", text.as_ref()),
                errno: Some(libc::EINVAL),
            })
        })
        .collect()
}

fn run(command: &Command<'_>) -> StartError {
    match try_run(command) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn try_run(command: &Command<'_>) -> Result<std::convert::Infallible, StartError> {
    let env = c_strings(
        command
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    )?;
    match &command.program {
        Target::SelfExe(exe, args) => {
            let argv = c_strings(["coracle"].iter().chain(args))?;
            let error = sys::exec_fd(*exe, &argv, &env);
            let message = format!("exec: \"coracle\": {}", describe(&error));
            Err(start_error(StartStep::Exec, message, &error))
        }
        Target::Path(args) => {
            let Some(name) = args.first().filter(|name| !name.is_empty()) else {
                return Err(StartError {
                    step: StartStep::Exec,
                    message: "no command specified".to_owned(),
                    errno: Some(libc::ENOENT),
                });
            };
            let argv = c_strings(args)?;
            let path = command
                .env
                .iter()
                .find(|(name, _)| name == "PATH")
                .map(|(_, value)| value);
            Err(search(
                name,
                path.map_or(DEFAULT_PATH, String::as_str),
                &argv,
                &env,
            ))
        }
    }
}

/// Runs the first program of that name in the search path; returns why none ran.
fn search(name: &str, path: &str, argv: &[CString], env: &[CString]) -> StartError {
    if name.contains('/') {
        let Ok(file) = CString::new(name) else {
            let error = io::Error::from_raw_os_error(libc::EINVAL);
            return start_error(
                StartStep::Exec,
                format!("exec: {name:?}: holds a NUL byte"),
                &error,
            );
        };
        let error = sys::execve(&file, argv, env);
        let exists = rustix::fs::access(&file, Access::EXISTS).is_ok();
        let message = match error.raw_os_error() {
            Some(libc::ENOENT) if exists => {
                format!("exec {name}: no such file or directory (its interpreter is missing)")
            }
            Some(libc::ENOENT) => format!("exec: {name:?}: stat {name}: no such file or directory"),
            _ => format!("exec: {name:?}: {}", describe(&error)),
        };
        return start_error(StartStep::Exec, message, &error);
    }
    let mut refused = None;
    for dir in path.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let Ok(file) = CString::new(format!("{dir}/{name}")) else {
            continue;
        };
        if rustix::fs::accessat(rustix::fs::CWD, &file, Access::EXEC_OK, AtFlags::EACCESS).is_err()
        {
            continue;
        }
        let error = sys::execve(&file, argv, env);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            // A folder has the right to be "executed" too; the search goes on behind it.
            Some(libc::EACCES) => refused = Some(error),
            _ => {
                let message = format!("exec: {name:?}: {}", describe(&error));
                return start_error(StartStep::Exec, message, &error);
            }
        }
    }
    match refused {
        Some(error) => start_error(
            StartStep::Exec,
            format!("exec: {name:?}: permission denied"),
            &error,
        ),
        None => StartError {
            step: StartStep::Exec,
            message: format!("exec: {name:?}: executable file not found in $PATH"),
            errno: Some(libc::ENOENT),
        },
    }
}

/// A descriptor of the null device.
pub(crate) fn null_device() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/dev/null", flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_as_given_with_defaults_for_path_and_home() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let given = [pair("A", "1"), pair("PATH", "/bin"), pair("A", "2")];
        let env = environment(&given, 5, "u:x:5:5::/home/u:/bin/sh");
        assert_eq!(
            env,
            [
                pair("A", "2"),
                pair("PATH", "/bin"),
                pair("HOME", "/home/u")
            ]
        );
        assert_eq!(environment(&[], 5, "")[0], pair("PATH", DEFAULT_PATH));
    }
}
