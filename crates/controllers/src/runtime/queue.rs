//! A work queue: a key waits at most once, and is never worked on twice at the same time. A key
//! added while it is being worked on is worked on again afterwards.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

struct State<T> {
    ready: VecDeque<T>,
    waiting: BTreeSet<T>,
    running: BTreeSet<T>,
    again: BTreeSet<T>,
}

impl<T: Ord + Clone> Queue<T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                waiting: BTreeSet::new(),
                running: BTreeSet::new(),
                again: BTreeSet::new(),
            }),
            wake: Notify::new(),
        })
    }

    pub(crate) fn add(&self, key: T) {
        let mut state = self.lock();
        if state.running.contains(&key) {
            state.again.insert(key);
        } else if state.waiting.insert(key.clone()) {
            state.ready.push_back(key);
            drop(state);
            self.wake.notify_one();
        }
    }

    /// The next key, now marked as being worked on; [`Queue::done`] must follow.
    pub(crate) async fn next(&self) -> T {
        loop {
            let woken = self.wake.notified();
            if let Some(key) = self.try_next() {
                return key;
            }
            woken.await;
        }
    }

    fn try_next(&self) -> Option<T> {
        let mut state = self.lock();
        let key = state.ready.pop_front()?;
        state.waiting.remove(&key);
        state.running.insert(key.clone());
        Some(key)
    }

    pub(crate) fn done(&self, key: &T) {
        let again = {
            let mut state = self.lock();
            state.running.remove(key);
            state.again.remove(key)
        };
        if again {
            self.add(key.clone());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_added_while_it_runs_comes_again_once() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        queue.add("a");
        assert!(queue.try_next().is_none(), "it is still being worked on");
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        assert!(queue.try_next().is_none());
    }
}
