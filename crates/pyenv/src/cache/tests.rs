//! Environments made once, by one of many, and found again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use super::*;
use crate::interpreter::Minor;

fn wanted(requirement: &str) -> Wanted {
    Wanted {
        interpreter: Interpreter {
            path: "/usr/bin/python3.11".into(),
            version: Minor(3, 11),
        },
        installs: vec![Install {
            requirements: vec![requirement.to_owned()],
            ..Install::default()
        }],
        system_packages: false,
        index: Vec::new(),
    }
}

/// Makes empty environments and counts them.
#[derive(Default)]
struct Fake {
    made: AtomicUsize,
    /// Told when it has begun, then waits for a word to go on.
    gate: Option<Mutex<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
    fails: bool,
}

impl Maker for Fake {
    fn make(&self, _: &Wanted, dir: &Path, _: &Path, _: Log<'_>) -> Result<Vec<String>, Error> {
        self.made.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = &self.gate {
            let gate = gate.lock().unwrap();
            gate.0.send(()).unwrap();
            gate.1.recv().unwrap();
        }
        if self.fails {
            return Err(Error::Package("no such thing".to_owned()));
        }
        std::fs::create_dir(dir.join("bin")).unwrap();
        std::fs::write(dir.join("bin/python3"), "").unwrap();
        Ok(vec!["a note".to_owned()])
    }
}

fn silent() -> impl FnMut(&str) {
    |_: &str| {}
}

#[test]
fn keys_follow_everything_that_decides_what_is_installed() {
    let base = wanted("a==1");
    let mut others = vec![wanted("a==2")];
    let mut other = base.clone();
    other.interpreter.path = "/opt/python3.11".into();
    others.push(other);
    let mut other = base.clone();
    other.installs[0].no_deps = true;
    others.push(other);
    let mut other = base.clone();
    other.index = vec![("PIP_INDEX_URL".to_owned(), "https://a".to_owned())];
    others.push(other);
    let mut other = base.clone();
    other.system_packages = true;
    others.push(other);
    for other in others {
        assert_ne!(base.key(), other.key(), "{other:?}");
    }
    assert_eq!(base.key(), wanted("a==1").key());
}

#[test]
fn an_environment_is_made_once_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path().join("cache"));
    let fake = Fake::default();
    let first = cache.ensure(&wanted("a"), &fake, &mut silent()).unwrap();
    let again = cache.ensure(&wanted("a"), &fake, &mut silent()).unwrap();
    assert_eq!(first, again);
    assert_eq!(again.notes, ["a note"]);
    assert_eq!(fake.made.load(Ordering::SeqCst), 1);
    // Its interpreter has gone: it is made again, beside the old one.
    std::fs::remove_file(first.python()).unwrap();
    let new = cache.ensure(&wanted("a"), &fake, &mut silent()).unwrap();
    assert_ne!(new.dir, first.dir);
    assert_eq!(fake.made.load(Ordering::SeqCst), 2);
}

#[test]
fn what_a_killed_maker_left_is_no_environment() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path());
    let key = wanted("a").key();
    let torn = dir.path().join(format!("{key}.1"));
    std::fs::create_dir_all(torn.join("bin")).unwrap();
    std::fs::write(torn.join("bin/python3"), "").unwrap();
    std::fs::write(torn.join(NOTES_FILE), "[]").unwrap();
    assert_eq!(cache.ready(&key), None);
    let fake = Fake::default();
    let made = cache.ensure(&wanted("a"), &fake, &mut silent()).unwrap();
    assert_eq!(fake.made.load(Ordering::SeqCst), 1);
    assert_ne!(made.dir, torn);
    assert!(!torn.exists());
}

/// Two ask at once; the second waits until the first is told to end.
fn at_once(fails: bool) -> (usize, [Result<Environment, Error>; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path());
    let (begun, has_begun) = mpsc::channel();
    let (go, wait_for_go) = mpsc::channel();
    let fake = Arc::new(Fake {
        gate: Some(Mutex::new((begun, wait_for_go))),
        fails,
        ..Fake::default()
    });
    let ask = |log: Box<dyn FnMut(&str) + Send>| {
        let (cache, fake) = (cache.clone(), Arc::clone(&fake));
        std::thread::spawn(move || {
            let mut log = log;
            cache.ensure(&wanted("a"), &*fake, &mut *log)
        })
    };
    let first = ask(Box::new(silent()));
    has_begun.recv().unwrap();
    // It goes on once the second says that it waits.
    let second = ask(Box::new(move |line| {
        assert!(line.contains("another step"), "{line}");
        go.send(()).unwrap();
    }));
    let answers = [first.join().unwrap(), second.join().unwrap()];
    (fake.made.load(Ordering::SeqCst), answers)
}

#[test]
fn of_two_that_ask_at_once_one_makes_it() {
    let (made, [first, second]) = at_once(false);
    assert_eq!(made, 1);
    assert_eq!(first.unwrap(), second.unwrap());
}

#[test]
fn whoever_waited_for_a_failure_gets_the_same_answer() {
    let (made, answers) = at_once(true);
    assert_eq!(made, 1);
    for answer in answers {
        assert_eq!(answer.unwrap_err().to_string(), "no such thing");
    }
}

#[test]
fn a_failure_leaves_nothing_and_may_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path());
    let mut fake = Fake {
        fails: true,
        ..Fake::default()
    };
    cache
        .ensure(&wanted("a"), &fake, &mut silent())
        .unwrap_err();
    cache
        .ensure(&wanted("a"), &fake, &mut silent())
        .unwrap_err();
    assert_eq!(fake.made.load(Ordering::SeqCst), 2);
    let folders = std::fs::read_dir(dir.path()).unwrap().flatten();
    assert_eq!(folders.filter(|e| e.path().is_dir()).count(), 0);
    fake.fails = false;
    cache.ensure(&wanted("a"), &fake, &mut silent()).unwrap();
}
