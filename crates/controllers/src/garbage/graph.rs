//! Who owns whom, and what follows from it. Pure: news in, work out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// How many uids of orphaning owners are remembered.
const REMEMBERED: usize = 10_000;

/// Something to look at, by uid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    /// Should it go, or may its deletion go on?
    Examine(String),
    /// Its dependents are to be set free.
    SetFree(String),
}

/// An object in the graph.
#[derive(Debug, Clone)]
pub(super) struct Node<K> {
    pub(super) kind: Arc<K>,
    pub(super) metadata: Arc<ObjectMeta>,
}

impl<K> Node<K> {
    fn owners(&self) -> &[OwnerReference] {
        self.metadata
            .owner_references
            .as_deref()
            .unwrap_or_default()
    }

    pub(super) fn has_finalizer(&self, name: &str) -> bool {
        self.metadata
            .finalizers
            .iter()
            .flatten()
            .any(|finalizer| finalizer == name)
    }

    fn leaves(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Being deleted, after its dependents.
    fn waits_for_dependents(&self) -> bool {
        self.leaves() && self.has_finalizer(FOREGROUND)
    }
}

/// How an owner stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Exists,
    /// It goes as soon as its blocking dependents have gone.
    WaitsForDependents,
    Absent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Background,
    Foreground,
    Orphan,
}

/// What to do about an object.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    Delete(Policy),
    /// Take these owners out of its references.
    DropOwners(BTreeSet<String>),
    /// References without blockOwnerDeletion, to break a circle.
    Unblock,
    DropFinalizer(&'static str),
    Later(Work),
}

pub(super) struct Graph<K> {
    nodes: BTreeMap<String, Node<K>>,
    dependents: BTreeMap<String, BTreeSet<String>>,
    /// Owners that left their dependents behind: who still names them is freed, not deleted, even
    /// when the news of the dependent comes after the owner is gone.
    freed: BTreeSet<String>,
    freed_order: VecDeque<String>,
}

impl<K> Graph<K> {
    pub(super) fn new() -> Self {
        Self {
            nodes: BTreeMap::new(),
            dependents: BTreeMap::new(),
            freed: BTreeSet::new(),
            freed_order: VecDeque::new(),
        }
    }

    pub(super) fn node(&self, uid: &str) -> Option<&Node<K>> {
        self.nodes.get(uid)
    }

    /// Takes the news that an object was created or changed.
    pub(super) fn put(&mut self, kind: Arc<K>, metadata: &ObjectMeta) -> Vec<Work> {
        let Some(uid) = metadata.uid.clone() else {
            return Vec::new();
        };
        let node = Node {
            kind,
            metadata: Arc::new(metadata.clone()),
        };
        let mut work = Vec::new();
        let old = self.nodes.get(&uid).map(|old| old.metadata.clone());
        let had = old
            .as_ref()
            .and_then(|m| m.owner_references.clone())
            .unwrap_or_default();
        for owner in node.owners() {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(uid.clone());
        }
        for owner in &had {
            let still = node.owners().iter().find(|now| now.uid == owner.uid);
            if still.is_none() {
                self.release(&owner.uid, &uid);
            }
            let was_blocking = owner.block_owner_deletion == Some(true);
            let blocks = still.is_some_and(|now| now.block_owner_deletion == Some(true));
            if was_blocking && !blocks && self.waits(&owner.uid) {
                work.push(Work::Examine(owner.uid.clone()));
            }
        }
        if node.leaves() && node.has_finalizer(ORPHAN) {
            self.remember_freed(&uid);
            work.push(Work::SetFree(uid.clone()));
        } else if node.waits_for_dependents() {
            work.push(Work::Examine(uid.clone()));
            work.extend(self.dependents_of(&uid).map(|d| Work::Examine(d.clone())));
        } else if old.is_none() || had != node.owners() {
            // Only those can lack an owner whose owner is not here or on its way out.
            let doubtful = node.owners().iter().any(|owner| {
                self.nodes.get(&owner.uid).is_none_or(|known| {
                    known.waits_for_dependents()
                        || known.metadata.namespace.is_some()
                            && known.metadata.namespace != node.metadata.namespace
                })
            });
            if doubtful {
                work.push(Work::Examine(uid.clone()));
            }
        }
        self.nodes.insert(uid, node);
        work
    }

