//! The launcher around real commands: what they write is handed over, and they end as they would alone.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use launcher::{Archive, Document, Handover, Input, Job, OutputArtifact, OutputParameter, Source};

/// Runs a shell script behind the launcher; answers whether it ended well, and what was handed over.
fn run(folder: &Path, job: Job, script: &str) -> (ExitCode, String) {
    let message = folder.join("message");
    let job = Job {
        message: message.display().to_string(),
        has_command: true,
        ..job
    };
    let job = serde_json::to_string(&job).unwrap();
    let words = ["--job", &job, "--", "sh", "-c", script];
    let code = launcher::main(words.into_iter().map(OsString::from).collect());
    (code, std::fs::read_to_string(message).unwrap_or_default())
}

fn document(message: &str) -> Document {
    match Handover::parse(message).unwrap().unwrap() {
        Handover::Inline(document) => document,
        Handover::At(uri) => panic!("the outputs are at {uri}"),
    }
}

#[test]
fn inputs_are_brought_and_outputs_handed_over() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let store = |name: &str| format!("file://{}", at(name)).parse_uri();
    std::fs::create_dir_all(at("made")).unwrap();
    std::fs::write(at("made/x"), "packed").unwrap();
    artifacts::archive::pack(Path::new(&at("made")), "made", Path::new(&at("in.tgz"))).unwrap();
    let job = Job {
        inputs: vec![
            Input {
                name: "raw".to_owned(),
                path: at("deep/raw"),
                source: Source::Raw("words".to_owned()),
                archive: Archive::None,
                optional: false,
            },
            Input {
                name: "packed".to_owned(),
                path: at("unpacked"),
                source: Source::Uri(store("in.tgz")),
                archive: Archive::Tgz,
                optional: false,
            },
        ],
        parameters: vec![
            OutputParameter {
                name: "p".to_owned(),
                path: at("out/p"),
            },
            OutputParameter {
                name: "missing".to_owned(),
                path: at("out/missing"),
            },
        ],
        artifacts: vec![OutputArtifact {
            name: "a".to_owned(),
            path: at("out/a"),
            uri: store("store/a.tgz"),
            archive: Archive::Tgz,
            optional: false,
        }],
        ..Job::default()
    };
    let script = format!(
        "cd {}; cat deep/raw unpacked/x > out/p; cp deep/raw out/a",
        dir.path().display()
    );
    let (code, message) = run(dir.path(), job, &script);
    assert_eq!(code, ExitCode::SUCCESS, "{message}");
    let document = document(&message);
    assert_eq!(document.parameters.len(), 1);
    assert_eq!(document.parameters["p"], "wordspacked");
    assert_eq!(document.artifacts["a"].archive, Archive::Tgz);
    let (archive, out) = (at("store/a.tgz"), at("again"));
    artifacts::archive::unpack(Path::new(&archive), Path::new(&out)).unwrap();
    assert_eq!(std::fs::read_to_string(out).unwrap(), "words");
}

#[test]
fn a_step_ends_as_it_would_alone() {
    let dir = tempfile::tempdir().unwrap();
    for (script, code) in [("exit 3", 3), ("kill -9 $$", 137), ("exit 0", 0)] {
        let (ended, message) = run(dir.path(), Job::default(), script);
        assert_eq!(ended, ExitCode::from(code), "{script}: {message}");
    }
}

#[test]
fn large_outputs_go_to_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let uri = format!("file://{}", at("doc.json")).parse_uri();
    let job = Job {
        document: Some(uri.clone()),
        parameters: vec![OutputParameter {
            name: "p".to_owned(),
            path: at("p"),
        }],
        ..Job::default()
    };
    let script = format!("yes | head -c 100000 > {}", at("p"));
    let (code, message) = run(dir.path(), job, &script);
    assert_eq!(code, ExitCode::SUCCESS, "{message}");
    let handover = Handover::parse(&message).unwrap().unwrap();
    assert_eq!(handover, Handover::At(uri));
    let text = std::fs::read(at("doc.json")).unwrap();
    let document: Document = serde_json::from_slice(&text).unwrap();
    assert_eq!(document.parameters["p"].len(), 100_000);
}

#[test]
fn what_cannot_be_brought_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gone");
    let job = Job {
        inputs: vec![Input {
            name: "data".to_owned(),
            path: dir.path().join("in").display().to_string(),
            source: Source::Uri(format!("file://{}", path.display()).parse_uri()),
            archive: Archive::None,
            optional: false,
        }],
        ..Job::default()
    };
    let (code, message) = run(dir.path(), job, "true");
    assert_eq!(code, ExitCode::from(1));
    assert!(message.contains("input artifact \"data\""), "{message}");
}

trait ParseUri {
    fn parse_uri(&self) -> artifacts::Uri;
}

impl ParseUri for String {
    fn parse_uri(&self) -> artifacts::Uri {
        artifacts::Uri::parse(self).unwrap()
    }
}
