//! From a step's command to what is executed: the environment is found or made, the source written,
//! and Python started in place of the shells.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::bootstrap::{Arg, Bootstrap, Program, Then};
use crate::cache::{Cache, Environment, Wanted};
use crate::make::{Installer, configuration};
use crate::seat::{Ambient, Seat, VARIABLE};
use crate::{Error, Log, recognise};

/// A command that can be executed as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The program: a path, or a name to look up in the `PATH` of `env`.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables to set, in addition to those there are.
    pub env: Vec<(String, String)>,
}

/// Variables that decide which packages an index gives.
const INDEX: [&str; 20] = [
    "PIP_CONFIG_FILE",
    "PIP_CONSTRAINT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_NO_BINARY",
    "PIP_NO_INDEX",
    "PIP_ONLY_BINARY",
    "PIP_PRE",
    "UV_CONFIG_FILE",
    "UV_CONSTRAINT",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_NO_INDEX",
    "UV_OVERRIDE",
    "UV_PRERELEASE",
    "UV_RESOLUTION",
];

/// The environment of an installer: the server's user's settings, and what the Pod sets over them.
fn installer_env(seat: &Seat, env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = Ambient::of(env.clone()).env;
    let mut all = Ambient::read(&seat.cache).env;
    let known = !all.is_empty();
    // A Pod has a home and a path of its own, which say nothing about the user's settings.
    let ours = |name: &String| !known || !["HOME", "PATH"].contains(&name.as_str());
    all.extend(own.into_iter().filter(|(name, _)| ours(name)));
    for name in ["LANG", "LC_ALL", "TMPDIR"] {
        if let Some(value) = env.get(name) {
            all.insert(name.to_owned(), value.clone());
        }
    }
    all
}

/// The environment that a command wants; `None` if it wants none.
pub fn wanted(
    bootstrap: &Bootstrap,
    seat: &Seat,
    env: &BTreeMap<String, String>,
) -> Option<Wanted> {
    if bootstrap.installs.is_empty() {
        return None;
    }
    let env = installer_env(seat, env);
    let mut index: Vec<(String, String)> = INDEX
        .iter()
        .filter_map(|&name| Some((name.to_owned(), env.get(name)?.clone())))
        .collect();
    let uv = env
        .get("HOME")
        .map(|home| PathBuf::from(home).join(".config/uv/uv.toml"));
    for path in configuration(&env).into_iter().chain(uv) {
        if let Ok(text) = std::fs::read_to_string(&path) {
            index.push((path.display().to_string(), text));
        }
    }
    Some(Wanted {
        interpreter: seat.interpreter.clone(),
        installs: bootstrap.installs.clone(),
        system_packages: bootstrap.system_packages,
        index,
    })
}

/// Makes a recognised command ready to run, with the variables of its container. `None` leaves it as
/// it is: it is not recognised, or this container has no seat. May take minutes when an environment
/// has to be made; `log` then hears of the progress.
pub fn prepare(
    argv: &[String],
    env: &BTreeMap<String, String>,
    log: Log<'_>,
) -> Result<Option<Prepared>, Error> {
    let Some(text) = env.get(VARIABLE) else {
        return Ok(None);
    };
    let seat = Seat::from_json(text)
        .map_err(|problem| Error::Settings(format!("{VARIABLE} cannot be read: {problem}")))?;
    if let Some(notice) = &seat.notice {
        log(notice);
    }
    let Some(bootstrap) = recognise(argv) else {
        return Ok(None);
    };
    let environment = match wanted(&bootstrap, &seat, env) {
        Some(wanted) => {
            let cache = Cache::new(&seat.cache);
            let installer = Installer::new(installer_env(&seat, env));
            let environment = cache.ensure(&wanted, &installer, log)?;
            for note in &environment.notes {
                log(note);
            }
            Some(environment)
        }
        None => None,
    };
    let mut set = Vec::new();
    if let Some(environment) = &environment {
        variables(environment, &seat, env, &mut set);
    }
    let python = environment.map_or_else(|| seat.interpreter.path.clone(), |e| e.python());
    match bootstrap.then {
        Then::Program(program) => {
            let folder = env.get("TMPDIR").map_or("/tmp", String::as_str);
            let file = write(&program, Path::new(folder)).map_err(|source| Error::Io {
                what: format!("write the step's source in {folder}"),
                source,
            })?;
            set.extend(program.env);
            let args = program.args.into_iter().map(|arg| match arg {
                Arg::Text(text) => text,
                Arg::File => file.display().to_string(),
            });
            Ok(Some(Prepared {
                program: python.display().to_string(),
                args: args.collect(),
                env: set,
            }))
        }
        Then::Command(argv) => {
            let mut argv = argv.into_iter();
            let program = argv.next();
            Ok(program.map(|program| Prepared {
                program,
                args: argv.collect(),
                env: set,
            }))
        }
    }
}

