//! kfp itself, which runs a step's function. A component asks for the version that compiled it, but
//! compilers between two releases name the one before, and later executors run what earlier ones ran:
//! so the pin is a lower bound within its major version. A copy from another environment is taken
//! before the index's newest, and another version when there is no other way.

use std::path::{Path, PathBuf};

use super::answer::Answer;
use super::{Installer, copy_package, packages};
use crate::cache::{Cache, Wanted};
use crate::install::Install;
use crate::interpreter::Minor;
use crate::{Error, Log};

/// From this version of Python on, kfp's executor needs no other package.
const ALONE_SINCE: Minor = Minor(3, 9);

impl Installer {
    /// Installs what `install` asks for, kfp in `version` among it. Answers with a note when it is
    /// another version.
    pub(super) fn install_kfp(
        &self,
        version: &str,
        install: &Install,
        wanted: &Wanted,
        dir: &Path,
        cache: &Path,
        log: Log<'_>,
    ) -> Result<Option<String>, Error> {
        let python = wanted.interpreter.version;
        // It is the same code on every Python, so an environment that has it can give it.
        let alone = python >= ALONE_SINCE
            && install.requirements.iter().all(|requirement| {
                requirement.starts_with("kfp==") || requirement.contains("python_version<\"3.9\"")
            });
        let newer = newer(version, &cached(cache));
        for (found, source) in newer
            .into_iter()
            .filter(|_| alone && install.options.is_empty())
        {
            if self.copy(&source, dir, python, log).is_ok() && self.works(dir) {
                tell(&found, version, log);
                return Ok(None);
            }
            forget(dir, python);
        }
        let python3 = dir.join("bin/python3");
        let newest = instead(install, &at_least(version));
        let answer = match self.install(&python3, &newest, log) {
            Ok(()) if self.works(dir) => return Ok(None),
            // There is nothing to choose from.
            Err(answer) if answer.versions.is_empty() => answer,
            Ok(()) | Err(_) => match self.install(&python3, install, log) {
                Ok(()) => return Ok(None),
                Err(answer) => answer,
            },
        };
        let problem = answer.about(install);
        let failed = Error::Package(problem.clone());
        let listed = answer.versions.iter().map(String::as_str);
        let other = if let Some(listed) = nearest(version, listed) {
            self.install(&python3, &instead(install, &format!("kfp=={listed}")), log)
                .map_err(|_: Answer| failed)?;
            listed.to_owned()
        } else {
            let cached = cached(cache);
            let names = cached.iter().map(|(version, _)| version.as_str());
            let Some(near) = nearest(version, names).filter(|_| alone) else {
                return Err(failed);
            };
            let source = cached.iter().find(|(version, _)| version == near);
            let (_, source) = source.expect("invariant: the nearest is one of them");
            self.copy(source, dir, python, log)
                .map_err(|_: Error| failed)?;
            near.to_owned()
        };
        Ok(Some(format!(
            "kfp {other} stands in for kfp {version}: {problem}"
        )))
    }

    /// Whether a step's Python can import it.
    fn works(&self, dir: &Path) -> bool {
        let tried = self
            .command(&dir.join("bin/python3"))
            .env("_KFP_RUNTIME", "true")
            .args(["-c", "import kfp.dsl.executor_main"])
            .output();
        tried.is_ok_and(|tried| tried.status.success())
    }

    fn copy(&self, source: &Path, dir: &Path, python: Minor, log: Log<'_>) -> Result<(), Error> {
        let target = packages(dir, python);
        copy_package(source, "kfp", &target).map_err(|error| Error::Io {
            what: format!("copy kfp from {}", source.display()),
            source: error,
        })?;
        log(&format!("copied kfp from {}", source.display()));
        // Nobody writes there later, so that every step would compile it for itself.
        let compiled = self
            .command(&dir.join("bin/python3"))
            .args(["-m", "compileall", "-q"])
            .arg(target.join("kfp"))
            .output();
        compiled.map(drop).map_err(|source| Error::Io {
            what: "compile kfp".to_owned(),
            source,
        })
    }
}

/// Says that kfp is another version than the one asked for.
fn tell(found: &str, version: &str, log: Log<'_>) {
    if found != version {
        log(&format!("kfp {found} runs what kfp {version} compiled"));
    }
}

