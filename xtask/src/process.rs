//! Running other programs: with their output on the terminal, caught, or read line by line.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

/// The command line as one would type it.
pub(crate) fn display(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

/// Runs a program with its output on the terminal; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = display(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("run {line}"))?;
    check(&line, status)
}

/// Runs a program and returns what it printed; anything but success is an error with what it said.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let line = display(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {line}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8_lossy(&output.stdout);
        bail!("{line}: {}\n{}{}", output.status, printed, said.trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{line}: output is not UTF-8"))
}

/// Runs a program and calls `said` when it first writes to its standard error, where commands tell
/// how far they are; anything but success is an error with what it said.
pub(crate) fn first_word(command: &mut Command, said: impl FnOnce()) -> Result<()> {
    let line = display(command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = Running(command.spawn().with_context(|| format!("run {line}"))?);
    let mut stderr = child
        .0
        .stderr
        .take()
        .context("invariant: its errors are a pipe")?;
    let mut text = vec![0];
    let got = stderr.read(&mut text).unwrap_or(0);
    text.truncate(got);
    said();
    stderr
        .read_to_end(&mut text)
        .with_context(|| format!("hear from {line}"))?;
    let status = child.0.wait().with_context(|| format!("wait for {line}"))?;
    if !status.success() {
        bail!(
            "{line}: {status}\n{}",
            String::from_utf8_lossy(&text).trim_end()
        );
    }
    Ok(())
}

fn check(line: &str, status: ExitStatus) -> Result<()> {
    if status.success() {
        Ok(())
    } else {
        Err(anyhow!("{line}: {status}"))
    }
}

/// Runs a program and shows its lines as they come, giving each to `on_line`. A program that is not
/// done in time is killed, which is an error.
pub(crate) fn stream(
    command: &mut Command,
    limit: Duration,
    mut on_line: impl FnMut(&str),
) -> Result<ExitStatus> {
    let line = display(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = Running(command.spawn().with_context(|| format!("run {line}"))?);
    let stdout = child
        .0
        .stdout
        .take()
        .context("invariant: its output is a pipe")?;
    let (sender, lines) = mpsc::channel();
    // Grandchildren may keep the pipe open after a kill, so nobody waits for this thread.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout)
            .split(b'\n')
            .map_while(std::result::Result::ok)
        {
            if sender
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                break;
            }
        }
    });
    let end = Instant::now() + limit;
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(text) => {
                println!("{text}");
                on_line(&text);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("{line}: not done after {} s", limit.as_secs());
            }
        }
    }
    child.0.wait().with_context(|| format!("wait for {line}"))
}

/// A process that does not outlive its owner.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            // Gone already is just as good.
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
}

/// Whether this process is the superuser's.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Tries `what` until it works; after `limit` its last error is the error.
pub(crate) fn until<T>(limit: Duration, mut what: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        match what() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("still so after {} s", limit.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
