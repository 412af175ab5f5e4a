//! Python images on the host: which interpreter a container gets, where it finds its environments, and
//! when it is started through the program that reads kfp's commands.
//!
//! Environments are made inside the containers by that program (crate `pyenv`), never here: the server
//! only looks whether one is there, to mount it read-only.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use pyenv::{Ambient, Cache, Interpreter, Minor, Places, Seat};
use stdx::SharedClock;

use super::{ContainerSpec, ImageKind, Mount};

/// The subcommand of this binary that is [`pyenv::main`].
pub const PROGRAM: &str = "__pyenv";

/// Where containers see the cache whose users may not walk to it.
const ELSEWHERE: &str = "/opt/coracle-python";
/// Where pip puts what a step installs by itself.
const USER_BASE: &str = "/tmp/.python";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a look around for interpreters is good for.
const FRESH: Duration = Duration::from_secs(5);
/// A wrapper's own words before a step's command: more are not looked through.
const MAX_PREFIX: usize = 64;

/// The Pythons of this machine and the environments made of them.
#[derive(Debug)]
pub struct Python {
    cache: PathBuf,
    places: Places,
    ambient: Ambient,
    clock: SharedClock,
    found: Mutex<Option<(Timestamp, Vec<Interpreter>)>>,
    /// Held while folders are made: containers start side by side.
    making: Mutex<()>,
}

/// What a container of a Python image gets beyond its specification.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seated {
    /// Its whole environment.
    pub(super) env: Vec<(String, String)>,
    /// Mounts before its own.
    pub(super) mounts: Vec<Mount>,
    /// Whether [`PROGRAM`] starts its command.
    pub(super) helped: bool,
}

impl Python {
    /// Environments below `cache`; interpreters in `places`; packages as the user's settings say.
    pub fn new(cache: PathBuf, places: Places, ambient: Ambient, clock: SharedClock) -> Self {
        Self {
            cache,
            places,
            ambient,
            clock,
            found: Mutex::new(None),
            making: Mutex::new(()),
        }
    }

    fn interpreters(&self) -> Vec<Interpreter> {
        let now = self.clock.now();
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match &*found {
            Some((at, interpreters)) if now.duration_since(*at).unsigned_abs() < FRESH => {
                interpreters.clone()
            }
            _ => {
                let interpreters = self.places.find();
                *found = Some((now, interpreters.clone()));
                interpreters
            }
        }
    }

    /// Gives a container its place, if its image is one of Python; `mounts`: whether it has a mount
    /// namespace. The error says what is missing.
    pub(super) fn seat(
        &self,
        spec: &ContainerSpec,
        mounts: bool,
    ) -> Result<Option<Seated>, String> {
        let ImageKind::Python(version) = &spec.image.kind else {
            return Ok(None);
        };
        let own = rustix::process::getuid().as_raw();
        let other = spec.security.user.filter(|user| *user != own);
        let mut interpreters = self.interpreters();
        if other.is_some() {
            interpreters.retain(|interpreter| pyenv::open_to_everyone(&interpreter.path));
        }
        let (interpreter, notice) = pyenv::choose(Minor::parse(version), &interpreters)
            .ok_or_else(|| {
                let whose = match other {
                    Some(user) => format!(" that user {user} may run"),
                    None => String::new(),
                };
                format!(
                    "image {:?} runs with a Python of this machine, and there is none{whose}",
                    spec.image.reference
                )
            })?;
        let problem = |error: io::Error| format!("make {}: {error}", self.cache.display());
        let making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let (cache, seen) = self.place(other, mounts).map_err(problem)?;
        let links = links(&cache, &interpreter).map_err(problem)?;
        drop(making);
        let seat = Seat {
            cache: seen.clone(),
            interpreter,
            notice,
        };
        let argv = spec.argv();
        let recognised = argv
            .iter()
            .take(MAX_PREFIX)
            .enumerate()
            .map(|(at, _)| (at, &argv[at..]))
            .filter(|(_, argv)| pyenv::resembles(argv))
            .find_map(|(at, argv)| Some((at, pyenv::recognise(argv)?)));
        let mut env: BTreeMap<String, String> = spec.env.iter().cloned().collect();
        let wanted = recognised.as_ref().and_then(|(_, bootstrap)| {
            let here = Seat {
                cache: cache.clone(),
                ..seat.clone()
            };
            pyenv::wanted(bootstrap, &here, &env)
        });
        // Only a container that makes an environment may write there.
        let missing = |wanted: &pyenv::Wanted| Cache::new(&cache).ready(&wanted.key()).is_none();
        let writable = wanted.as_ref().is_some_and(missing);
        // A wrapper that ends its own words with `--` asks `pyenv` itself.
        let wrapped = argv.iter().take(MAX_PREFIX).any(|word| word == "--");
        let helped = match &recognised {
            Some((at, _)) => *at == 0,
            None => seat.notice.is_some() && !wrapped,
        };

        let path = env.get("PATH").map_or(PATH, String::as_str);
        let links = seen.join(links.file_name().unwrap_or_default());
        let path = format!("{}:{path}:{USER_BASE}/bin", links.display());
        env.insert("PATH".to_owned(), path);
        env.insert(pyenv::VARIABLE.to_owned(), seat.to_json());
        let mut default = |name: &str, value: &str| {
            env.entry(name.to_owned())
                .or_insert_with(|| value.to_owned());
        };
        default("PYTHONUSERBASE", USER_BASE);
        default("PIP_BREAK_SYSTEM_PACKAGES", "1");
        if !mounts {
            // Nothing else keeps it from the interpreter's own packages.
            default("PIP_USER", "1");
        }
        let mut before = vec![Mount {
            source: cache,
            target: seen,
            read_only: !writable,
        }];
        before.extend(libraries(&seat.interpreter).map(|dir| Mount {
            source: dir.clone(),
            target: dir,
            read_only: true,
        }));
        Ok(Some(Seated {
            env: env.into_iter().collect(),
            mounts: before,
            helped,
        }))
    }

