//! Opening a database: connections, settings, migrations, the writer task.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, SqlitePool};
use stdx::Supervisor;

use crate::log::Log;
use crate::writer::Writer;
use crate::{Error, Migration, migrate};

/// Where a database lives.
#[derive(Debug, Clone)]
pub enum Location {
    /// In a file, made with permission 0600 if it is missing.
    File(PathBuf),
    /// In memory, under a name of its own within this process; gone when closed.
    Memory(String),
}

/// How to open a database.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it lives.
    pub location: Location,
    /// How many connections read at the same time.
    pub readers: u32,
}

impl Options {
    /// A database in a file, with four readers.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            location: Location::File(path.into()),
            readers: 4,
        }
    }

    /// A database in memory; `name` tells the databases of a process apart.
    pub fn memory(name: impl Into<String>) -> Self {
        Self {
            location: Location::Memory(name.into()),
            readers: 4,
        }
    }
}

/// An open database. Clones share it.
#[derive(Debug, Clone)]
pub struct Db {
    pub(crate) writer: Writer,
    pub(crate) changes: Arc<AtomicU64>,
    readers: SqlitePool,
}

impl Db {
    /// Opens the database, brings it to its owner's version and starts its writer under
    /// `supervisor`.
    pub async fn open(
        options: Options,
        migrations: &[Migration],
        supervisor: &Supervisor,
    ) -> Result<Self, Error> {
        let path = match &options.location {
            Location::File(path) => path.clone(),
            Location::Memory(name) => PathBuf::from(name),
        };
        if let Location::File(path) = &options.location {
            create_private(path).map_err(|e| Error::Open {
                path: path.clone(),
                source: sqlx::Error::Io(e),
            })?;
        }
        let opened = |source: sqlx::Error| Error::Open {
            path: path.clone(),
            source,
        };
        let connect = connect_options(&options.location);
        let mut writer = connect
            .connect()
            .await
            .map_err(|e| in_use_or(&path, e, &opened))?;
        migrate::run(&mut writer, &path, migrations)
            .await
            .map_err(|error| match error {
                Error::Statement(source) => in_use_or(&path, source, &opened),
                other => other,
            })?;
        let log = match &options.location {
            Location::File(path) => Some(Log::of(path).map_err(|e| opened(sqlx::Error::Io(e)))?),
            Location::Memory(_) => None,
        };
        // Readers are opened when first needed, so that opening costs one connection.
        let readers = SqlitePoolOptions::new()
            .min_connections(0)
            .max_connections(options.readers.max(1))
            .connect_lazy_with(connect.read_only(matches!(options.location, Location::File(_))));
        Ok(Self {
            writer: Writer::start(writer, log, supervisor),
            changes: Arc::default(),
            readers,
        })
    }

    /// The pool to read from; what it sees is committed.
    pub fn reader(&self) -> &SqlitePool {
        &self.readers
    }

    /// Waits for the jobs that were handed in, then closes every connection.
    pub async fn close(&self) {
        self.writer.close().await;
        self.readers.close().await;
    }
}

fn connect_options(location: &Location) -> SqliteConnectOptions {
    let options = match location {
        Location::File(path) => SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // An answer is given only for what survives a power cut: the writer sees to that itself.
            .synchronous(SqliteSynchronous::Normal),
        Location::Memory(name) => SqliteConnectOptions::new()
            .filename(format!("file:{name}?mode=memory&cache=shared"))
            .shared_cache(true)
            .pragma("read_uncommitted", "true"),
    };
    options
        .locking_mode(SqliteLockingMode::Normal)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .statement_cache_capacity(256)
        .pragma("cache_size", "-4000")
        .pragma("temp_store", "memory")
        // The write-ahead log is folded back before it outgrows what is reserved for it; should it
        // have grown all the same, it is cut down to that again.
        .pragma("wal_autocheckpoint", "1900")
        .pragma("journal_size_limit", "8388608")
}

fn create_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map(drop)
}

fn in_use_or(path: &Path, error: sqlx::Error, other: &dyn Fn(sqlx::Error) -> Error) -> Error {
    let busy = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == "5");
    if busy {
        Error::InUse {
            path: path.to_owned(),
        }
    } else {
        other(error)
    }
}
