//! Pods that were deleted while the kubelet was not looking: their processes are ended and their
//! directories removed.

use std::path::PathBuf;
use std::sync::Arc;

use super::machine::MINIMUM_GRACE;
use super::record::Record;
use super::{Context, SIGKILL, SIGTERM};
use crate::runtime::{ContainerRef, Recovered};
use crate::volume;

/// Tears down what is left of a Pod.
pub(crate) async fn tear_down(context: Arc<Context>, pod_dir: PathBuf) {
    if let Some(record) = Record::load(&pod_dir) {
        tracing::info!(
            namespace = record.namespace,
            pod = record.name,
            "the pod was deleted meanwhile, its containers are ended"
        );
        let live = record.containers.values().filter_map(|c| c.live.clone());
        futures::future::join_all(live.map(|id| end(&context, id))).await;
    }
    if let Some(uid) = pod_dir.file_name() {
        context.addresses.release(&uid.to_string_lossy());
    }
    let removed = volume::unmount(&pod_dir).and_then(|()| volume::remove_tree(&pod_dir));
    if let Err(error) = removed {
        tracing::warn!(path = %pod_dir.display(), "remove what a deleted pod left: {error}");
    }
}

async fn end(context: &Context, id: ContainerRef) {
    let runtime = &context.runtime;
    if matches!(runtime.recover(&id).await, Ok(Recovered::Running(_))) {
        let mut gone = runtime.wait(&id);
        for (signal, patience) in [(SIGTERM, Some(MINIMUM_GRACE)), (SIGKILL, None)] {
            if let Err(error) = runtime.signal(&id, signal).await {
                tracing::debug!(container = id.id, "signal {signal}: {error}");
            }
            let over = match patience {
                Some(patience) => tokio::select! {
                    _ = &mut gone => true,
                    () = context.clock.sleep(patience) => false,
                },
                None => (&mut gone).await.is_ok(),
            };
            if over {
                break;
            }
        }
    }
    if let Err(error) = runtime.remove(&id).await {
        tracing::debug!(container = id.id, "remove: {error}");
    }
}
