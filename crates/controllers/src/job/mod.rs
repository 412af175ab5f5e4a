//! Job: runs Pods until enough of them have succeeded.

mod conditions;
mod indexes;
mod plan;
mod pods;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::FutureExt as _;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions, PropagationPolicy};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use stdx::SharedClock;

use self::plan::{Change, Observed};
use self::pods::FINALIZER;
use crate::runtime::{self, Handle, Informers, Key, Queue, Recorder, Starter};
use crate::{Error, meta};

struct Controller {
    jobs: Handle<Job>,
    /// Deletes Jobs that have outlived themselves, under its own identity.
    expired: Handle<Job>,
    pods: Handle<Pod>,
    events: Recorder,
    clock: SharedClock,
}

pub(crate) fn start(
    client: &Client,
    ttl_client: &Client,
    informers: &Informers,
    events: Recorder,
    starter: &Starter,
) {
    let queue = Queue::new();
    let keys = queue.clone();
    informers.jobs.on_change(move |change| {
        if let Some(job) = change.latest() {
            keys.add(Key::of(job.as_ref()));
        }
    });
    let (keys, jobs) = (queue.clone(), informers.jobs.clone());
    informers.pods.on_change(move |change| {
        for pod in change.sides() {
            let namespace = pod.namespace().unwrap_or_default();
            match meta::controller_of(&pod.metadata) {
                Some(owner) if owner.kind == "Job" => keys.add(Key::new(namespace, &owner.name)),
                Some(_) => {}
                None => jobs.list(&namespace).iter().for_each(|job| {
                    let spec = job.spec.as_ref();
                    let selector = spec
                        .and_then(|spec| spec.selector.as_ref())
                        .and_then(meta::workload_selector);
                    if selector.is_some_and(|selector| meta::selects(&selector, &pod.metadata)) {
                        keys.add(Key::of(job.as_ref()));
                    }
                }),
            }
        }
    });
    let controller = Arc::new(Controller {
        jobs: Handle::new(client, &informers.jobs),
        expired: Handle::new(ttl_client, &informers.jobs),
        pods: Handle::new(client, &informers.pods),
        events,
        clock: starter.clock.clone(),
    });
    let synced = vec![
        informers.jobs.synced().boxed(),
        informers.pods.synced().boxed(),
    ];
    starter.run("job", queue, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> runtime::Outcome {
        let Some(job) = self.jobs.get(key) else {
            let stranded = plan::stranded(&self.pods.list(&key.namespace), &key.name);
            if !stranded.is_empty() && self.jobs.live(key).await?.is_none() {
                for pod in stranded {
                    self.free(&pod).await?;
                }
            }
            return Ok(None);
        };
        let observed = Observed {
            job: job.clone(),
            pods: self.pods.list(&key.namespace),
            now: self.clock.now(),
        };
        let plan = plan::plan(&observed);
        if plan.expired {
            self.expire(&job).await?;
            return Ok(None);
        }
        let before = plan
            .before
            .into_iter()
            .map(|change| self.apply(&job, change));
        let results = futures::future::join_all(before).await;
        let failed = results.into_iter().find_map(Result::err);
        // The status speaks of Pods that were to be created; when they were not, the next try
        // brings it in order.
        if failed.is_none() {
            if let Some(status) = plan.status {
                let mut updated = job.as_ref().clone();
                updated.status = Some(status);
                self.jobs.replace_status(&updated).await?;
            }
            for change in plan.after {
                self.apply(&job, change).await?;
            }
        }
        failed.map_or(Ok(plan.again), Err)
    }

    async fn apply(&self, job: &Job, change: Change) -> Result<(), Error> {
        match change {
            Change::Adopt(pod) => {
                let live = self.jobs.live(&Key::of(job)).await?;
                if live.is_some_and(|live| {
                    live.uid() == job.uid() && live.metadata.deletion_timestamp.is_none()
                }) {
                    let mut owners = pod.owner_references().to_vec();
                    owners.push(meta::controller_ref(job));
                    let mut finalizers = pod.finalizers().to_vec();
                    finalizers.push(FINALIZER.to_owned());
                    let patch = json!({"metadata": {"uid": pod.uid(), "ownerReferences": owners,
                        "finalizers": finalizers}});
                    self.pods.patch(&Key::of(pod.as_ref()), patch).await?;
                }
            }
            Change::Release(pod) => {
                let mut owners = pod.owner_references().to_vec();
                owners.retain(|owner| Some(&owner.uid) != job.metadata.uid.as_ref());
                let mut finalizers = pod.finalizers().to_vec();
                finalizers.retain(|finalizer| finalizer != FINALIZER);
                let patch = json!({"metadata": {"uid": pod.uid(), "ownerReferences": owners,
                    "finalizers": finalizers}});
                self.pods.patch(&Key::of(pod.as_ref()), patch).await?;
            }
            Change::Create(pod) => match self.pods.create(&pod).await {
                Ok(created) => {
                    let message = format!("Created pod: {}", created.name_any());
                    self.events.normal(job, "SuccessfulCreate", message);
                }
                Err(error) if error.is_namespace_terminating() => {}
                Err(error) => {
                    let message = format!("Error creating: {}", error.message());
                    self.events.warning(job, "FailedCreate", message);
                    return Err(error);
                }
            },
            Change::Delete(pod) => {
                self.pods.delete(&pod, DeleteParams::default()).await?;
                let message = format!("Deleted pod: {}", pod.name_any());
                self.events.normal(job, "SuccessfulDelete", message);
            }
            Change::Free(pod) => self.free(&pod).await?,
            Change::Normal { reason, message } => self.events.normal(job, reason, message),
            Change::Warning { reason, message } => self.events.warning(job, reason, message),
        }
        Ok(())
    }

    async fn free(&self, pod: &Pod) -> Result<(), Error> {
        let mut finalizers = pod.finalizers().to_vec();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        let patch = json!({"metadata": {"uid": pod.uid(), "finalizers": finalizers,
            "resourceVersion": pod.resource_version()}});
        match self.pods.patch(&Key::of(pod), patch).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    async fn expire(&self, job: &Job) -> Result<(), Error> {
        if job.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(Preconditions {
                uid: job.uid(),
                resource_version: job.resource_version(),
            }),
            ..DeleteParams::default()
        };
        self.expired.delete(job, params).await
    }
}
