//! The node agent: it makes the Pods bound to one node run, and says how they are.
//!
//! [`Kubelet::start`] registers the Node, renews its Lease, watches the Pods whose `spec.nodeName`
//! is its own and gives each a worker: a pure state machine (`pod::machine`) with an asynchronous
//! shell around it (`pod::worker`) that pulls images, mounts volumes, starts containers through a
//! [`runtime::Runtime`], probes them, and writes the status back in one patch per change. An HTTPS
//! server gives logs, exec, attach and port-forward to the API server.
//!
//! Invariants: the API is reached only through the [`kube::Client`] handed in; every fact needed
//! after a restart lies under the data directory; nothing polls: workers wake on watch events,
//! process exits, probe results and deadlines. Not here: starting processes (the spawner behind
//! the runtime), service addresses (the proxy), why a Pod exists (controllers, pipelines).

mod changes;
mod events;
mod logs;
mod network;
mod node;
mod pod;
mod quantity;
pub mod runtime;
mod server;
mod volume;

use std::fmt;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use stdx::{OnError, SharedClock, SharedRng, Supervisor};
use tokio::sync::{mpsc, oneshot};

use changes::Changes;
use events::Recorder;
use network::services::Services;
use node::addresses::Addresses;
use node::registration;
use node::resources::{self, Ledger};
use pod::Context;
use pod::manager::{DrainRequest, Manager};
use pod::registry::Registry;
use pod::status::NodeFacts;
use volume::Volumes;

/// What a kubelet needs to know; handed in by whoever composes the program.
pub struct Options {
    /// Reaches the API as `system:node:NAME`.
    pub client: kube::Client,
    /// Time.
    pub clock: SharedClock,
    /// Randomness: container ids.
    pub rng: SharedRng,
    /// The Node's name.
    pub node_name: String,
    /// Labels for the Node besides the well-known ones.
    pub node_labels: Vec<(String, String)>,
    /// Pods, volumes and logs live below this directory, `pods/UID/…`. It is made if missing.
    pub data_dir: PathBuf,
    /// The node's address: `hostIP`, and the Pod address of host-network Pods.
    pub node_ip: Ipv4Addr,
    /// Where Pod addresses come from: network and prefix length. The node's address and the
    /// network's first and last are never given out.
    pub pod_cidr: (Ipv4Addr, u8),
    /// Runs containers.
    pub runtime: Arc<dyn runtime::Runtime>,
    /// Knows images.
    pub images: Arc<dyn runtime::ImageService>,
    /// Where logs, exec and the rest are served.
    pub listener: TcpListener,
    /// Server certificate and the client certificates that are let in (required, not optional).
    pub tls: Arc<rustls::ServerConfig>,
    /// `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT` of every container.
    pub api_address: (String, u16),
    /// Ends the long service names, `cluster.local`.
    pub cluster_domain: String,
    /// [`Kubelet::drain`] leaves the containers running for the next start to find.
    pub leave_pods_running: bool,
    /// How many Pods the node takes.
    pub max_pods: u32,
    /// Capacity that the Node reports; `None` asks the operating system.
    pub capacity: Option<Capacity>,
    /// What `status.nodeInfo.kubeletVersion` says, `v1.34.2+coracle` for example.
    pub version: String,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("node_name", &self.node_name)
            .field("data_dir", &self.data_dir)
            .field("node_ip", &self.node_ip)
            .field("pod_cidr", &self.pod_cidr)
            .finish_non_exhaustive()
    }
}

/// What the node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a core.
    pub milli_cpu: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of the file system that holds the data directory.
    pub ephemeral_storage: u64,
}