/// Removes a copy that did not work.
fn forget(dir: &Path, python: Minor) {
    let target = packages(dir, python);
    for entry in std::fs::read_dir(&target).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name == "kfp" || name.to_string_lossy().starts_with("kfp-") {
            // What stays is replaced by the next try.
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

/// The requirement of a version or a later one of the same major version.
fn at_least(version: &str) -> String {
    let next = numbers(version)[0] + 1;
    format!("kfp>={version},<{next}")
}

fn numbers(version: &str) -> Vec<i64> {
    let mut numbers: Vec<i64> = version
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect();
    numbers.resize(3, 0);
    numbers
}

/// Those of the same major version that are not earlier, the latest first.
fn newer(version: &str, found: &[(String, PathBuf)]) -> Vec<(String, PathBuf)> {
    let wanted = numbers(version);
    let mut newer: Vec<(String, PathBuf)> = found
        .iter()
        .filter(|(found, _)| {
            let numbers = numbers(found);
            found == version || (numbers[0] == wanted[0] && numbers >= wanted)
        })
        .cloned()
        .collect();
    newer.sort_by_key(|(version, _)| std::cmp::Reverse(numbers(version)));
    newer.dedup_by(|a, b| a.0 == b.0);
    newer
}

/// The same installation with another requirement of kfp.
fn instead(install: &Install, wanted: &str) -> Install {
    let mut instead = install.clone();
    for requirement in &mut instead.requirements {
        if requirement.starts_with("kfp==") {
            wanted.clone_into(requirement);
        }
    }
    instead
}

/// Versions of kfp in other environments, and where their code is.
fn cached(cache: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for environment in Cache::finished(cache) {
        let libraries = std::fs::read_dir(environment.join("lib"))
            .into_iter()
            .flatten();
        for library in libraries.flatten() {
            let packages = library.path().join("site-packages");
            let entries = std::fs::read_dir(&packages).into_iter().flatten();
            for entry in entries.flatten() {
                let name = entry.file_name();
                let version = name
                    .to_str()
                    .and_then(|name| name.strip_prefix("kfp-"))
                    .and_then(|name| name.strip_suffix(".dist-info"));
                if let Some(version) = version {
                    found.push((version.to_owned(), packages.join("kfp")));
                }
            }
        }
    }
    found
}

/// The version nearest to `wanted` of the same major version.
fn nearest<'a>(wanted: &str, versions: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let goal = numbers(wanted);
    versions
        .filter(|version| version.bytes().all(|b| b == b'.' || b.is_ascii_digit()))
        .filter(|version| numbers(version)[0] == goal[0])
        .min_by_key(|version| {
            let here = numbers(version);
            let distance: Vec<i64> = here.iter().zip(&goal).map(|(a, b)| (a - b).abs()).collect();
            // Of two that are equally far the newer one.
            (distance, std::cmp::Reverse(here))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_version_of_the_same_major_one_will_do() {
        let found: Vec<_> = ["2.13.0", "2.14.6", "2.17.0", "3.0.0", "1.8.22", "2.17.0"]
            .map(|version| (version.to_owned(), PathBuf::from("/x")))
            .to_vec();
        let versions = |wanted| -> Vec<String> {
            newer(wanted, &found)
                .into_iter()
                .map(|(version, _)| version)
                .collect()
        };
        assert_eq!(versions("2.14.3"), ["2.17.0", "2.14.6"]);
        assert_eq!(versions("2.17.0"), ["2.17.0"]);
        assert!(versions("2.18.0").is_empty());
        assert_eq!(at_least("2.14.3"), "kfp>=2.14.3,<3");
    }

    #[test]
    fn the_nearest_version_is_of_the_same_major_one() {
        let near = |wanted, versions: &[&'static str]| nearest(wanted, versions.iter().copied());
        let all = ["1.8.22", "2.0.1", "2.13.0", "2.14.6", "2.15.0rc1"];
        assert_eq!(near("2.14.3", &all), Some("2.14.6"));
        assert_eq!(near("2.99.0", &all), Some("2.14.6"));
        assert_eq!(near("1.8.9", &all), Some("1.8.22"));
        assert_eq!(near("3.0.0", &all), None);
        assert_eq!(near("2.1.0", &["2.0.5", "2.2.0"]), Some("2.2.0"));
    }
}
