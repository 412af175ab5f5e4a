//! The program by itself: `cargo run -p serving --example serve_model -- --port=8500 …`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::ExitCode;

use serving::Host;
use stdx::SystemClock;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let env: BTreeMap<String, String> = std::env::vars().collect();
    let host = Host {
        env: &env,
        resolve: &Path::to_path_buf,
        bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        clock: SystemClock::shared(),
    };
    serving::main(&args, &host)
}
