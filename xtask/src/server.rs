//! A coracle server to try things on: its own data directory, stopped and removed in the end.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::process;

/// Somebody without rights of their own.
pub(crate) const NOBODY: u32 = 65534;

/// A running server and where it answers.
#[derive(Debug)]
pub(crate) struct Server {
    started: Started,
    pub(crate) status: Status,
}

/// A server that ends with this value, or with this process, however that ends.
#[derive(Debug)]
pub(crate) struct Started {
    account: Account,
    data_dir: PathBuf,
    /// Stops the server when its standard input closes.
    stop: Child,
}

/// Whose server it is, and which program.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) binary: PathBuf,
    /// Another user than the one who runs this program.
    pub(crate) user: Option<u32>,
    pub(crate) home: Option<PathBuf>,
}

/// What `coracle status -o json` says.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) pid: u32,
    pub(crate) kubernetes: String,
    pub(crate) http: String,
    pub(crate) kubeconfig: PathBuf,
}

impl Account {
    /// The user who runs this program.
    pub(crate) fn own(binary: &Path) -> Self {
        Self {
            binary: binary.to_owned(),
            user: None,
            home: None,
        }
    }

    /// A command of this account.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        if let Some(home) = &self.home {
            command.env("HOME", home).current_dir(home);
        }
        command
    }

    /// A coracle command on a data directory.
    pub(crate) fn coracle(&self, command: &[&str], data_dir: &Path) -> Command {
        let mut coracle = self.command(&self.binary);
        coracle.args(command).arg("--data-dir").arg(data_dir);
        coracle
    }
}

impl Server {
    /// Starts a server and returns when it is ready.
    pub(crate) fn start(account: &Account, data_dir: &Path) -> Result<Self> {
        let started = Started::start(account, data_dir)?;
        let mut status = account.coracle(&["status", "--output", "json"], data_dir);
        let text = process::capture(&mut status)?;
        let status =
            serde_json::from_str(&text).with_context(|| format!("its status is {text}"))?;
        Ok(Self { started, status })
    }

    /// An administrator's bearer token.
    pub(crate) fn token(&self) -> Result<String> {
        let token = process::capture(
            &mut self
                .started
                .account
                .coracle(&["token"], &self.started.data_dir),
        )?;
        Ok(token.trim().to_owned())
    }
}

/// Waits for a word (or for the death of whoever should say it) and stops the server.
const STOP: &str = r#"read -r word
case "$word" in
    keep) exec "$0" down "$@" ;;
    *) exec "$0" down --purge "$@" ;;
esac"#;

impl Started {
    /// Starts a server and returns when it is ready.
    pub(crate) fn start(account: &Account, data_dir: &Path) -> Result<Self> {
        Self::start_watched(account, data_dir, || {})
    }

    /// The same; `said` is called at the command's first output.
    pub(crate) fn start_watched(
        account: &Account,
        data_dir: &Path,
        said: impl FnOnce(),
    ) -> Result<Self> {
        let mut stop = account.command("sh");
        stop.args(["-c", STOP])
            .arg(&account.binary)
            .arg("--data-dir")
            .arg(data_dir);
        // In a process group of its own: a Ctrl-C that ends us must not end it.
        stop.stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .process_group(0);
        let stop = stop.spawn().context("run sh")?;
        let started = Self {
            account: account.clone(),
            data_dir: data_dir.to_owned(),
            stop,
        };
        process::first_word(&mut account.coracle(&["up", "--detach"], data_dir), said)?;
        Ok(started)
    }

    /// Stops it and keeps its data directory for the next start.
    pub(crate) fn keep(mut self) -> Result<()> {
        let mut words = self
            .stop
            .stdin
            .take()
            .context("invariant: it listens until it is told")?;
        words.write_all(b"keep\n").context("stop the server")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.stop.stdin.take());
        match self.stop.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("warning: `coracle down` at the end of a suite: {status}"),
            Err(error) => eprintln!("warning: a server may stay behind: {error}"),
        }
    }
}