    /// The cache for a user, and where a container of that user sees it. Environments of one user are
    /// never run by another.
    fn place(&self, other: Option<u32>, mounts: bool) -> io::Result<(PathBuf, PathBuf)> {
        let make = |dir: &Path| {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(dir)
        };
        make(&self.cache)?;
        let Some(user) = other else {
            self.ambient.write(&self.cache)?;
            return Ok((self.cache.clone(), self.cache.clone()));
        };
        let dir = self.cache.join(format!("user-{user}"));
        if !dir.exists() {
            make(&dir)?;
            self.ambient.write(&dir)?;
            // Whoever may not give files away cannot start a container as someone else either.
            std::os::unix::fs::chown(&dir, Some(user), None)?;
            for entry in std::fs::read_dir(&dir)?.flatten() {
                std::os::unix::fs::chown(entry.path(), Some(user), None)?;
            }
        }
        let seen = if mounts && !pyenv::open_to_everyone(&dir) {
            PathBuf::from(ELSEWHERE)
        } else {
            dir.clone()
        };
        Ok((dir, seen))
    }
}

/// A folder in which the interpreter has all its names. Made once.
fn links(cache: &Path, interpreter: &Interpreter) -> io::Result<PathBuf> {
    let version = interpreter.version;
    let name: String = interpreter
        .path
        .to_string_lossy()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let dir = cache.join(format!("bin{name}"));
    if dir.exists() {
        return Ok(dir);
    }
    let new = cache.join(format!("new{name}"));
    if new.exists() {
        std::fs::remove_dir_all(&new)?;
    }
    std::fs::create_dir(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
    for name in ["python", "python3", &format!("python{version}")] {
        symlink(&interpreter.path, new.join(name))?;
    }
    for name in ["pip", "pip3"] {
        let path = new.join(name);
        let python = interpreter.path.display();
        std::fs::write(&path, format!("#!/bin/sh\nexec '{python}' -m pip \"$@\"\n"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    std::fs::rename(&new, &dir)?;
    Ok(dir)
}

/// The folder that pip would install into, which is the host's: a step's packages go to its own.
fn libraries(interpreter: &Interpreter) -> Option<PathBuf> {
    let prefix = interpreter.path.parent()?.parent()?;
    let prefix = if prefix == Path::new("/usr") {
        Path::new("/usr/local")
    } else {
        prefix
    };
    let dir = prefix.join(format!("lib/python{}", interpreter.version));
    dir.is_dir().then_some(dir)
}

#[cfg(test)]
mod tests;
