//! The Python interpreters of this machine, found by the names of their files: nothing is executed to
//! find them.

use std::fmt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A minor version, 3.11.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Minor(pub u32, pub u32);

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Minor {
    /// Reads `3.11`, `3.11.7`, `3.11-slim`; `None` when there is no minor version.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit());
        let major = numbers.next()?.parse().ok()?;
        let minor = text[major_length(text)..].strip_prefix('.')?;
        let end = minor
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(minor.len());
        Some(Self(major, minor[..end].parse().ok()?))
    }
}

fn major_length(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len())
}

/// An interpreter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    /// Its executable.
    pub path: PathBuf,
    /// Its version.
    pub version: Minor,
}

/// Where to look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The user's `PATH`.
    pub path: Vec<PathBuf>,
    /// Folders with a folder per version, each with `bin/pythonX.Y`: pyenv's, uv's and the like.
    pub versions: Vec<PathBuf>,
}

impl Places {
    /// The usual places of a user, by the user's environment.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let path = variable("PATH").unwrap_or_default();
        let mut places = Self {
            path: path
                .split(':')
                .filter(|dir| dir.starts_with('/'))
                .map(PathBuf::from)
                .collect(),
            versions: Vec::new(),
        };
        let named = |name: &str| variable(name).filter(|dir| dir.starts_with('/'));
        let home = named("HOME").map(PathBuf::from);
        let data = named("XDG_DATA_HOME")
            .map(PathBuf::from)
            .or_else(|| home.as_ref().map(|home| home.join(".local/share")));
        let or_home = |name: &str, below: &str| {
            named(name)
                .map(PathBuf::from)
                .or_else(|| home.as_ref().map(|home| home.join(below)))
        };
        places.versions.extend(
            [
                or_home("PYENV_ROOT", ".pyenv").map(|root| root.join("versions")),
                named("UV_PYTHON_INSTALL_DIR")
                    .map(PathBuf::from)
                    .or_else(|| data.as_ref().map(|data| data.join("uv/python"))),
                data.map(|data| data.join("mise/installs/python")),
                or_home("ASDF_DATA_DIR", ".asdf").map(|root| root.join("installs/python")),
            ]
            .into_iter()
            .flatten(),
        );
        for dir in ["/usr/local/bin", "/usr/bin"] {
            if !places.path.iter().any(|known| known == Path::new(dir)) {
                places.path.push(dir.into());
            }
        }
        places
    }

    /// All Python 3 interpreters, those found first in front.
    pub fn find(&self) -> Vec<Interpreter> {
        let mut found = Vec::new();
        for dir in &self.path {
            in_folder(dir, &mut found);
        }
        for root in &self.versions {
            let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
            let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            // Newest first, as far as names tell.
            folders.sort_by_key(|path| std::cmp::Reverse(numbers(path)));
            for folder in folders {
                in_folder(&folder.join("bin"), &mut found);
            }
        }
        found
    }
}

fn numbers(path: &Path) -> Vec<u32> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// Files `python3.Y` that are programs, not scripts that look for one.
fn in_folder(dir: &Path, found: &mut Vec<Interpreter>) {
    let mut here: Vec<Interpreter> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix("python")?;
            let minor = Minor::parse(version).filter(|minor| minor.0 == 3)?;
            if minor.to_string() != version || !is_program(&entry.path()) {
                return None;
            }
            Some(Interpreter {
                path: entry.path(),
                version: minor,
            })
        })
        .collect();
    here.sort_by_key(|interpreter| std::cmp::Reverse(interpreter.version));
    for interpreter in here {
        if !found.contains(&interpreter) {
            found.push(interpreter);
        }
    }
}

fn is_program(path: &Path) -> bool {
    use std::io::Read as _;
    let mut head = [0; 4];
    let Ok(mut file) = std::fs::File::open(path) else {
        return false;
    };
    let executable = file
        .metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
    executable && file.read_exact(&mut head).is_ok() && &head == b"\x7fELF"
}

