//! The one writer of a database: jobs in, one commit for all that are waiting, and one sync for all
//! that were committed while the last one went on.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, OptionFuture};
use sqlx::{AssertSqlSafe, SqliteConnection};
use stdx::Supervisor;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::log::Log;
use crate::{Db, Error};

/// What a job returns: a future that borrows the writer's connection.
pub type WriteFuture<'c, T> = BoxFuture<'c, Result<T, Error>>;

/// At most this many jobs share a commit, so that the first of them does not wait too long.
const BATCH: usize = 256;

/// The log gets its length when nobody has written for this long.
const QUIET: Duration = Duration::from_millis(300);

/// What nobody waits for is on disk this long after it was committed.
const BEHIND: Duration = Duration::from_millis(25);

/// A job with its types erased: run it, then tell its owner how the commit went.
struct Queued {
    run: Run,
    /// Somebody waits for the sync.
    urgent: bool,
    synced: oneshot::Sender<Result<(), Error>>,
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

/// The sync that follows a commit.
#[derive(Debug)]
pub struct Synced(oneshot::Receiver<Result<(), Error>>);

impl Synced {
    /// Returns when the commit is on disk.
    pub async fn wait(self) -> Result<(), Error> {
        self.0.await.map_err(|_| Error::Closed)?
    }
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
    /// A number that is another one once a job has been committed: what was read from the database
    /// and is kept by this number is still so while the number is the same.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

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
        let (value, synced) = self.commit(job).await?;
        synced.wait().await?;
        Ok(value)
    }

    /// The same, but returns when readers see it, which is before it is on disk; for whoever has
    /// something to do between the two.
    pub async fn commit<T, F>(&self, job: F) -> Result<(T, Synced), Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> WriteFuture<'c, T> + Send + 'static,
    {
        self.queue(job, true).await
    }

