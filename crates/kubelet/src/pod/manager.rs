//! Follows the Pods bound to this node and gives each a worker; at the first list it also finds the
//! Pods that were deleted while the kubelet was not running.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use stdx::{OnError, Supervisor};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::record::Record;
use super::worker::{Input, Worker};
use super::{Context, orphan, paths};

/// Asks the manager to end all Pods; answers when they have.
pub(crate) type DrainRequest = oneshot::Sender<()>;

/// Starts and feeds workers.
pub(crate) struct Manager {
    context: Arc<Context>,
    supervisor: Supervisor,
    workers: HashMap<String, mpsc::UnboundedSender<Input>>,
    /// Pods that have ended and need no worker until their objects go.
    ended: HashSet<String>,
    idle: mpsc::UnboundedSender<String>,
    idlers: mpsc::UnboundedReceiver<String>,
    /// Counts workers, so that a drain knows when the last has ended.
    tracker: TaskTracker,
    /// UIDs of the list that is being received.
    listing: HashSet<String>,
    first_list: bool,
    draining: bool,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("workers", &self.workers.len())
            .finish_non_exhaustive()
    }
}

impl Manager {
    pub(crate) fn new(context: Arc<Context>, supervisor: Supervisor) -> Self {
        let (idle, idlers) = mpsc::unbounded_channel();
        Self {
            context,
            supervisor,
            workers: HashMap::new(),
            ended: HashSet::new(),
            idle,
            idlers,
            tracker: TaskTracker::new(),
            listing: HashSet::new(),
            first_list: true,
            draining: false,
        }
    }

    /// Runs until dropped.
    pub(crate) async fn run(
        mut self,
        node_name: String,
        mut drains: mpsc::UnboundedReceiver<DrainRequest>,
    ) {
        self.reserve_addresses();
        // Hosts files and service variables must be right from a Pod's first moment.
        tokio::select! {
            () = self.context.services.ready() => {}
            // Nothing runs yet that could be ended; whoever asked hears it by the drop.
            Some(_) = drains.recv() => return,
        }
        let pods: Api<Pod> = Api::all(self.context.client.clone());
        let config = watcher::Config::default().fields(&format!("spec.nodeName={node_name}"));
        let mut stream = std::pin::pin!(watcher(pods, config).default_backoff());
        loop {
            tokio::select! {
                event = stream.next() => {
                    let Some(event) = event else { return };
                    match event {
                        Ok(event) => self.on_event(event),
                        Err(error) => {
                            tracing::warn!("watch pods: {}", stdx::error::chain(&error));
                        }
                    }
                }
                Some(uid) = self.idlers.recv() => {
                    // What was sent to it before is still heard; what comes after finds it here.
                    if self.workers.remove(&uid).is_some() {
                        self.ended.insert(uid);
                    }
                }
                Some(request) = drains.recv() => self.drain(request),
            }
        }
    }

    /// Removes what is left of an ended Pod whose object is gone.
    fn forget(&self, uid: &str) {
        self.context.registry.remove_uid(uid);
        let path = paths::pod_dir(&self.context.data_dir, uid);
        let context = self.context.clone();
        self.supervisor
            .spawn("kubelet-orphan", OnError::Log, async move {
                orphan::tear_down(context, path).await;
                Ok::<(), std::convert::Infallible>(())
            });
    }

    /// Keeps the addresses of Pods that an earlier start ran from being given to new ones, however
    /// their workers race.
    fn reserve_addresses(&self) {
        let pods = std::fs::read_dir(self.context.data_dir.join("pods"));
        for entry in pods.into_iter().flatten().flatten() {
            let Some(record) = Record::load(&entry.path()).filter(|r| !r.finished) else {
                continue;
            };
            if record.ip.is_some_and(|ip| ip != self.context.node.host_ip) {
                self.context.addresses.assign(&record.uid, record.ip);
            }
        }
    }

    fn on_event(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listing.clear(),
            watcher::Event::InitApply(pod) => {
                self.listing.insert(pod.uid().unwrap_or_default());
                self.apply(pod);
            }
            watcher::Event::Apply(pod) => self.apply(pod),
            watcher::Event::Delete(pod) => {
                let uid = pod.uid().unwrap_or_default();
                if let Some(worker) = self.workers.remove(&uid) {
                    // A worker that has ended has nothing to remove.
                    drop(worker.send(Input::Removed));
                } else if self.ended.remove(&uid) {
                    self.forget(&uid);
                }
            }
            watcher::Event::InitDone => {
                let gone: Vec<String> = self
                    .workers
                    .keys()
                    .filter(|u| !self.listing.contains(*u))
                    .cloned()
                    .collect();
                for uid in gone {
                    if let Some(worker) = self.workers.remove(&uid) {
                        drop(worker.send(Input::Removed));
                    }
                }
                let listing = &self.listing;
                let gone: Vec<String> = self
                    .ended
                    .extract_if(|uid| !listing.contains(uid))
                    .collect();
                for uid in gone {
                    self.forget(&uid);
                }
                if std::mem::take(&mut self.first_list) {
                    self.end_orphans();
                }
            }
        }
    }

    fn apply(&mut self, mut pod: Pod) {
        // Who wrote what is nothing to a node, and often the larger part.
        pod.metadata.managed_fields = None;
        let uid = pod.uid().unwrap_or_default();
        let pod = Arc::new(pod);
        if let Some(worker) = self.workers.get(&uid) {
            drop(worker.send(Input::Pod(pod)));
            return;
        }
        if self.draining {
            return;
        }
        if self.ended.contains(&uid) {
            if pod.metadata.deletion_timestamp.is_none() {
                return;
            }
            self.ended.remove(&uid);
        }
        let (sender, inputs) = mpsc::unbounded_channel();
        let worker = Worker::new(self.context.clone(), pod, inputs, self.idle.clone());
        self.workers.insert(uid, sender);
        let running = self.tracker.track_future(Box::pin(worker.run()));
        self.supervisor
            .spawn("kubelet-pod", OnError::Log, async move {
                running.await;
                Ok::<(), std::convert::Infallible>(())
            });
    }

    /// Ends what is left of Pods that are not in the first list.
    fn end_orphans(&self) {
        let pods = self.context.data_dir.join("pods");
        let entries = match std::fs::read_dir(&pods) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(path = %pods.display(), "look for pods of an earlier start: {error}");
                return;
            }
        };
        for entry in entries.flatten() {
            let uid = entry.file_name().to_string_lossy().into_owned();
            if self.listing.contains(&uid) {
                continue;
            }
            let (context, path) = (self.context.clone(), entry.path());
            self.supervisor
                .spawn("kubelet-orphan", OnError::Log, async move {
                    orphan::tear_down(context, path).await;
                    Ok::<(), std::convert::Infallible>(())
                });
        }
    }

    fn drain(&mut self, request: DrainRequest) {
        self.draining = true;
        for worker in self.workers.values() {
            drop(worker.send(Input::Drain));
        }
        self.tracker.close();
        let tracker = self.tracker.clone();
        self.supervisor.spawn_graceful("kubelet-drain", async move {
            tracker.wait().await;
            // Whoever asked may have given up.
            let _ = request.send(());
        });
    }
}
