//! The loop behind every controller: takes keys from its queue, reconciles several at once, tries
//! failures again after a growing pause, and comes back to a key when a reconcile asks for it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use stdx::{Backoff, OnError, SharedClock, Supervisor};

use super::Queue;
use crate::Error;

/// What a finished reconcile asks for: nothing, or to be called again after a while.
pub(crate) type Outcome = Result<Option<Duration>, Error>;

/// How many keys of one controller are worked on at the same time.
const CONCURRENCY: usize = 16;

/// Starts controllers' loops.
pub(crate) struct Starter {
    pub(crate) supervisor: Supervisor,
    pub(crate) clock: SharedClock,
}

impl Starter {
    /// Runs `reconcile` for the keys of `queue` once every cache of `synced` is filled.
    pub(crate) fn run<T, F, Fut>(
        &self,
        name: &'static str,
        queue: Arc<Queue<T>>,
        synced: Vec<BoxFuture<'static, ()>>,
        reconcile: F,
    ) where
        T: Ord + Clone + Debug + Send + Sync + 'static,
        F: Fn(T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let clock = self.clock.clone();
        self.supervisor.spawn(name, OnError::Log, async move {
            futures::future::join_all(synced).await;
            work(name, queue, clock, reconcile).await;
            Ok::<(), String>(())
        });
    }
}

async fn work<T, F, Fut>(name: &'static str, queue: Arc<Queue<T>>, clock: SharedClock, reconcile: F)
where
    T: Ord + Clone + Debug + Send + 'static,
    F: Fn(T) -> Fut,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    let mut running: FuturesUnordered<BoxFuture<'static, (T, Result<Outcome, String>)>> =
        FuturesUnordered::new();
    let mut pauses: FuturesUnordered<BoxFuture<'static, T>> = FuturesUnordered::new();
    // The soonest moment each key asked to be looked at again; later pauses of the key are void.
    let mut due: BTreeMap<T, Duration> = BTreeMap::new();
    let mut failures: BTreeMap<T, Backoff> = BTreeMap::new();
    loop {
        tokio::select! {
            key = queue.next(), if running.len() < CONCURRENCY => {
                let future = AssertUnwindSafe(reconcile(key.clone())).catch_unwind();
                running.push(Box::pin(async move {
                    let outcome = future.await;
                    (key, outcome.map_err(|p| stdx::supervisor::panic_message(p.as_ref()).to_owned()))
                }));
            }
            Some((key, outcome)) = running.next(), if !running.is_empty() => {
                queue.done(&key);
                let pause = match outcome {
                    Ok(Ok(pause)) => {
                        failures.remove(&key);
                        pause
                    }
                    failed => {
                        let pause = failures
                            .entry(key.clone())
                            .or_insert_with(|| {
                                Backoff::new(Duration::from_millis(5), 2.0, Duration::from_secs(60))
                            })
                            .next_delay();
                        log(name, &key, failed, pause);
                        Some(pause)
                    }
                };
                if let Some(pause) = pause {
                    let at = clock.monotonic() + pause;
                    if due.get(&key).is_none_or(|earlier| at < *earlier) {
                        due.insert(key.clone(), at);
                        let sleep = clock.sleep(pause);
                        pauses.push(Box::pin(async move {
                            sleep.await;
                            key
                        }));
                    }
                }
            }
            Some(key) = pauses.next(), if !pauses.is_empty() => {
                let now = clock.monotonic();
                if due.get(&key).is_some_and(|at| *at <= now) {
                    due.remove(&key);
                    queue.add(key);
                }
            }
        }
    }
}

fn log<T: Debug>(name: &str, key: &T, failed: Result<Outcome, String>, pause: Duration) {
    match failed {
        Err(panic) => tracing::error!(controller = name, ?key, "reconcile panicked: {panic}"),
        // Ordinary: somebody was faster, the next try sees it.
        Ok(Err(error)) if error.is_conflict() || matches!(error, Error::NotYet(_)) => {
            tracing::debug!(controller = name, ?key, "{}", stdx::error::chain(&error));
        }
        // Short pauses are tries that usually mend themselves.
        Ok(Err(error)) if pause < Duration::from_secs(1) => {
            tracing::debug!(controller = name, ?key, "{}", stdx::error::chain(&error));
        }
        Ok(Err(error)) => {
            tracing::warn!(controller = name, ?key, "{}", stdx::error::chain(&error));
        }
        Ok(Ok(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use stdx::ManualClock;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn a_failed_key_comes_again_after_its_pause_and_a_success_ends_it() {
        let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let queue = Queue::new();
        let (sender, mut calls) = mpsc::unbounded_channel();
        let results = Mutex::new(vec![Ok(None), Err(Error::NotYet("second".into()))]);
        let supervisor = Supervisor::new();
        let starter = Starter {
            supervisor: supervisor.clone(),
            clock: clock.clone(),
        };
        starter.run("test", queue.clone(), vec![], move |key: &'static str| {
            let result = results.lock().unwrap().pop().expect("no third call");
            sender.send(key).unwrap();
            async move { result }
        });
        queue.add("a");
        assert_eq!(calls.recv().await, Some("a"));
        while clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(calls.try_recv().is_err());
        clock.advance(Duration::from_millis(5));
        assert_eq!(calls.recv().await, Some("a"));
        supervisor.shutdown().await;
    }
}
