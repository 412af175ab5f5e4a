//! Measuring a process from outside: wall time, and memory as the kernel counts it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process::{Running, display};

/// What a whole process took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) seconds: f64,
    /// The most memory it ever had resident.
    pub(crate) peak_mb: f64,
}

/// Runs a program to its end.
pub(crate) fn whole(command: &mut Command) -> Result<Cost> {
    let line = display(command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let began = Instant::now();
    let mut child = Running(command.spawn().with_context(|| format!("run {line}"))?);
    let pid = child.0.id();
    let mut peak_mb: f64 = 0.0;
    let status = loop {
        // The high-water mark only grows, so looking now and then is enough.
        peak_mb = peak_mb.max(status_mb(pid, "VmHWM").unwrap_or_default());
        if let Some(status) = child
            .0
            .try_wait()
            .with_context(|| format!("wait for {line}"))?
        {
            break status;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let seconds = began.elapsed().as_secs_f64();
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(Cost { seconds, peak_mb })
}

/// A line of `/proc/PID/status` that counts memory.
fn status_mb(pid: u32, name: &str) -> Option<f64> {
    kilobytes(
        &std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?,
        name,
    )
}

fn kilobytes(text: &str, name: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// Memory of a server and its helper processes: all that were started from `binary` for `data_dir`.
/// Pages that they share are counted once (the kernel's proportional set size).
pub(crate) fn memory_mb(binary: &Path, pid: u32, data_dir: &Path) -> Result<f64> {
    let data_dir = data_dir.display().to_string();
    let mut sum = 0.0;
    for entry in std::fs::read_dir("/proc")
        .context("list processes")?
        .flatten()
    {
        let Some(other) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let ours = std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == binary);
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if ours && (other == pid || String::from_utf8_lossy(&line).contains(&data_dir)) {
            let text = std::fs::read_to_string(entry.path().join("smaps_rollup"));
            sum += kilobytes(&text.unwrap_or_default(), "Pss").unwrap_or_default();
        }
    }
    if sum == 0.0 {
        bail!("no process of {} found", binary.display());
    }
    Ok(sum)
}

/// The resident memory of one process.
pub(crate) fn resident_mb(pid: u32) -> Result<f64> {
    status_mb(pid, "VmRSS").with_context(|| format!("read the memory of process {pid}"))
}

/// The most memory one process ever had resident.
pub(crate) fn peak_mb(pid: u32) -> Result<f64> {
    status_mb(pid, "VmHWM").with_context(|| format!("read the memory of process {pid}"))
}

/// The middle of some tries.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_found() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]).to_string(), "2");
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn memory_is_read_in_megabytes() {
        let text = "Name:\tx\nVmHWM:\t    1000 kB\nVmRSS:\t     500 kB\n";
        assert_eq!(
            kilobytes(text, "VmRSS").map(|mb| (mb * 1e6) as u64),
            Some(512_000)
        );
        assert_eq!(kilobytes(text, "Vm"), None);
    }
}
