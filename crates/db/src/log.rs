//! The way of a database's write-ahead log to the disk.
//!
//! SQLite is told to leave it alone (`synchronous = NORMAL`), because it would call `fsync`: on a
//! journalling filesystem that waits for a commit of the filesystem's own journal whenever the file
//! has become longer or its times have changed, which takes ten to a hundred times as long as the
//! flush of the data. Here the log is made long enough once, in a quiet moment, and then every
//! commit is overwriting blocks that are there and one `fdatasync`. What is answered is on disk just
//! the same: the writer answers nobody before [`Log::sync`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

/// How long the log is made. SQLite folds it back before it is longer (see `open`).
const RESERVED: u64 = 8 << 20;

/// The log of one database, beside the handle that SQLite has of it.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    file: Arc<File>,
}

impl Log {
    /// The log of the database at `path`, which must have been written or read once.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let mut name = std::fs::canonicalize(path)?.into_os_string();
        name.push("-wal");
        let file = File::options().read(true).write(true).open(name)?;
        Ok(Self {
            file: Arc::new(file),
        })
    }

    /// Returns when everything that was written is on disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Makes the file as long as it will ever be. Nothing else may write to it meanwhile. SQLite
    /// reads a log up to the first frame that does not check, so zeros at its end mean nothing.
    pub(crate) fn reserve(&self) -> io::Result<()> {
        let zeros = vec![0; 1 << 16];
        let mut at = self.file.metadata()?.len();
        while at < RESERVED {
            let length = zeros.len().min((RESERVED - at) as usize);
            self.file.write_all_at(&zeros[..length], at)?;
            at += length as u64;
        }
        self.file.sync_all()
    }
}
