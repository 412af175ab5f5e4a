//! What the black-box tests share: the built `coracle` as a server that ends with its test, clients
//! for it, and ways to wait for what the cluster says instead of for time to pass.
//!
//! Nothing of this crate's inside is used here; everything goes through the command line, the two
//! listeners and the data directory, as a user would.

#![expect(dead_code, reason = "each test program uses its own part of this")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub(crate) mod cluster;
pub(crate) mod http;
pub(crate) mod kfp;
pub(crate) mod server;
pub(crate) mod tutorial;

use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

pub(crate) use server::Server;

/// How long anything may take before a test gives up. Generous: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

/// Waits for the future, but not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain: {what}"))
}

/// Asks again and again where nothing tells of a change (plain HTTP, `/proc`, files).
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    within(what, async {
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        loop {
            pace.tick().await;
            if let Some(found) = ask().await {
                return found;
            }
        }
    })
    .await
}

/// Says why a test does nothing here; past the test harness, which shows no output of passing tests.
pub(crate) fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "SKIP {test}: {why}");
}

/// Whether this is root; says so if it is not.
pub(crate) fn root_or_skip() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("needs root");
    }
    root
}

/// The program under test, without anything of the caller's environment that points it elsewhere.
pub(crate) fn coracle() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
    for name in [
        "CORACLE_DATA_DIR",
        "CORACLE_LOG",
        "KUBECONFIG",
        "XDG_DATA_HOME",
    ] {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1");
    command
}

/// The kubectl to use: `CORACLE_KUBECTL`, or that of the search path.
pub(crate) fn kubectl_path() -> Option<PathBuf> {
    let given = std::env::var_os("CORACLE_KUBECTL").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join("kubectl"))
        .find(|p| p.is_file());
    let found = given.or(found);
    if found.is_none() {
        skip("needs kubectl, in the search path or named by CORACLE_KUBECTL");
    }
    found
}

/// A kubectl command with the administrator's rights.
pub(crate) fn kubectl(program: &Path, server: &Server, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    // Its discovery cache would lie in the user's home.
    command
        .env("KUBECONFIG", server.kubeconfig())
        .env("HOME", server.scratch())
        .args(args);
    command
}

/// What a finished command said on both streams.
pub(crate) fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

/// A file of the folder with reference material beside the repository, if it is there.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let found = repository("../shared").join(path);
    found.exists().then_some(found)
}

/// Numbers that look random but follow from the seed (splitmix64).
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

/// A value of the environment that tests may be steered with.
pub(crate) fn setting(name: &str) -> Option<String> {
    std::env::var_os(name).and_then(|value| value.into_string().ok())
}
