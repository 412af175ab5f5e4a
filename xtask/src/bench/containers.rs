//! When containers started and ended, as the spawner has written it down beside each of them. Times
//! in the API are whole seconds, too coarse for steps of milliseconds.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// One container that ran; times in seconds of the day.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Container {
    /// The name of its Pod.
    pub(crate) pod: String,
    pub(crate) started: f64,
    pub(crate) ended: Option<f64>,
}

/// The containers that were started after `since`, in the order of their starts.
pub(crate) fn since(data_dir: &Path, since: SystemTime) -> Result<Vec<Container>> {
    let mut found = Vec::new();
    for pod in folders(&data_dir.join("kubelet/pods")) {
        let Ok(record) = json(&pod.join("pod.json")) else {
            continue;
        };
        for attempt in folders(&pod.join("containers"))
            .iter()
            .flat_map(|name| folders(name))
        {
            let pid = attempt.join("pid");
            if std::fs::metadata(&pid)
                .and_then(|file| file.modified())
                .is_ok_and(|at| at >= since)
            {
                let started = json(&pid)?["startedAt"].as_str().and_then(seconds_of_day);
                let exit = json(&attempt.join("exit")).unwrap_or_default();
                found.push(Container {
                    pod: record["name"].as_str().unwrap_or_default().to_owned(),
                    started: started.with_context(|| format!("{} has no start", pid.display()))?,
                    ended: exit["finishedAt"].as_str().and_then(seconds_of_day),
                });
            }
        }
    }
    found.sort_by(|a, b| a.started.total_cmp(&b.started));
    Ok(found)
}

/// The folders in a folder; none if it is not there.
fn folders(path: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    // Of several states the last one counts.
    let last = text.trim_end().lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("read {}", path.display()))
}

/// The seconds after midnight of a time like `2026-01-01T12:00:00.25Z`.
fn seconds_of_day(text: &str) -> Option<f64> {
    let (_, time) = text.split_once('T')?;
    let mut parts = time.trim_end_matches('Z').split(':');
    let mut next = || parts.next()?.parse::<f64>().ok();
    Some(next()? * 3600.0 + next()? * 60.0 + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_read_to_its_fraction() {
        assert_eq!(seconds_of_day("2026-01-01T01:02:03.5Z"), Some(3723.5));
        assert_eq!(seconds_of_day("yesterday"), None);
    }
}
