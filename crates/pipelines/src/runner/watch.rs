//! The one watch of Pods for all runs.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};

use super::actor::Message;
use super::pod::{RUN_LABEL, WORKFLOW_LABEL};
use super::{Error, Shared};

/// Hands every change of a run's Pod to the run's task, for ever.
pub(super) async fn run(shared: Arc<Shared>) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &shared.options.namespace);
    let config = watcher::Config::default().labels(WORKFLOW_LABEL);
    let mut changes = pin!(watcher(api, config).default_backoff());
    let mut names = BTreeSet::new();
    while let Some(change) = changes.next().await {
        match change {
            Ok(watcher::Event::Init) => names.clear(),
            Ok(watcher::Event::InitApply(pod)) => {
                names.insert(pod.name_any());
                hand_over(&shared, pod, Message::Pod);
            }
            Ok(watcher::Event::InitDone) => {
                let all = Arc::new(std::mem::take(&mut names));
                shared.send_all(|| Message::PodsAre(all.clone()));
            }
            Ok(watcher::Event::Apply(pod)) => hand_over(&shared, pod, Message::Pod),
            Ok(watcher::Event::Delete(pod)) => hand_over(&shared, pod, Message::PodGone),
            // The stream backs off and starts over by itself.
            Err(error) => tracing::warn!("watch pods: {}", stdx::error::chain(&error)),
        }
    }
    Ok(())
}

fn hand_over(shared: &Shared, pod: Pod, message: impl Fn(Arc<Pod>) -> Message) {
    let Some(run) = pod.labels().get(RUN_LABEL).cloned() else {
        return;
    };
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    tracing::trace!(pod = pod.name_any(), phase, "pod news");
    shared.send(&run, message(Arc::new(pod)));
}
