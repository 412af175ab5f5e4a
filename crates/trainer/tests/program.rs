//! The program from its arguments to its files.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use model::SavedModel;
use model::mnist::{Part, test_set};
use stdx::{ManualClock, SeededRng};
use trainer::Host;

struct Run {
    code: ExitCode,
    log: String,
}

fn run(dir: &Path, line: &str, env: &[(&str, &str)]) -> Run {
    let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let env: BTreeMap<String, String> = env
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut log = Vec::new();
    let start = jiff::Timestamp::from_second(1_700_000_000).unwrap();
    // The program's paths begin at its root, the test's in its own directory.
    let resolve = |path: &Path| match path.strip_prefix("/") {
        Ok(inner) => dir.join(inner),
        Err(_) => path.to_owned(),
    };
    let mut host = Host {
        env: &env,
        resolve: &resolve,
        clock: Arc::new(ManualClock::new(start)),
        rng: Arc::new(SeededRng::new(1)),
        log: &mut log,
    };
    let code = trainer::main(&args, &mut host);
    Run {
        code,
        log: String::from_utf8(log).unwrap(),
    }
}

fn assert_code(run: &Run, code: ExitCode) {
    // An exit code has no other way to be compared.
    assert_eq!(
        format!("{:?}", run.code),
        format!("{code:?}"),
        "{}",
        run.log
    );
}

/// Writes a small database of the first test images.
fn small_database(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    for (part, first, count) in [(Part::Train, 0, 300), (Part::Test, 300, 100)] {
        let (images_name, labels_name) = part.file_names();
        let mut images = 0x0803_u32.to_be_bytes().to_vec();
        let mut labels = 0x0801_u32.to_be_bytes().to_vec();
        for size in [count as u32, 28, 28] {
            images.extend(size.to_be_bytes());
        }
        labels.extend((count as u32).to_be_bytes());
        for at in first..first + count {
            images.extend(test_set().pixels(at));
            labels.push(test_set().label(at));
        }
        std::fs::write(dir.join(images_name), images).unwrap();
        std::fs::write(dir.join(labels_name), labels).unwrap();
    }
}

fn versions(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn ready() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    small_database(&dir.path().join("data"));
    dir
}

const QUICK: &str = "/opt/model.py --tf-data-dir /data --tf-export-dir /export --tf-batch-size 20 \
                     --tf-model-type LINEAR --seed 4";

#[test]
fn both_networks_learn_and_their_exports_work() {
    let dir = ready();
    for (network, steps, rate) in [("CNN", 40, "0.002"), ("LINEAR", 60, "0.01")] {
        let line = format!(
            "/opt/model.py --tf-export-dir /export/{network} --tf-train-steps {steps} --seed 3 \
             --tf-batch-size 50 --tf-learning-rate {rate} --tf-data-dir /data --optimizer adam \
             --tf-model-type {network} --job-name x"
        );
        let run = run(dir.path(), &line, &[]);
        assert_code(&run, ExitCode::SUCCESS);
        assert!(
            run.log.contains("ignoring unknown arguments: --job-name x"),
            "{}",
            run.log
        );
        let last = format!("step {steps}/{steps}: loss ");
        assert!(run.log.contains(&last), "{}", run.log);
        let accuracy: f64 = run
            .log
            .split("test accuracy ")
            .nth(1)
            .and_then(|text| text.split(' ').next()?.parse().ok())
            .unwrap();
        assert!(accuracy > 60.0, "{}", run.log);
        let export = versions(&dir.path().join("export").join(network));
        assert_eq!(export.len(), 1);
        assert!(export[0].ends_with("1700000000"));
        // The path in the log is the program's own.
        let named = format!("exported the model to /export/{network}/1700000000");
        assert!(run.log.contains(&named), "{}", run.log);
        assert_eq!(
            SavedModel::read(&export[0]).unwrap().signatures().count(),
            2
        );
    }
}

#[test]
fn a_run_that_goes_on_from_a_checkpoint_ends_as_if_it_had_never_stopped() {
    let dir = ready();
    let train = |steps: u32, model_dir: &str| {
        let line = format!("{QUICK} --tf-train-steps {steps} --tf-model-dir {model_dir}");
        let run = run(dir.path(), &line, &[]);
        assert_code(&run, ExitCode::SUCCESS);
        run.log
    };
    train(30, "/whole");
    train(12, "/parts");
    let log = train(30, "/parts");
    assert!(
        log.contains("going on from the checkpoint of step 12"),
        "{log}"
    );
    let checkpoint = |model_dir: &str| {
        std::fs::read(dir.path().join(model_dir).join("checkpoint-30.bin")).unwrap()
    };
    assert!(checkpoint("whole") == checkpoint("parts"));
    // Nothing left to do is no failure, and the model is exported again.
    assert!(train(30, "/parts").contains("training done: 0 steps"));
    assert_eq!(versions(&dir.path().join("export")).len(), 4);
}

