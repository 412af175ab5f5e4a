//! Carries out what the graph of owners asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::graph::{Change, FOREGROUND, Graph, ORPHAN, Owner, Policy, Work};
use super::{Kind, Metadata, Monitors};
use crate::Error;
use crate::runtime::{self, Queue, Starter};

struct Collector {
    client: Client,
    monitors: Arc<Monitors>,
    graph: Arc<Mutex<Graph<Kind>>>,
    queue: Arc<Queue<Work>>,
}

/// Feeds a graph from `monitors` (which must not run yet); the returned function starts the work.
pub(crate) fn start(
    client: Client,
    monitors: &mut Monitors,
) -> impl FnOnce(Arc<Monitors>, &Starter) + use<> {
    let queue = Queue::new();
    let graph = Arc::new(Mutex::new(Graph::new()));
    let (keys, fed) = (queue.clone(), graph.clone());
    monitors.on_change(move |_, kind, change| {
        let mut graph = lock(&fed);
        let mut work = Vec::new();
        let uid = |object: &Arc<Metadata>| object.metadata.uid.clone();
        // The same name with another uid is another object.
        if let Some(old) = change
            .old
            .and_then(uid)
            .filter(|old| change.new.and_then(uid).as_ref() != Some(old))
        {
            work.extend(graph.remove(&old));
        }
        if let Some(new) = change.new {
            work.extend(graph.put(kind.clone(), &new.metadata));
        }
        drop(graph);
        for item in work {
            keys.add(item);
        }
    });
    move |monitors, starter| {
        let filled = vec![monitors.filled().boxed()];
        let collector = Arc::new(Collector {
            client,
            monitors,
            graph,
            queue: queue.clone(),
        });
        starter.run("garbage collector", queue, filled, move |work| {
            let collector = collector.clone();
            async move { collector.reconcile(work).await }
        });
    }
}

fn lock(graph: &Mutex<Graph<Kind>>) -> MutexGuard<'_, Graph<Kind>> {
    graph.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An object, its kind and what is known of it.
struct Item {
    kind: Arc<Kind>,
    metadata: Arc<ObjectMeta>,
}

impl Collector {
    async fn reconcile(&self, work: Work) -> runtime::Outcome {
        match work {
            Work::Examine(uid) => self.examine(&uid).await?,
            Work::SetFree(uid) => self.set_free(&uid).await?,
        }
        Ok(None)
    }

    fn item(&self, uid: &str) -> Option<Item> {
        let graph = lock(&self.graph);
        let node = graph.node(uid)?;
        Some(Item {
            kind: node.kind.clone(),
            metadata: node.metadata.clone(),
        })
    }

    async fn examine(&self, uid: &str) -> Result<(), Error> {
        let Some(item) = self.item(uid) else {
            return Ok(());
        };
        let doubtful = lock(&self.graph).doubtful_owners(uid);
        let namespace = item.metadata.namespace.clone().unwrap_or_default();
        let mut answers = BTreeMap::new();
        for owner in doubtful {
            answers.insert(owner.uid.clone(), self.ask(&owner, &namespace).await?);
        }
        let changes = lock(&self.graph).plan(uid, &answers);
        for change in changes {
            self.apply(&item, change).await?;
        }
        Ok(())
    }

    /// Asks the server about an owner.
    async fn ask(&self, owner: &OwnerReference, namespace: &str) -> Result<Owner, Error> {
        let kinds = self.monitors.kinds();
        let same = |kind: &&Arc<Kind>| {
            kind.resource.api_version == owner.api_version && kind.resource.kind == owner.kind
        };
        // Another version of the kind shows the same objects.
        let group = owner
            .api_version
            .rsplit_once('/')
            .map_or("", |(group, _)| group);
        let similar =
            |kind: &&Arc<Kind>| kind.resource.group == group && kind.resource.kind == owner.kind;
        let Some(kind) = kinds
            .iter()
            .find(same)
            .or_else(|| kinds.iter().find(similar))
        else {
            return Err(Error::NotYet(format!(
                "owner {} {} is of a kind that is not served",
                owner.api_version, owner.kind
            )));
        };
        if kind.namespaced && namespace.is_empty() {
            // An object of the whole cluster cannot have an owner inside a namespace.
            return Ok(Owner::Absent);
        }
        let found = kind
            .api(&self.client, namespace)
            .get_opt(&owner.name)
            .await
            .map_err(|source| failed("get", kind, &owner.name, source))?;
        Ok(
            match found.filter(|found| found.metadata.uid.as_deref() == Some(&owner.uid)) {
                None => Owner::Absent,
                Some(found) => {
                    let waits = found.metadata.deletion_timestamp.is_some()
                        && found
                            .metadata
                            .finalizers
                            .iter()
                            .flatten()
                            .any(|f| f == FOREGROUND);
                    if waits {
                        Owner::WaitsForDependents
                    } else {
                        Owner::Exists
                    }
                }
            },
        )
    }