/// What an active environment sets. It never changes, so pip is sent elsewhere.
fn variables(
    environment: &Environment,
    seat: &Seat,
    env: &BTreeMap<String, String>,
    set: &mut Vec<(String, String)>,
) {
    const OWN: &str = "/tmp/.python";
    let dir = environment.dir.display();
    let path = env
        .get("PATH")
        .map_or("/usr/local/bin:/usr/bin:/bin", String::as_str);
    set.push(("VIRTUAL_ENV".to_owned(), dir.to_string()));
    set.push(("PATH".to_owned(), format!("{dir}/bin:{path}")));
    let is_set = |name: &str| env.contains_key(name);
    if !["PIP_PREFIX", "PIP_TARGET", "PYTHONPATH"]
        .into_iter()
        .any(is_set)
    {
        let version = seat.interpreter.version;
        set.push(("PIP_PREFIX".to_owned(), OWN.to_owned()));
        set.push((
            "PYTHONPATH".to_owned(),
            format!("{OWN}/lib/python{version}/site-packages"),
        ));
    }
}

/// Writes the source into a new folder that only this user may enter.
fn write(program: &Program, below: &Path) -> io::Result<PathBuf> {
    let own = std::process::id();
    for number in 0_u32.. {
        let folder = below.join(format!("step-{own}-{number}"));
        match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => {
                let path = folder.join(&program.file);
                std::fs::write(&path, &program.source)?;
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

/// Where a failed step says why, if its Pod has such a file.
const TERMINATION_LOG: &str = "/dev/termination-log";
const FAILED: u8 = 1;
const NOT_FOUND: u8 = 127;

/// The program in a container: makes its arguments, a step's command, ready and becomes it.
pub fn main(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    let argv: Vec<String> = args.into_iter().map(text).collect();
    let env: BTreeMap<String, String> = env.into_iter().map(|(n, v)| (text(n), text(v))).collect();
    let mut log = |line: &str| say(&format!("coracle: {line}\n"));
    let prepared = match prepare(&argv, &env, &mut log) {
        Ok(Some(prepared)) => prepared,
        Ok(None) => {
            let mut argv = argv.into_iter();
            Prepared {
                program: argv.next().unwrap_or_default(),
                args: argv.collect(),
                env: Vec::new(),
            }
        }
        Err(error) => {
            let mut message = error.to_string();
            if let Some(cause) = std::error::Error::source(&error) {
                message = format!("{message}: {cause}");
            }
            say(&format!("coracle: {message}\n"));
            report(&message);
            return ExitCode::from(FAILED);
        }
    };
    let error = Command::new(&prepared.program)
        .args(&prepared.args)
        .envs(prepared.env)
        .exec();
    say(&format!("coracle: run {}: {error}\n", prepared.program));
    ExitCode::from(NOT_FOUND)
}

/// To standard error, which may be closed.
fn say(text: &str) {
    let mut stderr = io::stderr();
    drop(stderr.write_all(text.as_bytes()));
}

/// Tells the kubelet, where there is a file for it.
fn report(message: &str) {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(TERMINATION_LOG);
    drop(file.and_then(|mut file| file.write_all(message.as_bytes())));
}

#[cfg(test)]
mod tests;
