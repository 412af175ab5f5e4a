//! Namespace: empties a namespace that is being deleted, custom resources included, and lets it
//! go once nothing is left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::discovery::verbs;
use kube::{Api, Client, ResourceExt as _};
use stdx::SharedClock;

use crate::Error;
use crate::garbage::{Kind, Metadata, Monitors};
use crate::meta;
use crate::runtime::{self, Handle, Informers, Key, Queue, Starter};

/// The finalizer of `spec.finalizers` that stands for this controller.
const FINALIZER: &str = "kubernetes";

/// How many kinds are emptied at the same time.
const CONCURRENCY: usize = 8;

/// How long after a look at what remains the next follows, if no news comes before. Kinds that
/// cannot be watched tell nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

struct Controller {
    client: Client,
    namespaces: Handle<Namespace>,
    monitors: Arc<Monitors>,
    clock: SharedClock,
}

/// Registers with `monitors` (which must not run yet); the returned function starts the work.
pub(crate) fn start(
    client: Client,
    informers: &Informers,
    monitors: &mut Monitors,
) -> impl FnOnce(Arc<Monitors>, &Informers, &Starter) + use<> {
    let queue = Queue::new();
    let keys = queue.clone();
    informers.namespaces.on_change(move |change| {
        if let Some(namespace) = change
            .new
            .filter(|n| n.metadata.deletion_timestamp.is_some())
        {
            keys.add(Key::of(namespace.as_ref()));
        }
    });
    let (keys, namespaces) = (queue.clone(), informers.namespaces.clone());
    monitors.on_change(move |monitors, _, change| {
        // Something left; in a namespace that is to go, it may have been the last.
        if let (Some(old), None) = (change.old, change.new) {
            let key = Key::new("", old.metadata.namespace.clone().unwrap_or_default());
            let leaving = namespaces
                .get(&key)
                .is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some());
            if leaving && !monitors.holds(&key.name) {
                keys.add(key);
            }
        }
    });
    move |monitors, informers, starter| {
        let controller = Arc::new(Controller {
            namespaces: Handle::new(&client, &informers.namespaces),
            client,
            monitors,
            clock: starter.clock.clone(),
        });
        let synced = vec![
            informers.namespaces.synced().boxed(),
            controller.monitors.filled().boxed(),
        ];
        starter.run("namespace", queue, synced, move |key| {
            let controller = controller.clone();
            async move { controller.reconcile(&key).await }
        });
    }
}

