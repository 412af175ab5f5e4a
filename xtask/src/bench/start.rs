//! The server by itself: how fast it says something, how fast it is there, what it takes when idle.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Row;
use super::measure::{median, memory_mb, resident_mb};
use super::runs::fresh;
use crate::server::{Account, Server, Started};

const STARTS: usize = 7;
/// How long a server settles before its memory counts as idle.
const SETTLE: Duration = Duration::from_secs(3);

pub(crate) fn measure(binary: &Path, folder: &Path) -> Result<Vec<Row>> {
    let account = Account::own(binary);
    let (mut says, mut first, mut again) = (Vec::new(), Vec::new(), Vec::new());
    let data_dir = fresh(folder, "start")?;
    for _ in 0..STARTS {
        fresh(folder, "start")?;
        let (server, said, ready) = timed(&account, &data_dir)?;
        says.push(said);
        first.push(ready);
        server.keep()?;
        let (server, said, ready) = timed(&account, &data_dir)?;
        says.push(said);
        again.push(ready);
        drop(server);
    }
    let server = Server::start(&account, &data_dir)?;
    std::thread::sleep(SETTLE);
    let pid = server.status.pid;
    let (resident, all) = (resident_mb(pid)?, memory_mb(binary, pid, &data_dir)?);
    Ok(vec![
        Row::new("first output of `coracle up`", median(says), "s").limit(0.1),
        Row::new(
            "start to ready, first start, whole command",
            median(first),
            "s",
        )
        .limit(0.3),
        Row::new(
            "start to ready, later starts, whole command",
            median(again),
            "s",
        )
        .limit(0.3),
        Row::new("idle memory, server (resident)", resident, "MB").limit(60.0),
        Row::new("idle memory, server and spawner (proportional)", all, "MB"),
    ])
}

/// Starts a server: it, the seconds until the command's first output, and those until its end.
fn timed(account: &Account, data_dir: &Path) -> Result<(Started, f64, f64)> {
    let began = Instant::now();
    let mut said = None;
    let server = Started::start_watched(account, data_dir, || said = Some(began.elapsed()))?;
    let ready = began.elapsed();
    Ok((
        server,
        said.unwrap_or(ready).as_secs_f64(),
        ready.as_secs_f64(),
    ))
}
