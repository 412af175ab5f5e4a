//! The server's log: lines in a file of the data directory, warnings of it also on the terminal's
//! side of things by way of that file. Other commands do not log.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

use crate::failure::{Failure, Result};

/// Starts the log. `CORACLE_LOG` holds filter directives; the default is `info` of our own.
pub(crate) fn start(path: &Path) -> Result<()> {
    const DEFAULT: &str = "info,sqlx=warn,kube=warn,hyper=warn,tower=warn,h2=warn,rustls=warn";
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| Failure::environment(format!("open the log {}: {e}", path.display())))?;
    let directives = std::env::var_os("CORACLE_LOG").and_then(|v| v.into_string().ok());
    let filter = EnvFilter::try_new(directives.as_deref().unwrap_or(DEFAULT)).map_err(|e| {
        Failure::usage(format!("CORACLE_LOG: {e}"))
            .hint("for example CORACLE_LOG=info,kubelet=debug")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Mutex::new(file))
        .with_ansi(false)
        .try_init()
        .map_err(|e| Failure::environment(format!("start the log: {e}")))
}