    /// Takes the news that an object is gone.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<Work> {
        let Some(node) = self.nodes.remove(uid) else {
            return Vec::new();
        };
        let mut work: Vec<Work> = self
            .dependents_of(uid)
            .map(|d| Work::Examine(d.clone()))
            .collect();
        for owner in node.owners() {
            self.release(&owner.uid, uid);
            if self.waits(&owner.uid) {
                work.push(Work::Examine(owner.uid.clone()));
            }
        }
        work
    }

    fn release(&mut self, owner: &str, dependent: &str) {
        if let Some(all) = self.dependents.get_mut(owner) {
            all.remove(dependent);
            if all.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    fn waits(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(Node::waits_for_dependents)
    }

    fn remember_freed(&mut self, uid: &str) {
        if self.freed.insert(uid.to_owned()) {
            self.freed_order.push_back(uid.to_owned());
            if self.freed_order.len() > REMEMBERED {
                if let Some(oldest) = self.freed_order.pop_front() {
                    self.freed.remove(&oldest);
                }
            }
        }
    }

    pub(super) fn dependents_of(&self, uid: &str) -> impl Iterator<Item = &String> {
        self.dependents.get(uid).into_iter().flatten()
    }

    /// The owners of an object that the graph cannot vouch for; the server must be asked.
    pub(super) fn doubtful_owners(&self, uid: &str) -> Vec<OwnerReference> {
        let Some(node) = self.nodes.get(uid) else {
            return Vec::new();
        };
        let unknown = |owner: &&OwnerReference| {
            self.nodes.get(&owner.uid).is_none_or(|known| {
                // The same uid under another name or in another namespace was made up.
                let elsewhere = known.metadata.namespace.is_some()
                    && known.metadata.namespace != node.metadata.namespace;
                elsewhere || known.metadata.name.as_deref() != Some(owner.name.as_str())
            })
        };
        node.owners().iter().filter(unknown).cloned().collect()
    }

    /// What to do about an object, given what the server said of its doubtful owners.
    pub(super) fn plan(&self, uid: &str, answers: &BTreeMap<String, Owner>) -> Vec<Change> {
        let Some(node) = self.nodes.get(uid) else {
            return Vec::new();
        };
        if node.leaves() && !node.waits_for_dependents() {
            return Vec::new();
        }
        if node.waits_for_dependents() {
            return self.plan_foreground(uid);
        }
        let mut by_state: BTreeMap<u8, BTreeSet<String>> = BTreeMap::new();
        for owner in node.owners() {
            let state = answers.get(&owner.uid).copied().unwrap_or_else(|| {
                if self.waits(&owner.uid) {
                    Owner::WaitsForDependents
                } else {
                    Owner::Exists
                }
            });
            by_state
                .entry(state as u8)
                .or_default()
                .insert(owner.uid.clone());
        }
        let mut take = |state: Owner| by_state.remove(&(state as u8)).unwrap_or_default();
        let (solid, waiting, absent) = (
            take(Owner::Exists),
            take(Owner::WaitsForDependents),
            take(Owner::Absent),
        );
        if solid.is_empty() && waiting.is_empty() && absent.is_empty() {
            return Vec::new();
        }
        if !solid.is_empty() {
            let drop: BTreeSet<String> = waiting.into_iter().chain(absent).collect();
            return if drop.is_empty() {
                Vec::new()
            } else {
                vec![Change::DropOwners(drop)]
            };
        }
        let freed: BTreeSet<String> = absent
            .iter()
            .filter(|owner| self.freed.contains(*owner))
            .cloned()
            .collect();
        if !freed.is_empty() {
            return vec![Change::DropOwners(freed)];
        }
        if !waiting.is_empty() {
            let mut changes = Vec::new();
            // Owners in a circle would wait for each other for ever.
            if self
                .dependents_of(uid)
                .any(|dependent| self.waits(dependent))
            {
                changes.push(Change::Unblock);
            }
            let has_dependents = self.dependents_of(uid).next().is_some();
            let policy = if has_dependents {
                Policy::Foreground
            } else {
                Policy::Background
            };
            changes.push(Change::Delete(policy));
            return changes;
        }
        let policy = if node.has_finalizer(ORPHAN) {
            Policy::Orphan
        } else if node.has_finalizer(FOREGROUND) {
            Policy::Foreground
        } else {
            Policy::Background
        };
        vec![Change::Delete(policy)]
    }

    fn plan_foreground(&self, uid: &str) -> Vec<Change> {
        let blocking: Vec<&String> = self
            .dependents_of(uid)
            .filter(|dependent| {
                self.nodes.get(*dependent).is_some_and(|node| {
                    node.owners()
                        .iter()
                        .any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
                })
            })
            .collect();
        if blocking.is_empty() {
            return vec![Change::DropFinalizer(FOREGROUND)];
        }
        blocking
            .into_iter()
            .filter(|dependent| {
                self.nodes
                    .get(*dependent)
                    .is_some_and(|node| !node.leaves())
            })
            .map(|dependent| Change::Later(Work::Examine(dependent.clone())))
            .collect()
    }
}
