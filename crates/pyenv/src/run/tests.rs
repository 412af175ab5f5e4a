//! Whole commands, with a cache whose environments are there already.

use std::os::unix::fs::symlink;

use super::*;
use crate::interpreter::{Interpreter, Minor};

fn seat(cache: &Path) -> Seat {
    Seat {
        cache: cache.to_owned(),
        interpreter: Interpreter {
            path: "/usr/bin/python3.11".into(),
            version: Minor(3, 11),
        },
        notice: Some("another Python".to_owned()),
    }
}

fn env(seat: &Seat, temporary: &Path) -> BTreeMap<String, String> {
    BTreeMap::from([
        (VARIABLE.to_owned(), seat.to_json()),
        ("TMPDIR".to_owned(), temporary.display().to_string()),
        ("PATH".to_owned(), "/bin".to_owned()),
    ])
}

fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

const RUN: &str = "p=$(mktemp -d)\nprintf \"%s\" \"$0\" > \"$p/step.py\"\n\
                   A=b python3 -m kfp.dsl.executor_main --component_module_path \"$p/step.py\" \"$@\"";

#[test]
fn a_step_is_one_call_of_the_environments_python() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let seat = seat(&cache);
    let env = env(&seat, dir.path());
    let argv = argv(&[
        "sh",
        "-c",
        "pip install x && \"$0\" \"$@\"",
        "sh",
        "-ec",
        RUN,
        "the source",
        "--y",
    ]);
    let key = wanted(&recognise(&argv).unwrap(), &seat, &env)
        .unwrap()
        .key();
    let environment = cache.join(format!("{key}.1"));
    std::fs::create_dir_all(environment.join("bin")).unwrap();
    std::fs::write(environment.join("bin/python3"), "").unwrap();
    std::fs::write(environment.join("coracle-notes.json"), "[\"a note\"]").unwrap();
    symlink(format!("{key}.1"), cache.join(&key)).unwrap();

    let mut said = Vec::new();
    let prepared = prepare(&argv, &env, &mut |line| said.push(line.to_owned()));
    let prepared = prepared.unwrap().unwrap();
    assert_eq!(said, ["another Python", "a note"]);
    assert_eq!(
        prepared.program,
        environment.join("bin/python3").display().to_string()
    );
    let [.., module, option, file, last] = prepared.args.as_slice() else {
        panic!("{prepared:?}")
    };
    assert_eq!(
        [module.as_str(), option, last],
        ["kfp.dsl.executor_main", "--component_module_path", "--y"]
    );
    assert!(file.ends_with("/step.py"));
    assert_eq!(std::fs::read_to_string(file).unwrap(), "the source");
    let set: BTreeMap<_, _> = prepared.env.into_iter().collect();
    assert_eq!(set["A"], "b");
    assert_eq!(set["PATH"], format!("{}/bin:/bin", environment.display()));
    assert_eq!(set["VIRTUAL_ENV"], environment.display().to_string());
}

#[test]
fn a_source_without_packages_runs_with_the_interpreter_itself() {
    let dir = tempfile::tempdir().unwrap();
    let seat = seat(dir.path());
    let argv = argv(&["sh", "-ec", RUN, "source"]);
    let prepared = prepare(&argv, &env(&seat, dir.path()), &mut |_| {})
        .unwrap()
        .unwrap();
    assert_eq!(prepared.program, "/usr/bin/python3.11");
    assert!(prepared.env.iter().all(|(name, _)| name != "PATH"));
}

#[test]
fn other_commands_and_containers_without_a_seat_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let seat = seat(dir.path());
    let env = env(&seat, dir.path());
    let other = prepare(&argv(&["python3", "x.py"]), &env, &mut |_| {});
    assert_eq!(other.unwrap(), None);
    let argv = argv(&["sh", "-ec", RUN, "source"]);
    assert_eq!(prepare(&argv, &BTreeMap::new(), &mut |_| {}).unwrap(), None);
    let broken = BTreeMap::from([(VARIABLE.to_owned(), "{".to_owned())]);
    let error = prepare(&argv, &broken, &mut |_| {}).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("CORACLE_PYTHON cannot be read")
    );
}

#[test]
fn the_pods_own_index_wins_over_the_servers() {
    let dir = tempfile::tempdir().unwrap();
    let seat = seat(dir.path());
    let ambient = |names: &[(&str, &str)]| {
        Ambient::of(names.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())))
    };
    ambient(&[
        ("PIP_INDEX_URL", "https://user"),
        ("HOME", "/home/u"),
        ("OTHER", "x"),
    ])
    .write(dir.path())
    .unwrap();
    let mut env = env(&seat, dir.path());
    env.insert("HOME".to_owned(), "/pod".to_owned());
    let merged = installer_env(&seat, &env);
    assert_eq!(merged["PIP_INDEX_URL"], "https://user");
    assert_eq!(merged["HOME"], "/home/u");
    assert!(!merged.contains_key("OTHER"));
    env.insert("PIP_INDEX_URL".to_owned(), "https://pod".to_owned());
    assert_eq!(installer_env(&seat, &env)["PIP_INDEX_URL"], "https://pod");
}
