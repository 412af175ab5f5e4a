//! What a container is told about Python: where its environments are and which interpreter it shall
//! use, in one variable; and the server's own settings of pip and uv, in a file of the cache.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::interpreter::Interpreter;

/// The variable that holds a [`Seat`] as JSON.
pub const VARIABLE: &str = "CORACLE_PYTHON";
/// The file of the cache that holds [`Ambient`] as JSON. It may hold passwords of indexes, so only
/// its owner may read it.
const AMBIENT_FILE: &str = "settings.json";

/// A container's place among the environments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Where the container sees the cache.
    pub cache: PathBuf,
    /// The interpreter.
    pub interpreter: Interpreter,
    /// What to say first in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

impl Seat {
    /// The value of [`VARIABLE`].
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("invariant: paths found by name are text")
    }

    /// Reads the value of [`VARIABLE`].
    pub fn from_json(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

/// The variables of the server's user that say how packages are had.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ambient {
    /// Names and values.
    pub env: BTreeMap<String, String>,
}

const NAMES: [&str; 16] = [
    "HOME",
    "PATH",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_DIRS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "NETRC",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

impl Ambient {
    /// Takes what matters from an environment.
    pub fn of(env: impl IntoIterator<Item = (String, String)>) -> Self {
        let matters = |name: &str| {
            name.starts_with("PIP_") || name.starts_with("UV_") || NAMES.contains(&name)
        };
        Self {
            env: env.into_iter().filter(|(name, _)| matters(name)).collect(),
        }
    }

    /// Writes it into a cache, which is made.
    pub fn write(&self, cache: &Path) -> io::Result<()> {
        use std::io::Write as _;
        std::fs::create_dir_all(cache)?;
        let path = cache.join(AMBIENT_FILE);
        let text = serde_json::to_string(self).map_err(io::Error::other)?;
        if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        let new = cache.join(format!("{AMBIENT_FILE}.{}", std::process::id()));
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(new, path)
    }

    /// Reads it; nothing where it cannot be read.
    pub fn read(cache: &Path) -> Self {
        std::fs::read(cache.join(AMBIENT_FILE))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }
}
