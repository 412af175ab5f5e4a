//! SQLite databases with one writer.
//!
//! A [`Db`] is one file that one process owns. All writes go through one connection, on which the
//! jobs that are waiting are committed together (group commit): one sync of the disk for all of
//! them, and nobody is answered before it, unless he says that he need not wait
//! ([`Db::write_behind`]). Reads use a pool of their own and never wait for the
//! writer. Since there is no second writer, "database is locked" cannot happen.
//!
//! Not in here: whose tables they are. Each owner keeps its SQL and its [`Migration`]s.

mod error;
mod log;
mod migrate;
mod open;
mod writer;

pub use error::Error;
pub use migrate::Migration;
pub use open::{Db, Location, Options};
pub use sqlx;
pub use sqlx::SqliteConnection;
pub use writer::{Synced, WriteFuture};
