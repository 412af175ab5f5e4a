//! What containers of Python images get, with interpreters that are only files.

use std::os::unix::fs::PermissionsExt as _;

use stdx::ManualClock;

use super::*;
use crate::runtime::process::tests::spec;

struct Machine {
    dir: tempfile::TempDir,
    python: Python,
}

fn machine(versions: &[&str]) -> Machine {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("prefix/bin");
    std::fs::create_dir_all(&bin).unwrap();
    for version in versions {
        let file = bin.join(format!("python{version}"));
        std::fs::write(&file, b"\x7fELF").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir_all(dir.path().join(format!("prefix/lib/python{version}"))).unwrap();
    }
    let places = Places {
        path: vec![bin],
        versions: Vec::new(),
    };
    let clock = std::sync::Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let python = Python::new(dir.path().join("cache"), places, Ambient::default(), clock);
    Machine { dir, python }
}

fn wants(version: &str) -> ImageKind {
    ImageKind::Python(version.to_owned())
}

fn value<'a>(seated: &'a Seated, name: &str) -> &'a str {
    let found = seated.env.iter().find(|(known, _)| known == name);
    found.map_or("", |(_, value)| value)
}

#[test]
fn the_wanted_python_stands_first_in_the_path() {
    let machine = machine(&["3.9", "3.11"]);
    let seat = |spec: &ContainerSpec| machine.python.seat(spec, true).unwrap();
    let plain = spec(wants("3.9"), &["python3", "x.py"], &[]);
    let seated = seat(&plain).unwrap();
    assert!(!seated.helped);
    let path = value(&seated, "PATH").split(':').next().unwrap();
    let link = std::fs::read_link(Path::new(path).join("python")).unwrap();
    assert!(link.ends_with("python3.9"), "{link:?}");
    assert!(seated.mounts.iter().all(|mount| mount.read_only));
    let library = machine.dir.path().join("prefix/lib/python3.9");
    assert!(seated.mounts.iter().any(|mount| mount.target == library));
    assert_eq!(seat(&spec(ImageKind::Host, &["python3"], &[])), None);
}

#[test]
fn a_nearest_python_is_said_in_the_log() {
    let machine = machine(&["3.11"]);
    let seated = machine
        .python
        .seat(&spec(wants("3.12"), &["echo"], &[]), true)
        .unwrap()
        .unwrap();
    assert!(seated.helped);
    assert!(value(&seated, pyenv::VARIABLE).contains("no Python 3.12"));
    // A wrapper says it itself.
    let wrapped = spec(wants("3.12"), &["/w/coracle", "launch", "--", "echo"], &[]);
    assert!(!machine.python.seat(&wrapped, true).unwrap().unwrap().helped);
}

#[test]
fn only_a_step_whose_environment_is_missing_may_write_to_the_cache() {
    let machine = machine(&["3.11"]);
    let install = [
        "sh",
        "-c",
        "python3 -m pip install x && \"$0\" \"$@\"",
        "python3",
        "-V",
    ];
    let step = spec(wants("3.11"), &install, &[]);
    let seated = machine.python.seat(&step, true).unwrap().unwrap();
    assert!(seated.helped);
    let cache = machine.dir.path().join("cache");
    let read_only = |seated: &Seated| {
        let mount = seated.mounts.iter().find(|mount| mount.target == cache);
        mount.unwrap().read_only
    };
    assert!(!read_only(&seated));

    let seat = Seat::from_json(value(&seated, pyenv::VARIABLE)).unwrap();
    let bootstrap = pyenv::recognise(&step.argv()).unwrap();
    let env = step.env.iter().cloned().collect();
    let key = pyenv::wanted(&bootstrap, &seat, &env).unwrap().key();
    let made = cache.join(format!("{key}.1"));
    std::fs::create_dir_all(made.join("bin")).unwrap();
    std::fs::write(made.join("bin/python3"), "").unwrap();
    std::fs::write(made.join("coracle-notes.json"), "[]").unwrap();
    symlink(format!("{key}.1"), cache.join(&key)).unwrap();
    let seated = machine.python.seat(&step, true).unwrap().unwrap();
    assert!(read_only(&seated));

    // Behind a wrapper it is the same, but for who reads the command.
    let wrapped: Vec<&str> = ["/w/coracle", "launch", "--"]
        .into_iter()
        .chain(install)
        .collect();
    let seated = machine
        .python
        .seat(&spec(wants("3.11"), &wrapped, &[]), true);
    let seated = seated.unwrap().unwrap();
    assert!(read_only(&seated));
    assert!(!seated.helped);
}

#[test]
fn a_machine_without_python_says_so() {
    let error = machine(&[])
        .python
        .seat(&spec(wants("3.11"), &["echo"], &[]), true)
        .unwrap_err();
    assert!(
        error.contains("image \"x\"") && error.contains("none"),
        "{error}"
    );
}

#[test]
fn without_mounts_pip_is_told_to_stay_away_from_the_interpreter() {
    let machine = machine(&["3.11"]);
    let step = spec(wants("3.11"), &["echo"], &[]);
    let with = machine.python.seat(&step, true).unwrap().unwrap();
    let without = machine.python.seat(&step, false).unwrap().unwrap();
    assert_eq!(value(&with, "PIP_USER"), "");
    assert_eq!(value(&without, "PIP_USER"), "1");
}