    async fn apply(&self, item: &Item, change: Change) -> Result<(), Error> {
        match change {
            Change::Later(work) => {
                self.queue.add(work);
                Ok(())
            }
            Change::Delete(policy) => self.delete(item, policy).await,
            Change::DropOwners(owners) => self.drop_owners(item, &owners).await,
            Change::DropFinalizer(name) => self.drop_finalizer(item, name).await,
            Change::Unblock => {
                let mut owners = item.metadata.owner_references.clone().unwrap_or_default();
                for owner in &mut owners {
                    owner.block_owner_deletion = Some(false);
                }
                self.patch(item, json!({"ownerReferences": owners})).await
            }
        }
    }

    fn api(&self, item: &Item) -> Api<Metadata> {
        item.kind.api(
            &self.client,
            item.metadata.namespace.as_deref().unwrap_or_default(),
        )
    }

    async fn delete(&self, item: &Item, policy: Policy) -> Result<(), Error> {
        let name = item.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams {
            propagation_policy: Some(match policy {
                Policy::Background => PropagationPolicy::Background,
                Policy::Foreground => PropagationPolicy::Foreground,
                Policy::Orphan => PropagationPolicy::Orphan,
            }),
            preconditions: Some(Preconditions {
                uid: item.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        gone_is_fine(
            self.api(item)
                .delete(name, &params)
                .await
                .map(drop)
                .map_err(|source| failed("delete", &item.kind, name, source)),
        )
    }

    async fn drop_owners(&self, item: &Item, drop: &BTreeSet<String>) -> Result<(), Error> {
        let Some(current) = self.current(item).await? else {
            return Ok(());
        };
        let mut owners = current
            .metadata
            .owner_references
            .clone()
            .unwrap_or_default();
        owners.retain(|owner| !drop.contains(&owner.uid));
        let version = current.metadata.resource_version;
        let patch = json!({"ownerReferences": owners, "resourceVersion": version});
        self.patch(item, patch).await
    }

    async fn drop_finalizer(&self, item: &Item, name: &str) -> Result<(), Error> {
        let Some(current) = self.current(item).await? else {
            return Ok(());
        };
        let mut finalizers = current.metadata.finalizers.clone().unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == name) {
            return Ok(());
        }
        finalizers.retain(|finalizer| finalizer != name);
        let version = current.metadata.resource_version;
        self.patch(
            item,
            json!({"finalizers": finalizers, "resourceVersion": version}),
        )
        .await
    }

    /// The object as the server has it, if it is still the same one.
    async fn current(&self, item: &Item) -> Result<Option<Metadata>, Error> {
        let name = item.metadata.name.as_deref().unwrap_or_default();
        let found = self
            .api(item)
            .get_opt(name)
            .await
            .map_err(|source| failed("get", &item.kind, name, source))?;
        Ok(found.filter(|found| found.metadata.uid == item.metadata.uid))
    }

    async fn patch(&self, item: &Item, mut metadata: Value) -> Result<(), Error> {
        let name = item.metadata.name.as_deref().unwrap_or_default();
        metadata["uid"] = json!(item.metadata.uid);
        let patch = Patch::Merge(json!({"metadata": metadata}));
        gone_is_fine(
            self.api(item)
                .patch_metadata(name, &PatchParams::default(), &patch)
                .await
                .map(drop)
                .map_err(|source| failed("patch", &item.kind, name, source)),
        )
    }

    async fn set_free(&self, uid: &str) -> Result<(), Error> {
        let Some(owner) = self.item(uid) else {
            return Ok(());
        };
        let dependents: Vec<String> = lock(&self.graph).dependents_of(uid).cloned().collect();
        let drop = BTreeSet::from([uid.to_owned()]);
        let items = dependents
            .iter()
            .filter_map(|dependent| self.item(dependent));
        let freed = items.map(|item| {
            let drop = &drop;
            async move { self.drop_owners(&item, drop).await }
        });
        futures::future::join_all(freed)
            .await
            .into_iter()
            .collect::<Result<Vec<()>, _>>()?;
        self.drop_finalizer(&owner, ORPHAN).await
    }
}

fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        // Gone, or another object by now: its news is under way.
        Err(error) if error.is_not_found() || error.is_conflict() => {
            if error.is_not_found() {
                Ok(())
            } else {
                Err(error)
            }
        }
        other => other,
    }
}

fn failed(verb: &'static str, kind: &Kind, object: &str, source: kube::Error) -> Error {
    Error::Api {
        verb,
        kind: kind.resource.kind.clone(),
        object: object.to_owned(),
        source: Box::new(source),
    }
}
