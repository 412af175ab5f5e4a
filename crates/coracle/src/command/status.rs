//! `coracle status`: whether the server of a data directory runs, and where.

use serde_json::json;

use crate::cli::{Format, Listing};
use crate::failure::Result;
use crate::instance::ServerState;
use crate::output;

pub(crate) fn run(args: &Listing) -> Result<()> {
    let data = args.at.data()?;
    let state = ServerState::running(&data);
    if args.output == Format::Json {
        let body = match &state {
            Ok(state) => json!({"running": true, "dataDir": data.root(), "pid": state.pid,
                "version": state.version, "kubernetes": state.kube_url(), "http": state.http_url(),
                "kubeconfig": data.kubeconfig(), "node": state.node_name,
                "memoryBytes": resident_bytes(state.pid)}),
            Err(failure) => json!({"running": false, "dataDir": data.root(),
                "reason": failure.to_string()}),
        };
        output::result(&format!("{body:#}"));
        return state.map(drop);
    }
    let state = state?;
    let row = |name: &str, value: &str| output::result(&format!("{name:<12} {value}"));
    row(
        "Running",
        &format!("pid {}, version {}", state.pid, state.version),
    );
    row("Dashboard", &state.http_url());
    row("Kubernetes", &state.kube_url());
    row("Kubeconfig", &data.kubeconfig().display().to_string());
    row("Data", &data.root().display().to_string());
    if let Some(bytes) = resident_bytes(state.pid) {
        row("Memory", &format!("{} MB", bytes / 1_000_000));
    }
    Ok(())
}

/// Resident memory of a process.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}