#[test]
fn only_the_chief_exports() {
    let dir = ready();
    let line = format!("{QUICK} --tf-train-steps 5 --tf-model-dir /ckpt");
    let config = |kind: &str| {
        format!(
            r#"{{"cluster": {{"chief": ["a"], "worker": ["b"], "ps": ["c"]}},
                 "task": {{"type": "{kind}", "index": 0}}}}"#
        )
    };
    for kind in ["worker", "ps"] {
        let run = run(dir.path(), &line, &[("TF_CONFIG", &config(kind))]);
        assert_code(&run, ExitCode::SUCCESS);
        assert!(run.log.contains("the chief"), "{}", run.log);
        assert!(versions(&dir.path().join("export")).is_empty());
        assert!(versions(&dir.path().join("ckpt")).is_empty());
    }
    let run = run(dir.path(), &line, &[("TF_CONFIG", &config("chief"))]);
    assert_code(&run, ExitCode::SUCCESS);
    assert_eq!(versions(&dir.path().join("export")).len(), 1);
}

#[test]
fn what_is_wrong_is_said_and_ends_with_the_right_code() {
    let dir = ready();
    let check = |line: &str, env: &[(&str, &str)], code: u8, parts: &[&str]| {
        let run = run(dir.path(), line, env);
        assert_code(&run, ExitCode::from(code));
        for part in parts {
            assert!(run.log.contains(part), "{} lacks {part}", run.log);
        }
        assert!(versions(&dir.path().join("export")).is_empty());
    };
    let base = "--tf-export-dir /export --tf-train-steps 5";
    check(
        "--tf-batch-size none",
        &[],
        2,
        &["error: --tf-batch-size: \"none\" is not a number"],
    );
    check(
        QUICK,
        &[("TF_CONFIG", "{")],
        2,
        &["error: TF_CONFIG: ", "line 1"],
    );
    let line = format!("{base} --tf-data-dir /nowhere");
    check(
        &line,
        &[],
        1,
        &[
            "error: --tf-data-dir: no file ",
            "nowhere/train-images-idx3-ubyte",
        ],
    );
    let line = format!("{QUICK} --tf-learning-rate 3e38 --tf-train-steps 50");
    check(
        &line,
        &[],
        1,
        &["the loss is not a number", "learning rate"],
    );

    let file = dir.path().join("data/t10k-labels-idx1-ubyte");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..50]).unwrap();
    let parts = ["t10k-labels-idx1-ubyte is corrupt: expected 108 bytes for 100, found 50 bytes"];
    check(QUICK, &[], 1, &parts);
    std::fs::write(&file, whole).unwrap();

    std::fs::write(dir.path().join("file"), "in the way").unwrap();
    let line = QUICK.replace("/export", "/file/export");
    check(
        &line,
        &[],
        1,
        &["error: --tf-export-dir: write ", "file/export"],
    );
    let line = format!("{QUICK} --tf-train-steps 5 --tf-model-dir /file");
    check(&line, &[], 1, &["error: --tf-model-dir: ", "/file"]);
}

#[test]
fn the_tutorials_network_reaches_its_accuracy_on_the_real_images() {
    // Without a data directory the program takes the database that is built in: all of MNIST.
    // What TensorFlow reaches with plain descent depends on the order of the images: 79 to 86 %.
    for (optimizer, rate, from, to) in [("sgd", "0.01", 79.0, 86.0), ("adam", "0.001", 97.0, 100.0)]
    {
        let dir = tempfile::tempdir().unwrap();
        let line = format!(
            "/opt/model.py --tf-export-dir /export --tf-train-steps 200 --tf-batch-size 100 \
             --tf-learning-rate {rate} --optimizer {optimizer} --seed 7"
        );
        let run = run(dir.path(), &line, &[]);
        assert_code(&run, ExitCode::SUCCESS);
        let accuracy: f64 = run
            .log
            .split_once("test accuracy ")
            .and_then(|(_, rest)| {
                rest.strip_suffix(&rest[rest.find(" % on 10000 images")?..])?
                    .parse()
                    .ok()
            })
            .unwrap_or_else(|| panic!("no accuracy in {}", run.log));
        assert!(
            (from..=to).contains(&accuracy),
            "{optimizer}: {accuracy} %\n{}",
            run.log
        );
    }
}