/// What is left of one kind after everything was told to go.
#[derive(Debug, Default, PartialEq)]
struct Remainder {
    kind: String,
    objects: usize,
    finalizers: BTreeMap<String, usize>,
    error: Option<String>,
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> runtime::Outcome {
        let Some(namespace) = self.namespaces.get(key) else {
            return Ok(None);
        };
        let ours = |name: &String| name == FINALIZER;
        let finalizers = namespace
            .spec
            .as_ref()
            .and_then(|spec| spec.finalizers.as_ref());
        if namespace.metadata.deletion_timestamp.is_none()
            || !finalizers.is_some_and(|all| all.iter().any(ours))
        {
            return Ok(None);
        }
        let kinds = self.monitors.kinds();
        let mut emptied = Vec::new();
        for kind in kinds.iter() {
            let full = kind.namespaced && kind.supports(verbs::LIST);
            if full && kind.supports(verbs::DELETE) {
                emptied.push(self.empty(kind.clone(), key.name.clone()));
            }
        }
        let remains: Vec<Remainder> = futures::stream::iter(emptied)
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let remains: Vec<Remainder> = remains
            .into_iter()
            .filter(|remainder| remainder.objects > 0 || remainder.error.is_some())
            .collect();
        if remains.is_empty() {
            self.finalize(&namespace).await?;
            return Ok(None);
        }
        let status = status(&namespace, remains, self.clock.now());
        if namespace.status.as_ref() != Some(&status) {
            let mut updated = namespace.as_ref().clone();
            updated.status = Some(status);
            match self.namespaces.replace_status(&updated).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(Some(LOOK_AGAIN))
    }

    async fn empty(&self, kind: Arc<Kind>, namespace: String) -> Remainder {
        let mut remainder = Remainder {
            kind: plural_of(&kind),
            ..Remainder::default()
        };
        match self.try_to_empty(&kind, &namespace).await {
            Ok(left) => {
                remainder.objects = left.len();
                for finalizer in left
                    .iter()
                    .flat_map(|o| o.metadata.finalizers.iter().flatten())
                {
                    *remainder.finalizers.entry(finalizer.clone()).or_default() += 1;
                }
            }
            // The kind went away meanwhile, and its objects with it.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 405 => {}
            Err(error) => remainder.error = Some(stdx::error::chain(&error)),
        }
        remainder
    }

    async fn try_to_empty(&self, kind: &Kind, namespace: &str) -> kube::Result<Vec<Metadata>> {
        let api = kind.api(&self.client, namespace);
        let found = api.list(&ListParams::default()).await?.items;
        let stay: Vec<_> = found
            .iter()
            .filter(|object| object.metadata.deletion_timestamp.is_none())
            .collect();
        if stay.is_empty() {
            return Ok(found);
        }
        if kind.supports(verbs::DELETE_COLLECTION) {
            api.delete_collection(&DeleteParams::background(), &ListParams::default())
                .await?;
        } else {
            for object in stay {
                let deleted = api
                    .delete(&object.name_any(), &DeleteParams::background())
                    .await;
                match deleted {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    other => drop(other?),
                }
            }
        }
        Ok(api.list(&ListParams::default()).await?.items)
    }

    async fn finalize(&self, namespace: &Namespace) -> Result<(), Error> {
        let mut updated = namespace.clone();
        let finalizers = updated
            .spec
            .get_or_insert_default()
            .finalizers
            .get_or_insert_default();
        finalizers.retain(|name| name != FINALIZER);
        let name = namespace.name_any();
        let api: Api<Namespace> = Api::all(self.client.clone());
        let result: kube::Result<Namespace> = api
            .replace_subresource("finalize", &name, &PostParams::default(), &updated)
            .await;
        match result {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(Error::Api {
                verb: "finalize",
                kind: "Namespace".to_owned(),
                object: name,
                source: Box::new(source),
            }),
            Ok(_) => Ok(()),
        }
    }
}

fn plural_of(kind: &Kind) -> String {
    if kind.resource.group.is_empty() {
        kind.resource.plural.clone()
    } else {
        format!("{}.{}", kind.resource.plural, kind.resource.group)
    }
}

/// The conditions that say what holds the namespace.
fn status(namespace: &Namespace, mut remains: Vec<Remainder>, now: Timestamp) -> NamespaceStatus {
    remains.sort_by(|a, b| a.kind.cmp(&b.kind));
    let errors: Vec<String> = remains
        .iter()
        .filter_map(|left| Some(format!("{}: {}", left.kind, left.error.as_ref()?)))
        .collect();
    let objects: Vec<String> = remains
        .iter()
        .filter(|left| left.objects > 0)
        .map(|left| format!("{} has {} resource instances", left.kind, left.objects))
        .collect();
    let mut by_finalizer: BTreeMap<&String, usize> = BTreeMap::new();
    for (name, count) in remains.iter().flat_map(|left| &left.finalizers) {
        *by_finalizer.entry(name).or_default() += count;
    }
    let finalizers: Vec<String> = by_finalizer
        .iter()
        .map(|(name, count)| format!("{name} in {count} resource instances"))
        .collect();
    let found = [
        condition(
            "NamespaceDeletionDiscoveryFailure",
            None,
            (
                "ResourcesDiscovered",
                "All resources successfully discovered",
            ),
            now,
        ),
        condition(
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            (
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed",
            ),
            now,
        ),
        condition(
            "NamespaceDeletionContentFailure",
            (!errors.is_empty()).then(|| {
                let message = format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    errors.len(),
                    errors.join(", ")
                );
                ("ContentDeletionFailed", message)
            }),
            (
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
            now,
        ),
        condition(
            "NamespaceContentRemaining",
            (!objects.is_empty()).then(|| {
                let message = format!("Some resources are remaining: {}", objects.join(", "));
                ("SomeResourcesRemain", message)
            }),
            ("ContentRemoved", "All content successfully removed"),
            now,
        ),
        condition(
            "NamespaceFinalizersRemaining",
            (!finalizers.is_empty()).then(|| {
                let list = finalizers.join(", ");
                let message =
                    format!("Some content in the namespace has finalizers remaining: {list}");
                ("SomeFinalizersRemain", message)
            }),
            (
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            ),
            now,
        ),
    ];
    let mut status = namespace.status.clone().unwrap_or_default();
    status.phase = Some("Terminating".to_owned());
    let conditions = status.conditions.get_or_insert_default();
    for mut new in found {
        match conditions.iter_mut().find(|old| old.type_ == new.type_) {
            Some(old) => {
                if old.status == new.status {
                    new.last_transition_time = old.last_transition_time.clone();
                }
                *old = new;
            }
            None => conditions.push(new),
        }
    }
    status
}

fn condition(
    type_: &str,
    problem: Option<(&str, String)>,
    fine: (&str, &str),
    now: Timestamp,
) -> NamespaceCondition {
    let status = if problem.is_some() { "True" } else { "False" };
    let (reason, message) = problem.unwrap_or_else(|| (fine.0, fine.1.to_owned()));
    NamespaceCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(meta::whole_seconds(now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_is_named_in_the_conditions_and_times_stay_while_nothing_changes() {
        let left = || {
            vec![Remainder {
                kind: "pods".to_owned(),
                objects: 2,
                finalizers: BTreeMap::from([("a/b".to_owned(), 1)]),
                error: None,
            }]
        };
        let mut namespace = Namespace::default();
        let first = status(&namespace, left(), Timestamp::UNIX_EPOCH);
        let message = |type_: &str| {
            let all = first.conditions.as_ref().unwrap();
            let found = all.iter().find(|c| c.type_ == type_).unwrap();
            (found.status.clone(), found.message.clone().unwrap())
        };
        assert_eq!(
            message("NamespaceContentRemaining"),
            (
                "True".to_owned(),
                "Some resources are remaining: pods has 2 resource instances".to_owned()
            )
        );
        assert_eq!(
            message("NamespaceFinalizersRemaining").1,
            "Some content in the namespace has finalizers remaining: a/b in 1 resource instances"
        );
        assert_eq!(message("NamespaceDeletionContentFailure").0, "False");
        namespace.status = Some(first.clone());
        assert_eq!(status(&namespace, left(), Timestamp::MAX), first);
    }
}
