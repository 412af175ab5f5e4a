//! The program by itself, for measuring: `cargo run --release -p trainer --example train -- …`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use stdx::{SystemClock, SystemRng};
use trainer::Host;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let env: BTreeMap<String, String> = std::env::vars().collect();
    let mut log = std::io::stdout();
    let mut host = Host {
        env: &env,
        resolve: &Path::to_path_buf,
        clock: SystemClock::shared(),
        rng: SystemRng::shared(),
        log: &mut log,
    };
    trainer::main(&args, &mut host)
}