/// Why the kubelet could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory is unusable.
    #[error("prepare {path}", path = path.display())]
    DataDir {
        /// Which folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The Pod range is too small or malformed.
    #[error("pod range {network}/{prefix} holds no addresses for pods (allowed: /8 to /29)")]
    PodRange {
        /// The network's address.
        network: Ipv4Addr,
        /// Its prefix length.
        prefix: u8,
    },
    /// The listener cannot be used.
    #[error("serve on the kubelet's port")]
    Listener(#[source] std::io::Error),
    /// The API refused a request that nothing works without.
    #[error("{attempt}")]
    Api {
        /// What was tried.
        attempt: String,
        /// What the API answered.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Removes what Pods of a data directory have outside of it, for whoever is about to remove the
/// directory. No kubelet may use it.
pub fn remove_leftovers(data_dir: &std::path::Path) -> std::io::Result<()> {
    let pods = match std::fs::read_dir(data_dir.join("pods")) {
        Ok(pods) => pods,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for pod in pods {
        volume::unmount(&pod?.path())?;
    }
    Ok(())
}

/// A running node agent.
#[derive(Debug)]
pub struct Kubelet {
    drains: mpsc::UnboundedSender<DrainRequest>,
    leave_pods_running: bool,
}

impl Kubelet {
    /// Registers the Node, takes up the Pods that an earlier start left and begins to watch. It
    /// answers when the Node is registered and `Ready`; its tasks belong to `supervisor`.
    pub async fn start(options: Options, supervisor: &Supervisor) -> Result<Self, Error> {
        let pods_dir = options.data_dir.join("pods");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&pods_dir)
            .and_then(|()| {
                // Secrets lie in there; containers get theirs mounted.
                std::fs::set_permissions(&pods_dir, std::fs::Permissions::from_mode(0o700))
            })
            .map_err(|source| Error::DataDir {
                path: pods_dir.clone(),
                source,
            })?;
        let (network, prefix) = options.pod_cidr;
        let addresses = Addresses::new(network, prefix, options.node_ip)?;
        options
            .listener
            .set_nonblocking(true)
            .map_err(Error::Listener)?;
        let listener =
            tokio::net::TcpListener::from_std(options.listener).map_err(Error::Listener)?;
        let port = listener.local_addr().map_err(Error::Listener)?.port();
        let capacity = options
            .capacity
            .unwrap_or_else(|| resources::measure(&options.data_dir));
        let facts = registration::Facts {
            name: options.node_name.clone(),
            labels: options.node_labels,
            node_ip: options.node_ip,
            port,
            capacity,
            max_pods: options.max_pods,
            pod_cidr: options.pod_cidr,
            runtime: options.runtime.info(),
            version: options.version,
        };
        let client = options.client;
        let clock = options.clock;
        let services = Services::start(&client, supervisor);
        let programs = options.data_dir.join("programs");
        let context = Arc::new(Context {
            client: client.clone(),
            clock: clock.clone(),
            rng: options.rng,
            node_name: options.node_name.clone(),
            data_dir: options.data_dir,
            node: NodeFacts {
                host_ip: options.node_ip,
                runtime: options.runtime.info().name,
            },
            runtime: options.runtime,
            images: options.images.clone(),
            recorder: Recorder::start(
                client.clone(),
                clock.clone(),
                &options.node_name,
                supervisor,
            ),
            volumes: Volumes {
                client: client.clone(),
                clock: clock.clone(),
                images: options.images,
                programs,
            },
            changes: Changes::new(client.clone(), supervisor.clone()),
            services,
            addresses,
            ledger: Ledger::new(capacity, options.max_pods),
            api_address: options.api_address,
            cluster_domain: options.cluster_domain,
            registry: Registry::default(),
            own_uid: rustix::process::geteuid().as_raw(),
        });
        server::serve(listener, options.tls, context.clone(), supervisor);
        let node = registration::register(&client, &facts, clock.now()).await?;
        let beating = registration::heartbeat(client, clock, facts, node);
        supervisor.spawn("kubelet-heartbeat", OnError::Log, async move {
            beating.await;
            Ok::<(), std::convert::Infallible>(())
        });
        let (drains, drain_requests) = mpsc::unbounded_channel();
        let manager = Manager::new(context, supervisor.clone());
        let running = Box::pin(manager.run(options.node_name, drain_requests));
        supervisor.spawn("kubelet-pods", OnError::Shutdown, async move {
            running.await;
            Ok::<(), std::convert::Infallible>(())
        });
        Ok(Self {
            drains,
            leave_pods_running: options.leave_pods_running,
        })
    }

    /// Ends this node's work: terminates every container within its grace period (or leaves them,
    /// see [`Options::leave_pods_running`]) and waits until that is done and reported. Call it
    /// before the API goes away.
    pub async fn drain(&self) {
        if self.leave_pods_running {
            return;
        }
        let (request, done) = oneshot::channel();
        if self.drains.send(request).is_ok() {
            // An error means that the manager is gone, and the Pods' workers with it.
            drop(done.await);
        }
    }
}
