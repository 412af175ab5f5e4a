//! Versions that come, go and fail.

use super::*;
use model::network::{Kind, Network};
use model::saved_model::FILE_NAME;
use std::path::PathBuf;
use stdx::ManualClock;

struct Bench {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    manager: Manager,
    memory: Memory,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let options = Options {
            model_name: "digits".to_owned(),
            model_aliases: vec!["mnist".to_owned()],
            model_base_path: dir.path().join("export"),
            load_retry_interval: Duration::from_secs(60),
            max_load_retries: 1,
            ..Options::default()
        };
        let manager = Manager::new(options, Arc::<ManualClock>::clone(&clock));
        Self {
            dir,
            clock,
            manager,
            memory: Memory::default(),
        }
    }

    fn version(&self, number: u64) -> PathBuf {
        self.dir.path().join("export").join(number.to_string())
    }

    fn export(&self, number: u64) {
        let model = Network::initial(Kind::Linear, number).into_saved_model();
        model
            .export(&self.dir.path().join("export"), number)
            .unwrap();
    }

    fn poll(&mut self) -> Option<i64> {
        self.manager.poll(&mut self.memory);
        self.manager
            .find("digits", &Wanted::Latest)
            .ok()
            .map(|servable| servable.version)
    }

    fn states(&self) -> Vec<(i64, State)> {
        let statuses = self
            .manager
            .statuses("mnist", &Wanted::Latest)
            .unwrap_or_default();
        statuses
            .iter()
            .map(|status| (status.version, status.state()))
            .collect()
    }
}

#[test]
fn the_newest_version_is_served_and_an_old_one_again_if_it_goes() {
    let mut bench = Bench::new();
    assert_eq!(bench.poll(), None);
    bench.export(1);
    assert_eq!(bench.poll(), Some(1));
    let held = bench.manager.find("mnist", &Wanted::Latest).unwrap();
    bench.export(7);
    bench.export(3);
    assert_eq!(bench.poll(), Some(7));
    assert_eq!(bench.states(), [(7, State::Available), (1, State::End)]);
    // Whoever held the old version still has it.
    assert_eq!((held.version, held.model.signatures().count()), (1, 2));
    std::fs::remove_dir_all(bench.version(7)).unwrap();
    assert_eq!(bench.poll(), Some(3));
    // An empty base path is no reason to stop serving.
    std::fs::remove_dir_all(bench.dir.path().join("export")).unwrap();
    assert_eq!(bench.poll(), Some(3));
}

#[test]
fn a_version_that_does_not_load_leaves_the_old_one_and_is_tried_again() {
    let mut bench = Bench::new();
    bench.export(1);
    bench.poll();
    std::fs::create_dir(bench.version(2)).unwrap();
    assert_eq!(bench.poll(), Some(1));
    assert_eq!(bench.states().len(), 1);
    std::fs::write(bench.version(2).join(FILE_NAME), b"half").unwrap();
    assert_eq!(bench.poll(), Some(1));
    let status = &bench
        .manager
        .statuses("digits", &Wanted::Version(2))
        .unwrap()[0];
    assert_eq!(status.state(), State::End);
    assert!(
        status
            .status
            .as_ref()
            .unwrap()
            .error_message
            .contains("not a SavedModel")
    );
    // The same file is left alone until its time has come, and then only so often.
    let tries = |bench: &Bench| bench.memory.failed.as_ref().unwrap().tries;
    bench.poll();
    assert_eq!(tries(&bench), 1);
    for wanted in [2, 2] {
        bench.clock.advance(Duration::from_secs(61));
        bench.poll();
        assert_eq!(tries(&bench), wanted);
    }
    // The rest of the file arrives.
    let whole = std::fs::read(bench.version(1).join(FILE_NAME)).unwrap();
    std::fs::write(bench.version(2).join(FILE_NAME), whole).unwrap();
    assert_eq!(bench.poll(), Some(2));
}

#[test]
fn requests_for_what_is_not_there_are_told_so() {
    let mut bench = Bench::new();
    let text = |bench: &Bench, name: &str, wanted: Wanted| {
        bench.manager.find(name, &wanted).unwrap_err().message
    };
    assert_eq!(
        text(&bench, "digits", Wanted::Latest),
        "Servable not found for request: Latest(digits)"
    );
    bench.export(1);
    bench.poll();
    assert_eq!(
        text(&bench, "letters", Wanted::Latest),
        "Servable not found for request: Latest(letters)"
    );
    assert_eq!(
        text(&bench, "mnist", Wanted::Version(4)),
        "Servable not found for request: Specific(mnist, 4)"
    );
    assert!(text(&bench, "mnist", Wanted::Label("stable".to_owned())).contains("stable"));
    assert!(text(&bench, "", Wanted::Latest).contains("Missing ModelSpec"));
    let failure = bench
        .manager
        .statuses("letters", &Wanted::Latest)
        .unwrap_err();
    assert_eq!(
        failure.message,
        "Could not find any versions of model letters"
    );
    assert_eq!(failure.code, tonic::Code::NotFound);
}