/// Whether a user other than the server's can execute a file: every folder above it and the file,
/// with links followed, are open to everyone.
pub fn open_to_everyone(path: &Path) -> bool {
    let open = |path: &Path| {
        path.ancestors()
            .all(|part| std::fs::metadata(part).is_ok_and(|data| data.mode() & 0o001 != 0))
    };
    open(path) && std::fs::canonicalize(path).is_ok_and(|real| open(&real))
}

/// The interpreter for a wanted version and, when it is another one, a sentence that says so. Without
/// a wish the first one is taken.
pub fn choose(
    wanted: Option<Minor>,
    found: &[Interpreter],
) -> Option<(Interpreter, Option<String>)> {
    let Some(wanted) = wanted else {
        return found.first().map(|first| (first.clone(), None));
    };
    let distance = |interpreter: &&Interpreter| {
        let version = interpreter.version;
        // Of two that are equally far the newer one: most code runs on later versions.
        (
            version.0.abs_diff(wanted.0),
            version.1.abs_diff(wanted.1),
            std::cmp::Reverse(version),
        )
    };
    // The first of equals, which is the one that stands first in the user's PATH.
    let nearest = found.iter().min_by_key(distance)?;
    let notice = (nearest.version != wanted).then(|| {
        format!(
            "this machine has no Python {wanted}; {} ({}) is the nearest",
            nearest.version,
            nearest.path.display()
        )
    });
    Some((nearest.clone(), notice))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interpreter(version: Minor) -> Interpreter {
        Interpreter {
            path: format!("/p/python{version}").into(),
            version,
        }
    }

    #[test]
    fn versions_are_read_from_tags() {
        for (text, minor) in [
            ("3.11", Some(Minor(3, 11))),
            ("3.9.18-slim-bookworm", Some(Minor(3, 9))),
            ("3.12-alpine", Some(Minor(3, 12))),
            ("3", None),
            ("latest", None),
            ("slim", None),
        ] {
            assert_eq!(Minor::parse(text), minor, "{text}");
        }
    }

    #[test]
    fn the_nearest_version_is_taken_and_named() {
        let found = [
            interpreter(Minor(3, 11)),
            interpreter(Minor(3, 8)),
            interpreter(Minor(3, 13)),
        ];
        let chosen = |minor| choose(minor, &found).unwrap();
        assert_eq!(chosen(Some(Minor(3, 8))), (found[1].clone(), None));
        assert_eq!(chosen(None), (found[0].clone(), None));
        let (nearest, notice) = chosen(Some(Minor(3, 12)));
        assert_eq!(nearest, found[2]);
        assert!(
            notice
                .unwrap()
                .contains("no Python 3.12; 3.13 (/p/python3.13)")
        );
        assert_eq!(chosen(Some(Minor(3, 7))).0, found[1]);
        assert_eq!(choose(None, &[]), None);
    }

    #[test]
    fn interpreters_are_found_by_name_and_scripts_are_not_taken_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = |path: &str, content: &[u8]| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let system = file("usr/bin/python3.11", b"\x7fELF,");
        file("shims/python3.10", b"#!/bin/sh\n");
        file("usr/bin/python3.11-config", b"\x7fELF,");
        let older = file("versions/3.9.2/bin/python3.9", b"\x7fELF,");
        let newer = file("versions/3.9.18/bin/python3.9", b"\x7fELF,");
        let at = dir.path().display();
        let places = Places::of(|name| match name {
            "PATH" => Some(format!("{at}/shims:{at}/usr/bin:relative")),
            "PYENV_ROOT" => Some(at.to_string()),
            _ => None,
        });
        let found: Vec<PathBuf> = places
            .find()
            .into_iter()
            .map(|interpreter| interpreter.path)
            .filter(|path| path.starts_with(dir.path()))
            .collect();
        assert_eq!(found, [system, newer, older]);
    }
}
