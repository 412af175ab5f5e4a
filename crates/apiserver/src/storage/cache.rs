//! The objects of one resource in memory, in list order, and a ring of their latest changes.
//!
//! Lists, gets and watches are served from here. Watchers hold a position in the ring and pull; a
//! watcher that falls out of the ring is told so and never misses an event silently.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::watch;

use super::object::{Object, key};

/// How many changes of a resource stay in memory.
const RING: usize = 1024;
/// How many of the latest states keep their trees.
const FRESH: usize = 64;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventType {
    Added,
    Modified,
    Deleted,
}

/// One change, with the state before it where that is known.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) kind: EventType,
    /// The new state; for a deletion the last one, under the deletion's resourceVersion.
    pub(crate) object: Arc<Object>,
    pub(crate) previous: Previous,
}

/// The state before a change.
#[derive(Debug)]
pub(crate) enum Previous {
    None,
    Known(Arc<Object>),
    /// The change was read back after a restart and what preceded it is compacted.
    Forgotten,
}

impl Event {
    pub(crate) fn rv(&self) -> u64 {
        self.object.rv
    }
}

/// The position asked for has left the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooOld {
    /// The oldest position that could still be served.
    pub(crate) oldest: u64,
}

/// A consistent part of a cache.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) rv: u64,
    pub(crate) objects: Vec<Arc<Object>>,
}

#[derive(Debug)]
pub(crate) struct Cache {
    state: RwLock<State>,
    changed: watch::Sender<u64>,
    /// The resourceVersion of the last change, readable without the lock.
    last: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Box<str>, Arc<Object>>,
    ring: VecDeque<Arc<Event>>,
    /// The newest change that is no longer in the ring.
    dropped: u64,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            state: RwLock::default(),
            changed: watch::Sender::new(0),
            last: AtomicU64::new(0),
        }
    }
}

impl Cache {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The resourceVersion of the last change of this resource.
    pub(crate) fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.read()
            .objects
            .get(key(namespace, name).as_str())
            .cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.read().objects.len()
    }

    /// The objects of a namespace (all when it is empty), and the resourceVersion that a watch may
    /// go on from. `global` is the store's position, read under the lock.
    pub(crate) fn snapshot(&self, namespace: &str, global: &AtomicU64) -> Snapshot {
        let state = self.read();
        let rv = global.load(Ordering::Acquire).max(self.last());
        let prefix = if namespace.is_empty() {
            String::new()
        } else {
            format!("{namespace}/")
        };
        let objects = state
            .objects
            .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix.as_str()))
            .map(|(_, object)| Arc::clone(object))
            .collect();
        Snapshot { rv, objects }
    }

    /// The objects of a namespace as they were at `rv`, as far back as the ring reaches.
    pub(crate) fn snapshot_at(&self, namespace: &str, rv: u64) -> Result<Vec<Arc<Object>>, TooOld> {
        let state = self.read();
        let too_old = TooOld {
            oldest: state.dropped,
        };
        if rv < state.dropped {
            return Err(too_old);
        }
        let mut objects = state.objects.clone();
        for event in state.ring.iter().rev().take_while(|event| event.rv() > rv) {
            let key = event.object.key().into_boxed_str();
            match &event.previous {
                Previous::None => drop(objects.remove(&key)),
                Previous::Known(previous) => drop(objects.insert(key, Arc::clone(previous))),
                Previous::Forgotten => return Err(too_old),
            }
        }
        Ok(objects
            .into_values()
            .filter(|object| namespace.is_empty() || *object.namespace == *namespace)
            .collect())
    }

    /// The changes after `position`, oldest first.
    pub(crate) fn events_after(&self, position: u64) -> Result<Vec<Arc<Event>>, TooOld> {
        let state = self.read();
        if position < state.dropped {
            return Err(TooOld {
                oldest: state.dropped,
            });
        }
        let from = state.ring.partition_point(|event| event.rv() <= position);
        Ok(state.ring.range(from..).cloned().collect())
    }

    /// Wakes whenever the resource has changed.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes a committed change in.
    pub(crate) fn publish(&self, event: Event) {
        let rv = event.rv();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let key = event.object.key().into_boxed_str();
        match event.kind {
            EventType::Deleted => {
                state.objects.remove(&key);
            }
            EventType::Added | EventType::Modified => {
                state.objects.insert(key, Arc::clone(&event.object));
            }
        }
        state.push(event);
        self.last.store(rv, Ordering::Release);
        drop(state);
        self.changed.send_replace(rv);
    }

    /// Puts a current object back at start-up; there is no event for it.
    pub(crate) fn restore_object(&self, object: Arc<Object>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        self.last.fetch_max(object.rv, Ordering::AcqRel);
        state.objects.insert(object.key().into_boxed_str(), object);
    }

    /// Puts an event back at start-up; the objects are untouched.
    pub(crate) fn restore_event(&self, event: Event) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        self.last.fetch_max(event.rv(), Ordering::AcqRel);
        state.push(event);
    }

    /// Says that nothing up to `rv` can be replayed.
    pub(crate) fn forget_up_to(&self, rv: u64) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.dropped = state.dropped.max(rv);
    }
}

impl State {
    fn push(&mut self, event: Event) {
        if self.ring.len() == RING
            && let Some(oldest) = self.ring.pop_front()
        {
            self.dropped = oldest.rv();
        }
        self.ring.push_back(Arc::new(event));
        self.fade();
    }

    /// Takes the tree from a state that is no longer fresh; whoever needs it reads the text again.
    fn fade(&mut self) {
        let Some(at) = self.ring.len().checked_sub(FRESH) else {
            return;
        };
        let event = &self.ring[at];
        let object = Arc::new(event.object.without_tree());
        if let Some(current) = self.objects.get_mut(object.key().as_str())
            && current.rv == object.rv
        {
            *current = Arc::clone(&object);
        }
        let previous = match &event.previous {
            Previous::Known(previous) => Previous::Known(Arc::new(previous.without_tree())),
            Previous::None => Previous::None,
            Previous::Forgotten => Previous::Forgotten,
        };
        let kind = event.kind;
        self.ring[at] = Arc::new(Event {
            kind,
            object,
            previous,
        });
    }
}
