//! One kind's objects as this process last saw them, fed by a watch and by the answers to our own
//! writes. Does not talk to the API server.
//!
//! Own writes are visible at once: [`Cache::observe`] takes the answer of a create or update. It is
//! only believed when its resourceVersion is newer than every watch event seen, so an object that
//! was deleted meanwhile does not come back; [`Cache::forget`] does the same for deletions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use kube::runtime::watcher;
use kube::{Resource, ResourceExt as _};
use tokio::sync::watch;

/// Namespace and name; the namespace is empty for cluster-scoped kinds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub(crate) fn of<K: Resource>(object: &K) -> Self {
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// What happened to one object.
pub(crate) struct Change<'a, K> {
    pub(crate) old: Option<&'a Arc<K>>,
    pub(crate) new: Option<&'a Arc<K>>,
}

impl<'a, K> Change<'a, K> {
    /// The states there are: the old one, the new one, or both.
    pub(crate) fn sides(&self) -> impl Iterator<Item = &'a Arc<K>> {
        self.old.into_iter().chain(self.new)
    }

    /// The newest state there is.
    pub(crate) fn latest(&self) -> Option<&'a Arc<K>> {
        self.new.or(self.old)
    }
}

type Handler<K> = Box<dyn Fn(Change<'_, K>) + Send + Sync>;

/// The cache of one kind.
pub(crate) struct Cache<K> {
    state: RwLock<State<K>>,
    handlers: Mutex<Arc<Vec<Handler<K>>>>,
    synced: watch::Sender<bool>,
}

struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// The list under way; it replaces `objects` when it is complete.
    listing: Option<BTreeMap<Key, Arc<K>>>,
    /// The newest resourceVersion the watch has shown.
    seen: u64,
    /// Uids whose deletion we were told of before the watch says so.
    gone: BTreeSet<String>,
}

