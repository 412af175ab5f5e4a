//! Watches: a position in a cache's ring, a filter, and a stream of what changed.
//!
//! A watcher pulls; nothing is queued for it. If it is so slow that its position leaves the ring it
//! gets an `Expired` error and starts over, as with upstream. Encoding is the endpoint's.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use serde_json::Value;
use stdx::SharedClock;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;

use crate::storage::{Cache, Event, EventType, Object, Previous, Store, TooOld};

/// How often a silent watch says how far it is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// Which objects a watch or list is about.
pub(crate) trait Filter: Send + Sync {
    /// Whether the object is selected. It is in the right namespace already.
    fn matches(&self, object: &Object) -> bool;
}

/// What a watcher is told.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    /// The last state; the number is the deletion's resourceVersion.
    Deleted(Arc<Object>),
    /// Everything up to here has been sent.
    Bookmark {
        rv: u64,
        initial_events_end: bool,
    },
    /// The watch cannot go on.
    TooOld {
        position: u64,
        oldest: u64,
    },
}

/// How a watch begins.
#[derive(Debug)]
pub(crate) struct Begin {
    /// Objects to be sent as added first.
    pub(crate) initial: Vec<Arc<Object>>,
    /// Whether a bookmark says where they end.
    pub(crate) mark_initial_end: bool,
    /// Changes after this are sent.
    pub(crate) position: u64,
    pub(crate) bookmarks: bool,
    pub(crate) timeout: Duration,
}

/// A running watch; [`Watcher::stream`] makes it a stream of batches.
pub(crate) struct Watcher {
    store: Arc<Store>,
    cache: Arc<Cache>,
    changed: Receiver<u64>,
    namespace: String,
    filter: Arc<dyn Filter>,
    clock: SharedClock,
    stop: CancellationToken,
    position: u64,
    pending: Vec<Notice>,
    bookmarks: bool,
    deadline: BoxFuture<'static, ()>,
    over: bool,
}

impl Watcher {
    pub(crate) fn new(
        store: Arc<Store>,
        cache: Arc<Cache>,
        namespace: String,
        filter: Arc<dyn Filter>,
        clock: SharedClock,
        stop: CancellationToken,
        begin: Begin,
    ) -> Self {
        let mut pending: Vec<Notice> = begin.initial.into_iter().map(Notice::Added).collect();
        if begin.mark_initial_end {
            pending.push(Notice::Bookmark {
                rv: begin.position,
                initial_events_end: true,
            });
        }
        Self {
            changed: cache.subscribe(),
            deadline: clock.sleep(begin.timeout),
            store,
            cache,
            namespace,
            filter,
            clock,
            stop,
            position: begin.position,
            pending,
            bookmarks: begin.bookmarks,
            over: false,
        }
    }

    /// The notices in batches; ends at the deadline, at shutdown or with [`Notice::TooOld`].
    pub(crate) fn stream(self) -> impl Stream<Item = Vec<Notice>> + Send {
        futures::stream::unfold(self, |mut watcher| async move {
            let batch = watcher.next().await?;
            Some((batch, watcher))
        })
    }

    async fn next(&mut self) -> Option<Vec<Notice>> {
        if !self.pending.is_empty() {
            return Some(std::mem::take(&mut self.pending));
        }
        if self.over {
            return None;
        }
        let mut bookmark = self.clock.sleep(BOOKMARK_EVERY);
        loop {
            // Seen before the events are read, so that a change in between wakes us again.
            self.changed.borrow_and_update();
            let complete = self.store.rv();
            match self.cache.events_after(self.position) {
                Ok(events) => {
                    if let Some(last) = events.last() {
                        self.position = last.rv();
                        let notices: Vec<Notice> = events
                            .iter()
                            .filter_map(|event| self.notice(event))
                            .collect();
                        if !notices.is_empty() {
                            return Some(notices);
                        }
                    }
                    // Nothing of this resource lies between its last event and here.
                    self.position = self.position.max(complete);
                }
                Err(TooOld { oldest }) => {
                    self.over = true;
                    return Some(vec![Notice::TooOld {
                        position: self.position,
                        oldest,
                    }]);
                }
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                changed = self.changed.changed() => if changed.is_err() { return None },
                () = &mut self.deadline => {
                    self.over = true;
                    return self.bookmarks.then(|| vec![self.bookmark()]);
                }
                () = &mut bookmark => {
                    if self.bookmarks {
                        return Some(vec![self.bookmark()]);
                    }
                    bookmark = self.clock.sleep(BOOKMARK_EVERY);
                }
            }
        }
    }

    fn bookmark(&self) -> Notice {
        Notice::Bookmark {
            rv: self.position,
            initial_events_end: false,
        }
    }

    fn notice(&self, event: &Event) -> Option<Notice> {
        let object = &event.object;
        if !self.namespace.is_empty() && *object.namespace != *self.namespace {
            return None;
        }
        let now = event.kind != EventType::Deleted && self.filter.matches(object);
        // What was forgotten may have been selected: told once too often does no harm.
        let before = match &event.previous {
            Previous::None => false,
            Previous::Known(previous) => self.filter.matches(previous),
            Previous::Forgotten => event.kind != EventType::Deleted || self.filter.matches(object),
        };
        match (before, now) {
            (false, true) => Some(Notice::Added(Arc::clone(object))),
            (true, true) => Some(Notice::Modified(Arc::clone(object))),
            (true, false) => Some(Notice::Deleted(match (&event.previous, event.kind) {
                // It left the selection: the watcher gets the state it knew, at the new version.
                (Previous::Known(previous), EventType::Modified) => Arc::new(Object::new(
                    &object.namespace,
                    &object.name,
                    object.rv,
                    Value::clone(previous.value()),
                )),
                _ => Arc::clone(object),
            })),
            (false, false) => None,
        }
    }
}
