//! Making environments with the tools of this machine, as far as that needs no index.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::interpreter::{Interpreter, Places, choose};

fn here() -> Interpreter {
    let path = std::env::vars().find(|(name, _)| name == "PATH").unwrap().1;
    let places = Places::of(|name| (name == "PATH").then(|| path.clone()));
    choose(None, &places.find())
        .expect("a Python for the tests")
        .0
}

fn wanted(requirements: &[&str]) -> Wanted {
    Wanted {
        interpreter: here(),
        installs: vec![Install {
            requirements: requirements.iter().map(|&r| r.to_owned()).collect(),
            no_deps: true,
            ..Install::default()
        }],
        system_packages: false,
        index: Vec::new(),
    }
}

/// Held while a script is written and run: a child that another test starts in between would keep the
/// file open for writing, and the kernel then refuses to run it.
static ONE: Mutex<()> = Mutex::new(());

/// A uv that does what a script says.
fn fake_uv(dir: &Path, script: &str) -> Installer {
    let uv = dir.join("uv");
    std::fs::write(&uv, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&uv, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", dir.display());
    let installer = Installer::new(BTreeMap::from([("PATH".to_owned(), path)]));
    assert_eq!(installer.tool(), &Tool::Uv(uv));
    installer
}

#[test]
fn uv_is_used_where_it_is_installed_and_python_sees_what_it_installs() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let installer = fake_uv(
        dir.path(),
        "while [ $# -gt 0 ]; do [ \"$1\" = --python ] && python=$2; last=$1; shift; done\n\
         echo \"Installed 1 package\"\n\
         site=$(\"$python\" -c 'import site; print(site.getsitepackages()[0])')\n\
         echo \"name = '$last'\" > \"$site/installed.py\"",
    );
    let target = dir.path().join("environment");
    std::fs::create_dir(&target).unwrap();
    let mut said = Vec::new();
    let mut log = |line: &str| said.push(line.to_owned());
    let notes = installer.make(&wanted(&["thing==1"]), &target, dir.path(), &mut log);
    assert_eq!(notes.unwrap(), Vec::<String>::new());
    assert!(said[0].contains("thing==1 by uv"), "{said:?}");
    assert!(said.contains(&"Installed 1 package".to_owned()), "{said:?}");
    let output = Command::new(target.join("bin/python3"))
        .args([
            "-c",
            "import installed, sys; print(installed.name, sys.prefix)",
        ])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        format!("thing==1 {}", target.display())
    );
}

#[test]
fn a_package_that_cannot_be_had_is_named_with_the_answer() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let installer = fake_uv(
        dir.path(),
        "echo '  × No solution found when resolving dependencies:' >&2\n\
         echo '  ╰─▶ Because thing was not found' >&2\nexit 1",
    );
    let target = dir.path().join("environment");
    std::fs::create_dir(&target).unwrap();
    let error = installer
        .make(&wanted(&["thing==1"]), &target, dir.path(), &mut |_| {})
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Python package thing==1 cannot be had: No solution found when resolving dependencies: \
         Because thing was not found"
    );
}

#[test]
fn another_environments_kfp_is_copied_and_stands_in_for_a_version_that_cannot_be_had() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let interpreter = here();
    let other = dir.path().join("k.1");
    let site = packages(&other, interpreter.version);
    std::fs::create_dir_all(site.join("kfp/dsl")).unwrap();
    std::fs::write(site.join("kfp/dsl/executor_main.py"), "").unwrap();
    std::fs::create_dir_all(site.join("kfp-2.14.6.dist-info")).unwrap();
    std::fs::write(site.join("kfp/__init__.py"), "version = '2.14.6'\n").unwrap();
    symlink("k.1", dir.path().join("k")).unwrap();
    let installer = fake_uv(dir.path(), "echo 'error: no network' >&2; exit 2");
    for (version, note) in [
        ("2.14.6", None),
        ("2.13.0", None),
        (
            "2.15.0",
            Some(
                "kfp 2.14.6 stands in for kfp 2.15.0: Python package kfp==2.15.0 cannot be had: \
                 error: no network",
            ),
        ),
    ] {
        let target = dir.path().join(version);
        std::fs::create_dir(&target).unwrap();
        let asked = format!("kfp=={version}");
        let notes = installer
            .make(&wanted(&[&asked]), &target, dir.path(), &mut |_| {})
            .unwrap();
        assert_eq!(
            notes.iter().map(String::as_str).collect::<Vec<_>>(),
            note.as_slice()
        );
        let output = Command::new(target.join("bin/python3"))
            .args(["-c", "import kfp; print(kfp.version)"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "2.14.6");
    }
}
