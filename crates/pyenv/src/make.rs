//! Filling an environment: the folder of a virtual environment, then uv where it is installed, else
//! pip.

mod answer;
mod kfp;
mod tool;

pub(crate) use tool::configuration;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{Maker, Wanted};
use crate::install::Install;
use crate::interpreter::Minor;
use crate::{Error, Log};

/// What installs packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tool {
    /// uv, at this path.
    Uv(PathBuf),
    /// The environment's own pip.
    Pip,
}

/// Makes environments with the tools of this machine.
#[derive(Debug)]
pub struct Installer {
    tool: Tool,
    env: BTreeMap<String, String>,
}

/// Settings of pip that would put packages elsewhere.
const ELSEWHERE: [&str; 4] = ["PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER"];

impl Installer {
    /// An installer whose tools get this environment alone.
    pub fn new(mut env: BTreeMap<String, String>) -> Self {
        env.retain(|name, _| !ELSEWHERE.contains(&name.as_str()));
        let tool = tool::uv(&env).map_or(Tool::Pip, Tool::Uv);
        Self { tool, env }
    }

    /// What it installs with.
    pub fn tool(&self) -> &Tool {
        &self.tool
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.env);
        command.stdin(std::process::Stdio::null());
        command
    }

    fn install(
        &self,
        python: &Path,
        install: &Install,
        log: Log<'_>,
    ) -> Result<(), answer::Answer> {
        let command = match &self.tool {
            Tool::Uv(uv) => tool::with_uv(self.command(uv), &self.env, python, install),
            Tool::Pip => tool::with_pip(self.command(python), install),
        };
        answer::run(command, log)
    }
}

impl Maker for Installer {
    fn make(
        &self,
        wanted: &Wanted,
        dir: &Path,
        cache: &Path,
        log: Log<'_>,
    ) -> Result<Vec<String>, Error> {
        let version = wanted.interpreter.version;
        log(&format!(
            "making a Python {version} environment with {} by {} (once; steps with the same packages \
             share it)",
            wanted.packages(),
            match &self.tool {
                Tool::Uv(_) => "uv",
                Tool::Pip => "pip",
            },
        ));
        skeleton(wanted, dir).map_err(|source| Error::Io {
            what: format!("make a virtual environment in {}", dir.display()),
            source,
        })?;
        let python = dir.join("bin/python3");
        self.seed_pip(wanted, dir, log)?;
        let mut notes = Vec::new();
        for install in &wanted.installs {
            match install.kfp() {
                Some(version) => {
                    notes.extend(self.install_kfp(version, install, wanted, dir, cache, log)?);
                }
                None => self
                    .install(&python, install, log)
                    .map_err(|answer| Error::Package(answer.about(install)))?,
            }
        }
        log("the environment is ready");
        Ok(notes)
    }
}

/// What `python -m venv` makes, without starting Python.
fn skeleton(wanted: &Wanted, dir: &Path) -> io::Result<()> {
    let interpreter = &wanted.interpreter;
    let version = interpreter.version;
    let (bin, packages) = (dir.join("bin"), packages(dir, version));
    std::fs::create_dir_all(&bin)?;
    std::fs::create_dir_all(packages)?;
    symlink("lib", dir.join("lib64"))?;
    symlink(&interpreter.path, bin.join("python3"))?;
    symlink("python3", bin.join("python"))?;
    symlink("python3", bin.join(format!("python{version}")))?;
    let home = interpreter.path.parent().unwrap_or_else(|| Path::new("/"));
    let system = wanted.system_packages;
    std::fs::write(
        dir.join("pyvenv.cfg"),
        format!(
            "home = {}\ninclude-system-site-packages = {system}\nversion = {version}\n",
            home.display()
        ),
    )
}

fn packages(dir: &Path, version: Minor) -> PathBuf {
    dir.join(format!("lib/python{version}/site-packages"))
}

impl Installer {
    /// Gives the environment a pip of its own, as every Python image has one: the interpreter's.
    fn seed_pip(&self, wanted: &Wanted, dir: &Path, log: Log<'_>) -> Result<(), Error> {
        let version = wanted.interpreter.version;
        let asked = self
            .command(&wanted.interpreter.path)
            .args(["-I", "-c", "import pip; print(pip.__path__[0])"])
            .output();
        let output = asked.map_err(|source| Error::Io {
            what: format!("run {}", wanted.interpreter.path.display()),
            source,
        })?;
        let source = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        if output.status.success() && source.is_absolute() {
            return copy_package(&source, "pip", &packages(dir, version))
                .and_then(|()| pip_scripts(dir, version))
                .map_err(|error| Error::Io {
                    what: format!("copy pip from {}", source.display()),
                    source: error,
                });
        }
        let mut ensure = self.command(&dir.join("bin/python3"));
        ensure.args(["-m", "ensurepip", "--default-pip"]);
        match answer::run(ensure, log) {
            Ok(()) => Ok(()),
            // uv needs none.
            Err(_) if self.tool != Tool::Pip => Ok(()),
            Err(_) => Err(Error::NoInstaller {
                interpreter: wanted.interpreter.path.display().to_string(),
            }),
        }
    }
}

fn pip_scripts(dir: &Path, version: Minor) -> io::Result<()> {
    for name in ["pip".to_owned(), "pip3".to_owned(), format!("pip{version}")] {
        let path = dir.join("bin").join(name);
        let python = dir.join("bin/python3");
        let text = format!("#!/bin/sh\nexec '{}' -m pip \"$@\"\n", python.display());
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Copies the folder of an installed package and what describes it into another environment.
fn copy_package(source: &Path, name: &str, packages: &Path) -> io::Result<()> {
    copy_tree(source, &packages.join(name))?;
    let beside = source.parent().unwrap_or_else(|| Path::new("/"));
    for entry in std::fs::read_dir(beside)?.flatten() {
        let file = entry.file_name();
        let text = file.to_string_lossy();
        if text.starts_with(&format!("{name}-")) && text.ends_with(".dist-info") {
            copy_tree(&entry.path(), &packages.join(&file))?;
        }
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if std::fs::metadata(entry.path())?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