    /// The same without a sync of its own: it is on disk with the next one, at the latest after a
    /// few hundredths of a second. A crash of the process loses nothing; after a power cut it may
    /// be missing, and then so is everything after it. For what is found out again anyway.
    pub async fn write_behind<T, F>(&self, job: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> WriteFuture<'c, T> + Send + 'static,
    {
        Ok(self.queue(job, false).await?.0)
    }

    async fn queue<T, F>(&self, job: F, urgent: bool) -> Result<(T, Synced), Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> WriteFuture<'c, T> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let (synced, sync) = oneshot::channel();
        let changes = Arc::clone(&self.changes);
        let run: Run = Box::new(move |connection| {
            let ran = std::panic::AssertUnwindSafe(job(connection)).catch_unwind();
            async move {
                let result = ran.await.unwrap_or_else(|panic| Err(panicked(&*panic)));
                let keep = result.is_ok();
                let answer = Box::new(move |commit: Result<(), Error>| {
                    changes.fetch_add(1, Ordering::Release);
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
        let queued = Queued {
            run,
            urgent,
            synced,
        };
        self.writer
            .queue
            .send(Message::Job(queued))
            .await
            .map_err(|_| Error::Closed)?;
        let value = receiver.await.map_err(|_| Error::Closed)??;
        Ok((value, Synced(sync)))
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    Error::Commit(format!(
        "the job panicked: {}",
        stdx::supervisor::panic_message(panic)
    ))
}

impl Writer {
    pub(crate) fn start(
        connection: SqliteConnection,
        log: Option<Log>,
        supervisor: &Supervisor,
    ) -> Self {
        let (queue, jobs) = mpsc::channel(4 * BATCH);
        let writing = Writing {
            connection,
            disk: Disk {
                log,
                dirty: false,
                waiting: Vec::new(),
                due: None.into(),
                sync: None,
                lost: None,
            },
        };
        supervisor.spawn_graceful("database writer", Box::pin(writing.run(jobs)));
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

/// What the writer's task owns.
struct Writing {
    connection: SqliteConnection,
    disk: Disk,
}

impl Writing {
    /// Ends when it is closed or when every [`Db`] is gone.
    async fn run(mut self, mut jobs: mpsc::Receiver<Message>) {
        let mut reserved = self.disk.log.is_none();
        let mut batch = Vec::with_capacity(BATCH);
        let mut close = None;
        while close.is_none() {
            let disk = &mut self.disk;
            let idle = disk.sync.is_none();
            tokio::select! {
                biased;
                outcome = ended(&mut disk.sync) => disk.note(outcome),
                received = jobs.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        break;
                    }
                    close = self.take(&mut batch).await;
                }
                Some(()) = &mut disk.due, if idle => disk.start_sync(),
                () = tokio::time::sleep(QUIET), if idle && !disk.dirty && !reserved => {
                    reserved = true;
                    disk.reserve().await;
                }
            }
            if self.disk.sync.is_none() && !self.disk.waiting.is_empty() {
                self.disk.start_sync();
            }
        }
        jobs.close();
        while jobs.recv_many(&mut batch, BATCH).await > 0 {
            close = close.or(self.take(&mut batch).await);
        }
        self.disk.settle().await;
        if let Err(error) = sqlx::Connection::close(self.connection).await {
            tracing::warn!("close database: {error}");
        }
        if let Some(done) = close {
            let _ = done.send(());
        }
    }

    /// Commits the jobs among the messages. Returns who wants the database closed, if anyone.
    async fn take(&mut self, batch: &mut Vec<Message>) -> Option<oneshot::Sender<()>> {
        let mut close = None;
        let mut queued = Vec::with_capacity(batch.len());
        for message in batch.drain(..) {
            match message {
                Message::Job(job) => queued.push(job),
                Message::Close(done) => close = Some(done),
            }
        }
        if !queued.is_empty() {
            self.commit(queued).await;
        }
        close
    }

    async fn commit(&mut self, jobs: Vec<Queued>) {
        let connection = &mut self.connection;
        let begun = match &self.disk.lost {
            Some(why) => Err(Error::Commit(why.clone())),
            None => execute(connection, "BEGIN IMMEDIATE").await,
        };
        if let Err(error) = begun {
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
            answers.push((outcome, job.urgent.then_some(job.synced)));
        }
        let nothing = answers.iter().all(|(outcome, _)| !outcome.keep);
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
        for (outcome, synced) in answers {
            if text.is_none() && outcome.keep {
                self.disk.written(synced);
            }
            (outcome.answer)(match &text {
                None => Ok(()),
                Some(_) if full => Err(Error::DiskFull),
                Some(text) => Err(Error::Commit(text.clone())),
            });
        }
    }
}

/// How far what was committed is on its way to the disk.
struct Disk {
    /// None: the database is in memory.
    log: Option<Log>,
    /// Something was committed since the last sync began.
    dirty: bool,
    /// Those among them who wait.
    waiting: Vec<oneshot::Sender<Result<(), Error>>>,
    /// When a sync is due although nobody waits for it.
    due: OptionFuture<BoxFuture<'static, ()>>,
    /// The sync that goes on.
    sync: Option<JoinHandle<Result<(), String>>>,
    /// A sync failed: what the disk holds is not known any more, so nothing is promised again.
    lost: Option<String>,
}

impl Disk {
    fn written(&mut self, synced: Option<oneshot::Sender<Result<(), Error>>>) {
        if self.log.is_none() {
            if let Some(synced) = synced {
                let _ = synced.send(Ok(()));
            }
            return;
        }
        if !self.dirty {
            self.dirty = true;
            self.due = Some(tokio::time::sleep(BEHIND).boxed()).into();
        }
        self.waiting.extend(synced);
    }

    /// Begins to sync all that was committed so far. Its end is told by the thread that does it.
    fn start_sync(&mut self) {
        let Some(log) = self.log.clone() else { return };
        self.dirty = false;
        self.due = None.into();
        let waiting = std::mem::take(&mut self.waiting);
        self.sync = Some(tokio::task::spawn_blocking(move || {
            let outcome = log
                .sync()
                .map_err(|error| format!("the disk did not take the write-ahead log: {error}"));
            for synced in waiting {
                let _ = synced.send(outcome.clone().map_err(Error::Commit));
            }
            outcome
        }));
    }

    fn note(&mut self, outcome: Result<(), String>) {
        self.sync = None;
        if let Err(why) = outcome {
            tracing::error!("{why}; nothing is written until the next start");
            self.lost = Some(why);
        }
    }

    /// Waits until everything is on disk.
    async fn settle(&mut self) {
        loop {
            if self.sync.is_some() {
                let outcome = ended(&mut self.sync).await;
                self.note(outcome);
            } else if self.dirty && self.lost.is_none() {
                self.start_sync();
            } else {
                return;
            }
        }
    }

    async fn reserve(&mut self) {
        let Some(log) = self.log.clone() else { return };
        let reserved = tokio::task::spawn_blocking(move || log.reserve()).await;
        if let Ok(Err(error)) = reserved {
            // It only makes commits slower: the log grows as they need it.
            tracing::debug!("make room for the write-ahead log: {error}");
        }
    }
}

/// The end of the sync that goes on, if one does.
async fn ended(sync: &mut Option<JoinHandle<Result<(), String>>>) -> Result<(), String> {
    match sync {
        Some(sync) => sync.await.unwrap_or_else(|error| Err(error.to_string())),
        None => std::future::pending().await,
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
