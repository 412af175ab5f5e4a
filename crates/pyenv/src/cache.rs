//! The cache of environments: one folder for each set of interpreter, packages and index settings,
//! made once, whoever asks first, and published when it is whole.
//!
//! `KEY` is a link to the finished folder `KEY.N`; it is made by rename, so a folder without a link is
//! what a killed maker left. The maker holds a lock on `KEY.lock`, which the kernel releases when it
//! dies. Folders keep their name for life, because scripts inside hold their own path.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::install::Install;
use crate::interpreter::Interpreter;
use crate::{Error, Log};

/// What an environment shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wanted {
    /// Its interpreter.
    pub interpreter: Interpreter,
    /// What is installed, in order.
    pub installs: Vec<Install>,
    /// Whether the interpreter's own packages are seen too.
    pub system_packages: bool,
    /// Where packages come from beyond what the commands say: names and values or contents.
    pub index: Vec<(String, String)>,
}

impl Wanted {
    /// The name of its folder.
    pub fn key(&self) -> String {
        const DIGITS: usize = 32;
        let text = serde_json::to_vec(self).expect("invariant: paths found by name are text");
        let mut hex: String = Sha256::digest(text)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        hex.truncate(DIGITS);
        hex
    }

    /// The packages, for people.
    pub(crate) fn packages(&self) -> String {
        let all = self.installs.iter().flat_map(|i| i.requirements.iter());
        // Requirements of other versions of Python say so after a semicolon.
        all.filter(|r| !r.contains(';'))
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// A finished environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Its folder.
    pub dir: PathBuf,
    /// What every step that uses it should say.
    pub notes: Vec<String>,
}

impl Environment {
    /// Its interpreter.
    pub fn python(&self) -> PathBuf {
        self.dir.join("bin/python3")
    }
}

/// Makes the content of an environment.
pub trait Maker {
    /// Fills the new folder `dir`; answers with notes for every step that uses it. `cache` holds
    /// other environments.
    fn make(
        &self,
        wanted: &Wanted,
        dir: &Path,
        cache: &Path,
        log: Log<'_>,
    ) -> Result<Vec<String>, Error>;
}

const NOTES_FILE: &str = "coracle-notes.json";

/// The environments below a folder.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache in a folder, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The environment of a key, if it is there and its interpreter still is.
    pub fn ready(&self, key: &str) -> Option<Environment> {
        let name = std::fs::read_link(self.root.join(key)).ok()?;
        let dir = self.root.join(name);
        std::fs::metadata(dir.join("bin/python3")).ok()?;
        let notes = std::fs::read(dir.join(NOTES_FILE)).ok()?;
        Some(Environment {
            dir,
            notes: serde_json::from_slice(&notes).ok()?,
        })
    }

    /// The environment, made by `maker` if it is not there. Of several that ask at once one makes it
    /// and the others wait.
    pub fn ensure(
        &self,
        wanted: &Wanted,
        maker: &dyn Maker,
        log: Log<'_>,
    ) -> Result<Environment, Error> {
        let key = wanted.key();
        if let Some(ready) = self.ready(&key) {
            return Ok(ready);
        }
        let io = |what: &str| {
            let what = format!("{what} in {}", self.root.display());
            move |source: io::Error| Error::Io { what, source }
        };
        std::fs::create_dir_all(&self.root).map_err(io("make folders"))?;
        let lock = File::create(self.root.join(format!("{key}.lock"))).map_err(io("write"))?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let before = self.failure(&key);
            log("another step is making this environment, waiting for it");
            rustix::fs::flock(&lock, FlockOperation::LockExclusive)
                .map_err(|error| io("wait for a lock")(error.into()))?;
            if let Some(ready) = self.ready(&key) {
                return Ok(ready);
            }
            // Asking the same question again would get the same answer.
            if let Some((_, failure)) = self
                .failure(&key)
                .filter(|now| Some(now) != before.as_ref())
            {
                return Err(Error::Package(failure));
            }
        } else if let Some(ready) = self.ready(&key) {
            return Ok(ready);
        }
        let dir = self.new_folder(&key).map_err(io("make a folder"))?;
        let made = maker.make(wanted, &dir, &self.root, log).and_then(|notes| {
            let text = serde_json::to_vec(&notes).map_err(io::Error::other);
            text.and_then(|text| std::fs::write(dir.join(NOTES_FILE), text))
                .and_then(|()| self.publish(&key, &dir))
                .map_err(io("publish an environment"))?;
            Ok(notes)
        });
        match made {
            Ok(notes) => {
                drop(std::fs::remove_file(self.failure_path(&key)));
                Ok(Environment { dir, notes })
            }
            Err(error) => {
                drop(std::fs::remove_dir_all(&dir));
                if let Error::Package(text) = &error {
                    let number = self.failure(&key).map_or(0, |(number, _)| number + 1);
                    let told = File::create(self.failure_path(&key))
                        .and_then(|mut file| write!(file, "{number}\n{text}"));
                    // Others then ask for themselves.
                    drop(told);
                }
                Err(error)
            }
        }
    }

    fn failure_path(&self, key: &str) -> PathBuf {
        self.root.join(format!("{key}.failed"))
    }

    /// The number and the text of the last failure to make an environment.
    fn failure(&self, key: &str) -> Option<(u64, String)> {
        let text = std::fs::read_to_string(self.failure_path(key)).ok()?;
        let (number, text) = text.split_once('\n')?;
        Some((number.parse().ok()?, text.to_owned()))
    }

    /// A folder for a new environment. What others left unfinished is removed; whoever calls holds
    /// the lock.
    fn new_folder(&self, key: &str) -> io::Result<PathBuf> {
        let published = std::fs::read_link(self.root.join(key)).ok();
        let prefix = format!("{key}.");
        let mut last = 0;
        for entry in std::fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            let Some(number) = name
                .to_str()
                .and_then(|name| name.strip_prefix(&prefix))
                .and_then(|number| number.parse::<u64>().ok())
            else {
                continue;
            };
            last = last.max(number);
            if published.as_deref() != Some(Path::new(&name)) {
                drop(std::fs::remove_dir_all(self.root.join(&name)));
            }
        }
        let dir = self.root.join(format!("{prefix}{}", last + 1));
        std::fs::create_dir(&dir)?;
        Ok(dir)
    }

    /// Points the key to a finished folder, which is on the disk before.
    fn publish(&self, key: &str, dir: &Path) -> io::Result<()> {
        let root = File::open(&self.root)?;
        rustix::fs::syncfs(&root)?;
        let link = self.root.join(format!("{key}.link"));
        drop(std::fs::remove_file(&link));
        std::os::unix::fs::symlink(dir.file_name().unwrap_or_default(), &link)?;
        std::fs::rename(&link, self.root.join(key))?;
        root.sync_all()
    }

    /// Folders of all finished environments.
    pub(crate) fn finished(root: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .map(|name| root.join(name))
            .collect()
    }
}

#[cfg(test)]
mod tests;
