//! Keeps the files of a running Pod's volumes up to date: on changes of ConfigMaps and Secrets, of
//! the Pod's own labels and annotations, and before tokens expire.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::{Origins, Volumes, files_dir, projected};
use crate::changes::Changes;
use crate::pod::downward::Facts;

/// The pause after a refresh that failed for want of the API.
const RETRY: Duration = Duration::from_secs(30);

/// Runs until dropped. `origins` says what the files were made from.
pub(crate) async fn run(
    volumes: Volumes,
    changes: Changes,
    mut pod: watch::Receiver<Arc<Pod>>,
    pod_dir: PathBuf,
    facts: Facts,
    mut origins: Origins,
) {
    loop {
        let mut current = pod.borrow_and_update().clone();
        wait(&volumes, &changes, &mut pod, &mut current, &origins).await;
        let mut fresh = Origins::default();
        let mut failed = false;
        let list = current.spec.as_ref().and_then(|s| s.volumes.as_ref());
        for volume in list
            .into_iter()
            .flatten()
            .filter(|v| projected::is_made_of_files(v))
        {
            let dir = files_dir(&pod_dir, &volume.name);
            if let Err(problem) = volumes
                .write_files(&current, volume, &dir, &facts, &mut fresh)
                .await
            {
                // The old files stay: a Pod that runs is not ended because its source went away.
                tracing::debug!(volume = volume.name, "refresh: {}", problem.text);
                failed = true;
            }
        }
        if failed && fresh.renew_at.is_none() && origins.renew_at.is_some() {
            let again = volumes.clock.now().saturating_add(RETRY).ok();
            fresh.renew_at = again.or(origins.renew_at);
        }
        for (key, version) in origins.objects {
            fresh.objects.entry(key).or_insert(version);
        }
        origins = fresh;
    }
}

/// Completes when the files may have to change.
async fn wait(
    volumes: &Volumes,
    changes: &Changes,
    pod: &mut watch::Receiver<Arc<Pod>>,
    current: &mut Arc<Pod>,
    origins: &Origins,
) {
    let mut objects: FuturesUnordered<_> = origins
        .objects
        .iter()
        .map(|(key, version)| {
            let mut subscription = changes.subscribe(key);
            async move { subscription.differs_from(version.as_deref()).await }
        })
        .collect();
    let renewal = async {
        match origins.renew_at {
            Some(at) => {
                let left = at.duration_since(volumes.clock.now());
                volumes
                    .clock
                    .sleep(Duration::try_from(left).unwrap_or_default())
                    .await;
            }
            None => std::future::pending().await,
        }
    };
    let labels_changed = async {
        loop {
            if pod.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let latest = pod.borrow_and_update().clone();
            let changed = latest.metadata.labels != current.metadata.labels
                || latest.metadata.annotations != current.metadata.annotations;
            *current = latest;
            if changed {
                return;
            }
        }
    };
    tokio::select! {
        Some(()) = objects.next() => {}
        () = renewal => {}
        () = labels_changed => {}
    }
}
