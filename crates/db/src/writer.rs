//! The one writer of a database: jobs in, one synced commit for all that are waiting.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::{AssertSqlSafe, SqliteConnection};
use stdx::Supervisor;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::{Db, Error};

/// What a job returns: a future that borrows the writer's connection.
pub type WriteFuture<'c, T> = BoxFuture<'c, Result<T, Error>>;

/// At most this many jobs share a commit, so that the first of them does not wait too long.
const BATCH: usize = 256;

/// A job with its types erased: run it, then tell its owner how the commit went.
struct Queued {
    run: Run,
}

type Run = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Outcome> + Send>;

/// What became of a job before the commit, and how to answer once the commit is known.
struct Outcome {
    keep: bool,
    answer: Box<dyn FnOnce(Result<(), Error>) + Send>,
}

enum Message {
    Job(Queued),
    Close(oneshot::Sender<()>),
}

#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Message>,
    /// Keeps `close` from being answered twice at once.
    closing: Arc<Mutex<()>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("waiting", &self.queue.max_capacity())
            .finish_non_exhaustive()
    }
}

impl Db {
    /// Runs `job` on the writer and returns its value once it is committed and synced.
    ///
    /// Jobs run one after the other in the order of the calls and see what earlier ones wrote; those
    /// that are waiting are committed together. If a job fails, only its own writes are undone. A
    /// job must not touch anything but the connection it is given.
    pub async fn write<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> WriteFuture<'c, T> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let run: Run = Box::new(move |connection| {
            let ran = std::panic::AssertUnwindSafe(job(connection)).catch_unwind();
            async move {
                let result = ran.await.unwrap_or_else(|panic| Err(panicked(&*panic)));
                let keep = result.is_ok();
                let answer = Box::new(move |commit: Result<(), Error>| {
                    // Nobody waiting any more is fine.
                    let _ = sender.send(result.and_then(|value| commit.map(|()| value)));
                });
                Outcome {
                    keep,
                    answer: answer as _,
                }
            }
            .boxed()
        });
        self.writer
            .queue
            .send(Message::Job(Queued { run }))
            .await
            .map_err(|_| Error::Closed)?;
        receiver.await.map_err(|_| Error::Closed)?
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    Error::Commit(format!(
        "the job panicked: {}",
        stdx::supervisor::panic_message(panic)
    ))
}

impl Writer {
    pub(crate) fn start(connection: SqliteConnection, supervisor: &Supervisor) -> Self {
        let (queue, jobs) = mpsc::channel(4 * BATCH);
        supervisor.spawn_graceful("database writer", write_loop(connection, jobs));
        Self {
            queue,
            closing: Arc::default(),
        }
    }

    pub(crate) async fn close(&self) {
        let _one = self.closing.lock().await;
        let (done, closed) = oneshot::channel();
        if self.queue.send(Message::Close(done)).await.is_ok() {
            // An error means that it is closed already.
            let _ = closed.await;
        }
    }
}

/// Ends when it is closed or when every [`Db`] is gone.
async fn write_loop(mut connection: SqliteConnection, mut jobs: mpsc::Receiver<Message>) {
    let mut batch = Vec::with_capacity(BATCH);
    while jobs.recv_many(&mut batch, BATCH).await > 0 {
        let mut close = None;
        let mut queued = Vec::with_capacity(batch.len());
        for message in batch.drain(..) {
            match message {
                Message::Job(job) => queued.push(job),
                Message::Close(done) => close = Some(done),
            }
        }
        if !queued.is_empty() {
            commit(&mut connection, queued).await;
        }
        if let Some(done) = close {
            jobs.close();
            let mut late = Vec::new();
            while let Some(message) = jobs.recv().await {
                if let Message::Job(job) = message {
                    late.push(job);
                }
            }
            if !late.is_empty() {
                commit(&mut connection, late).await;
            }
            if let Err(error) = sqlx::Connection::close(connection).await {
                tracing::warn!("close database: {error}");
            }
            let _ = done.send(());
            return;
        }
    }
}

async fn commit(connection: &mut SqliteConnection, jobs: Vec<Queued>) {
    if let Err(error) = execute(connection, "BEGIN IMMEDIATE").await {
        let text = error.to_string();
        for job in jobs {
            // Dropping the job would answer "closed"; run it against nothing instead.
            refuse(job, &text, connection).await;
        }
        return;
    }
    let alone = jobs.len() == 1;
    let mut answers = Vec::with_capacity(jobs.len());
    let mut broken = None;
    for job in jobs {
        // A lone job needs no savepoint: undoing it is undoing everything.
        let guarded = if alone {
            Ok(())
        } else {
            execute(connection, "SAVEPOINT job").await
        };
        let outcome = (job.run)(&mut *connection).await;
        let settled = match (guarded, outcome.keep, alone) {
            (Err(error), _, _) => Err(error),
            (Ok(()), _, true) => Ok(()),
            (Ok(()), true, false) => execute(connection, "RELEASE job").await,
            (Ok(()), false, false) => undo(connection).await,
        };
        if let Err(error) = settled {
            broken = Some(error);
        }
        answers.push(outcome);
    }
    let nothing = answers.iter().all(|a| !a.keep);
    let end = match (&broken, nothing) {
        (None, false) => execute(connection, "COMMIT").await,
        _ => Ok(()),
    };
    let result = match broken {
        Some(error) => Err(error),
        None => end,
    };
    if result.is_err() || nothing {
        // After a failed statement SQLite may have rolled back by itself already.
        let _ = execute(connection, "ROLLBACK").await;
    }
    let full = matches!(result, Err(Error::DiskFull));
    let text = result.as_ref().err().map(|error| stdx::error::chain(error));
    for outcome in answers {
        (outcome.answer)(match &text {
            None => Ok(()),
            Some(_) if full => Err(Error::DiskFull),
            Some(text) => Err(Error::Commit(text.clone())),
        });
    }
}

async fn undo(connection: &mut SqliteConnection) -> Result<(), Error> {
    execute(connection, "ROLLBACK TO job").await?;
    execute(connection, "RELEASE job").await
}

async fn refuse(job: Queued, why: &str, connection: &mut SqliteConnection) {
    // Outside a transaction each statement would commit alone, so make the connection read-only
    // while the job runs; its answer is the error in any case.
    let guarded = execute(connection, "PRAGMA query_only = true").await;
    if guarded.is_ok() {
        let outcome = (job.run)(&mut *connection).await;
        (outcome.answer)(Err(Error::Commit(why.to_owned())));
        let _ = execute(connection, "PRAGMA query_only = false").await;
    }
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .map(drop)
        .map_err(Error::of_statement)
}