fn version<K: Resource>(object: &K) -> u64 {
    object
        .meta()
        .resource_version
        .as_deref()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

impl<K: Resource> Cache<K> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: RwLock::new(State {
                objects: BTreeMap::new(),
                listing: None,
                seen: 0,
                gone: BTreeSet::new(),
            }),
            handlers: Mutex::new(Arc::new(Vec::new())),
            synced: watch::Sender::new(false),
        })
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read().objects.get(key).cloned()
    }

    /// The objects of one namespace, by name.
    pub(crate) fn list(&self, namespace: &str) -> Vec<Arc<K>> {
        self.read()
            .objects
            .range(Key::new(namespace, "")..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Whether the namespace has any object.
    pub(crate) fn holds(&self, namespace: &str) -> bool {
        let state = self.read();
        let mut rest = state.objects.range(Key::new(namespace, "")..);
        rest.next()
            .is_some_and(|(key, _)| key.namespace == namespace)
    }

    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.read().objects.values().cloned().collect()
    }

    /// Calls `handler` after every change, with no lock held.
    pub(crate) fn on_change(&self, handler: impl Fn(Change<'_, K>) + Send + Sync + 'static) {
        let mut handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Arc::into_inner(std::mem::take(&mut *handlers))
            .expect("invariant: handlers are registered before the watch starts");
        all.push(Box::new(handler));
        *handlers = Arc::new(all);
    }

    /// Completes when the first list is in the cache.
    pub(crate) fn synced(&self) -> impl Future<Output = ()> + Send + use<K> {
        let mut receiver = self.synced.subscribe();
        async move {
            // The sender lives as long as the cache; a dropped cache needs no waiting.
            drop(receiver.wait_for(|synced| *synced).await);
        }
    }

    /// Takes one event of the watch.
    pub(crate) fn apply(&self, event: watcher::Event<K>) {
        match event {
            watcher::Event::Init => {
                let mut state = self.write();
                state.listing = Some(BTreeMap::new());
                state.gone.clear();
            }
            watcher::Event::InitApply(mut object) => {
                object.meta_mut().managed_fields = None;
                let mut state = self.write();
                state.seen = state.seen.max(version(&object));
                let listing = state.listing.get_or_insert_default();
                listing.insert(Key::of(&object), Arc::new(object));
            }
            watcher::Event::InitDone => self.finish_listing(),
            watcher::Event::Apply(object) => {
                let mut state = self.write();
                state.seen = state.seen.max(version(&object));
                self.put(state, object);
            }
            watcher::Event::Delete(object) => {
                let mut state = self.write();
                state.seen = state.seen.max(version(&object));
                if let Some(uid) = &object.meta().uid {
                    state.gone.remove(uid);
                }
                self.remove(state, &Key::of(&object), object.meta().uid.as_deref());
            }
        }
    }

    /// Takes the answer to our own create or update.
    pub(crate) fn observe(&self, object: K) {
        let state = self.write();
        if version(&object) > state.seen {
            self.put(state, object);
        }
    }

    /// Takes the news that our own delete removed the object at once.
    pub(crate) fn forget(&self, key: &Key, uid: &str) {
        let mut state = self.write();
        if state
            .objects
            .get(key)
            .is_some_and(|o| o.meta().uid.as_deref() == Some(uid))
        {
            state.gone.insert(uid.to_owned());
            self.remove(state, key, Some(uid));
        }
    }

    fn put(&self, mut state: std::sync::RwLockWriteGuard<'_, State<K>>, mut object: K) {
        // Nobody here asks who wrote what, and it is often the larger part.
        object.meta_mut().managed_fields = None;
        if object
            .meta()
            .uid
            .as_ref()
            .is_some_and(|uid| state.gone.contains(uid))
        {
            return;
        }
        let key = Key::of(&object);
        let old = state.objects.get(&key).cloned();
        if let Some(old) = &old {
            let (had, has) = (version(old.as_ref()), version(&object));
            if has != 0 && has <= had {
                return;
            }
        }
        let new = Arc::new(object);
        state.objects.insert(key, new.clone());
        drop(state);
        self.tell(Change {
            old: old.as_ref(),
            new: Some(&new),
        });
    }

    fn remove(
        &self,
        mut state: std::sync::RwLockWriteGuard<'_, State<K>>,
        key: &Key,
        uid: Option<&str>,
    ) {
        if state
            .objects
            .get(key)
            .is_some_and(|o| o.meta().uid.as_deref() != uid)
        {
            return;
        }
        let old = state.objects.remove(key);
        drop(state);
        if old.is_some() {
            self.tell(Change {
                old: old.as_ref(),
                new: None,
            });
        }
    }

    fn finish_listing(&self) {
        let mut changes = Vec::new();
        {
            let mut state = self.write();
            let mut listed = state.listing.take().unwrap_or_default();
            let before = std::mem::take(&mut state.objects);
            for (key, new) in &listed {
                if !before.contains_key(key) {
                    changes.push((None, Some(new.clone())));
                }
            }
            for (key, old) in before {
                match listed.get(&key) {
                    Some(new) if version(new.as_ref()) == version(old.as_ref()) => {}
                    Some(new) if version(new.as_ref()) > version(old.as_ref()) => {
                        changes.push((Some(old), Some(new.clone())));
                    }
                    // Our own write came after the list was taken.
                    Some(_) => drop(listed.insert(key, old)),
                    None if version(old.as_ref()) > state.seen => drop(listed.insert(key, old)),
                    None => changes.push((Some(old), None)),
                }
            }
            state.objects = listed;
        }
        for (old, new) in &changes {
            self.tell(Change {
                old: old.as_ref(),
                new: new.as_ref(),
            });
        }
        self.synced.send_replace(true);
    }

    fn tell(&self, change: Change<'_, K>) {
        let handlers = self
            .handlers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for handler in handlers.iter() {
            handler(Change {
                old: change.old,
                new: change.new,
            });
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State<K>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State<K>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::watcher::Event;

    fn map(name: &str, uid: &str, version: u64) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map.metadata.namespace = Some("n".to_owned());
        map.metadata.uid = Some(uid.to_owned());
        map.metadata.resource_version = Some(version.to_string());
        map
    }

    fn names(cache: &Cache<ConfigMap>) -> Vec<String> {
        cache.list("n").iter().map(|o| o.name_any()).collect()
    }

    #[test]
    fn an_own_write_is_visible_before_the_watch_tells_it_and_told_once() {
        let cache = Cache::new();
        let told = Arc::new(Mutex::new(0));
        let counter = told.clone();
        cache.on_change(move |_| *counter.lock().unwrap() += 1);
        cache.observe(map("a", "1", 7));
        cache.apply(Event::Apply(map("a", "1", 7)));
        assert_eq!(
            (names(&cache), *told.lock().unwrap()),
            (vec!["a".to_owned()], 1)
        );
    }

    #[test]
    fn an_answer_older_than_the_watch_does_not_bring_a_deleted_object_back() {
        let cache = Cache::new();
        cache.apply(Event::Apply(map("a", "1", 7)));
        cache.apply(Event::Delete(map("a", "1", 8)));
        cache.observe(map("a", "1", 7));
        assert!(names(&cache).is_empty());
    }

    #[test]
    fn news_from_before_an_own_delete_is_ignored_and_the_next_incarnation_is_not() {
        let cache = Cache::new();
        cache.apply(Event::Apply(map("a", "1", 7)));
        cache.forget(&Key::new("n", "a"), "1");
        cache.apply(Event::Apply(map("a", "1", 8)));
        assert!(names(&cache).is_empty());
        cache.apply(Event::Delete(map("a", "1", 9)));
        cache.apply(Event::Apply(map("a", "2", 10)));
        assert_eq!(names(&cache), ["a"]);
    }

    #[test]
    fn a_list_removes_what_it_does_not_hold_and_tells_only_differences() {
        let cache = Cache::new();
        for name in ["a", "b", "c"] {
            cache.apply(Event::Apply(map(name, name, 3)));
        }
        let told = Arc::new(Mutex::new(Vec::new()));
        let seen = told.clone();
        cache.on_change(move |change| {
            let name = change.latest().unwrap().name_any();
            seen.lock()
                .unwrap()
                .push((name, change.old.is_some(), change.new.is_some()));
        });
        cache.apply(Event::Init);
        for (name, version) in [("a", 3), ("b", 5), ("d", 6)] {
            cache.apply(Event::InitApply(map(name, name, version)));
        }
        cache.apply(Event::InitDone);
        assert_eq!(names(&cache), ["a", "b", "d"]);
        let mut told = told.lock().unwrap().clone();
        told.sort();
        let entry = |name: &str, old, new| (name.to_owned(), old, new);
        // `a` is unchanged, so nobody hears of it.
        assert_eq!(
            told,
            [
                entry("b", true, true),
                entry("c", true, false),
                entry("d", false, true)
            ]
        );
    }
}
